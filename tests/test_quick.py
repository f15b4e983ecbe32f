"""What commands load, so that they answer soon; no times, which say nothing on a busy machine."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.models.ease import EASE
from tfvae.models.multvae import MultVAE
from tfvae.serving.recommendations import Recommendations, recommend
from tfvae.system.imports import around_import, declined
from tfvae.system.start_up import NOTICE

ROOT = Path(__file__).parents[1]
# Beside what TensorFlow and Keras load themselves.
NEEDLESS = {
    "IPython",
    "matplotlib",
    "optuna",
    "pooch",
    "scipy.stats",
    "sklearn",
    "tensorboard",
    "tensorflow_probability",
}


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_ranking_loads_what_it_needs_and_shows_no_notices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = CliRunner().invoke(app, ["fit", "movietweetings", "--model", "popularity", "--run", "run"])
    assert trained.exit_code == 0, trained.output
    code = """
import sys
from tfvae.cli.app import main
try:
    main()
finally:
    print("LOADED", *sys.modules)
    import sklearn.linear_model  # what Keras does without is there for others
"""
    done = python(code, tmp_path, "recommend", "run", "--like", "gravity", "-k", "3")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    *table, loaded = done.stdout.splitlines()
    assert len(table) == 5  # which title was found, headings, three items
    assert "tensorflow" in loaded.split() and not NEEDLESS & set(loaded.split())


def test_long_commands_say_what_they_will_do_before_they_load_anything(tmp_path):
    code = """
import sys
from typer.testing import CliRunner
from tfvae.cli.app import app
for name in ("numpy", "pandas", "tensorflow", "tfvae.experiments.protocols", "tfvae.data.interactions"):
    sys.modules[name] = None
for line in (
    "fit movietweetings --model ease",
    "fit movietweetings --model auto",
    "compare movietweetings --minutes 3",
    "table multvae-table2 --dataset movietweetings",
    "sweep multvae-table2 --row ease --dataset movietweetings --trials 2",
    "ensemble a b --run c",
):
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, ImportError), (line, result.output, result.exception)
    print(result.stdout, end="")
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Training ease: movietweetings, in runs/movietweetings-ease",
        "Training a model that suits the data: movietweetings",
        "Comparing models that rank on movietweetings within 3 minutes of training, in runs/movietweetings-compare",
        "Running what multvae-table2 lacks on movietweetings, into paper_results",
        "Searching the settings of ease of multvae-table2 on movietweetings, 2 trials, into paper_results",
        "Making an ensemble of a, b, in c",
    ]


@pytest.mark.parametrize("kind", [EASE, MultVAE])
def test_an_answer_without_a_graph_is_that_of_the_graph(kind, tiny_split):
    model = kind(tiny_split.n_items, **({"hidden": [8], "latent_dim": 4} if kind is MultVAE else {}))
    if kind is EASE:
        model.fit_matrix(tiny_split.train, log=lambda line: None)
    histories = [tiny_split.item_ids[:3].tolist(), [], tiny_split.item_ids[5:6].tolist() * 2]
    by_graph = Recommendations(model, tiny_split.item_ids)(histories, 40)
    at_once = recommend(model, tiny_split.item_ids, histories, 40, graph=False)
    np.testing.assert_array_equal(at_once.items, by_graph.items)
    np.testing.assert_allclose(at_once.scores, by_graph.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(at_once.unknown, by_graph.unknown)


def test_a_package_does_without_what_is_declined_while_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "optional_part.py").write_text("")
    (tmp_path / "a_package.py").write_text(
        "try:\n    import optional_part\nexcept ImportError:\n    optional_part = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    around_import("a_package", lambda: declined("optional_part"))
    assert importlib.import_module("a_package").optional_part is None
    assert sys.meta_path == finders
    assert importlib.import_module("optional_part")
    around_import("a_package", lambda: 1 / 0)  # imported already
    assert sys.meta_path == finders


ERROR = "E0000 00:00:1795977098.673586    8638 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_UNKNOWN (999)"
NOTICES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795977086.219598    8638 cudart_stub.cc:31] Could not find cuda drivers on your machine",
    "W0000 00:00:1795977086.219598    8638 gpu_device.cc:2341] Cannot dlopen some GPU libraries.",
    "E0000 00:00:1795977098.673586    8638 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    "call to cuInit: UNKNOWN ERROR (303)",
)


def test_notices_are_told_from_errors():
    assert all(NOTICE.match(line.encode()) for line in NOTICES)
    for line in (ERROR, "Error: no such file", "F0000 00:00:1.5 8638 cpu_feature_guard.cc:14] compiled to use AVX", ""):
        assert not NOTICE.match(line.encode())


@pytest.mark.parametrize("end", ["pass", "os.abort()"])
def test_errors_are_shown_even_if_the_process_dies_of_them(end, tmp_path):
    code = f"""
import os, sys
from tfvae.system.start_up import without_notices
with without_notices():
    os.write(2, {NOTICES[1]!r}.encode() + b"\\n")
    os.write(2, {ERROR!r}.encode() + b"\\n")
    os.write(2, b"the last words")
    {end}
os.write(2, {NOTICES[1]!r}.encode())
"""
    done = python(code, tmp_path)
    after = NOTICES[1] if end == "pass" else ""
    assert done.stderr == f"{ERROR}\nthe last words{after}"
    assert (done.returncode == 0) == (end == "pass")
