"""The contract of all recommenders: constructors check their settings, protocols say what only some can do."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tfvae.evaluation.predictive import has_rating_posterior
from tfvae.models import MODELS, model_class
from tfvae.models.base import HasPosterior, HasRatingPosterior, HasRatingSd, Recommender, ScoresPairs
from tfvae.models.ease import EASE
from tfvae.models.former_settings import HEIRS, TAKEN_OUT, todays_settings
from tfvae.models.gradient import GradientRecommender
from tfvae.models.matrix import MatrixRecommender
from tfvae.models.multvae import MultVAE
from tfvae.models.recvae import RecVAE
from tfvae.models.vamp import Vamp
from tfvae.system.errors import InputError
from tfvae.training.settings import settings_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.7}, "MultVAE: dropout = 1.7: Input should be less than 1"),
        ({"likelihood": "poisson"}, "MultVAE: likelihood = 'poisson': Input should be 'multinomial'"),
        ({"divergence": "nonsense"}, "unknown setting of MultVAE 'divergence'"),
        ({"beta_cap": -3}, "MultVAE: beta_cap = -3: Input should be greater than or equal to 0"),
        ({"beta_cap": float("inf")}, "beta_cap = inf: Input should be a finite number"),
        ({"weight_decay": float("nan")}, "weight_decay = nan: Input should be a finite number"),
        ({"hidden": [8, 0]}, r"hidden\.1 = 0: Input should be greater than 0"),
        ({"droput": 0.1}, "unknown setting of MultVAE 'droput'; did you mean 'dropout'"),
        ({"seed": -1}, "seed = -1"),
        ({"latent_dim": "wide", "c1": 0}, "c1 = 0|latent_dim = 'wide'"),
    ],
)
def test_a_constructor_refuses_a_wrong_setting(settings, message):
    with pytest.raises(InputError, match=message):
        MultVAE(20, **settings)


@pytest.mark.parametrize("n_items", [0, -1, 2.5, "many"])
def test_a_model_has_at_least_one_item(n_items):
    with pytest.raises(InputError, match="n_items = "):
        MultVAE(n_items)


def test_numbers_of_numpy_and_of_equal_value_are_taken():
    model = MultVAE(np.int64(4), latent_dim=np.int32(2), dropout=np.float32(0.5), hidden=[3])
    assert (model.n_items, model.latent_dim, model.dropout) == (4, 2, 0.5)
    assert type(model.n_items) is type(model.latent_dim) is int and type(MultVAE(4, c1=2).c1) is float


@pytest.mark.parametrize("name", MODELS)
def test_a_class_knows_of_which_settings_its_models_have_a_posterior_of_ratings(name):
    kind = model_class(name)
    settings = settings_of(name, kind.example_settings).model
    for changes in ({"stochastic": False}, {"stochastic": True}) if "stochastic" in settings else ({},):
        model = kind(5, 3, **settings | changes) if kind.has_user_weights else kind(5, **settings | changes)
        assert kind.has_rating_posterior(settings | changes) == has_rating_posterior(model)


@pytest.mark.parametrize("name", MODELS)
def test_every_constructor_checks_what_its_settings_check(name):
    kind, example = model_class(name), settings_of(name, model_class(name).example_settings).model
    for setting, value in example.items():
        wrong = "nonsense" if not isinstance(value, bool) else 3
        with pytest.raises(InputError, match=setting):
            settings_of(name, {setting: wrong})
        with pytest.raises(InputError, match=f"{setting}.* = "):
            kind(7, n_users=9, **{setting: wrong})


def test_python_says_itself_what_is_missing_or_given_twice():
    with pytest.raises(TypeError, match="n_items"):
        MultVAE()
    with pytest.raises(TypeError, match="n_items"):
        MultVAE(3, n_items=3)


def test_a_checked_constructor_keeps_its_signature():
    assert list(inspect.signature(MultVAE.__init__).parameters)[:3] == ["self", "n_items", "hidden"]


def test_a_new_class_is_checked_without_further_ado():
    class Narrow(EASE):
        def __init__(self, n_items: int, *, least: float = 1.0, **kwargs):
            super().__init__(n_items, **kwargs)
            self.least = least

    assert Narrow(3, least=2).least == 2.0 and "least" in Narrow.settings()
    with pytest.raises(InputError, match="Narrow: least = 'x'"):
        Narrow(3, least="x")
    with pytest.raises(InputError, match="Narrow: regularization = -1"):
        Narrow(3, regularization=-1)


@pytest.mark.parametrize("settings", [{"divergence": "analytic"}, {"divergence": "analytic", "n_pseudo_inputs": 3}])
def test_a_vamp_prior_has_no_analytic_divergence(settings):
    with pytest.raises(InputError, match="divergence = 'analytic'"):
        Vamp(20, **settings)


@pytest.mark.parametrize("prior", ["composite", "joint-composite"])
def test_a_composite_prior_has_no_analytic_divergence(prior):
    with pytest.raises(InputError, match=f"no closed form where the prior is {prior}"):
        RecVAE(20, divergence="analytic", prior_type=prior)
    assert RecVAE(20, hidden=[4], latent_dim=2, divergence="analytic", prior_type="standard").divergence == "analytic"


def test_a_model_is_fitted_by_gradient_or_at_once():
    for name in MODELS:
        kind = model_class(name)
        assert issubclass(kind, Recommender)
        assert issubclass(kind, GradientRecommender) != issubclass(kind, MatrixRecommender), name


@pytest.mark.slow
def test_what_only_some_can_do_is_a_protocol():
    built = {name: settings_of(name, model_class(name).example_settings).build(9, 12) for name in MODELS}
    with_codes = {name for name, model in built.items() if isinstance(model, HasPosterior)}
    assert with_codes == {"mult-vae", "evcf-mult-vae", "vamp", "h-vamp", "recvae", "ract"}
    assert {name for name, model in built.items() if isinstance(model, HasRatingPosterior)} == {"p-vae"}
    assert {name for name, model in built.items() if isinstance(model, HasRatingSd)} == {"p-vae", "rating-ensemble"}
    assert {name for name, model in built.items() if isinstance(model, ScoresPairs)} == {"gmf", "mlp", "neumf"}


# ---- settings of former versions --------------------------------------------------------------------


def test_settings_at_the_value_that_is_now_built_in_are_dropped():
    stored = {"hidden": [600], "gated": False, "initializer": "glorot", "anneal_by": "updates", "warmup_epochs": 100}
    assert todays_settings("mult-vae", stored) == ("mult-vae", {"hidden": [600]})


def test_evcfs_mult_vae_has_a_model_of_its_own():
    stored = {"hidden": [600], "gated": True, "initializer": "he", "anneal_by": "epochs", "anneal_updates": 7}
    own = {"hidden": [600], "gated": True, "initializer": "he"}
    assert todays_settings("mult-vae", stored) == ("evcf-mult-vae", own)
    assert todays_settings(*todays_settings("mult-vae", stored)) == ("evcf-mult-vae", own)


def test_what_no_model_has_any_more_is_left_to_be_refused():
    stored = {"anneal_by": "visits", "gated": False}
    assert todays_settings("mult-vae", stored) == ("mult-vae", stored)


def test_what_was_taken_out_is_no_setting_today():
    for name, settings in TAKEN_OUT.items():
        assert not settings.keys() & model_class(name).settings().keys(), name
    assert HEIRS.keys() | set(HEIRS.values()) <= MODELS.keys()


def test_a_configuration_of_a_former_version_makes_todays_model():
    config = {
        "n_items": 9,
        "hidden": [4],
        "latent_dim": 2,
        "gated": True,
        "separate_heads": True,
        "anneal_by": "epochs",
    }
    model = MultVAE.from_config(config)
    assert type(model).__name__ == "EVCFMultVAE" and model.gated


def test_a_models_name_does_not_depend_on_what_the_process_built_before():
    names = {settings_of("mult-dae", {"hidden": [4]}).build(9).name for _ in range(3)}
    assert names == {"mult_dae"}
