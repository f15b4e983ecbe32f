"""Times evaluation by tfvae and in the dense NumPy way of the notebook; the method is in README.md."""

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
import scipy.sparse as sp  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import MODEL, forget_peak, matrix_of, peak_gb  # noqa: E402
from dense_keras import dense_twin  # noqa: E402
from notebook_numpy import mask_seen, ndcg, recall  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402

from tfvae.data.splits import HeldOutUsers  # noqa: E402
from tfvae.data.synthetic import synthetic  # noqa: E402
from tfvae.evaluation.users import UserEvaluator  # noqa: E402
from tfvae.models.multvae import MultVAE  # noqa: E402
from tfvae.nn.batches import RowStore, row_numbers  # noqa: E402
from tfvae.nn.optimizers import FusedAdam  # noqa: E402

OURS, NOTEBOOK = "tfvae", "dense NumPy, as in the 2018 notebook"
METRICS = {"ndcg@100": (ndcg, 100), "recall@20": (recall, 20), "recall@50": (recall, 50)}
EVENTS_A_USER = 73
TARGETS = [
    Target("users/s, tfvae / notebook", 3.0, True, lambda runs: runs[OURS]["users/s"] / runs[NOTEBOOK]["users/s"])
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=500, help="users scored at once, in both ways")
    parser.add_argument("--train-steps", type=int, default=40, help="updates of the model before it is evaluated")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    for private in ("--way", "--folder", "--out"):  # how the script calls itself
        parser.add_argument(private, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        _contestant(arguments.way, Path(arguments.folder), arguments.batch_size, Path(arguments.out))
    else:
        _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        n_events = prepare(Path(folder), arguments)
        rounds, means, per_user = [], {}, {}
        for number in range(1, arguments.rounds + 1):
            runs = {}
            for way in (OURS, NOTEBOOK):
                options = ["--way", way, "--folder", folder, "--batch-size", arguments.batch_size]
                answer = run_script("evaluation.py", *options)
                runs[way] = answer["figures"]
                means[way] = answer["means"]
                print(f"round {number}, {way}: " + ", ".join(f"{k} {v:.4g}" for k, v in runs[way].items()))
            rounds.append(runs)
        for way in (OURS, NOTEBOOK):
            with np.load(Path(folder) / f"{way}.npz", allow_pickle=False) as stored:
                per_user[way] = dict(stored)

    differences = {name: abs(means[OURS][name] - means[NOTEBOOK][name]) for name in METRICS}
    unequal = {
        name: float(np.mean(~np.isclose(per_user[OURS][name], per_user[NOTEBOOK][name], rtol=1e-5))) for name in METRICS
    }
    print(f"difference of the means: {differences}; share of users that differ: {unequal}")
    setup = {
        "users": arguments.users,
        "items": arguments.items,
        "interactions": n_events,
        "batch": arguments.batch_size,
        "rounds": arguments.rounds,
        "load average at the start": load,
    }
    contestants = {
        way: {k: spread(runs[way][k] for runs in rounds) for k in rounds[0][way]} for way in (OURS, NOTEBOOK)
    }
    notes = [
        "Metrics of both ways: "
        + "; ".join(
            f"{name} {means[OURS][name]:.5f} and {means[NOTEBOOK][name]:.5f} "
            f"(apart by {differences[name]:.1e}, for {unequal[name]:.2%} of the users)"
            for name in METRICS
        )
        + "."
    ]
    judged = judge(TARGETS, rounds)
    content = {"setup": setup, "contestants": contestants, "targets": judged, "notes": notes}
    store(arguments.results, "evaluation", {**content, "metrics": means, "rounds": rounds})
    print(f"written to {arguments.results}")


def prepare(folder: Path, arguments: argparse.Namespace) -> int:
    """Makes fold-in, targets and a model that has learnt a little; the number of interactions."""
    n_events = arguments.users * EVENTS_A_USER
    matrix = matrix_of(synthetic(arguments.users, arguments.items, n_events))
    matrix.data[:] = 1.0
    held_out = np.zeros(matrix.nnz, dtype=bool)
    within_user = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    held_out[within_user % 5 == 0] = True
    coordinates = matrix.tocoo()
    for name, chosen in (("fold_in", ~held_out), ("targets", held_out)):
        part = (coordinates.data[chosen], (coordinates.row[chosen], coordinates.col[chosen]))
        sp.save_npz(folder / f"{name}.npz", sp.csr_array(part, shape=matrix.shape))

    model = MultVAE(arguments.items, hidden=(MODEL.hidden,), latent_dim=MODEL.latent_dim, seed=MODEL.seed)
    model.attach(sp.load_npz(folder / "fold_in.npz"))
    model.compile(optimizer=FusedAdam(MODEL.learning_rate), jit_compile=False)
    batches = row_numbers(arguments.users, min(MODEL.batch_size, arguments.users), MODEL.seed)
    model.fit(batches, steps_per_epoch=arguments.train_steps, shuffle=False, verbose=0)
    model.save(folder / "model.keras", include_optimizer=False)
    return n_events


def _contestant(way: str, folder: Path, batch_size: int, out: Path) -> None:
    """Evaluates in this process, once to warm up and once by the clock."""
    model = keras.models.load_model(folder / "model.keras")
    forget_peak()  # loading takes more memory than evaluating
    fold_in, targets = (sp.load_npz(folder / f"{name}.npz") for name in ("fold_in", "targets"))
    measure = _tfvae if way == OURS else _notebook
    seconds, scoring, per_user = measure(model, fold_in, targets, batch_size)
    figures = {
        "users/s": fold_in.shape[0] / seconds,
        "seconds": seconds,
        "scoring, s": scoring,
        "share of scoring": scoring / seconds,
        "peak memory, GB": peak_gb(),
    }
    np.savez(folder / f"{way}.npz", **per_user)
    means = {name: float(np.mean(values)) for name, values in per_user.items()}
    out.write_text(json.dumps({"figures": figures, "means": means}), encoding="utf-8")


def _tfvae(model: MultVAE, fold_in: sp.csr_array, targets: sp.csr_array, batch_size: int):
    users = np.arange(fold_in.shape[0])
    evaluator = UserEvaluator(model, HeldOutUsers(fold_in, targets, users), list(METRICS), batch_size)
    evaluator()
    begun = time.perf_counter()
    result = evaluator()
    seconds = time.perf_counter() - begun

    # Scoring is one with ranking in the graph, so it is timed on its own.
    store_of_rows = RowStore(fold_in)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def score(batch):
        return model.scores(store_of_rows.gather(batch))

    score(users[:batch_size])
    begun = time.perf_counter()
    for start in range(0, len(users), batch_size):
        score(users[start : start + batch_size])
    return seconds, time.perf_counter() - begun, result.per_user


def _notebook(model: MultVAE, fold_in: sp.csr_array, targets: sp.csr_array, batch_size: int):
    twin = dense_twin(model)

    @tf.function(input_signature=[tf.TensorSpec([None, fold_in.shape[1]], tf.float32)])
    def predict(x):
        return twin(x, training=False)[0]

    def dense_scores(batch: sp.csr_array) -> np.ndarray:
        return np.array(predict(tf.constant(batch.toarray())))  # a copy, since it will be masked

    dense_scores(fold_in[:batch_size])
    found = {name: [] for name in METRICS}
    scoring, begun = 0.0, time.perf_counter()
    for start in range(0, fold_in.shape[0], batch_size):
        batch, held_out = fold_in[start : start + batch_size], targets[start : start + batch_size]
        before = time.perf_counter()
        predictions = dense_scores(batch)
        scoring += time.perf_counter() - before
        mask_seen(predictions, batch)
        for name, (metric, k) in METRICS.items():
            found[name].append(metric(predictions, held_out, k))
    seconds = time.perf_counter() - begun
    return seconds, scoring, {name: np.concatenate(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
