"""Contestant: tfvae's own training path, from user numbers in tf.data through Keras `fit`."""

from __future__ import annotations

from types import SimpleNamespace

from common import MODEL, answer, contestant_arguments
from keras_clock import Clock

from tfvae import training
from tfvae.data.rows import user_numbers
from tfvae.memory import keep_freed_buffers
from tfvae.settings import settings_of

VARIANTS = ["float32", "mixed_bfloat16", "without-kept-buffers", "vamp"]


def main() -> None:
    """Trains as `tfvae.training.train` does, less validation and checkpoints."""
    arguments = contestant_arguments(__doc__, VARIANTS)
    problem = arguments.problem
    settings = settings_of(
        "vamp" if arguments.variant == "vamp" else "mult-vae",
        {
            "hidden": (MODEL.hidden,),
            "latent_dim": MODEL.latent_dim,
            "dropout": MODEL.dropout,
            "beta_cap": MODEL.beta_cap,
            "anneal_updates": MODEL.anneal_updates,
            "batch_size": MODEL.batch_size,
            "learning_rate": MODEL.learning_rate,
            "anneal_by": "updates",
            "optimizer": "adam",
            "seed": MODEL.seed,
            "precision": "mixed_bfloat16" if arguments.variant == "mixed_bfloat16" else "float32",
        },
    )
    if arguments.variant != "without-kept-buffers":
        keep_freed_buffers()
    n_users, n_items = problem.matrix.shape
    model = settings.build(n_items)
    training.prepare_to_fit(model, SimpleNamespace(train=problem.matrix), settings.training.learning_rate)
    clock = Clock(n_items, item_major=True, warmup=arguments.warmup, every=arguments.every)
    model.fit(
        # The same users as in problem.batches, which were drawn from this very data set.
        user_numbers(n_users, settings.training.batch_size, settings.training.seed),
        epochs=1,
        steps_per_epoch=len(problem.batches),
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    answer(arguments.out, clock.meter, clock.loss)


if __name__ == "__main__":
    main()
