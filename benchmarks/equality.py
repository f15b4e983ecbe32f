"""At equal weights and without noise, the loss of tfvae is that of the dense Keras model; no clock here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import tensorflow as tf
from common import MODEL, Problem
from dense_keras import dense_twin

from tfvae.models.multvae import MultVAE
from tfvae.nn.batches import RowStore

UPDATE = 20_000  # halfway up the KL weight's ramp, so that both schedules are compared as well


class Still:
    """Stands in for `tfvae.nn.noise.Noise`: every normal draw is 0."""

    def normal(self, shape, name: str) -> tf.Tensor:
        """Zeros of that shape."""
        return tf.zeros(shape)


def main() -> None:
    """Writes both losses of the problem's first batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(losses(Problem.load(arguments.problem))), encoding="utf-8")


def losses(problem: Problem) -> dict[str, float]:
    """The losses of a problem's first batch, by contestant."""
    users = problem.batches[0]
    ours = MultVAE(
        problem.matrix.shape[1],
        hidden=(MODEL.hidden,),
        latent_dim=MODEL.latent_dim,
        beta_cap=MODEL.beta_cap,
        anneal_updates=MODEL.anneal_updates,
        dropout=0.0,
    )
    ours.attach(problem.matrix)
    ours.step.assign(UPDATE)
    ours.before_step()
    our_loss = ours.objective(RowStore(problem.matrix[users]).gather(tf.range(len(users))), Still())["loss"]

    dense = dense_twin(ours)
    dense.compile(optimizer=keras.optimizers.Adam(MODEL.learning_rate))
    dense.optimizer.iterations.assign(UPDATE)
    x = tf.constant(problem.matrix[users].toarray())
    dense_loss = dense.compute_loss(x=x, y_pred=dense(x, training=False))
    return {"tfvae": float(our_loss), "plain dense Keras": float(dense_loss)}


if __name__ == "__main__":
    main()
