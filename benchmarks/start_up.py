"""Times commands that should answer at once against the import of TensorFlow alone; the method is in README.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from report import HERE, Target, judge, spread, store

TENSORFLOW = "import tensorflow"
WHOLE = {  # what is waited for to its end
    TENSORFLOW: ["-c", "import tensorflow"],
    "--help": ["-m", "tfvae", "--help"],
    "fit --help": ["-m", "tfvae", "fit", "--help"],
    "datasets": ["-m", "tfvae", "datasets"],
    "recommend, EASE": ["-m", "tfvae", "recommend", "ease", "--like", "gravity"],
    "recommend, Mult-VAE": ["-m", "tfvae", "recommend", "mult-vae", "--like", "gravity"],
    "recommend, an export": ["-m", "tfvae", "recommend", "litert", "--like", "gravity"],
    "recommend --again, EASE": ["-m", "tfvae", "recommend", "ease", "--like", "gravity", "--again"],
    "recommend --again, Mult-VAE": ["-m", "tfvae", "recommend", "mult-vae", "--like", "gravity", "--again"],
}
FIRST_LINE = {"fit's first line": ["-m", "tfvae", "fit", "movietweetings", "--run", "unused"]}
BOUNDS = {
    "--help": 0.1,
    "fit --help": 0.15,
    "datasets": 0.5,
    "recommend, EASE": 0.3,
    "recommend, Mult-VAE": 0.3,
    "recommend, an export": 0.3,
    "recommend --again, EASE": 1.25,  # by a rule, for which TensorFlow is loaded
    "recommend --again, Mult-VAE": 1.5,
    "fit's first line": 0.15,
}
TARGETS = [
    Target(
        f"CPU, {name} / {TENSORFLOW}",
        bound,
        False,
        lambda runs, name=name: runs[name]["CPU, s"] / runs[TENSORFLOW]["CPU, s"],
    )
    for name, bound in BOUNDS.items()
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    arguments = parser.parse_args()
    load, rounds = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        for model, options in (("ease", ()), ("mult-vae", ("--epochs", "1"))):
            command = ["-m", "tfvae", "fit", "movietweetings", "--model", model, "--run", model, *options]
            subprocess.run([sys.executable, *command], cwd=folder, env=_environment(), check=True, capture_output=True)
        command = ["-m", "tfvae", "export", "mult-vae", "litert", "--format", "litert"]
        subprocess.run([sys.executable, *command], cwd=folder, env=_environment(), check=True, capture_output=True)
        _whole(WHOLE[TENSORFLOW], folder)  # so that the first round, too, finds all files in memory
        for number in range(1, arguments.rounds + 1):
            runs = {name: _whole(command, folder) for name, command in WHOLE.items()}
            runs |= {name: _first_line(command, folder) for name, command in FIRST_LINE.items()}
            for name, figures in runs.items():
                print(f"round {number}, {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
            rounds.append(runs)
    contestants = {
        name: {figure: spread(runs[name][figure] for runs in rounds) for figure in rounds[0][name]}
        for name in (*WHOLE, *FIRST_LINE)
    }
    setup = {"data": "movietweetings", "rounds": arguments.rounds, "load average at the start": load}
    content = {"setup": setup, "contestants": contestants, "targets": judge(TARGETS, rounds), "notes": []}
    for row in content["targets"]:
        print(f"{row['name']}: {row['median']:.3f} ({row['min']:.3f} to {row['max']:.3f})")
    store(arguments.results, "start_up", {**content, "rounds": rounds})
    print(f"written to {arguments.results}")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": "-1"}


def _started(command: list[str], folder: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _whole(command: list[str], folder: str) -> dict[str, float]:
    """Seconds that a command takes, and those that the processors worked for it."""
    begun = time.perf_counter()
    with _started(command, folder) as process:
        assert process.stdout is not None
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with status {process.returncode}.")
    return {"wall, s": time.perf_counter() - begun, "CPU, s": used.ru_utime + used.ru_stime}


def _first_line(command: list[str], folder: str) -> dict[str, float]:
    """The same up to the first line that a command prints; it is ended then."""
    begun = time.perf_counter()
    with _started(command, folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds, used = time.perf_counter() - begun, psutil.Process(process.pid).cpu_times()
        process.kill()
    return {"wall, s": seconds, "CPU, s": used.user + used.system}


if __name__ == "__main__":
    main()
