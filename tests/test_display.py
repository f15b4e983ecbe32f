"""What the commands print."""

from __future__ import annotations

from types import SimpleNamespace

from tfvae.cli.display import show_runs


def test_a_run_without_a_metric_of_another_has_a_dash_there(capsys):
    ndcg, bound = {"mean": 0.41234, "se": 0.005}, {"mean": -600.5, "se": 7.25}
    runs = [
        SimpleNamespace(row="EASE", seed=1, metrics={"ndcg@100": ndcg}),
        SimpleNamespace(row="Vamp", seed=2, metrics={"ndcg@100": ndcg, "elbo": bound}),
    ]
    show_runs(runs)
    headings, ease, vamp = (line.split() for line in capsys.readouterr().out.splitlines())
    assert headings == ["row", "seed", "ndcg@100", "elbo"]
    assert ease == ["EASE", "1", "0.4123", "±", "0.0050", "–"]
    assert vamp == ["Vamp", "2", "0.4123", "±", "0.0050", "-600.5000", "±", "7.2500"]
