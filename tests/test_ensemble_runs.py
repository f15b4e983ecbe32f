"""Ensembles as runs: trained from the beginning or made of finished runs, resumed, kept in a folder, and served."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import tfvae
from tfvae.cli.app import app
from tfvae.data.splits import load_split, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.calibration import TOLERANCE, calibration
from tfvae.evaluation.evaluate import evaluate
from tfvae.models.ease import EASE
from tfvae.models.wmf import WMF
from tfvae.system.errors import InputError
from tfvae.system.files import sha256_of
from tfvae.training import loop
from tfvae.training.adapt import settings_for
from tfvae.training.ensemble import ensemble
from tfvae.training.loop import load_run, train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

MATRIX = [
    {"model": "ease", "settings": {"regularization": 5.0}},
    {"model": "wmf", "settings": {"factors": 6, "regularization": 2.0}, "training": {"seed": 11}},
]
DAE = {"model": "mult-dae", "settings": {"latent_dim": 4}, "training": {"epochs": 3, "batch_size": 30}}
PVAE = {
    "model": "p-vae",
    "settings": {"embedding_dim": 6, "latent_dim": 3, "variance": 0.02},
    "training": {"epochs": 3, "batch_size": 30},
}
BIAS = {"model": "bias-mf", "settings": {"factors": 2}}
FINISHED = ["items.npz", "model.keras", "run.json", "settings.json"]


def of(*members, name="ensemble", **given):
    monitor = {"monitor": "ndcg@10"} if name == "ensemble" else {}
    return settings_of(name, {"members": list(members)} | monitor | given)


def trained(settings, split, folder, log=None):
    return train(settings, split, folder, progress=False, log=[].append if log is None else log)


def run_of(member, split, folder):
    given = member["settings"] | member.get("training", {}) | {"monitor": "ndcg@10"}
    return trained(settings_of(member["model"], given), split, folder)


def assert_equal_weights(one, other):
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """An ensemble with a member that is trained by gradient, from the beginning."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return trained(of(*MATRIX, DAE), tiny_split, folder), folder


# ---- from the beginning ------------------------------------------------------------------------------


def test_each_member_is_the_model_that_would_be_trained_alone(whole, tiny_split, tmp_path):
    run, folder = whole
    alone = run_of(DAE | {"training": DAE["training"] | {"seed": 98765 + 2}}, tiny_split, tmp_path / "dae")
    assert_equal_weights(run.model.recommenders[2], alone.model)
    assert names_in(folder) == FINISHED
    assert run.seconds > 0 and run.history == [] and run.best_epoch is None
    assert load_run(folder).seconds == run.seconds
    assert_equal_weights(load_run(folder).model, run.model)
    weights = run.model.member_weights.numpy()
    assert weights.sum() == pytest.approx(1, rel=1e-6) and (weights >= 0).all()


def test_what_was_asked_for_is_kept_and_the_model_has_it_in_full(whole):
    run, folder = whole
    assert json.loads((folder / "settings.json").read_text())["settings"]["members"] == run.settings.model["members"]
    assert run.settings.model["members"][2]["settings"] == {"latent_dim": 4}
    member = run.model.members[2]
    assert member["settings"]["likelihood"] == "multinomial" and member["training"]["seed"] == 98767
    assert member["training"]["monitor"] == "ndcg@10"  # that of the ensemble, which is not the default


def test_killed_between_members_it_goes_on_with_the_next(whole, tiny_split, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, *given):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WMF, "fit_matrix", killed)
        with pytest.raises(Killed):
            trained(of(*MATRIX, DAE), tiny_split, tmp_path)
    assert names_in(tmp_path / "members" / "0-ease") == [*FINISHED, "tensorboard"]
    assert not (tmp_path / "run.json").exists()
    monkeypatch.setattr(EASE, "fit_matrix", killed)  # which is not needed again
    again = trained(of(*MATRIX, DAE), tiny_split, tmp_path)
    assert again.resumed and names_in(tmp_path) == FINISHED
    assert_equal_weights(again.model, whole[0].model)


def test_killed_before_the_members_folders_are_removed_it_removes_them(tiny_split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove_training_files", lambda self: None)
        first = trained(of(*MATRIX), tiny_split, tmp_path)
    assert names_in(tmp_path / "members") == ["0-ease", "1-wmf"]
    again = trained(of(*MATRIX), tiny_split, tmp_path)
    assert again.resumed and names_in(tmp_path) == FINISHED
    assert_equal_weights(again.model, first.model)


def test_what_the_user_keeps_among_the_members_stays(tiny_split, tmp_path):
    settings = of(*MATRIX)
    RunFolder(tmp_path).mark(settings, tiny_split.digest)
    mine = ["members/notes.txt", "members/2-ease/settings.json", "members/mine/model.keras"]
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    before = fingerprint(tmp_path / "members")
    trained(settings, tiny_split, tmp_path)
    assert fingerprint(tmp_path / "members") == before
    RunFolder(tmp_path).remove()
    assert sorted(fingerprint(tmp_path)) == sorted(mine)


def test_a_member_is_not_trained_into_a_folder_that_is_not_its_own(tiny_split, tmp_path):
    settings = of(*MATRIX)
    RunFolder(tmp_path).mark(settings, tiny_split.digest)
    (tmp_path / "members" / "1-wmf").mkdir(parents=True)
    (tmp_path / "members" / "1-wmf" / "mine.txt").touch()
    with pytest.raises(InputError, match="1-wmf is not empty and not the folder of a run"):
        trained(settings, tiny_split, tmp_path)
    assert names_in(tmp_path / "members" / "1-wmf") == ["mine.txt"]


@pytest.mark.parametrize("name", ["members", "members/0-ease"])
def test_a_link_in_place_of_a_members_folder_is_refused(name, tiny_split, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    (elsewhere / "0-ease").mkdir(parents=True)
    RunFolder(folder).mark(of(*MATRIX), tiny_split.digest)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(InputError, match=f"{name} is a link"):
        trained(of(*MATRIX), tiny_split, folder)
    assert names_in(elsewhere) == ["0-ease"] and not names_in(elsewhere / "0-ease")


def test_a_member_that_the_data_do_not_suit_is_refused_before_any_is_trained(tiny_split, tmp_path, monkeypatch):
    monkeypatch.setattr(EASE, "fit_matrix", None)
    with pytest.raises(InputError, match="91"):
        trained(of(*MATRIX, DAE | {"training": {"batch_size": 91}}), tiny_split, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_validation_the_weights_stay_equal_and_that_is_said(ratings, tmp_path):
    lines: list[str] = []
    assert ratings.validation is None
    members = [BIAS, {"model": "pmf", "settings": {"factors": 2}}]
    run = trained(of(*members, name="rating-ensemble"), ratings, tmp_path, lines.append)
    np.testing.assert_array_equal(run.model.member_weights, 0.5)
    assert "There is no validation part on which weights could be chosen; they stay equal." in lines


def test_test_users_change_nothing(tiny_split, tmp_path):
    test = dataclasses.replace(tiny_split.test, history=tiny_split.test.targets, targets=tiny_split.test.history)
    splits = {"one": tiny_split, "other": dataclasses.replace(tiny_split, test=test)}
    one, other = (trained(of(*MATRIX, DAE), split, tmp_path / name).model for name, split in splits.items())
    assert_equal_weights(one, other)


def test_settings_of_members_follow_the_data_unless_they_are_given(tiny_split, tiny_items):
    lines: list[str] = []
    vamp = {"model": "vamp", "settings": {"hidden": [4]}}
    given = {"members": [vamp, DAE, vamp | {"settings": {"n_pseudo_inputs": 80}}], "patience": 3}
    settings = settings_for("ensemble", given, tiny_split, lines.append)
    one, dae, other = settings.model["members"]
    assert one["settings"]["n_pseudo_inputs"] == 9 and other["settings"]["n_pseudo_inputs"] == 80
    assert (one["training"]["batch_size"], dae["training"]["batch_size"]) == (16, 30)
    assert {member["training"]["patience"] for member in settings.model["members"]} == {3}
    assert any(line.startswith("0-vamp: n_pseudo_inputs: 9 instead of") for line in lines)
    assert settings_for("ensemble", settings.model, tiny_split, lines.append).model == settings.model
    lines.clear()
    by_items = settings_for("ensemble", {"members": MATRIX}, tiny_items, lines.append)
    assert by_items.training.monitor == "ndcg@10" and len(lines) == 1


def test_one_held_out_item_of_each_user_chooses_weights_too(tiny_items, tmp_path):
    settings = settings_for("ensemble", {"members": MATRIX}, tiny_items, lambda line: None)
    lines: list[str] = []
    trained(settings, tiny_items, tmp_path, lines.append)
    assert any(line.startswith("Validation ndcg@10: 0.") for line in lines)


# ---- of ratings --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ratings():
    """Ratings without a validation part, which `for_tuning` cuts."""
    return rating_holdout(synthetic(n_users=90, n_items=40, n_tastes=4, taste=0.9))


@pytest.mark.long
def test_an_ensemble_of_ratings_is_calibrated_and_served_with_its_sd(ratings, tmp_path):
    split, part = ratings, ratings.for_tuning()
    lines: list[str] = []
    run = trained(of(PVAE, BIAS, name="rating-ensemble"), part, tmp_path / "run", lines.append)
    found = calibration(run.model, part.validation)
    assert abs(found.coverage - 0.95) <= TOLERANCE
    assert any("intervals of rating-ensemble hold" in line for line in lines)
    again = load_run(tmp_path / "run").model
    assert again.get_config() == run.model.get_config()
    alone = trained(settings_of("p-vae", PVAE["settings"] | PVAE["training"]), part, tmp_path / "alone").model
    assert run.model.recommenders[0].sd_factor == again.recommenders[0].sd_factor == alone.sd_factor > 1
    best = min(evaluate(member, part.validation).mean("rmse") for member in run.model.recommenders)
    assert evaluate(again, part.validation).mean("rmse") < best + 1e-4
    tfvae.export.export(again, split.item_ids, tmp_path / "out", scale=split.scale)
    serve = tf.saved_model.load(tmp_path / "out").signatures["recommend"]
    history = tf.constant([split.item_ids[:2].tolist()], tf.int64)
    answer = serve(history=history, ratings=tf.constant([[5.0, 2.0]]), k=tf.constant(3))
    own = tfvae.recommend(again, split.item_ids, [split.item_ids[:2]], 3, ratings=[[5, 2]], scale=split.scale)
    np.testing.assert_allclose(answer["sd"], own.sd, rtol=1e-5)


# ---- of finished runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny_split, tmp_path_factory):
    """Finished runs of the members."""
    folder = tmp_path_factory.mktemp("runs")
    for member in (*MATRIX, DAE):
        run_of(member, tiny_split, folder / member["model"])
    return folder


def test_of_runs_and_from_the_beginning_are_the_same(runs, tiny_split, tmp_path):
    before = fingerprint(runs)
    made = ensemble([runs / "ease", runs / "wmf"], tiny_split, tmp_path / "made", monitor="ndcg@10", log=[].append)
    assert fingerprint(runs) == before
    again = trained(made.settings, tiny_split, tmp_path / "again")
    assert_equal_weights(again.model, made.model)
    assert (tmp_path / "made" / "settings.json").read_text() == (tmp_path / "again" / "settings.json").read_text()
    assert names_in(tmp_path / "made") == FINISHED
    seconds = sum(load_run(runs / name).seconds for name in ("ease", "wmf"))
    assert made.seconds == pytest.approx(seconds) and not made.resumed
    assert made.settings.model["members"][1]["training"]["seed"] == 11


def test_made_again_it_is_read_back(runs, tiny_split, tmp_path, monkeypatch):
    given = [runs / "ease", runs / "mult-dae"]
    made = ensemble(given, tiny_split, tmp_path, log=[].append)
    monkeypatch.setattr(loop, "assembled", None)
    again = ensemble(given, tiny_split, tmp_path, log=[].append)
    assert again.resumed
    assert_equal_weights(again.model, made.model)
    with pytest.raises(InputError, match="a run of another configuration"):
        ensemble(given, tiny_split, tmp_path, weighting="equal", log=[].append)
    again.model.save(tmp_path / "copy.keras")
    copy = keras.models.load_model(tmp_path / "copy.keras")
    history = tiny_split.validation.history
    np.testing.assert_array_equal(copy.predict(history), made.model.predict(history))


def test_equal_weights_are_as_asked(runs, tiny_split, tmp_path):
    lines: list[str] = []
    made = ensemble([runs / "ease", runs / "wmf"], tiny_split, tmp_path, weighting="equal", log=lines.append)
    np.testing.assert_array_equal(made.model.member_weights, 0.5)
    assert lines == []


def test_runs_of_other_data_or_another_kind_are_refused_by_name(runs, tiny_split, tmp_path):
    other = dataclasses.replace(tiny_split, digest="0" * 64)
    run_of(MATRIX[0], other, tmp_path / "other")
    with pytest.raises(InputError, match=r"runs.*/ease was trained on data of digest.*/other on others, of 000000"):
        ensemble([runs / "ease", tmp_path / "other"], tiny_split, tmp_path / "out")
    with pytest.raises(InputError, match="ease is a run trained on data of digest"):
        ensemble([runs / "ease", runs / "wmf"], other, tmp_path / "out")
    trained(settings_of("bias-mf", {"factors": 2}), tiny_split, tmp_path / "rates")
    with pytest.raises(InputError, match=r"/rates predicts ratings, and .*/ease ranks"):
        ensemble([runs / "ease", tmp_path / "rates"], tiny_split, tmp_path / "out")
    with pytest.raises(InputError, match="expected as many runs, found 1"):
        ensemble([runs / "ease"], tiny_split, tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        ensemble([runs / "ease", tmp_path / "nothing"], tiny_split, tmp_path / "out")
    RunFolder(tmp_path / "begun").mark(settings_of("ease", {}), tiny_split.digest)
    with pytest.raises(InputError, match="begun holds no finished run"):
        ensemble([runs / "ease", tmp_path / "begun"], tiny_split, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- the command -------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def test_the_command_makes_a_run_that_the_others_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    lines = [
        f"{user},{100 + 2 * item + user % 2},{draw.integers(1, 6)}"
        for user in range(120)
        for item in draw.choice(20, 7, replace=False)
    ]
    Path("ratings.csv").write_text("\n".join(["user,item,stars", *lines]))
    run("fit", "ratings.csv", "--model", "ease", "--run", "runs/ease")
    run("fit", "ratings.csv", "--model", "popularity", "--run", "runs/popularity")
    told = run("ensemble", "runs/ease", "runs/popularity", "--run", "runs/both")
    assert "with equal weights" in told and "ndcg@100" in told and "runs/popularity" in told
    assert "tfvae evaluate runs/both" in told and "tensorboard" not in told
    assert names_in(Path("runs/both")) == sorted([*FINISHED, "split.npz"])
    assert "there is nothing left to do" in run("ensemble", "runs/ease", "runs/popularity", "--run", "runs/both")
    assert "ndcg@10" in run("evaluate", "runs/both", "--metrics", "ndcg@10")
    assert len(run("recommend", "runs/both", "--history", "101,103", "-k", "3").splitlines()) == 4
    assert "score" in run("recommend", "runs/both", "--user", load_split("runs/both").user_ids[0])
    assert "Written" in run("export", "runs/both", "out")

    for name in ("bias-mf", "pmf"):
        run("fit", "ratings.csv", "--model", name, "--rating-col", "stars", "--run", f"runs/{name}")
    told = run("ensemble", "runs/bias-mf", "runs/pmf", "--run", "runs/rates", "--equal")
    assert "rmse" in told and "0.500" in told
    assert "rmse" in run("evaluate", "runs/rates")
    refused = run("ensemble", "runs/ease", "runs/pmf", "--run", "runs/mixed", code=2)
    assert "runs/ease was trained on data of digest" in refused and "runs/pmf" in refused
    taken = run("ensemble", "runs/ease", "runs/popularity", "--run", "runs/rates", code=2)
    assert "runs/rates/split.npz is another split" in taken
    assert not Path("runs/mixed").exists()
