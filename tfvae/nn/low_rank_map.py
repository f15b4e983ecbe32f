"""A linear item-item map with a zero diagonal, of low rank and in closed form.

EASE and EDLAE (Steck 2019, 2020) score a user row x by x·B with B_ij = −P_ij / P_jj for i ≠ j, P = (X'X + Λ)⁻¹ and Λ
diagonal. B has a number for each pair of items, and takes the inverse of a matrix as wide as the catalogue. But let
V·diag(s²)·V' be the r largest terms of the eigendecomposition of Λ^-½ X'X Λ^-½. Then by Woodbury's identity

    P ≈ Λ⁻¹ − U·U',   U = Λ^-½ V diag(s² / (1 + s²))^½,   [n_items, r],

a diagonal matrix less one of rank r. So x·B is (x·U)·U' less what each item of x adds to itself, divided by P's
diagonal, 1/λ_j − ‖U_j‖². With r = n_items it is EDLAE's map, exactly.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array, diags_array
from sklearn.utils.extmath import randomized_svd

from tfvae.nn.batches import SparseBatch
from tfvae.nn.sparse_ops import binary_matmul

__all__ = ["LowRankMap"]

POWER_ITERATIONS = 4


class LowRankMap(keras.layers.Layer):
    """Scores x·B of binary user rows, where B has a zero diagonal and, off it, rank `rank`.

    Args:
        n_items: Width of the catalogue, I.
        rank: r; at most I is used. Memory is 4·I·r bytes.
    """

    def __init__(self, n_items: int, rank: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.n_items = n_items
        self.factors = self._fitted("factors", (n_items, min(rank, n_items)))
        self.diagonal = self._fitted("diagonal", (n_items,))
        self.built = True

    def _fitted(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer="ones", trainable=False, autocast=False)

    def fit(self, train: csr_array, penalties: np.ndarray, seed: int = 0) -> None:
        """Solves for the map.

        Args:
            train: Binary user rows, sparse [n_users, n_items].
            penalties: The diagonal of Λ, positive, [n_items].
            seed: Seed of the randomised decomposition.
        """
        scale = (1 / np.sqrt(penalties)).astype(np.float32)
        rank = min(self.factors.shape[1], *train.shape)
        scaled = csr_array(train, dtype=np.float32) @ diags_array(scale)
        _, values, vectors = randomized_svd(scaled, rank, n_iter=POWER_ITERATIONS, random_state=seed)
        shrinkage = values**2 / (1 + values**2)
        factors = np.zeros(self.factors.shape, np.float32)
        factors[:, :rank] = scale[:, None] * vectors.T * np.sqrt(shrinkage)
        self.factors.assign(factors)
        self.diagonal.assign(scale**2 - (factors**2).sum(axis=1))

    def call(self, batch: SparseBatch) -> tf.Tensor:
        """Maps B user rows to scores, float32 [B, n_items]."""
        factors = tf.convert_to_tensor(self.factors.value)
        codes = binary_matmul(factors, batch.items, batch.segment_ids, tf.shape(batch.lengths)[0])
        codes = tf.ensure_shape(codes, (None, self.factors.shape[1]))
        products = tf.matmul(codes, factors, transpose_b=True)
        own = tf.gather(tf.reduce_sum(tf.square(factors), axis=1), batch.items)
        places = tf.stack([batch.segment_ids, batch.items], axis=1)
        # Put in place, since LiteRT has no kernel that adds at places.
        products = tf.tensor_scatter_nd_update(products, places, tf.gather_nd(products, places) - own)
        return products / self.diagonal.value
