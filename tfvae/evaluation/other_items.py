"""A model on data with other items, or in another order, than those it was trained on."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfvae.data.splits import places_in
from tfvae.models.base import Recommender
from tfvae.nn.batches import SparseBatch

__all__ = ["OnOtherItems", "on_other_items"]


def on_other_items(
    model: Recommender,
    item_ids: tuple[np.ndarray, np.ndarray],
    user_ids: tuple[np.ndarray, np.ndarray],
) -> OnOtherItems:
    """A trained model as one of other items, so that it can be evaluated on their data.

    Args:
        model: The model.
        item_ids: The ids of its items, [n], and those of the data, [m], each in the order of the columns.
        user_ids: The ids of its training users, and those of the training rows of the data. They only matter to a model
            that scores its training users alone; what it says of others means nothing.

    Returns:
        The model, of m items.
    """
    return OnOtherItems(model, places_in(*item_ids), places_in(*user_ids))


class OnOtherItems(Recommender):
    """A model whose items are numbered otherwise; items that it does not know come after all others in its rankings.

    Of a history, it is given the items that it knows.

    Args:
        model: The model.
        items: Its number of each item, int [n_items]; −1 for an item that it does not know.
        users: Its number of each training user, int [n_users]; −1 for a user that it does not know.
    """

    def __init__(self, model: Recommender, items: np.ndarray, users: np.ndarray):
        super().__init__(len(items), len(users))
        self.predicts_ratings = model.predicts_ratings  # type: ignore[misc]
        self.scores_new_users = model.scores_new_users  # type: ignore[misc]
        self._model = model
        self._items, self._users = (tf.constant(numbers, tf.int32) for numbers in (items, users))
        self.built = True

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The model's scores of the items that it knows, and the lowest number for the others; see `Recommender`.

        The model is given the row numbers of users only if it needs them.
        """
        scores = self._model.scores(self._known(batch))
        lowest = tf.fill([tf.shape(scores)[0], 1], scores.dtype.min)
        places = tf.where(self._items < 0, self._model.n_items, self._items)
        return tf.gather(tf.concat([scores, lowest], axis=1), places, axis=1)

    def _known(self, batch: SparseBatch) -> SparseBatch:
        """The same histories in the model's own numbers."""
        items = tf.gather(self._items, batch.items)
        known = items >= 0
        segment_ids = tf.boolean_mask(batch.segment_ids, known)
        users = None
        if not self.scores_new_users:
            users = tf.cast(tf.maximum(tf.gather(self._users, batch.users), 0), tf.int64)
        return SparseBatch(
            items=tf.boolean_mask(items, known),
            segment_ids=segment_ids,
            lengths=tf.math.unsorted_segment_sum(
                tf.ones_like(segment_ids, tf.float32), segment_ids, tf.shape(batch.lengths)[0]
            ),
            values=None if batch.values is None else tf.boolean_mask(batch.values, known),
            users=users,
        )
