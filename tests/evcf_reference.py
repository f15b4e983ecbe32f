"""Vamp and H+Vamp on dense float64 arrays, from EVCF's equations and the wiring of its code: no layer of tfvae."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from dense_reference import Recorded, normalised, on_the_items
from scipy.sparse import csr_array

from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import NormalizedAdam

SMALL = {"latent_dim": 4, "n_pseudo_inputs": 5, "warmup_epochs": 10}
DEPTHS = {1: (9,), 2: (9, 7), 3: (9, 7, 6)}
# Depth, gating, likelihood: each depth and each gating with each likelihood.
CASES = [
    (1, False, "multinomial"),
    (1, True, "bernoulli"),
    (2, False, "bernoulli"),
    (2, True, "multinomial"),
    (3, False, "multinomial"),
    (3, True, "bernoulli"),
]


def ready(model, x, epoch=7):
    """Compiled, with the rows attached, in the given epoch, counted from 1."""
    model.attach(csr_array(x))
    model.compile(optimizer=NormalizedAdam(0.01), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.rows_seen.assign((epoch - 1) * len(x))
    return model


def unsettle(model, heads):
    """Moves pseudo-inputs beyond 0 and 1, and one log-variance of each (output layer, distance) by the distance."""
    kernel = model.pseudo_inputs.kernel.numpy()
    kernel[:, :4] = np.random.default_rng(7).uniform(-0.5, 1.5, (len(kernel), 4))
    model.pseudo_inputs.kernel.assign(kernel)
    for layer, distance in heads:
        bias = layer.outputs[1].bias
        bias.assign(bias + distance * np.eye(model.latent_dim)[0])
    return model


def copy_of(weight) -> tf.Variable:
    """A float64 variable of the same values."""
    return tf.Variable(weight.numpy().astype(float))


def log_normal(z, mean, log_variance):
    """The log-density of a diagonal normal, summed over the last axis."""
    by_dimension = log_variance + (z - mean) ** 2 / tf.exp(log_variance) + np.log(2 * np.pi)
    return -0.5 * tf.reduce_sum(by_dimension, axis=-1)


def log_likelihood(name, x, logits):
    """Multinomial without its coefficient, or EVCF's Bernoulli with clamped probabilities; [..., n_items] to [...]."""
    if name == "multinomial":
        return tf.reduce_sum(x * tf.nn.log_softmax(logits), axis=-1)
    shares = tf.clip_by_value(tf.sigmoid(logits), 1e-5, 1 - 1e-5)
    return tf.reduce_sum(x * tf.math.log(shares) + (1 - x) * tf.math.log(1 - shares), axis=-1)


class Reference:
    """The networks of a `Vamp` or `HVamp`, on copies of its weights.

    Args:
        model: Whose weights and settings to take; it is not called.
    """

    def __init__(self, model):
        self.weights = {weight.path: copy_of(weight) for weight in model.trainable_variables}
        self.depth = len(model.hidden)
        self.gated = model.gated
        self.likelihood = model.likelihood
        self.dropout = model.dropout
        self.hierarchical = any(path.startswith("lower_") for path in self.weights)

    def affine(self, name, x, prefix=""):
        return x @ self.weights[f"{name}/{prefix}kernel"] + self.weights[f"{name}/{prefix}bias"]

    def layer(self, name, x):
        """tanh(xW + b), or (xW + b) ⊗ σ(xV + c)."""
        if not self.gated:
            return tf.tanh(self.affine(name, x))
        if f"{name}/gate_kernel" in self.weights:  # the layers on items
            return self.affine(name, x) * tf.sigmoid(self.affine(name, x, "gate_"))
        return self.affine(f"{name}_value", x) * tf.sigmoid(self.affine(f"{name}_gate", x))

    def layers(self, name, x, numbers):
        for number in numbers:
            x = self.layer(f"{name}_{number}", x)
        return x

    def heads(self, name, x):
        return self.affine(f"{name}_0", x), tf.clip_by_value(self.affine(f"{name}_1", x), -12.0, 4.0)

    def upper(self, inputs):
        """μ and log σ² of q(z_2 | inputs), or of the one q(z | inputs)."""
        return self.heads(f"encoder_{self.depth}", self.layers("encoder", inputs, range(self.depth)))

    def prior(self, z, kept=None):
        """Log 1/K Σ_k q(z | u_k), by way of a [B, K, D] array."""
        inputs = tf.clip_by_value(self.weights["pseudo_inputs/kernel"], 0.0, 1.0)
        if kept is not None:
            inputs = inputs * kept / (1 - self.dropout)
        mean, log_variance = self.upper(inputs)
        by_component = log_normal(z[:, None], mean[None], log_variance[None])
        return tf.reduce_logsumexp(by_component, axis=1) - np.log(len(mean))

    def lower(self, inputs, z2):
        """μ and log σ² of q(z_1 | inputs, z_2)."""
        if self.depth == 1:
            hidden = self.layer("lower_encoder_0", tf.concat([inputs, z2], axis=1))
        else:
            hidden = [self.layer("lower_encoder_0", inputs), self.layer("lower_encoder_code_1", z2)]
            hidden = self.layers("lower_encoder", tf.concat(hidden, axis=1), range(1, self.depth))
        return self.heads("lower_encoder_heads", hidden)

    def lower_prior(self, z2):
        """μ and log σ² of p(z_1 | z_2)."""
        return self.heads("lower_prior_heads", self.layers("lower_prior", z2, range(1, self.depth + 1)))

    def logits(self, z1, z2=None):
        if z2 is None:
            name, hidden = "decoder", self.layers("decoder", z1, range(1, self.depth + 1))
        elif self.depth == 1:
            name, hidden = "decoder_joint", self.layer("decoder_joint_1", tf.concat([z1, z2], axis=1))
        else:
            hidden = [self.layer("decoder_z1_1", z1), self.layer("decoder_z2_1", z2)]
            name = "decoder_joint"
            hidden = self.layers(name, tf.concat(hidden, axis=1), range(1, self.depth))
        kernel, bias = self.weights[f"{name}_logits/kernel"], self.weights[f"{name}_logits/bias"]
        return hidden @ tf.transpose(kernel) + bias

    def dropped(self, x, drawn, layer):
        """Normalised rows after the dropout whose uniform draws, one per item of a user, were recorded."""
        inputs, draws = normalised(x.astype(float)), drawn.get(f"{layer}/dropout")
        return inputs if draws is None else inputs * on_the_items(x, draws < 1 - self.dropout) / (1 - self.dropout)

    def parts(self, x, drawn):
        """Negative log-likelihood and KL (of z_1 and of z_2, or of the one z), averaged over users, with given noise.

        Args:
            x: float32 [B, n_items], binary.
            drawn: What `Recorded` drew in the step; ε of codes that it lacks is 0, and nothing is dropped then.
        """
        noise = {name: values.astype(float) for name, values in drawn.items()}
        upper_inputs = self.dropped(x, drawn, "encoder_0")
        mean, log_variance = self.upper(upper_inputs)
        z = mean + tf.exp(log_variance / 2) * noise.get("z2" if self.hierarchical else "z", 0.0)
        prior = self.prior(z, noise.get("encoder_0/dense-dropout"))
        divergences = {"kl_z2": log_normal(z, mean, log_variance) - prior}
        codes = (z,)
        if self.hierarchical:
            mean, log_variance = self.lower(self.dropped(x, drawn, "lower_encoder_0"), z)
            z1 = mean + tf.exp(log_variance / 2) * noise.get("z1", 0.0)
            divergences["kl_z1"] = log_normal(z1, mean, log_variance) - log_normal(z1, *self.lower_prior(z))
            codes = (z1, z)
        nll = -log_likelihood(self.likelihood, x, self.logits(*codes))
        parts = {name: tf.reduce_mean(values) for name, values in {"nll": nll, **divergences}.items()}
        return parts | {"kl": sum(parts[name] for name in divergences)}

    def scores(self, x):
        """Logits at the means, without any noise."""
        inputs = normalised(x.astype(float))
        z2 = self.upper(inputs)[0]
        return self.logits(self.lower(inputs, z2)[0], z2) if self.hierarchical else self.logits(z2)


def assert_losses_and_gradients_agree(model, x, monkeypatch, beta):
    """One training step of a model whose β is known against the reference: loss, parts, all gradients, all weights.

    Args:
        model: Compiled with `NormalizedAdam`, never trained, the rows attached.
        x: float32 [B, n_items], the rows.
        monkeypatch: Of pytest.
        beta: The KL weight of this step.

    Returns:
        What was drawn, and the gradients by the variables' paths.
    """
    Recorded.drawn = drawn = {}
    monkeypatch.setattr("tfvae.models.gradient.Noise", Recorded)
    reference = Reference(model)
    logs = {name: float(value) for name, value in model.train_step(tf.range(len(x), dtype=tf.int64)).items()}
    with tf.GradientTape() as tape:
        parts = reference.parts(x, drawn)
        loss = parts["nll"] + beta * parts["kl"]
    gradients = tape.gradient(loss, reference.weights)

    assert logs["beta"] == np.float32(beta)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    for name in model.loss_terms:
        np.testing.assert_allclose(logs[name], parts[name], rtol=1e-4, atol=1e-4, err_msg=name)
    optimizer = model.optimizer
    rate = float(optimizer.learning_rate) * np.sqrt(1 - 0.999) / (1 - 0.9)
    for variable, m, v in zip(model.trainable_variables, optimizer._momentums, optimizer._velocities, strict=True):
        m, v, gradient = m.numpy(), v.numpy(), gradients[variable.path].numpy()
        # After one step from zero the moments are the gradient of length one and its square, scaled.
        unit = gradient / (np.sqrt((gradient**2).sum()) + 1e-7)
        assert (unit**2).sum() > 0.99, variable.path  # so there is a gradient
        np.testing.assert_allclose(m / 0.1, unit, rtol=1e-3, atol=2e-5, err_msg=variable.path)
        np.testing.assert_allclose(v / 0.001, unit**2, rtol=2e-3, atol=2e-5, err_msg=variable.path)
        before = reference.weights[variable.path].numpy()
        step = rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(variable.numpy(), before - step, rtol=1e-5, atol=1e-6, err_msg=variable.path)
    # The length of a gradient drops out of the step, so the gradients themselves are taken once more.
    for weight, copy in zip(model.trainable_variables, reference.weights.values(), strict=True):
        weight.assign(copy)
    with tf.GradientTape() as tape:
        again = model.objective(model.histories.gather(tf.range(len(x))), Noise(model.seed, model.step.value - 1))
    np.testing.assert_allclose(again["loss"], logs["loss"], rtol=1e-6)
    for variable, found in zip(
        model.trainable_variables, tape.gradient(again["loss"], model.trainable_variables), strict=True
    ):
        expected = gradients[variable.path].numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5 * scale, err_msg=variable.path)
    return drawn, gradients


def dense_shapes(function) -> list[tuple[str, tuple]]:
    """Kind of operation and shape of all arrays in the graph of a function without arguments."""
    graph = tf.function(function).get_concrete_function().graph
    outputs = [(op.type, output.shape) for op in graph.get_operations() for output in op.outputs]
    return [(kind, tuple(shape)) for kind, shape in outputs if shape.rank]
