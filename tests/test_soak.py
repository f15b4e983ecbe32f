"""The soak itself: it sees a reader that dies or hangs, and an end that differs in one weight."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from soak_runs import end_of  # noqa: E402

FAULTY = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import soak

def outcome_of(name, seed, folder):
    if seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 5:
        time.sleep(60)
    if seed == 7:
        raise soak.Fault("accepted what is none")
    return "refused"

soak.outcome_of = outcome_of
done, faults = {"inputs": 0, "seconds": 0.0, **dict.fromkeys(soak.OUTCOMES, 0)}, []
soak._soak("table", 9, done, faults, limit=1.0)
print(done["inputs"], *(done[outcome] for outcome in soak.OUTCOMES), *faults, sep="|")
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_reader_that_dies_hangs_or_takes_anything_is_counted():
    call = [sys.executable, "-c", FAULTY, str(BENCHMARKS)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    inputs, _, _, faults, killed, hung, *told = done.stdout.strip().split("|")
    assert (inputs, faults, killed, hung) == ("9", "1", "1", "1")
    assert told[0].startswith("table, seed 3: killed by a signal")
    assert told[1].startswith("table, seed 5: hung")
    assert told[2] == "accepted what is none"


def write_end(folder: Path, weight: float = 0.5, seconds: float = 1.0, mean: float = 0.25) -> dict[str, str]:
    """A folder like that of a finished run, and what `end_of` says of it."""
    folder.mkdir()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("encoder").create_dataset("0", data=np.float32([weight, 1]))
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", json.dumps({"date_saved": seconds}))
        archive.writestr("model.weights.h5", buffer.getvalue())
    np.savez(folder / "values.npz", ndcg=np.full(3, mean))
    (folder / "run.json").write_text(json.dumps({"history": [{"loss": mean, "seconds": seconds}]}))
    return end_of(folder)


def test_ends_differ_by_one_weight_one_figure_or_one_file_but_not_by_the_clock(tmp_path):
    end = write_end(tmp_path / "a")
    assert len(end) == 3
    assert write_end(tmp_path / "b", seconds=2.0) == end
    other = write_end(tmp_path / "c", weight=np.nextafter(np.float32(0.5), np.float32(1)))
    assert {name for name in end if end[name] != other[name]} == {"model.keras"}
    other = write_end(tmp_path / "d", mean=0.25 + 2**-50)
    assert {name for name in end if end[name] != other[name]} == {"run.json", "values.npz"}
    (tmp_path / "b" / ".draft-1").mkdir()
    assert set(end_of(tmp_path / "b")) - set(end) == {".draft-1"}
