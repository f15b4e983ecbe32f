"""Settings of a run: those of the model's constructor and those of training, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import PositiveFloat, PositiveInt

from tfvae.data.splits import Split
from tfvae.evaluation.metrics import check_metric
from tfvae.models import model_class
from tfvae.system.errors import InputError, unknown_name

__all__ = ["FORMER_NAMES", "Settings", "TrainingSettings", "settings_of", "stored_settings", "todays_names"]

# The settings of stored runs by the names they had then, with today's names.
FORMER_NAMES = {"cooling": "final_learning_rate_factor"}


class TrainingSettings(pydantic.BaseModel):
    """How a model is trained; the defaults are those of Mult-VAE on ML-20M (WWW'18, section 4.3 and code).

    A model may have others, its class's `training_defaults`.

    Attributes:
        epochs: Passes over the training users, at most.
        batch_size: Users per update.
        optimizer: "adam", or "normalized-adam", which divides each gradient tensor by its length first (EVCF).
        learning_rate: Of the optimiser.
        final_learning_rate_factor: What the learning rate has been multiplied by in the last epoch; it falls
            geometrically over the second half of the epochs. 1 for none.
        patience: Epochs without a better validation value after which training ends; None trains to the end. Epochs
            of a warm-up (`anneal_by="epochs"`) do not count.
        monitor: The validation metric that selects the epoch; for a model of ratings "rmse" if not given.
        beta_selection: How the KL weight's cap is found (section 2.2.2): "fixed" takes `beta_cap` as it is; "peak"
            anneals to 1 in a pilot run, reads β where validation peaks, and trains anew with that cap;
            "stop-at-drop" holds β at its best value once validation has not risen for `drop_patience` epochs.
        drop_patience: Epochs; only for "stop-at-drop".
        precision: "mixed_bfloat16" computes the inner layers in bfloat16; first layer and softmax stay float32.
        deterministic: Ask TensorFlow for operations that give equal bits on a GPU too; slower there.
        seed: Of initialisers, order of users, dropout and noise.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 200
    batch_size: PositiveInt = 500
    optimizer: Literal["adam", "normalized-adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    final_learning_rate_factor: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    patience: PositiveInt | None = None
    monitor: str = "ndcg@100"
    beta_selection: Literal["fixed", "peak", "stop-at-drop"] = "fixed"
    drop_patience: PositiveInt = 5
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    deterministic: bool = False
    seed: pydantic.NonNegativeInt = 98765

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

    def with_changes(self, **changes: Any) -> Settings:
        """The same settings but for some, checked again."""
        flat = {**self.flat(), **changes}
        return settings_of(flat.pop("model"), flat)

    def build(self, n_items: int, n_users: int | None = None):
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

    def build_for(self, split: Split):
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
    fields = {key: (p.annotation, p.default) for key, p in parameters.items()}
    for key in given:
        if key not in fields and key not in TrainingSettings.model_fields:
            raise unknown_name(f"setting of {name}", key, [*fields, *TrainingSettings.model_fields])
    if given.get("beta_selection", "fixed") != "fixed" and "beta_cap" not in fields:
        raise InputError(f"{name} has no KL weight to select; leave beta_selection out, or take another model.")
    if (
        given.get("beta_selection", "fixed") != "fixed"
        and "kl_weight" in fields
        and given.get("kl_weight") != "annealed"
    ):
        raise InputError(
            f'{name} anneals no KL weight unless kl_weight="annealed"; leave beta_selection out, or set that.'
        )
    defaults = ({"monitor": "rmse"} if model.predicts_ratings else {}) | model.training_defaults
    model_settings = pydantic.create_model(f"{name} settings", __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    try:
        return Settings(
            name=name,
            model=model_settings(**{k: v for k, v in given.items() if k in fields}).model_dump(mode="json"),
            training=TrainingSettings(**defaults | {k: v for k, v in given.items() if k not in fields}),
        )
    except pydantic.ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors())
        raise InputError(f"settings of {name}: " + "; ".join(problems)) from None


def todays_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary whose keys are settings, with today's name of each that has been renamed since it was stored."""
    return {FORMER_NAMES.get(name, name): value for name, value in stored.items()}


def stored_settings(flat: Mapping[str, Any]) -> Settings:
    """The settings of a stored run, as `Settings.flat` gave them then, by today's names.

    Args:
        flat: The flat settings, of whichever version.

    Returns:
        The complete settings; those that did not exist then have today's defaults.

    Raises:
        InputError: If one of them no longer exists, under any name.
    """
    given = todays_names(flat)
    return settings_of(given.pop("model"), given)
