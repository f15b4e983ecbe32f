"""Prepares and trains on a synthetic log larger than memory, in shards, and measures seconds and memory; see README.md.

Each part runs in a process of its own, whose memory is read while it works: what it allocated apart from what it has
mapped of files, which the system takes back when it needs the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).resolve().parent

EVENTS_PER_USER, SIGMA, SHIFT = 80, 1.0, 100
AT_ONCE = 1 << 21
PARTS = ("log", "prepare", "train")
PREPARED_GB, TRAINED_GB = 4.0, 6.0
CLEAR = {"peak allocated, GB": "RssAnon", "peak mapped of files, GB": "RssFile", "peak resident, GB": "VmHWM"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=300, help="updates of Mult-VAE, each on 500 users")
    parser.add_argument("--memory", default="4GB", help="what `tfvae prepare --shards` is allowed")
    parser.add_argument(
        "--folder", type=Path, help="where the log and the shards are made; a temporary one if not given"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--part", choices=PARTS, help="run this part in this process, as the script does by itself")
    arguments = parser.parse_args()
    if arguments.part:
        part = {"log": make_log, "prepare": prepare, "train": train}[arguments.part]
        print(json.dumps(part(arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="tfvae-out-of-core-", dir=arguments.folder) as folder:
        load = os.getloadavg()[0]
        found = {part: _measured(part, arguments, Path(folder)) for part in PARTS}
    _store(arguments, found, load)


def make_log(arguments: argparse.Namespace) -> dict[str, float]:
    """Writes the log: users with lognormal sizes, items by the law of Zipf and Mandelbrot, in the order of a log."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from scipy.special import ndtr

    draw = np.random.default_rng(98765)
    n_users = max(100, arguments.events // EVENTS_PER_USER)
    schema = pa.schema([("user", pa.int64()), ("item", pa.int32())])
    path = arguments.folder / "log.parquet"
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, arguments.events, AT_ONCE):
            n = min(AT_ONCE, arguments.events - start)
            # A user at quantile q of activity, which is lognormal, has events in proportion to exp(σ Φ⁻¹(q)).
            users = np.minimum(n_users * ndtr(draw.standard_normal(n) + SIGMA), n_users - 1)
            ratio = (arguments.items + SHIFT) / SHIFT
            items = np.minimum(SHIFT * ratio ** draw.random(n) - SHIFT, arguments.items - 1)
            file.write_batch(pa.record_batch([users.astype(np.int64), items.astype(np.int32)], schema=schema))
    return {"size, GB": path.stat().st_size / 1e9}


def prepare(arguments: argparse.Namespace) -> dict[str, float]:
    """Splits the log into shards, as `tfvae prepare --shards` does."""
    from tfvae.cli.prepare import in_bytes
    from tfvae.data.prepare_shards import prepare_shards

    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    log, out = arguments.folder / "log.parquet", arguments.folder / "split"
    split = prepare_shards(log, out, memory=in_bytes(arguments.memory), log=say)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {"size, GB": size / 1e9, "training users": split.train.shape[0], "training events": split.train.nnz}


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Trains Mult-VAE for some steps, as `tfvae fit` does, less validation and checkpoints."""
    import numpy as np

    from tfvae.data.splits import load_split
    from tfvae.nn.batches import row_numbers
    from tfvae.system.memory import keep_freed_buffers
    from tfvae.training.loop import prepare_to_fit
    from tfvae.training.settings import settings_of

    keep_freed_buffers()
    begun = time.perf_counter()
    split = load_split(arguments.folder / "split")
    settings = settings_of("mult-vae", {})
    model, training = settings.build_for(split), settings.training
    prepare_to_fit(model, split, training.learning_rate)
    opened = time.perf_counter() - begun
    numbers = row_numbers(split.train.shape[0], training.batch_size, training.seed)
    times = [time.perf_counter()]
    from keras.callbacks import LambdaCallback

    clock = LambdaCallback(on_train_batch_end=lambda *_, **__: times.append(time.perf_counter()))
    batches = model.histories.ahead(numbers.take(arguments.steps))
    model.fit(batches, steps_per_epoch=arguments.steps, callbacks=[clock], shuffle=False, verbose=0)
    steps = np.diff(times)[min(10, arguments.steps // 2) :]  # the first ones compile, and fill the buffers
    reader, users = split.train.open(), next(iter(numbers)).numpy()
    reading = time.perf_counter()
    for _ in range(20):
        reader.rows(users)
    return {
        "opened in, s": opened,
        "step, ms": 1e3 * float(np.median(steps)),
        "of it reading rows, ms": 1e3 * (time.perf_counter() - reading) / 20,
        "users/s": training.batch_size / float(np.median(steps)),
    }


def _measured(part: str, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Runs a part in a process of its own; its figures, seconds and largest memory."""
    values = {
        "events": arguments.events,
        "items": arguments.items,
        "steps": arguments.steps,
        "memory": arguments.memory,
    }
    options = [f"--{name}={value}" for name, value in values.items()]
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), *options]
    largest, begun = dict.fromkeys(CLEAR.values(), 0.0), time.perf_counter()
    with open(folder / f"{part}.json", "w+", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out)
        while process.poll() is None:
            for line in _status(process.pid):
                name, _, value = line.partition(":")
                if name in largest:
                    largest[name] = max(largest[name], int(value.split()[0]) * 1024 / 1e9)
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed with status {process.returncode}.")
        out.seek(0)
        found = json.loads(out.read().splitlines()[-1])
    figures = {"seconds": seconds, **{label: largest[name] for label, name in CLEAR.items()}, **found}
    print(f"{part}: " + ", ".join(f"{name} {value:,.4g}" for name, value in figures.items()), flush=True)
    return figures


def _status(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # it has just ended
        return []


def _store(arguments: argparse.Namespace, found: dict[str, dict[str, float]], load: float) -> None:
    from report import Target, judge, store

    names = {"log": "making the log", "prepare": "tfvae prepare --shards", "train": "training, Mult-VAE"}
    allocated = "peak allocated, GB"
    targets = [
        Target("allocated to prepare, GB", PREPARED_GB, False, lambda runs: runs["prepare"][allocated]),
        Target("allocated to train, GB", TRAINED_GB, False, lambda runs: runs["train"][allocated]),
    ]
    content = {
        "setup": {
            "events": arguments.events,
            "users": max(100, arguments.events // EVENTS_PER_USER),
            "items": arguments.items,
            "steps": arguments.steps,
            "allowed to prepare": arguments.memory,
            "load before": round(load, 1),
        },
        "contestants": {names[part]: figures for part, figures in found.items()},
        "targets": judge(targets, [found]),
        "notes": ["One round. Seconds are those of the whole process, its start included."],
        "rounds": [found],
    }
    store(arguments.results, "out_of_core", content)


if __name__ == "__main__":
    main()
