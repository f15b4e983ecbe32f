"""The commands as a user types them, on a tiny file of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.cli.options import settings_from
from tfvae.system.errors import InputError
from tfvae.system.files import sha256_of

pytestmark = pytest.mark.slow

COLUMNS = ["--user-col", "uid", "--item-col", "sku"]
SMALL = ["--model", "mult-vae", "--set", "hidden=[8]", "--set", "latent_dim=4", "--epochs", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with ratings.csv: 100 users, each with 6 of the 20 items of their kind."""
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(100):
        for item in draw.choice(20, 6, replace=False):
            lines.append(f"{user},{100 + 2 * item + user % 2},{draw.integers(1, 6)}")
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_of(p) for p in folder.rglob("*") if p.is_file()}


def test_the_whole_way_from_a_csv_to_a_model_that_serves(folder):
    command = ["fit", "ratings.csv", *COLUMNS, *SMALL]
    trained = run(*command).output
    assert "batch_size: 16 instead of 500" in trained  # a tenth of 100 users each for validation and test
    assert "tfvae evaluate runs/ratings-mult-vae" in trained
    before = fingerprint(folder)
    assert "nothing left to do" in run(*command).output
    assert fingerprint(folder) == before

    measured = run("evaluate", "runs/ratings-mult-vae", "--metrics", "ndcg@10,hr@5").output
    stored = json.loads((folder / "runs/ratings-mult-vae/evaluation.json").read_text())
    assert stored["users"] + stored["users_without_targets"] == 10
    assert set(stored["metrics"]) == {"ndcg@10", "hr@5"}
    assert f"{stored['metrics']['ndcg@10']['mean']:.4f}" in measured

    told = run("recommend", "runs/ratings-mult-vae", "--history", "100,102,nonsense", "-k", "5")
    assert "left out: nonsense" in told.stderr
    ids = [int(line.split()[0]) for line in told.stdout.splitlines()[1:]]
    assert len(set(ids)) == 5 and not {100, 102} & set(ids)

    exported = run("export", "runs/ratings-mult-vae", "out/model").output
    program = "\n".join(line.strip() for line in exported.splitlines()[1:])
    spoken = program.replace('model.signatures["recommend"](', 'found = model.signatures["recommend"](')
    names: dict = {}
    exec(spoken, names)  # the printed lines are what a user would paste
    assert names["found"]["items"].shape == (1, 10)


def test_a_prepared_split_is_trained_on_as_it_is(folder):
    counts = run("prepare", "ratings.csv", *COLUMNS, "--held-out-users", "15").output
    assert "validation users without targets" in counts and "train users" in counts
    assert "70" in next(line for line in counts.splitlines() if "train users" in line)
    run("prepare", "data/ratings.npz", "--format", "vae-cf", "--out", "pro_sg")
    assert len(list((folder / "pro_sg").iterdir())) == 6
    for data, name in (("data/ratings.npz", "one"), ("pro_sg", "two")):
        run("fit", data, "--model", "popularity", "--run", f"runs/{name}")
    one, two = (run("evaluate", f"runs/{name}").output for name in ("one", "two"))
    assert one == two
    refused = run("fit", "pro_sg", "--held-out-users", "3", code=2)
    assert "already split, so held_out_users would change nothing" in refused.stderr


def test_titles_find_their_ids(folder):
    run("fit", "movietweetings", "--model", "popularity", "--run", "runs/pop")
    told = run("recommend", "runs/pop", "--like", "gravity", "-k", "3").output
    assert "'gravity' is taken for Gravity (2013) (1454468)" in told
    assert "1454468" not in told.split("score", 1)[1]
    assert "no title contains 'xyzzy'" in run("recommend", "runs/pop", "--like", "xyzzy", code=2).stderr
    assert "--history" in run("recommend", "runs/pop", code=2).stderr
    assert "Ids look like" in run("recommend", "runs/pop", "--history", "nonsense", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "ratings.csv", "--user-col", "uidd", "--item-col", "sku"], "did you mean 'uid'?"),
        (["fit", "ratings.csv", *COLUMNS, "--model", "mult-vae", "--set", "latnt_dim=3"], "did you mean 'latent_dim'?"),
        (["fit", "ratings.csv", *COLUMNS, "--model", "mult-vae", "--set", "dropout=2"], "dropout = 2"),
        (["fit", "ratings.csv", *COLUMNS, "--set", "dropout=0.2"], "name it, with --model"),
        (["fit", "ratings.csv", *COLUMNS, "--set", "dropout"], "expected KEY=VALUE"),
        (
            ["fit", "ratings.csv", *COLUMNS, "--model", "mult-vae", "--set", "batch_size=81"],
            "there are 80 training users",
        ),
        (["fit", "ratings.csv", *COLUMNS, "--rating-col", "star", "--min-rating", "4"], "did you mean 'stars'?"),
        (["fit", "ratings.csv", *COLUMNS, "--rating-col", "stars", "--min-rating", "9"], "lower the one"),
        (["fit", "ratings.csv", *COLUMNS, "--held-out-users", "60"], "found 100 after filtering"),
        (["fit", "ratings.csv", *COLUMNS, "--source", "elsewhere"], "source would change nothing"),
        (["fit", "ratings.csv", *COLUMNS, "--model", "mult-va"], "did you mean 'mult-vae'?"),
        (["fit", "ratings.txt"], "unknown file or data set 'ratings.txt'"),
        (["fit", "movietweeting"], "did you mean 'movietweetings'?"),
        (["fit", "movietweetings", "--user-col", "uid"], "user would change nothing"),
        (["prepare", "."], "unique_sid.txt"),
        (["evaluate", "runs/none"], "holds no finished run"),
        (["table", "none", "--dataset", "ml-1m"], "unknown table"),
        (["table", "multvae-table2", "--dataset", "ml-1", "--render-only"], "did you mean 'ml-1m'?"),
        (["table", "none", "--dataset", "ml-1m", "--seeds", "one"], "such as 1,2,3, found 'one'"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(folder, arguments, message):
    before = fingerprint(folder)
    result = run(*arguments, code=2)
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert "Traceback" not in result.output
    assert fingerprint(folder) == before


def test_a_rating_that_is_no_number_is_named_by_file_and_line(folder):
    lines = (folder / "ratings.csv").read_text().splitlines()
    lines[4] = "0,101,great"
    (folder / "ratings.csv").write_text("\n".join(lines))
    told = run("prepare", "ratings.csv", *COLUMNS, "--rating-col", "stars", code=2).stderr
    assert "ratings.csv, line 5: stars 'great' is not a number" in told
    assert list(folder.iterdir()) == [folder / "ratings.csv"]


def test_a_run_folder_of_another_configuration_is_left_alone(folder):
    run("fit", "ratings.csv", *COLUMNS, "--model", "popularity", "--run", "runs/a")
    before = fingerprint(folder)
    told = run("fit", "ratings.csv", *COLUMNS, "--model", "popularity", "--run", "runs/a", "--seed", "7", code=2)
    assert "seed is 98765 there, 7 here" in told.stderr
    other = run("fit", "movietweetings", "--model", "popularity", "--run", "runs/a", code=2)
    assert "runs/a/split.npz is another split" in other.stderr
    assert fingerprint(folder) == before


def test_debug_lets_the_error_through(folder):
    assert isinstance(CliRunner().invoke(app, ["--debug", "fit", "nothing.csv"]).exception, InputError)


def test_ctrl_c_says_how_to_go_on(folder, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfvae.training.loop.train", interrupted)
    told = run("fit", "ratings.csv", *COLUMNS, code=130)
    assert "the same command again" in told.stderr


def test_a_table_is_run_and_printed_and_a_row_is_swept(folder):
    (folder / "paper_results/tiny").mkdir(parents=True)
    (folder / "paper_results/tiny/table.toml").write_text(
        'title = "Tiny"\ncaption = "Tiny."\nmetrics = ["recall@20"]\nmonitor = "recall@20"\n'
        '[[rows]]\nname = "EASE"\nslug = "ease"\nmodel = "ease"\nsettings = { regularization = 50.0 }\n'
        "[rows.search]\nregularization = { low = 10.0, high = 1000.0, log = true }\n"
    )
    swept = run("sweep", "tiny", "--row", "ease", "--dataset", "synthetic", "--trials", "2").output
    assert "Best of 2: recall@20" in swept
    shown = run("table", "tiny", "--dataset", "synthetic").output
    stored = json.loads((folder / "paper_results/tiny/synthetic/ease.seed1.json").read_text())
    assert f"{stored['metrics']['recall@20']['mean']:.4f}" in shown.splitlines()[-1]
    assert "Written" in run("table", "tiny", "--dataset", "synthetic", "--render-only").output


def test_own_data_are_swept_and_become_cells(folder):
    data = ["--data", "ratings.csv", *COLUMNS]
    swept = run("sweep", "multvae-table2", "--row", "ease", *data, "--trials", "2").output
    assert "Best of 2: ndcg@100" in swept
    shown = run("table", "multvae-table2", *data, "--rows", "ease,mult-vae", "--epochs", "2", "--seeds", "1").output
    stored = {
        slug: json.loads((folder / f"paper_results/multvae-table2/ratings/{slug}.seed1.json").read_text())
        for slug in ("ease", "mult-vae")
    }
    for run_of in stored.values():
        cell = run_of["metrics"]["ndcg@100"]
        assert cell["se"] > 0 and f"{cell['mean']:.4f} ± {cell['se']:.4f}" in shown
    assert stored["ease"]["tuned"]["trials"] == 2 and not stored["ease"]["shortened"]
    assert stored["mult-vae"]["shortened_why"].startswith("2 of ")
    assert "Written" in run("table", "multvae-table2", *data, "--render-only").output


def test_settings_are_read_as_what_they_look_like():
    pairs = ["hidden=[600, 200]", "latent_dim=100", "learning_rate = 1e-3", "likelihood=gaussian"]
    assert settings_from([*pairs, "patience=null", "deterministic=true"]) == {
        "hidden": [600, 200],
        "latent_dim": 100,
        "learning_rate": 1e-3,
        "likelihood": "gaussian",
        "patience": None,
        "deterministic": True,
    }


def test_what_needs_no_tensorflow_does_not_load_it(tmp_path):
    program = """
import sys
import tfvae
assert {"train", "export", "recommend"} <= set(dir(tfvae))
from typer.testing import CliRunner
from tfvae.cli.app import app
assert not {"tensorflow", "pandas", "numpy"} & set(sys.modules), "import tfvae and its commands"
for arguments in (["--help"], ["--version"], ["fit", "--help"], ["datasets"], ["doctor"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 1) and len(result.output) > 10, result.output
    assert "tensorflow" not in sys.modules, arguments
"""
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_there():
    import tfvae

    for name in tfvae.__all__:
        assert getattr(tfvae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tfvae.nonsense
