"""`tfvae fit DATA --from RUN` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from test_cli import fingerprint, run

from tfvae.system.files import sha256_of

pytestmark = pytest.mark.slow

COLUMNS = ["--user-col", "uid", "--item-col", "sku"]
RATINGS = [*COLUMNS, "--rating-col", "stars"]
SMALL = ["--set", "hidden=[8]", "--set", "latent_dim=4", "--set", "monitor=ndcg@10"]


def write(path: Path, users: range, n_items: int, first: int = 100):
    """Eight of the items of their kind for each user; a user's come by their number only, so that a log can grow."""
    lines = ["uid,sku,stars"]
    for user in users:
        draw = np.random.default_rng(user)
        for item in draw.choice(n_items, 8, replace=False):
            lines.append(f"{user},{first + 2 * item + user % 2},{draw.integers(1, 6)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def moved_in(told: str) -> dict[str, list[str]]:
    """The lines of the table of what moved: kept, in and out."""
    return {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in told.splitlines() if len(line.split()) > 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working folder with a log as it was and as it is now, and two runs on the former."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(folder / "old.csv", range(100), 15)
        old, more = (folder / name for name in ("old.csv", "more.csv"))
        write(more, range(100, 140), 20)
        (folder / "new.csv").write_text(old.read_text() + more.read_text().split("\n", 1)[1], encoding="utf-8")
        write(folder / "foreign.csv", range(140), 20, first=900)
        run("fit", "old.csv", *COLUMNS, "--model", "mult-vae", *SMALL, "--epochs", "1")
        run("fit", "old.csv", *RATINGS, "--min-rating", "2", "--model", "ease")
    return folder


@pytest.fixture
def folder(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_a_run_goes_on_with_what_came_since(folder):
    before = fingerprint(folder / "runs/old-mult-vae")
    command = ["fit", "new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--epochs", "2"]
    told = run(*command).output
    assert "Starts from the weights of runs/old-mult-vae" in told
    assert "before and after on the same 10 users" in told
    rows = moved_in(told)
    assert rows["items"] == ["30", "10", "0"] and rows["training users"] == ["80", "40", "0"]
    assert rows["held-out users"] == ["20", "0", "0"]
    assert fingerprint(folder / "runs/old-mult-vae") == before
    report = json.loads((folder / "runs/new-mult-vae/retrained.json").read_text())
    assert f"{report['metrics']['ndcg@10']['before']:.4f}" in told
    settings = json.loads((folder / "runs/new-mult-vae/settings.json").read_text())
    assert settings["started_from"] == report["former_model"] == sha256_of(folder / "runs/old-mult-vae/model.keras")
    assert settings["settings"]["hidden"] == [8] and settings["settings"]["epochs"] == 2

    # It is finished, and a run like any other.
    after = fingerprint(folder / "runs/new-mult-vae")
    assert "nothing left to do" in run(*command).output
    assert fingerprint(folder / "runs/new-mult-vae") == after
    assert "10 users" in run("evaluate", "runs/new-mult-vae").output
    assert "score" in run("recommend", "runs/new-mult-vae", "--history", "100,138", "-k", "3").output


def test_models_in_closed_form_are_solved_anew_and_the_options_of_the_data_hold(folder):
    told = run("fit", "new.csv", *RATINGS, "--from", "runs/old-ease", "--run", "runs/ease-now").output
    assert "ease is solved anew" in told
    counts = [np.load(folder / f"runs/{name}/split.npz")["train.indices"].size for name in ("old-ease", "ease-now")]
    liked = [line for line in (folder / "new.csv").read_text().splitlines()[1:] if int(line.split(",")[2]) >= 2]
    assert counts[0] < counts[1] < len(liked)
    # The data have the name of the run's own, whose folder is another.
    run("fit", "old.csv", *RATINGS, "--from", "runs/old-ease")
    assert (folder / "runs/old-ease-2/retrained.json").is_file()
    assert "nothing left to do" in run("fit", "old.csv", *RATINGS, "--from", "runs/old-ease").output
    assert not (folder / "runs/old-ease-3").exists()


@pytest.mark.long
def test_a_run_with_items_as_rows_stays_one(folder):
    run("fit", "old.csv", *RATINGS, "--model", "autorec", "--by", "items", "--set", "units=4", "--epochs", "1")
    told = run("fit", "new.csv", *RATINGS, "--from", "runs/old-autorec-by-items", "--epochs", "1").output
    assert moved_in(told)["users"] == ["100", "40", "0"] and moved_in(told)["items"] == ["30", "10", "0"]
    assert "looks too good here" in told and " ratings:" in told
    assert (folder / "runs/new-autorec-by-items/run.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new.csv", *COLUMNS, "--from", "runs/none"], "holds no finished run"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--model", "ease"], "leave --model ease out"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--by", "items"], "leave --by out"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--held-out-users", "9"], "stay held out"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--run", "runs/old-mult-vae"], "is only read"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--run", "runs/old-ease"], "is another split"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--set", "latent_dim=9"], "latent_dim=9"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--set", "epoch=9"], "did you mean 'epochs'?"),
        (["new.csv", *COLUMNS, "--from", "runs/old-mult-vae", "--protocol", "leave-one-out"], "cannot be continued"),
        (["new.csv", "--from", "runs/old-ease", "--user-col", "uid", "--item-col", "nonsense"], "nonsense"),
        (["foreign.csv", *COLUMNS, "--from", "runs/old-mult-vae"], "none of the 30 items"),
        (["more.csv", *COLUMNS, "--from", "runs/old-mult-vae"], "the data as they are now"),
        (["none.csv", *COLUMNS, "--from", "runs/old-mult-vae"], "unknown file or data set"),
    ],
)
def test_bad_input_is_refused_before_any_model_is_loaded(folder, monkeypatch, arguments, message):
    monkeypatch.setattr(keras.models, "load_model", lambda *given, **options: pytest.fail("a model was loaded"))
    before = fingerprint(folder)
    told = run("fit", *arguments, code=2)
    assert told.stderr.startswith("Error: ") and message in told.stderr
    assert fingerprint(folder) == before
