"""The registry of recommenders: each has a name, and its module is imported when it is asked for.

A new model is one file and one line here; the conformance suite then tests it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tfvae.system.errors import unknown_name

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["MODELS", "model_class"]

MODELS = {
    "mult-vae": "tfvae.models.multvae:MultVAE",
    "mult-dae": "tfvae.models.multvae:MultDAE",
    "evcf-mult-vae": "tfvae.models.evcf:EVCFMultVAE",
    "vamp": "tfvae.models.vamp:Vamp",
    "h-vamp": "tfvae.models.hvamp:HVamp",
    "recvae": "tfvae.models.recvae:RecVAE",
    "ract": "tfvae.models.ract:RaCT",
    "autorec": "tfvae.models.autorec:AutoRec",
    "p-vae": "tfvae.models.pvae:PVAE",
    "two-sided-p-vae": "tfvae.models.two_sided:TwoSidedPVAE",
    "cdae": "tfvae.models.cdae:CDAE",
    "gmf": "tfvae.models.ncf:GMF",
    "mlp": "tfvae.models.ncf:MLP",
    "neumf": "tfvae.models.ncf:NeuMF",
    "rbm": "tfvae.models.rbm:RBM",
    "meld": "tfvae.models.meld:MELD",
    "popularity": "tfvae.models.popularity:Popularity",
    "bpr": "tfvae.models.bpr:BPR",
    "wmf": "tfvae.models.wmf:WMF",
    "rp3beta": "tfvae.models.rp3beta:RP3Beta",
    "slim": "tfvae.models.slim:SLIM",
    "ease": "tfvae.models.ease:EASE",
    "edlae": "tfvae.models.edlae:EDLAE",
    "nnmf": "tfvae.models.nnmf:NNMF",
    "llorma": "tfvae.models.llorma:LLORMA",
    "pmf": "tfvae.models.pmf:PMF",
    "bias-mf": "tfvae.models.pmf:BiasMF",
    "ensemble": "tfvae.models.ensemble:Ensemble",
    "rating-ensemble": "tfvae.models.ensemble:RatingEnsemble",
}


def model_class(name: str) -> type[Recommender]:
    """The class of a registered recommender.

    Raises:
        InputError: When no recommender has that name.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    module, attribute = MODELS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
