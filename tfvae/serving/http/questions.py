"""From a request's ids to a question that a loaded run can answer, and from its answer to ids and titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri

from tfvae.serving.http.bodies import (
    Because,
    FoundItem,
    PredictedRating,
    PredictRequest,
    Rated,
    RecommendedItem,
    RecommendRequest,
    SimilarItem,
)
from tfvae.serving.http.errors import RequestError
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.loaded import Asked, LoadedRun, Ranked
from tfvae.serving.reasons import Reason
from tfvae.serving.rules import Rules
from tfvae.serving.similar import SimilarItems, similar_items
from tfvae.system.errors import InputError

__all__ = ["Question", "found_items", "near_items", "predicted_ratings", "question", "ranked_items", "refuse_k"]


@dataclass
class Question:
    """A person as the model knows them, and what of the request it does not know.

    Attributes:
        asked: The person, and what may be recommended to them.
        unknown: Ids that are no items of the model, by the field that they came in.
    """

    asked: Asked
    unknown: dict[str, list[int | str]] = field(default_factory=dict)

    @property
    def n_unknown(self) -> int:
        """How many ids are no items of the model."""
        return sum(map(len, self.unknown.values()))

    def known(self, run: LoadedRun, ids: Sequence[int | str], name: str) -> np.ndarray:
        """The places of the ids that are items of the model, int32; the others are noted as unknown.

        Args:
            run: The run.
            ids: The ids.
            name: The field that they came in.
        """
        places = [run.place_of.get(str(item)) for item in ids]
        if unknown := [item for item, place in zip(ids, places, strict=True) if place is None]:
            self.unknown[name] = unknown
        return np.array([place for place in places if place is not None], np.int32)


def question(run: LoadedRun, body: RecommendRequest | PredictRequest, limits: Limits) -> Question:
    """Reads who asks, and by which rules.

    Args:
        run: The run that is to answer.
        body: The request.
        limits: The limits of the service.

    Raises:
        RequestError: If the request is over a limit, or names neither a history nor a user, or both.
        InputError: If what it names does not suit the model, or leaves nothing that could be recommended.
    """
    if (body.history is None) == (body.user is None):
        raise RequestError(
            422, "invalid_request", 'expected either "history", a list of items, or "user", the id of a training user.'
        )
    found = Question(Asked(np.empty(0, np.int32)))
    who = _user(run, body.user) if body.history is None else _history(run, body.history, limits, found)
    if isinstance(body, PredictRequest):
        refuse_k(len(body.items), limits, "items")
        found.asked = Asked(**who)
        return found
    refuse_k(body.k, limits)
    if (body.categories is None) != (body.at_most is None):
        raise RequestError(
            422,
            "invalid_request",
            'expected "at_most" and "categories" together: how many items of one category, and which attribute of the '
            "items the categories are.",
        )
    if body.because and not run.model.scores_new_users:
        raise InputError(f"because: {run.kind} serves its training users by weights of their own, and cannot say why.")
    allowed = _allowed(run, body, found)
    found.asked = Asked(**who, k=min(body.k, run.n_items), allowed=allowed, again=body.again)
    return found


def refuse_k(k: int, limits: Limits, name: str = "k") -> None:
    """Refuses more items in an answer than the service gives.

    Raises:
        RequestError: If they are more.
    """
    if k > limits.max_k:
        raise RequestError(
            422, "over_limit", f"{name}: this service returns at most {limits.max_k:,} items, found {k:,}."
        )


def ranked_items(run: LoadedRun, ranked: Ranked, because: list[list[Reason]] | None) -> list[RecommendedItem]:
    """A ranking with ids and titles."""
    sds = [None] * len(ranked.places) if ranked.sd is None else ranked.sd.tolist()
    reasons: Sequence[Any] = [None] * len(ranked.places) if because is None else because
    return [
        RecommendedItem.model_construct(
            item=run.ids[place],
            title=run.title(place),
            score=score,
            sd=sd,
            because=None if of_item is None else [_because(run, reason) for reason in of_item],
        )
        for place, score, sd, of_item in zip(ranked.places.tolist(), ranked.scores.tolist(), sds, reasons, strict=True)
    ]


def predicted_ratings(
    run: LoadedRun, places: np.ndarray, ratings: np.ndarray, sd: np.ndarray | None, level: float
) -> list[PredictedRating]:
    """Predicted ratings with ids, titles and intervals.

    Args:
        run: The run that predicted them.
        places: int [p], the items.
        ratings: float [p], predicted ratings, not clipped to the scale.
        sd: float [p], their standard deviations, or None.
        level: Probability of the central interval of a normal distribution.
    """
    assert run.items.scale is not None
    columns: dict[str, np.ndarray] = {"rating": ratings}
    if sd is not None:
        far = ndtri((1 + level) / 2) * sd
        columns |= {"low": ratings - far, "high": ratings + far}
    values = {name: np.clip(column, *run.items.scale).tolist() for name, column in columns.items()}
    if sd is not None:
        values["sd"] = sd.tolist()
    return [
        PredictedRating(
            item=run.ids[place], title=run.title(place), **{name: column[row] for name, column in values.items()}
        )
        for row, place in enumerate(places.tolist())
    ]


def near_items(run: LoadedRun, place: int, k: int, min_users: int) -> tuple[SimilarItems, list[SimilarItem]]:
    """The items that are nearest to one, as `tfvae.serving.similar.similar_items` finds them.

    Raises:
        InputError: If the model has nothing to compare items by, or knows nothing of this one; or if no item has so
            many users.
    """
    ids = run.items.item_ids
    candidates = Rules(min_users=min_users, n_users=run.items.n_users).allowed(ids)
    found = similar_items(run.model, ids, run.ids[place], min(k, run.n_items), candidates=candidates)
    rows = zip(found.items.tolist(), found.similarities.tolist(), strict=True)
    return found, [
        SimilarItem(item=item, title=run.title(run.place_of[str(item)]), similarity=similarity)
        for item, similarity in rows
    ]


def found_items(run: LoadedRun, places: Sequence[int]) -> list[FoundItem]:
    """Items with ids, titles and numbers of users."""
    return [
        FoundItem(item=run.ids[place], title=run.title(place), users=int(run.items.n_users[place])) for place in places
    ]


def _because(run: LoadedRun, reason: Reason) -> Because:
    return Because(item=reason.item, title=run.title(run.place_of[str(reason.item)]), effect=reason.effect)


def _user(run: LoadedRun, user: int | str | None) -> dict[str, Any]:
    """The attributes of `Asked` that tell of a training user."""
    if run.row_of is None or run.train is None:
        raise InputError(
            "user: the run has no split that says who its training users are, or has it in shards; give a "
            "history instead."
        )
    if str(user) not in run.row_of:
        known = next(iter(run.row_of), "")
        raise InputError(
            f"user: {user} is none of the {len(run.row_of):,} training users; their ids look like {known}."
        )
    row = run.row_of[str(user)]
    if not run.model.scores_new_users:
        return {"places": np.empty(0, np.int32), "row": row}
    start, end = run.train.indptr[row : row + 2]
    order = np.argsort(run.train.indices[start:end], kind="stable")
    places = run.train.indices[start:end][order].astype(np.int32)
    return {"places": places, "ratings": run.train.data[start:end][order].astype(np.float32) if run.rates else None}


def _history(run: LoadedRun, history: Sequence[int | str | Rated], limits: Limits, found: Question) -> dict[str, Any]:
    """The attributes of `Asked` that tell of a history."""
    if not run.model.scores_new_users:
        raise InputError(
            f'history: {run.kind} serves its training users only; name one of them by "user" instead, by their id.'
        )
    if len(history) > limits.max_history:
        raise RequestError(
            422,
            "over_limit",
            f"history: this service takes at most {limits.max_history:,} items, found {len(history):,}; send the "
            "latest ones.",
        )
    rated = [entry for entry in history if isinstance(entry, Rated)]
    if run.rates and len(rated) < len(history):
        bare = next(entry for entry in history if not isinstance(entry, Rated))
        raise InputError(
            f'history: {run.kind} predicts ratings from ratings; expected {{"item": id, "rating": number}}, found '
            f"{bare!r}."
        )
    if rated and not run.rates:
        raise InputError(
            f"history: {run.kind} ranks by what is in a history, not by ratings; give {rated[0].item!r} without one."
        )
    if not run.rates:
        places = found.known(run, [entry for entry in history if not isinstance(entry, Rated)], "history")
        return {"places": np.unique(places)}
    assert run.items.scale is not None
    low, high = run.items.scale
    for entry in rated:
        if not low <= entry.rating <= high:
            raise InputError(
                f"history: expected ratings from {low:g} to {high:g}, which {run.kind} was trained on, found "
                f"{entry.rating:g} for item {entry.item!r}."
            )
    found.known(run, [entry.item for entry in rated], "history")
    told = {run.place_of[str(entry.item)]: entry.rating for entry in rated if str(entry.item) in run.place_of}
    places = np.array(sorted(told), np.int32)
    return {"places": places, "ratings": np.array([told[place] for place in places.tolist()], np.float32)}


def _allowed(run: LoadedRun, body: RecommendRequest, found: Question) -> np.ndarray | None:
    """Which items the rules allow, bool [n_items]; None if all."""
    Rules(only=body.only, without=body.without)  # refuses ids that are in both
    if body.only is None and not body.without and not body.min_users_per_item:
        return None
    allowed = np.ones(run.n_items, bool)
    if body.only is not None:
        only = found.known(run, body.only, "only")
        if not len(only):
            raise InputError(
                f"only: none of the {len(body.only):,} ids is an item of the model; ids look like {run.ids[0]!r}."
            )
        allowed[:] = False
        allowed[only] = True
    allowed[found.known(run, body.without, "without")] = False
    if body.min_users_per_item:
        allowed &= run.items.n_users >= body.min_users_per_item
    if not allowed.any():
        raise InputError(
            "the rules leave no item that could be recommended; loosen only, without or min_users_per_item."
        )
    return allowed
