"""What is stored of a run, a search for settings and the counts of a data set; each record is checked as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.search import SearchSpace
from tfvae.system.validation import Strict
from tfvae.training.settings import todays_flat

__all__ = ["Activity", "Attributes", "ErrorsOfGroup", "StoredRun", "Sweep", "Trial", "Tuned"]


class Tuned(Strict):
    """A summary of the sweep from which a run's settings were taken.

    Attributes:
        trials: Number of trials, failed ones included.
        failed: Number of failed trials.
        epochs: The number to which the trials' epochs were cut, else None.
        value: The best validation value, to six digits after the point.
    """

    trials: int
    failed: int
    epochs: int | None
    value: float


class ErrorsOfGroup(Strict):
    """The error of the held-out ratings of users with about as many known ratings; see `errors_by_number`.

    Attributes:
        at_least: The smallest number of known ratings.
        to: The number from which the next group begins; the last group includes it.
        ratings: Number of held-out ratings.
        rmse: Their RMSE.
    """

    at_least: NonNegativeInt
    to: NonNegativeInt
    ratings: PositiveInt
    rmse: NonNegativeFloat


class StoredRun(Strict):
    """One stored run: one row, one data set, one seed.

    Attributes:
        table: The table's name.
        row: The row's name, as printed.
        slug: The row's name in file names.
        dataset: The data set's name.
        model: The model's name.
        seed: Seed of the initial weights, the order of users and the noise; with a rating hold-out, also of the split.
        metrics: For each metric, by name, the mean over test users or ratings, its standard error and the ends of its
            95 % interval; with `latents` also "elbo" and "iwae", in nats.
        validation: The best epoch's value of the monitored metric on the validation part, or that of a model without
            epochs; None if the split has no validation part.
        users: Number of test users that were measured.
        users_without_targets: Number of test users that were left out because nothing of theirs is held out.
        settings: All settings, defaults included.
        overrides: The settings among them that were given by hand.
        tuned: The sweep from which settings were taken, or None.
        shortened: Whether the run is not the full experiment that the row describes.
        shortened_why: The reason in words, such as ``"5 of 200 epochs"``, or None.
        environment: Versions, platform, device and number of cores.
        seconds: Seconds of training, validation included.
        peak_memory_gb: Peak resident memory of the process while it trained and evaluated, in GB (10⁹ bytes), with
            what TensorFlow kept from earlier runs in that process; None if the run was resumed, if the system does not
            report the peak, and in runs that were stored before it was measured.
        epochs: Number of epochs trained; 0 for a model that has none.
        best_epoch: The epoch whose weights were measured, counted from 0; None without epochs or without a validation
            part, in which case the last weights were measured.
        selected_beta: The cap that `beta_selection="peak"` found, else None.
        parameters: Number of learned parameters.
        latents: The `values` of `LatentDiagnostics`, where the table asks for them and the model has latent codes.
        predictive: The results of `describe_predictions` for a model of ratings with a posterior, else None.
        lists: The `values` of `ListStatistics`: "k", "coverage", "popularity", "similarity" (absent if no list has two
            items) and "users_per_second"; None for models of ratings, and in runs that were stored before these were
            measured.
        intervals: The `values` of `Intervals` for held-out ratings: "crps", and "within_50", "within_90" and "sd" of a
            model that knows the standard deviations of its ratings; None with other protocols, and in runs that were
            stored before these were measured.
        by_number: The groups of `errors_by_number` for held-out ratings; None with other protocols, and in runs that
            were stored before these were measured.
        watched: Metrics on the test part after each round, by name, if the table watches it. They only serve to report
            the best epoch on the test part as the paper did; nothing is selected by them.
        history: The monitored metric on the validation part after each round and after the last epoch; for most models,
            each epoch is a round.
        validated: The epochs, counted from 0, to which the values of `history` belong; None if there are no values or
            one for each epoch.
        work: Name of the run's working folder, inside the working folder of its table and data set.
        commit: Commit of the code, or None outside a checkout.
        data: Counts of the split.
        data_digest: Digest of the split.
    """

    table: str
    row: str
    slug: str
    dataset: str
    model: str
    seed: int
    metrics: dict[str, dict[str, float]]
    validation: float | None
    users: NonNegativeInt
    users_without_targets: NonNegativeInt
    settings: dict[str, Any]
    overrides: dict[str, Any]
    tuned: Tuned | None
    shortened: bool
    shortened_why: str | None
    environment: dict[str, Any]
    seconds: NonNegativeFloat
    peak_memory_gb: float | None = None
    epochs: NonNegativeInt
    best_epoch: int | None
    selected_beta: float | None
    parameters: NonNegativeInt
    latents: dict[str, float] | None = None
    predictive: dict[str, Any] | None = None
    lists: dict[str, float] | None = None
    intervals: dict[str, float] | None = None
    by_number: list[ErrorsOfGroup] | None = None
    watched: dict[str, list[float]] | None = None
    history: list[float]
    validated: list[int] | None = None
    work: str
    commit: str | None
    data: dict[str, Any]
    data_digest: str

    _renamed = field_validator("overrides")(todays_flat)

    @property
    def curve(self) -> dict[int, float]:
        """The values of `history` by epoch, counted from 0."""
        return dict(zip(self.validated or range(self.epochs), self.history, strict=True))

    @model_validator(mode="before")
    @classmethod
    def _of_todays_model(cls, stored: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(stored, dict) or not isinstance(stored.get("settings"), dict):
            raise ValueError("expected a run with its settings")
        settings = todays_flat(stored["settings"])
        if "model" not in settings:
            raise ValueError("its settings name no model")
        return stored | {"settings": settings, "model": settings["model"]}

    @field_validator("metrics")
    @classmethod
    def _are_summaries(cls, metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, summary in metrics.items():
            if summary.keys() != {"mean", "se", "low", "high"} or summary["se"] < 0:
                raise ValueError(f"expected mean, se, low and high of {name}, found {summary}")
        if not metrics:
            raise ValueError("expected metrics, found none")
        return metrics

    @field_validator("lists")
    @classmethod
    def _are_of_lists(cls, lists: dict[str, float] | None) -> dict[str, float] | None:
        if lists is None:
            return None
        required = {"k", "coverage", "popularity", "users_per_second"}
        if not required <= lists.keys() <= required | {"similarity"}:
            raise ValueError(f"expected {', '.join(sorted(required))} and similarity, found {', '.join(lists)}")
        for name in lists.keys() & {"coverage", "popularity", "similarity"}:
            if not 0 <= lists[name] <= 1:
                raise ValueError(f"expected a {name} from 0 to 1, found {lists[name]}")
        if lists["k"] < 1 or lists["k"] % 1 or lists["users_per_second"] <= 0:
            raise ValueError(f"expected a whole k and users_per_second, both above 0, found {lists}")
        return lists

    @field_validator("intervals")
    @classmethod
    def _are_of_intervals(cls, intervals: dict[str, float] | None) -> dict[str, float] | None:
        if intervals is None:
            return None
        of_sd = {"within_50", "within_90", "sd"}
        if intervals.keys() - of_sd != {"crps"} or intervals.keys() & of_sd not in (set(), of_sd):
            raise ValueError(f"expected crps, alone or with {', '.join(sorted(of_sd))}, found {', '.join(intervals)}")
        for name, value in intervals.items():
            if value < 0:
                raise ValueError(f"expected a {name} of at least 0, found {value}")
            if name.startswith("within") and value > 1:
                raise ValueError(f"expected a {name} from 0 to 1, found {value}")
        return intervals


class Attributes(Strict):
    """The stored counts of one data set's split, by name; `seconds` is the time that reading and splitting took."""

    table: str
    row: str
    dataset: str
    counts: dict[str, int | float]
    environment: dict[str, Any]
    seconds: float
    commit: str | None
    data_digest: str


class Activity(Strict):
    """Into which fifth of the test users each belongs, by how many items the model is told of them.

    Attributes:
        table: The table's name.
        dataset: The data set's name.
        groups: The group of each test user with held-out items, a digit from 0 for the fewest items told, in the order
            of the users in the runs' `.npz`.
        bounds: The numbers of items at which each group begins and ends; see `groups_by_size`.
        data_digest: Digest of the split.
    """

    table: str
    dataset: str
    groups: Annotated[str, Field(pattern=r"^[0-9]+$")]
    bounds: list[tuple[int, int]]
    data_digest: str

    @model_validator(mode="after")
    def _has_bounds_of_its_groups(self) -> Self:
        if len(self.bounds) != len(set(self.groups)):
            raise ValueError(f"expected bounds of {len(set(self.groups))} groups, found {len(self.bounds)}")
        return self


class Trial(Strict):
    """One trial of a sweep.

    Attributes:
        number: Its number, counted from 0.
        state: Whether it was completed or failed.
        params: The settings that were tried.
        value: The monitored metric on the validation part; None for a failed trial.
        best_epoch: The epoch of this value, counted from 0; None for a failed trial or a model without epochs.
        seconds: Wall time of the trial.
        reason: Why it failed, else None.
    """

    number: int
    state: Literal["complete", "failed"]
    params: dict[str, Any]
    value: float | None
    best_epoch: int | None
    seconds: float
    reason: str | None = None

    _renamed = field_validator("params")(todays_flat)


class Sweep(Strict):
    """One stored search for a row's settings on the validation part of one data set.

    Attributes:
        table: The table's name.
        row: The row's name, as printed.
        dataset: The data set's name.
        seed: Seed of the search.
        monitor: The metric that is optimised.
        epochs: The number to which the trials' epochs were cut, else None.
        settings: The settings that all trials share but for those that are varied.
        space: The settings that are varied, with their values.
        environment: Versions, platform, device and number of cores.
        commit: Commit of the code, or None outside a checkout.
        data_digest: Digest of the whole split, from which the trials' split was derived.
        trials: The trials in the order in which they ran; the first has the values of `settings`.
    """

    table: str
    row: str
    dataset: str
    seed: NonNegativeInt
    monitor: str
    epochs: int | None
    settings: dict[str, Any]
    space: dict[str, SearchSpace]
    environment: dict[str, Any]
    commit: str | None
    data_digest: str
    trials: list[Trial]

    _renamed = field_validator("settings", "space")(todays_flat)

    @model_validator(mode="after")
    def _trials_are_of_the_space(self) -> Self:
        for number, trial in enumerate(self.trials):
            if trial.number != number or (trial.state == "complete") != (trial.value is not None):
                raise ValueError(f"trial {number} is numbered {trial.number} and has the value {trial.value}")
            outside = [name for name in {*trial.params, *self.space} if not self._has(name, trial.params)]
            if outside:
                raise ValueError(f"trial {number} has another {outside[0]} than the search may try")
        return self

    def _has(self, name: str, params: dict[str, Any]) -> bool:
        return name in params and name in self.space and self.space[name].holds(params[name])

    @property
    def best(self) -> Trial | None:
        """The trial with the best value, the earliest if there are several; None if no trial was completed."""
        sign = 1 if lower_is_better(self.monitor) else -1
        complete = [(sign * trial.value, trial) for trial in self.trials if trial.value is not None]
        return min(complete, key=lambda pair: pair[0])[1] if complete else None

    @property
    def seconds(self) -> float:
        """Seconds of all trials together."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def tuned(self) -> Tuned | None:
        """The summary that is stored with a run of the best settings; None if no trial was completed."""
        if self.best is None or self.best.value is None:
            return None
        failed = sum(trial.state == "failed" for trial in self.trials)
        return Tuned(trials=len(self.trials), failed=failed, epochs=self.epochs, value=round(self.best.value, 6))
