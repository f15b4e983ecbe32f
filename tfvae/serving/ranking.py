"""What a recommender answers; it needs no TensorFlow, so that an answer from a LiteRT file does not wait for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Ranking"]


class Ranking(NamedTuple):
    """The best unseen items of n users, best first, or those that rules choose, in the order of the choice.

    If fewer than k items can be recommended to a user, the last ranks are empty: their id is the pad (−1 or ""), their
    score −∞, their title "" and their sd NaN.

    Attributes:
        items: Item ids, int64 or str [n, k].
        scores: float32 [n, k]; for a model of ratings the predicted ratings, within the scale.
        unknown: int32 [n], the number of entries of each history that are no ids of the model's items; these were
            ignored.
        titles: str [n, k]; None if the titles are not known.
        sd: float32 [n, k], the standard deviation of each predicted rating; None if the model has none.
    """

    items: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    titles: np.ndarray | None = None
    sd: np.ndarray | None = None
