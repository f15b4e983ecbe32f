"""Several workers together do what one machine does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from scipy.sparse import csr_array
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.models import model_class
from tfvae.nn.batches import row_numbers
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run
from tfvae.training.settings import settings_of
from tfvae.training.workers import Workers, join

ROOT = Path(__file__).parents[1]
WORKER = """
import sys
import tfvae
from tfvae.training.workers import join
workers = join()
from tfvae.data.splits import load_split
from tfvae.training.settings import settings_of
split, folder, settings = load_split(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
train = workers.train if workers else tfvae.train
train(settings_of(settings.pop("model"), settings), split, folder, progress=False, tensorboard="off")
"""
# Nothing is drawn, so that workers and one machine differ by the rounding of sums only. Of 90 users, the last batch of
# an epoch has one, so that one worker has none.
QUIET = {"model": "mult-dae", "dropout": 0.0, "latent_dim": 4, "batch_size": 89, "epochs": 6}
NOISY = {"model": "mult-vae", "hidden": [8], "latent_dim": 4, "batch_size": 30, "epochs": 30}


def start(n: int, index: int, ports: list[int], *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    if n > 1:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def together(n: int, *arguments: object) -> list[subprocess.Popen]:
    ports = free_ports(n)
    return [start(n, index, ports, *arguments) for index in range(n)]


def wait_for(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors[-3000:]


def weights(folder: Path) -> list[np.ndarray]:
    return [variable.numpy() for variable in load_run(folder).model.variables]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Expecting property name"),
        ("[]", "Input should be"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "task"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "ps"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}', "evaluator"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "this is worker 2"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}', "-1"),
    ],
)
def test_a_wrong_cluster_is_refused_before_anything_is_waited_for(monkeypatch, text, told):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: expected the workers") as error:
        join()
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'])
def test_one_worker_is_none(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert join() is None


def test_joining_too_late_is_refused(monkeypatch):
    tf.constant(1.0)
    ports = free_ports(2)
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(InputError, match="before TensorFlow computes"):
        join()


@pytest.mark.parametrize("n", [2, 3])
def test_each_row_and_each_number_of_a_batch_has_one_worker(n):
    rng = np.random.default_rng(0)
    train = csr_array((rng.random((11, 7)) < 0.4).astype(np.float32))
    kind = model_class("mult-dae")
    together = [Workers(tf.distribute.get_strategy(), index, n) for index in range(n)]
    dense = np.zeros(train.shape)
    for worker in together:
        model = kind(7, latent_dim=2)
        model.attach(train)
        worker.keep_own_rows(model, train)
        batch = model.histories.gather(tf.range(11, dtype=tf.int64))
        assert model.histories.n_rows == 11
        assert set(batch.segment_ids.numpy() % n) <= {worker.index}
        np.add.at(dense, (batch.segment_ids.numpy(), batch.items.numpy()), 1)
    np.testing.assert_array_equal(dense, train.toarray())
    numbers = row_numbers(11, 4, seed=5, first_epoch=1)
    shares = [iter(worker.batches(model.histories, numbers)) for worker in together]
    for whole in numbers.take(6):
        parts = [next(share).numpy() for share in shares]
        assert sorted(np.concatenate(parts)) == sorted(whole.numpy())
        assert all((part % n == index).all() for index, part in enumerate(parts))


def test_a_model_in_closed_form_is_refused(tiny_split, tmp_path):
    workers = Workers(tf.distribute.get_strategy(), 1, 2)
    with pytest.raises(InputError, match="ease is not trained by gradient"):
        workers.train(settings_of("ease", {}), tiny_split, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [["--model", "ease"], ["--from", "run"]])
def test_a_command_for_one_machine_is_refused_before_the_workers_are_joined(options, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    monkeypatch.setattr("tfvae.training.workers.join", lambda: pytest.fail("joined"))
    result = CliRunner().invoke(app, ["fit", "movietweetings", *options])
    assert result.exit_code == 2 and "unset TF_CONFIG" in result.output


@pytest.mark.long
def test_two_workers_are_one_machine(tiny_split, tmp_path):
    tiny_split.save(tmp_path / "split.npz")
    wait_for(together(1, tmp_path / "split.npz", tmp_path / "one", QUIET))
    wait_for(together(2, tmp_path / "split.npz", tmp_path / "two", QUIET))
    for one, two in zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_workers_of_whom_one_was_killed_go_on_to_the_same_weights(tiny_split, tmp_path):
    tiny_split.save(tmp_path / "split.npz")
    wait_for(together(2, tmp_path / "split.npz", tmp_path / "whole", NOISY))
    workers = together(2, tmp_path / "split.npz", tmp_path / "killed", NOISY)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed").glob("state-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers[1].send_signal(signal.SIGKILL)
    workers[1].wait()
    _, errors = workers[0].communicate(timeout=300)
    assert workers[0].returncode != 0 and "start all of them again" in errors, errors[-3000:]
    wait_for(together(2, tmp_path / "split.npz", tmp_path / "killed", NOISY))
    for one, two in zip(weights(tmp_path / "whole"), weights(tmp_path / "killed"), strict=True):
        np.testing.assert_array_equal(two, one)


def test_the_manifest_names_the_workers_that_the_job_starts(monkeypatch):
    service, job = yaml.safe_load_all((ROOT / "examples/kubernetes/train.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"]
    script = pod["containers"][0]["args"][0].replace("exec tfvae fit", "printenv TF_CONFIG #")
    found = subprocess.run(["sh", "-c", script], env={"JOB_COMPLETION_INDEX": "1"}, capture_output=True, text=True)
    config = json.loads(found.stdout)
    assert len(config["cluster"]["worker"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert config["task"] == {"type": "worker", "index": 1}
