"""Named sets that come with a test part of their own: what they are known by, how they are opened, the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tfvae.data.catalogue import DATASETS
from tfvae.data.datasets import load_dataset, load_parts
from tfvae.data.open_split import open_split
from tfvae.system.errors import InputError

ON_HAND = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")
WEAK = "weak-generalization"
PARTS = {"train.txt": "0 5 3 9\n2 3\n1 9 4\n", "valid.txt": "1 3\n", "test.txt": "0 4\n1 5\n2\n"}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in PARTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_its_own_parts_are_taken_and_its_validation_part_is_trained_on(folder, caplog):
    split = open_split("gowalla", source=folder, protocol=WEAK)
    assert split.digest == load_parts("gowalla", folder).digest
    assert (split.train.nnz, split.test.targets.nnz, split.given_validation.nnz) == (7, 2, 1)
    assert "Gowalla (10-core) has 1,027,370 events, found 9" in caplog.text
    for name in PARTS:
        assert f"{folder / name} is not the {name} that Gowalla (10-core) is known by (SHA-256 " in caplog.text


def test_its_strong_split_does_not_depend_on_how_it_is_cut(folder, tmp_path, caplog):
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "train.txt").write_text("1 4 3 9\n2 3\n0 5 3 9\n")
    (tmp_path / "joined" / "test.txt").write_text(PARTS["test.txt"])
    whole = load_dataset("gowalla", folder).digest
    caplog.clear()
    assert load_dataset("gowalla", tmp_path / "joined").digest == whole
    assert "events, found 9" in caplog.text and "SHA-256" not in caplog.text, "the authors' two files are another cut"


def test_its_protocols_are_said_and_other_cuts_refused(folder):
    with pytest.raises(InputError, match="gowalla comes already split, so seed would change nothing"):
        open_split("gowalla", source=folder, protocol=WEAK, changes={"seed": 4})
    with pytest.raises(InputError, match="gowalla has no split of the kind 'leave-one-out', only strong-gen.*weak-gen"):
        open_split("gowalla", source=folder, protocol="leave-one-out")
    with pytest.raises(InputError, match="unknown data set with a test part of its own 'ml-1m'"):
        load_parts("ml-1m")
    (folder / "test.txt").unlink()
    with pytest.raises(InputError, match="expected a file test.txt"):
        open_split("gowalla", source=folder, protocol=WEAK)


def test_other_data_are_filtered_as_for_held_out_users_and_cut_by_a_seed():
    split = open_split("movietweetings", protocol=WEAK)
    strong = DATASETS["movietweetings"].strong
    for name in ("min_rating", "min_users_per_item", "min_items_per_user"):
        assert getattr(split.settings, name) == getattr(strong, name)
    assert split.settings.seed == 0 and split.counts["events"] == open_split("movietweetings").counts["events"]
    other = open_split("movietweetings", protocol=WEAK, changes={"seed": 1, "holdout_fraction": 0.5})
    assert (other.settings.seed, other.settings.holdout_fraction) == (1, 0.5) and other.digest != split.digest
    assert other.test.targets.nnz > 2 * split.test.targets.nnz


def needs(path: str):
    return pytest.mark.skipif(not (ON_HAND / path).is_file(), reason=f"{path} is not in {ON_HAND}")


@pytest.mark.slow
@needs("gowalla/train.txt.xz")
def test_real_gowalla(caplog):
    split = load_parts("gowalla", ON_HAND)
    assert not caplog.records, "its files are those that it is known by"
    assert split.train.shape == (29_858, 40_981)
    assert (split.train.nnz, split.test.targets.nnz, split.given_validation.nnz) == (810_128, 217_242, 91_047)
    assert split.counts["users_without_test"] == split.counts["test_events_on_other_items"] == 0
    np.testing.assert_array_equal(split.item_ids, np.arange(40_981))
    part = split.for_tuning()
    assert (part.train.nnz, part.validation.targets.nnz) == (719_081, 91_047)


@pytest.mark.slow
@needs("amazon-book/train.txt.xz")
def test_real_amazon_book(caplog):
    split = load_parts("amazon-book", ON_HAND)
    assert not caplog.records
    assert split.train.shape == (70_679, 24_915)
    assert (split.train.nnz, split.test.targets.nnz, split.given_validation) == (652_514, 193_920, None)
    assert split.counts["users_without_test"] == 88


@pytest.mark.slow
@needs("pinterest-20/pinterest-20.train.rating.xz")
def test_real_pinterest_is_put_together_again_and_partial(caplog):
    found = load_dataset("pinterest", ON_HAND)
    assert "has 1,500,809 events, found 1,017,840" in caplog.text
    sizes = np.diff(found.by_user[0])
    assert (found.n_users, (sizes > 1).sum()) == (55_187, 37_501)
