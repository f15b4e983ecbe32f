"""The multiply-adds of training steps and runs, and the times of a step: closed forms, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.training import step_times
from tfvae.training.operations import of_run, uncounted
from tfvae.training.settings import settings_of

USERS, ITEMS, BATCH = 70, 31, 20
HIDDEN, CODE = 7, 3
SMALL = {"hidden": [HIDDEN], "latent_dim": CODE, "batch_size": BATCH, "epochs": 6}


def train(n_users: int = USERS, n_items: int = ITEMS) -> csr_array:
    users = np.arange(n_users)
    return csr_array((np.ones(n_users, np.float32), (users, users % n_items)), shape=(n_users, n_items))


def of_mult_vae(n_items: int, batch: int) -> int:
    """One product forward and two backward for each layer but the first, whose products are sparse."""
    return 3 * batch * (HIDDEN * 2 * CODE + CODE * HIDDEN + HIDDEN * n_items)


@pytest.mark.parametrize("n_items", [31, 50])
@pytest.mark.parametrize("batch", [20, 13])
def test_the_operations_of_mult_vae_are_those_of_its_layers(n_items, batch):
    work = of_run(settings_of("mult-vae", SMALL | {"batch_size": batch}), train(n_items=n_items))
    steps = 6 * -(-USERS // batch)
    assert work.updates == steps
    assert work.multiply_adds == steps * of_mult_vae(n_items, batch)


def test_pseudo_inputs_cost_three_products_more_and_their_way_through_the_encoder():
    pseudo = 11
    settings = SMALL | {"n_pseudo_inputs": pseudo}
    per_step = of_run(settings_of("vamp", settings), train()).multiply_adds // (6 * 4)
    encoder = 3 * pseudo * (ITEMS * HIDDEN + HIDDEN * 2 * CODE)
    assert encoder <= per_step - of_mult_vae(ITEMS, BATCH) <= encoder + 20 * BATCH * pseudo * CODE  # the densities


def test_only_what_an_epoch_trains_is_counted():
    settings = SMALL | {"hidden": [HIDDEN, HIDDEN]}
    work = {epochs: of_run(settings_of("recvae", settings | {"epochs": epochs}), train()) for epochs in (3, 4, 8)}
    of_encoder, of_decoder = work[3].multiply_adds / 3, work[4].multiply_adds - work[3].multiply_adds
    assert 0 < of_decoder < of_encoder
    assert work[8].multiply_adds == 2 * work[4].multiply_adds and work[8].updates == 8 * 4


def test_a_pilot_run_counts_as_well():
    once, twice = (of_run(settings_of("mult-vae", SMALL | {"beta_selection": of}), train()) for of in ("fixed", "peak"))
    assert twice == (2 * once.updates, 2 * once.multiply_adds)


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        ("ease", {}, "at once"),
        ("p-vae", {}, "depends on the histories"),
        ("gmf", {}, "depends on the histories"),
        ("mult-dae", {"n_sampled": 8}, "depends on the histories"),
        ("mult-vae", {}, None),
    ],
)
def test_what_cannot_be_counted_says_why(model, settings, why):
    found = uncounted(settings_of(model, settings))
    assert found is None if why is None else why in found


def test_the_product_beside_a_step_has_as_many_operations(monkeypatch):
    monkeypatch.setattr(step_times, "SECONDS", 0.0)
    step = step_times.step_time("float32", n_items=400, batch_size=20)
    assert step.operations == 2 * 3 * 20 * (600 * 400 + 200 * 600 + 600 * 400)
    assert step.seconds > 0 and step.product_seconds > 0
    assert step.ratio * step.product_seconds == pytest.approx(step.seconds)
    assert step.tflops * step.seconds * 1e12 == pytest.approx(step.operations)
