"""The settings with which the conformance suite tests each registered model; a new model has its lines here."""

from __future__ import annotations

# Small settings, none of them a default, so that a setting lost on the way is seen.
SETTINGS = {
    "mult-vae": {
        "hidden": [12],
        "latent_dim": 6,
        "activation": "relu",
        "gated": True,
        "initializer": "he",
        "separate_heads": True,
        "log_variance_range": [-5.0, 2.0],
        "divergence": "sampled",
        "dropout": 0.3,
        "weight_decay": 1e-4,
        "beta_cap": 0.1,
        "anneal_updates": 50,
        "anneal_by": "visits",
        "warmup_epochs": 3,
        "likelihood": "gaussian",
        "c1": 2.0,
        "c0": 0.5,
        "learning_rate": 0.02,
    },
    "mult-dae": {
        "hidden": [12],
        "latent_dim": 6,
        "activation": "relu",
        "gated": True,
        "initializer": "he",
        "dropout": 0.3,
        "weight_decay": 1e-4,
        "likelihood": "logistic",
        "c1": 2.0,
        "c0": 0.5,
        "learning_rate": 0.02,
    },
    "autorec": {
        "units": 6,
        "activation": "tanh",
        "initializer": "he",
        "dropout": 0.3,
        "center": True,
        "weight_decay": 1e-3,
    },
    "p-vae": {
        "embedding_dim": 7,
        "element": "concat",
        "element_hidden": [8],
        "pooling": "max",
        "encoder_hidden": [6],
        "latent_dim": 4,
        "decoder_hidden": [5],
        "activation": "tanh",
        "initializer": "he",
        "center": "columns",
        "variance": 0.5,
        "beta": 0.5,
        "stochastic": False,
        "dropout": 0.3,
        "weight_decay": 1e-3,
        "metadata": True,
    },
    "cdae": {
        "latent_dim": 6,
        "dropout": 0.3,
        "normalize": True,
        "c1": 2.0,
        "c0": 0.5,
        "weight_decay": 1e-3,
        "user_node": "fitted",
        "node_steps": 3,
        "learning_rate": 0.02,
    },
    "popularity": {},
    "wmf": {"factors": 6, "weight": 5.0, "regularization": 2.0, "iterations": 10, "solver": "cholesky"},
    "slim": {"l1": 0.2, "l2": 3.0, "tolerance": 1e-5, "max_iterations": 500, "gram_precision": "float64"},
    "ease": {"regularization": 5.0, "gram_precision": "float64"},
    "edlae": {"regularization": 5.0, "dropout": 0.25, "gram_precision": "float64"},
    "pmf": {"factors": 3, "regularization": 0.5, "weighted_regularization": False, "iterations": 10},
}
SETTINGS["bias-mf"] = SETTINGS["pmf"] | {"bias_regularization": 0.2}
SETTINGS["vamp"] = SETTINGS["mult-vae"] | {
    "hidden": [12, 10],
    "n_pseudo_inputs": 7,
    "initializer": "glorot",
    "separate_heads": False,
    "divergence": "analytic",
    "likelihood": "bernoulli",
    "optimizer": "adam",
}
SETTINGS["h-vamp"] = SETTINGS["vamp"] | {"hidden": [12], "optimizer": "normalized-adam"}
SETTINGS["recvae"] = SETTINGS["mult-vae"] | {
    "hidden": [12, 12],
    "encoder_type": "plain",
    "layer_norm_epsilon": 0.2,
    "decoder_hidden": [10],
    "divergence": "analytic",
    "prior_type": "joint-composite",
    "prior_weights": [0.3, 0.5, 0.2],
    "kl_weight": "annealed",
    "gamma": 0.01,
    "alternation": [2, 1],
    "denoise_decoder": True,
}
SETTINGS["ract"] = SETTINGS["mult-vae"] | {
    "separate_heads": False,
    "actor_epochs": 1,
    "critic_epochs": 2,
    "critic_learning_rate": 0.01,
    "fine_tuning_rate": 0.01,
    "critic_hidden": [8, 6],
    "critic_features": ["nll", "seen"],
    "critic_weight_decay": 1e-3,
    "normalize_features": True,
    "cutoff": 10,
}

# What finds the withheld squares of the checkerboard; None for what cannot tell one user from another.
CHECKERBOARD = {
    "mult-vae": {"hidden": [], "latent_dim": 4, "dropout": 0.2, "beta_cap": 0.0, "learning_rate": 0.05, "epochs": 60},
    "mult-dae": {"latent_dim": 4, "dropout": 0.2, "learning_rate": 0.05, "epochs": 60},
    "cdae": {"latent_dim": 4, "dropout": 0.2, "weight_decay": 0.0, "learning_rate": 0.02, "epochs": 60},
    "popularity": None,
    "wmf": {"factors": 2, "regularization": 1.0},
    "slim": {"l1": 0.1, "l2": 1.0},
    "ease": {"regularization": 1.0},
    "edlae": {"regularization": 1.0},
}
CHECKERBOARD["vamp"] = CHECKERBOARD["mult-vae"] | {"hidden": [16], "n_pseudo_inputs": 4, "learning_rate": 0.01}
CHECKERBOARD["h-vamp"] = CHECKERBOARD["vamp"]
CHECKERBOARD["recvae"] = CHECKERBOARD["mult-vae"] | {"hidden": [16, 16], "gamma": 0.0, "epochs": 80}
CHECKERBOARD["ract"] = CHECKERBOARD["mult-vae"] | {"separate_heads": False, "actor_epochs": 50, "critic_epochs": 5}
