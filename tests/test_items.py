"""The items of a run: they lie beside it, and whoever serves it reads nothing else of the data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.data.items import ITEMS_FILE, Items
from tfvae.system.errors import InputError


def test_items_are_read_as_they_were_written(tmp_path):
    for titles, scale, ids in ((None, None, [3, 1, 2]), (["a", "", "ü"], (0.5, 5.0), ["x", "y", "z"])):
        items = Items(np.array(ids), None if titles is None else np.array(titles), scale, np.array([2, 0, 1]))
        items.save(tmp_path)
        loaded = Items.load(tmp_path)
        assert loaded.n_items == 3 and loaded.scale == scale
        np.testing.assert_array_equal(loaded.item_ids, items.item_ids)
        np.testing.assert_array_equal(loaded.n_users, items.n_users)
        assert (loaded.titles is None) if titles is None else (loaded.titles.tolist() == titles)


def test_a_split_has_its_items(tiny_split, tmp_path):
    Items.of(tiny_split).save(tmp_path)
    loaded = Items.load(tmp_path)
    np.testing.assert_array_equal(loaded.item_ids, tiny_split.item_ids)
    assert loaded.n_users.sum() == tiny_split.train.nnz and loaded.scale is None


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_what_holds_no_items_is_refused(content, tmp_path):
    if content:
        (tmp_path / ITEMS_FILE).write_bytes(content)
    with pytest.raises(InputError, match="items.npz"):
        Items.load(tmp_path)


@pytest.mark.slow
def test_recommend_and_export_read_no_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def tfvae(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    tfvae("fit", "movietweetings", "--model", "ease", "--run", "run")
    asked = ("recommend", "run", "--like", "gravity", "-k", "3", "--min-users-per-item", "20")
    before = tfvae(*asked)
    split = (tmp_path / "run" / "split.npz").read_bytes()
    (tmp_path / "run" / "split.npz").unlink()
    assert tfvae(*asked) == before
    tfvae("export", "run", "exported")
    (tmp_path / "run" / "items.npz").unlink()  # a run folder of a former version, whose run.json named no files
    outcome = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({k: v for k, v in outcome.items() if k != "files"}))
    (tmp_path / "run" / "split.npz").write_bytes(split)
    assert tfvae(*asked) == before
