"""The doctor: what is broken is found and named, with what to do."""

from __future__ import annotations

import pytest

from tfvae.cli import doctor


def broken(device: bool = False) -> dict[str, str]:
    return {what: advice for what, _, advice in doctor.examine(device) if advice}


def versions(monkeypatch, **changed: str | None) -> None:
    found = {package: doctor._version(package) for package in doctor.PACKAGES}
    found |= {package.replace("_", "-"): version for package, version in changed.items()}
    monkeypatch.setattr(doctor, "_version", found.get)


def test_this_environment_is_whole():
    assert broken(device=True) == {}


@pytest.mark.parametrize(
    ("package", "version", "advice"),
    [
        ("tf_keras", "2.18.0", "pip install 'tf-keras=="),
        ("tf_keras", None, "pip install tf-keras"),
        ("tensorboard", None, "pip install tensorboard"),
        ("keras", "2.15.0", "Keras 3"),
        ("tensorflow", "2.16.1", "2.20 and 2.21"),
        ("tensorflow_probability", "0.24.0", "0.25"),
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


def test_a_data_folder_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TFVAE_DATA", str(tmp_path / "absent"))
    assert "no such folder" in broken()["data: ml-1m"]
