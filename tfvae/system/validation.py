"""Records with known keys only: settings of splits, definitions of tables, stored runs."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tfvae.system.errors import InputError, unknown_name

__all__ = ["Strict", "checked"]


class Strict(BaseModel):
    """A frozen record that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise unknown_name("key", key, cls.model_fields)
        return given


Part = TypeVar("Part", bound=Strict)


def checked(kind: type[Part], content: Any, what: object) -> Part:
    """Validates what a file holds, or what a user gave.

    Args:
        kind: What it should be.
        content: Plain values by key.
        what: The file or thing they come from, for messages.

    Returns:
        The record.

    Raises:
        InputError: If it is not a `kind`; names the file, the place in it and the nearest known key.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{what}{': ' + where if where else ''}: {message}") from error
