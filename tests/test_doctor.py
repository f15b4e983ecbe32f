"""The doctor: what is broken is found and named, with what to do."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import tensorflow as tf
from packaging.requirements import Requirement
from typer.testing import CliRunner

from tfvae.cli import doctor
from tfvae.cli.app import app
from tfvae.system import environment
from tfvae.training import step_times
from tfvae.training.step_times import ITEMS, StepTime


def broken(device: bool = False) -> dict[str, str]:
    return {what: advice for what, _, advice in doctor.examine(device) if advice}


def versions(monkeypatch, **changed: str | None) -> None:
    given, found = {package.replace("_", "-"): version for package, version in changed.items()}, doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: given[package] if package in given else found(package))


def test_this_environment_is_whole():
    assert broken(device=True) == {}


@pytest.mark.parametrize(
    ("package", "version", "advice"),
    [
        ("tf_keras", "2.20.1", "TensorFlow's minor version: pip install 'tf-keras==2.21.*'"),
        ("tensorboard", None, "pip install 'tensorboard<2.22,>=2.20'"),
        ("keras", "2.15.0", "pip install 'keras<4,>=3.12'"),
        ("tensorflow", "2.16.1", "pip install 'tensorflow<2.22,>=2.20'"),
        ("tensorflow_probability", "0.24.0", "pip install 'tensorflow-probability==0.25.*'"),
        ("scikit_learn", "2.0", "pip install 'scikit-learn<2,>=1.6'"),
        ("tensorflow_cpu", "2.21.0", "uninstall the two"),
    ],
)
def test_a_version_that_does_not_fit_is_named(monkeypatch, package, version, advice):
    versions(monkeypatch, **{package: version})
    assert advice in broken()[package.replace("_", "-")]


@pytest.mark.parametrize(("variable", "value"), [("TF_USE_LEGACY_KERAS", "1"), ("KERAS_BACKEND", "torch")])
def test_a_variable_that_changes_keras_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert "unset it" in broken()[variable]


@pytest.mark.parametrize(("version", "fits"), [((3, 10, 9), False), ((3, 12, 1), True), ((3, 14, 0), False)])
def test_python_is_looked_at(monkeypatch, version, fits):
    monkeypatch.setattr(doctor.sys, "version_info", version)
    assert ("Python" in broken()) is not fits


def test_tfvae_itself_is_looked_for(monkeypatch):
    def absent(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "distribution", absent)
    assert "pip install" in broken()["tfvae"]


def test_a_data_folder_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TFVAE_DATA", str(tmp_path / "absent"))
    assert "no such folder" in broken()["data: ml-1m"]


def test_the_extra_for_gpus_takes_the_same_tensorflow():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (of_gpu,) = map(Requirement, project["optional-dependencies"]["gpu"])
    (plain,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "tensorflow")
    assert (of_gpu.name, of_gpu.specifier, of_gpu.extras) == (plain.name, plain.specifier, {"and-cuda"})
    assert of_gpu.marker.evaluate({"sys_platform": "linux"}) and not of_gpu.marker.evaluate({"sys_platform": "darwin"})


@pytest.mark.parametrize(("memory", "n_items"), [(24.0, ITEMS), (1.5, ITEMS // 4)])
def test_a_step_is_timed_with_as_many_items_as_memory_is_for(monkeypatch, memory, n_items):
    def timed(precision, items):
        if precision != "float32":
            raise tf.errors.ResourceExhaustedError(None, None, "no memory")
        return StepTime(precision, items, 500, 0.3, 0.2, 30 * 10**9)

    monkeypatch.setattr(environment, "device_memory", lambda: memory)
    monkeypatch.setattr(step_times, "step_time", timed)
    told = CliRunner().invoke(app, ["doctor", "--device", "--json"])
    document = json.loads(told.stdout)
    (step,) = document["steps"]
    assert step["n_items"] == n_items and step["ratio"] == pytest.approx(1.5) and step["tflops"] == pytest.approx(0.1)
    found = {one["what"]: one for one in document["findings"]}
    assert found["a step, float32"]["found"].startswith("0.3 s, 1.50 × a float32 product")
    assert "memory" in found["a step, mixed_bfloat16"]["found"] and found["a step, mixed_bfloat16"]["broken"]
    assert told.exit_code == 1


def test_without_the_option_no_step_is_timed(monkeypatch):
    monkeypatch.setattr(step_times, "step_time", lambda *_: pytest.fail("timed"))
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["steps"] == []
