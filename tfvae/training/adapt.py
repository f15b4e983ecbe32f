"""Defaults that depend on the data: the papers' settings suit ML-20M, and smaller data need others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfvae.data.splits import LeaveOneOut, Split
from tfvae.models import model_class
from tfvae.nn.batches import steps_per_epoch
from tfvae.training.settings import Settings, settings_of

__all__ = ["settings_for"]

FEWEST_UPDATES = 20  # in an epoch
FEWEST_USERS = 10  # per pseudo-input
SMALLEST_BATCH = 16


def settings_for(model: str, given: Mapping[str, Any], split: Split, log: Callable[[str], None] = print) -> Settings:
    """Complete settings for a model on a split; what was not given is fitted to the data, and said.

    A batch is small enough for twenty updates an epoch (the papers' data give hundreds). Where the planned
    updates would end before β reaches its cap, the annealing is shortened so that the cap is reached halfway.
    A VampPrior has at most one pseudo-input for ten users. RaCT's first phase takes half of the epochs and its second a
    quarter, where they would leave no epoch for the third. Where one item of each user is held out, the epoch is chosen
    by NDCG@10, as NCF measures.

    Args:
        model: The model's name in the registry.
        given: Settings by name, which stay as they are.
        split: The data; its validation part is there.
        log: Told each setting that was changed, and why.

    Returns:
        The settings.

    Raises:
        InputError: For an unknown or wrong setting.
    """
    settings = settings_of(model, given)
    kind = model_class(model)
    if hasattr(kind, "fit_matrix"):
        return settings
    if isinstance(split, LeaveOneOut) and "monitor" not in given:
        negatives = split.validation.negatives.shape[1]
        log(f"monitor: ndcg@10 instead of {settings.training.monitor}, for an item ranked among {negatives} others.")
        settings = settings.with_changes(monitor="ndcg@10")
    n_users, n_rows, batch_size = split.train.shape[0], kind.n_rows(split.train), settings.training.batch_size
    smaller = min(n_rows, max(SMALLEST_BATCH, n_rows // FEWEST_UPDATES))
    if smaller < batch_size and "batch_size" not in given:
        log(f"batch_size: {smaller} instead of {batch_size}, since there are {n_rows:,} {kind.rows_are}.")
        settings = settings.with_changes(batch_size=smaller)
    if settings.model.get("n_pseudo_inputs", 0) > max(1, n_users // FEWEST_USERS) and "n_pseudo_inputs" not in given:
        fewer = max(1, n_users // FEWEST_USERS)
        said = f"n_pseudo_inputs: {fewer:,} instead of {settings.model['n_pseudo_inputs']:,}"
        log(f"{said}, since there are {n_users:,} training users.")
        settings = settings.with_changes(n_pseudo_inputs=fewer)
    if settings.model.get("anneal_by") == "epochs":
        return _warmed_up_in_time(settings, given, log)
    if "actor_epochs" in settings.model:
        settings = _with_time_for_the_critic(settings, given, log)
    annealed = settings.model.get("kl_weight", "annealed") == "annealed"
    if annealed and "anneal_updates" in settings.model and "anneal_updates" not in given:
        settings = _annealed_in_time(settings, n_users, log)
    return settings


def _with_time_for_the_critic(settings: Settings, given: Mapping[str, Any], log: Callable[[str], None]) -> Settings:
    epochs, own = settings.training.epochs, settings.model
    if own["actor_epochs"] + own["critic_epochs"] < epochs or {"actor_epochs", "critic_epochs"} & given.keys():
        return settings
    shorter = {"actor_epochs": max(1, epochs // 2), "critic_epochs": max(1, epochs // 4)}
    for name, number in shorter.items():
        log(f"{name}: {number} instead of {own[name]}, so that the {epochs} planned epochs reach the third phase.")
    return settings.with_changes(**shorter)


def _warmed_up_in_time(settings: Settings, given: Mapping[str, Any], log: Callable[[str], None]) -> Settings:
    epochs, warmup = settings.training.epochs, settings.model["warmup_epochs"]
    if warmup <= epochs or "warmup_epochs" in given:
        return settings
    shorter = max(1, epochs // 2)
    log(f"warmup_epochs: {shorter} instead of {warmup}, halfway through the {epochs} planned epochs.")
    return settings.with_changes(warmup_epochs=shorter)


def _annealed_in_time(settings: Settings, n_users: int, log: Callable[[str], None]) -> Settings:
    training, own = settings.training, settings.model
    cap = 1.0 if training.beta_selection == "peak" else own["beta_cap"]
    # By "visits", 500 of them count as one update, the paper's batch.
    batch_size = training.batch_size if own["anneal_by"] == "updates" else 500
    planned = training.epochs * steps_per_epoch(n_users, batch_size)
    if cap * own["anneal_updates"] <= planned:
        return settings
    shorter = max(1, round(planned / 2 / cap))
    log(
        f"anneal_updates: {shorter:,} instead of {own['anneal_updates']:,}, so that β reaches {cap:g} "
        f"halfway through the {planned:,} planned updates."
    )
    return settings.with_changes(anneal_updates=shorter)
