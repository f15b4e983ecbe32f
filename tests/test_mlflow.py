"""Runs in MLflow: what is logged, that a resumed run goes on in the same one, and what happens where MLflow fails."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

import tfvae
from tfvae.cli.app import app
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run, train
from tfvae.training.mlflow_log import in_mlflow, refuse_no_mlflow
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

SETTINGS = {"hidden": [8], "latent_dim": 4, "batch_size": 45, "epochs": 2}


def test_without_mlflow_the_command_says_how_to_install_it_before_it_reads_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused = CliRunner().invoke(app, ["fit", "no-such-file.csv", "--log", "mlflow"])
    assert refused.exit_code == 2 and "pip install 'tfvae[mlflow]'" in refused.stderr


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of a new store of MLflow runs."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed; pip install 'tfvae[mlflow]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "films")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield mlflow.MlflowClient()
    assert mlflow.active_run() is None
    mlflow.end_run()


def logged_run(client, folder):
    """The only MLflow run, which the run folder must name."""
    (run,) = client.search_runs([client.get_experiment_by_name("films").experiment_id])
    assert json.loads((folder / "mlflow.json").read_text())["run_id"] == run.info.run_id
    return run


def steps(client, run, name):
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}


def fitted(split, folder, lines, follow, **changes):
    return train(settings_of("mult-vae", SETTINGS | changes), split, folder, follow=follow, log=lines.append)


def test_a_run_is_logged_whole_and_its_artifacts_are_a_run(client, tiny_split, tmp_path):
    folder, lines = tmp_path / "run", []
    with in_mlflow(folder, lines.append) as follow:
        trained = fitted(tiny_split, folder, lines, follow)
    run = logged_run(client, folder)
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    expected = trained.settings.flat()
    assert {name: run.data.params[name] for name in ("model", "hidden", "epochs", "patience")} == {
        "model": "mult-vae", "hidden": "[8]", "epochs": "2", "patience": "null",
    }  # fmt: skip
    assert set(run.data.params) == set(expected)
    assert run.data.tags["tfvae.data_digest"] == tiny_split.digest
    assert run.data.tags["tfvae.version"] == tfvae.__version__
    for name in trained.history[0].keys() - {"epoch"}:
        found = steps(client, run, name.replace("@", "_at_"))
        assert found == {entry["epoch"]: pytest.approx(entry[name]) for entry in trained.history}, name
    assert run.data.metrics["run_best_epoch"] == trained.best_epoch
    loaded = load_run(client.download_artifacts(run.info.run_id, "run", str(tmp_path)))
    assert loaded.settings == trained.settings and loaded.history == trained.history
    assert run.info.run_id in lines[-1]

    with in_mlflow(folder, lines.append) as follow:  # nothing is logged anew
        fitted(tiny_split, folder, lines, follow)
    again = logged_run(client, folder)
    assert "is whole already" in lines[-1] and again.info.end_time == run.info.end_time


class Killed(Exception):
    """In place of a signal."""


def test_a_resumed_run_goes_on_in_the_same_run_and_logs_no_epoch_twice(client, tiny_split, tmp_path):
    folder, lines = tmp_path / "run", []

    def kill_after(epochs):
        def told(history):
            follow(history)
            if len(history) == epochs:
                raise Killed

        return told

    with pytest.raises(Killed), in_mlflow(folder, lines.append) as follow:
        fitted(tiny_split, folder, lines, kill_after(1), epochs=3)
    assert logged_run(client, folder).info.status == "FAILED"
    with in_mlflow(folder, lines.append) as follow:
        trained = fitted(tiny_split, folder, lines, follow, epochs=3)
    run = logged_run(client, folder)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2]
    assert [metric.value for metric in history] == pytest.approx([entry["loss"] for entry in trained.history])


def test_where_mlflow_fails_training_goes_on_and_the_rest_is_logged_later(client, tiny_split, tmp_path, monkeypatch):
    import mlflow

    folder, lines = tmp_path / "run", []
    whole = mlflow.log_metrics

    def failing(metrics, step=None, **given):
        if step == 0 and not lines:
            raise mlflow.MlflowException("the server is away")
        whole(metrics, step=step, **given)

    monkeypatch.setattr(mlflow, "log_metrics", failing)
    with in_mlflow(folder, lines.append) as follow:
        fitted(tiny_split, folder, lines, follow)
    assert "cannot log epoch 1: the server is away" in lines[0] and "Training goes on" in lines[0]
    assert set(steps(client, logged_run(client, folder), "loss")) == {0, 1}


def test_a_run_that_was_trained_before_is_logged_as_well(client, tiny_split, tmp_path):
    folder = tmp_path / "run"
    train(settings_of("ease", {}), tiny_split, folder, log=[].append)
    with in_mlflow(folder, [].append):
        pass
    run = logged_run(client, folder)
    assert run.data.params["model"] == "ease" and run.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "run")} == {
        f"run/{name}" for name in ("settings.json", "items.npz", "model.keras", "run.json")
    }


def test_errors_say_what_to_do_and_tell_no_password(client, tiny_split, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(settings_of("popularity", {}), tiny_split, folder, log=[].append)
    (folder / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32}))
    with pytest.raises(InputError, match="remove this file to begin a new one"), in_mlflow(folder, [].append):
        pass
    (folder / "mlflow.json").write_text("[]")
    with pytest.raises(InputError, match=r"mlflow\.json"), in_mlflow(folder, [].append):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@localhost:1")
    with pytest.raises(InputError, match="MLflow at http://localhost:1 cannot list its experiments") as refused:
        refuse_no_mlflow()
    assert "secret" not in str(refused.value)


def test_the_command_logs(client, tmp_path):
    lines = ["uid,sku", *(f"{user},{100 + (user + 3 * step) % 20}" for user in range(60) for step in range(6))]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    given = ["--run", "run", "--model", "popularity", "--log", "mlflow"]
    done = CliRunner().invoke(app, ["fit", "events.csv", *given])
    assert done.exit_code == 0, done.output
    assert f"In MLflow: run {logged_run(client, tmp_path / 'run').info.run_id}" in done.output
    assert "Invalid value for '--log'" in CliRunner().invoke(app, ["fit", "events.csv", "--log", "wandb"]).stderr
