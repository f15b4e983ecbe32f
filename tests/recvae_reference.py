"""RecVAE on dense float64 arrays, from its slides and the authors' code: no layer and no distribution of tfvae."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from dense_reference import normalised, on_the_items
from evcf_reference import copy_of, log_normal
from scipy.sparse import csr_array

from tfvae.models.recvae import RecVAE
from tfvae.training.loop import prepare_to_fit

ACTIVATIONS = {"swish": lambda x: x * tf.sigmoid(x), "tanh": tf.tanh}
SMALL = {"hidden": (6, 6, 6), "latent_dim": 3}
WIDE = 10.0  # the logarithm of the wide component's variance


class Rows:
    """As much of a split as training needs."""

    def __init__(self, x: np.ndarray):
        self.train = csr_array(x)


def ready(x: np.ndarray, epoch: int | None = None, **settings) -> RecVAE:
    """A model with the rows attached, compiled, in the given epoch, counted from 0; its old encoder is another one."""
    model = RecVAE(x.shape[1], **SMALL | settings)
    prepare_to_fit(model, Rows(x), 1e-3)
    for variable in model.trainable_variables:  # away from the zeros and ones of a fresh normalisation
        variable.assign(variable + 0.3 * np.random.default_rng(variable.shape.rank).normal(size=variable.shape))
    if epoch is not None:
        model.begin_epoch(epoch)
    return model


def values_of(variables) -> list[np.ndarray]:
    """Copies of their values."""
    return [variable.numpy().copy() for variable in variables]


def state_of(model: RecVAE) -> list[np.ndarray]:
    """Copies of all weights and of all that the optimisers keep."""
    return values_of([*model.variables, *(v for optimizer in model.optimizers.values() for v in optimizer.variables)])


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether all arrays have equal bits."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class Watch(keras.callbacks.Callback):
    """Copies all there is at the beginning and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended = [], []

    def seen(self):
        model = self.model
        codes = model.old_encoder(model.histories.gather(tf.range(model.histories.n_rows, dtype=tf.int64)))
        return {
            "encoder": values_of(model.encoder.variables),
            "decoder": values_of(model.decoder.variables),
            "old": values_of(model.old_encoder.variables),
            "codes": codes.numpy(),
            "remembered": model._old_codes.of(tf.range(model.histories.n_rows)).numpy(),
            "states": {name: values_of(optimizer.variables) for name, optimizer in model.optimizers.items()},
            "iterations": {name: int(optimizer.iterations) for name, optimizer in model.optimizers.items()},
            "objects": [
                id(part) for optimizer in model.optimizers.values() for part in (optimizer, *optimizer.variables)
            ],
            "trainable": [(variable.path, variable.trainable) for variable in model.variables],
        }

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(self.seen())

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self.seen())


class Reference:
    """The networks, the prior and the loss of a `RecVAE`, on copies of its weights.

    Args:
        model: Whose weights and settings to take; it is not called.
    """

    def __init__(self, model: RecVAE):
        self.settings = model.get_config()
        old = model.old_encoder.variables if model.old_encoder else []
        self.weights = {weight.path: copy_of(weight) for weight in [*model.trainable_variables, *old]}

    def affine(self, name: str, x, prefix=""):
        return x @ self.weights[f"{name}/{prefix}kernel"] + self.weights[f"{name}/{prefix}bias"]

    def linear(self, name: str, x):
        """xW + b; gated, (xW + b) ⊗ σ(xV + c)."""
        if f"{name}/gate_kernel" in self.weights:  # the layer on items
            return self.affine(name, x) * tf.sigmoid(self.affine(name, x, "gate_"))
        if f"{name}_gate/kernel" in self.weights:
            return self.affine(f"{name}_value", x) * tf.sigmoid(self.affine(f"{name}_gate", x))
        return self.affine(name, x)

    def layer_norm(self, name: str, x):
        """The variance is the biased one, and ε is added to it under the root."""
        mean = tf.reduce_mean(x, axis=1, keepdims=True)
        variance = tf.reduce_mean((x - mean) ** 2, axis=1, keepdims=True)
        scaled = (x - mean) / tf.sqrt(variance + self.settings["layer_norm_epsilon"])
        return scaled * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]

    def encode(self, name: str, inputs):
        """μ and log σ² of normalised, perhaps dropped rows."""
        activation, hidden, before = ACTIVATIONS[self.settings["activation"]], inputs, []
        for number in range(len(self.settings["hidden"])):
            hidden = self.linear(f"{name}_{number}", hidden)
            if self.settings["encoder_type"] == "plain":
                hidden = activation(hidden)
                continue
            hidden = self.layer_norm(f"{name}_norm_{number}", activation(tf.add_n([hidden, *before])))
            before.append(hidden)
        last = f"{name}_{len(self.settings['hidden'])}"
        return tf.split(self.affine(last, hidden), 2, axis=1)

    def logits(self, z):
        """The item-major kernel enters transposed."""
        for number in range(len(self.settings["decoder_hidden"])):
            z = self.linear(f"decoder_{number + 1}", z)
            z = ACTIVATIONS[self.settings["activation"]](z)
        return z @ tf.transpose(self.weights["decoder_logits/kernel"]) + self.weights["decoder_logits/bias"]

    def log_prior(self, x: np.ndarray, z):
        """Log p(z | φ_old, x), the old encoder seeing the whole rows."""
        if self.settings["prior_type"] == "standard":
            return log_normal(z, 0.0, np.zeros(z.shape[1]))
        mean, log_variance = self.encode("old_encoder", normalised(x.astype(float)))
        moments = [(tf.zeros_like(z), tf.zeros_like(z)), (mean, log_variance), (tf.zeros_like(z), WIDE + 0 * z)]
        if self.settings["prior_type"] == "composite":  # each dimension is a vector of its own
            moments = [(mean[..., None], log_variance[..., None]) for mean, log_variance in moments]
            z = z[..., None]
        weighted = [
            np.log(weight) + log_normal(z, *of)
            for weight, of in zip(self.settings["prior_weights"], moments, strict=True)
        ]
        log_density = tf.reduce_logsumexp(tf.stack(weighted), axis=0)
        return tf.reduce_sum(log_density, axis=1) if self.settings["prior_type"] == "composite" else log_density

    def dropped(self, x: np.ndarray, drawn: dict):
        """Normalised rows, of which those items are left that the recorded draws keep; all without draws."""
        inputs, share = normalised(x.astype(float)), self.settings["dropout"]
        if "encoder_0/dropout" not in drawn:
            return inputs
        return inputs * on_the_items(x, drawn["encoder_0/dropout"] < 1 - share) / (1 - share)

    def per_user(self, x: np.ndarray, drawn: dict) -> dict:
        """Negative log-likelihood and KL of each user with the recorded noise, float64 [B] each."""
        mean, log_variance = self.encode("encoder", self.dropped(x, drawn))
        z = mean + tf.exp(log_variance / 2) * drawn["z"].astype(float)
        nll = -tf.reduce_sum(x * tf.nn.log_softmax(self.logits(z)), axis=1)
        if self.settings["prior_type"] == "standard" and self.settings["divergence"] == "analytic":
            divergence = tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1 - log_variance, axis=1) / 2
        else:
            divergence = log_normal(z, mean, log_variance) - self.log_prior(x, z)
        return {"nll": nll, "kl": divergence}

    def loss(self, x: np.ndarray, drawn: dict, beta: float | None = None):
        """The mean of NLL + γ·|x_u|·KL over users, or of NLL + β·KL; and λ·Σ kernel² of what is trained."""
        parts = self.per_user(x, drawn)
        weight = self.settings["gamma"] * x.sum(axis=1) if beta is None else beta
        decayed = [w for path, w in self.weights.items() if path.endswith("kernel") and not path.startswith("old_")]
        decay = self.settings["weight_decay"] * sum(tf.reduce_sum(kernel**2) for kernel in decayed)
        return tf.reduce_mean(parts["nll"] + weight * parts["kl"]) + decay
