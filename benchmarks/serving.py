"""Times the HTTP service under load, and counts errors while versions are swapped; the method is in README.md."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402

from tfvae.data.interactions import Interactions  # noqa: E402
from tfvae.data.items import Items  # noqa: E402
from tfvae.data.splits import (  # noqa: E402
    RatingHoldoutSettings,
    Split,
    StrongGeneralizationSettings,
    rating_holdout,
    strong_generalization,
)
from tfvae.training.loop import TrainedModel, in_folder, keep  # noqa: E402
from tfvae.training.run_folder import RunFolder  # noqa: E402
from tfvae.training.settings import settings_of  # noqa: E402

K = 20
USERS = 2_000
EVENTS_A_USER = 60
MODELS = {
    "mult-vae": {"hidden": [600], "latent_dim": 200},
    "ease": {},
    "p-vae": {},
}
MEDIAN_HISTORY, LONGEST_HISTORY, HISTORIES = 40, 500, 500
SWAP_SECONDS = 5
WARM_UP_SECONDS = 1
TARGET_MS, TARGET_CLIENTS = 50, 8
ENDURANCE = "endurance"


def cell(model: str, n_items: int, clients: int) -> str:
    return f"{model}, {n_items:,} items, {clients} clients"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--items", type=int, nargs="+", default=[3_500, 20_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=20, help="of load for each figure")
    parser.add_argument("--endurance", type=int, default=100_000, help="requests during swaps; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    for private in ("--load", "--out"):  # how the script calls itself
        parser.add_argument(private, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        figures = asyncio.run(_load(**json.loads(arguments.load)))
        Path(arguments.out).write_text(json.dumps(figures), encoding="utf-8")
        return
    load, rounds = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        rounds = _rounds(Path(folder), arguments)
    setup = {
        "k": K,
        "median history": MEDIAN_HISTORY,
        "seconds a figure": arguments.seconds,
        "rounds": arguments.rounds,
        "load average at the start": load,
    }
    contestants = {
        name: {figure: spread(runs[name][figure] for runs in rounds if name in runs) for figure in figures}
        for name, figures in rounds[0].items()
    }
    content = {"setup": setup, "contestants": contestants, "targets": judge(_targets(arguments), rounds), "notes": []}
    for row in content["targets"]:
        print(f"{row['name']}: {row['median']:.3f} ({row['min']:.3f} to {row['max']:.3f})")
    store(arguments.results, "serving", {**content, "rounds": rounds})
    print(f"written to {arguments.results}")


def _targets(arguments: argparse.Namespace) -> list[Target]:
    largest = max(arguments.items)
    found = []
    for model in arguments.models:
        name = cell(model, largest, TARGET_CLIENTS)
        found.append(Target(f"p99 in ms, {name}", TARGET_MS, False, lambda runs, name=name: runs[name]["p99, ms"]))
    everywhere = f"errors, all figures and {ENDURANCE}"
    return [*found, Target(everywhere, 0, False, lambda runs: sum(figures["errors"] for figures in runs.values()))]


def _rounds(folder: Path, arguments: argparse.Namespace) -> list[dict[str, dict]]:
    rounds: list[dict[str, dict]] = [{} for _ in range(arguments.rounds)]
    for n_items, model in itertools.product(arguments.items, arguments.models):
        run, histories = _run(folder / f"{model}-{n_items}", model, n_items)
        with _service(run) as port:
            for runs, clients in itertools.product(rounds, arguments.clients):
                figures = _under_load(port, histories, clients=clients, seconds=arguments.seconds)
                runs[name := cell(model, n_items, clients)] = figures
                print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
    if arguments.endurance:
        rounds[0][ENDURANCE] = _endurance(folder, min(arguments.items), arguments.endurance)
        print(f"{ENDURANCE}: " + ", ".join(f"{key} {value:.4g}" for key, value in rounds[0][ENDURANCE].items()))
    return rounds


def _endurance(folder: Path, n_items: int, requests: int) -> dict[str, float]:
    """Many requests, while a symbolic link leads to one and to another run by turns."""
    runs, histories = [], folder / "histories.json"
    for seed in (1, 2):
        run, histories = _run(folder / f"version-{seed}", "mult-vae", n_items, seed)
        runs.append(run)
    link, done = folder / "swapped", threading.Event()

    def lead_to(run: Path) -> None:
        (new := folder / "new").symlink_to(run)
        new.replace(link)

    def swap() -> None:
        for run in itertools.cycle(runs[::-1]):
            if done.wait(SWAP_SECONDS):
                return
            lead_to(run)

    lead_to(runs[0])
    with _service(link, "--poll-seconds", "0.5") as port:
        swapping = threading.Thread(target=swap)
        swapping.start()
        try:
            return _under_load(port, histories, clients=TARGET_CLIENTS, requests=requests)
        finally:
            done.set()
            swapping.join()


def _run(folder: Path, model: str, n_items: int, seed: int = 1) -> tuple[Path, Path]:
    """A finished run with random weights, which cost as much as trained ones, and a file of histories to ask with."""
    settings = settings_of(model, MODELS[model] | {"seed": seed})
    rng = np.random.default_rng(seed)
    split = _split(rng, n_items, rates=model == "p-vae")

    def made(run: RunFolder) -> TrainedModel:
        run.mark(settings, split.digest)
        built = settings.build(split.n_items, len(split.user_ids))
        if model == "ease":
            for variable in built.variables:
                variable.assign(rng.standard_normal(variable.shape, np.float32) / n_items)
        titled = Items.of(split)
        titles = np.array([f"The title of item {item}" for item in titled.item_ids.tolist()])
        items = Items(titled.item_ids, titles, titled.scale, titled.n_users)
        return keep(TrainedModel(built, settings), split, run, items, log=lambda line: None)

    in_folder(settings, split, folder, made)
    histories = folder.parent / f"{folder.name}.json"
    histories.write_text(json.dumps(_histories(split)), encoding="utf-8")
    return folder, histories


def _split(rng: np.random.Generator, n_items: int, *, rates: bool) -> Split:
    """Items go round: each has as many users as any other, so that all are in the training part."""
    rounds = -(-USERS * EVENTS_A_USER // n_items)
    items = np.concatenate([rng.permutation(n_items) for _ in range(rounds)])[: USERS * EVENTS_A_USER]
    users = np.repeat(np.arange(USERS), EVENTS_A_USER)
    events = Interactions.from_events(users, items, rng.integers(1, 6, len(users)).astype(np.float32))
    if rates:
        return rating_holdout(events, RatingHoldoutSettings())
    return strong_generalization(events, StrongGeneralizationSettings(held_out_users=50))


def _histories(split: Split) -> list[list]:
    """Histories of log-normal lengths, as requests name them."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(MEDIAN_HISTORY), 0.8, HISTORIES)), 1, LONGEST_HISTORY).astype(int)
    found = []
    for length in lengths:
        items = split.item_ids[rng.choice(split.n_items, length, replace=False)].tolist()
        found.append([{"item": item, "rating": 1 + item % 5} for item in items] if split.scale else items)
    return found


@contextmanager
def _service(run: Path, *options: str) -> Iterator[int]:
    """The service of a run in a process of its own; yields its port."""
    command = [sys.executable, "-m", "tfvae", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        try:
            line = service.stdout.readline()
            if not line:
                sys.exit(f"{' '.join(command)} ended before it served.")
            yield int(line.rpartition(":")[2].split("/")[0])
        finally:
            service.terminate()
            service.wait()


def _under_load(port: int, histories: Path, **how: float) -> dict[str, float]:
    """Asks from a process of its own."""
    return run_script("serving.py", "--load", json.dumps({"port": port, "histories": str(histories), **how}))


async def _load(
    port: int, histories: str, clients: int, seconds: float = float("inf"), requests: float = float("inf")
) -> dict[str, float]:
    """Asks from some clients, each of whom waits for an answer before asking again, and times the answers."""
    bodies = [json.dumps({"history": history, "k": K}).encode() for history in json.loads(Path(histories).read_text())]
    numbers, times, errors = itertools.count(), [], 0
    versions: set[str] = set()

    async def client(first: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for place in itertools.count(first):
            if time.perf_counter() > end or next(numbers) >= requests:
                break
            begun = time.perf_counter()
            try:
                status, answer = await _ask(reader, writer, bodies[place % len(bodies)])
            except (OSError, EOFError):
                errors += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            times.append(time.perf_counter() - begun)
            if status != 200 or len(answer["items"]) != K:
                errors += 1
            else:
                versions.add(answer["version"])
        writer.close()

    end = time.perf_counter() + WARM_UP_SECONDS
    await asyncio.gather(*(client(number) for number in range(clients)))
    numbers, end = itertools.count(), time.perf_counter() + seconds
    times.clear()
    begun = time.perf_counter()
    await asyncio.gather(*(client(number * 7) for number in range(clients)))
    lasted = time.perf_counter() - begun
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    figures = {"requests": len(times), "requests/s": len(times) / lasted, "p50, ms": p50, "p99, ms": p99}
    return figures | {"errors": errors, "versions": len(versions)}


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, dict]:
    """One request on a connection that stays open; the status and the answer.

    A client of a library would take more of the two cores than the service does.
    """
    head = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    writer.write(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


if __name__ == "__main__":
    main()
