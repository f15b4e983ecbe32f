"""A whole file of each kind that a run, a sweep or a table is stored in, small and made up."""

from __future__ import annotations

import hashlib
from typing import Any

from tfvae.system.files import digest
from tfvae.training.settings import settings_of

__all__ = ["CLAIM", "OUTCOME", "RUN", "SWEEP", "TABLE", "WHOLE"]

_SETTINGS = settings_of("mult-vae", {"hidden": (8,), "latent_dim": 4, "epochs": 3})
_ENVIRONMENT = {"versions": {"tfvae": "0.1.0"}, "python": "3.11.7", "platform": "Linux", "device": "CPU", "cores": 2}
_FIGURES = {"mean": 0.25, "se": 0.01, "low": 0.23, "high": 0.27}

WHOLE = {"model.keras": "the weights", "items.npz": "the items"}

CLAIM: dict[str, Any] = {
    "format": "tfvae run",
    "version": 1,
    "settings": _SETTINGS.flat(),
    "data_digest": digest("the data"),
}

OUTCOME: dict[str, Any] = {
    "history": [{"loss": 9.5 - epoch, "val_ndcg@100": 0.1 + epoch / 10, "seconds": 0.5} for epoch in range(3)],
    "best_epoch": 2,
    "seconds": 1.5,
    "selected_beta": None,
    "claim": digest(_SETTINGS.flat(), CLAIM["data_digest"]),
    "files": {name: hashlib.sha256(content.encode()).hexdigest() for name, content in WHOLE.items()},
}

RUN: dict[str, Any] = {
    "table": "mine",
    "row": "Mult-VAE",
    "slug": "multvae",
    "dataset": "ml-1m",
    "model": "mult-vae",
    "seed": 1,
    "metrics": {"recall@20": _FIGURES, "ndcg@100": _FIGURES},
    "validation": 0.24,
    "users": 40,
    "users_without_targets": 1,
    "settings": _SETTINGS.flat(),
    "overrides": {"epochs": 3},
    "tuned": {"trials": 8, "failed": 0, "epochs": None, "value": 0.24},
    "shortened": True,
    "shortened_why": "3 of 200 epochs",
    "environment": _ENVIRONMENT,
    "seconds": 16.9,
    "peak_memory_gb": 1.5,
    "epochs": 3,
    "best_epoch": 2,
    "selected_beta": None,
    "parameters": 1_567_211,
    "latents": {"active_units": 3.0},
    "predictive": None,
    "lists": {"k": 20.0, "coverage": 0.6, "popularity": 0.2, "similarity": 0.3, "users_per_second": 4200.5},
    "intervals": {"crps": 0.45, "within_50": 0.5, "within_90": 0.88, "sd": 0.8},
    "watched": {"ndcg@100": [0.1, 0.2, 0.24]},
    "history": [0.16, 0.18, 0.24],
    "validated": None,
    "work": "mult-vae.seed1-1104845e",
    "commit": None,
    "data": {"events": 68_205, "density": 0.005},
    "data_digest": digest("the data"),
}

SWEEP: dict[str, Any] = {
    "table": "mine",
    "row": "Mult-VAE",
    "dataset": "ml-1m",
    "seed": 0,
    "monitor": "ndcg@100",
    "epochs": None,
    "settings": _SETTINGS.flat(),
    "space": {
        "dropout": {"low": 0.2, "high": 0.8, "log": False, "step": None, "choices": None},
        "latent_dim": {"low": 2, "high": 64, "log": True, "step": None, "choices": None},
        "hidden": {"low": None, "high": None, "log": False, "step": None, "choices": [[], [8], [16, 8]]},
    },
    "environment": _ENVIRONMENT,
    "commit": None,
    "data_digest": digest("the data"),
    "trials": [
        {
            "number": number,
            "state": "failed" if number == 1 else "complete",
            "params": {"dropout": 0.5, "latent_dim": 4, "hidden": [8]},
            "value": None if number == 1 else 0.2 + number / 100,
            "best_epoch": None if number == 1 else 2,
            "seconds": 1.4,
            "reason": "the loss is no longer a number" if number == 1 else None,
        }
        for number in range(3)
    ],
}

TABLE = """\
title = "Mine"
paper = "None, 2018"
caption = "For tests."
metrics = ["recall@5", "ndcg@10"]
monitor = "ndcg@10"
seeds = [1, 2]
watch_test = false
orderings = [{ above = "mult-dae", below = "popularity", source = "section 5" }]

[published]
ml-20m = { source = "Table 9", standard_error = 0.002 }

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = { latent_dim = 8, hidden = [600] }
datasets.netflix = { dropout = 0.3 }
published.ml-20m = { "ndcg@10" = 0.5, "recall@5" = 0.4 }
search.dropout = { low = 0.2, high = 0.8, log = true }
search.latent_dim = { choices = [100, 200] }
note = "At home."

[rows.curves.ml-20m]
source = "Figure 1"
rounds = [1, 5, 9]
values = [0.1, 0.2, 0.3]

[[rows]]
name = "EASE"
slug = "ease"
alias_of = "multvae-table2/ease"
"""
