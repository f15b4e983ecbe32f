"""A finished run goes on with the data as they are now: their split, the weights, resuming and the report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tfvae.data.interactions import Interactions
from tfvae.data.splits import (
    StrongGeneralizationSettings,
    continued_generalization,
    places_in,
    rating_holdout,
    strong_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import evaluate
from tfvae.system.errors import InputError
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import load_run, train
from tfvae.training.retraining import RetrainingReport, retrain
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

CUT = StrongGeneralizationSettings(held_out_users=15, min_items_per_user=1)
SMALL = {"hidden": [8], "latent_dim": 4, "batch_size": 40, "learning_rate": 0.01, "monitor": "ndcg@10"}
QUIET = {"progress": False, "log": lambda line: None}
GONE_ITEM, GONE_USERS = 3, (0, 1, 2)


def interactions_of(frame):
    return Interactions.from_frame(frame, rating="rating")


@pytest.fixture(scope="module")
def whole():
    """All events that there ever were, one row for each: of 140 users and 45 items."""
    drawn = synthetic(n_users=140, n_items=45, n_tastes=4, taste=0.9)
    return pd.DataFrame({"user": drawn.users, "item": drawn.items, "rating": drawn.values})


@pytest.fixture(scope="module")
def now(whole):
    """The log as it is now: three users have gone."""
    return whole[~whole.user.isin(GONE_USERS)]


@pytest.fixture(scope="module")
def before(whole):
    """The log as it was before: of 100 users and 40 items."""
    return whole[(whole.user < 100) & (whole.item < 40)]


@pytest.fixture(scope="module")
def former(before):
    return strong_generalization(interactions_of(before), CUT)


@pytest.fixture(scope="module")
def grown(now, former):
    """The split of the present log, from which an item has gone."""
    return continued_generalization(interactions_of(now[now.item != GONE_ITEM]), former, CUT)


@pytest.fixture(scope="module")
def old(former, tmp_path_factory):
    """The folder of the former run."""
    folder = tmp_path_factory.mktemp("runs") / "old"
    train(settings_of("mult-vae", SMALL | {"epochs": 2}), former, folder, **QUIET)
    former.save(folder / "split.npz")
    return folder


# ---- the split --------------------------------------------------------------------------------------


def test_held_out_users_stay_held_out_and_new_ones_are_for_training(former, grown):
    for part, was in ((grown.validation, former.validation), (grown.test, former.test)):
        assert part.user_ids.tolist() == [user for user in was.user_ids if user not in GONE_USERS]
        assert part.targets.nnz
    known = [user for user in former.user_ids.tolist() if user not in GONE_USERS]
    assert grown.user_ids[: len(known)].tolist() == known
    assert set(range(100, 140)) <= set(grown.user_ids[len(known) :].tolist())
    held_out = {*grown.validation.user_ids.tolist(), *grown.test.user_ids.tolist()}
    assert not held_out & set(grown.user_ids.tolist())


def test_known_items_keep_their_order_and_new_ones_come_last(former, grown):
    known = [item for item in former.item_ids.tolist() if item != GONE_ITEM]
    assert grown.item_ids[: len(known)].tolist() == known
    assert set(grown.item_ids[len(known) :].tolist()) == set(range(40, 45))


def test_a_row_has_the_items_of_its_user(now, grown):
    for row in (0, len(grown.user_ids) - 1):
        had = set(now.item[(now.user == grown.user_ids[row]) & (now.item != GONE_ITEM)])
        columns = grown.train.indices[grown.train.indptr[row] : grown.train.indptr[row + 1]]
        assert set(grown.item_ids[columns].tolist()) == had


def assert_equal_splits(one, other):
    one, other = one.arrays(), other.arrays()
    assert one.keys() == other.keys()
    for name, array in one.items():
        if not name.startswith("lines."):
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_the_same_data_give_the_same_matrices(before, former):
    assert_equal_splits(continued_generalization(interactions_of(before), former, CUT), former)


def test_the_order_of_users_and_items_in_the_file_changes_nothing(now, former, grown):
    # The draw of targets follows the order of a user's events, which stays.
    shuffled = np.random.default_rng(0).permutation(140)
    other = (
        now[now.item != GONE_ITEM].assign(place=lambda frame: shuffled[frame.user]).sort_values("place", kind="stable")
    )
    again = interactions_of(other)
    assert again.item_ids.tolist() != interactions_of(now).item_ids.tolist()
    split = continued_generalization(again, former, CUT)
    np.testing.assert_array_equal(split.item_ids[:39], grown.item_ids[:39])
    aligned = split.train[places_in(split.user_ids, grown.user_ids)][:, places_in(split.item_ids, grown.item_ids)]
    assert (aligned != grown.train).nnz == 0
    targets = split.validation.targets[:, places_in(split.item_ids, grown.item_ids)]
    assert (targets != grown.validation.targets).nnz == 0


def test_a_split_can_be_continued_again_and_saved(now, former, grown, tmp_path):
    again = continued_generalization(interactions_of(now[now.item != GONE_ITEM]), grown, CUT)
    assert_equal_splits(again, grown)
    assert type(grown).load(grown.save(tmp_path)).digest == grown.digest != former.digest


def test_ids_that_became_text_are_still_found(now, former):
    text = now.assign(user=now.user.astype(str), item=["x" if item == 44 else str(item) for item in now.item])
    split = continued_generalization(interactions_of(text), former, CUT)
    assert set(split.validation.user_ids) <= set(map(str, former.validation.user_ids))
    assert split.item_ids[0] == str(former.item_ids[0])


def test_data_without_the_held_out_users_are_refused(now, former):
    others = now[~now.user.isin(former.validation.user_ids)]
    with pytest.raises(InputError, match="none of the 15 users who were held out for validation"):
        continued_generalization(interactions_of(others), former, CUT)
    held_out = [*former.validation.user_ids, *former.test.user_ids]
    with pytest.raises(InputError, match="none is left to train on"):
        continued_generalization(interactions_of(now[now.user.isin(held_out)]), former, CUT)


# ---- the run ----------------------------------------------------------------------------------------


@pytest.fixture
def no_epoch(monkeypatch):
    """Runs end before their first epoch."""
    monkeypatch.setattr("tfvae.training.loop.fit_epochs", lambda *given: [])


def test_known_items_start_with_their_weights_and_new_ones_with_the_models_own(old, former, grown, no_epoch, tmp_path):
    found = retrain(old, grown, tmp_path / "new", **QUIET)
    model, trained = found.trained.model, load_run(old).model
    fresh = found.trained.settings.build_for(grown)
    here = places_in(former.item_ids, grown.item_ids)
    for weight in ("encoder.first.kernel", "decoder.last.kernel", "decoder.last.bias"):
        values = []
        for one in (model, trained, fresh):
            for part in weight.split("."):
                one = getattr(one, part)
            values.append(one.numpy())
        np.testing.assert_array_equal(values[0][here >= 0], values[1][here[here >= 0]])
        np.testing.assert_array_equal(values[0][here < 0], values[2][here < 0])
    assert found.report.items.model_dump() == {"kept": 39, "joined": 5, "left": 1}


def test_unchanged_data_start_at_the_former_value(old, before, former, no_epoch, tmp_path):
    split = continued_generalization(interactions_of(before), former, CUT)
    found = retrain(old, split, tmp_path / "new", **QUIET)
    best = load_run(old).best["val_ndcg@10"]
    change = found.report.metrics["ndcg@10"]
    assert (change.before, change.after, change.difference, change.se) == (best, best, 0.0, 0.0)


def test_the_order_of_items_does_not_matter_to_what_the_former_model_says(old, former, grown, no_epoch, tmp_path):
    turned = np.arange(grown.n_items)[::-1]
    other = with_columns(grown, turned)
    one, two = (
        retrain(old, split, tmp_path / name, former=former, **QUIET).report
        for name, split in (("a", grown), ("b", other))
    )
    assert one.metrics["ndcg@10"].before == pytest.approx(two.metrics["ndcg@10"].before, abs=1e-9)


def with_columns(split, columns):
    """The same split with its columns in another order."""
    parts = {
        name: replace(part, history=part.history[:, columns], targets=part.targets[:, columns])
        for name, part in (("validation", split.validation), ("test", split.test))
    }
    return replace(
        split,
        train=split.train[:, columns],
        item_ids=split.item_ids[columns],
        lines={},
        digest="turned",
        titles=None,
        **parts,
    )


@pytest.mark.long
def test_a_killed_run_goes_on_to_equal_bits(old, grown, tmp_path):
    changes = {"epochs": 2, "seed": 5}
    whole = retrain(old, grown, tmp_path / "whole", changes=changes, **QUIET)

    class Killed(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 0:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(old, grown, tmp_path / "killed", changes=changes, **QUIET)
    assert not (tmp_path / "killed/retrained.json").exists()
    again = retrain(old, grown, tmp_path / "killed", changes=changes, **QUIET)
    assert again.trained.resumed and not whole.trained.resumed
    assert again.report == whole.report
    for one, other in zip(whole.trained.model.variables, again.trained.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)

    # The KL weight goes on where it was, but epochs are counted anew.
    betas = [entry["beta"] for entry in whole.trained.history]
    assert betas[0] > load_run(old).best["beta"] > 0 and whole.trained.history[0]["epoch"] == 0

    stored = json.loads((tmp_path / "whole/retrained.json").read_text())
    report = RetrainingReport.model_validate(stored)
    assert report == whole.report and report.keeps_weights
    assert report.users.joined == 40 and report.held_out_users.joined == 0 and report.learnt_before == 0
    assert report.measured == np.count_nonzero(np.diff(grown.validation.targets.indptr))
    assert report.metrics["ndcg@10"].after == evaluate(whole.trained.model, grown.validation, ["ndcg@10"]).mean(
        "ndcg@10"
    )
    assert 0 < report.metrics["ndcg@10"].before < 1 and report.metrics["ndcg@10"].se > 0

    with pytest.raises(InputError, match="it starts from other weights"):
        train(whole.trained.settings, grown, tmp_path / "whole", **QUIET)


def test_a_model_in_closed_form_is_solved_anew(former, grown, tmp_path):
    settings = settings_of("ease", {"regularization": 5.0})
    train(settings, former, tmp_path / "old", **QUIET)
    lines = []
    found = retrain(tmp_path / "old", grown, tmp_path / "new", former=former, progress=False, log=lines.append)
    alone = train(settings, grown, tmp_path / "alone", **QUIET)
    for one, other in zip(found.trained.model.variables, alone.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert any("solved anew" in line for line in lines)
    assert not found.report.keeps_weights and found.report.items.joined == 5
    files = [(tmp_path / name / "settings.json").read_bytes() for name in ("new", "alone")]
    assert files[0] == files[1]


def test_ratings_of_known_items_are_compared(before, now, tmp_path):
    former = rating_holdout(interactions_of(before))
    train(settings_of("bias-mf", {"factors": 2, "iterations": 3}), former.for_tuning(), tmp_path / "old", **QUIET)
    split = rating_holdout(interactions_of(now)).for_tuning()
    found = retrain(tmp_path / "old", split, tmp_path / "new", former=former, **QUIET)
    rows, columns, ratings = split.validation.triples()
    known = split.item_ids[columns] < 40
    assert found.report.measured == known.sum() < len(ratings)
    predicted = evaluate(found.trained.model, split.validation).predicted
    errors = (predicted - ratings)[known].astype(np.float64)
    change = found.report.metrics["rmse"]
    assert change.after == pytest.approx(np.sqrt((errors**2).mean()))
    assert change.difference == change.after - change.before and 0 < change.se < 0.2
    assert found.report.held_out_users is None and found.report.learnt_before == len(former.user_ids) - len(GONE_USERS)


def test_of_users_whom_the_former_model_cannot_score_there_is_no_value(tiny_items, tmp_path):
    settings = settings_of("gmf", {"factors": 4, "batch_size": 40, "epochs": 1, "monitor": "ndcg@10"})
    known = np.arange(60)
    validation = replace(
        tiny_items.validation,
        history=tiny_items.validation.history[known],
        items=tiny_items.validation.items[known],
        negatives=tiny_items.validation.negatives[known],
        user_ids=tiny_items.validation.user_ids[known],
    )
    former = replace(
        tiny_items,
        train=tiny_items.train[known],
        user_ids=tiny_items.user_ids[known],
        validation=validation,
        digest="part",
    )
    train(settings, former, tmp_path / "old", **QUIET)
    report = retrain(tmp_path / "old", tiny_items, tmp_path / "new", former=former, **QUIET).report
    assert report.users.model_dump() == {"kept": 60, "joined": 30, "left": 0} and report.measured == 60
    value = evaluate(load_run(tmp_path / "old").model, validation, ["ndcg@10"]).mean("ndcg@10")
    assert report.metrics["ndcg@10"].before == pytest.approx(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 5}, "with latent_dim=5 the weights of mult-vae have other shapes"),
        ({"model": "ease"}, "is a run of mult-vae, which stays the model"),
        ({"beta_selection": "peak"}, "a run that goes on keeps its cap"),
        ({"latnt_dim": 5}, "did you mean 'latent_dim'?"),
    ],
)
def test_changes_that_cannot_be_are_refused(old, grown, tmp_path, changes, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        retrain(old, grown, tmp_path / "new", changes=changes, **QUIET)
    assert not (tmp_path / "new").exists()


def test_folders_and_splits_that_do_not_fit_are_refused(old, now, former, grown, tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        retrain(tmp_path / "none", grown, tmp_path / "new", former=former, **QUIET)
    with pytest.raises(InputError, match="is the run to start from, which is only read"):
        retrain(old, grown, old, **QUIET)
    with pytest.raises(InputError, match="trained on data of digest"):
        retrain(old, grown, tmp_path / "new", former=grown, **QUIET)
    others = strong_generalization(interactions_of(now.assign(item=now.item + 1000)), CUT)
    with pytest.raises(InputError, match="none of the 40 items"):
        retrain(old, others, tmp_path / "new", **QUIET)
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_the_cap_that_a_pilot_run_found_is_kept(former, grown, tmp_path):
    settings = settings_of("mult-vae", SMALL | {"epochs": 1, "beta_selection": "peak", "anneal_updates": 5})
    first = train(settings, former, tmp_path / "old", **QUIET)
    found = retrain(tmp_path / "old", grown, tmp_path / "new", former=former, **QUIET).trained
    assert found.selected_beta == first.selected_beta == found.history[0]["beta"]
