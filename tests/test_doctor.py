"""The doctor: what is broken is found and named, with what to do."""

from __future__ import annotations

import pytest

from tfvae.cli import doctor


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
