"""GMF, MLP and NeuMF against NumPy: what they compute, the pairs they are trained on, the phases of pre-training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_reference import random_rows, rows_of
from plain_fit import fit
from scipy.sparse import csr_array

from tfvae.evaluation.evaluate import evaluate
from tfvae.models.ncf import GMF, MLP, NeuMF
from tfvae.nn.batches import PairStore, RowStore
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

N_USERS, N_ITEMS = 7, 13
MODELS = {"gmf": GMF, "mlp": MLP, "neumf": NeuMF}
PRETRAINED = {"gmf_epochs": 1, "mlp_epochs": 2, "mix": 0.4}


def build(kind=NeuMF, x=None, **settings):
    """A small model with weights large enough to see; compiled where it gets rows."""
    model = kind(N_ITEMS, N_USERS, factors=3, **settings)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=0.5, size=variable.shape))
    if x is not None:
        model.attach(csr_array(x))
        model.compile(FusedAdam(0.02), jit_compile=False)
    return model


def phi(part, user, item):
    """Equations 8 and 10 for one pair, by NumPy."""
    p, q = part.users.numpy()[user], part.items.numpy()[item]
    if part.name == "gmf":
        return p * q
    hidden = np.concatenate([p, q])
    for layer in [part, *part.rest]:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    return hidden


def logit(head, *phis):
    return float(np.concatenate(phis) @ head.kernel.numpy()[:, 0] + head.bias.numpy()[0])


def cross_entropy(logits, labels):
    """Of each pair; log(1 + exp(±logit))."""
    return np.logaddexp(0, np.where(labels, -np.asarray(logits), np.asarray(logits)))


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_papers_formulas(name):
    model = build(MODELS[name])
    users = [5, 0, 5, 6]
    scores = model.scores(RowStore(csr_array(random_rows())).gather(tf.constant(users)))
    expected = [[logit(model.head, *(phi(p, u, i) for p in model.networks)) for i in range(N_ITEMS)] for u in users]
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    pairs = model.pair_logits(tf.constant([6, 0, 5]), tf.constant([12, 4, 4]))
    np.testing.assert_allclose(pairs, [expected[3][12], expected[1][4], expected[0][4]], rtol=1e-5, atol=1e-6)


def test_the_layers_are_as_wide_as_the_authors():
    # For 8 factors: layers [64, 32, 16, 8], of which the first is the two vectors of 32.
    tower = MLP(N_ITEMS, N_USERS, factors=8).networks[0]
    assert [layer.kernel.shape for layer in [tower, *tower.rest]] == [(64, 32), (32, 16), (16, 8)]
    assert tower.users.shape == (N_USERS, 32) and tower.items.shape == (N_ITEMS, 32)
    model = NeuMF(N_ITEMS, N_USERS, factors=8)
    assert model.networks[0].users.shape == (N_USERS, 8) and model.head.kernel.shape == (16, 1)
    assert model.n_parameters == 20 * 8 + 20 * 32 + (64 * 32 + 32) + (32 * 16 + 16) + (16 * 8 + 8) + 17


def test_first_values_are_the_authors():
    model = NeuMF(2000, 2000, factors=8)
    for table in (table for part in model.networks for table in (part.users, part.items)):
        assert np.std(table) == pytest.approx(0.01, rel=0.05)
    limit = np.sqrt(3 / 16)  # LeCun's, for 16 inputs
    largest = np.abs(model.head.kernel.numpy()).max()
    assert 0.7 * limit < largest <= limit


def test_an_epoch_streams_every_interaction_once():
    x = random_rows(N_USERS, N_ITEMS)
    x[2] = 0
    rows = csr_array(x)
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        rows.indices[start:stop] = rows.indices[start:stop][::-1]  # sorted by the store
    rows.has_sorted_indices = False
    model = build()
    model.attach(rows)
    assert model.histories.n_rows == GMF.n_rows(rows) == x.sum()
    pairs = model.histories.gather(tf.range(rows.nnz))
    assert [*zip(pairs.users.numpy(), pairs.items.numpy(), strict=True)] == [*zip(*np.nonzero(x), strict=True)]
    np.testing.assert_array_equal(pairs.segment_ids, np.arange(rows.nnz))
    assert np.all(pairs.lengths == 1)


def test_negatives_are_never_the_users_items_and_equally_often_all_others():
    x = random_rows(N_USERS, N_ITEMS, density=0.5)
    x[1], x[3], x[4] = 0, 1, 0
    x[1, [0, 1, 12]] = x[4, 6] = 1
    x[3, 7] = 0  # all but one
    x[5] = 0
    users = np.random.default_rng(0).permutation(np.repeat(np.arange(N_USERS), 5000))
    uniform = Noise(1, tf.constant(0)).uniform([len(users)], "negatives")
    drawn, some = PairStore(csr_array(x)).unseen(tf.constant(users), uniform)
    assert np.all(some)
    for user in range(N_USERS):
        counts = np.bincount(drawn.numpy()[users == user], minlength=N_ITEMS)
        unseen = x[user] == 0
        np.testing.assert_array_equal(counts > 0, unseen)
        mean = 5000 / unseen.sum()
        assert np.all(np.abs(counts[unseen] - mean) < 5 * np.sqrt(mean))


def test_the_draw_at_both_ends_of_the_uniform():
    store = PairStore(csr_array(np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.float32)))
    for value, expected in {0.0: [2, 0], np.float32(1 - 2**-24): [3, 1]}.items():
        drawn, some = store.unseen(tf.range(3, dtype=tf.int64), tf.fill([3], value))
        assert drawn.numpy()[:2].tolist() == expected and some.numpy().tolist() == [True, True, False]
        assert 0 <= drawn.numpy()[2] < 5  # who has everything; a lookup must not fail


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_the_drawn_pairs(name, monkeypatch):
    x = random_rows(N_USERS, N_ITEMS)
    x[4] = 1  # of whom no pair without x = 1 exists
    model = build(MODELS[name], x, negatives=2)
    numbers = np.random.default_rng(3).permutation(int(x.sum()))[:20]
    owners, items = (side[numbers] for side in np.nonzero(x))
    assert 0 < sum(owners == 4) < 20
    before = [variable.numpy() for variable in model.trainable_variables]
    trained, pairs = [], model.pairs
    monkeypatch.setattr(model, "pairs", lambda *given: trained.append(pairs(*given)) or trained[0])
    loss = float(model.train_step(tf.constant(numbers))["loss"])
    moved = [not np.array_equal(v.numpy(), old) for v, old in zip(model.trainable_variables, before, strict=True)]
    assert all(moved)
    everything = [*zip(*(side.numpy() for side in trained[0][:2]), strict=True)]
    assert everything[:20] == [*zip(owners, items, strict=True)]
    assert len(everything) == 60 and len({*everything[20:]}) > 10
    counted = [(*pair, n < 20) for n, pair in enumerate(everything) if n < 20 or pair[0] != 4]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        variable.assign(old)
    logits = [logit(model.head, *(phi(part, u, i) for part in model.networks)) for u, i, _ in counted]
    assert loss == pytest.approx(cross_entropy(logits, [label for *_, label in counted]).sum() / 60, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_weight_decay_is_of_tables_and_kernels_but_the_heads(name):
    x = random_rows(N_USERS, N_ITEMS)
    losses = []
    for weight_decay in (0.0, 0.5):
        model = build(MODELS[name], x, weight_decay=weight_decay)
        of_parts = [v for part in model.networks for v in part.trainable_variables]
        squares = sum(np.sum(v.numpy() ** 2) for v in of_parts if len(v.shape) == 2)
        losses.append(float(model.train_step(tf.range(N_USERS, dtype=tf.int64))["loss"]))
    assert losses[1] - losses[0] == pytest.approx(0.5 * squares, rel=1e-4)


@pytest.mark.slow
def test_negatives_are_redrawn_in_every_epoch():
    x = random_rows(N_USERS, N_ITEMS)
    model, n_rows = build(GMF, x), int(x.sum())
    model.compile(FusedAdam(1e-12), jit_compile=False)
    losses = fit(model, n_rows, n_rows, epochs=4).history["bce"]
    assert len(set(losses)) == 4
    again = fit(build(GMF, x), n_rows, n_rows, epochs=1).history["bce"]
    assert again[0] == losses[0]


# ---- pre-training -----------------------------------------------------------------------------------


def test_mixing_gives_the_mean_of_the_parts_logits():
    model = build(x=random_rows(), gmf_epochs=2, mlp_epochs=2)
    pairs = tf.repeat(tf.range(N_USERS), N_ITEMS), tf.tile(tf.range(N_ITEMS), [N_USERS])
    alone = [head([model.join(part, *pairs)]) for part, head in zip(model.networks, model.heads_alone, strict=True)]
    assert np.abs(model.pair_logits(*pairs) - (alone[0] + alone[1]) / 2).max() > 0.1
    model.begin_epoch(2)
    np.testing.assert_allclose(model.pair_logits(*pairs), (alone[0] + alone[1]) / 2, rtol=1e-5, atol=1e-6)
    model.mix = 0.25
    model.begin_epoch(2)
    np.testing.assert_allclose(model.pair_logits(*pairs), alone[0] / 4 + alone[1] * 3 / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_each_phase_changes_its_part_only():
    x = random_rows()
    model = build(x=x, **PRETRAINED)
    assert [model.phase_of(epoch) for epoch in range(4)] == [("gmf", "mlp"), ("mlp",), ("neumf",), ("neumf",)]
    assert [model.round_ends(epoch) for epoch in range(4)] == [False, False, True, True] and model.patient_from == 2
    gmf, mlp = model.networks
    layers = {"gmf": gmf, "mlp": mlp, "gmf head": model.heads_alone[0], "mlp head": model.heads_alone[1]}
    layers["head"] = model.head

    def changed_by(epoch):
        before = {name: [v.numpy() for v in layer.variables] for name, layer in layers.items()}
        logs = fit(model, int(x.sum()), 4, epochs=epoch + 1, first_epoch=epoch).history
        differ = {
            name
            for name, layer in layers.items()
            for old, v in zip(before[name], layer.variables, strict=True)
            if not np.array_equal(old, v.numpy())
        }
        return differ, logs.keys()

    assert changed_by(0) == ({"gmf", "mlp", "gmf head", "mlp head"}, {"loss", "gmf_bce", "mlp_bce"})
    assert changed_by(1) == ({"mlp", "mlp head"}, {"loss", "mlp_bce"})
    assert changed_by(2) == ({"gmf", "mlp", "head"}, {"loss", "bce"})
    head = model.head.kernel.numpy()
    model.begin_epoch(3)  # which does not mix again
    np.testing.assert_array_equal(model.head.kernel, head)


@pytest.mark.slow
def test_the_parts_are_pretrained_as_they_are_alone():
    x = random_rows()
    whole = NeuMF(N_ITEMS, N_USERS, factors=3, gmf_epochs=2, mlp_epochs=2)
    alone = [GMF(N_ITEMS, N_USERS, factors=3), MLP(N_ITEMS, N_USERS, factors=3)]
    for model in (whole, *alone):
        model.attach(csr_array(x))
        model.compile(FusedAdam(0.02), jit_compile=False)
        fit(model, int(x.sum()), 4, epochs=2)
    for part, head, model in zip(whole.networks, whole.heads_alone, alone, strict=True):
        found, expected = [*part.variables, *head.variables], [*model.networks[0].variables, *model.head.variables]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=one.path)


def test_fine_tuning_has_a_rate_of_its_own_after_pretraining_only():
    model = build(x=random_rows(), **PRETRAINED, fine_tuning_rate=0.005)
    rates = {name: float(optimizer.learning_rate) for name, optimizer in model.optimizers.items()}
    assert rates == pytest.approx({"gmf": 0.02, "mlp": 0.02, "neumf": 0.005})
    model = build(x=random_rows(), fine_tuning_rate=0.005)
    assert model.phase_of(0) == ("neumf",) and not model.heads_alone and model.round_ends(0)
    assert {n: float(o.learning_rate) for n, o in model.optimizers.items()} == pytest.approx({"neumf": 0.02})


@pytest.mark.slow
def test_saved_after_pretraining_it_scores_the_same_and_is_not_mixed_again(tmp_path):
    x = random_rows()
    model = build(x=x, **PRETRAINED)
    fit(model, int(x.sum()), 4, epochs=3)
    model.detach()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    batch = RowStore(csr_array(x)).gather(tf.range(N_USERS))
    np.testing.assert_array_equal(loaded.scores(batch), model.scores(batch))
    assert (loaded.gmf_epochs, loaded.mlp_epochs, loaded.mix, loaded.n_users) == (1, 2, 0.4, N_USERS)


def test_users_held_out_whole_are_refused(tiny_split, tmp_path):
    with pytest.raises(InputError, match="GMF scores only the users it was trained on, and this split holds users out"):
        train(settings_of("gmf", {"batch_size": 20}), tiny_split, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    model = GMF(tiny_split.n_items, 90)
    with pytest.raises(InputError, match="expected held-out items of each user"):
        evaluate(model, tiny_split.test)


def test_a_batch_larger_than_all_interactions_is_refused(tiny_items, tmp_path):
    n = tiny_items.train.nnz
    with pytest.raises(InputError, match=f"batch_size is {n + 1}, but there are {n} interactions; choose 1 to {n}"):
        train(settings_of("gmf", {"batch_size": n + 1}), tiny_items, tmp_path, progress=False)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="gmf_epochs is 3 and mlp_epochs 0; pre-train both parts, or neither"):
        NeuMF(N_ITEMS, N_USERS, gmf_epochs=3)
    with pytest.raises(InputError, match="MLP has weights for each training user; give it n_users"):
        MLP(N_ITEMS)
    rows = rows_of(random_rows())._replace(users=None)
    with pytest.raises(InputError, match="GMF knows only the 7 users it was trained on"):
        build(GMF).scores(rows)
