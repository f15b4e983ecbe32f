"""`tfvae doctor`: whether this machine can run tfvae, by versions, known conflicts, memory, disk and data sets."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tfvae.cli.display import show_table
from tfvae.cli.json_output import AsJson, answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from tfvae.training.step_times import StepTime

__all__ = ["Finding", "doctor", "examine"]

TENSORFLOWS_MINOR = ("tensorboard", "tf-keras")  # must have TensorFlow's minor version, which no range can express
LEAST_MEMORY = LEAST_DISK = 2.0  # GB; training on ML-20M needs about as much
FEWER = 4  # times fewer items, with which a step is timed where there is less memory


class Finding(NamedTuple):
    """One line of the output of `tfvae doctor`.

    Attributes:
        what: What was examined.
        found: What was found.
        broken: What is wrong or what to do about it; empty if all is well.
    """

    what: str
    found: str
    broken: str = ""


def examine(device: bool = False) -> list[Finding]:
    """Examines this machine.

    Args:
        device: Whether to load TensorFlow and look for accelerators as well, which takes some seconds.

    Returns:
        The findings, those about versions first.
    """
    findings = [*_versions(), *_variables(), *_machine()]
    if device:
        findings += _devices()
    return [*findings, *_data()]


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        project = distribution("tfvae")
    except PackageNotFoundError:
        yield Finding("tfvae", "not installed", "pip install tfvae, or pip install -e . in its source")
        return
    supported = SpecifierSet(project.metadata["Requires-Python"])
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", python, "" if supported.contains(python) else f"tfvae needs Python {supported}")
    tensorflow = _version("tensorflow")
    for requirement in map(Requirement, project.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _version(requirement.name)
            yield Finding(requirement.name, found or "missing", _misfit(requirement, found, tensorflow))
    if _version("tensorflow-cpu"):
        yield Finding(
            "tensorflow-cpu",
            "installed beside tensorflow",
            "both write the same folder: uninstall the two, then install tensorflow",
        )


def _misfit(needed: Requirement, found: str | None, tensorflow: str | None) -> str:
    """What to do about an installed version; empty if it meets the requirement."""
    if found is None or not needed.specifier.contains(found, prereleases=True):
        return f"pip install '{needed.name}{needed.specifier}'"
    if needed.name in TENSORFLOWS_MINOR and tensorflow and _minor(found) != _minor(tensorflow):
        return f"must have TensorFlow's minor version: pip install '{needed.name}=={_minor(tensorflow)}.*'"
    return ""


def _variables() -> Iterator[Finding]:
    legacy, backend = os.environ.get("TF_USE_LEGACY_KERAS"), os.environ.get("KERAS_BACKEND")
    if legacy not in (None, "", "0", "false", "False"):
        yield Finding("TF_USE_LEGACY_KERAS", legacy, "it turns Keras 3 into Keras 2: unset it")
    if backend not in (None, "", "tensorflow"):
        yield Finding("KERAS_BACKEND", backend, "tfvae needs tensorflow: unset it")


def _machine() -> Iterator[Finding]:
    import psutil

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
        system = importlib.import_module("tfvae.system.environment")
        yield Finding("device", str(system.environment()["device"]))
        yield Finding("device memory", f"{system.device_memory():,.1f} GB")
    except Exception as problem:  # any error that keeps TensorFlow from loading is a finding
        yield Finding("device", "TensorFlow does not load", f"{type(problem).__name__}: {problem}")


def _data() -> Iterator[Finding]:
    from tfvae.data.datasets import DATASETS
    from tfvae.data.open_split import whereabouts

    for name in DATASETS:
        try:
            yield Finding(f"data: {name}", whereabouts(name) or "not here")
        except InputError as problem:
            yield Finding(f"data: {name}", "unreadable", str(problem))


def _time_steps(findings: list[Finding]) -> list[StepTime]:
    """Times a training step in each precision, and adds what it finds to the findings."""
    import tensorflow as tf

    from tfvae.system.environment import device_memory
    from tfvae.training.step_times import ITEMS, PRECISIONS, step_time

    n_items, steps = ITEMS if device_memory() >= LEAST_MEMORY else ITEMS // FEWER, []
    for precision in PRECISIONS:
        what = f"a step, {precision}"
        try:
            step = step_time(precision, n_items)
        except tf.errors.ResourceExhaustedError:
            findings.append(Finding(what, "out of memory", "end other programs that use the device"))
            continue
        product = f"{step.ratio:.2f} × a float32 product of as many operations ({step.product_seconds:.3g} s)"
        findings.append(Finding(what, f"{step.seconds:.3g} s, {product}; {step.tflops:.3g} TFLOP/s"))
        steps.append(step)
    return steps


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _minor(version: str) -> str:
    from packaging.version import Version

    return ".".join(map(str, Version(version).release[:2]))


def doctor(
    device: Annotated[
        bool, typer.Option("--device", help="Also load TensorFlow, name the device and time a training step on it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether this machine can run tfvae; the exit code is 1 if something is broken."""
    if device:
        typer.echo("Looking for devices, and timing a step of Mult-VAE at ML-20M's width: about 20 s")
    findings, steps = examine(device), []
    if device and not any(finding.what == "device" and finding.broken for finding in findings):
        steps = _time_steps(findings)
    lines = (("BROKEN" if broken else "ok", what, seen, broken) for what, seen, broken in findings)
    answer(
        {
            "findings": [finding._asdict() for finding in findings],
            "steps": [step._asdict() | {"ratio": step.ratio, "tflops": step.tflops} for step in steps],
        },
        lambda: show_table(("", "what", "found", "what to do"), lines),
    )
    raise typer.Exit(int(any(finding.broken for finding in findings)))
