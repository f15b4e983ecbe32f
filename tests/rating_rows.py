"""Small rating matrices, and rating models ready to train on them."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tfvae.models.gradient import GradientRecommender
from tfvae.nn.optimizers import FusedAdam


def random_ratings(n_rows=7, n_items=13, density=0.4, levels=(1, 2, 3, 4, 5), seed=0, empty=(2, 5)) -> csr_array:
    """Ratings of these levels, CSR [n_rows, n_items]; some rows are empty, and so is the last column."""
    generator = np.random.default_rng(seed)
    observed = generator.random((n_rows, n_items)) < density
    observed[list(empty)] = False
    observed[:, -1] = False
    values = generator.choice(np.float32(levels), size=observed.shape)
    return ratings_at(observed, values)


def ratings_at(observed: np.ndarray, values: np.ndarray) -> csr_array:
    """The values where `observed`, zeros among them stored; both dense [n_rows, n_items]."""
    return csr_array((values[observed].astype(np.float32), np.nonzero(observed)), shape=observed.shape)


def dense(ratings: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Ratings with zeros for the missing, and which are observed; [n_rows, n_items] each."""
    observed = csr_array((np.ones_like(ratings.data), ratings.indices, ratings.indptr), shape=ratings.shape)
    return ratings.toarray(), observed.toarray() > 0


def ready(model: GradientRecommender, ratings: csr_array, learning_rate: float = 0.01) -> GradientRecommender:
    """The model, compiled, with the ratings attached."""
    model.attach(ratings)
    model.compile(optimizer=FusedAdam(learning_rate), jit_compile=False)
    return model
