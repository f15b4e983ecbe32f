"""The requests and answers of the service; the OpenAPI page is made of them.

Numbers, texts and truth values are taken as what they are: "5" is no number, and 1 is not true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from tfvae.system.validation import Strict

__all__ = [
    "Because",
    "Found",
    "FoundItem",
    "Health",
    "ItemsQuery",
    "ModelState",
    "ModelStates",
    "PredictRequest",
    "PredictedRating",
    "Predictions",
    "Problem",
    "Rated",
    "RecommendRequest",
    "RecommendedItem",
    "Recommended",
    "Similar",
    "SimilarItem",
    "SimilarQuery",
    "SimilarRequest",
]

DEFAULT_K = 10
TAGS: dict[type, str] = {int: "number", str: "text", dict: "rated"}


def _kind_of(allowed: tuple[type, ...]) -> Callable[[Any], str | None]:
    """A function that says which choice of a union a value is; None if it is none."""

    def kind(value: Any) -> str | None:
        if isinstance(value, Rated):
            return "rated"
        return TAGS[type(value)] if type(value) in allowed else None

    return kind


def _encodable(text: str) -> str:
    """Refuses halves of surrogate pairs, which JSON can name, but which are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text that UTF-8 can encode, found half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class _Request(Strict):
    model_config = ConfigDict(strict=True)


ItemId = Annotated[
    Annotated[int, Tag("number")] | Annotated[Text, Tag("text")],
    Discriminator(
        _kind_of((int, str)),
        custom_error_type="item_id",
        custom_error_message="expected an item id, a whole number or text",
    ),
]


class Rated(_Request):
    """An item of a history with its rating, for a model of ratings."""

    item: ItemId
    rating: float


Entry = Annotated[
    Annotated[int, Tag("number")] | Annotated[Text, Tag("text")] | Annotated[Rated, Tag("rated")],
    Discriminator(
        _kind_of((int, str, dict)),
        custom_error_type="entry",
        custom_error_message='expected an item id, a whole number or text, or {"item": id, "rating": number}',
    ),
]
ModelName = Annotated[
    str | None, Field(description="The model's name, see /models. It may be left out where one model is served.")
]
History = Annotated[
    list[Entry] | None,
    Field(
        description="The items that the person has, by id; for a model of ratings each with its rating. Of an item "
        "that comes twice the last rating counts. An empty list is a person of whom nothing is known."
    ),
]
User = Annotated[
    ItemId | None,
    Field(description="Instead of a history: one of the training users, by id, if the run has its split."),
]
Count = Annotated[int, Field(ge=1, description="How many items to return at most.")]


class RecommendRequest(_Request):
    """Who asks, and what may be recommended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": [318, 527], "k": 5},
                {"history": [{"item": 318, "rating": 5}, {"item": 527, "rating": 3.5}], "k": 5, "because": 2},
                {"user": 42, "k": 5, "without": [260], "at_most": 2, "categories": "genres", "diversity": 0.3},
            ]
        }
    )
    model: ModelName = None
    history: History = None
    user: User = None
    k: Count = DEFAULT_K
    only: list[ItemId] | None = Field(None, description="Recommend these items only.")
    without: list[ItemId] = Field([], description="Recommend none of these items.")
    again: bool = Field(False, description="Whether items of the history may be recommended again.")
    min_users_per_item: int = Field(0, ge=0, description="Recommend no item that fewer training users have.")
    at_most: int | None = Field(None, ge=1, description="So many items of one category; with `categories`.")
    categories: str | None = Field(None, description="The attribute of the items that `at_most` counts, see /models.")
    diversity: float = Field(
        0.0, ge=0, le=1, description="How much being unlike the items before it counts beside the score; 0.3 is mild."
    )
    because: int = Field(0, ge=0, description="For each item, name so many items of the history that speak for it.")


class SimilarRequest(_Request):
    """An item, and how many items that are near it to return."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": 318, "k": 5}]})
    model: ModelName = None
    item: ItemId
    k: Count = DEFAULT_K
    min_users_per_item: int = Field(0, ge=0, description="Return no item that fewer training users have.")


class SimilarQuery(Strict):
    """The same as parameters of an address, which are text."""

    model: ModelName = None
    k: Count = DEFAULT_K
    min_users_per_item: int = Field(0, ge=0, description="Return no item that fewer training users have.")


class ItemsQuery(Strict):
    """What to look for among the items."""

    model: ModelName = None
    search: str = Field("", description="An item's id, or a part of an id or a title in any case; all items if empty.")
    limit: Annotated[int, Field(ge=1, description="How many items to return at most.")] = 20


class PredictRequest(_Request):
    """Who asks, and the items whose ratings to predict."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"history": [{"item": 318, "rating": 5}], "items": [527, 260], "level": 0.9}]}
    )
    model: ModelName = None
    history: History = None
    user: User = None
    items: list[ItemId] = Field(min_length=1, description="The items whose ratings to predict.")
    level: float = Field(0.9, gt=0, lt=1, description="Probability that the rating is within its interval.")


class _Answer(BaseModel):
    model: str = Field(description="The model's name.")
    version: str = Field(description="The version of the model that answered.")


class _KnownOrNot(_Answer):
    unknown: dict[str, list[int | str]] = Field(
        {}, description="Ids that are no items of the model, by the field they came in; they had no effect."
    )
    n_unknown: int = Field(0, description="How many they are.")


class Because(BaseModel):
    """An item of the history without which the score would be lower."""

    item: int | str
    title: str | None = None
    effect: float = Field(description="By how much the score, or the predicted rating, would be lower.")


class RecommendedItem(BaseModel):
    """A recommended item."""

    item: int | str
    title: str | None = None
    score: float = Field(description="A logit; of a model of ratings, the predicted rating.")
    sd: float | None = Field(None, description="Standard deviation of the predicted rating, if the model knows it.")
    because: list[Because] | None = Field(None, description="If it was asked for, the strongest first.")


class Recommended(_KnownOrNot):
    """The recommended items, the best first; fewer than `k` if no more may be recommended."""

    items: list[RecommendedItem]


class SimilarItem(BaseModel):
    """An item near another one."""

    item: int | str
    title: str | None = None
    similarity: float


class Similar(_Answer):
    """The items nearest to one item, the nearest first."""

    item: int | str
    title: str | None = None
    measure: Literal["cosine", "weight"] = Field(
        description="The cosine of the items' vectors, or what having the item adds to another's score."
    )
    items: list[SimilarItem]


class PredictedRating(BaseModel):
    """The predicted rating of an item."""

    item: int | str
    title: str | None = None
    rating: float = Field(description="The predicted rating, within the scale.")
    sd: float | None = Field(None, description="Its standard deviation, if the model knows it.")
    low: float | None = Field(None, description="The interval's lower end, within the scale.")
    high: float | None = Field(None, description="The interval's upper end, within the scale.")


class Predictions(_KnownOrNot):
    """The predicted ratings, in the order of the request without unknown items."""

    level: float
    ratings: list[PredictedRating]


class FoundItem(BaseModel):
    """An item of the model."""

    item: int | str
    title: str | None = None
    users: int = Field(description="How many training users have it.")


class Found(_Answer):
    """The items that fit; an item with that very id comes first, then those with more training users."""

    items: list[FoundItem]


class ModelState(_Answer):
    """A model that is served."""

    kind: str = Field(description="What kind of model it is, such as mult-vae.")
    n_items: int
    takes: Literal["history", "user"] = Field(description="What a request names; a user means training users only.")
    takes_user: bool = Field(description="Whether a training user may be named.")
    predicts_ratings: bool
    has_intervals: bool = Field(description="Whether predicted ratings have a standard deviation.")
    scale: tuple[float, float] | None = Field(description="The lowest and the highest rating.")
    has_titles: bool
    has_similar: bool = Field(description="Whether /similar can be asked.")
    categories: list[str] = Field(description="Attributes of the items, which `categories` may name.")
    loaded: str = Field(description="When this version was loaded, in UTC.")
    problem: str | None = Field(description="Why the newest version is not served; null if it is.")


class ModelStates(BaseModel):
    """All models that are served."""

    models: list[ModelState]


class Health(BaseModel):
    """Answered as long as the service takes requests."""

    status: Literal["ok"] = "ok"
    models: int


class _Reason(BaseModel):
    code: str
    message: str


class Problem(BaseModel):
    """Every error has this form."""

    error: _Reason = Field(examples=[{"code": "unknown_model", "message": "unknown model 'shop'; known: shop-ease."}])
