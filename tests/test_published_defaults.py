"""The defaults that a paper or its authors' code gives, as numbers, each with its source.

A row here changes only when a source is read anew. What no source gives is tuned and not listed.
"""

from __future__ import annotations

import pytest

from tfvae.models import model_class
from tfvae.models.ract import RaCT
from tfvae.nn.optimizers import OPTIMIZERS
from tfvae.training.settings import settings_of

LIANG = "Liang et al., WWW 2018, section 4.3, and dawenl/vae_cf"
KIM = "Kim and Suh, RecSys 2019, section 4, and psywaves/EVCF"
SHENBIN = "Shenbin et al., WSDM 2020, and ilya-shenbin/RecVAE, branch master"
LOBEL = "Lobel et al., ICLR 2020, and samlobel/RaCT_CF"
HE = "He et al., WWW 2017, and hexiangnan/neural_collaborative_filtering"
STECK = "Steck, WWW 2019, section 4; ML-20M"
STECK_EDLAE = "Steck, NeurIPS 2020, and hasteck/EDLAE_NeurIPS2020; ML-20M"

MULT_VAE = {
    "hidden": [600],
    "latent_dim": 200,
    "activation": "tanh",
    "dropout": 0.5,
    "likelihood": "multinomial",
    "weight_decay": 0.0,
    "beta_cap": 0.2,
    "anneal_updates": 200_000,
    "epochs": 200,
    "batch_size": 500,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "patience": None,
    "monitor": "ndcg@100",
    "seed": 98765,
}
EVCF = {
    "hidden": [600],
    "latent_dim": 200,
    "activation": "tanh",
    "dropout": 0.5,
    "weight_decay": 0.0,
    "initializer": "he",
    "separate_heads": True,
    "log_variance_range": [-12.0, 4.0],
    "divergence": "sampled",
    "beta_cap": 1.0,
    "warmup_epochs": 100,
    "epochs": 400,
    "batch_size": 200,
    "optimizer": "normalized-adam",
    "learning_rate": 5e-4,
    "patience": 50,
}
PUBLISHED = {
    "mult-vae": (LIANG, MULT_VAE),
    "mult-dae": (
        LIANG,
        {
            **{"hidden": [], "latent_dim": 200, "activation": "tanh", "dropout": 0.5, "likelihood": "multinomial"},
            "weight_decay": 0.01 / 500,  # of λ·Σ‖W‖²: half of it, doubled in the loss
            **{"epochs": 200, "batch_size": 500, "learning_rate": 1e-3},
        },
    ),
    "evcf-mult-vae": (KIM, EVCF),
    "vamp": (KIM, EVCF | {"n_pseudo_inputs": 1000}),
    "h-vamp": (KIM, EVCF | {"n_pseudo_inputs": 1000}),
    "recvae": (
        SHENBIN,
        {
            "hidden": [600] * 5,
            "latent_dim": 200,
            "activation": "swish",
            "dropout": 0.5,
            "layer_norm_epsilon": 0.1,
            "decoder_hidden": [],
            "initializer": "fan-in",
            "prior_type": "composite",
            "prior_weights": [3 / 20, 3 / 4, 1 / 10],  # standard normal, old posterior, wide normal
            "kl_weight": "rescaled",
            "gamma": 0.005,
            "alternation": [3, 1],
            "denoise_decoder": False,
            "divergence": "sampled",
            "epochs": 50 * (3 + 1),
            "batch_size": 500,
            "learning_rate": 5e-4,
            "monitor": "ndcg@100",
        },
    ),
    "ract": (
        LOBEL,
        {
            **{"hidden": [600], "latent_dim": 200, "dropout": 0.5, "beta_cap": 0.2, "anneal_updates": 200_000},
            **{"actor_epochs": 100, "critic_epochs": 50, "epochs": 100 + 50 + 50, "batch_size": 500},
            **{"learning_rate": 1e-3, "critic_learning_rate": 1e-4, "fine_tuning_rate": 2e-6},
            **{"critic_hidden": [100, 100, 10], "critic_features": ["seen", "unseen", "nll"], "cutoff": 100},
        },
    ),
    "neumf": (HE, {"negatives": 4, "mix": 0.5, "epochs": 20, "learning_rate": 1e-3, "optimizer": "adam"}),
    "gmf": (HE, {"negatives": 4, "epochs": 20, "learning_rate": 1e-3}),
    "mlp": (HE, {"negatives": 4, "epochs": 20, "learning_rate": 1e-3}),
    "ease": (STECK, {"regularization": 500.0}),
    "edlae": (STECK_EDLAE, {"dropout": 0.33, "regularization": 300.0}),
    "cdae": (LIANG, {"latent_dim": 200, "batch_size": 500}),
    "wmf": (LIANG, {"factors": 200, "weight": 10.0}),
    "slim": (LIANG, {"l1": 1.0, "l2": 1.0}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_defaults_are_the_published_settings(name):
    source, published = PUBLISHED[name]
    found = settings_of(name, {}).flat()
    assert {key: found[key] for key in published} == published, source


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in ("ease", "edlae", "slim", "wmf")])
def test_a_model_from_python_has_the_same_defaults(name):
    _, published = PUBLISHED[name]
    model = model_class(name)(30, 4) if model_class(name).has_user_weights else model_class(name)(30)
    for key in published.keys() & model_class(name).settings().keys():
        value = getattr(model, key)
        assert (list(value) if isinstance(value, tuple) else value) == published[key], key


def test_adam_has_the_usual_moments():
    for optimizer in OPTIMIZERS.values():
        adam = optimizer(1e-3)
        assert (adam.beta_1, adam.beta_2) == (0.9, 0.999)


def test_racts_least_ideal_gain_is_that_of_its_code():
    from tfvae.nn.ranking import LEAST_IDEAL

    assert LEAST_IDEAL == 0.1
    assert RaCT.settings()["cutoff"].default == 100
