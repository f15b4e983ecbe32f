"""Every wide operation of a training step, of scoring and of HMC has a kernel for a GPU, so that nothing wide travels.

The graphs are those that a machine with a GPU would trace; the kernels are those of this machine's TensorFlow.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from gpu_kernels import gaps
from model_kinds import of_each_kind
from scipy.sparse import csr_array

from tfvae.evaluation.predictive import refined_codes
from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.models.pvae import PVAE
from tfvae.nn.batches import RowStore
from tfvae.nn.hmc import USERS_AT_ONCE, Sampler
from tfvae.nn.ranking import best_unseen
from tfvae.nn.sparse_ops import add_at, products_at
from tfvae.training.loop import prepare_to_fit
from tfvae.training.settings import settings_of

# So many that every array with an entry for each item or user is wider than any other.
N_USERS, N_ITEMS, BATCH = 1013, 1009, 7
ITEMS_OF_A_USER = 5
BY_GRADIENT = [name for name in MODELS if issubclass(model_class(name), GradientRecommender)]

EXCEPTIONS = {
    # The numbers of all items, with which the items' vectors are looked up: 4 bytes for each item, once for all users
    # of a batch.
    ("gmf", "Range"),
    ("mlp", "Range"),
    ("neumf", "Range"),
}
"""Operations that may lack a kernel for a GPU, by model."""


def matrix(ratings: bool) -> csr_array:
    users = np.repeat(np.arange(N_USERS), ITEMS_OF_A_USER)
    items = (users + 31 * np.tile(np.arange(ITEMS_OF_A_USER), N_USERS)) % N_ITEMS
    values = 1 + (users + items) % 5 if ratings else np.ones_like(users)
    return csr_array((values.astype(np.float32), (users, items)), shape=(N_USERS, N_ITEMS))


def traced(function, *specs) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function, autograph=False).get_concrete_function(*specs)


@pytest.fixture
def on_a_gpu(monkeypatch) -> None:
    """Graphs are traced as on a machine with a GPU."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["a GPU"])


def gaps_of(name: str, **settings) -> dict[str, set]:
    """The gaps of a model's training steps, of as many phases as together have all objectives, and of its rankings."""
    kind = model_class(name)
    given = settings_of(name, {"monitor": "rmse" if kind.predicts_ratings else "ndcg@10"} | settings)
    model, train = given.build(N_ITEMS, N_USERS), matrix(kind.predicts_ratings)
    prepare_to_fit(model, SimpleNamespace(train=train, scale=(1, 5)), 0.01, given.training.optimizer)
    users = tf.TensorSpec([BATCH], tf.int64)
    found = {}
    pursued: set[str] = set()
    for phase in map(model.phase_of, range(20)):
        if not pursued.issuperset(phase):
            pursued.update(phase)
            model.phase = phase
            found[f"step {phase}"] = gaps(traced(model.train_step, users), N_ITEMS)
    assert pursued == set(model.objectives)
    store = RowStore(train, with_values=kind.predicts_ratings)
    ranking = traced(lambda users: best_unseen(model.scores(batch := store.gather(users)), batch, 5), users)
    found["ranking"] = gaps(ranking, N_ITEMS)
    return found


def not_excepted(name: str, found: dict[str, set]) -> dict[str, set]:
    rest = {where: {gap for gap in of if (name, gap.operation) not in EXCEPTIONS} for where, of in found.items()}
    return {where: of for where, of in rest.items() if of}


@pytest.mark.slow
@pytest.mark.parametrize("name", of_each_kind(BY_GRADIENT))
def test_nothing_wide_leaves_a_gpu(name, on_a_gpu):
    # In mixed precision, since what has a kernel for bfloat16 has one for float32 too.
    found = gaps_of(name, precision="mixed_bfloat16", **model_class(name).example_settings)
    assert not not_excepted(name, found)
    assert {(name, gap.operation) for of in found.values() for gap in of} == {of for of in EXCEPTIONS if of[0] == name}


@pytest.mark.long
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_nothing_wide_leaves_a_gpu_in_full_precision_with_the_default_choices(name, on_a_gpu):
    example = model_class(name).example_settings
    sizes = {key: value for key, value in example.items() if np.asarray(value).dtype.kind in "if"}
    assert not not_excepted(name, gaps_of(name, **sizes))


@pytest.mark.slow
def test_nothing_wide_leaves_a_gpu_during_hmc(on_a_gpu, monkeypatch):
    model = PVAE(N_ITEMS, embedding_dim=6, latent_dim=4, decoder_hidden=[5])
    model.rate_as((1, 5))
    target = []
    monkeypatch.setattr(Sampler, "sample_users", lambda self, *given: target.extend(given))
    refined_codes(model, matrix(ratings=True))
    log_prob, facts, start, seed = target
    of_facts = traced(facts, tf.TensorSpec([USERS_AT_ONCE], tf.int64))
    known = of_facts(tf.range(USERS_AT_ONCE, dtype=tf.int64))
    sampler = Sampler(n_samples=2, n_burn_in=2, n_leapfrog=2, jit_compile=False)
    chains = traced(
        lambda start: sampler.sample(lambda codes: log_prob(codes, known), start, seed), start[:USERS_AT_ONCE]
    )
    assert not gaps(of_facts, N_ITEMS) | gaps(chains, USERS_AT_ONCE * model.latent_dim)


# ---- that gaps are found ----------------------------------------------------------------------------

WIDE = tf.TensorSpec([None, N_ITEMS])
FLAT = tf.TensorSpec([None], tf.int32)
HALF = tf.TensorSpec([None, 4], tf.bfloat16)
KERNEL = tf.TensorSpec([N_ITEMS, 4])


def operations(function, *specs) -> dict[str, str]:
    return {gap.operation: gap.reason for gap in gaps(traced(function, *specs), N_ITEMS)}


def added(dense, items):
    return add_at(dense, tf.stack([items, items], axis=1), tf.ones(tf.shape(items)))


def test_the_sum_of_dense_and_sparse_has_a_kernel_on_a_gpu_only_in_its_form_for_gpus(on_a_gpu, monkeypatch):
    assert operations(added, WIDE, FLAT) == {}
    monkeypatch.undo()
    assert operations(added, WIDE, FLAT) == {"SparseTensorDenseAdd": "no kernel for these types"}


@pytest.mark.parametrize(
    "around",
    [
        lambda dense, items: tf.while_loop(
            lambda of: True, lambda of: [added(of, items)], [dense], maximum_iterations=2
        ),
        lambda dense, items: tf.cond(tf.size(items) > 3, lambda: added(dense, items), lambda: dense),
        lambda dense, items: tf.function(lambda: tf.function(added)(dense, items))(),
        lambda dense, items: tf.map_fn(lambda row: added(row[None], items), dense),
    ],
    ids=["loop", "branch", "function", "map"],
)
def test_gaps_are_found_in_what_a_function_calls(around):
    assert "SparseTensorDenseAdd" in operations(around, WIDE, FLAT)


def test_a_product_of_two_types_is_a_gap_which_products_at_avoids():
    mixed = operations(lambda hidden, kernel: tf.matmul(hidden, kernel, transpose_b=True), HALF, KERNEL)
    assert mixed == {"SparseMatMul": "no kernel for these types"}
    assert operations(lambda hidden, kernel, at: products_at(hidden, kernel, at, at), HALF, KERNEL, FLAT) == {}


def test_wide_arrays_in_the_host_s_memory_are_gaps():
    mask = operations(lambda lengths: tf.range(N_ITEMS) < lengths[:, None], FLAT)
    assert mask["Less"] == "x, z in the host's memory"
    stored = tf.range(N_ITEMS)
    assert "int32 constant" in operations(lambda items: tf.gather(stored, items), FLAT)["GatherV2"]


def test_an_operation_placed_on_the_host_is_a_gap_if_what_it_is_given_or_what_leaves_it_is_wide():
    def at_host(dense, items):
        with tf.device("CPU:0"):
            found = added(dense, items)
            return tf.gather(found[0], items) if narrow else found

    narrow = True
    assert operations(lambda dense, items: tf.exp(at_host(dense, items)), WIDE, FLAT) == {}
    narrow = False
    reasons = operations(lambda dense, items: tf.exp(at_host(dense, items)), WIDE, FLAT)
    assert reasons == {"SparseTensorDenseAdd": "wide, and made on the host"}
    narrow = True
    reasons = operations(lambda dense, items: at_host(tf.exp(dense), items), WIDE, FLAT)
    assert reasons["SparseTensorDenseAdd"] == "wide, and read on the host"
