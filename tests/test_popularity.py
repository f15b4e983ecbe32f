"""Popularity: counts, the same for everyone."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array, random_array

from tfvae.evaluation.scoring import top_k
from tfvae.models.popularity import Popularity
from tfvae.nn.batches import RowStore


def fitted(train):
    model = Popularity(train.shape[1])
    model.fit_matrix(train, log=lambda line: None)
    return model


def test_scores_are_the_users_of_each_item():
    train = csr_array(np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]], np.float32))
    histories = RowStore(csr_array(np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32)))
    scores = fitted(train).scores(histories.gather(tf.constant([0, 1])))
    np.testing.assert_array_equal(scores, [[1, 3, 1, 0]] * 2)
    assert scores.dtype == tf.float32


def test_the_unseen_are_ranked_by_count_then_by_number():
    train = csr_array(np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]], np.float32))
    items, _ = top_k(fitted(train), csr_array(np.array([[0, 1, 0, 0], [0, 0, 0, 0]], np.float32)), k=3)
    np.testing.assert_array_equal(items, [[0, 2, 3], [1, 0, 2]])


def test_saved_and_loaded_it_scores_the_same(tmp_path):
    train = csr_array(random_array((50, 20), density=0.2, rng=np.random.default_rng(0)) > 0)
    model = fitted(train.astype(np.float32))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.item_counts, model.item_counts)
    assert loaded.get_config() == model.get_config()
