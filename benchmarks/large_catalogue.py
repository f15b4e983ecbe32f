"""Times a step of Mult-DAE by the size of the catalogue, exact and with sampled items; the method is in README.md."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import forget_peak, peak_gb  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402
from scipy.sparse import csr_array  # noqa: E402

from tfvae.system.memory import keep_freed_buffers  # noqa: E402
from tfvae.training.loop import prepare_to_fit  # noqa: E402
from tfvae.training.settings import settings_of  # noqa: E402

WAYS = ("exact", "sampled")
ITEMS_OF_A_USER = 50
WARM_UP = 2


def targets(sizes: list[int]) -> list[Target]:
    """Exact against sampled at each size, and how the sampled step grows from the smallest to the largest."""
    found = [
        Target(
            f"step, exact / sampled, {size:,} items",
            None,
            True,
            lambda runs, size=size: (
                runs[f"exact, {size:,} items"]["step, s"] / runs[f"sampled, {size:,} items"]["step, s"]
            ),
        )
        for size in sizes
    ]
    growth = f"step, sampled, {sizes[-1]:,} / {sizes[0]:,} items"
    first, last = (f"sampled, {size:,} items" for size in (sizes[0], sizes[-1]))
    return [*found, Target(growth, 2.0, False, lambda runs: runs[last]["step, s"] / runs[first]["step, s"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 100_000, 1_000_000], help="sizes")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--latent-dim", type=int, default=200)
    parser.add_argument("--n-sampled", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10, help="steps timed, after two others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    for private in ("--way", "--out"):  # how the script calls itself
        parser.add_argument(private, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        Path(arguments.out).write_text(json.dumps(_contestant(arguments)), encoding="utf-8")
        return
    load, rounds = os.getloadavg()[0], []
    common = ("users", "batch-size", "latent-dim", "n-sampled", "steps")
    options = [text for name in common for text in (f"--{name}", vars(arguments)[name.replace("-", "_")])]
    for number in range(1, arguments.rounds + 1):
        runs = {}
        for size in arguments.items:
            for way in WAYS:
                figures = run_script("large_catalogue.py", "--way", way, "--items", size, *options)
                runs[f"{way}, {size:,} items"] = figures
                print(f"round {number}, {way}, {size:,} items: {figures}")
        rounds.append(runs)
    setup = {
        "model": f"Mult-DAE [I, {arguments.latent_dim}, I]",
        "users": arguments.users,
        "items of a user": f"up to {ITEMS_OF_A_USER}",
        "batch": arguments.batch_size,
        "sampled items": arguments.n_sampled,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "load average at the start": load,
    }
    contestants = {
        name: {figure: spread(runs[name][figure] for runs in rounds) for figure in rounds[0][name]}
        for name in rounds[0]
    }
    judged = judge(targets(arguments.items), rounds)
    content = {"setup": setup, "contestants": contestants, "targets": judged, "notes": []}
    store(arguments.results, "large_catalogue", {**content, "rounds": rounds})
    for row in judged:
        print(f"{row['name']}: {row['median']:.3g}")


def _contestant(arguments: argparse.Namespace) -> dict[str, float]:
    """The median step in this process, and its peak memory."""
    (n_items,) = arguments.items
    keep_freed_buffers()
    sampled = {"n_sampled": arguments.n_sampled, "optimizer": "sparse-adam"} if arguments.way == "sampled" else {}
    settings = settings_of("mult-dae", {"latent_dim": arguments.latent_dim} | sampled)
    model = settings.build(n_items)
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(arguments.users), ITEMS_OF_A_USER)
    items = (n_items * rng.random(len(users)) ** 3).astype(np.int64)  # some items are popular
    train = csr_array((np.ones(len(users), np.float32), (users, items)), shape=(arguments.users, n_items))
    train.sum_duplicates()
    train.data[:] = 1
    prepare_to_fit(model, SimpleNamespace(train=train), 1e-3, settings.training.optimizer)
    step = tf.function(model.train_step, [tf.TensorSpec([None], tf.int64)], autograph=False)
    forget_peak()
    seconds = []
    for _ in range(WARM_UP + arguments.steps):
        batch = tf.constant(rng.choice(arguments.users, arguments.batch_size, replace=False))
        begun = time.perf_counter()
        step(batch)["loss"].numpy()
        seconds.append(time.perf_counter() - begun)
    return {"step, s": float(np.median(seconds[WARM_UP:])), "peak memory, GB": peak_gb()}


if __name__ == "__main__":
    main()
