"""An ensemble out of its trained members."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tfvae.data.splits import Split
from tfvae.evaluation.mixing import choose_weights
from tfvae.models.ensemble import AnyEnsemble
from tfvae.training.settings import Settings

if TYPE_CHECKING:
    from tfvae.training.loop import TrainedModel

__all__ = ["assembled"]


def assembled(
    settings: Settings, split: Split, runs: Iterable[TrainedModel], log: Callable[[str], None]
) -> tuple[AnyEnsemble, float]:
    """An ensemble of trained members, with its weights.

    Args:
        settings: The settings of the ensemble, of which those of the members are complete.
        split: The data, on whose validation part the weights are chosen; without one they stay equal.
        runs: The finished runs of the members, in their order.
        log: Called with one line at a time.

    Returns:
        The ensemble, and the sum of the members' seconds of training.

    Raises:
        InputError: If a member has other settings than it is said to have.
    """
    ensemble, seconds = settings.build_for(split), 0.0
    assert isinstance(ensemble, AnyEnsemble)
    for number, run in enumerate(runs):
        ensemble.adopt(number, run.model)
        seconds += run.seconds
    if ensemble.weighting == "validation":
        if split.validation is None:
            log("There is no validation part on which weights could be chosen; they stay equal.")
        else:
            choose_weights(ensemble, split.validation, settings.training.monitor, log)
    return ensemble, seconds
