"""Keras's `fit` as `tfvae.training.loop` calls it, without its callbacks."""

from __future__ import annotations

import keras

from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import row_numbers, steps_per_epoch


def fit(
    model: GradientRecommender, n_users: int, batch_size: int, epochs: int, first_epoch: int = 0, **given
) -> keras.callbacks.History:
    """Trains from `first_epoch` up to `epochs`, in the order of the model's seed."""
    return model.fit(
        row_numbers(n_users, batch_size, model.seed, first_epoch),
        initial_epoch=first_epoch,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch(n_users, batch_size),
        shuffle=False,
        verbose=0,
        **given,
    )
