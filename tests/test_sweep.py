"""Sweeps: test users stay unseen, trials are stored one by one, and an interrupted search loses nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tfvae.data.splits import StrongGeneralizationSettings, strong_generalization
from tfvae.data.synthetic import synthetic
from tfvae.experiments import runner as tables
from tfvae.experiments import sweep
from tfvae.experiments.definitions import load_table
from tfvae.experiments.results_folder import stored_sweep, sweep_of
from tfvae.experiments.sweep import run_sweep
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.locks import held
from tfvae.training.loop import TrainedModel

pytestmark = pytest.mark.slow

TINY = """
title = "Tiny"
caption = "For tests."
metrics = ["ndcg@10"]
monitor = "ndcg@10"

[[rows]]
name = "EASE"
slug = "ease"
model = "ease"
search.regularization = { low = 1.0, high = 1000.0, log = true }

[[rows]]
name = "Mult-VAE"
slug = "mult-vae"
model = "mult-vae"
settings = { epochs = 3, batch_size = 50, latent_dim = 8, hidden = [] }

[rows.search]
beta_cap = { low = 0.1, high = 1.0, log = true }
dropout = { low = 0.0, high = 0.8, step = 0.1 }
hidden = { choices = [[], [16]] }
latent_dim = { low = 4, high = 16 }

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"
"""


@pytest.fixture(scope="module")
def split():
    settings = StrongGeneralizationSettings(held_out_users=30)
    return strong_generalization(synthetic(200, 40, 2400, n_tastes=2, seed=1), settings)


@pytest.fixture
def place(tmp_path, split, monkeypatch):
    """Keyword arguments for `run_sweep` in an empty folder whose only data set is the tiny split."""
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    (tmp_path / "results" / "tiny" / "table.toml").write_text(TINY)
    for module in (tables, sweep):
        monkeypatch.setattr(module, "splits_of", lambda *_: lambda seed, by: split)
    quiet = {"progress": False, "log": lambda line: None}
    return {"results": tmp_path / "results", "work": tmp_path / "work"} | quiet


@pytest.fixture
def pretended(monkeypatch):
    """Training replaced by a smooth function of the settings with its best at dropout 0.2, β 0.3, 16 wide."""
    seen = []

    def train(settings, split, folder, **_):
        seen.append((settings, split))
        chosen = settings.model
        value = 0.5 - (chosen["dropout"] - 0.2) ** 2 - 0.1 * math.log(chosen["beta_cap"] / 0.3) ** 2
        value += 0.05 * (chosen["hidden"] == [16])
        history = [{"val_ndcg@10": value + change, "seconds": 1.0} for change in (-0.1, 0.0, -0.2)]
        return TrainedModel(None, settings, history, best_epoch=1)

    monkeypatch.setattr(sweep, "train", train)
    return seen


def params_of(found):
    return [trial.params for trial in found.trials]


SHARING = """
title = "Sharing"
caption = "For tests."
metrics = ["ndcg@10"]

[[rows]]
name = "The same"
slug = "same"
alias_of = "tiny/mult-vae"
"""


def test_a_shared_row_is_swept_at_its_home(place, pretended):
    (place["results"] / "sharing").mkdir()
    (place["results"] / "sharing" / "table.toml").write_text(SHARING)
    with pytest.raises(InputError, match="row 'same' of sharing is tiny/mult-vae; sweep that row instead"):
        run_sweep("sharing", "same", "ml-1m", 2, **place)
    assert not pretended
    found = run_sweep("tiny", "mult-vae", "ml-1m", 3, **place)
    row = load_table("sharing", place["results"]).row("same")
    assert sweep_of("sharing", "ml-1m", row, place["results"]) == found


def test_no_test_user_is_seen(place, split, pretended):
    run_sweep("tiny", "mult-vae", "ml-1m", 2, **place)
    for _, given in pretended:
        assert given.test is None
        assert given.train is split.train and given.validation is split.validation
    assert len(split.test.user_ids) == 30


def test_ease_is_searched_on_validation_users(place, split, monkeypatch):
    measured, real = [], sweep.evaluate

    def evaluate(model, held_out, *arguments):
        measured.append(held_out)
        return real(model, held_out, *arguments)

    monkeypatch.setattr(sweep, "evaluate", evaluate)
    found = run_sweep("tiny", "ease", "ml-1m", 4, **place)
    assert all(held_out is split.validation for held_out in measured) and len(measured) == 4
    assert found.trials[0].params == {"regularization": 500.0}
    assert len({trial.value for trial in found.trials}) > 1
    folder = place["work"] / "tiny" / "ml-1m" / "ease.sweep"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [path.name for path in folder.iterdir()] == ["tensorboard"]

    (run,) = tables.run_table("tiny", "ml-1m", rows=["ease"], **place)
    assert run.settings["regularization"] == found.best.params["regularization"]
    assert run.validation == pytest.approx(found.best.value)
    assert run.tuned.trials == 4
    text = (place["results"] / "tiny" / "ml-1m" / "README.md").read_text()
    assert "4 trials" in text and "## Tuning" in text


def test_a_killed_search_leaves_nothing_that_stops_another_one(place, tmp_path):
    from tfvae.training.run_folder import RunFolder
    from tfvae.training.settings import settings_of

    folder = place["work"] / "tiny" / "ml-1m" / "ease.sweep"
    killed = RunFolder(folder / "trial0-01234567")
    killed.path.mkdir(parents=True)
    killed.mark(settings_of("ease", {"regularization": 7.0}), "other data")
    (folder / "trial-notes").mkdir()
    (folder / "trial-notes" / "mine.txt").write_text("my own")
    run_sweep("tiny", "ease", "ml-1m", 2, seed=5, **place)
    assert sorted(path.name for path in folder.iterdir()) == ["tensorboard", "trial-notes"]
    assert (folder / "trial-notes" / "mine.txt").read_text() == "my own"


def test_a_search_that_another_process_makes_is_not_made_twice(place):
    with held(place["work"] / "tiny" / "ml-1m" / "ease.sweep"), pytest.raises(InputError, match="in use by another"):
        run_sweep("tiny", "ease", "ml-1m", 2, **place)


def test_a_real_model_is_searched(place):
    found = run_sweep("tiny", "mult-vae", "ml-1m", 1, epochs=2, **place)
    assert found.epochs == 2 and found.settings["epochs"] == 2
    assert 0 < found.best.value < 1 and found.best.best_epoch in (0, 1)


def test_the_first_trial_is_the_row_itself_and_later_ones_lie_in_the_space(place, pretended):
    found = run_sweep("tiny", "mult-vae", "ml-1m", 12, **place)
    assert found.trials[0].params == {"beta_cap": 0.2, "dropout": 0.5, "hidden": [], "latent_dim": 8}
    for params in params_of(found):
        assert 0.1 <= params["beta_cap"] <= 1 and params["hidden"] in ([], [16])
        assert params["dropout"] == pytest.approx(round(params["dropout"], 1))
        assert params["latent_dim"] in range(4, 17)
    assert len({str(params) for params in params_of(found)}) == 12
    assert found.best.value == max(trial.value for trial in found.trials) > found.trials[0].value


def test_the_search_finds_the_top_of_a_smooth_function(place, pretended):
    found = run_sweep("tiny", "mult-vae", "ml-1m", 40, **place)
    assert found.best.value > 0.53  # 0.55 at the very top, 0.39 where it began


def test_an_interrupted_sweep_goes_on_as_if_it_had_not_been(place, pretended):
    whole = run_sweep("tiny", "mult-vae", "netflix", 14, **place)
    for trials in (3, 11, 14):
        parts = run_sweep("tiny", "mult-vae", "ml-1m", trials, **place)
        assert parts == stored_sweep("tiny", "ml-1m", "mult-vae", place["results"])
        assert len(parts.trials) == trials
    assert params_of(parts) == params_of(whole)
    other = run_sweep("tiny", "mult-vae", "msd", 14, seed=1, **place)
    assert params_of(other) != params_of(whole)


def test_each_trial_is_stored_when_it_ends(place, pretended, monkeypatch):
    count, real = [], sweep.train

    def train(*arguments, **keywords):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(sweep, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run_sweep("tiny", "mult-vae", "ml-1m", 5, **place)
    assert len(stored_sweep("tiny", "ml-1m", "mult-vae", place["results"]).trials) == 2


def test_the_budget_of_seconds_ends_a_sweep(place, pretended):
    assert run_sweep("tiny", "mult-vae", "ml-1m", 5, seconds=0, **place).trials == []


def test_a_diverged_trial_is_a_failed_one(place, pretended, monkeypatch):
    real = sweep.train

    def train(settings, *arguments, **keywords):
        if settings.model["hidden"] == [16]:
            raise DivergedError("the loss is not a number")
        return real(settings, *arguments, **keywords)

    monkeypatch.setattr(sweep, "train", train)
    found = run_sweep("tiny", "mult-vae", "ml-1m", 15, **place)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed and len(failed) == found.tuned.failed < 15
    assert all(trial.value is None and "not a number" in trial.reason for trial in failed)
    assert found.best.params["hidden"] == []


@pytest.mark.parametrize(
    ("old", "new", "changes", "message"),
    [
        ("high = 0.8", "high = 0.7", {}, "another space"),
        ("batch_size = 50", "batch_size = 60", {}, "another settings"),
        ("TINY", "TINY", {"seed": 3}, "another seed"),
        ("TINY", "TINY", {"epochs": 1}, "another epochs"),
    ],
)
def test_a_stored_sweep_of_another_question_is_refused(place, pretended, old, new, changes, message):
    run_sweep("tiny", "mult-vae", "ml-1m", 1, **place)
    (place["results"] / "tiny" / "table.toml").write_text(TINY.replace(old, new))
    with pytest.raises(InputError, match=message):
        run_sweep("tiny", "mult-vae", "ml-1m", 2, **(place | changes))


def test_a_stored_sweep_of_other_data_is_refused(place, split, pretended, monkeypatch):
    run_sweep("tiny", "mult-vae", "ml-1m", 1, **place)
    other = dataclasses.replace(split, digest="of other data")
    monkeypatch.setattr(sweep, "splits_of", lambda *_: lambda seed, by: other)
    with pytest.raises(InputError, match="another data digest"):
        run_sweep("tiny", "mult-vae", "ml-1m", 2, **place)


@pytest.mark.parametrize(
    ("row", "old", "new", "message"),
    [
        ("popularity", "", "", "nothing to search"),
        ("mult-vae", "low = 0.0, high = 0.8", "low = 0.6, high = 0.8", "dropout = 0.5 lies outside"),
        ("mult-vae", "[[], [16]]", "[[16], [32]]", r"hidden = \[\] lies outside"),
        ("mult-vae", "high = 0.8, step = 0.1", "high = 0.9, step = 0.3", "dropout = 0.5 is not among 0.0, 0.3"),
        ("mult-vae", "latent_dim = { low", "latend_dim = { low", "'latend_dim', which is no setting"),
    ],
)
def test_a_search_that_cannot_begin_is_refused(place, row, old, new, message):
    (place["results"] / "tiny" / "table.toml").write_text(TINY.replace(old, new) if old else TINY)
    with pytest.raises(InputError, match=message):
        run_sweep("tiny", row, "ml-1m", 2, **place)
