"""Codes between epochs: their moments and divergences, of which users and of which models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.evaluation.codes import codes_of, has_codes
from tfvae.models.multvae import MultVAE
from tfvae.models.pvae import PVAE
from tfvae.models.vamp import Vamp
from tfvae.system.errors import InputError


@pytest.fixture
def histories():
    """30 users of 20 items."""
    return csr_array(np.random.default_rng(1).integers(0, 2, size=(30, 20)).astype(np.float32))


def test_the_divergence_per_dimension_is_the_closed_form(histories):
    model = MultVAE(20, hidden=[], latent_dim=5, seed=1)
    codes = codes_of(model, histories)
    expected = (0.5 * (codes.mean**2 + codes.sd**2 - 1) - np.log(codes.sd)).mean(axis=0)
    np.testing.assert_allclose(codes.kl, expected, rtol=1e-4, atol=1e-6)
    some = codes_of(model, histories, most=7)
    assert some.mean.shape == (7, 5)
    np.testing.assert_allclose(some.mean[[0, -1]], codes.mean[[0, -1]], rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="without rows"):
        codes_of(model, histories[:0])


def test_only_a_product_of_normals_has_a_divergence_per_dimension(histories):
    assert codes_of(Vamp(20, latent_dim=3, hidden=[8], n_pseudo_inputs=4), histories).kl is None


def test_which_models_have_codes():
    assert has_codes(MultVAE(20, hidden=[], latent_dim=3))
    assert has_codes(PVAE(20, latent_dim=3)) and not has_codes(PVAE(20, latent_dim=3, stochastic=False))
    assert not has_codes(object())
