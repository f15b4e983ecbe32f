"""Contestant: tfvae's own training path, from user numbers in tf.data through Keras `fit`."""

from __future__ import annotations

import time
from types import SimpleNamespace

from common import MODEL, answer, contestant_arguments
from keras_clock import Clock

from tfvae.nn.batches import row_numbers
from tfvae.system.memory import keep_freed_buffers
from tfvae.training import loop as training
from tfvae.training.settings import settings_of

SHARED = {
    "latent_dim": MODEL.latent_dim,
    "dropout": MODEL.dropout,
    "batch_size": MODEL.batch_size,
    "learning_rate": MODEL.learning_rate,
    "optimizer": "adam",
    "seed": MODEL.seed,
}
MULT_VAE = SHARED | {
    "hidden": (MODEL.hidden,),
    "beta_cap": MODEL.beta_cap,
    "anneal_updates": MODEL.anneal_updates,
}
VARIANTS = {  # name: (model, settings, the epoch whose steps are timed)
    "float32": ("mult-vae", MULT_VAE, 0),
    "mixed_bfloat16": ("mult-vae", MULT_VAE | {"precision": "mixed_bfloat16"}, 0),
    "without-kept-buffers": ("mult-vae", MULT_VAE, 0),
    "vamp": ("vamp", SHARED | {"hidden": (MODEL.hidden,), "beta_cap": MODEL.beta_cap, "warmup_epochs": 0}, 0),
    "recvae-encoder": ("recvae", SHARED, 0),
    "recvae-decoder": ("recvae", SHARED, 3),
}


def main() -> None:
    """Trains as `tfvae.training.loop.train` does, less validation and checkpoints."""
    arguments = contestant_arguments(__doc__, list(VARIANTS))
    problem = arguments.problem
    name, given, epoch = VARIANTS[arguments.variant]
    settings = settings_of(name, given)
    if arguments.variant != "without-kept-buffers":
        keep_freed_buffers()
    n_users, n_items = problem.matrix.shape
    model = settings.build(n_items)
    training.prepare_to_fit(model, SimpleNamespace(train=problem.matrix), settings.training.learning_rate)
    model.rows_seen.assign(epoch * n_users)
    model.begin_epoch(epoch)  # traces what it needs
    begun = time.perf_counter()
    model.begin_epoch(epoch)
    between_epochs = time.perf_counter() - begun
    clock = Clock(n_items, item_major=True, warmup=arguments.warmup, every=arguments.every)
    model.fit(
        # The same users as in problem.batches, which were drawn from this very data set.
        row_numbers(n_users, settings.training.batch_size, settings.training.seed),
        epochs=1,
        steps_per_epoch=len(problem.batches),
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    answer(arguments.out, clock.meter, clock.loss, between_epochs=between_epochs)


if __name__ == "__main__":
    main()
