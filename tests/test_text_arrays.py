"""Arrays of text of very different lengths, from the interactions to the served model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.items import Items
from tfvae.data.splits import (
    LeaveOneOutSettings,
    RatingHoldoutSettings,
    StrongGeneralizationSettings,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.serving.recommendations import Recommendations
from tfvae.system import text_arrays
from tfvae.system.errors import InputError
from tfvae.system.files import read_npz, write_npz
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

STRONG = StrongGeneralizationSettings(held_out_users=10, min_items_per_user=2)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8)


@settings(deadline=None, max_examples=60)
@given(texts=TEXTS)
def test_any_texts_are_read_back_as_they_were_written(texts, tmp_path_factory):
    array = np.array(texts, np.dtypes.StringDType())
    path = tmp_path_factory.mktemp("texts") / "texts.npz"
    write_npz(path, {"a": array, "b": np.arange(3)})
    read = read_npz(path)
    assert list(read) == ["b", "a"]
    assert read["a"].dtype == array.dtype
    assert read["a"].tolist() == texts


@pytest.mark.parametrize(
    "damaged",
    [
        {"a@ends": np.array([2, 1])},
        {"a@ends": np.array([9])},
        {"a@ends": np.array([1.0])},
        {"a@utf-8": np.array([255])},
    ],
)
def test_letters_and_ends_that_do_not_fit_are_refused(damaged):
    packed = text_arrays.packed_texts({"a": np.array(["é", "b"], np.dtypes.StringDType())}) | damaged
    with pytest.raises(ValueError, match="."):
        text_arrays.unpacked_texts(packed)


@pytest.fixture
def long_among_short(monkeypatch) -> Interactions:
    """Interactions whose ids and titles have lengths of their own."""
    monkeypatch.setattr(text_arrays, "_MOST_BYTES", 1)
    found = synthetic(n_users=60, n_items=20, n_events=480, seed=3)
    long = "x" * 300
    users, items = ([f"{long if n == 7 else ''}{kind}{n:03}" for n in range(60)] for kind in "ui")
    rows, columns = (np.array(names)[numbers] for names, numbers in ((users, found.users), (items, found.items)))
    made = Interactions.from_events(rows.tolist(), columns.tolist(), 1 + found.items % 5, np.arange(found.n_events))
    assert made.user_ids.dtype.kind == made.item_ids.dtype.kind == "T"
    return made


@pytest.mark.parametrize(
    ("protocol", "options", "model"),
    [
        (strong_generalization, STRONG, "ease"),
        (leave_one_out, LeaveOneOutSettings(n_negatives=5), "ease"),
        (rating_holdout, RatingHoldoutSettings(), "bias-mf"),
    ],
)
def test_ids_of_any_length_go_through_splits_and_runs(protocol, options, model, long_among_short, tmp_path):
    split = protocol(long_among_short, options)
    split.save(tmp_path / "split.npz")
    again = load_split(tmp_path / "split.npz")
    assert again.digest == split.digest
    assert again.item_ids.tolist() == split.item_ids.tolist()
    assert again.user_ids.tolist() == split.user_ids.tolist()
    train(settings_of(model, {}), split, tmp_path / "run")
    assert Items.load(tmp_path / "run").item_ids.tolist() == split.item_ids.tolist()


def test_a_served_item_has_its_long_id(long_among_short, tmp_path):
    split = strong_generalization(long_among_short, STRONG)
    model = train(settings_of("popularity", {}), split, tmp_path).model
    first, second = split.item_ids.tolist()[:2]
    titles = text_arrays.text_array([f"title of {name}" for name in split.item_ids.tolist()])
    ranking = Recommendations(model, split.item_ids, titles)([[first], [second, "unheard of"]], k=split.n_items)
    assert set(ranking.items[0].tolist()) == {*split.item_ids.tolist(), ""} - {first}
    assert set(ranking.titles[1].tolist()) == {*titles.tolist(), ""} - {f"title of {second}"}
    with pytest.raises(InputError, match="come twice"):
        Recommendations(model, text_arrays.text_array([first] * split.n_items))
