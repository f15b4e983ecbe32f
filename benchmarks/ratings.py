"""Times p-VAE's training and Hamiltonian Monte Carlo at the size of a split of MovieLens-1M; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from common import forget_peak, matrix_of, peak_gb  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402

from tfvae.data.synthetic import synthetic  # noqa: E402
from tfvae.evaluation.predictive import refined_codes  # noqa: E402
from tfvae.models.pvae import PVAE  # noqa: E402
from tfvae.nn.batches import row_numbers, steps_per_epoch  # noqa: E402
from tfvae.nn.optimizers import FusedAdam  # noqa: E402
from tfvae.system.memory import keep_freed_buffers  # noqa: E402

N_USERS, N_ITEMS, N_RATINGS = 6_040, 3_706, 900_188  # the training part of a split of MovieLens-1M
BATCH_SIZE = 100  # the paper's, and so are 400 epochs, and 100 and 500 hidden units
EPOCHS = 400
FORMS = {
    "U-p-VAE": {"embedding_dim": 50, "element_hidden": (100,), "activation": "tanh"},
    "I-p-VAE": {"embedding_dim": 100, "element_hidden": (100,), "activation": "tanh", "decoder_hidden": (500,)},
    "I-ZI": {"embedding_dim": 500, "latent_dim": 200},
}
HMC = "HMC on U-p-VAE"
TARGETS = [
    Target("minutes of 400 epochs, U-p-VAE", 4.0, False, lambda runs: runs["U-p-VAE"]["400 epochs, min"]),
    Target("minutes of 400 epochs, I-p-VAE", 14.0, False, lambda runs: runs["I-p-VAE"]["400 epochs, min"]),
    Target("seconds of HMC, all users", 20.0, False, lambda runs: runs[HMC]["seconds"]),
    Target("peak memory of HMC, GB", 1.5, False, lambda runs: runs[HMC]["peak memory, GB"]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="epochs that are timed, after one that is not")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    for private in ("--form", "--out"):  # how the script calls itself
        parser.add_argument(private, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        figures = _contestant(arguments.form, arguments.epochs)
        Path(arguments.out).write_text(json.dumps(figures), encoding="utf-8")
        return
    load, rounds = os.getloadavg()[0], []
    for number in range(1, arguments.rounds + 1):
        runs = {}
        for form in [*FORMS, HMC]:
            runs[form] = run_script("ratings.py", "--form", form, "--epochs", arguments.epochs)
            print(f"round {number}, {form}: " + ", ".join(f"{k} {v:.4g}" for k, v in runs[form].items()))
        rounds.append(runs)
    setup = {
        "users": N_USERS,
        "items": N_ITEMS,
        "ratings": N_RATINGS,
        "batch": BATCH_SIZE,
        "rounds": arguments.rounds,
        "timed epochs a round": arguments.epochs,
        "load average at the start": load,
    }
    contestants = {form: {k: spread(runs[form][k] for runs in rounds) for k in rounds[0][form]} for form in rounds[0]}
    notes = ["The minutes of 400 epochs are extrapolated. HMC: 20 leapfrog steps, 40 proposals of burn-in, 10 samples."]
    content = {"setup": setup, "contestants": contestants, "targets": judge(TARGETS, rounds), "notes": notes}
    store(arguments.results, "ratings", {**content, "rounds": rounds})
    print(f"written to {arguments.results}")


def _contestant(form: str, epochs: int) -> dict[str, float]:
    keep_freed_buffers()
    ratings = matrix_of(synthetic(N_USERS, N_ITEMS, N_RATINGS))
    if form.startswith("I-"):
        ratings = ratings.T.tocsr()
    model = PVAE(ratings.shape[1], **FORMS["U-p-VAE" if form == HMC else form])
    model.attach(ratings)
    model.compile(optimizer=FusedAdam(1e-3), jit_compile=False)
    _fit(model, 0, 1)
    if form == HMC:
        forget_peak()
        begun = time.perf_counter()
        samples = refined_codes(model, ratings)
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "acceptance": float(samples.acceptance.mean()), "peak memory, GB": peak_gb()}
    forget_peak()
    begun = time.perf_counter()
    _fit(model, 1, 1 + epochs)
    seconds = (time.perf_counter() - begun) / epochs
    return {"s/epoch": seconds, f"{EPOCHS} epochs, min": seconds * EPOCHS / 60, "peak memory, GB": peak_gb()}


def _fit(model: PVAE, first: int, last: int) -> None:
    n_rows = model.histories.n_rows
    model.fit(
        row_numbers(n_rows, BATCH_SIZE, model.seed, first),
        initial_epoch=first,
        epochs=last,
        steps_per_epoch=steps_per_epoch(n_rows, BATCH_SIZE),
        shuffle=False,
        verbose=0,
    )


if __name__ == "__main__":
    main()
