"""Defaults that depend on the data: the papers' settings suit ML-20M, and smaller data need other settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from tfvae.data.splits import HeldOutItems, HeldOutShares, Split
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender, Plan
from tfvae.models.members import member_names
from tfvae.nn.batches import steps_per_epoch
from tfvae.training.settings import PILOT_CAP, Settings, as_member, given_to_member, settings_of

__all__ = ["members_for", "settings_for"]

FEWEST_STEPS = 20  # per epoch
SMALLEST_BATCH = 16


def settings_for(
    model: str,
    given: Mapping[str, Any],
    split: Split,
    log: Callable[[str], None] = print,
    fixed: Collection[str] | None = None,
) -> Settings:
    """Completes the settings of a model for a split; settings that are not fixed are adapted to the size of the data.

    Only models that are trained by gradient are adapted, those among an ensemble's members too:

    - The batch is small enough for twenty updates per epoch (the papers' data give hundreds), but no smaller than 16.
    - If the validation part is one held-out item of each user, NDCG@10 selects the epoch, as in NCF; if it is a share
      of each user's items, NDCG@20, as LightGCN reports.
    - A model that samples items, or that changes only the rows that a step needs, takes the optimiser "sparse-adam".
    - Each model adapts further settings (`adapted` of its class): for example, an annealing that would not reach its
      cap is shortened, a VampPrior has at most one pseudo-input per ten users, and the phases of RaCT fit into the
      planned epochs.

    Args:
        model: The model's name in the registry.
        given: Settings by name.
        split: The data.
        log: Called with one line for each setting that is changed, with the reason.
        fixed: Names of settings that are not adapted; None takes those of `given`.

    Returns:
        The settings.

    Raises:
        InputError: If a setting is unknown or wrong.
    """
    settings = settings_of(model, given)
    fixed = frozenset(given if fixed is None else fixed)
    kind = model_class(model)
    if not (issubclass(kind, GradientRecommender) or kind.has_members):
        return settings
    if isinstance(split.validation, HeldOutItems) and "monitor" not in fixed:
        negatives = split.validation.negatives.shape[1]
        log(f"monitor: ndcg@10 instead of {settings.training.monitor}, for an item ranked among {negatives} others.")
        settings = settings.with_changes(monitor="ndcg@10")
    if isinstance(split.validation, HeldOutShares) and "monitor" not in fixed:
        log(f"monitor: ndcg@20 instead of {settings.training.monitor}, as is usual for a share of each user's items.")
        settings = settings.with_changes(monitor="ndcg@20")
    if not issubclass(kind, GradientRecommender):
        return settings.with_changes(members=[as_member(member) for member in members_for(settings, split, log)])
    n_users, n_rows, batch_size = split.train.shape[0], kind.n_rows(split.train), settings.training.batch_size
    smaller = min(n_rows, max(SMALLEST_BATCH, n_rows // FEWEST_STEPS))
    if smaller < batch_size and "batch_size" not in fixed:
        log(f"batch_size: {smaller} instead of {batch_size}, since there are {n_rows:,} {kind.rows_are}.")
        settings = settings.with_changes(batch_size=smaller)
    if kind.updates_rows(settings.model) and settings.training.optimizer == "adam" and "optimizer" not in fixed:
        log("optimizer: sparse-adam instead of adam, so that a step's cost does not grow with the number of items.")
        settings = settings.with_changes(optimizer="sparse-adam")
    training = settings.training
    planned = training.epochs * steps_per_epoch(n_users, training.batch_size)
    plan = Plan(n_users, split.train.nnz, training.epochs, planned, fixed)
    changed = {}
    for name, value, why in kind.adapted(settings.model | _pilot_cap(kind, settings), plan):
        if name not in fixed and value != settings.model[name]:
            log(f"{name}: {_shown(value)} instead of {_shown(settings.model[name])}{why}")
            changed[name] = value
    return settings.with_changes(**changed)


def members_for(settings: Settings, split: Split, log: Callable[[str], None] = print) -> list[Settings]:
    """The complete settings of an ensemble's members for a split.

    What a member's own settings do not give is adapted to the data. A training setting of the ensemble that is not the
    default holds for each member that has none of its own. The seed of a member without one is that of the ensemble
    plus the member's number, counted from 0.

    Args:
        settings: The settings of an ensemble.
        split: The data.
        log: See `settings_for`; each line begins with the member's name.

    Returns:
        The settings of each member.
    """
    default, asked = settings_of(settings.name, {}).training.model_dump(), settings.training.model_dump()
    common = {name: value for name, value in asked.items() if value != default[name]}
    found = []
    for number, (name, member) in enumerate(zip(member_names(settings.members), settings.members, strict=True)):
        given = given_to_member(member, common | {"seed": (settings.training.seed + number) % 2**32})
        found.append(settings_for(member["model"], given, split, partial(_log_of_member, log, name)))
    return found


def _log_of_member(log: Callable[[str], None], name: str, line: str) -> None:
    log(f"{name}: {line}")


def _pilot_cap(kind: type[GradientRecommender], settings: Settings) -> dict[str, float]:
    """The cap to which a pilot run anneals the KL weight, by the name of its setting; empty without a pilot run."""
    cap = kind.kl_weight_cap(settings.model) if settings.training.beta_selection == "peak" else None
    return {cap: PILOT_CAP} if cap else {}


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value}"
