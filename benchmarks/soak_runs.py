"""Kills commands at random moments, and fills their disk, and compares how they end; see README.md.

The data are small and generated. After each kill the same command is given again. In the end weights and figures must
be those of an undisturbed run, bit by bit, and no file may lie there that the undisturbed run does not leave.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from report import HERE, store  # noqa: E402

from tfvae.data.synthetic import synthetic  # noqa: E402

DATA = "ratings.csv"
HELD_OUT = ["--held-out-users", "100"]
COMMANDS = {
    "fit, by gradient (mult-vae)": ["fit", DATA, "--model", "mult-vae", "--epochs", "30", "--run", "run", *HELD_OUT],
    "fit, of ratings (p-vae)": [
        "fit",
        DATA,
        "--model",
        "p-vae",
        "--rating-col",
        "rating",
        "--epochs",
        "8",
        "--run",
        "run",
    ],
    "fit, a matrix (slim)": ["fit", DATA, "--model", "slim", "--run", "run", *HELD_OUT],
    "sweep": [
        "sweep",
        "multvae-table2",
        "--row",
        "mult-dae",
        "--data",
        DATA,
        "--trials",
        "3",
        "--epochs",
        "6",
        *HELD_OUT,
    ],
    "table": ["table", "multvae-table2", "--data", DATA, "--rows", "popularity,mult-dae,ease", "--seeds", "1,2"]
    + ["--epochs", "6", *HELD_OUT],
}
KILLS_IN_A_ROW = 4
OF_THE_CLOCK = {"seconds", "peak_memory_gb", "date_saved", "files", "environment", "commit"}
LONGEST = 300.0  # seconds that a command may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each command")
    parser.add_argument("--full-disks", type=int, default=20, help="disks of each command that are too small")
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    arguments = parser.parse_args()
    rng, rows, notes = random.Random(arguments.seed), {}, []
    for name in arguments.only:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tfvae-soak-") as scratch:
            soak = _Soak(name, Path(scratch), rng)
            rows[name] = soak.kills(arguments.kills) | soak.full_disks(arguments.full_disks)
            notes += soak.faults
        rows[name]["seconds"] = round(time.monotonic() - begun)
        print(f"{name}: {rows[name]}", flush=True)
    setup = {"kills asked for": arguments.kills, "full disks asked for": arguments.full_disks, "seed": arguments.seed}
    told = [
        f"SIGKILL comes up to {KILLS_IN_A_ROW} times in a row before a command may end: one time in five at any "
        "moment, else after the first 40 % of its time, which are TensorFlow's start. A disk is a tmpfs of a random "
        "size between that of the data and that of all that the command writes; where none may be mounted, there are "
        "no full disks. Ends are equal if all weights, figures and arrays are, bit by bit, and no other files lie "
        "there; of pages and pictures only that they are there is compared, and of TensorBoard's files nothing."
    ]
    store(arguments.results, "soak_runs", {"setup": setup, "contestants": rows, "targets": [], "notes": told + notes})
    print(f"written to {arguments.results}")


class _Soak:
    """One command, its undisturbed end, and what differs from it."""

    def __init__(self, name: str, scratch: Path, rng: random.Random):
        self.name, self.command, self.rng, self.scratch = name, COMMANDS[name], rng, scratch
        self.faults: list[str] = []
        whole = self.folder("undisturbed")
        begun = time.monotonic()
        finished = self.run(whole)
        self.seconds = time.monotonic() - begun
        if finished.returncode:
            sys.exit(f"{name} does not end even undisturbed: {finished.stderr}")
        self.end, self.size = end_of(whole), _size(whole)

    def folder(self, name: str) -> Path:
        """A new folder with the data."""
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)
        _write_data(folder / DATA)
        return folder

    def run(self, folder: Path) -> subprocess.CompletedProcess:
        """Gives the command and waits for its end."""
        call = [sys.executable, "-m", "tfvae", *self.command]
        return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)

    def kills(self, n: int) -> dict[str, int]:
        """Kills it so often, and lets it end in between."""
        counts = {"kills": 0, "ends compared": 0, "ends not equal": 0}
        while counts["kills"] < n:
            folder = self.folder("killed")
            for _ in range(min(KILLS_IN_A_ROW, n - counts["kills"])):
                counts["kills"] += self._killed(folder)
            counts["ends compared"] += 1
            counts["ends not equal"] += self._differs(folder, "kills")
            shutil.rmtree(folder)
        return counts

    def _killed(self, folder: Path) -> bool:
        """Gives the command and kills it at a random moment; whether it still ran."""
        call = [sys.executable, "-m", "tfvae", *self.command]
        process = subprocess.Popen(
            call, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        early = self.rng.random() < 0.2
        try:
            process.wait(self.seconds * self.rng.uniform(0 if early else 0.4, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        return False

    def full_disks(self, n: int) -> dict[str, int]:
        """Gives it disks that are too small, then larger ones."""
        counts = {"disks": 0, "of them full": 0, "unclear errors": 0, "ends after a full disk not equal": 0}
        for _ in range(n):
            disk = self.scratch / "disk"
            disk.mkdir(exist_ok=True)
            least = _data_size() + 8192
            size = self.rng.randrange(least, max(least + 4096, round(1.1 * self.size)))
            if _mounted(disk, f"size={size}"):
                return counts
            try:
                folder = self.folder("disk")
                data = (folder / DATA).read_bytes()
                told = self.run(folder)
                counts["disks"] += 1
                if told.returncode:
                    counts["of them full"] += 1
                    if "Traceback" in told.stderr or "Error" not in told.stderr or "space" not in told.stderr:
                        counts["unclear errors"] += 1
                        self.faults.append(f"{self.name}, disk of {size} bytes: {told.stderr[-400:]!r}")
                    if (folder / DATA).read_bytes() != data:
                        self.faults.append(f"{self.name}, disk of {size} bytes: the data were changed")
                    _mounted(disk, "remount,size=1g")
                counts["ends after a full disk not equal"] += self._differs(folder, f"a disk of {size} bytes")
            finally:
                subprocess.run(["umount", str(disk)], check=True)
        return counts

    def _differs(self, folder: Path, after: str) -> bool:
        """Gives the command once more and compares its end with that of the undisturbed one."""
        told = self.run(folder)
        found = end_of(folder)
        names = sorted(name for name in {**found, **self.end} if found.get(name) != self.end.get(name))
        if told.returncode or names:
            self.faults.append(f"{self.name}, after {after}: {', '.join(names)} {told.stderr[-400:]!r}")
        return bool(told.returncode or names)


def end_of(folder: Path) -> dict[str, str]:
    """What a command left in a folder: for each file a digest of its content, but for times and dates."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "tfevents" in name:  # a resumed run writes on in another file, named after its time
            continue
        if path.is_file():
            found[name] = hashlib.sha256(_content(path)).hexdigest()
        elif not any(path.iterdir()):
            found[name] = "an empty folder"
    return found


def _content(path: Path) -> bytes:
    if path.suffix == ".json":
        return _json(path.read_bytes())
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return b"".join(_array(name, stored[name]) for name in sorted(stored.files))
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = [_json(archive.read(name)) for name in ("config.json", "metadata.json")]
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                arrays: list[bytes] = []
                weights.visititems(
                    lambda name, part: arrays.append(_array(name, part[()])) if hasattr(part, "dtype") else None
                )
        return b"".join(parts + sorted(arrays))
    if path.suffix in (".md", ".png"):  # with times of training
        return b""
    return path.read_bytes()


def _array(name: str, array: np.ndarray) -> bytes:
    return f"{name} {array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()


def _json(content: bytes) -> bytes:
    return json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in OF_THE_CLOCK}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _write_data(path: Path) -> None:
    if not path.exists():
        events = synthetic(1_200, 80, 24_000, n_tastes=4, taste=0.9)
        stars = np.random.default_rng(0).integers(1, 6, events.n_events)
        ids = events.user_ids[events.users], events.item_ids[events.items], stars
        path.write_text("user,item,rating\n" + "".join(f"{u},{i},{r}\n" for u, i, r in zip(*ids, strict=True)))


def _data_size() -> int:
    with tempfile.TemporaryDirectory() as folder:
        _write_data(Path(folder) / DATA)
        return _size(Path(folder))


def _size(folder: Path) -> int:
    """Bytes on a disk of pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def _mounted(disk: Path, options: str) -> int:
    """Mounts a tmpfs; the exit status, which is not 0 where that is not permitted."""
    call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    try:
        return subprocess.run(call, capture_output=True, check=False).returncode
    except FileNotFoundError:
        return 1


if __name__ == "__main__":
    main()
