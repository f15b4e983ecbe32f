"""From a model and what is held out to metrics: the evaluator of each protocol, behind one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfvae.data.splits import HeldOut, HeldOutItems, HeldOutRatings, HeldOutUsers
from tfvae.evaluation.items import SAMPLED_METRICS, ItemEvaluator
from tfvae.evaluation.metrics import RATING_METRICS
from tfvae.evaluation.ratings import RatingEvaluator
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.evaluation.users import DEFAULT_METRICS, UserEvaluator
from tfvae.models.base import Recommender
from tfvae.system.errors import InputError

__all__ = ["default_metrics", "evaluate", "evaluator", "refuse_unknown_users"]


def default_metrics(held_out: HeldOut) -> tuple[str, ...]:
    """What is usually measured on data that are held out in this way."""
    match held_out:
        case HeldOutRatings():
            return tuple(RATING_METRICS)
        case HeldOutItems():
            return SAMPLED_METRICS
    return DEFAULT_METRICS


def refuse_unknown_users(kind: type[Recommender], held_out: HeldOut | None) -> None:
    """Refuses to ask a model of training users about others, whose row numbers mean other people to it.

    Raises:
        InputError: When it would be asked.
    """
    if isinstance(held_out, HeldOutUsers) and not kind.scores_new_users:
        raise InputError(
            f"{kind.__name__} scores only the users it was trained on, and this split holds users out whole; expected "
            "one held-out item of each user, as from `tfvae.leave_one_out` and in the table multvae-table3."
        )


def evaluator(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Callable[[], Evaluation | RatingEvaluation]:
    """The evaluator of what is held out: users, items or ratings.

    Args:
        model: The model.
        held_out: What it is asked.
        metrics: Names; those of `default_metrics` when None.
        batch_size: Rows scored at once.

    Raises:
        InputError: As the evaluators raise it, and if a model that only scores its training users is to score held-out
            ones.
    """
    refuse_unknown_users(type(model), held_out)
    metrics = metrics or default_metrics(held_out)
    match held_out:
        case HeldOutUsers():
            return UserEvaluator(model, held_out, metrics, batch_size)
        case HeldOutItems():
            return ItemEvaluator(model, held_out, metrics, batch_size)
        case HeldOutRatings():
            return RatingEvaluator(model, held_out, metrics, batch_size)
    raise TypeError(f"expected held-out users, items or ratings, found {type(held_out).__name__}.")


def evaluate(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Evaluation | RatingEvaluation:
    """Evaluates a model once; see `evaluator` for arguments and errors.

    Returns:
        The metrics.
    """
    return evaluator(model, held_out, metrics, batch_size)()
