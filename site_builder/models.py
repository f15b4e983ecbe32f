"""The pages of the models, from the registry, the docstrings, README.md, DEVIATIONS.md and the stored runs."""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from pprint import pformat
from typing import Any, NamedTuple

import griffe

from site_builder.docstrings import with_examples
from site_builder.places import ROOT, rewritten, source_page
from site_builder.rendering import render
from site_builder.results import Tables
from site_builder.runs import page_of_row
from tfvae.experiments.rendering import named
from tfvae.models import MODELS, model_class
from tfvae.models.base import HasItemMap, HasItemVectors, HasPosterior, Recommender, ScoresPairs, knows_rating_sd
from tfvae.models.gradient import GradientRecommender
from tfvae.training.settings import TrainingSettings, settings_of

__all__ = ["Named", "example_of", "model_pages", "titles"]

ALSO_NAMED = {"evcf-mult-vae": "Vamp", "bias-mf": "PMF", "two-sided-p-vae": "p-VAE", "edlae": "EASE"}
"""Models to which a section of DEVIATIONS.md applies that names only another."""
TABLE_OF_MODELS = re.compile(r"^\| (.+?) \| ((?:`[a-z0-9-]+`(?:, )?)+) \| ?(.*?) ?\|$", flags=re.MULTILINE)
SIZE = (12, 9)  # items and users of the small model that is asked what it can do


class Named(NamedTuple):
    """What README.md says of a model: its title, and its source in a line."""

    title: str
    source: str


@cache
def titles() -> dict[str, Named]:
    """The titles and sources of the models, by their names in the registry, from the table in README.md."""
    found = {}
    for title, names, source in TABLE_OF_MODELS.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        several = [name.strip("`") for name in names.split(", ")]
        title = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", title).replace("^PR", "")
        for name in several:
            own = model_class(name).__name__ if len(several) > 1 else title.capitalize() if title.islower() else title
            found[name] = Named(own, source)
    return {name: found[name] for name in MODELS}


def model_pages(tables: Tables) -> dict[str, str]:
    """A page for each model of the registry, and one that lists them.

    Args:
        tables: The tables with their stored runs.

    Returns:
        The texts, by their paths in the site's sources.
    """
    made = {f"models/{name}.md": _model_page(name, tables) for name in MODELS}
    kinds: dict[str, list[dict[str, Any]]] = {"Rankers": [], "Models of ratings": []}
    for name, about in titles().items():
        kind = model_class(name)
        source = rewritten(about.source, "README.md", "models/index.md")
        line = {"name": name, "title": about.title, "source": source, "traits": _traits(kind)}
        kinds["Models of ratings" if kind.predicts_ratings else "Rankers"].append(line)
    made["models/index.md"] = render("models.md.j2", "models/index.md", kinds=kinds)
    return made


def _model_page(name: str, tables: Tables) -> str:
    kind = model_class(name)
    page = f"models/{name}.md"
    module = sys.modules[kind.__module__]
    about = _described(kind)
    first, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    path = f"{kind.__module__.replace('.', '/')}.py"
    return render(
        "model.md.j2",
        page,
        name=name,
        title=titles()[name].title,
        source=rewritten(titles()[name].source, "README.md", page),
        file=path,
        source_page=source_page(path),
        first=first,
        paper=rest,
        text=about["text"],
        doctest=about["examples"],
        settings=_settings(kind),
        training=kind.training_defaults,
        example=example_of(name),
        card=_card(name, kind),
        deviations=_deviations(name),
        rows=[
            {"table": table, "dataset": named(dataset), "cells": cells, "page": page_of_row(table, dataset, cells.row)}
            for table, dataset, cells in tables.rows_of(name)
        ],
    )


# ---- settings ---------------------------------------------------------------------------------------


def _described(kind: type) -> dict[str, Any]:
    """A class's docstring in its parts: the text, the arguments by name, the examples."""
    sections = griffe.Docstring(with_examples(inspect.cleandoc(kind.__doc__ or ""))).parse("google", warnings=False)
    parts: dict[str, Any] = {"text": "", "arguments": {}, "examples": ""}
    for section in sections:
        match section.kind:
            case griffe.DocstringSectionKind.text:
                parts["text"] += section.value + "\n\n"
            case griffe.DocstringSectionKind.parameters:
                parts["arguments"] |= {argument.name: argument.description for argument in section.value}
            case griffe.DocstringSectionKind.examples:
                parts["examples"] += "\n\n".join(text for _, text in section.value)
    return parts


def _settings(kind: type[Recommender]) -> list[dict[str, str]]:
    """A model's settings as a table shows them: name, type, default, and what its own or a parent's docstring says."""
    schema = kind.settings_record().model_json_schema()
    lines = []
    for name, field in schema.get("properties", {}).items():
        said = (_described(base)["arguments"].get(name) for base in kind.__mro__ if base is not object)
        lines.append(
            {
                "name": name,
                "type": type_in_words(field),
                "default": in_words(kind.settings()[name].default),
                "says": next((text for text in said if text), ""),
            }
        )
    return lines


def in_words(value: Any) -> str:
    """A default as one would write it in Python."""
    if isinstance(value, tuple):
        return repr(value) if len(str(value)) < 60 else f"{len(value)} members: " + ", ".join(_short(v) for v in value)
    return repr(value)


def _short(value: Any) -> str:
    return str(value["model"]) if isinstance(value, dict) and "model" in value else repr(value)


def type_in_words(field: dict[str, Any]) -> str:
    """The type and range of a setting, from its JSON schema, in words."""
    if "anyOf" in field:
        return " or ".join("none" if one.get("type") == "null" else type_in_words(one) for one in field["anyOf"])
    if "const" in field:
        return repr(field["const"])
    if "enum" in field:
        return "one of " + ", ".join(repr(value) for value in field["enum"])
    if field.get("type") == "array":
        if "prefixItems" in field:
            return "; ".join(type_in_words(one) for one in field["prefixItems"])
        return f"several, each {type_in_words(field.get('items', {}))}"
    kinds = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    ends = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {field[end]:,g}" for end, sign in ends.items() if end in field and abs(field[end]) < 10**6]
    return " ".join([kinds.get(field.get("type", ""), "a model with its settings"), ", ".join(limits)]).strip()


# ---- model card -------------------------------------------------------------------------------------


def example_of(name: str) -> str:
    """A program that trains a small model of this kind on made-up data, measures it and uses it."""
    kind = model_class(name)
    monitor = (
        {"monitor": "rmse" if kind.predicts_ratings else "ndcg@10"} if issubclass(kind, GradientRecommender) else {}
    )
    known = TrainingSettings.model_fields.keys() | kind.settings().keys()
    given = {"epochs": 2, "batch_size": 40} if issubclass(kind, GradientRecommender) else {}
    given |= {key: value for key, value in kind.example_settings.items() if key in known}
    written = pformat(given | monitor, width=96, sort_dicts=False, compact=True)
    return render("example.py.j2", "", name=name, kind=kind, settings=written, predicts=kind.predicts_ratings)


def _traits(kind: type[Recommender]) -> list[str]:
    """What distinguishes a model, in a few words each."""
    return [
        "by gradient" if issubclass(kind, GradientRecommender) else "fitted at once",
        "new users" if kind.scores_new_users else "training users only",
        *(["deterministic"] if kind.is_deterministic else []),
    ]


def _card(name: str, kind: type[Recommender]) -> list[tuple[str, str]]:
    """The lines of the model card: what it takes, what it gives, what it can and cannot do."""
    small = {key: value for key, value in kind.example_settings.items() if key in kind.settings()}
    model = settings_of(name, small).build(*SIZE)
    takes = "events with ratings" if kind.predicts_ratings else "events: who took what; ratings only as a threshold"
    gives = "predicted ratings of all items" if kind.predicts_ratings else "logits of all items, which rank them"
    new = "yes, from their history" if kind.scores_new_users else "no: it only ranks for the users it was trained on"
    by = "by gradient, in epochs" if issubclass(kind, GradientRecommender) else "of the whole matrix at once"
    sure = "yes" if knows_rating_sd(model) else "no"
    codes = "yes" if isinstance(model, HasPosterior) or kind.has_rating_posterior(_full(name, small)) else "no"
    vectors = "by its item-item map" if isinstance(model, HasItemMap) else "by its vectors of items"
    similar = vectors if isinstance(model, HasItemMap | HasItemVectors) else "no"
    lines = [
        ("Data", takes),
        ("Gives", gives),
        ("Training", by),
        ("New users without training", new),
        ("Weights for each training user", "yes" if kind.has_user_weights else "no"),
        ("Same result with every seed", "yes" if kind.is_deterministic else "no"),
        ("Posterior over codes (`tfvae.latent_diagnostics`, `tfvae.predictive`)", codes),
        *([("Standard deviation of a predicted rating", sure)] if kind.predicts_ratings else []),
        ("Similar items (`tfvae similar`)", similar),
        ("Scores chosen pairs at less cost", "yes" if isinstance(model, ScoresPairs) else "no"),
        ("Use", _use(kind)),
        ("Limits", _limits(kind, isinstance(model, HasItemMap))),
    ]
    return lines


def _full(name: str, small: dict[str, Any]) -> dict[str, Any]:
    return settings_of(name, small).model


def _use(kind: type[Recommender]) -> str:
    where = "`tfvae recommend`, `serve` and `export`" if kind.scores_new_users else "`tfvae recommend --user`"
    what = "predicted ratings" if kind.predicts_ratings else "lists of the best items"
    return f"{what} by {where}; `tfvae fit DATA --model` trains it"


def _limits(kind: type[Recommender], is_map: bool) -> str:
    limits = ["it knows what people took together, nothing of contents or of time; an item nobody took has no rank"]
    if not kind.scores_new_users:
        limits.append("who joins later must wait for the next training")
    if is_map:
        limits.append("its item-item map grows with the square of the catalogue, unless it is kept sparse")
    if not kind.predicts_ratings:
        limits.append("its scores are no probabilities of a purchase")
    return "; ".join(limits)


# ---- deviations -------------------------------------------------------------------------------------


@cache
def _sections() -> list[tuple[str, str]]:
    """The sections of DEVIATIONS.md: heading and text."""
    parts = re.split(r"^## (.+)$", (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _deviations(name: str) -> list[tuple[str, str]]:
    """The sections of DEVIATIONS.md whose headings name the model, before the bracket."""
    names = {titles()[name].title, ALSO_NAMED.get(name, name)}
    found = []
    for heading, text in _sections():
        named_there = set(re.split(r", | and ", re.sub(r" \(.*?\)", "", heading)))
        if names & named_there:
            found.append((heading, text.strip()))
    return found
