"""The members of an ensemble as a setting: names of models, and settings of each, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field

from tfvae.models import MODELS, model_class
from tfvae.models.former_settings import todays_settings
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import Strict, checked, explained, plain, refuse_truth_values

__all__ = ["RANKERS", "RATERS", "RankingMembers", "RatingMembers", "member_names"]


class _Member(Strict):
    """One member: the name of its model, settings of its constructor, and settings of its training."""

    model: str
    settings: dict[str, Any] = {}
    training: dict[str, Any] = {}


def _checked_member(given: dict[str, Any], *, rates: bool) -> dict[str, Any]:
    """The same member with all three keys, whose model settings are checked; those that are not given stay away."""
    member = checked(_Member, given, "member")
    if member.model not in MODELS:
        raise unknown_name("model", member.model, MODELS)
    name, settings = todays_settings(member.model, {key: plain(value) for key, value in member.settings.items()})
    kind = model_class(name)
    if kind.has_members:
        raise InputError(f"{name} is an ensemble itself; name its members instead.")
    if kind.predicts_ratings != rates:
        does, mends = ("predicts ratings", "rating-ensemble") if kind.predicts_ratings else ("ranks", "ensemble")
        raise InputError(f"{name} {does}, other members do not; models of that kind go into {mends!r}.")
    if not kind.scores_new_users:
        raise InputError(f"{name} only scores the users it was trained on; an ensemble scores new users too.")
    if settings.get("metadata"):
        raise InputError(f"{name} with metadata needs the items' own; a member is made without them.")
    known = {key: parameter.annotation for key, parameter in kind.settings().items() if key != "seed"}
    for key in settings:
        if key not in known:
            raise unknown_name(f"setting of {name} (training settings go into 'training'):", key, known)
    refuse_truth_values(settings, known, f"settings of {name}")
    try:
        record = kind.settings_record()(**settings)
    except pydantic.ValidationError as error:
        raise InputError(f"settings of {name}: {explained(error)}") from None
    return {
        "model": name,
        "settings": record.model_dump(mode="json", exclude_unset=True),
        "training": {key: plain(value) for key, value in member.training.items()},
    }


RankingMembers = Annotated[
    Sequence[Annotated[dict[str, Any], AfterValidator(partial(_checked_member, rates=False))]], Field(min_length=2)
]
RatingMembers = Annotated[
    Sequence[Annotated[dict[str, Any], AfterValidator(partial(_checked_member, rates=True))]], Field(min_length=2)
]


def _defaults(*members: tuple[str, dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({"model": model, "settings": settings, "training": {}} for model, settings in members)


RANKERS = _defaults(("edlae", {}), ("mult-dae", {"likelihood": "logistic"}), ("recvae", {}), ("cdae", {}))
RATERS = _defaults(("p-vae", {}), ("two-sided-p-vae", {}), ("bias-mf", {}))


def member_names(members: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The members' names, by which their folders are called too: their numbers, counted from 0, and their models."""
    return tuple(f"{number}-{member['model']}" for number, member in enumerate(members))
