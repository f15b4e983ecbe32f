"""A finished run that goes on with the data as they are now, in a run of its own, and a report of what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.data.items import Items
from tfvae.data.splits import HeldOutRatings, Split, StrongGeneralization, load_split, places_in
from tfvae.evaluation.evaluate import default_metrics, evaluate
from tfvae.evaluation.other_items import on_other_items
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.evaluation.stats import paired_test
from tfvae.models.base import Recommender
from tfvae.models.saved import load_model
from tfvae.system.errors import InputError
from tfvae.system.files import sha256_of, write_json
from tfvae.system.validation import Strict
from tfvae.training.loop import TrainedModel, train
from tfvae.training.run_folder import SPLIT_FILE, RunFolder
from tfvae.training.settings import Detail, Settings
from tfvae.training.warm_start import WarmStart, refuse_other_shapes, warm_started

__all__ = ["RETRAINED_FILE", "Change", "Moved", "Planned", "Retrained", "RetrainingReport", "planned", "retrain"]

RETRAINED_FILE = "retrained.json"
"""The report, in the folder of the new run."""


class Moved(Strict):
    """How many items or users are in both the former data and the present ones, or in one of the two.

    Attributes:
        kept: Number of those in both.
        joined: Number of those in the present data only.
        left: Number of those in the former data only.
    """

    kept: int
    joined: int
    left: int

    @classmethod
    def between(cls, former: np.ndarray, present: np.ndarray) -> Moved:
        """Compares ids, [n] and [m]."""
        kept = int(np.count_nonzero(places_in(former, present) >= 0))
        return cls(kept=kept, joined=len(present) - kept, left=len(former) - kept)


class Change(Strict):
    """A metric of the former model and of the new one on the same users or ratings.

    Attributes:
        before: The former model's.
        after: The new model's.
        difference: after − before.
        se: Standard error of the difference, paired by user or rating; None with fewer than two.
    """

    before: float
    after: float
    difference: float
    se: float | None


class RetrainingReport(Strict):
    """What a retrained run has in common with the former run, and what it gained.

    Attributes:
        former_model: SHA-256 of the former run's `model.keras`.
        keeps_weights: Whether the model started from the former weights; otherwise it was solved anew.
        items: The items of the two models.
        users: The training users.
        held_out_users: The users held out for validation and test; None where something of every user is held out.
        measured: Number of validation users or ratings that both models were measured on.
        learnt_before: How many of these users the former run had trained on, so that `before` may be too good.
        metrics: The metrics on the validation part, by name; empty if the former model knows none of its users or
            items. Items that the former model does not know come last in its rankings; their ratings are left out.
    """

    former_model: str
    keeps_weights: bool
    items: Moved
    users: Moved
    held_out_users: Moved | None
    measured: int
    learnt_before: int
    metrics: dict[str, Change]


@dataclass(frozen=True)
class Planned:
    """How a finished run is to be retrained.

    Attributes:
        settings: The settings of the new run.
        former_model: SHA-256 of the former run's `model.keras`.
        keeps_weights: Whether the model starts from the former weights.
        selected_beta: The cap of the KL weight that the former run's pilot run had found, else None.
    """

    settings: Settings
    former_model: str
    keeps_weights: bool
    selected_beta: float | None

    @property
    def started_from(self) -> str | None:
        """SHA-256 of the `model.keras` that the new run starts from; None if it starts from none."""
        return self.former_model if self.keeps_weights else None


@dataclass(frozen=True, eq=False)
class Retrained:
    """A retrained run.

    Attributes:
        trained: The run, as `train` returns it.
        report: What changed.
    """

    trained: TrainedModel
    report: RetrainingReport


def retrain(
    run: Path | str,
    split: Split,
    folder: Path | str,
    *,
    former: Split | None = None,
    changes: Mapping[str, Any] | None = None,
    items: Items | None = None,
    follow: Callable[[list[dict[str, float]]], None] | None = None,
    progress: bool = True,
    tensorboard: Detail = "all",
    log: Callable[[str], None] = print,
) -> Retrained:
    """Trains the model of a finished run further on other data, usually the same data at a later time.

    Items and users that both data have keep their weights, and so does all else that belongs to none of them; new ones
    start with the model's own initial weights. The optimiser and the count of epochs begin anew; a KL weight that is
    annealed by updates goes on where it was. Models in closed form have nothing to keep, and are solved anew.

    The former run is only read. The new one is a run like any other: it is resumed if it was interrupted, and read back
    if it is finished. Its folder also gets the report, `retrained.json`.

    Example:
        >>> import tempfile, tfvae
        >>> from tfvae.data.synthetic import synthetic
        >>> cut = tfvae.StrongGeneralizationSettings(held_out_users=30)
        >>> former = tfvae.strong_generalization(synthetic(150, 40), cut)
        >>> split = tfvae.continued_generalization(synthetic(200, 45), former, cut)
        >>> settings = tfvae.settings_of("mult-vae", {"hidden": [8], "latent_dim": 4, "epochs": 1, "batch_size": 50})
        >>> quiet = {"progress": False, "log": lambda line: None}
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     _ = tfvae.train(settings, former, f"{runs}/former", **quiet)
        ...     report = tfvae.retrain(f"{runs}/former", split, f"{runs}/new", former=former, **quiet).report
        >>> report.items.joined, report.users.joined, report.held_out_users.kept, report.measured
        (5, 50, 60, 30)

    Args:
        run: The folder of the finished run.
        split: The data as they are now, with a validation part for the report; see `tfvae.continued_generalization`.
        folder: The run folder to write; it is created if it is missing.
        former: The split that the run was trained on; None reads it from `split.npz` in its folder.
        changes: Settings that differ from the former run's, by name.
        items: The items that are stored beside the model; None takes those of the split.
        follow: Called with the new run's history, as by `train`.
        progress: Whether to show a progress bar.
        tensorboard: What is logged for TensorBoard, as by `train`.
        log: Called with one line at a time.

    Returns:
        The new run and the report.

    Raises:
        InputError: If there is no finished run; if `former` is not its split; if the model cannot go on from its
            weights (an ensemble, LLORMA, or a p-VAE with metadata); if a changed setting would give the weights other
            shapes; if the two data have no item in common; or if `train` raises it.
        DivergedError: If `train` raises it.
    """
    old = RunFolder(run)
    plan = planned(run, changes or {})
    former = load_split(old.path / SPLIT_FILE) if former is None else former
    old.refuse_another_split([former.digest, former.tuning_digest])
    if Path(folder).resolve() == old.path.resolve():
        raise InputError(f"{folder} is the run to start from, which is only read; give the new run another folder.")
    moved = Moved.between(former.item_ids, split.item_ids)
    if not moved.kept:
        raise InputError(
            f"none of the {len(former.item_ids):,} items of {run} is among the {split.n_items:,} of these data; found "
            f"ids such as {split.item_ids[0]}, expected those of the run, such as {former.item_ids[0]}."
        )
    start = None
    if plan.keeps_weights:
        start = WarmStart(old.path, plan.former_model, former.item_ids, former.user_ids, plan.selected_beta)
        log(f"Starts from the weights of {run}.")
    else:
        log(f"{plan.settings.name} is solved anew on all data; it has no weights to go on from.")
    how: dict[str, Any] = {"follow": follow, "progress": progress, "tensorboard": tensorboard, "log": log}
    trained = train(plan.settings, split, folder, items=items, start=start, **how)
    measured, metrics = _changes(load_model(old.model_file), trained, former, split)
    report = RetrainingReport(
        former_model=plan.former_model,
        keeps_weights=plan.keeps_weights,
        items=moved,
        users=Moved.between(former.user_ids, split.user_ids),
        held_out_users=_held_out(former, split),
        measured=measured,
        learnt_before=_learnt_before(former, split),
        metrics=metrics,
    )
    write_json(RunFolder(folder).path / RETRAINED_FILE, report.model_dump())
    return Retrained(trained, report)


def planned(run: Path | str, changes: Mapping[str, Any]) -> Planned:
    """How a run is to be retrained; no model is loaded.

    Args:
        run: The folder of the finished run.
        changes: Settings that differ, by name.

    Raises:
        InputError: If there is no finished run, its model cannot be retrained, or a changed setting is unknown, wrong
            or one that cannot change.
    """
    former, outcome = RunFolder(run).finished()
    if "model" in changes:
        raise InputError(
            f"{run} is a run of {former.name}, which stays the model when it is retrained; leave model out."
        )
    warm_started(former)
    settings = former.with_changes(**changes)
    keeps_weights = warm_started(settings)
    if keeps_weights:
        refuse_other_shapes(former, settings)
        if settings.training.beta_selection == "peak" and outcome["selected_beta"] is None:
            raise InputError(
                'beta_selection="peak" would train a pilot run from the beginning; a run that goes on keeps its cap '
                f"({settings.kl_weight_cap}={settings.model[str(settings.kl_weight_cap)]}). Leave it out."
            )
    return Planned(settings, sha256_of(RunFolder(run).model_file), keeps_weights, outcome["selected_beta"])


def _held_out(former: Split, split: Split) -> Moved | None:
    """The users that are held out for validation and test; None unless both splits hold users out."""
    if not (isinstance(former, StrongGeneralization) and isinstance(split, StrongGeneralization)):
        return None

    def of(one: StrongGeneralization) -> np.ndarray:
        return np.concatenate([part.user_ids for part in (one.validation, one.test) if part is not None])

    return Moved.between(of(former), of(split))


def _learnt_before(former: Split, split: Split) -> int:
    """Number of validation users that the former run had trained on."""
    if split.validation is None:
        return 0
    return int(np.count_nonzero(places_in(former.user_ids, split.validation.user_ids) >= 0))


def _changes(before: Recommender, trained: TrainedModel, former: Split, split: Split) -> tuple[int, dict[str, Change]]:
    """The number of users or ratings that both models are measured on, and what changed in each metric."""
    held_out = split.validation
    if held_out is None:
        return 0, {}
    names = list(dict.fromkeys([trained.settings.training.monitor, *default_metrics(held_out)]))
    there = on_other_items(before, (former.item_ids, split.item_ids), (former.user_ids, split.user_ids))
    one, other = (evaluate(model, held_out, names) for model in (there, trained.model))
    known_user = places_in(former.user_ids, np.asarray(held_out.user_ids)) >= 0
    if before.scores_new_users:
        known_user[:] = True
    if isinstance(held_out, HeldOutRatings):
        rows, columns, _ = held_out.triples()
        among = known_user[rows] & (places_in(former.item_ids, split.item_ids) >= 0)[columns]
    else:
        among = known_user[places_in(np.asarray(held_out.user_ids), one.user_ids)]
    if not among.any():
        return 0, {}
    return int(among.sum()), {name: _change(one, other, name, among) for name in names}


def _change(
    before: Evaluation | RatingEvaluation, after: Evaluation | RatingEvaluation, metric: str, among: np.ndarray
) -> Change:
    (old, old_values), (new, new_values) = (_values(one, metric, among) for one in (before, after))
    se = paired_test(new_values, old_values).se if len(new_values) > 1 else None
    return Change(before=old, after=new, difference=new - old, se=se)


def _values(evaluation: Evaluation | RatingEvaluation, metric: str, among: np.ndarray) -> tuple[float, np.ndarray]:
    """A metric of some users or ratings, and values whose spread is the metric's: by the delta method for the RMSE."""
    if isinstance(evaluation, Evaluation):
        values = evaluation.values(metric)[among]
        return float(values.mean()), values
    errors = np.abs(np.subtract(evaluation.predicted, evaluation.ratings, dtype=np.float64))[among]
    if metric == "mae":
        return float(errors.mean()), errors
    rmse = float(np.sqrt(np.square(errors).mean()))
    return rmse, np.square(errors) / (2 * rmse) if rmse else errors
