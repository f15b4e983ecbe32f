"""The environment of a run: versions, platform, device and commit, which are stored with every run."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "device_memory", "environment"]

PACKAGES = ("tfvae", "tensorflow", "keras", "tensorflow-probability", "numpy", "scipy", "implicit")


@cache
def environment() -> dict[str, str | int | None | dict[str, str]]:
    """Versions, platform, device and number of cores of this process; loads TensorFlow."""
    return {
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


@cache
def commit() -> str | None:
    """The commit of the code in use, with "+changes" if the package has uncommitted ones; None outside a checkout."""
    package = Path(__file__).parents[1]
    if _git(package, "ls-files", "__init__.py") is None:
        return None
    head = _git(package, "rev-parse", "HEAD")
    return head and head + ("+changes" if _git(package, "status", "--porcelain", ".") else "")


def device_memory() -> float:
    """The memory that TensorFlow may take of the first GPU, or else the host's that is free, in GB (10⁹ bytes)."""
    import psutil
    from tensorflow.python.client import device_lib  # the public interface tells what is in use only

    limits = [device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"]
    return (limits[0] if limits else psutil.virtual_memory().available) / 1e9


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None if it is empty, the command fails or git is not installed."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    import tensorflow as tf

    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if names:
        return f"{len(names)} × {names[0]}"
    return _processor()


def _processor() -> str:
    """The processor's name; Linux has it only in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "CPU"
