"""Times training of Mult-VAE by tfvae and by plain Keras and PyTorch versions; the method is in README.md."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # L is a limit of the processor, and all contestants use that
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from common import MODEL, Problem, matrix_of  # noqa: E402
from report import HERE, Target, judge, run_script, spread, store  # noqa: E402

from tfvae.data.synthetic import synthetic  # noqa: E402
from tfvae.nn.batches import row_numbers, steps_per_epoch  # noqa: E402

ML20M_USERS, ML20M_ITEMS, ML20M_EVENTS = 116_677, 20_108, 8_500_000

VAMP = "tfvae Vamp, 1,000 pseudo-inputs, float32"
ENCODER, DECODER = "tfvae RecVAE, encoder's epochs, float32", "tfvae RecVAE, decoder's epoch, float32"
FLOAT32, BFLOAT16, UNKEPT = "tfvae float32", "tfvae mixed_bfloat16", "tfvae float32 without kept buffers"
DENSE_KERAS, DENSE_TORCH = "plain dense Keras", "plain dense PyTorch"
BAG_TORCH = "PyTorch EmbeddingBag + fused Adam"
CONTESTANTS = {  # name: (script, variant)
    FLOAT32: ("tfvae_keras.py", "float32"),
    BFLOAT16: ("tfvae_keras.py", "mixed_bfloat16"),
    UNKEPT: ("tfvae_keras.py", "without-kept-buffers"),
    VAMP: ("tfvae_keras.py", "vamp"),
    ENCODER: ("tfvae_keras.py", "recvae-encoder"),
    DECODER: ("tfvae_keras.py", "recvae-decoder"),
    DENSE_KERAS: ("dense_keras.py", "dense"),
    DENSE_TORCH: ("plain_torch.py", "dense"),
    BAG_TORCH: ("plain_torch.py", "embedding-bag"),
}


def _faster(fast: str, slow: str):
    return lambda runs: runs[slow]["step, ms"] / runs[fast]["step, ms"]


def _dearer(dear: str, cheap: str):
    return lambda runs: runs[dear]["step, ms"] / runs[cheap]["step, ms"]


def _round_of_recvae(runs: dict[str, dict]) -> float:
    """A batch's share of a round in L: three steps of the encoder, one of the decoder, and the pass between them."""
    encoder, decoder = runs[ENCODER], runs[DECODER]
    return 3 * encoder["step / L"] + decoder["step / L"] + decoder["between epochs, ms a step"] / decoder["L, ms"]


def _figure(contestant: str, figure: str):
    return lambda runs: runs[contestant][figure]


TARGETS = [
    Target("step / L, float32", 1.45, False, _figure(FLOAT32, "step / L")),
    Target("step / L, float32, stretch", 1.25, False, _figure(FLOAT32, "step / L")),
    Target("step / L, mixed bfloat16", 0.9, False, _figure(BFLOAT16, "step / L")),
    Target("users/s, float32 / plain dense Keras", 1.7, True, _faster(FLOAT32, DENSE_KERAS)),
    Target("users/s, float32 / plain dense PyTorch", 3.0, True, _faster(FLOAT32, DENSE_TORCH)),
    Target("users/s, float32 / PyTorch EmbeddingBag + fused Adam", 1.4, True, _faster(FLOAT32, BAG_TORCH)),
    Target("users/s, mixed bfloat16 / float32", None, True, _faster(BFLOAT16, FLOAT32)),
    Target("users/s, float32 / without kept buffers", None, True, _faster(FLOAT32, UNKEPT)),
    Target("step of Vamp / of Mult-VAE, float32", 2.5, False, _dearer(VAMP, FLOAT32)),
    Target("step of Vamp / L", None, False, _figure(VAMP, "step / L")),
    Target("a round of RecVAE (3 encoder, 1 decoder) / L, per batch", 2.4, False, _round_of_recvae),
    Target("peak memory in GB, float32", 2.0, False, _figure(FLOAT32, "peak memory, GB")),
    Target("peak memory in GB, mixed bfloat16", 2.0, False, _figure(BFLOAT16, "peak memory, GB")),
]


def main() -> None:
    arguments = _arguments()
    names = [name for name in CONTESTANTS if name in arguments.only]
    if not arguments.torch_python.exists():
        print(f"{arguments.torch_python} is not there, so PyTorch is left out; `make bench-torch` installs it.")
        names = [name for name in names if CONTESTANTS[name][0] != "plain_torch.py"]
    per_epoch = steps_per_epoch(arguments.users, MODEL.batch_size)
    n_timed = arguments.steps or per_epoch
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        n_events = _write_problem(path, arguments, arguments.warmup + n_timed)
        equal = run_script("equality.py", "--problem", path)
        difference = abs(equal["tfvae"] / equal[DENSE_KERAS] - 1.0)
        print(f"loss at equal weights without noise: {equal}, relative difference {difference:.1e}")
        versions: dict[str, str] = {}
        rounds = []
        for number in range(1, arguments.rounds + 1):
            runs = {}
            for name in names:
                script, variant = CONTESTANTS[name]
                python = {"python": str(arguments.torch_python)} if script == "plain_torch.py" else {}
                options = ["--warmup", arguments.warmup, "--every", arguments.every]
                raw = run_script(script, "--problem", path, "--variant", variant, *options, **python)
                versions |= raw["versions"]
                runs[name] = _figures(raw, per_epoch)
                print(f"round {number}, {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in runs[name].items()))
            rounds.append(runs)

    setup = {
        "users": arguments.users,
        "items": arguments.items,
        "interactions": n_events,
        "batch": MODEL.batch_size,
        "rounds": arguments.rounds,
        "timed steps a round": n_timed,
        "load average at the start": load,
    }
    contestants = {name: {k: spread(runs[name][k] for runs in rounds) for k in rounds[0][name]} for name in names}
    how = "measured" if n_timed == per_epoch else f"extrapolated from the median step to {per_epoch} steps"
    notes = [
        f"The time of an epoch is {how}. The loss is the mean over all users met, warm-up included.",
        f"At equal weights and without noise the loss of tfvae and of {DENSE_KERAS} on one batch differ by "
        f"{difference:.1e} (relative).",
    ]
    judged = judge(TARGETS, rounds)
    content = {"setup": setup, "contestants": contestants, "targets": judged, "notes": notes}
    store(arguments.results, "training", {**content, "equality": equal, "rounds": rounds}, versions)
    print(f"written to {arguments.results}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=ML20M_USERS, help="interactions shrink with them")
    parser.add_argument("--items", type=int, default=ML20M_ITEMS)
    parser.add_argument("--rounds", type=int, default=3, help="each contestant runs once a round")
    parser.add_argument("--steps", type=int, default=30, help="timed steps a run; 0 for a whole epoch")
    parser.add_argument("--warmup", type=int, default=6, help="steps before those")
    parser.add_argument("--every", type=int, default=3, help="time L after each so many steps")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--torch-python", type=Path, default=HERE.parent / ".venv-torch" / "bin" / "python")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write to")
    arguments = parser.parse_args()
    if arguments.warmup < 1:
        parser.error("--warmup must be at least 1: the first step traces the model.")
    if 0 < arguments.steps < arguments.every:
        parser.error(f"--steps {arguments.steps} ends before L is timed; give at least --every, {arguments.every}.")
    return arguments


def _write_problem(path: Path, arguments: argparse.Namespace, n_steps: int) -> int:
    """Makes the data and the batches tfvae will draw; the number of interactions."""
    n_events = round(ML20M_EVENTS * arguments.users / ML20M_USERS)
    print(f"making {arguments.users:,} x {arguments.items:,} synthetic data, {n_events:,} interactions")
    matrix = matrix_of(synthetic(arguments.users, arguments.items, n_events))
    matrix.data[:] = 1.0
    stream = row_numbers(arguments.users, MODEL.batch_size, MODEL.seed).take(n_steps)
    Problem(matrix, list(stream.as_numpy_iterator())).save(path)
    return n_events


def _figures(raw: dict, per_epoch: int) -> dict[str, float]:
    """What is reported of one run; times are medians over its steps."""
    step = statistics.median(raw["steps"])
    limit, plain = (statistics.median(seconds) for seconds in zip(*raw["limits"], strict=True))
    whole = len(raw["steps"]) == per_epoch
    return {
        "users/s": MODEL.batch_size / step,
        "epoch, s": sum(raw["steps"]) if whole else per_epoch * step,
        "step, ms": 1e3 * step,
        "between epochs, ms a step": 1e3 * raw["between_epochs"] / per_epoch,
        "L, ms": 1e3 * limit,
        "step / L": step / limit,
        "step / 3 plain products": step / (3 * plain),
        "peak after warm-up, GB": raw["peak_after_warmup_gb"],
        "peak memory, GB": raw["peak_gb"],
        "loss": raw["loss"],
    }


if __name__ == "__main__":
    main()
