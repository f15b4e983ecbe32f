"""H+Vamp: two stochastic layers, with a VampPrior on the upper one.

Kim, Suh: Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms, RecSys 2019, section 4.1:

    q_φ(z_1 | x, z_2) q_ψ(z_2 | x)                                                                       (eq. 5)
    p_θ(x | z_1, z_2) p_λ(z_1 | z_2) p(z_2),   p(z_2) = 1/K Σ_k q_ψ(z_2 | u_k)                           (eq. 6)

Only the authors' code says how the networks join their two inputs, and it has two ways: with one hidden layer, the
inputs are concatenated before it; with more, each input has a first layer of its own, and the second layer joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE
from tfvae.models.vamp import WithVampPrior
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import EmbeddingBag
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import Decoder, hidden_stack, output_layer
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, sample_with
from tfvae.system.errors import InputError

__all__ = ["HVamp"]


@keras.saving.register_keras_serializable(package="tfvae")
class HVamp(WithVampPrior):
    """The hierarchical VAE with a VampPrior; `gated=True` is "H+Vamp (Gated)".

    `encoder`, `posterior` and `prior` belong to z_2 and are the same as in `Vamp`. z_1 and z_2 have the same width.

    Args:
        n_items: Number of items, I.
        **kwargs: Settings of `WithVampPrior` and `EVCF`; `hidden` needs at least one width.

    Raises:
        InputError: If `hidden` is empty.
    """

    example_settings = EXAMPLE | {
        "gated": True,
        "initializer": "glorot",
        "separate_heads": False,
        "log_variance_range": [-5.0, 2.0],
        "beta_cap": 0.1,
        "warmup_epochs": 3,
        "likelihood": "bernoulli",
        "n_pseudo_inputs": 7,
        "optimizer": "normalized-adam",
    }
    checkerboard_settings = CHECKERBOARD | {
        "hidden": [16],
        "beta_cap": 0.0,
        "learning_rate": 0.01,
        "n_pseudo_inputs": 4,
    }

    loss_terms = ("nll", "kl", "kl_z1", "kl_z2")

    def __init__(self, n_items: int, **kwargs):
        super().__init__(n_items, **kwargs)
        if not self.hidden:
            raise InputError("H+Vamp needs a hidden layer; give hidden at least one width, such as [600].")
        layers, outputs, heads = self.layers_config, 2 * self.latent_dim, 1 + self.separate_heads
        self.decoder = _JointDecoder(n_items, self.hidden[::-1], self.latent_dim, layers, name="decoder")
        self.lower_encoder = _JointEncoder(
            n_items, self.hidden, self.latent_dim, outputs, heads, layers, self.dropout, name="lower_encoder"
        )
        self.lower_prior_layers = [
            *hidden_stack(self.latent_dim, self.hidden, layers, "lower_prior"),
            output_layer(self.hidden[-1], outputs, layers.for_output(), "lower_prior_heads", heads),
        ]
        self.built = True

    def lower_posterior(self, batch: SparseBatch, z2: tf.Tensor, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z_1 | x, z_2) of B users; its dropout is independent of that of `posterior`."""
        return diagonal_normal(*self.moments(self.lower_encoder(batch, z2, noise=noise)))

    def lower_prior(self, z2: tf.Tensor) -> tfd.Distribution:
        """The prior p(z_1 | z_2) of B users."""
        code = z2
        for layer in self.lower_prior_layers:
            code = layer(code)
        return diagonal_normal(*self.moments(code))

    def item_vectors(self) -> tf.Tensor:
        """The rows of the decoder's last layer, which gets both codes; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.decoder.joint.last.kernel.value)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """-E log p(x | z_1, z_2) + β (KL of z_1 + KL of z_2), averaged over users, with one sample of each code."""
        upper = self.posterior(batch, noise)
        z2 = sample_with(noise, "z2", upper)
        lower = self.lower_posterior(batch, z2, noise)
        z1 = sample_with(noise, "z1", lower)
        nll = -tf.reduce_mean(self.log_likelihood((z1, z2), batch))
        kl_z1 = self.kl(lower, self.lower_prior(z2), z1)
        kl_z2 = self.kl(upper, self.prior(noise=noise), z2)
        divergence = kl_z1 + kl_z2
        loss = nll + self.beta.value * divergence
        return {"loss": loss, "nll": nll, "kl": divergence, "kl_z1": kl_z1, "kl_z2": kl_z2}

    def importance(self, batch: SparseBatch) -> Callable[[Noise], tf.Tensor]:
        """The same as `VariationalAutoencoder.importance`, for z_1 and z_2 together."""
        upper, prior = self.posterior(batch), self.prior()

        def log_weight(noise: Noise) -> tf.Tensor:
            z2 = sample_with(noise, "z2", upper)
            lower = self.lower_posterior(batch, z2)
            z1 = sample_with(noise, "z1", lower)
            joint = self.log_likelihood((z1, z2), batch) + self.lower_prior(z2).log_prob(z1) + prior.log_prob(z2)
            return joint - lower.log_prob(z1) - upper.log_prob(z2)

        return log_weight

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Logits [B, n_items] at the means: z_2 = μ_2(x), z_1 = μ_1(x, z_2)."""
        z2 = self.posterior(batch).mean()
        z1 = self.lower_posterior(batch, z2).mean()
        return self.decoder((z1, z2))


class _JointEncoder(keras.layers.Layer):
    """Maps a user row and a code to the moments of another code; the module's docstring says how they are joined."""

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        code_dim: int,
        outputs: int,
        heads: int,
        layer_config: LayerConfig,
        dropout: float,
        name: str,
    ):
        super().__init__(autocast=False, name=name, dtype=layer_config.dtype)
        first, *rest = hidden
        beside = 0 if rest else code_dim
        self.of_rows = EmbeddingBag(n_items, first, layer_config, dropout=dropout, beside=beside, name=f"{name}_0")
        self.of_code = hidden_stack(code_dim, [first] if rest else [], layer_config, f"{name}_code")
        self.joint = [
            *hidden_stack(2 * first, rest, layer_config, name),
            output_layer(hidden[-1], outputs, layer_config.for_output(), f"{name}_heads", heads),
        ]
        self.built = True

    def call(self, batch: SparseBatch, code: tf.Tensor, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows and codes [B, code_dim] to [B, outputs]."""
        if self.of_code:
            hidden = tf.concat([self.of_rows(batch, noise=noise), self.of_code[0](code)], axis=1)
        else:
            hidden = self.of_rows(batch, noise=noise, beside=code)
        for layer in self.joint:
            hidden = layer(hidden)
        return hidden


class _JointDecoder(keras.layers.Layer):
    """Maps two codes to item logits; the module's docstring says how they are joined."""

    def __init__(self, n_items: int, hidden: Sequence[int], code_dim: int, layer_config: LayerConfig, name: str):
        super().__init__(name=name, dtype=layer_config.dtype)
        first, *rest = hidden
        self.of_codes = [
            hidden_stack(code_dim, [first], layer_config, f"{name}_z{number}")[0] for number in (1, 2) if rest
        ]
        joint = rest or [first]
        self.joint = Decoder(n_items, joint, 2 * (first if rest else code_dim), layer_config, name=f"{name}_joint")
        self.built = True

    def call(self, codes: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Maps two codes [B, code_dim] to float32 logits [B, n_items]."""
        first = [layer(code) for layer, code in zip(self.of_codes, codes, strict=True)] if self.of_codes else codes
        return self.joint(tf.concat(first, axis=1))
