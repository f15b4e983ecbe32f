"""A comparison of models on one's own data within a given time: which one to take, and how sure that is.

All models get the same share of the time. A model that is trained in epochs ends when its share is over, and keeps its
best epoch; one in closed form that would need more is left out. The best model is chosen on the validation part. The
test part serves only to say how good the models are, and whether the others are worse, by paired tests with Holm's
correction.

The folder of a comparison has the run folder of each model, from which the chosen one can be served at once, and
`comparison.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from tfvae.data.items import Items
from tfvae.data.splits import Split
from tfvae.evaluation.evaluate import default_metrics, evaluate
from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.results import RatingEvaluation
from tfvae.evaluation.stats import PairedTest, holm, paired_test
from tfvae.system.errors import DivergedError, InputError, TfvaeError, TooLargeError
from tfvae.system.files import read_json, write_json
from tfvae.system.validation import Strict, checked
from tfvae.training.adapt import settings_for
from tfvae.training.loop import TrainedModel, train
from tfvae.training.settings import Settings, settings_of
from tfvae.training.streaming import refuse_not_streamed

__all__ = ["COMPARISON_FILE", "RANKERS", "RATERS", "Comparison", "Entry", "Verdict", "chosen_model", "compare"]

COMPARISON_FILE = "comparison.json"
RANKERS: dict[str, dict[str, Any]] = {
    "popularity": {},
    "rp3beta": {},
    "edlae": {},
    "wmf": {},
    "mult-dae": {"likelihood": "logistic"},
    "mult-vae": {},
    "recvae": {},
    "meld": {},
}
"""The models that rank and that are compared, with their settings; the quick ones first."""
RATERS: dict[str, dict[str, Any]] = {"bias-mf": {}, "pmf": {}, "p-vae": {}, "two-sided-p-vae": {}}
"""The models of ratings that are compared, likewise."""
SECONDS_OF_INVERSION = 60 / 20_108**3
"""Of EASE's and EDLAE's matrix on two cores, for each cubed item."""
SIGNIFICANT = 0.05

Number = Annotated[float, Field(allow_inf_nan=False)]


class Entry(Strict):
    """One model of a comparison.

    Attributes:
        model: Its name in the registry, which is also the name of its run folder.
        settings: Its flat settings.
        validation: The monitored metric on the validation part; None if it was not trained.
        test: The mean and the standard error of each metric on the test part, by name.
        seconds: Seconds of training.
        epochs: Number of epochs trained; 0 for a model without epochs.
        planned: Number of epochs planned.
        parameters: Number of learned parameters.
        problem: Why it was not trained; None if it was.
    """

    model: str
    settings: dict[str, Any]
    validation: Number | None = None
    test: dict[str, tuple[Number, Number]] = {}
    seconds: NonNegativeFloat = 0.0
    epochs: NonNegativeInt = 0
    planned: NonNegativeInt = 0
    parameters: NonNegativeInt = 0
    problem: str | None = None

    @property
    def cut_short(self) -> bool:
        """Whether its time was over before its planned epochs."""
        return self.epochs < self.planned and self.settings["patience"] is None


class Verdict(Strict):
    """The chosen model against another one, on the test part.

    Attributes:
        model: Name of the other model.
        difference: The chosen model's mean less the other's, in the monitored metric; of ratings, in squared error.
        se: Its standard error.
        p_value: Of the two-sided paired t-test, corrected by Holm's method for the number of models.
    """

    model: str
    difference: Number
    se: Number
    p_value: Annotated[float, Field(ge=0, le=1)]

    @property
    def worse(self) -> bool:
        """Whether the difference is more than chance, at 5 %."""
        return self.p_value < SIGNIFICANT


class Comparison(Strict):
    """The content of `comparison.json`.

    Attributes:
        format: A fixed text.
        data_digest: Digest of the split.
        monitor: The metric that chose the model.
        entries: The models, the best on the validation part first, those that were not trained last.
        verdicts: The chosen model, which is the first entry, against each of the others, in the order of the entries.
    """

    format: Literal["tfvae comparison"] = "tfvae comparison"
    data_digest: str
    monitor: str
    entries: list[Entry]
    verdicts: list[Verdict]

    @property
    def chosen(self) -> Entry:
        """The model that was best on the validation part.

        Raises:
            InputError: If no model was trained.
        """
        if not self.entries or self.entries[0].validation is None:
            raise InputError("no model of the comparison was trained; give it more time, with --minutes.")
        return self.entries[0]

    @property
    def as_good(self) -> list[str]:
        """The models that were not shown to be worse than the chosen one."""
        return [verdict.model for verdict in self.verdicts if not verdict.worse]

    @classmethod
    def load(cls, folder: Path | str) -> Comparison:
        """Reads the comparison in a folder.

        Raises:
            InputError: If there is none, or it is damaged.
        """
        file = Path(folder) / COMPARISON_FILE
        return checked(cls, read_json(file, "a comparison"), file)


@dataclass(frozen=True)
class _Measured:
    entry: Entry
    values: np.ndarray | None = None  # of the monitored metric, one per test user or rating


def compare(
    split: Split,
    part: Split,
    folder: Path | str,
    *,
    minutes: float = 20.0,
    models: dict[str, dict[str, Any]] | None = None,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> Comparison:
    """Trains models one after the other within a time, and compares them.

    An interrupted comparison goes on where it was: models whose runs are finished are not trained again.

    Args:
        split: The data; its test part is only measured on.
        part: What the models learn from, with a validation part: the split itself, or its part for tuning.
        folder: Where the runs and the result are written.
        minutes: How long training may take in all; what ends last may take a little longer.
        models: The settings of each model, by name; None takes `RANKERS`, or `RATERS` for a split of ratings.
        log: Called with one line at a time.
        progress: Whether to show a progress bar for each model.

    Returns:
        The comparison, which is also stored.

    Raises:
        InputError: If the folder holds the runs of another comparison, or the time is not positive.
    """
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes is {minutes}; expected a positive number.")
    folder = Path(folder)
    file = folder / COMPARISON_FILE
    if file.is_file() and Comparison.load(folder).data_digest != split.digest:
        raise InputError(f"{file} compares models on other data; give another folder.")
    if models is None:
        models = RATERS if split.protocol == "rating-holdout" else RANKERS
    for name, given in models.items():  # before any of them takes its time
        refuse_not_streamed(settings_of(name, given), part)
    ends = time.perf_counter() + 60 * minutes
    measured: list[_Measured] = []
    for number, (name, given) in enumerate(models.items()):
        share = max(0.0, ends - time.perf_counter()) / (len(models) - number)
        log(f"{name}: {share / 60:.1f} minutes at most")
        settings = settings_for(name, given, part, log)
        try:
            _refuse_too_slow(settings, part, share)
            trained = _trained(settings, split, part, folder / name, share, log, progress)
            measured.append(_measure(trained, split, part))
        except (_TooSlowError, TooLargeError, DivergedError) as problem:
            log(f"{name} is left out: {problem}")
            measured.append(_Measured(Entry(model=name, settings=settings.flat(), problem=str(problem))))
    found = _compared(measured, split)
    write_json(file, found.model_dump(mode="json"))
    return found


def chosen_model(folder: Path | str, split: Split) -> Entry | None:
    """The model that a stored comparison chose for these data; None if there is no comparison of them.

    Args:
        folder: The comparison's folder.
        split: The data.

    Raises:
        InputError: If the comparison is damaged.
    """
    if not (Path(folder) / COMPARISON_FILE).is_file():
        return None
    found = Comparison.load(folder)
    return found.chosen if found.data_digest == split.digest else None


class _TooSlowError(TfvaeError):
    """A model cannot be trained within its share of the time."""


def _refuse_too_slow(settings: Settings, part: Split, share: float) -> None:
    """Refuses a model that needs more than its share of the time, in seconds, as far as that is known before."""
    if share <= 0:
        raise _TooSlowError("the time was over before it began.")
    needed = SECONDS_OF_INVERSION * part.n_items**3 if settings.name in ("ease", "edlae") else 0
    if needed > share:
        raise _TooSlowError(f"with {part.n_items:,} items it would take about {needed / 60:,.0f} minutes.")


def _trained(
    settings: Settings,
    split: Split,
    part: Split,
    folder: Path,
    share: float,
    log: Callable[[str], None],
    progress: bool,
) -> TrainedModel:
    ends = time.perf_counter() + share

    def over() -> bool:
        return time.perf_counter() >= ends

    return train(settings, part, folder, items=Items.of(split), stop=over, progress=progress, log=log)


def _measure(trained: TrainedModel, split: Split, part: Split) -> _Measured:
    monitor = trained.settings.training.monitor
    metrics = dict.fromkeys([monitor, *default_metrics(split.test_part)])
    on_test = evaluate(trained.model, split.test_part, list(metrics))
    entry = Entry(
        model=trained.settings.name,
        settings=trained.settings.flat(),
        validation=evaluate(trained.model, part.validation_part, [monitor]).mean(monitor),
        test={metric: (value["mean"], value["se"]) for metric, value in on_test.summary().items()},
        seconds=trained.seconds,
        epochs=trained.epochs,
        planned=trained.settings.training.epochs if trained.epochs else 0,
        parameters=trained.model.n_parameters,
    )
    if isinstance(on_test, RatingEvaluation):  # whose RMSE is judged by the squared errors
        return _Measured(entry, np.square(np.subtract(on_test.predicted, on_test.ratings, dtype=np.float64)))
    return _Measured(entry, on_test.values(monitor))


def _compared(measured: Sequence[_Measured], split: Split) -> Comparison:
    monitor = measured[0].entry.settings["monitor"]
    lower = lower_is_better(monitor)

    def rank(one: _Measured) -> tuple[bool, float]:
        value = one.entry.validation
        return value is None, 0.0 if value is None else value if lower else -value

    ordered = sorted(measured, key=rank)
    tests = list(_tests(ordered))
    corrected = holm([test.p_value for _, test in tests])
    verdicts = [
        Verdict(model=name, difference=test.difference, se=test.se, p_value=p_value)
        for (name, test), p_value in zip(tests, corrected, strict=True)
    ]
    entries = [one.entry for one in ordered]
    return Comparison(data_digest=split.digest, monitor=monitor, entries=entries, verdicts=verdicts)


def _tests(ordered: Sequence[_Measured]) -> Iterator[tuple[str, PairedTest]]:
    """The first model against each of the others, on the test part."""
    if not ordered or ordered[0].values is None:
        return
    for other in ordered[1:]:
        if other.values is not None:
            yield other.entry.model, paired_test(ordered[0].values, other.values)
