"""An ensemble of finished runs, which becomes a run like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tfvae.data.items import Items
from tfvae.data.splits import Split
from tfvae.models import model_class
from tfvae.models.ensemble import Weighting
from tfvae.system.errors import InputError
from tfvae.training.adapt import settings_for
from tfvae.training.assembly import assembled
from tfvae.training.loop import TrainedModel, in_folder, keep, load_run
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import as_member

__all__ = ["ensemble", "refuse_other_data"]


def ensemble(
    runs: Sequence[Path | str],
    split: Split,
    folder: Path | str,
    *,
    weighting: Weighting = "validation",
    monitor: str | None = None,
    items: Items | None = None,
    log: Callable[[str], None] = print,
) -> TrainedModel:
    """Makes one recommender of several finished runs, and writes it into a run folder of its own.

    Rankers become an `Ensemble`, models of ratings a `RatingEnsemble`. It is the same that `train` with these settings
    would give, which say the members' settings in full; but nothing is trained. The runs are only read.

    Example:
        >>> import tempfile, tfvae
        >>> from tfvae.data.synthetic import synthetic
        >>> cut = tfvae.StrongGeneralizationSettings(held_out_users=30)
        >>> split = tfvae.strong_generalization(synthetic(200, 30), cut)
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     for name in ("ease", "popularity"):
        ...         _ = tfvae.train(tfvae.settings_of(name, {}), split, f"{runs}/{name}", log=lambda line: None)
        ...     both = tfvae.ensemble([f"{runs}/ease", f"{runs}/popularity"], split, f"{runs}/both", weighting="equal")
        >>> both.model.member_weights.numpy().tolist()
        [0.5, 0.5]

    Args:
        runs: The folders of two or more finished runs, trained on the same data.
        split: The data that they were trained on.
        folder: The run folder to write; it is created if it is missing.
        weighting: "validation" chooses the members' weights on the validation part of the split; "equal" does not.
        monitor: The metric that chooses the weights; None takes the one by which models of this kind choose epochs.
        items: The items that are stored beside the model; None takes those of the split.
        log: Called with one line at a time, such as the weights.

    Returns:
        The finished run; its seconds are the sum of the members' seconds of training.

    Raises:
        InputError: If there are fewer than two runs, one of them is not finished, or was trained on other data, some
            predict ratings and others rank, or a model cannot be a member (see `AnyEnsemble`); or if the folder holds
            anything but this ensemble.
    """
    folders = [RunFolder(run) for run in runs]
    if len(folders) < 2:
        raise InputError(f"an ensemble has two members or more; expected as many runs, found {len(folders)}.")
    refuse_other_data(folders)
    for run in folders:
        run.refuse_another_split([split.digest])
    found = [run.finished()[0] for run in folders]
    rates = [model_class(settings.name).predicts_ratings for settings in found]
    if len(set(rates)) > 1:
        rater, ranker = (folders[rates.index(kind)].path for kind in (True, False))
        raise InputError(
            f"{rater} predicts ratings, and {ranker} ranks; the members of an ensemble are of one kind, since their "
            "scores have no scale in common."
        )
    given: dict[str, Any] = {"members": [as_member(settings) for settings in found], "weighting": weighting}
    given |= {} if monitor is None else {"monitor": monitor}
    settings = settings_for("rating-ensemble" if any(rates) else "ensemble", given, split, log)

    def made(run: RunFolder) -> TrainedModel:
        model, seconds = assembled(settings, split, (load_run(member.path) for member in folders), log)
        run.mark(settings, split.digest)
        return keep(TrainedModel(model, settings, seconds=seconds), split, run, items or Items.of(split), log)

    return in_folder(settings, split, folder, made)


def refuse_other_data(runs: Sequence[RunFolder]) -> None:
    """Refuses runs that were trained on different data.

    Raises:
        InputError: If two of them were; the message names both. Also if a folder is not that of a run.
    """
    for one, other in pairwise(runs):
        here, there = one.claim().data_digest, other.claim().data_digest
        if here != there:
            raise InputError(
                f"{one.path} was trained on data of digest {here[:12]}, {other.path} on others, of {there[:12]}; "
                "the members of an ensemble are trained on the same split. Train one of them anew."
            )
