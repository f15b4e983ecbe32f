"""Settings of a run: those of the model's constructor and those of training, checked before anything starts."""

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

__all__ = ["FORMER_NAMES", "PILOT_CAP", "Settings", "TrainingSettings", "settings_of", "stored_settings", "todays_flat"]

PILOT_CAP = 1.0
"""The cap of the KL weight in the pilot run of `beta_selection="peak"`."""
FORMER_NAMES = {"cooling": "final_learning_rate_factor"}
"""Training settings by the names they had when runs were stored, with today's names."""
FORMER_SETTINGS = ("drop_patience",)
"""Training settings that had an effect only with others that no longer exist."""


class TrainingSettings(pydantic.BaseModel):
    """How a model is trained; the defaults are those of Mult-VAE on ML-20M (WWW'18, section 4.3 and code).

    A model may have others, its class's `training_defaults`.

    Attributes:
        epochs: Passes over the training users, at most.
        batch_size: Users per update.
        optimizer: "adam", or "normalized-adam", which divides each gradient tensor by its length first (EVCF).
        learning_rate: The optimiser's learning rate.
        final_learning_rate_factor: What the learning rate has been multiplied by in the last epoch; it falls
            geometrically over the second half of the epochs. 1 for none.
        patience: Epochs without a better validation value after which training ends; None trains to the end. Epochs
            before a model is ready to be judged, such as those of a warm-up, do not count.
        monitor: The validation metric that selects the epoch; for a model of ratings "rmse" if not given.
        beta_selection: How the cap of an annealed KL weight is found (section 2.2.2): "fixed" takes it as it is; "peak"
            anneals to 1 in a pilot run, reads β where validation peaks, and trains anew with that cap.
        precision: "mixed_bfloat16" computes the inner layers in bfloat16; first layer and softmax stay float32.
        deterministic: Ask TensorFlow for operations that give equal bits on a GPU too; slower there.
        seed: Seed of the initialisers, the order of users, dropout and noise.
    """

    model_config = FINITE | pydantic.ConfigDict(frozen=True)

    epochs: Annotated[int, pydantic.Field(gt=0, le=10**9)] = 200
    batch_size: Annotated[int, pydantic.Field(gt=0, le=10**9)] = 500
    optimizer: Literal["adam", "normalized-adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    final_learning_rate_factor: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    patience: PositiveInt | None = None
    monitor: str = "ndcg@100"
    beta_selection: Literal["fixed", "peak"] = "fixed"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    deterministic: bool = False
    seed: Seed = 98765

    @pydantic.field_validator("monitor")
    @classmethod
    def _known_metric(cls, monitor: str) -> str:
        check_metric(monitor)
        return monitor


class Settings(pydantic.BaseModel):
    """All settings of one run, complete.

    Attributes:
        name: The model's name in the registry.
        model: Every keyword setting of its constructor but the seed, defaults filled in.
        training: How it is trained.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    model: dict[str, Any]
    training: TrainingSettings

    def flat(self) -> dict[str, Any]:
        """One JSON-able dictionary with `"model"` as the name, as `settings_of` takes it apart again."""
        return {"model": self.name, **self.model, **self.training.model_dump(mode="json")}

    @property
    def kl_weight_cap(self) -> str | None:
        """The name of the model's setting that caps an annealed KL weight; None where none is annealed."""
        return model_class(self.name).kl_weight_cap(self.model)

    def with_changes(self, **changes: Any) -> Settings:
        """The same settings but for some, checked again."""
        flat = {**self.flat(), **changes}
        return settings_of(flat.pop("model"), flat)

    def build(self, n_items: int, n_users: int | None = None) -> Recommender:
        """The untrained model.

        Args:
            n_items: Width of the catalogue.
            n_users: Number of training users; only models that have weights for each need it.

        Returns:
            The `Recommender`.
        """
        kind = model_class(self.name)
        size = (n_items, n_users) if kind.has_user_weights else (n_items,)
        return kind(*size, **self._of_constructor())

    def build_for(self, split: Split) -> Recommender:
        """The untrained model for a split, with what else it needs to know of the data."""
        return model_class(self.name).for_split(split, **self._of_constructor())

    def _of_constructor(self) -> dict[str, Any]:
        return {"seed": self.training.seed, "dtype": self.training.precision, **self.model}


def settings_of(name: str, given: Mapping[str, Any]) -> Settings:
    """Sorts flat settings into the model's and training's, fills in defaults, checks types and ranges.

    Args:
        name: The model's name in the registry.
        given: Settings by name; those left out take their defaults.

    Returns:
        The complete settings.

    Raises:
        InputError: For an unknown model, an unknown setting (names the nearest) or a wrong value.
    """
    model = model_class(name)
    parameters = {key: p for key, p in model.settings().items() if key != "seed"}
    fields: dict[str, Any] = {key: (p.annotation, p.default) for key, p in parameters.items()}
    for key in given:
        if key not in fields and key not in TrainingSettings.model_fields:
            raise unknown_name(f"setting of {name}", key, [*fields, *TrainingSettings.model_fields])
    defaults = ({"monitor": "rmse"} if model.predicts_ratings else {}) | model.training_defaults
    annotations = {key: p.annotation for key, p in parameters.items()}
    annotations |= {key: field.annotation for key, field in TrainingSettings.model_fields.items()}
    refuse_truth_values(given, annotations, f"settings of {name}")
    model_settings = pydantic.create_model(f"{name} settings", __config__=FINITE, **fields)
    try:
        settings = Settings(
            name=name,
            model=model_settings(**{k: v for k, v in given.items() if k in fields}).model_dump(mode="json"),
            training=TrainingSettings(**defaults | {k: v for k, v in given.items() if k not in fields}),
        )
    except pydantic.ValidationError as error:
        raise InputError(f"settings of {name}: {explained(error)}") from None
    if settings.training.beta_selection != "fixed" and settings.kl_weight_cap is None:
        raise InputError(f"{name} anneals no KL weight with these settings; leave beta_selection out.")
    return settings


def todays_flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings as they were stored, whole or in part, by today's names and with today's model.

    Args:
        stored: Settings by name, with `"model"` as the model's name where they are whole.
    """
    renamed = {FORMER_NAMES.get(name, name): value for name, value in stored.items() if name not in FORMER_SETTINGS}
    if "model" not in renamed:
        return renamed
    model, settings = todays_settings(renamed.pop("model"), renamed)
    return {"model": model, **settings}


def stored_settings(flat: Mapping[str, Any]) -> Settings:
    """The settings of a stored run, as `Settings.flat` gave them then, by today's names.

    Args:
        flat: The flat settings, of whichever version.

    Returns:
        The complete settings; those that did not exist then have today's defaults.

    Raises:
        InputError: If one of them no longer exists, under any name.
    """
    given = todays_flat(flat)
    return settings_of(given.pop("model"), given)
