"""Times rankings written for everybody against evaluation of the same model and users; the method is in README.md."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from common import forget_peak, peak_gb  # noqa: E402
from evaluation import EVENTS_A_USER, METRICS, prepare  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402

from tfvae.data.histories import Histories  # noqa: E402
from tfvae.data.items import Items  # noqa: E402
from tfvae.data.splits import HeldOutUsers  # noqa: E402
from tfvae.evaluation.users import UserEvaluator  # noqa: E402
from tfvae.serving.everybody import recommend_to_all  # noqa: E402

K = 50
EVALUATION = "evaluation"
FORMATS = ("parquet", "csv", "jsonl")
TARGETS = [
    Target(
        f"users/s, {name} / evaluation",
        0.8,
        True,
        lambda runs, name=name: runs[name]["users/s"] / runs[EVALUATION]["users/s"],
    )
    for name in FORMATS
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=500, help="users scored at once, in both")
    parser.add_argument("--train-steps", type=int, default=40, help="updates of the model before it ranks")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    for private in ("--way", "--folder", "--out"):  # how the script calls itself
        parser.add_argument(private, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        figures = _contestant(arguments.way, Path(arguments.folder), arguments.batch_size)
        Path(arguments.out).write_text(json.dumps(figures), encoding="utf-8")
        return
    load, rounds = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments)
        for number in range(1, arguments.rounds + 1):
            runs = {}
            for way in (EVALUATION, *FORMATS):
                options = ["--way", way, "--folder", folder, "--batch-size", arguments.batch_size]
                runs[way] = run_script("recommend_all.py", *options)
                print(f"round {number}, {way}: " + ", ".join(f"{k} {v:.4g}" for k, v in runs[way].items()))
            rounds.append(runs)
    setup = {
        "users": arguments.users,
        "items": arguments.items,
        "interactions": arguments.users * EVENTS_A_USER,
        "k": K,
        "batch": arguments.batch_size,
        "rounds": arguments.rounds,
        "load average at the start": load,
    }
    contestants = {
        way: {figure: spread(runs[way][figure] for runs in rounds) for figure in rounds[0][way]}
        for way in (EVALUATION, *FORMATS)
    }
    content = {"setup": setup, "contestants": contestants, "targets": judge(TARGETS, rounds), "notes": []}
    for row in content["targets"]:
        print(f"{row['name']}: {row['median']:.3f} ({row['min']:.3f} to {row['max']:.3f})")
    store(arguments.results, "recommend_all", {**content, "rounds": rounds})
    print(f"written to {arguments.results}")


def _contestant(way: str, folder: Path, batch_size: int) -> dict[str, float]:
    """Ranks for everybody in this process, once to warm up and once by the clock."""
    model = keras.models.load_model(folder / "model.keras")
    forget_peak()  # loading takes more memory than ranking
    fold_in, targets = (sp.load_npz(folder / f"{name}.npz") for name in ("fold_in", "targets"))
    n_users, n_items = fold_in.shape
    if way == EVALUATION:
        evaluator = UserEvaluator(model, HeldOutUsers(fold_in, targets, np.arange(n_users)), list(METRICS), batch_size)
        evaluator()
        begun = time.perf_counter()
        evaluator()
        seconds = time.perf_counter() - begun
        return {"users/s": n_users / seconds, "seconds": seconds, "peak memory, GB": peak_gb()}
    texts = np.array([f"item {number:06}" for number in range(n_items)])
    items = Items(texts, np.char.add("The title of ", texts), None, np.ones(n_items, np.int64))

    def ranked(rows: sp.csr_array) -> float:
        users = pa.array([f"user {number:07}" for number in range(rows.shape[0])])
        histories = Histories(users, rows, None, False, rows.nnz, 0, texts[:0])
        begun = time.perf_counter()
        recommend_to_all(model, items, histories, folder / f"top.{way}", K, batch_size=batch_size, progress=False)
        return time.perf_counter() - begun

    # Each call traces its graph, also within the clock, since that is what a user waits for.
    ranked(fold_in[:batch_size])
    seconds = ranked(fold_in)
    return {
        "users/s": n_users / seconds,
        "seconds": seconds,
        "file, MB": (folder / f"top.{way}").stat().st_size / 1e6,
        "peak memory, GB": peak_gb(),
    }


if __name__ == "__main__":
    main()
