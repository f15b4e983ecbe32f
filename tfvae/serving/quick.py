"""The quick copy of a run's model: a LiteRT export in the run folder, which answers one person at once.

TensorFlow takes seconds to load, a LiteRT file a tenth of one. `tfvae fit` keeps the copy in `quick/` of the run, and
`tfvae recommend` takes it if it has all that is asked for. It needs the package `ai-edge-litert` (extra `litert`);
without it there is no copy, and whatever a copy cannot answer the run itself does.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tfvae.serving.export_folder import is_litert, made_of
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_json, sha256_of

if TYPE_CHECKING:
    from tfvae.models.base import Recommender
    from tfvae.serving.litert_file import LiteRTFile

__all__ = ["QUICK_FOLDER", "keep_quick_copy", "quick_copy"]

QUICK_FOLDER = "quick"
LARGEST = 2**28
"""Bytes of weights beyond which no copy is kept: to convert takes long, and to load takes longer than TensorFlow."""


def keep_quick_copy(run: Path, model: Recommender) -> None:
    """Keeps a quick copy in the folder of a finished run, unless it has one.

    There is none of a model of ratings, whose standard deviations a LiteRT file does not give, of one that serves its
    training users only, of one with more than 256 MB of weights, nor of one that LiteRT has no kernels for.

    Args:
        run: The run folder.
        model: The run's model.

    Raises:
        InputError: If the run's items cannot be read.
    """
    if model.predicts_ratings or not model.scores_new_users or find_spec("ai_edge_litert") is None:
        return
    if sum(weight.value.dtype.size * weight.shape.num_elements() for weight in model.variables) > LARGEST:
        return
    if quick_copy(run) is not None:
        return
    from tfvae.serving.litert import export_litert
    from tfvae.serving.rules import Rules
    from tfvae.serving.run_files import items_of

    items = items_of(run)
    rules = Rules(n_users=items.n_users)
    # It cannot be converted, something else is in quick/, or the disk is full: then the run serves.
    with suppress(InputError, OSError):
        export_litert(model, items.item_ids, run / QUICK_FOLDER, items.titles, rules=rules, made_of=_identity(run))


def quick_copy(run: Path) -> LiteRTFile | None:
    """The quick copy of a finished run; None if there is none that is whole and made of the run's model as it is.

    Args:
        run: The run folder, or any other.
    """
    if find_spec("ai_edge_litert") is None or not _is_of(run):
        return None
    from tfvae.serving.litert_file import LiteRTFile

    with suppress(InputError):  # the copy is damaged; the run serves
        return LiteRTFile(run / QUICK_FOLDER)
    return None


def _is_of(run: Path) -> bool:
    """Whether there is a quick copy that was made of the run as it is, none of whose files has changed since."""
    outcome = run / "run.json"
    if not (is_litert(run / QUICK_FOLDER) and outcome.is_file()):
        return False
    with suppress(InputError, OSError, AttributeError):  # the run itself says what is wrong
        files = read_json(outcome, "the outcome of a run").get("files", {})  # none in a run of an early version
        return (
            made_of(run / QUICK_FOLDER) == _identity(run)
            and bool(files)
            and all(sha256_of(run / name) == expected for name, expected in files.items())
        )
    return False


def _identity(run: Path) -> str:
    """What a finished run is known by; `run.json` has the SHA-256 of its model and of its items."""
    return digest(*(sha256_of(run / name) for name in ("settings.json", "run.json")))
