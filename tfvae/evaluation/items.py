"""Ranking of one held-out item of each user, among negatives or among all items (NCF, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfvae.data.splits import HeldOutItems
from tfvae.evaluation.metrics import FULL, leave_one_out_ranks, parse_metric
from tfvae.evaluation.results import Evaluation
from tfvae.evaluation.scoring import pair_scorer, ranker
from tfvae.models.base import Recommender

__all__ = ["SAMPLED_METRICS", "ItemEvaluator"]

SAMPLED_METRICS = ("hr@10", "ndcg@10")


class ItemEvaluator:
    """Ranks each user's held-out item among its negatives (He et al. 2017, NCF, section 4.1); can be called repeatedly.

    The whole history is the input, and no candidate is masked. `metrics.leave_one_out_ranks` says how ties are broken.
    A metric that begins with "full-" ranks the item among all items outside the history instead.

    Args:
        model: The model; its weights may change between calls.
        held_out: The history, the held-out item and the negatives of each user.
        metrics: Names that `parse_metric` accepts, with or without "full-".
        batch_size: Users scored at once.
    """

    def __init__(
        self,
        model: Recommender,
        held_out: HeldOutItems,
        metrics: Sequence[str] = SAMPLED_METRICS,
        batch_size: int = 500,
    ):
        self._metrics = {name: parse_metric(name) for name in metrics}
        self._held_out = held_out
        self._candidates = np.column_stack([held_out.items, held_out.negatives])
        n_users, n_candidates = self._candidates.shape
        users = np.repeat(np.arange(n_users), n_candidates)
        self._score = pair_scorer(model, held_out.history, users, self._candidates.ravel(), batch_size)
        full = [k for name, (_, k) in self._metrics.items() if name.startswith(FULL)]
        self._rank = ranker(model, held_out.history, max(full), batch_size) if full else None

    def __call__(self) -> Evaluation:
        """Ranks and measures with the model's present weights.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        held_out = self._held_out
        scores = self._score().reshape(self._candidates.shape)
        ranks = leave_one_out_ranks(scores[:, 0], scores[:, 1:], held_out.items, held_out.negatives)
        full = self._rank()[0] == held_out.items[:, None] if self._rank else None
        one_target = np.ones(len(ranks), dtype=np.int64)
        per_user = {}
        for name, (metric, k) in self._metrics.items():
            found = full if full is not None and name.startswith(FULL) else ranks[:, None] == np.arange(1, k + 1)
            per_user[name] = metric(found, one_target, k)
        return Evaluation(per_user, np.asarray(held_out.user_ids))
