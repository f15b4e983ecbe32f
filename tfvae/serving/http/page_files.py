"""The page of the service and what it is made of: plain HTML, CSS and JavaScript, which lie in `page/`."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["add_page"]

FOLDER = Path(__file__).with_name("page")
# Titles are foreign text: the page runs no script but its own files, and asks no server but the one it came from.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" + "".join(
    f"; {kind}-src 'self'" for kind in ("connect", "img", "script", "style")
)
HEADERS = {
    "Cache-Control": "no-cache",  # a browser asks whether a file is still the same, by its ETag
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_page(app: FastAPI) -> None:
    """Adds the page at `/` and what it is made of at `/static` to an application."""
    files = _PageFiles(directory=FOLDER)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/static", files)


class _PageFiles(StaticFiles):
    """Files that are sent with the headers above."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response
