"""Settings: complete, checked, and named when they are wrong."""

from __future__ import annotations

import json

import pytest

from tfvae.models import MODELS, model_class
from tfvae.system.errors import InputError
from tfvae.training.settings import Settings, TrainingSettings, settings_of


@pytest.mark.parametrize("name", MODELS)
def test_defaults_are_filled_in_and_survive_json(name):
    settings = settings_of(name, {})
    flat = json.loads(json.dumps(settings.flat()))
    assert flat.keys() == {"model", *model_class(name).settings(), *TrainingSettings.model_fields}
    assert settings_of(flat.pop("model"), flat) == settings


@pytest.mark.parametrize("name", MODELS)
def test_no_model_setting_hides_a_training_setting(name):
    assert model_class(name).settings().keys() & TrainingSettings.model_fields.keys() == {"seed"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_built_model_has_the_settings_the_seed_and_the_precision(name):
    settings = settings_of(name, {"seed": 7, "precision": "mixed_bfloat16"})
    model = settings.build(11, 30)
    assert (model.n_items, model.seed, model.dtype_policy.name) == (11, 7, "mixed_bfloat16")
    for key, value in settings.model.items():
        assert getattr(model, key) == (tuple(value) if isinstance(value, list) else value)


def test_the_defaults_are_those_of_the_paper_on_ml_20m():
    flat = settings_of("mult-vae", {}).flat()
    paper = {
        "hidden": [600],
        "latent_dim": 200,
        "activation": "tanh",
        "dropout": 0.5,
        "likelihood": "multinomial",
        "beta_cap": 0.2,
        "anneal_updates": 200_000,
        "weight_decay": 0.0,
        "batch_size": 500,
        "epochs": 200,
        "learning_rate": 1e-3,
        "monitor": "ndcg@100",
        "seed": 98765,
    }
    assert {key: flat[key] for key in paper} == paper
    dae = settings_of("mult-dae", {}).flat()
    assert (dae["hidden"], dae["latent_dim"], dae["weight_decay"]) == ([], 200, 2e-5)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mult-vae", {"beta_capp": 1}, "unknown setting of mult-vae 'beta_capp'; did you mean 'beta_cap'"),
        ("mult-dae", {"epoch": 1}, "unknown setting of mult-dae 'epoch'; did you mean 'epochs'"),
        ("mult-dae", {"beta_cap": 1}, "unknown setting of mult-dae 'beta_cap'"),
        ("multvae", {}, "unknown model 'multvae'; did you mean 'mult-vae'"),
        ("mult-vae", {"dropout": 1.0}, "dropout = 1.0: .*less than 1"),
        ("mult-vae", {"dropout": "high"}, "dropout = 'high': .*valid number"),
        ("mult-vae", {"latent_dim": 0}, "latent_dim = 0: .*greater than 0"),
        ("mult-vae", {"hidden": [600, -1]}, r"hidden\.1 = -1: .*greater than 0"),
        ("mult-vae", {"likelihood": "poisson"}, "likelihood = 'poisson': .*'multinomial'"),
        ("mult-vae", {"epochs": 0}, "epochs = 0: .*greater than 0"),
        ("mult-vae", {"batch_size": 1.5}, "batch_size = 1.5: .*integer"),
        ("mult-vae", {"learning_rate": -1}, "learning_rate = -1: .*greater than 0"),
        ("mult-vae", {"precision": "float16"}, "precision = 'float16'"),
        ("mult-vae", {"monitor": "ndgc@100"}, "unknown metric 'ndgc'; did you mean 'ndcg'"),
        ("mult-vae", {"monitor": "loss"}, "expected a metric and its cut-off"),
        ("mult-vae", {"beta_selection": "best"}, "beta_selection = 'best': .*'peak'"),
        ("mult-dae", {"beta_selection": "peak"}, "mult-dae anneals no KL weight"),
        ("ease", {"beta_selection": "peak"}, "ease anneals no KL weight"),
        ("mult-vae", {"beta_cap": float("inf")}, "beta_cap = inf: .*finite"),
        ("mult-vae", {"learning_rate": float("nan")}, "learning_rate = nan: "),
        ("vamp", {"divergence": "analytic"}, "divergence = 'analytic': .*'sampled'"),
    ],
)
def test_a_wrong_setting_is_named(name, given, message):
    with pytest.raises(InputError, match=message):
        settings_of(name, given)


def test_several_wrong_values_are_named_at_once():
    with pytest.raises(InputError, match="c1 = 0.*latent_dim = 'x'|latent_dim = 'x'.*c1 = 0"):
        settings_of("mult-vae", {"latent_dim": "x", "c1": 0})


def test_changes_are_checked_like_the_first_settings():
    settings = settings_of("mult-vae", {"beta_selection": "peak", "hidden": [8]})
    changed = settings.with_changes(beta_selection="fixed", beta_cap=1.0)
    assert isinstance(changed, Settings)
    assert changed.flat() == settings.flat() | {"beta_selection": "fixed", "beta_cap": 1.0}
    with pytest.raises(InputError, match="'beta_kap'"):
        settings.with_changes(beta_kap=1.0)


def test_settings_cannot_be_changed_in_place():
    settings = settings_of("mult-vae", {})
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "ease"
    with pytest.raises(ValueError, match="frozen"):
        settings.training.epochs = 1


@pytest.mark.parametrize("kl_weight", [{}, {"kl_weight": "fixed"}])
def test_a_recvae_that_anneals_nothing_has_no_beta_to_select(kl_weight):
    with pytest.raises(InputError, match="recvae anneals no KL weight"):
        settings_of("recvae", {"beta_selection": "peak", **kl_weight})
    assert settings_of("recvae", {"beta_selection": "peak", "kl_weight": "annealed"}).training.epochs == 200


# ---- absurd values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("mult-vae", {"epochs": True}),
        ("mult-vae", {"dropout": False}),
        ("mult-vae", {"seed": True}),
        ("mult-vae", {"seed": 2**32}),
        ("mult-vae", {"seed": -1}),
        ("mult-vae", {"latent_dim": 10**12}),
        ("mult-vae", {"hidden": [10**12]}),
        ("mult-vae", {"epochs": 10**12}),
        ("mult-vae", {"batch_size": 10**12}),
        ("mult-vae", {"anneal_updates": 10**30}),
        ("mult-vae", {"learning_rate": float("inf")}),
        ("mult-vae", {"learning_rate": float("nan")}),
        ("mult-vae", {"monitor": "ndcg@0"}),
        ("evcf-mult-vae", {"log_variance_range": [4, -12]}),
        ("evcf-mult-vae", {"log_variance_range": [1, 1]}),
        ("recvae", {"prior_weights": [1, 1, float("inf")]}),
        ("wmf", {"factors": 10**9}),
        ("wmf", {"factors": True}),
    ],
)
def test_absurd_values_are_refused_by_name(model, given):
    (name,) = given
    with pytest.raises(InputError, match=name):
        settings_of(model, given)
    if name not in TrainingSettings.model_fields or name == "seed":
        with pytest.raises(InputError, match=name):
            model_class(model)(20, **given)


def test_a_truth_value_is_taken_where_one_is_meant():
    assert settings_of("mult-vae", {"deterministic": True}).training.deterministic
    assert settings_of("p-vae", {"stochastic": False}).model["stochastic"] is False
