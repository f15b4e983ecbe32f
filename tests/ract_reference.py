"""RaCT on dense arrays: the actor, the critic and its target, which the sparse path must equal."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from dense_reference import Recorded, normalised, on_the_items, perceptron
from scipy.sparse import csr_array

from tfvae.evaluation.metrics import hits, ndcg
from tfvae.models.ract import RaCT

N_ITEMS, CUTOFF, DROPOUT = 13, 4, 0.4
VAE = {"hidden": (9,), "latent_dim": 4, "anneal_updates": 10, "beta_cap": 1.0, "dropout": DROPOUT}
# One layer for both moments, as the dense reference has it.
SMALL = VAE | {
    "separate_heads": False,
    "actor_epochs": 2,
    "critic_epochs": 2,
    "critic_hidden": (6, 5),
    "critic_learning_rate": 0.02,
    "fine_tuning_rate": 0.5,
    "normalize_features": True,
    "cutoff": CUTOFF,
}
ALL = tf.range(7, dtype=tf.int64)


def ready(x, optimizer=None, phase=None, moments=True, model_class=RaCT, **changes):
    """Compiled, with the rows attached; in a phase, and with moments of the features, as after the actor's."""
    model = model_class(N_ITEMS, name="model", **(SMALL if model_class is RaCT else VAE) | changes)
    model.attach(csr_array(x))
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), jit_compile=False)
    if phase is not None:
        model.begin_epoch({"actor": 0, "critic": 2, "both": 4}[phase])
    if model_class is RaCT and moments:
        means = dict(zip(("seen", "unseen", "nll"), [2.5, 1.5, 10.0], strict=True))
        squares = dict(zip(("seen", "unseen", "nll"), [8.0, 4.0, 140.0], strict=True))
        model.feature_means.assign([means[feature] for feature in model.critic_features])
        model.feature_squares.assign([squares[feature] for feature in model.critic_features])
    return model


def critic_of(model):
    """Copies of the critic's kernels and biases."""
    return [(tf.Variable(layer.kernel.numpy()), tf.Variable(layer.bias.numpy())) for layer in model.critic]


def actor_forward(x, encoder, decoder, kept, draw):
    """Logits and -log p(x | z) of each user, in dense arrays."""
    code = perceptron(normalised(x) * kept / (1 - DROPOUT), encoder, [tf.tanh, tf.identity])
    mean, log_variance = tf.split(code, 2, axis=1)
    hidden = perceptron(mean + tf.exp(log_variance / 2) * draw, decoder[:-1], [tf.tanh])
    logits = hidden @ tf.transpose(decoder[-1][0]) + decoder[-1][1]
    return logits, -tf.reduce_sum(x * tf.nn.log_softmax(logits), axis=1)


def critic_forward(model, x, kept, nll, critic):
    """The NDCG it predicts for each user."""
    features = {"seen": kept.sum(axis=1), "unseen": x.sum(axis=1) - kept.sum(axis=1), "nll": nll}
    features = tf.stack([tf.cast(features[name], tf.float32) for name in model.critic_features], axis=1)
    means, squares = model.feature_means.numpy(), model.feature_squares.numpy()
    normal = (features - means) / np.sqrt(np.maximum(squares - means**2, 0) + 1e-3)
    return perceptron(normal, critic, [tf.nn.relu] * (len(critic) - 1) + [tf.sigmoid])[:, 0]


def withheld_ndcg(x, kept, logits, k=CUTOFF):
    """`metrics.ndcg` of the dropped items among all that were not shown; 0 where nothing was dropped."""
    withheld, values = x - kept, np.zeros(len(x))
    order = np.argsort(np.where(kept > 0, np.inf, -np.asarray(logits)), axis=1, kind="stable")[:, :k]
    order = np.where(np.take_along_axis(kept, order, axis=1) > 0, -1, order)
    some = withheld.sum(axis=1) > 0
    values[some] = ndcg(hits(order, csr_array(withheld))[some], withheld.sum(axis=1)[some], k)
    return values


def drawn(x):
    """What the last step kept, laid out on the dense rows, and its draws for z."""
    kept = on_the_items(x, Recorded.drawn["encoder_0/dropout"] < 1 - DROPOUT)
    assert 0 < kept.sum() < x.sum()
    return kept, Recorded.drawn["z"]


def values_of(model):
    return {variable.path.removeprefix("model/"): variable.numpy() for variable in model.variables}


def changed(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}
