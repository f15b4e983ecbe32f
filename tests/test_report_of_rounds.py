"""Reports of models that are trained in rounds of several epochs, and published learning curves."""

from __future__ import annotations

import pytest
from stored_runs import page, section, store, values

from tfvae.data.datasets import DATASETS
from tfvae.experiments import plots
from tfvae.system.errors import InputError

pytestmark = pytest.mark.slow

TABLE = """
title = "A table"
caption = "For tests."
metrics = ["ndcg@100"]

[[rows]]
name = "RecVAE"
slug = "recvae"
model = "recvae"

[rows.curves.ml-20m]
source = "a re-run"
rounds = [1, 2, 50]
values = [0.3, 0.36, 0.4]

[rows.curves.msd]
source = "another"
rounds = [1, 3]
values = [0.1, 0.2]

[[rows]]
name = "EASE"
slug = "ease"
model = "ease"
"""


@pytest.fixture
def results(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.toml").write_text(TABLE)
    return tmp_path


def of_rounds(results, seed, history, validated):
    epochs = validated[-1] + 1
    store(results, "recvae", seed, {"ndcg@100": values(0.4, 0.1)}, epochs=epochs, history=history, validated=validated)


def test_seconds_are_given_by_epochs_and_by_rounds(results):
    of_rounds(results, 1, [0.3, 0.4], [3, 7])
    store(results, "ease", 1, {"ndcg@100": values(0.4, 0.1)})
    runs = section(page(results), "Runs")
    # Ten seconds, in which there were eight epochs and two rounds.
    assert "| s/epoch | s/round | peak GB |" in runs and "| 10 | 1.25 | 5 | – |" in runs
    assert "| EASE | 1 | – | 0.4000 | – | – | 10 | – | – | – |" in runs
    lines = [line for line in runs.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "\n".join(lines) in runs  # a blank line would end the table


def test_a_table_whose_rounds_are_epochs_does_not_speak_of_them(results):
    store(results, "recvae", 1, {"ndcg@100": values(0.4, 0.1)})
    assert "s/round" not in page(results)


def test_curves_stand_beside_published_ones_as_shares_of_their_best(results, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "learning_shapes", lambda shares, path, **_: drawn.append((shares, path.name)))
    monkeypatch.setattr(plots, "learning_curves", lambda curves, *_, **__: drawn.append(curves))
    of_rounds(results, 1, [0.2, 0.36, 0.4], [3, 7, 11])
    of_rounds(results, 2, [0.3, 0.36, 0.4, 0.9], [3, 7, 11, 15])
    found = section(page(results), "Learning curves by round, beside published ones")
    curves, (shares, picture) = drawn
    assert curves == {"RecVAE": [{3: 0.2, 7: 0.36, 11: 0.4}, {3: 0.3, 7: 0.36, 11: 0.4, 15: 0.9}]}
    # The mean over the seeds goes as far as the shorter.
    ours, *theirs = shares
    assert theirs == [f"RecVAE on {DATASETS[name].title}, published" for name in ("ml-20m", "msd")]
    ours = shares[ours]
    assert list(ours) == [1, 2, 3] and list(ours.values()) == pytest.approx([0.625, 0.9, 1.0])
    assert picture in found
    assert "| 0.750 |" in found and "| 0.4000 | a re-run |" in found and "| 0.2000 | another |" in found


@pytest.mark.parametrize("rounds", ["[1, 2]", "[1, 3, 2]", "[1, 1, 2]"])
def test_a_published_curve_has_one_value_for_each_of_its_ascending_rounds(results, rounds):
    (results / "table" / "table.toml").write_text(TABLE.replace("[1, 2, 50]", rounds))
    with pytest.raises(InputError, match="ascending rounds and one value for each"):
        page(results)
