"""TensorBoard: what is read back from the events is the run's history, once each, however often a run was killed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from event_readers import curves_in, events_in, hparams_in
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from tfvae.evaluation.codes import active_units, codes_of
from tfvae.system.errors import InputError
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.event_log import PATTERN, EventLog
from tfvae.training.loop import load_run, train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of
from tfvae.training.tensorboard import curve_name

VAE = {"hidden": [8], "latent_dim": 4, "epochs": 3, "batch_size": 45, "monitor": "ndcg@10", "anneal_updates": 4}


class Killed(BaseException):
    """Stands for a process that ends."""


def vae(**changes):
    return settings_of("mult-vae", VAE | changes)


def run(split, folder, settings=None, **options):
    return train(settings or vae(), split, folder, progress=False, log=[].append, **options)


@pytest.fixture(scope="module", autouse=True)
def codes_of_each_epoch():
    """Runs of few epochs look at their codes in each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.tensorboard.FEWEST_EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """An uninterrupted run and its log folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(tiny_split, folder), folder / "tensorboard"


# ---- curves -----------------------------------------------------------------------------------------


def test_the_curves_are_the_history_under_names_in_groups(whole):
    done, folder = whole
    curves = curves_in(folder)
    validation = {name.removeprefix("val_") for name in done.history[0] if name.startswith("val_")}
    assert curves.keys() == {
        *("loss/total", "loss/nll", "kl/total", "schedule/beta", "schedule/learning_rate"),
        *("time/seconds_per_epoch", "time/seconds_in_all", "codes/active_units", "best/ndcg@10"),
        *(f"validation/{name}" for name in validation),
    }
    for name in ("loss", "nll", "kl", "beta", "learning_rate", "seconds", "val_ndcg@10", "val_recall@20"):
        expected = {entry["epoch"]: entry[name] for entry in done.history}
        assert curves[curve_name(name)] == pytest.approx(expected, rel=1e-6), name
    assert curves["time/seconds_in_all"][2] == pytest.approx(done.seconds, rel=1e-6)
    assert curves["best/ndcg@10"] == pytest.approx({done.best_epoch: done.best["val_ndcg@10"]}, rel=1e-6)


@pytest.mark.parametrize(
    ("entry", "name"),
    [("kl_z2", "kl/z2"), ("items_kl", "kl/items"), ("items_nll", "loss/items_nll"), ("test_mae", "test/mae")],
)
def test_entries_of_other_models_fall_into_the_same_groups(entry, name):
    assert curve_name(entry) == name


def test_the_settings_are_text_and_hyperparameters(whole):
    text = next(value for (name, _), value in events_in(whole[1]).items() if name == "settings")
    assert b"\n    latent_dim = 4\n" in text.tensor.string_val[0]
    hparams = hparams_in(whole[1]).hparams
    assert hparams["latent_dim"].number_value == 4 and hparams["hidden"].string_value == "[8]"
    assert hparams["model"].string_value == "mult-vae"


def test_runs_of_one_name_are_sessions_of_their_own(whole, tiny_split, tmp_path):
    run(tiny_split, tmp_path / "run", settings_of("popularity", {}))
    names = [hparams_in(folder).group_name for folder in (whole[1], tmp_path / "run" / "tensorboard")]
    assert all(name.startswith("run, ") for name in names) and len(set(names)) == 2


# ---- resuming ---------------------------------------------------------------------------------------


def die_at(patch, epoch, moment):
    """Lets the next run end within an epoch: before or after its checkpoint is written, or after its events are."""
    save, add = ResumableCheckpoint.on_epoch_end, EventLog.add

    def save_and_die(self, number, logs=None):
        if number == epoch and moment == "before":
            raise Killed
        save(self, number, logs)
        if number == epoch and moment == "after":
            raise Killed

    def add_and_die(self, points):
        points = list(points)
        add(self, points)
        if moment == "logged" and points and points[0][0] == epoch:
            raise Killed

    patch.setattr(ResumableCheckpoint, "on_epoch_end", save_and_die)
    patch.setattr(EventLog, "add", add_and_die)


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before", "after", "logged"])
def test_a_killed_and_resumed_run_logs_what_an_uninterrupted_one_does(tiny_split, tmp_path, whole, moment):
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 1, moment)
        with pytest.raises(Killed):
            run(tiny_split, tmp_path)
    log = tmp_path / "tensorboard"
    (file,) = log.glob(PATTERN)
    file.write_bytes(file.read_bytes() + b"\x07\x00half a record")
    first = min(event.wall_time for event in LegacyEventFileLoader(str(file)).Load() if event.summary.value)
    run(tiny_split, tmp_path)

    found, expected = events_in(log), events_in(whole[1])
    assert found.keys() == expected.keys()
    for at, value in expected.items():
        if not at[0].startswith(("time/", "_hparams_/")):
            assert found[at].tensor == value.tensor, at
    times = [event.wall_time for file in log.glob(PATTERN) for event in LegacyEventFileLoader(str(file)).Load()]
    assert sorted(times)[0] == first  # the events of the former process keep their time
    assert curves_in(log).keys() == curves_in(whole[1]).keys()


def test_events_after_the_last_checkpoint_are_dropped(tiny_split, tmp_path, whole):
    # A process may log an epoch whose checkpoint is lost later on, as when a disk is damaged.
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 1, "logged")
        with pytest.raises(Killed):
            run(tiny_split, tmp_path)
    with EventLog(tmp_path / "tensorboard") as events:
        events.begin([], lambda name, step: True)
        events.add([(9, scalar_pb("loss/total", 1.0)), (9, scalar_pb("codes/active_units", 1.0))])
    run(tiny_split, tmp_path)
    assert events_in(tmp_path / "tensorboard").keys() == events_in(whole[1]).keys()


def test_a_finished_run_is_left_as_it_is(tiny_split, whole):
    before = {path: path.read_bytes() for path in whole[1].iterdir()}
    run(tiny_split, whole[1].parent)
    assert {path: path.read_bytes() for path in whole[1].iterdir()} == before


def test_events_of_the_users_own_are_kept(tmp_path):
    mine = tmp_path / "events.out.tfevents.0000000001.mine"
    mine.write_bytes(b"my own")
    for value in (1.0, 2.0):
        with EventLog(tmp_path) as events:
            events.begin([(0, scalar_pb("a", value))])
    assert mine.read_bytes() == b"my own" and len(list(tmp_path.iterdir())) == 2


# ---- how much ---------------------------------------------------------------------------------------


def test_a_run_that_logs_nothing_is_the_same_run(tiny_split, tmp_path, whole):
    quiet = run(tiny_split, tmp_path, tensorboard="off")
    assert not (tmp_path / "tensorboard").exists()
    for one, other in zip(quiet.history, whole[0].history, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    for one, other in zip(quiet.model.variables, whole[0].model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_an_unknown_detail_is_refused_before_anything_is_written(tiny_split, tmp_path):
    with pytest.raises(InputError, match="unknown detail of TensorBoard's log 'curve'; did you mean 'curves'"):
        run(tiny_split, tmp_path / "run", tensorboard="curve")
    assert not (tmp_path / "run").exists()


def test_curves_come_without_the_projector(tiny_split, tmp_path):
    run(tiny_split, tmp_path, vae(epochs=1), tensorboard="curves")
    assert all(path.match(PATTERN) for path in (tmp_path / "tensorboard").iterdir())


def test_a_model_without_epochs_has_its_settings(tiny_split, tmp_path):
    run(tiny_split, tmp_path, settings_of("popularity", {}))
    assert hparams_in(tmp_path / "tensorboard").hparams["model"].string_value == "popularity"


def test_removing_a_run_removes_what_it_logged(tiny_split, tmp_path):
    run(tiny_split, tmp_path / "run", vae(epochs=1))
    RunFolder(tmp_path / "run").remove()
    assert not (tmp_path / "run").exists()


# ---- codes ------------------------------------------------------------------------------------------


def test_codes_are_those_of_the_validation_users(whole, tiny_split):
    done, folder = whole
    assert done.best_epoch == done.epochs - 1  # so that the last histograms are those of the model that is kept
    codes, last = codes_of(done.model, tiny_split.validation.history), done.best_epoch
    found = events_in(folder)
    for name, array in (("mean", codes.mean), ("standard_deviation", codes.sd), ("kl_per_dimension", codes.kl)):
        buckets = tf.make_ndarray(found[f"codes/{name}", last].tensor)  # left and right edges, and counts
        assert buckets[:, 2].sum() == array.size, name
        assert [buckets[0, 0], buckets[-1, 1]] == pytest.approx([array.min(), array.max()], rel=1e-5), name
        assert {step for tag, step in found if tag == f"codes/{name}"} == {0, 1, 2}
    assert curves_in(folder)["codes/active_units"][last] == active_units(codes.mean)


@pytest.mark.parametrize(("epochs", "steps"), [(6, [0, 5]), (200, [0])])
def test_a_run_looks_at_its_codes_now_and_then(tiny_split, tmp_path, monkeypatch, epochs, steps):
    monkeypatch.setattr("tfvae.training.tensorboard.FEWEST_EPOCHS", 5)
    stop = iter([False] * 5 + [True])
    run(tiny_split, tmp_path, vae(epochs=epochs), stop=lambda: next(stop), tensorboard="curves")
    assert sorted(step for name, step in events_in(tmp_path / "tensorboard") if name == "codes/mean") == steps


# ---- the projector of a run -------------------------------------------------------------------------


def test_a_run_that_shows_a_part_says_so(tiny_split, tmp_path, monkeypatch):
    monkeypatch.setattr("tfvae.training.projector.MOST_ITEMS", 7)
    lines = []
    train(settings_of("bpr", {"epochs": 1}), tiny_split, tmp_path, progress=False, log=lines.append)
    assert "TensorBoard's projector has the 7 items that most users have, of 40." in lines


def test_the_projector_of_a_run_has_the_vectors_of_its_model(whole, tiny_split):
    done, folder = whole
    model = load_run(folder.parent).model
    vectors = tf.train.load_checkpoint(str(folder)).get_tensor("item_vectors")
    order = [int(line.split("\t")[-2]) for line in (folder / "metadata.tsv").read_text().splitlines()[1:]]
    places = [list(tiny_split.item_ids).index(item) for item in order]
    np.testing.assert_array_equal(vectors, model.item_vectors().numpy()[places])
    assert done.model.n_items == len(order)
