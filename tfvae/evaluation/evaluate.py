"""From a model and held-out data to metrics: one function that selects the evaluator of each protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfvae.data.splits import HeldOut, HeldOutItems, HeldOutRatings, HeldOutShares, HeldOutUsers
from tfvae.evaluation.items import SAMPLED_METRICS, ItemEvaluator
from tfvae.evaluation.metrics import RATING_METRICS
from tfvae.evaluation.ratings import RatingEvaluator
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.evaluation.users import DEFAULT_METRICS, SHARE_METRICS, UserEvaluator
from tfvae.models.base import Recommender
from tfvae.system.errors import InputError

__all__ = ["default_metrics", "evaluate", "evaluator", "refuse_unknown_users"]


def default_metrics(held_out: HeldOut) -> tuple[str, ...]:
    """The metrics that are usually reported for this kind of held-out data."""
    match held_out:
        case HeldOutRatings():
            return tuple(RATING_METRICS)
        case HeldOutItems():
            return SAMPLED_METRICS
        case HeldOutShares():
            return SHARE_METRICS
    return DEFAULT_METRICS


def refuse_unknown_users(kind: type[Recommender], held_out: HeldOut | None) -> None:
    """Refuses to evaluate a model on held-out users if it only scores its training users.

    Such a model would take the row numbers of held-out users for those of training users.

    Raises:
        InputError: If the model only scores its training users, and the held-out data are users.
    """
    if isinstance(held_out, HeldOutUsers) and not kind.scores_new_users:
        raise InputError(
            f"{kind.__name__} scores only the users it was trained on, and this split holds users out whole; expected "
            "held-out items of each user, as from `tfvae.leave_one_out` or `tfvae.weak_generalization` and in the "
            "table multvae-table3."
        )


def evaluator(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Callable[[], Evaluation | RatingEvaluation]:
    """The evaluator of held-out data, which may be users, items of each user or ratings.

    Args:
        model: The model.
        held_out: The held-out data.
        metrics: Names of metrics; None takes `default_metrics`.
        batch_size: Rows scored at once.

    Raises:
        InputError: If the evaluator refuses its arguments, or if a model that only scores its training users would have
            to score held-out ones.
    """
    refuse_unknown_users(type(model), held_out)
    metrics = metrics or default_metrics(held_out)
    match held_out:
        case HeldOutUsers() | HeldOutShares():
            return UserEvaluator(model, held_out, metrics, batch_size)
        case HeldOutItems():
            return ItemEvaluator(model, held_out, metrics, batch_size)
        case HeldOutRatings():
            return RatingEvaluator(model, held_out, metrics, batch_size)
    raise TypeError(f"expected held-out users, items or ratings, found {type(held_out).__name__}.")


def evaluate(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Evaluation | RatingEvaluation:
    """Evaluates a model once; see `evaluator` for the arguments and errors.

    Returns:
        The metrics.
    """
    return evaluator(model, held_out, metrics, batch_size)()
