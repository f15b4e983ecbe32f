"""Looks whether this machine can run tfvae: versions, known incompatibilities, memory, disk, data sets."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

from tfvae.cli.display import show_table
from tfvae.data.datasets import DATASETS
from tfvae.data.open_split import whereabouts
from tfvae.system.errors import InputError

__all__ = ["Finding", "doctor", "examine"]

PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-probability",
    "tf-keras",
    "tensorboard",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "optuna",
)
LEAST_MEMORY = LEAST_DISK = 2.0  # GB; training on ML-20M needs about as much


class Finding(NamedTuple):
    """One line of the doctor's.

    Attributes:
        what: Was looked at.
        found: What was found.
        broken: What to do about it; empty when all is well.
    """

    what: str
    found: str
    broken: str = ""


def examine(device: bool = False) -> list[Finding]:
    """Looks at this machine.

    Args:
        device: Whether to load TensorFlow and look for accelerators as well, which takes some seconds.

    Returns:
        The findings, those of versions first.
    """
    findings = [*_versions(), *_variables(), *_machine()]
    if device:
        findings += _devices()
    return [*findings, *_data()]


def _versions() -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("Python", platform.python_version(), "" if supported else "tfvae needs 3.11, 3.12 or 3.13")
    installed = {package: _version(package) for package in PACKAGES}
    for package, found in installed.items():
        advice = _misfit(package, found, installed["tensorflow"]) if found else f"pip install {package}"
        yield Finding(package, found or "missing", advice)
    if _version("tensorflow-cpu"):
        yield Finding(
            "tensorflow-cpu",
            "installed beside tensorflow",
            "both write the same folder: uninstall the two, then install tensorflow",
        )


def _misfit(package: str, found: str, tensorflow: str | None) -> str:
    """What is wrong with an installed version."""
    minor = _minor(found)
    match package:
        case "tf-keras" | "tensorboard" if tensorflow and minor != _minor(tensorflow):
            return f"must have TensorFlow's minor version: pip install '{package}=={_minor(tensorflow)}.*'"
        case "tensorflow" if minor not in ("2.20", "2.21"):
            return "tfvae is tested with 2.20 and 2.21"
        case "keras" if not found.startswith("3."):
            return "tfvae needs Keras 3: pip install 'keras>=3.12,<4'"
        case "tensorflow-probability" if minor != "0.25":
            return "tfvae needs 0.25: pip install 'tensorflow-probability==0.25.*'"
    return ""


def _variables() -> Iterator[Finding]:
    legacy, backend = os.environ.get("TF_USE_LEGACY_KERAS"), os.environ.get("KERAS_BACKEND")
    if legacy not in (None, "", "0", "false", "False"):
        yield Finding("TF_USE_LEGACY_KERAS", legacy, "it turns Keras 3 into Keras 2: unset it")
    if backend not in (None, "", "tensorflow"):
        yield Finding("KERAS_BACKEND", backend, "tfvae needs tensorflow: unset it")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", str(cores))
    for what, free, least in (
        ("free memory", psutil.virtual_memory().available / 1e9, LEAST_MEMORY),
        ("free disk here", shutil.disk_usage(Path.cwd()).free / 1e9, LEAST_DISK),
    ):
        advice = "" if free >= least else f"{least:g} GB are needed for the larger data sets"
        yield Finding(what, f"{free:,.1f} GB", advice)


def _devices() -> Iterator[Finding]:
    try:
        importlib.import_module("tensorflow_probability")
        yield Finding("device", str(importlib.import_module("tfvae.system.environment").environment()["device"]))
    except Exception as problem:  # whatever keeps TensorFlow from loading is the finding
        yield Finding("device", "TensorFlow does not load", f"{type(problem).__name__}: {problem}")


def _data() -> Iterator[Finding]:
    for name in DATASETS:
        try:
            yield Finding(f"data: {name}", whereabouts(name) or "not here")
        except InputError as problem:
            yield Finding(f"data: {name}", "unreadable", str(problem))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _minor(found: str) -> str:
    return ".".join(found.split(".")[:2])


def doctor(
    device: Annotated[bool, typer.Option("--device", help="Also load TensorFlow and name the device.")] = False,
) -> None:
    """Look whether this machine can run tfvae; the exit code is 1 if something is broken."""
    findings = examine(device)
    lines = (("BROKEN" if broken else "ok", what, seen, broken) for what, seen, broken in findings)
    show_table(("", "what", "found", "what to do"), lines)
    raise typer.Exit(int(any(finding.broken for finding in findings)))
