"""`tfvae compare`: models within a time, chosen on validation data, judged on test data."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.data.splits import (
    LeaveOneOutSettings,
    RatingHoldoutSettings,
    leave_one_out,
    rating_holdout,
    weak_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import evaluate
from tfvae.experiments import comparison
from tfvae.experiments.comparison import Comparison, compare
from tfvae.experiments.usual_model import LARGEST_COMPARED, UsualModel, usual_model
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run

QUICK = {"popularity": {}, "edlae": {"regularization": 5.0}, "mult-dae": {"epochs": 3, "batch_size": 50}}


def said(lines):
    return lines.append


def test_the_best_on_validation_is_chosen_and_the_test_part_only_judges(tiny_split, tmp_path):
    lines: list[str] = []
    found = compare(tiny_split, tiny_split, tmp_path, models=QUICK, log=said(lines), progress=False)
    values = [entry.validation for entry in found.entries]
    assert values == sorted(values, reverse=True)
    best = found.chosen
    assert best.model == "edlae"
    run = load_run(tmp_path / "edlae")
    on_test = evaluate(run.model, tiny_split.test)
    assert best.test["ndcg@100"][0] == pytest.approx(on_test.mean("ndcg@100"))
    other = next(verdict for verdict in found.verdicts if verdict.model == "popularity")
    popularity = evaluate(load_run(tmp_path / "popularity").model, tiny_split.test)
    assert other.difference == pytest.approx(on_test.mean("ndcg@100") - popularity.mean("ndcg@100"))
    assert Comparison.load(tmp_path) == found
    assert not list((tmp_path / "edlae").glob("state-*"))


def test_the_choice_does_not_depend_on_test_users(tiny_split, tmp_path):
    test = tiny_split.test
    half = np.arange(0, len(test.user_ids), 2)
    half = replace(test, history=test.history[half], targets=test.targets[half], user_ids=test.user_ids[half])
    other_test = replace(tiny_split, test=half)
    one = compare(tiny_split, tiny_split, tmp_path / "a", models=QUICK, log=[].append, progress=False)
    other = compare(other_test, other_test, tmp_path / "b", models=QUICK, log=[].append, progress=False)
    assert [entry.model for entry in one.entries] == [entry.model for entry in other.entries]
    assert [entry.validation for entry in one.entries] == [entry.validation for entry in other.entries]
    assert one.chosen.test != other.chosen.test


def test_training_ends_with_its_share_of_the_time_and_what_is_finished_is_kept(tiny_split, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: now.__setitem__(0, now[0] + 1) or now[0])
    models = {"mult-dae": {"epochs": 500, "batch_size": 50}, "popularity": {}}
    found = compare(tiny_split, tiny_split, tmp_path, minutes=0.2, models=models, log=[].append, progress=False)
    entry = next(entry for entry in found.entries if entry.model == "mult-dae")
    assert entry.cut_short and 1 <= entry.epochs < 12 and entry.planned == 500
    again = compare(tiny_split, tiny_split, tmp_path, minutes=60, models=models, log=[].append, progress=False)
    assert again == found  # the finished runs were read back


def test_a_model_that_needs_more_than_its_share_is_left_out(tiny_split, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "SECONDS_OF_INVERSION", 1.0)
    lines: list[str] = []
    found = compare(tiny_split, tiny_split, tmp_path, models=QUICK, log=said(lines), progress=False)
    assert found.entries[-1].model == "edlae" and "minutes" in found.entries[-1].problem
    assert any("edlae is left out" in line for line in lines)
    assert not (tmp_path / "edlae").exists()


def test_ratings_are_compared_by_their_squared_errors(tmp_path):
    split = rating_holdout(synthetic(n_users=90, n_items=40, n_tastes=4), RatingHoldoutSettings())
    models = {"bias-mf": {}, "pmf": {}}
    found = compare(split, split.for_tuning(), tmp_path, models=models, log=[].append, progress=False)
    assert found.monitor == "rmse"
    values = [entry.validation for entry in found.entries]
    assert values == sorted(values)
    rmse = [entry.test["rmse"][0] for entry in found.entries]
    assert found.verdicts[0].difference == pytest.approx(rmse[0] ** 2 - rmse[1] ** 2)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(minutes, tiny_split, tmp_path):
    with pytest.raises(InputError, match="minutes"):
        compare(tiny_split, tiny_split, tmp_path, minutes=minutes)


def test_the_folder_of_other_data_is_refused(tiny_split, tmp_path):
    compare(tiny_split, tiny_split, tmp_path, models={"popularity": {}}, log=[].append)
    file = tmp_path / comparison.COMPARISON_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data_digest": "other"}))
    with pytest.raises(InputError, match="other data"):
        compare(tiny_split, tiny_split, tmp_path, models={"popularity": {}}, log=[].append)


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "else"}', "{}"])
def test_a_damaged_comparison_is_refused_by_name(damage, tmp_path):
    (tmp_path / comparison.COMPARISON_FILE).write_text(damage)
    with pytest.raises(InputError, match=r"comparison\.json"):
        Comparison.load(tmp_path)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = synthetic(n_users=300, n_items=60, n_tastes=4, taste=0.9)
    lines = (f"u{user},i{item}\n" for user, item in zip(found.users, found.items, strict=True))
    (tmp_path / "mine.csv").write_text("user,item\n" + "".join(lines))
    return "mine.csv"


@pytest.mark.slow
def test_the_command_says_which_model_to_take_and_auto_takes_it(file, tmp_path):
    call = ["compare", file, "--models", "popularity,edlae", "--minutes", "5", "--held-out-users", "60"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    chosen = Comparison.load(tmp_path / "runs" / "mine-compare").chosen.model
    assert f"Take {chosen}" in result.output
    assert CliRunner().invoke(app, ["evaluate", f"runs/mine-compare/{chosen}"]).exit_code == 0
    fitted = CliRunner().invoke(app, ["fit", file, "--model", "auto", "--held-out-users", "60"])
    assert fitted.exit_code == 0, fitted.output
    assert f"auto takes {chosen}" in fitted.output
    assert (tmp_path / "runs" / f"mine-{chosen}" / "run.json").is_file()


def test_without_a_comparison_the_model_is_the_one_that_suits_protocol_and_size(tiny_split):
    data = synthetic(60, 40, 900, seed=1)
    assert usual_model(tiny_split).name == "meld"
    assert usual_model(rating_holdout(data, RatingHoldoutSettings())).name == "two-sided-p-vae"
    assert usual_model(weak_generalization(data)).name == "rp3beta"
    latest = usual_model(leave_one_out(data, LeaveOneOutSettings(n_negatives=5)))
    assert (latest.name, latest.settings) == ("mult-vae", {"likelihood": "logistic"})
    large = SimpleNamespace(protocol=tiny_split.protocol, train=SimpleNamespace(nnz=LARGEST_COMPARED + 1))
    assert usual_model(large).name == "recvae"


@pytest.mark.slow
def test_fit_without_a_model_takes_the_usual_one_and_says_why(file, tmp_path, monkeypatch):
    why = UsualModel("popularity", "nobody is surprised")
    monkeypatch.setattr("tfvae.experiments.usual_model.usual_model", lambda split: why)
    fitted = CliRunner().invoke(app, ["fit", file, "--held-out-users", "60", "--epochs", "3"])
    assert fitted.exit_code == 0, fitted.output
    assert "auto takes popularity: nobody is surprised" in fitted.output and "tfvae compare mine.csv" in fitted.output
    assert (tmp_path / "runs" / "mine-popularity" / "run.json").is_file()
    again = CliRunner().invoke(app, ["fit", file, "--held-out-users", "60", "--epochs", "3"])
    assert "nothing left to do" in again.output


@pytest.mark.slow
@pytest.mark.parametrize("models", ["edlae,bias-mf", "neumf,edlae", "edlae,gmf", "p-vae,edlae"])
def test_models_of_different_kinds_are_refused_before_data_are_read(models):
    result = CliRunner().invoke(app, ["compare", "nowhere.csv", "--models", models])
    assert result.exit_code == 2
    assert "cannot be compared" in result.output
