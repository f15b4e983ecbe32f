"""The settings of a run, those of the model's constructor and those of training, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import PositiveFloat, PositiveInt

from tfvae.data.splits import Split
from tfvae.evaluation.metrics import check_metric
from tfvae.models import model_class
from tfvae.models.fields import Seed
from tfvae.models.former_settings import todays_settings
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import FINITE, explained, refuse_truth_values

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = [
    "Detail",
    "FORMER_NAMES",
    "PILOT_CAP",
    "Settings",
    "TrainingSettings",
    "as_member",
    "given_to_member",
    "member_settings",
    "settings_of",
    "stored_settings",
    "todays_flat",
]

Detail = Literal["all", "curves", "off"]
"""How much a run logs for TensorBoard: "curves" leaves out the item vectors for the projector. It is no setting."""

PILOT_CAP = 1.0
"""The cap of the KL weight in the pilot run of `beta_selection="peak"`."""
FORMER_NAMES = {"cooling": "final_learning_rate_factor"}
"""The present names of training settings, by the names under which older runs were stored."""
FORMER_SETTINGS = ("drop_patience",)
"""Training settings of older runs that only had an effect together with settings that no longer exist."""


class TrainingSettings(pydantic.BaseModel):
    """How a model is trained; the defaults are those of Mult-VAE on ML-20M (WWW'18, section 4.3 and code).

    A model's class may replace some of them by its `training_defaults`.

    Attributes:
        epochs: The largest number of passes over the training users (over all their pairs, where a batch is of pairs).
        batch_size: Users or pairs per update.
        optimizer: "adam"; "sparse-adam", which changes only those rows of a table that a step needed, for large
            catalogues; or "normalized-adam", which first divides each gradient tensor by its length (EVCF).
        learning_rate: The optimiser's learning rate.
        final_learning_rate_factor: The ratio of the last epoch's learning rate to the initial one; the rate falls
            geometrically over the second half of the epochs. 1 keeps it constant.
        patience: Number of epochs without a better validation value after which training ends; None trains all epochs.
            The first epochs of some models, such as those of a warm-up, do not count.
        monitor: The validation metric that selects the epoch; for a model of ratings the default is "rmse".
        validate_every: Number of epochs from one validation to the next, or of rounds of a model that trains in rounds;
            the last epoch is always validated. A larger number saves time where validation takes as long as training.
        beta_selection: How the cap of an annealed KL weight is found (section 2.2.2): "fixed" takes the setting; "peak"
            anneals to 1 in a pilot run, takes the β of the epoch with the best validation value, and trains again with
            this cap.
        precision: "mixed_bfloat16" computes the inner layers in bfloat16; the first layer and the softmax stay float32.
        xla: Whether XLA compiles the losses and gradients of a step, of models that it can compile, for one device. It
            compiles again for each power of two of stored items in a batch.
        deterministic: Whether TensorFlow uses only operations whose results are bit-identical on a GPU too, which is
            slower there.
        seed: Seed of the initialisers, the order of users, dropout and noise.
    """

    model_config = FINITE | pydantic.ConfigDict(frozen=True)

    epochs: Annotated[int, pydantic.Field(gt=0, le=10**9)] = 200
    batch_size: Annotated[int, pydantic.Field(gt=0, le=10**9)] = 500
    optimizer: Literal["adam", "sparse-adam", "normalized-adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    final_learning_rate_factor: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    patience: PositiveInt | None = None
    monitor: str = "ndcg@100"
    validate_every: PositiveInt = 1
    beta_selection: Literal["fixed", "peak"] = "fixed"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    xla: bool = False
    deterministic: bool = False
    seed: Seed = 98765

    @pydantic.field_validator("monitor")
    @classmethod
    def _known_metric(cls, monitor: str) -> str:
        check_metric(monitor)
        return monitor


class Settings(pydantic.BaseModel):
    """The complete settings of one run.

    Attributes:
        name: The model's name in the registry.
        model: All keyword settings of the model's constructor but the seed, defaults included.
        training: The settings of training.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    model: dict[str, Any]
    training: TrainingSettings

    def flat(self) -> dict[str, Any]:
        """All settings in one dictionary of JSON values, with the model's name under `"model"`."""
        return {"model": self.name, **self.model, **self.training.model_dump(mode="json")}

    @property
    def kl_weight_cap(self) -> str | None:
        """The name of the model's setting that caps an annealed KL weight; None if no KL weight is annealed."""
        return model_class(self.name).kl_weight_cap(self.model)

    @property
    def members(self) -> list[dict[str, Any]]:
        """The members of an ensemble, as its setting of this name has them; none for any other model."""
        return self.model["members"] if model_class(self.name).has_members else []

    def with_changes(self, **changes: Any) -> Settings:
        """A checked copy of the settings with some of them changed.

        Args:
            **changes: New values by name, of the model and of training alike.

        Raises:
            InputError: If a setting is unknown or wrong.
        """
        flat = {**self.flat(), **changes}
        return settings_of(flat.pop("model"), flat)

    def build(self, n_items: int, n_users: int | None = None) -> Recommender:
        """The untrained model.

        Args:
            n_items: Number of items.
            n_users: Number of training users; only models that have weights for each user need it.

        Returns:
            The model.
        """
        kind = model_class(self.name)
        size = (n_items, n_users) if kind.has_user_weights else (n_items,)
        return kind(*size, **self._of_constructor())

    def build_for(self, split: Split) -> Recommender:
        """The untrained model for a split's items and users, with the items' metadata if the model uses them."""
        return model_class(self.name).for_split(split, **self._of_constructor())

    def _of_constructor(self) -> dict[str, Any]:
        return {"seed": self.training.seed, "dtype": self.training.precision, **self.model}


def settings_of(name: str, given: Mapping[str, Any]) -> Settings:
    """Separates flat settings into those of the model and of training, fills in defaults, and checks types and ranges.

    Args:
        name: The model's name in the registry.
        given: Settings by name; all others take their defaults.

    Returns:
        The complete settings.

    Raises:
        InputError: If the model or a setting is unknown (the message names the nearest known one), a value is wrong, or
            `beta_selection` is set although no KL weight is annealed.
    """
    model = model_class(name)
    parameters = {key: p for key, p in model.settings().items() if key != "seed"}
    for key in given:
        if key not in parameters and key not in TrainingSettings.model_fields:
            raise unknown_name(f"setting of {name}", key, [*parameters, *TrainingSettings.model_fields])
    defaults = ({"monitor": "rmse"} if model.predicts_ratings else {}) | model.training_defaults
    annotations = {key: p.annotation for key, p in parameters.items()}
    annotations |= {key: field.annotation for key, field in TrainingSettings.model_fields.items()}
    refuse_truth_values(given, annotations, f"settings of {name}")
    record = model.settings_record()
    try:
        settings = Settings(
            name=name,
            model=record(**{k: v for k, v in given.items() if k in parameters}).model_dump(mode="json"),
            training=TrainingSettings(**defaults | {k: v for k, v in given.items() if k not in parameters}),
        )
    except pydantic.ValidationError as error:
        raise InputError(f"settings of {name}: {explained(error)}") from None
    for member in settings.members:
        member_settings(member)
    if settings.training.beta_selection != "fixed" and settings.kl_weight_cap is None:
        raise InputError(f"{name} anneals no KL weight with these settings; leave beta_selection out.")
    return settings


def member_settings(member: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> Settings:
    """The complete settings of an ensemble's member, by their present names.

    Args:
        member: The keys "model", "settings" and "training", as in the setting `members` of an ensemble.
        common: Training settings that hold where the member has none of its own.

    Raises:
        InputError: If a training setting is unknown, or any setting is wrong.
    """
    return settings_of(member["model"], given_to_member(member, common))


def given_to_member(member: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings that were given explicitly for an ensemble's member, by name; see `member_settings`."""
    training = _renamed(member["training"])
    for name in training:
        if name not in TrainingSettings.model_fields:
            raise unknown_name(f"training setting of the member {member['model']}", name, TrainingSettings.model_fields)
    return {**(common or {}), **member["settings"], **training}


def as_member(settings: Settings) -> dict[str, Any]:
    """Complete settings as those of an ensemble's member, with the keys "model", "settings" and "training"."""
    return {"model": settings.name, "settings": settings.model, "training": settings.training.model_dump(mode="json")}


def todays_flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Translates stored flat settings, all or some of them, to present names and to a present model.

    Args:
        stored: Settings by name; the model's name is under `"model"` if they are complete.

    Returns:
        The flat settings; their values are not checked.
    """
    renamed = _renamed(stored)
    if "model" not in renamed:
        return renamed
    if not isinstance(renamed["model"], str):
        raise ValueError(f"expected the name of a model, found {renamed['model']!r}")
    model, settings = todays_settings(renamed.pop("model"), renamed)
    return {"model": model, **settings}


def _renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with training settings under their present names, without those that no longer exist."""
    return {FORMER_NAMES.get(name, name): value for name, value in stored.items() if name not in FORMER_SETTINGS}


def stored_settings(flat: Mapping[str, Any]) -> Settings:
    """The settings of a stored run, by their present names.

    Args:
        flat: The result of `Settings.flat`, by any earlier version.

    Returns:
        The complete settings; those that did not exist at the time take their present defaults.

    Raises:
        InputError: If a setting no longer exists under any name, or its value is no longer valid.
    """
    given = todays_flat(flat)
    return settings_of(given.pop("model"), given)
