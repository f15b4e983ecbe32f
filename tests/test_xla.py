"""Steps that XLA compiles: they are the plain ones, to the rounding of float32."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import row_numbers
from tfvae.nn.optimizers import FusedAdam
from tfvae.nn.xla import _power_of_two
from tfvae.system.errors import InputError
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

SMALL = {"hidden": [12], "latent_dim": 6}
N_ITEMS = 40


def rows(n_users: int = 50) -> csr_array:
    held = np.random.default_rng(3).random((n_users, N_ITEMS)) < 0.2
    held[7] = False  # a user without items
    return csr_array(held.astype(np.float32))


def trained(name: str, xla: bool, **settings) -> tuple[dict, list[np.ndarray]]:
    """The logs and the weights after an epoch of three steps, of which the last one has fewer users."""
    model = settings_of(name, SMALL | settings).build(N_ITEMS)
    model.attach(rows())
    model.compile(FusedAdam(0.01), jit_compile=xla)
    logs = model.fit(row_numbers(50, 20, seed=1), steps_per_epoch=3, verbose=0).history
    return logs, [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("mult-vae", {"weight_decay": 1e-3, "anneal_updates": 5}, marks=pytest.mark.slow),
        pytest.param("mult-vae", {"likelihood": "gaussian", "c1": 2.0, "dropout": 0.0}, marks=pytest.mark.long),
        pytest.param("mult-dae", {"likelihood": "logistic"}, marks=pytest.mark.long),
    ],
)
def test_compiled_steps_are_the_plain_ones(name, settings):
    (plain, weights), (by_xla, others) = (trained(name, xla, **settings) for xla in (False, True))
    assert plain.keys() == by_xla.keys()
    for key, values in plain.items():
        np.testing.assert_allclose(by_xla[key], values, rtol=1e-5, err_msg=key)
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(other, weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_no_number_changes_no_weight():
    model = settings_of("mult-dae", SMALL).build(N_ITEMS)
    model.attach(rows())
    model.compile(FusedAdam(0.01), jit_compile=True)
    model.decoder.last.bias.assign(np.full(N_ITEMS, np.nan, np.float32))
    before = model.encoder.first.kernel.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss : Tensor had"):
        model.fit(row_numbers(50, 20, seed=1), steps_per_epoch=1, verbose=0)
    np.testing.assert_array_equal(model.encoder.first.kernel.numpy(), before)


def test_batches_have_few_sizes():
    sizes = [int(_power_of_two(tf.constant(number))) for number in (0, 1, 2, 3, 64, 65, 2**30)]
    assert sizes == [1, 1, 2, 4, 64, 128, 2**30]


def test_only_some_models_are_compiled(tiny_split, tmp_path):
    can = set()
    for name in MODELS:
        settings, kind = settings_of(name, {}), model_class(name)
        if issubclass(kind, GradientRecommender) and kind.not_by_xla(settings.model) is None:
            can.add(name)
    assert can == {"mult-vae", "mult-dae"}
    for name, given in (("recvae", {}), ("ease", {}), ("mult-vae", {"n_sampled": 4})):
        with pytest.raises(InputError, match="cannot be compiled by XLA"):
            train(settings_of(name, {"xla": True, "batch_size": 10, **given}), tiny_split, tmp_path / name)
    with pytest.raises(InputError, match="cannot be compiled by XLA"):
        settings_of("recvae", {}).build(N_ITEMS).compile(FusedAdam(0.01), jit_compile=True)
