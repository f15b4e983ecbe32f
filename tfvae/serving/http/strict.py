"""Bodies of requests, read strictly: of a limited size, JSON of finite numbers, and no key twice."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from tfvae.serving.http.errors import RequestError
from tfvae.system.files import finite_json

__all__ = ["StrictRoute"]


class StrictRoute(APIRoute):
    """A route whose bodies are read strictly; `app.state.limits` has their largest size."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request, as FastAPI asks for it."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    """A request whose body is refused as soon as it is seen to be too large."""

    _whole: bytes | None = None

    async def body(self) -> bytes:
        if self._whole is None:
            self._refuse_other_types()
            most, whole = self.app.state.limits.max_body, bytearray()
            announced = self.headers.get("content-length", "0")
            if announced.isdecimal() and int(announced) > most:
                raise _too_large(most)
            async for part in self.stream():
                whole += part
                if len(whole) > most:
                    raise _too_large(most)
            self._whole = bytes(whole)
        return self._whole

    async def json(self) -> Any:
        try:
            return finite_json((await self.body()).decode("utf-8"), distinct_keys=True)
        except (ValueError, RecursionError) as problem:
            raise RequestError(400, "not_json", f"expected a JSON object in UTF-8 as the body: {problem}.") from None

    def _refuse_other_types(self) -> None:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestError(
                415,
                "unsupported_media_type",
                f"expected the header Content-Type: application/json, found {kind or 'none'}.",
            )


def _too_large(most: int) -> RequestError:
    return RequestError(413, "body_too_large", f"expected a body of at most {most:,} bytes; send a shorter list.")
