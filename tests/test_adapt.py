"""Defaults that depend on the data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy.sparse import csr_array

from tfvae.training.adapt import settings_for


def fitted(n_users: int, model: str = "mult-vae", length: int = 0, **given):
    """The settings for users with so many items each, and what was said of them."""
    said: list[str] = []
    train = csr_array(np.ones((n_users, length), np.float32)) if length else csr_array((n_users, 10))
    split = SimpleNamespace(train=train, validation=None)
    return settings_for(model, given, split, said.append), said


def test_on_data_of_the_papers_size_the_papers_settings_stay():
    settings, said = fitted(116_677)
    assert not said
    assert (settings.training.batch_size, settings.model["anneal_updates"]) == (500, 200_000)


def test_on_small_data_an_epoch_has_twenty_updates_and_beta_reaches_its_cap_halfway():
    settings, said = fitted(400, epochs=40)
    assert settings.training.batch_size == 20
    # 40 epochs of 20 updates: β = t / anneal_updates is 0.2 at t = 400.
    assert settings.model["anneal_updates"] == 2_000
    assert ["batch_size: 20", "anneal_updates: 2,000"] == [line.split(" instead")[0] for line in said]


def test_the_pilot_of_the_peak_anneals_to_one():
    settings, _ = fitted(1_000, epochs=100, beta_selection="peak")
    assert settings.model["anneal_updates"] == 1_000  # half of 100 epochs of 20 updates


def test_the_smallest_data_are_one_batch():
    assert fitted(7)[0].training.batch_size == 7
    assert fitted(100)[0].training.batch_size == 16


def test_a_model_of_pairs_counts_interactions():
    ones = csr_array(np.ones((40, 30), np.float32))
    said: list[str] = []
    settings = settings_for("gmf", {}, SimpleNamespace(train=ones, validation=None), said.append)
    assert settings.training.batch_size == 60 and "since there are 1,200 interactions" in said[0]


def test_what_was_given_stays():
    settings, said = fitted(300, batch_size=200, anneal_updates=10**6)
    assert not said
    assert (settings.training.batch_size, settings.model["anneal_updates"]) == (200, 10**6)
    assert fitted(300, batch_size=301)[0].training.batch_size == 301  # training refuses it


def test_a_closed_form_has_nothing_to_fit():
    settings, said = fitted(3, "ease")
    assert not said and settings.name == "ease"


def test_a_vamp_prior_has_ten_users_for_each_pseudo_input():
    assert fitted(116_677, "vamp")[0].model["n_pseudo_inputs"] == 1000
    settings, said = fitted(480, "vamp")
    assert settings.model["n_pseudo_inputs"] == 48
    assert any(line.startswith("n_pseudo_inputs: 48 instead of 1,000") for line in said)
    assert fitted(480, "vamp", n_pseudo_inputs=400)[0].model["n_pseudo_inputs"] == 400


def test_a_warm_up_by_epochs_ends_within_the_planned_epochs():
    assert fitted(116_677, "vamp")[0].model["warmup_epochs"] == 100
    settings, said = fitted(116_677, "vamp", epochs=30)
    assert settings.model["warmup_epochs"] == 15
    assert said == ["warmup_epochs: 15 instead of 100, halfway through the 30 planned epochs."]
    assert fitted(116_677, "vamp", epochs=30, warmup_epochs=60)[0].model["warmup_epochs"] == 60


def test_a_run_of_ract_reaches_its_third_phase():
    settings, said = fitted(116_677, "ract", epochs=40)
    assert (settings.model["actor_epochs"], settings.model["critic_epochs"]) == (20, 10)
    assert [line.split(",")[0] for line in said[:2]] == [
        "actor_epochs: 20 instead of 100",
        "critic_epochs: 10 instead of 50",
    ]
    assert fitted(116_677, "ract")[0].model["actor_epochs"] == 100
    assert fitted(116_677, "ract", epochs=40, actor_epochs=39)[0].model["actor_epochs"] == 39


def test_only_a_recvae_that_anneals_has_an_annealing_to_shorten():
    assert fitted(400, "recvae", length=30, batch_size=20)[1] == []
    settings, said = fitted(400, "recvae", length=30, batch_size=20, kl_weight="annealed", epochs=40)
    assert settings.model["anneal_updates"] == 2_000 and len(said) == 1


def test_recvae_is_regularised_more_where_histories_are_short():
    settings, said = fitted(400, "recvae", length=29, batch_size=20)
    assert (settings.model["gamma"], settings.model["dropout"]) == (0.01, 0.7)
    assert all("29.0 items on the mean" in line for line in said) and len(said) == 2
    settings, said = fitted(400, "recvae", length=29, batch_size=20, gamma=0.003)
    assert (settings.model["gamma"], settings.model["dropout"]) == (0.003, 0.7) and len(said) == 1
    settings, said = fitted(400, "recvae", length=29, batch_size=20, dropout=0.8, kl_weight="fixed")
    assert (settings.model["gamma"], settings.model["dropout"]) == (0.005, 0.8) and not said
