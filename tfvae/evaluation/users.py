"""Ranking for held-out users, or of training users' held-out items: a model gets histories, and ranks all other items.

Hits are looked up in the sparse targets, and every metric reads the same ranks. Values are kept per user and averaged
at the end, so that the result does not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfvae.data.splits import HeldOutShares, HeldOutUsers
from tfvae.evaluation.metrics import hits, parse_metric
from tfvae.evaluation.results import Evaluation
from tfvae.evaluation.scoring import ranker
from tfvae.models.base import Recommender
from tfvae.system.errors import InputError

__all__ = ["DEFAULT_METRICS", "SHARE_METRICS", "UserEvaluator"]

DEFAULT_METRICS = ("ndcg@100", "recall@20", "recall@50")
SHARE_METRICS = ("uncapped-recall@20", "ndcg@20")


class UserEvaluator:
    """Evaluates one model on one group of users; it can be called repeatedly, and traces the model once.

    Args:
        model: The model; its weights may change between calls.
        held_out: The items that the model is shown and the targets, of held-out users or of all training users; users
            without targets are left out and counted.
        metrics: Names that `parse_metric` accepts.
        batch_size: Users scored at once; a larger number needs more memory and changes no result.

    Raises:
        InputError: If no user has a target, a metric is unknown, or the model has another number of items.
    """

    def __init__(
        self,
        model: Recommender,
        held_out: HeldOutUsers | HeldOutShares,
        metrics: Sequence[str] = DEFAULT_METRICS,
        batch_size: int = 500,
    ):
        parsed = {name: parse_metric(name) for name in metrics}
        # No metric changes beyond the last item, and the arrays are as wide as the longest ranking.
        n_items = held_out.targets.shape[1]
        self._metrics = {name: (metric, min(k, n_items)) for name, (metric, k) in parsed.items()}
        n_targets = np.diff(held_out.targets.indptr)
        users = np.flatnonzero(n_targets)
        if not len(users):
            raise InputError(f"none of the {len(n_targets)} held-out users has a target; is the split right?")
        self._n_targets = n_targets[users]
        self._targets = held_out.targets[users]
        self._user_ids = np.asarray(held_out.user_ids)[users]
        self._n_without_targets = len(n_targets) - len(users)
        longest = max(k for _, k in self._metrics.values())
        # A model that only scores its training users knows them by their rows in the whole matrix.
        self._rank = ranker(model, held_out.history, longest, batch_size, users)

    def __call__(self) -> Evaluation:
        """Ranks and measures with the model's present weights.

        Returns:
            The per-user metrics.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        items, _ = self._rank()
        found = hits(items, self._targets)
        per_user = {name: metric(found, self._n_targets, k) for name, (metric, k) in self._metrics.items()}
        return Evaluation(per_user, self._user_ids, self._n_without_targets)
