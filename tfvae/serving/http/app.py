"""The routes of the service, as a FastAPI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tfvae
from tfvae.serving.http.bodies import (
    Found,
    Health,
    ItemsQuery,
    ModelState,
    ModelStates,
    Predictions,
    PredictRequest,
    Problem,
    Recommended,
    RecommendRequest,
    Similar,
    SimilarQuery,
    SimilarRequest,
)
from tfvae.serving.http.errors import RequestError, add_error_handlers, error_response
from tfvae.serving.http.loaded import Asked, LoadedRun, Ranked
from tfvae.serving.http.metrics import Metrics
from tfvae.serving.http.page_files import add_page
from tfvae.serving.http.questions import (
    found_items,
    near_items,
    predicted_ratings,
    question,
    ranked_items,
    refuse_k,
)
from tfvae.serving.http.strict import StrictRoute
from tfvae.serving.http.versions import Models, ServedModel, Version
from tfvae.system.errors import InputError

__all__ = ["create_app"]

_log = logging.getLogger(__name__)

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in (
        (400, "The body is no JSON."),
        (404, "There is no such model or item."),
        (413, "The body is too large."),
        (415, "The body is not called JSON."),
        (422, "The request is not as it should be; the message says why."),
        (503, "Too many requests wait; the header Retry-After says when to ask again."),
    )
}
ABOUT = "Recommendations of trained models. Errors are JSON and say what was expected, what was found and what to do."

router = APIRouter(route_class=StrictRoute)


def create_app(models: Models) -> FastAPI:
    """The service of some models, for any ASGI server.

    Example:
        >>> import tempfile, tfvae
        >>> from fastapi.testclient import TestClient
        >>> from tfvae.data.synthetic import synthetic
        >>> from tfvae.serving.http.app import create_app
        >>> from tfvae.serving.http.versions import Models
        >>> split = tfvae.strong_generalization(
        ...     synthetic(n_users=60, n_items=40), tfvae.StrongGeneralizationSettings(held_out_users=10)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = tfvae.train(tfvae.settings_of("ease", {}), split, folder, log=lambda line: None)
        ...     models = Models([folder])
        >>> with TestClient(create_app(models)) as client:
        ...     answer = client.post("/recommend", json={"history": [3, 5], "k": 4}).json()
        >>> len(answer["items"])
        4

    Args:
        models: The models, which the application closes when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(models.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await models.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="tfvae",
        description=ABOUT,
        version=tfvae.__version__,
        lifespan=lifespan,
        swagger_ui_parameters={"validatorUrl": None},  # the default is a public server
    )
    app.state.models, app.state.limits = models, models.limits
    app.add_middleware(_Edge, metrics=models.metrics)
    add_error_handlers(app)
    app.include_router(router)
    add_page(app)
    return app


@router.get("/health", response_model=Health)
async def health(request: Request) -> Response:
    """Whether the service takes requests."""
    return _json(Health(models=len(request.app.state.models)))


@router.get("/models", response_model=ModelStates)
async def models(request: Request) -> Response:
    """The models, what they take, and their versions."""
    states = ModelStates(models=[_state(served) for served in request.app.state.models])
    return Response(states.model_dump_json(), media_type="application/json")


@router.get("/items", response_model=Found, responses=PROBLEMS)
async def items(request: Request, query: Annotated[ItemsQuery, Query()]) -> Response:
    """Finds items by their id or title."""
    served, version = _model(request, query.model)
    refuse_k(query.limit, request.app.state.limits, "limit")
    with version.batcher.entered():
        places = await version.batcher.alone(version.run.found, query.search, query.limit)
    return _json(Found(**_who(served, version), items=found_items(version.run, places)))


@router.post("/recommend", response_model=Recommended, responses=PROBLEMS)
async def recommend(request: Request, body: RecommendRequest) -> Response:
    """Recommends items to a person with a history, whom the model need not know, or to a training user."""
    served, version = _model(request, body.model)
    run, batcher = version.run, version.batcher
    because = None
    with batcher.entered():
        asked = question(run, body, request.app.state.limits)
        if body.at_most is not None or body.diversity:
            ranked = await batcher.alone(_reranked, run, body, asked.asked)
        else:
            ranked = await batcher.ask(asked.asked)
        if body.because:
            because = await batcher.alone(run.reasons, asked.asked, ranked.places, body.because)
    request.app.state.models.metrics.unknown.labels(served.name).inc(asked.n_unknown)
    return _json(
        Recommended.model_construct(
            model=served.name,
            version=version.name,
            unknown=asked.unknown,
            n_unknown=asked.n_unknown,
            items=ranked_items(run, ranked, because),
        )
    )


@router.post("/predict", response_model=Predictions, responses=PROBLEMS)
async def predict(request: Request, body: PredictRequest) -> Response:
    """Predicts ratings, with intervals if the model knows the standard deviation of its predictions."""
    served, version = _model(request, body.model)
    run = version.run
    if not run.rates:
        raise InputError(f"{run.kind} ranks, and predicts no ratings; /recommend gives its scores.")
    with version.batcher.entered():
        asked = question(run, body, request.app.state.limits)
        places = asked.known(run, body.items, "items")
        ratings, sd = await version.batcher.alone(run.predicted, asked.asked, places)
    request.app.state.models.metrics.unknown.labels(served.name).inc(asked.n_unknown)
    return _json(
        Predictions(
            **_who(served, version),
            unknown=asked.unknown,
            n_unknown=asked.n_unknown,
            level=body.level,
            ratings=predicted_ratings(run, places, ratings, sd, body.level),
        )
    )


@router.post("/similar", response_model=Similar, responses=PROBLEMS)
async def similar(request: Request, body: SimilarRequest) -> Response:
    """The items that are nearest to an item, as the model sees them."""
    return await _near(request, body.model, body.item, body.k, body.min_users_per_item)


@router.get("/similar/{item:path}", response_model=Similar, responses=PROBLEMS)
async def similar_to(request: Request, item: str, query: Annotated[SimilarQuery, Query()]) -> Response:
    """The same, for an address."""
    return await _near(request, query.model, item, query.k, query.min_users_per_item)


@router.get("/metrics", response_class=Response, include_in_schema=False)
async def metrics(request: Request) -> Response:
    """What Prometheus reads."""
    return Response(request.app.state.models.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _near(request: Request, model: str | None, item: int | str, k: int, min_users: int) -> Response:
    served, version = _model(request, model)
    run = version.run
    refuse_k(k, request.app.state.limits)
    place = run.place_of.get(str(item))
    if place is None:
        raise RequestError(
            404,
            "unknown_item",
            f"{item!r} is none of the {run.n_items:,} items of {served.name}, whose ids look like {run.ids[0]!r}.",
        )
    with version.batcher.entered():
        found, near = await version.batcher.alone(near_items, run, place, k, min_users)
    return _json(
        Similar(**_who(served, version), item=run.ids[place], title=run.title(place), measure=found.measure, items=near)
    )


def _reranked(run: LoadedRun, body: RecommendRequest, asked: Asked) -> Ranked:
    return run.rerank(asked, run.reranker(body.at_most, body.categories, body.diversity))


def _model(request: Request, name: str | None) -> tuple[ServedModel, Version]:
    """The model that a request names, and the version that answers it from now on."""
    served = request.app.state.models.get(name)
    request.scope["tfvae.model"] = served.name
    return served, served.current


def _who(served: ServedModel, version: Version) -> dict[str, str]:
    return {"model": served.name, "version": version.name}


def _json(answer: BaseModel) -> Response:
    """An answer that was made here, and need not be checked again; what is not known is left out."""
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _state(served: ServedModel) -> ModelState:
    run = served.current.run
    return ModelState(
        **_who(served, served.current),
        kind=run.kind,
        n_items=run.n_items,
        takes="history" if run.model.scores_new_users else "user",
        takes_user=run.row_of is not None,
        predicts_ratings=run.rates,
        has_intervals=run.has_sd,
        scale=run.items.scale if run.rates else None,
        has_titles=run.titles is not None,
        has_similar=run.has_similar,
        categories=list(run.items.attributes),
        loaded=served.current.loaded,
        problem=served.problem,
    )


class _Edge:
    """Counts and times every request, and turns an error that nobody foresaw into an answer.

    Args:
        app: The application within.
        metrics: The metrics of the service.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise
            response = error_response(500, "internal_error", "something failed in the service; its log says what.")
            await response(scope, receive, noting)
        route = getattr(scope.get("route"), "path", "")
        self._metrics.requests.labels(route, scope.get("tfvae.model", ""), str(status)).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
