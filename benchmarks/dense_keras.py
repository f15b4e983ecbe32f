"""Contestant: Mult-VAE as in a notebook: dense rows, stock layers, stock Adam, Keras `fit`."""

from __future__ import annotations

import keras
import tensorflow as tf
from common import MODEL, Problem, answer, contestant_arguments
from keras import layers, ops
from keras_clock import Clock

__all__ = ["DenseMultVAE", "dense_twin"]


class DenseMultVAE(keras.Model):
    """Mult-VAE on dense rows [B, n_items]; `call` gives logits, μ and log σ².

    Args:
        n_items: Width of the catalogue.
        dropout: Share of the normalised input dropped in training.
    """

    def __init__(self, n_items: int, dropout: float = MODEL.dropout):
        super().__init__()

        def dense(units, activation=None):
            bias = keras.initializers.TruncatedNormal(stddev=0.001)
            return layers.Dense(units, activation, bias_initializer=bias)

        self.prepare = keras.Sequential([layers.UnitNormalization(), layers.Dropout(dropout)])
        self.encoder = keras.Sequential([dense(MODEL.hidden, "tanh"), dense(2 * MODEL.latent_dim)])
        self.decoder = keras.Sequential([dense(MODEL.hidden, "tanh"), dense(n_items)])

    def call(self, x, training=False):
        """One sample of z in training, the mean of z otherwise."""
        mean, log_variance = ops.split(self.encoder(self.prepare(x, training=training)), 2, axis=1)
        z = mean
        if training:
            z = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean))
        return self.decoder(z), mean, log_variance

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The negative ELBO with the KL weight of this update, averaged over users."""
        logits, mean, log_variance = y_pred
        nll = -ops.sum(ops.log_softmax(logits) * x, axis=1)
        kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance, axis=1)
        updates = ops.cast(self.optimizer.iterations, "float32")
        beta = ops.minimum(MODEL.beta_cap, updates / MODEL.anneal_updates)
        return ops.mean(nll + beta * kl)


def dense_twin(model) -> DenseMultVAE:
    """A dense model, without dropout, of the weights of a `tfvae.models.multvae.MultVAE`."""
    twin = DenseMultVAE(model.n_items, dropout=0.0)
    twin(tf.zeros([1, model.n_items]))
    (second,), (third,), last = model.encoder.rest, model.decoder.hidden, model.decoder.last
    first = model.encoder.first
    twin.encoder.set_weights([first.kernel, first.bias, second.kernel, second.bias])
    twin.decoder.set_weights([third.kernel, third.bias, ops.transpose(last.kernel), last.bias])
    return twin


def _dense_rows(problem: Problem) -> tf.data.Dataset:
    def rows():
        for users in problem.batches:
            yield problem.matrix[users].toarray()

    signature = tf.TensorSpec([None, problem.matrix.shape[1]], tf.float32)
    return tf.data.Dataset.from_generator(rows, output_signature=signature).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Trains and writes what was measured."""
    arguments = contestant_arguments(__doc__, ["dense"])
    problem = arguments.problem
    n_items = problem.matrix.shape[1]
    keras.utils.set_random_seed(MODEL.seed)
    model = DenseMultVAE(n_items)
    model.compile(optimizer=keras.optimizers.Adam(MODEL.learning_rate))
    clock = Clock(n_items, item_major=False, warmup=arguments.warmup, every=arguments.every)
    model.fit(
        _dense_rows(problem),
        epochs=1,
        steps_per_epoch=len(problem.batches),
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    answer(arguments.out, clock.meter, clock.loss)


if __name__ == "__main__":
    main()
