"""The option `--json` of all commands, and their exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.cli.json_output import AsJson, answer

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
COLUMNS = ["--user-col", "uid", "--item-col", "sku"]
MEASURED = {"metrics", "users", "users_without_targets"}
COMMANDS = {  # and the keys of their documents
    "datasets": (["datasets"], {"datasets"}),
    "doctor": (["doctor"], {"findings", "steps"}),
    "prepare": (["prepare", "ratings.csv", *COLUMNS], {"out", "protocol", "digest", "counts"}),
    "fit": (
        ["fit", "ratings.csv", *COLUMNS, "--model", "ease", "--run", "ease"],
        {"run", "model", "trained_before", "epochs", "best_epoch", "seconds", "validation"},
    ),
    "evaluate": (["evaluate", "ease"], MEASURED | {"run", "data_digest", "environment", "commit"}),
    "recommend": (["recommend", "ease", "--history", "100,102", "-k", "3", "--why"], {"recommended"}),
    "recommend, many people": (
        ["recommend", "ease", "--all-users", "--out", "top.csv"],
        {"out", "rows", "users", "users_without"},
    ),
    "similar": (["similar", "ease", "100", "-k", "3"], {"item", "measure", "similar"}),
    "ensemble": (["ensemble", "ease", "popular", "--run", "both"], {"run", "made_before", "members", "validation"}),
    "compare": (
        ["compare", "ratings.csv", *COLUMNS, "--models", "popularity,ease", "--minutes", "5"],
        {"folder", "chosen", "as_good", "data_digest", "monitor", "entries", "verdicts"},
    ),
    "table": (
        ["table", "multvae-table2", "--data", "ratings.csv", *COLUMNS, "--rows", "ease"],
        {"table", "dataset", "runs"},
    ),
    "table, computed": (
        [
            "table",
            "multvae-table2",
            "--data",
            "ratings.csv",
            *COLUMNS,
            "--rows",
            "ease,cdae",
            "--epochs",
            "1",
            "--dry-run",
        ],
        {"table", "dataset", "tflops", "expected"},
    ),
    "table, rendered": (["table", "multvae-table2", "--dataset", "ratings", "--render-only"], {"pages"}),
    "sweep": (
        ["sweep", "multvae-table2", "--row", "ease", "--data", "ratings.csv", *COLUMNS, "--trials", "1"],
        {"table", "row", "dataset", "seed", "monitor", "trials", "best"},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A working folder with ratings.csv, of 100 users with 6 of the 20 items of their kind, and two finished runs."""
    draw = np.random.default_rng(0)
    chosen = [(user, item) for user in range(100) for item in draw.choice(20, 6, replace=False)]
    lines = ["uid,sku", *(f"{user},{100 + 2 * item + user % 2}" for user, item in chosen)]
    place = tmp_path_factory.mktemp("json")
    (place / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for model, name in (("ease", "ease"), ("popularity", "popular")):
            run("fit", "ratings.csv", *COLUMNS, "--model", model, "--run", name)
        yield place


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def numbers_of(found) -> list[float]:
    """All numbers in a document."""
    if isinstance(found, dict | list):
        return [one for inner in (found.values() if isinstance(found, dict) else found) for one in numbers_of(inner)]
    return [found] if isinstance(found, int | float) else []


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_document_has_what_is_printed(name):
    arguments, keys = COMMANDS[name]
    code = None if name == "doctor" else 0  # this machine may be anything
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert code in (None, told.exit_code), told.output
    assert told.stdout.count("\n") == 1
    document = json.loads(told.stdout)
    assert set(document) == keys
    printed = CliRunner().invoke(app, arguments).stdout
    in_document = {f"{number:.{digits}f}" for number in numbers_of(document) for digits in (3, 4)}
    figures = re.findall(r"(?<![\d.])\d+\.\d{3,4}(?![\d.])", printed) if name not in ("doctor", "prepare") else []
    assert set(figures) <= in_document
    assert figures or name in (
        "datasets",
        "doctor",
        "prepare",
        "recommend, many people",
        "table, computed",
        "table, rendered",
    )
    for word in keys:
        assert f"`{word}`" in GUIDE, f"docs/commands.md does not explain {word}"


@pytest.mark.slow
def test_documents_hold_what_was_stored_and_found():
    measured = json.loads(run("evaluate", "ease", "--json").stdout)
    assert {"run": "ease", **json.loads(Path("ease/evaluation.json").read_text())} == measured
    found = json.loads(run("recommend", "ease", "--history", "100,102", "-k", "50", "--why", "--json").stdout)
    shown = run("recommend", "ease", "--history", "100,102", "-k", "50").stdout.splitlines()[1:]
    assert [str(one["item"]) for one in found["recommended"]] == [line.split()[0] for line in shown]
    assert [one["rank"] for one in found["recommended"]] == list(range(1, len(shown) + 1)) and len(shown) == 38
    reasons = [reason for one in found["recommended"] for reason in one["because"]]
    assert {reason["item"] for reason in reasons} <= {100, 102} and all(reason["effect"] > 0 for reason in reasons)


def test_each_command_with_figures_has_the_option_and_is_tested_here():
    with_option = {
        command.callback.__name__
        for command in app.registered_commands
        if "as_json" in command.callback.__annotations__
    }
    assert {command.callback.__name__ for command in app.registered_commands} - with_option == {"export", "serve"}
    assert {arguments[0] for arguments, _ in COMMANDS.values()} == with_option


def small_app(document) -> typer.Typer:
    small = typer.Typer()

    @small.command()
    def command(as_json: AsJson = False) -> None:
        print("working")
        answer(document, lambda: print("as text"))
        typer.echo("done")

    return small


def test_all_else_goes_to_standard_error_and_numbers_are_plain():
    document = {"n": np.int64(3), "x": np.float32(0.1), "all": np.arange(2), "at": Path("a/é"), "bad": [np.nan, np.inf]}
    told = CliRunner().invoke(small_app(document), ["--json"])
    assert told.stderr == "working\ndone\n"
    assert json.loads(told.stdout) == {
        "n": 3,
        "x": 0.10000000149011612,
        "all": [0, 1],
        "at": "a/é",
        "bad": [None, None],
    }
    assert CliRunner().invoke(small_app(document), []).stdout == "working\nas text\ndone\n"


def test_the_exit_codes_are_those_that_are_documented(monkeypatch):
    help_page = " ".join(run("--help").stdout.split())
    assert re.findall(r"^\| (\d+) \|", GUIDE, flags=re.MULTILINE) == ["0", "1", "2", "130", "143"]
    assert "0 done; 1 a fault" in help_page and "130, 143" in help_page
    run("evaluate", "ease", "--no-such-option", code=2)
    for arguments in (["evaluate", "nowhere"], ["fit", "ratings.csv", "--model", "eaze"]):
        told = run(*arguments, "--json", code=2)
        assert told.stdout == "" and told.stderr.startswith("Error: ")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    told = run("doctor", "--json", code=1)
    assert "unset it" in next(one["broken"] for one in json.loads(told.stdout)["findings"] if one["found"] == "torch")
    monkeypatch.setattr("tfvae.data.open_split.whereabouts", lambda name: 1 / 0)
    run("datasets", code=1)
