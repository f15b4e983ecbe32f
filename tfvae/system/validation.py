"""Settings and records that pydantic checks; whatever is wrong becomes one clear error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from tfvae.system.errors import InputError, unknown_name

__all__ = ["FINITE", "Strict", "checked", "checked_call", "explained", "plain", "refuse_truth_values"]

FINITE = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
"""Configuration of pydantic models that refuse unknown settings, NaN and infinity."""


class Strict(BaseModel):
    """A frozen record that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise unknown_name("key", key, cls.model_fields)
        return given


Part = TypeVar("Part", bound=Strict)


def checked(kind: type[Part], content: Any, what: object) -> Part:
    """Validates the content of a file or what a user has given.

    Args:
        kind: The class of the record.
        content: Plain values by key.
        what: The file or thing that the values come from, for messages.

    Returns:
        The record.

    Raises:
        InputError: If the content is not valid; the message names the file and the place in it, and for an unknown key
            the nearest known one.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{what}{': ' + where if where else ''}: {message}") from error


def checked_call(function: Callable, refuse_unknown: Callable[[Iterable[str]], None]) -> Callable:
    """Makes a constructor check its arguments by their annotations.

    Args:
        function: The constructor.
        refuse_unknown: Called with the names of the keyword arguments that the constructor only passes on.

    Returns:
        The constructor with the same signature. It raises `InputError` if an argument is not valid, and converts
        arguments to the annotated type (1 to 1.0, a NumPy number to Python's).
    """
    named = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD][1:]

    @functools.cache
    def arguments() -> type[BaseModel]:
        # Annotations are read at the first call, since some names may not exist yet when the class is defined.
        parameters = inspect.signature(function, eval_str=True).parameters
        found = {name: parameters[name].annotation for name in names}
        fields: Any = {name: (Any if kind is inspect.Parameter.empty else kind, None) for name, kind in found.items()}
        return create_model("arguments", __config__=FINITE, **fields)

    names = [parameter.name for parameter in named]

    @functools.wraps(function)
    def constructor(self, *args, **kwargs):
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or len(args) + len(kwargs) > len(given):
            return function(self, *args, **kwargs)  # which raises Python's own error
        own = {name: plain(given.pop(name)) for name in names if name in given}
        refuse_unknown(given)
        fields = {name: field.annotation for name, field in arguments().model_fields.items()}
        refuse_truth_values(own, fields, type(self).__name__)
        try:
            checked_own = arguments()(**own)
        except ValidationError as error:
            raise InputError(f"{type(self).__name__}: {explained(error)}") from None
        return function(self, **{name: getattr(checked_own, name) for name in own}, **given)

    return constructor


def refuse_truth_values(given: Mapping[str, Any], annotations: Mapping[str, Any], what: str) -> None:
    """Refuses true and false for settings that are not truth values, since pydantic would take them for 1 and 0.

    Args:
        given: Values by name.
        annotations: The types of the settings by name.
        what: The owner of the settings, for messages.

    Raises:
        InputError: If there is such a value; the message names the first.
    """
    for name, value in given.items():
        if isinstance(value, bool) and name in annotations and not _admits_bool(annotations[name]):
            raise InputError(f"{what}: {name} = {value}: expected no truth value")


def _admits_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_admits_bool(part) for part in get_args(annotation))


def explained(error: ValidationError) -> str:
    """The settings that are wrong and why, in one line: `dropout = 1.7: Input should be less than 1`."""
    lines = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        lines.append(f"{where} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def plain(value: Any) -> Any:
    """A NumPy scalar as the equivalent Python value; anything else unchanged."""
    return value.item() if isinstance(value, np.generic) else value
