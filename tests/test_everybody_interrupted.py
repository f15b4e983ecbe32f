"""Rankings of everybody that are killed, damaged or given again, and files and folders that are not theirs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ranking_examples import (
    ENDINGS,
    N_ITEMS,
    NUMBERS,
    SMALL,
    STRINGS,
    USERS,
    built,
    events_of,
    histories_of,
    items_of,
    read,
    written,
)
from rating_rows import random_ratings

from tfvae.data.histories import Histories
from tfvae.serving import everybody
from tfvae.serving.everybody import recommend_to_all
from tfvae.serving.rules import Rules
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.locks import held

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in ("mult-dae", "ease", "bias-mf")}


@pytest.fixture
def job(models, tmp_path, monkeypatch):
    """A function that ranks in parts of 6 users; options replace its arguments."""
    monkeypatch.setattr(everybody, "USERS_A_PART", 6)
    items = items_of(STRINGS)
    file = written(tmp_path / "given.parquet", events_of(histories_of(), USERS["texts"], STRINGS))
    given = {"model": models["mult-dae"], "items": items, "histories": Histories.from_file(file, items), "k": 5}

    def run(out, **options):
        return recommend_to_all(**given | {"out": tmp_path / out, "batch_size": 3, "progress": False} | options)

    return run


class Killed(BaseException):
    pass


def counted(monkeypatch, deadline):
    """Lets the rename or removal of number `deadline` and all later ones fail, as if the process were dead by then."""
    done = 0

    def after(function):
        def wrapper(*arguments, **options):
            nonlocal done
            done += 1
            if done > deadline:
                raise Killed
            return function(*arguments, **options)

        return wrapper

    monkeypatch.setattr("os.replace", after(os.replace))
    monkeypatch.setattr(Path, "unlink", after(Path.unlink))


def noted(calls, function):
    """The function, which also appends its first argument to `calls`."""

    def wrapper(first, *arguments, **options):
        calls.append(first)
        return function(first, *arguments, **options)

    return wrapper


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_between_any_two_writes_it_goes_on_to_equal_bytes(job, ending, tmp_path):
    job(f"whole.{ending}")
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    out = tmp_path / f"top.{ending}"
    for deadline in range(20):
        out.unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            counted(patch, deadline)
            try:
                job(out.name)
            except Killed:
                pass
            else:
                break
        assert not out.exists() or out.read_bytes() == whole
        kept = sum(1 for _ in Path(f"{out}.parts").glob("part-*"))
        made = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(everybody, "write_npz", noted(made, everybody.write_npz))
            job(out.name)
        assert len(made) == 4 - kept
        assert out.read_bytes() == whole
        assert sorted(p.name for p in tmp_path.iterdir()) == ["given.parquet", out.name, f"whole.{ending}"]
    assert deadline == 1 + 4 + 1 + 4 + 1 + 1  # the mark, the parts, the file; then parts, mark and lock are removed


def test_a_damaged_part_is_made_again(job, tmp_path):
    job("whole.csv")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 4)
        with pytest.raises(Killed):
            job("top.csv")
    parts = sorted((tmp_path / "top.csv.parts").glob("part-*"))
    assert len(parts) == 3
    content = bytearray(parts[0].read_bytes())
    content[len(content) // 2] ^= 1
    parts[0].write_bytes(content)
    assert np.load(parts[0]).files  # only the checksum of an array tells
    with np.load(parts[1]) as stored:
        arrays = dict(stored)
    np.savez(parts[1], **arrays | {"items": arrays["items"] + 1_000})
    np.savez(parts[2], **{name: array[:2] for name, array in arrays.items()})
    job("top.csv")
    assert (tmp_path / "top.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_beginning_of_another_ranking_is_left_alone(job, models, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 3)
        with pytest.raises(Killed):
            job("top.csv")
    folder = tmp_path / "top.csv.parts"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    file = written(tmp_path / "fewer.csv", {"user": ["x"], "item": STRINGS[:1]})
    fewer = Histories.from_file(file, items_of(STRINGS))
    for options, message in (
        ({"k": 6}, "another ranking: k is 5 there, 6 here. Finish that one"),
        ({"batch_size": 2}, "batch_size is 3 there, 2 here"),
        ({"model": models["ease"]}, "another ranking: the model is other"),
        ({"histories": fewer}, "the histories are other"),
        ({"items": items_of(STRINGS, titles=None)}, "the items are other"),
        ({"rules": Rules(only=STRINGS[:9]), "k": 6}, "k is 5 there, 6 here; the rules are other"),
        ({"rules": Rules(again=True)}, "another ranking: the rules are other"),
        ({"rules": Rules(min_users=3)}, "another ranking: the rules are other"),
        ({"rules": Rules(at_most=2, categories=["a"] * N_ITEMS)}, "another ranking: the rules are other"),
        ({"rules": Rules(diversity=0.1, vectors=np.eye(N_ITEMS))}, "another ranking: the rules are other"),
    ):
        with pytest.raises(InputError, match=message):
            job("top.csv", **options)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    job("top.csv")
    assert not folder.exists()


def test_another_process_is_waited_for_and_other_files_are_left_alone(job, tmp_path):
    with held(tmp_path / "top.csv.parts"), pytest.raises(InputError, match="in use by another process"):
        job("top.csv")
    (tmp_path / "top.csv.parts").mkdir()
    (tmp_path / "top.csv.parts" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not of an unfinished ranking: it holds letter.txt"):
        job("top.csv")
    (tmp_path / "real").mkdir()
    (tmp_path / "top.jsonl.parts").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="found a file or a link"):
        job("top.jsonl")
    (tmp_path / "top.parquet.parts").mkdir()
    (tmp_path / "top.parquet.parts" / "mark.json").write_text("{}")
    (tmp_path / "top.parquet.parts" / "mark.json").write_text('{"format": "my own"}')
    with pytest.raises(InputError, match="mark.json"):
        job("top.parquet")
    assert not list((tmp_path / "real").iterdir()) and not (tmp_path / "top.csv").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_ranking_is_replaced_and_nothing_else(job, ending, tmp_path):
    out = tmp_path / f"top.{ending}"
    job(out.name, k=3)
    job(out.name)
    assert max(read(out)["rank"]) == 5
    out.write_bytes(b"")
    job(out.name)
    for content in (b"dear", b'{"user": 1, "item": 2}\n', b"user,rank,item,score,mine\n", b"\xff\xfe\x00"):
        out.write_bytes(content)
        with pytest.raises(InputError, match="exists and is no ranking of tfvae; give another name"):
            job(out.name)
        assert out.read_bytes() == content
    out.unlink()
    out.mkdir()
    with pytest.raises(InputError, match="no ranking"):
        job(out.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"out": "top.xlsx"}, "expected a name that ends in .parquet, .csv, .jsonl"),
        ({"out": "top"}, "expected a name that ends in"),
        ({"rules": Rules(only=["x"])}, "none of the 1 ids in only"),
        ({"rules": Rules(at_most=1, categories=["a"])}, "the rules have 1 categories for 40 items"),
        ({"rules": Rules(diversity=0.5)}, "diversity needs the items as vectors"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_leave_nothing(job, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        job(**{"out": "top.csv"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["given.parquet"]


def test_a_model_of_the_other_kind_is_refused(models, job, tmp_path):
    with pytest.raises(InputError, match="predicts ratings; give the scale"):
        job("top.csv", model=models["bias-mf"])
    file = written(tmp_path / "given.csv", events_of(random_ratings(9, N_ITEMS), np.arange(9), NUMBERS))
    items = items_of(NUMBERS, rates=True)
    with pytest.raises(InputError, match="predicts no ratings"):
        job("top.csv", items=items, histories=Histories.from_file(file, items, rating="rating"))


def test_scores_that_are_no_numbers_leave_nothing(job, tmp_path):
    model = built("popularity")
    model.item_counts.assign(np.full(N_ITEMS, np.nan, np.float32))
    with pytest.raises(DivergedError, match="NaN or infinite"):
        job("top.csv", model=model)
    assert [path.name for path in tmp_path.iterdir()] == ["given.parquet"]


@pytest.mark.parametrize("name", SMALL)
def test_models_with_other_weights_have_other_marks(name):
    """So that no ranking goes on with another model's parts."""
    model = built(name)
    before = everybody._model_digest(model)
    assert before == everybody._model_digest(built(name))
    weight = model.weights[-1]
    weight.assign(np.asarray(weight) + np.ones((), weight.dtype))
    assert everybody._model_digest(model) != before
