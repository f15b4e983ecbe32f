"""Data that are hardly any: each model says before training what it misses, or works to the end with finite numbers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from model_kinds import of_each_kind
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.models import MODELS, model_class

DATA = {
    "three users": [(u, i, 1 + (u + i) % 5) for u in range(3) for i in range(u, 20, 2)],
    "one user": [(0, i, 1 + i % 5) for i in range(9)],
    "one item": [(u, 7, 1 + u % 5) for u in range(30)],
    "two items": [(u, i, 1 + (u + i) % 5) for u in range(40) for i in (1, 2)],
    "all ratings equal": [(u, i, 4) for u in range(60) for i in random.Random(u).sample(range(30), 8)],
    "everybody met everything": [(u, i, 1 + u * i % 5) for u in range(30) for i in range(12)],
    "two items each": [(u, i, 1 + u % 5) for u in range(60) for i in random.Random(u).sample(range(30), 2)],
    "one of a kind": [(u, u * 20 + i, 1 + i % 5) for u in range(12) for i in range(8)],
    "one event": [(1, 2, 3)],
}


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def toml(value: Any) -> str:
    """A setting as one would type it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def fit(data: str, name: str, folder: Path) -> tuple[int, str]:
    file = folder / "events.csv"
    file.write_text("\n".join(["user,item,stars", *(",".join(map(str, event)) for event in DATA[data])]))
    example = [f"--set={key}={toml(value)}" for key, value in model_class(name).example_settings.items()]
    return run("fit", file, "--rating-col=stars", "--model", name, "--epochs=1", "--run", folder / "run", *example)


def works_or_says(data: str, name: str, folder: Path) -> None:
    code, output = fit(data, name, folder)
    if code:
        assert code == 2 and len(output.split("Error: ")[1]) > 40
        assert not (folder / "run" / "model.keras").exists()
    else:
        code, output = run("evaluate", folder / "run")
        assert code == 0 and "nan" not in output.lower() and "inf" not in output.lower()


@pytest.mark.parametrize("name", ["popularity", "gmf", "bias-mf"])
@pytest.mark.parametrize("data", DATA)
def test_hardly_any_data_are_enough_or_refused_under_every_protocol(data, name, tmp_path):
    works_or_says(data, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", of_each_kind(MODELS))
def test_every_model_stands_users_of_the_whole_catalogue_and_items_of_one_user(name, tmp_path):
    for number, data in enumerate(("everybody met everything", "one of a kind")):
        (tmp_path / str(number)).mkdir()
        works_or_says(data, name, tmp_path / str(number))


def test_equal_ratings_are_refused_where_they_are_to_be_predicted(tmp_path):
    code, output = fit("all ratings equal", "bias-mf", tmp_path)
    assert code == 2 and "expected ratings that differ, found 4 throughout" in output
