"""Errors as JSON: what was expected, what was found, what to do; never a traceback.

Every error has the form `{"error": {"code": "unknown_model", "message": "…"}}`. The code is for programs, and the
message for people.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from tfvae.system.errors import DivergedError, InputError

__all__ = ["RequestError", "add_error_handlers", "error_response", "explained_body"]

SHOWN = 60
"""How many characters of a wrong value a message repeats."""
BRANCHES = ("number", "text", "rated")
"""Names that pydantic gives to the choices of a union, which say nothing to a caller."""


class RequestError(HTTPException):
    """A request that is refused.

    Args:
        status: The HTTP status, from 400 on.
        code: The kind of error, for programs.
        message: What was expected, what was found, and what to do.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(status, {"code": code, "message": message}, headers)


def error_response(status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
    """The answer to a request that is refused or failed."""
    return _Ascii({"error": {"code": code, "message": message}}, status, headers)


class _Ascii(JSONResponse):
    """JSON in ASCII, since a message may repeat text of the caller that is not valid in UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def add_error_handlers(app: FastAPI) -> None:
    """Makes an application answer errors in the form above."""
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unfit)
    app.add_exception_handler(DivergedError, _diverged)


def explained_body(problems: Sequence[Any]) -> str:
    """What is wrong with a request, in one line: `k: Input should be greater than or equal to 1, found 0`.

    Args:
        problems: Errors as pydantic lists them; the first three are told.
    """
    lines = [_explained(problem) for problem in problems[:3]]
    more = f"; and {len(problems) - 3:,} more" if len(problems) > 3 else ""
    return "; ".join(lines) + more


def _explained(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"][1:] if part not in BRANCHES)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        message, found = "expected, but not given", ""
    elif problem["type"] == "value_error":
        found = ""
    else:
        text = json.dumps(problem["input"], default=str)
        found = f", found {text if len(text) <= SHOWN else text[:SHOWN] + '…'}"
    return f"{place}: {message}{found}" if place else f"{message}{found}"


async def _refused(request: Request, error: Any) -> JSONResponse:
    if isinstance(error.detail, dict):
        return error_response(error.status_code, error.detail["code"], error.detail["message"], error.headers)
    phrase = HTTPStatus(error.status_code).phrase
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path}; /docs lists what there is."
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}, only {allowed}."
    else:
        message = str(error.detail)
    return error_response(error.status_code, phrase.lower().replace(" ", "_"), message, error.headers)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    return error_response(422, "invalid_request", explained_body(error.errors()))


async def _unfit(request: Request, error: Any) -> JSONResponse:
    return error_response(422, "invalid_request", str(error))


async def _diverged(request: Request, error: Any) -> JSONResponse:
    return error_response(500, "diverged", str(error))
