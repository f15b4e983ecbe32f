"""What searches and tables tell TensorBoard: a session for each trial, and the pictures of a page."""

from __future__ import annotations

import numpy as np
import pytest
from event_readers import curves_in, events_in, hparams_in
from matplotlib.image import imsave
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS

from tfvae.data.splits import StrongGeneralizationSettings, strong_generalization
from tfvae.data.synthetic import synthetic
from tfvae.experiments import sweep
from tfvae.experiments.records import Sweep, Trial
from tfvae.experiments.tensorboard import log_pictures, log_stored_trials, log_trial
from tfvae.training.settings import settings_of

OWN = settings_of("mult-vae", {"dropout": 0.5, "hidden": []})
SPACE = {"dropout": {"low": 0.0, "high": 0.9}, "hidden": {"choices": [[], [8]]}}


def sweep_of(*trials):
    return Sweep(
        table="tiny", row="Mult-VAE", dataset="own", seed=0, monitor="ndcg@10", epochs=None,
        settings=OWN.flat(), space=SPACE, environment={}, commit=None, data_digest="",
        trials=list(trials),
    )  # fmt: skip


def trial(number, value, **more):
    state = "failed" if value is None else "complete"
    params = {"dropout": 0.1 * number, "hidden": [8]}
    epoch = None if value is None else 1
    return Trial(number=number, state=state, params=params, value=value, best_epoch=epoch, seconds=2.5, **more)


def test_each_trial_of_a_sweep_is_a_session_with_what_was_tried_and_found(tmp_path):
    found = sweep_of(trial(0, 0.25), trial(1, None, reason="it diverged"))
    history = [{"epoch": e, "loss": 3.0 - e, "val_ndcg@10": 0.2 + 0.05 * e, "seconds": 1.0} for e in range(2)]
    log_trial(tmp_path, found, found.trials[0], history)
    log_trial(tmp_path, found, found.trials[1], [])
    first, second = tmp_path / "trial-000", tmp_path / "trial-001"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [first.name, second.name]
    tried = hparams_in(second)
    assert tried.hparams["dropout"].number_value == 0.1 and tried.hparams["hidden"].string_value == "[8]"
    assert (tried.hparams["model"].string_value, tried.group_name) == ("mult-vae", "trial 1 of Mult-VAE, tiny on own")
    assert hparams_in(first, "session_end_info").status == STATUS_SUCCESS
    assert hparams_in(second, "session_end_info").status == STATUS_FAILURE
    curves = curves_in(first)
    assert curves["best/ndcg@10"] == {1: 0.25} and curves["loss/total"] == {0: 3.0, 1: 2.0}
    assert not any(name.startswith(("best/", "loss/")) for name in curves_in(second))
    assert events_in(second)["reason", 0].tensor.string_val == [b"it diverged"]


def test_the_log_of_a_sweep_has_the_trials_of_its_record(tmp_path):
    found = sweep_of(trial(0, 0.25), trial(1, 0.5))
    log_trial(tmp_path, found, found.trials[0], [{"epoch": 0, "loss": 1.0, "seconds": 1.0}])
    log_trial(tmp_path, found, trial(2, 0.75), [])  # as after a kill before the record was written
    before = {path.name for path in (tmp_path / "trial-000").iterdir()}
    log_stored_trials(tmp_path, found)
    assert {path.name for path in (tmp_path / "trial-000").iterdir()} == before
    assert curves_in(tmp_path / "trial-001")["best/ndcg@10"] == {1: 0.5}
    assert not list((tmp_path / "trial-002").glob("*"))


@pytest.mark.slow
def test_a_sweep_logs_its_trials_as_it_goes(tmp_path, monkeypatch):
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    (tmp_path / "results" / "tiny" / "table.toml").write_text(
        'title = "Tiny"\ncaption = "For tests."\nmetrics = ["ndcg@10"]\nmonitor = "ndcg@10"\n'
        '[[rows]]\nname = "Mult-VAE"\nslug = "mult-vae"\nmodel = "mult-vae"\n'
        "settings = { epochs = 2, batch_size = 50, latent_dim = 4, hidden = [] }\n"
        "search.dropout = { low = 0.0, high = 0.8 }\n"
    )
    split = strong_generalization(synthetic(150, 40, 1800, seed=1), StrongGeneralizationSettings(held_out_users=30))
    monkeypatch.setattr(sweep, "splits_of", lambda *_: lambda seed, by: split)
    folders = {"results": tmp_path / "results", "work": tmp_path / "work", "progress": False, "log": [].append}
    found = sweep.run_sweep("tiny", "mult-vae", "ml-1m", 2, **folders)
    for number, tried in enumerate(found.trials):
        folder = tmp_path / "work" / "tiny" / "ml-1m" / "mult-vae.sweep" / "tensorboard" / f"trial-00{number}"
        assert hparams_in(folder).hparams["dropout"].number_value == tried.params["dropout"]
        curves = curves_in(folder)
        assert curves["best/ndcg@10"] == pytest.approx({tried.best_epoch: tried.value}, rel=1e-6)
        assert max(curves["validation/ndcg@10"].values()) == pytest.approx(tried.value, rel=1e-6)
        assert len(curves["loss/total"]) == 2


def test_pictures_are_logged_as_they_are(tmp_path):
    picture = tmp_path / "latents.png"
    for shade in (0.0, 1.0):  # the second replaces the first
        imsave(picture, np.full((4, 6, 3), shade))
        log_pictures(tmp_path / "log", [picture, tmp_path / "missing.png"])
    ((at, value),) = events_in(tmp_path / "log").items()
    assert at == ("pictures/latents", 0) and value.metadata.plugin_data.plugin_name == "images"
    assert list(value.tensor.string_val) == [b"6", b"4", picture.read_bytes()]
    log_pictures(tmp_path / "none", [tmp_path / "missing.png"])
    assert not (tmp_path / "none").exists()
