"""RecVAE against an independent dense reference; its phases, its old encoder, resuming in a round, validation."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded, random_rows, rows_of
from evcf_reference import dense_shapes
from plain_fit import fit
from recvae_reference import SMALL, Reference, Rows, Watch, equal, ready, state_of, values_of

from tfvae.evaluation.latents import has_latents, latent_diagnostics
from tfvae.models import recvae
from tfvae.models.multvae import MultVAE
from tfvae.models.recvae import RecVAE
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import prepare_to_fit, train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

ALL = tf.range(7, dtype=tf.int64)
PHASES = {"encoder": {}, "decoder": {}, "both": {"alternation": ()}}
EPOCHS = {"encoder": 0, "decoder": 3, "both": 0}
AIMS = {"encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}
every_phase = pytest.mark.parametrize("phase", PHASES)


def floats(logs):
    return {name: float(value) for name, value in logs.items()}


def recorded_step(model, monkeypatch):
    """The logs of one training step on all seven users, run eagerly, and what it drew."""
    Recorded.drawn = drawn = {}
    monkeypatch.setattr("tfvae.models.gradient.Noise", Recorded)
    return floats(model.train_step(ALL)), drawn


CASES = {
    "as published": ({}, None),
    "joint prior": ({"prior_type": "joint-composite", "prior_weights": (0.3, 0.3, 0.4)}, None),
    "standard prior": ({"prior_type": "standard", "gamma": 0.02}, None),
    "closed form": ({"prior_type": "standard", "divergence": "analytic"}, None),
    "annealed": ({"kl_weight": "annealed", "beta_cap": 0.3, "anneal_updates": 0}, 0.3),
    "fixed": ({"kl_weight": "fixed", "beta_cap": 0.4, "prior_type": "joint-composite"}, 0.4),
    "plain encoder": ({"encoder_type": "plain", "hidden": (6, 5), "activation": "tanh"}, None),
    "denoised decoder": ({"denoise_decoder": True, "dropout": 0.4, "layer_norm_epsilon": 1e-5}, None),
    "all else": (
        {
            "decoder_hidden": (5, 4),
            "weight_decay": 1e-2,
            "initializer": "glorot",
        },
        None,
    ),
}


BOTH = ["as published", "fixed", "all else"]


@pytest.mark.parametrize(
    ("case", "phase"), [(case, phase) for case in CASES for phase in PHASES if phase != "both" or case in BOTH]
)
def test_loss_and_gradients_equal_the_dense_reference(case, phase, monkeypatch):
    x, (settings, beta) = random_rows(), CASES[case]
    model = ready(x, EPOCHS[phase], **{"gamma": 0.1} | settings | PHASES[phase])
    reference = Reference(model)
    logs, drawn = recorded_step(model, monkeypatch)
    with tf.GradientTape() as tape:
        parts, loss = reference.per_user(x, drawn), reference.loss(x, drawn, beta)
    gradients = tape.gradient(loss, reference.weights)

    dropped = phase != "decoder" or model.denoise_decoder
    assert drawn.keys() == {"z"} | ({"encoder_0/dropout"} if dropped else set())
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    for name, values in parts.items():
        np.testing.assert_allclose(logs[name], tf.reduce_mean(values), rtol=1e-4, atol=1e-5, err_msg=name)
    assert ("beta" in logs) == (beta is not None) and logs.get("beta", beta) == pytest.approx(beta)
    old = [] if model.old_encoder is None else model.old_encoder.variables
    for variable in old:  # where the two encoders are one, the reference, too, changes only the other
        np.testing.assert_array_equal(variable, np.float32(reference.weights[variable.path]))
    for objective, optimizer in model.optimizers.items():
        variables = model.objectives[objective].variables
        learns = objective in AIMS[phase]
        assert int(optimizer.iterations) == learns
        for variable, momentum in zip(variables, optimizer._momentums, strict=True):
            # After one step from zero Adam's first moment is a tenth of the gradient.
            found, expected = momentum.numpy() * 10, gradients[variable.path].numpy()
            scale = np.abs(expected).max()
            assert scale > 1e-6, variable.path
            if learns:
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=3e-5 * scale, err_msg=variable.path)
            else:
                np.testing.assert_array_equal(found, np.zeros_like(found))


@every_phase
def test_the_old_encoder_has_no_gradient(phase):
    model = ready(random_rows(), EPOCHS[phase], **PHASES[phase])
    with tf.GradientTape(watch_accessed_variables=False) as tape:  # as in a training step
        tape.watch([variable.value for variable in model.old_encoder.variables])
        loss = model.objective(model.histories.gather(ALL), Noise(1, tf.constant(0)))["loss"]
    assert set(tape.gradient(loss, [variable.value for variable in model.old_encoder.variables])) == {None}


def test_scores_are_the_decoders_at_the_mean_of_whole_histories():
    x = random_rows()
    model = ready(x)
    reference = Reference(model)
    mean, _ = reference.encode("encoder", reference.dropped(x, {}))
    np.testing.assert_allclose(model.scores(rows_of(x)), reference.logits(mean), rtol=1e-4, atol=1e-5)


# ---- the weight of the divergence ------------------------------------------------------------------


@every_phase
def test_a_users_divergence_is_weighed_by_gamma_times_all_their_items_inside_the_mean(phase, monkeypatch):
    x = random_rows(n_items=40, empty=(2,))
    more = x.copy()
    more[0, np.flatnonzero(x[0] == 0)[: int(x[0].sum())]] = 1
    assert more[0].sum() == 2 * x[0].sum() > 0
    for which in (np.eye(7)[0], np.arange(7.0)):
        monkeypatch.setattr(recvae, "kl", lambda *_, which=which, **__: tf.constant(which, tf.float32))
        for rows in (x, more):  # nine items in ten are dropped
            model = ready(rows, EPOCHS[phase], gamma=0.25, dropout=0.9, denoise_decoder=True, **PHASES[phase])
            logs = floats(model.train_step(ALL))
            assert logs["loss"] - logs["nll"] == pytest.approx(0.25 * (which * rows.sum(axis=1)).mean(), abs=2e-5)
            assert logs["kl"] == pytest.approx(which.mean())


def test_beta_is_its_cap_or_ramps_or_does_not_exist():
    def betas(kl_weight):
        model = ready(random_rows(), 0, kl_weight=kl_weight, beta_cap=0.3, anneal_updates=5)
        logs = []
        for _ in range(3):
            model.reset_metrics()
            logs.append(floats(model.train_step(ALL)))
        for entry in logs:
            if "beta" in entry:
                assert entry["loss"] == pytest.approx(entry["nll"] + entry["beta"] * entry["kl"], rel=1e-5)
        return [entry.get("beta") for entry in logs]

    assert betas("fixed") == pytest.approx([0.3] * 3)
    assert betas("annealed") == pytest.approx([0.0, 0.2, 0.3])
    assert betas("rescaled") == [None] * 3


# ---- phases ----------------------------------------------------------------------------------------


def watched(n_epochs, **settings):
    model, watch = ready(random_rows(23, 13), **settings), Watch()
    fit(model, 23, 10, n_epochs, callbacks=[watch])  # three updates an epoch
    return model, watch


@pytest.mark.parametrize(("alternation", "n_epochs"), [((3, 1), 8), ((1, 2), 6)], ids=str)
def test_each_phase_leaves_the_others_weights_and_optimizer_alone(alternation, n_epochs, monkeypatch):
    monkeypatch.setattr(recvae, "USERS_AT_ONCE", 9)
    _, watch = watched(n_epochs, alternation=alternation)
    done = {"encoder": 0, "decoder": 0}
    old = watch.begun[0]["old"]
    assert not equal(old, watch.begun[0]["encoder"])
    for epoch, (before, after) in enumerate(zip(watch.begun, watch.ended, strict=True)):
        in_round = epoch % sum(alternation)
        phase, other = ("encoder", "decoder") if in_round < alternation[0] else ("decoder", "encoder")
        done[phase] += 3
        assert after["iterations"] == done
        assert equal(before[other], after[other]) and equal(before["states"][other], after["states"][other])
        for part in (phase, "states"):
            one, two = (seen[part] if part == phase else seen[part][phase] for seen in (before, after))
            assert not any(np.array_equal(a, b) for a, b in zip(one, two, strict=True) if a.ndim)
        # The old encoder becomes the encoder right before the decoder's first epoch, and at no other time.
        if in_round == alternation[0]:
            assert not equal(old, before["old"]) and equal(before["old"], before["encoder"])
            old = before["old"]
        assert equal(old, before["old"]) and equal(old, after["old"])
        for seen in (before, after):
            np.testing.assert_allclose(seen["remembered"], seen["codes"], rtol=1e-5, atol=1e-6)
            assert seen["objects"] == watch.begun[0]["objects"] and seen["trainable"] == watch.begun[0]["trainable"]
        if epoch:  # the moments of a phase go on where they were
            for name in done:
                assert equal(watch.ended[epoch - 1]["states"][name], before["states"][name])
    trainable = {path.split("_")[0] for path, learns in watch.begun[0]["trainable"] if learns}
    assert trainable == {"encoder", "decoder"}


def test_both_are_trained_in_every_epoch_and_the_old_encoder_follows_an_epoch_behind():
    model, watch = watched(3, alternation=())
    for epoch, (before, after) in enumerate(zip(watch.begun, watch.ended, strict=True)):
        assert after["iterations"] == {"encoder": 3 * epoch + 3, "decoder": 3 * epoch + 3}
        assert not equal(before["encoder"], after["encoder"]) and not equal(before["decoder"], after["decoder"])
        assert equal(before["old"], after["old"]) and equal(before["old"], before["encoder"]) == (epoch > 0)
        np.testing.assert_allclose(before["remembered"], before["codes"], rtol=1e-5, atol=1e-6)
    assert all(model.round_ends(epoch) for epoch in range(5))


def test_remembered_codes_are_of_whole_histories_and_forgotten_with_them():
    x = random_rows()
    model = ready(x, 3, dropout=0.9)
    codes = model.encoder(rows_of(x)).numpy()
    np.testing.assert_allclose(model._old_codes.of(tf.constant([4, 0, 2])), codes[[4, 0, 2]], rtol=1e-5, atol=1e-6)
    other = random_rows(seed=1)
    model.attach(Rows(other).train)
    model.begin_epoch(0)
    np.testing.assert_allclose(model._old_codes.of(ALL), model.old_encoder(rows_of(other)), rtol=1e-5, atol=1e-6)


def test_the_encoder_is_not_computed_where_only_the_decoder_is_trained():
    one, other = (ready(random_rows(), 3, seed=5) for _ in range(2))
    for variable in (*other.encoder.variables, *other.old_encoder.variables):
        variable.assign(np.full(variable.shape, np.nan))
    assert floats(one.train_step(ALL)) == floats(other.train_step(ALL))
    assert equal(values_of(one.decoder.variables), values_of(other.decoder.variables))
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss"):  # of which this would be the sign
        other.begin_epoch(4)
        other.train_step(ALL)


def test_a_phases_step_takes_no_gradient_of_the_other_part():
    def kinds_and_shapes(phase, **settings):
        model = ready(random_rows(), EPOCHS[phase], **PHASES[phase] | settings)
        shapes = dense_shapes(lambda: model.train_step(ALL))
        of_items = ("MatMul", (13, 3)) in shapes  # the gradient of the decoder's kernel, by its shape
        bags = [shape for kind, shape in shapes if kind == "SparseSegmentSumWithNumSegments" and shape[1] == 6]
        hidden = sum(kind == "MatMul" and shape == (6, 6) for kind, shape in shapes)  # of kernels of the encoder
        return of_items, len(bags), hidden

    # Two hidden layers and the heads have kernels of 6 by 6.
    assert kinds_and_shapes("encoder") == (False, 2, 3)
    assert kinds_and_shapes("decoder") == (True, 0, 0)
    assert kinds_and_shapes("decoder", denoise_decoder=True) == (True, 1, 0)


def test_an_encoders_step_makes_no_gradient_as_wide_as_the_catalogue():
    def kinds_on_logits(phase):
        model = ready(random_rows(), EPOCHS[phase])
        return {kind for kind, shape in dense_shapes(lambda: model.train_step(ALL)) if shape == (7, 13)}

    backward = {"Mul", "SparseTensorDenseAdd"}
    assert backward <= kinds_on_logits("decoder")
    assert not backward & kinds_on_logits("encoder")


@pytest.mark.parametrize("phase", ["encoder", "decoder"])
def test_half_precision_trains_in_every_phase(phase):
    x = random_rows()
    exact, half = (ready(x, EPOCHS[phase], dtype=dtype, **PHASES[phase]) for dtype in ("float32", "mixed_bfloat16"))
    one, other = (floats(model.train_step(ALL)) for model in (exact, half))
    assert other["loss"] == pytest.approx(one["loss"], rel=0.02)


# ---- runs ------------------------------------------------------------------------------------------

RUN = {"hidden": [8, 8], "latent_dim": 4, "batch_size": 40, "learning_rate": 0.01, "monitor": "ndcg@10"}


def run(folder, split, **changes):
    return train(settings_of("recvae", RUN | changes), split, folder, progress=False)


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """A run of two rounds and an epoch, the folder it lies in beside copies as kills leave them, and its last state."""
    folder, last = tmp_path_factory.mktemp("rounds"), {}

    class Copying(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            shutil.copytree(self._folder, folder / f"killed-{epoch}")
            last["state"] = state_of(self.model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Copying)
        done = run(folder / "whole", tiny_split, epochs=9)
    assert done.model.prior_type == "composite" and done.model.encoder_type == "dense"
    return done, folder, last["state"]


@pytest.mark.parametrize("epoch", [2, *(pytest.param(epoch, marks=pytest.mark.long) for epoch in (0, 1, 3))])
def test_a_run_killed_after_any_epoch_of_a_round_goes_on_to_equal_bits(epoch, whole, tiny_split):
    uninterrupted, folder, expected = whole
    last = {}

    class Watching(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            last[epoch] = state_of(self.model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Watching)
        done = run(folder / f"killed-{epoch}", tiny_split, epochs=9)
    assert done.resumed and list(last) == list(range(epoch + 1, 9))
    assert without_seconds(done.history) == without_seconds(uninterrupted.history)
    assert equal(last[8], expected)  # with the old encoder and both optimisers
    assert equal(values_of(done.model.variables), values_of(uninterrupted.model.variables))


def test_only_whole_rounds_and_the_last_epoch_are_validated(whole):
    done, *_ = whole
    validated = [entry["epoch"] for entry in done.history if any(name.startswith("val_") for name in entry)]
    assert validated == [3, 7, 8] and len(done.history) == 9
    values = {epoch: done.history[epoch]["val_ndcg@10"] for epoch in validated}
    assert done.best_epoch == max(values, key=values.get)
    assert all(entry.keys() >= {"loss", "nll", "kl", "learning_rate"} and "beta" not in entry for entry in done.history)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 6), (3, 6), (4, 9), (None, 12)])
def test_patience_counts_epochs_and_ends_training_after_a_whole_round(patience, epochs, tmp_path):
    keeper, model = ResumableCheckpoint(tmp_path, "value", patience), RecVAE(13, alternation=(2, 1), **SMALL)
    for epoch in range(12):
        keeper.history.append({"epoch": epoch} | ({"value": 1 / (epoch + 1)} if model.round_ends(epoch) else {}))
        if keeper.out_of_patience:
            break
    assert (len(keeper.history), keeper.best_epoch) == (epochs, 2)


# ---- beside Mult-VAE -------------------------------------------------------------------------------


def test_with_every_part_the_other_way_it_is_mult_vae():
    x = random_rows(23, 13)
    common = {"hidden": (9,), "latent_dim": 3, "beta_cap": 0.5, "anneal_updates": 8, "weight_decay": 1e-3, "seed": 7}
    other_way = {"encoder_type": "plain", "activation": "tanh", "decoder_hidden": (9,), "prior_type": "standard"}
    other_way |= {"kl_weight": "annealed", "alternation": (), "initializer": "glorot", "divergence": "analytic"}
    models = RecVAE(13, **common | other_way), MultVAE(13, **common)
    histories = []
    for model in models:
        prepare_to_fit(model, Rows(x), 0.01)
        histories.append(fit(model, 23, 10, epochs=3).history)
    one, other = ({variable.path: variable.numpy() for variable in model.trainable_variables} for model in models)
    assert one.keys() == other.keys()
    for path, value in other.items():
        np.testing.assert_allclose(one[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    assert histories[0].keys() == histories[1].keys() == {"loss", "nll", "kl", "beta"}
    for name, values in histories[1].items():
        assert histories[0][name] == pytest.approx(values, rel=1e-5), name


def test_weights_that_are_no_shares_are_refused():
    with pytest.raises(InputError, match=r"prior_weights are \[0.3, 0.5, 0.1\]; expected three shares that sum to 1"):
        RecVAE(13, prior_weights=(0.3, 0.5, 0.1), **SMALL)


def test_the_composite_prior_is_each_users_own_and_the_standard_one_is_everyones():
    x = random_rows()
    own, one = RecVAE(13, **SMALL), RecVAE(13, prior_type="standard", **SMALL)
    with pytest.raises(InputError, match='no p\\(z\\) without users; prior_type="standard" has one'):
        own.prior()
    assert own.prior(rows_of(x)).batch_shape == (7,) and one.prior().batch_shape == ()
    assert not has_latents(own) and has_latents(one)
    found = latent_diagnostics(one, Rows(x).train, samples=5)
    assert found.values["latent_dim"] == 3 and np.isfinite(found.per_user["iwae"]).all()


@pytest.mark.parametrize("prior_type", ["composite", "joint-composite", "standard"])
def test_importance_weights_are_of_each_users_prior(prior_type):
    x = random_rows()
    model = ready(x, prior_type=prior_type, dropout=0.9)
    found = model.importance(rows_of(x))(Noise(1, tf.constant(4)))
    drawn = {"z": Noise(1, tf.constant(4)).normal((7, 3), "z").numpy()}
    parts = Reference(model).per_user(x, drawn)
    np.testing.assert_allclose(found, -(parts["nll"] + parts["kl"]), rtol=1e-4, atol=1e-4)
