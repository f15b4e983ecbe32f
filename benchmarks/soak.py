"""Gives every reader of files damaged files by the million, and counts what comes of it; see README.md.

Each file is made from its number, so that a fault can be made again: `outcome_of(reader, seed, folder)` of the tests'
`readers.py`. The readers run in a process of their own. One that dies of a signal or takes longer than the limit is
counted and begun anew with the next file. What is done is kept in `runs/soak`, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from readers import READERS, Fault, outcome_of  # noqa: E402
from report import store  # noqa: E402

from tfvae.system.environment import commit  # noqa: E402
from tfvae.system.files import write_json  # noqa: E402

OUTCOMES = ("read", "refused", "faults", "killed by a signal", "hung")
SHOWN = 20  # faults of a reader that are kept word for word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="damaged files for a reader of cost 1")
    parser.add_argument("--readers", nargs="*", choices=list(READERS), default=list(READERS), metavar="READER")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; the rest stays open")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a reader counts as hung")
    parser.add_argument("--state", type=Path, default=Path("runs/soak/readers.json"), help="what is done so far")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    arguments = parser.parse_args()
    state = _begun(arguments.state)
    deadline = time.monotonic() + 60 * arguments.minutes
    # All readers come equally far, whenever this is stopped.
    step = max(1, min(5_000, arguments.inputs))
    for stop in range(step, arguments.inputs + step, step):
        for name in arguments.readers:
            if time.monotonic() > deadline:
                break
            done = state["readers"].setdefault(name, {"inputs": 0, "seconds": 0.0, **dict.fromkeys(OUTCOMES, 0)})
            last = max(1, min(stop, arguments.inputs) // READERS[name].cost)
            if done["inputs"] < last:
                _soak(name, last, done, state["faults"].setdefault(name, []), arguments.limit)
                write_json(arguments.state, state)
                print(f"{name}: " + ", ".join(f"{value:,.0f} {key}" for key, value in done.items()), flush=True)
    _store(arguments.results, state, arguments)


def _begun(path: Path) -> dict:
    """What an earlier call of the same commit has done."""
    state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if state.get("commit") != commit():
        state = {"commit": commit(), "readers": {}, "faults": {}}
    return state


def _soak(name: str, stop: int, done: dict, faults: list[str], limit: float) -> None:
    """Gives a reader its files up to a number; `done` and `faults` are brought up to date."""
    context = multiprocessing.get_context("fork")  # a new process has TensorFlow at once
    with tempfile.TemporaryDirectory(prefix="tfvae-soak-") as folder:
        while done["inputs"] < stop:
            at = context.Value("q", done["inputs"])
            answer, far_end = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, done["inputs"], stop, Path(folder), at, far_end))
            begun, seen, since = time.monotonic(), at.value, time.monotonic()
            process.start()
            far_end.close()
            counts: Counter = Counter()
            hung = False
            while process.is_alive() or answer.poll():
                if answer.poll(0.2):
                    try:
                        outcome, text = answer.recv()
                    except EOFError:
                        break
                    counts.update(outcome)
                    faults += text[: max(0, SHOWN - len(faults))]
                if at.value != seen:
                    seen, since = at.value, time.monotonic()
                elif time.monotonic() - since > limit and process.is_alive():
                    hung = True
                    process.kill()
                    break
            process.join()
            done["seconds"] += round(time.monotonic() - begun, 1)
            reached = at.value
            if reached < stop:  # it did not come to the end
                died = (process.exitcode or 0) < 0
                outcome = "hung" if hung else "killed by a signal" if died else "faults"  # of the mutator, if at all
                counts[outcome] += 1
                faults += [f"{name}, seed {reached}: {outcome} ({process.exitcode})"][: max(0, SHOWN - len(faults))]
                reached += 1
            for outcome in OUTCOMES:
                done[outcome] += counts[outcome]
            done["inputs"] = reached


def _work(name: str, first: int, stop: int, folder: Path, at, answer) -> None:
    """Reads files and sends the counts of outcomes, with the words of the faults, after each."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    counts: Counter = Counter()
    faults: list[str] = []
    for seed in range(first, stop):
        at.value = seed
        try:
            counts[outcome_of(name, seed, folder)] += 1
        except Fault as problem:
            counts["faults"] += 1
            faults.append(str(problem)[:500])
        if faults or seed % 100 == 99 or seed == stop - 1:
            answer.send((counts, faults))
            counts, faults = Counter(), []
    at.value = stop
    answer.close()


def _store(folder: Path, state: dict, arguments: argparse.Namespace) -> None:
    readers = state["readers"]
    asked = {
        "damaged files asked for, for each reader": arguments.inputs,
        "as many times fewer for": ", ".join(
            f"{name} ({READERS[name].cost})" for name in readers if READERS[name].cost > 1
        ),
        "seconds until one counts as hung": arguments.limit,
    }
    total = {key: sum(done[key] for done in readers.values()) for key in ("inputs", "seconds", *OUTCOMES)}
    notes = [
        "A damaged file is read or refused by an error of ours that names it. A fault is any other exception, or "
        "something accepted that is not what the file says. Of a process that died, up to 99 files before the last "
        "are counted as inputs but not as read or refused.",
        *(f"`{fault[:300]}`" for faults in state["faults"].values() for fault in faults),
    ]
    content = {"setup": asked, "contestants": {**readers, "all": total}, "targets": [], "notes": notes}
    store(folder, "soak", content)
    print(f"written to {folder}: {total}")


if __name__ == "__main__":
    main()
