"""Ratings made by hand, and predictions for them, for the tests of models that predict ratings."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.nn.batches import RowStore


def low_rank(n_users, n_items, seed=0, share=0.5, noise=0.0):
    """Ratings of rank two about biases, of which a share is there; user 3 and item 7 have none.

    Returns:
        The ratings that are there, the whole matrix without noise, and where it is hidden, user 3 and item 7 left out.
    """
    rng = np.random.default_rng(seed)
    full = 3 + rng.normal(size=(n_users, 1)) * 0.5 + rng.normal(size=n_items) * 0.5
    full += rng.normal(size=(n_users, 2)) @ rng.normal(size=(2, n_items)) * 0.7
    there = rng.random(full.shape) < share
    there[3], there[:, 7] = False, False
    users, items = np.nonzero(there)
    values = full[users, items] + noise * rng.normal(size=users.size)
    hidden = ~there
    hidden[3], hidden[:, 7] = False, False
    return csr_array((values.astype(np.float32), (users, items)), shape=full.shape), full, hidden


def predicted(model, ratings):
    """Predictions for all users of a matrix of ratings."""
    return model.scores(RowStore(ratings, with_values=True).gather(tf.range(ratings.shape[0]))).numpy()
