"""The vectors of a trained model's items, for TensorBoard's projector."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from tfvae.data.items import Items
from tfvae.models.base import HasItemVectors
from tfvae.system.files import replacing, write_text

__all__ = ["MOST_ITEMS", "remove_projector", "write_projector"]

MOST_ITEMS = 10_000
"""The projector holds all points in the browser's memory."""
CONFIG, METADATA, STATE, TENSOR = "projector_config.pbtxt", "metadata.tsv", "checkpoint", "item_vectors"
TENSOR_FILES = (f"{TENSOR}.index", f"{TENSOR}.data-00000-of-00001")
MARK = "# Written by tfvae.\n"


def write_projector(folder: Path, model: HasItemVectors, items: Items) -> int:
    """Writes the item vectors of a model beside the events of its run.

    They are a TensorFlow checkpoint, since of a large table TensorBoard reads nothing else as fast and as surely; the
    metadata are tab-separated. Files of these names that tfvae did not write are left as they are, and nothing is
    written then.

    Args:
        folder: The log folder of the run.
        model: The trained model.
        items: Its items.

    Returns:
        The number of items that are shown: at most 10,000, those that most training users have, most used first.
    """
    # Here, since who reads a finished run needs none of it.
    from tensorboard.plugins.projector.projector_config_pb2 import EmbeddingInfo, ProjectorConfig

    config, others = folder / CONFIG, [folder / name for name in (METADATA, STATE, *TENSOR_FILES)]
    if any(path.exists() for path in [config, *others]) and not _is_ours(config):
        return 0
    shown = np.argsort(-items.n_users, kind="stable")[:MOST_ITEMS]
    embedding = EmbeddingInfo(tensor_name=TENSOR, metadata_path=METADATA)
    write_text(config, MARK + text_format.MessageToString(ProjectorConfig(embeddings=[embedding])))
    write_text(folder / METADATA, _metadata(items, shown))
    vectors = tf.gather(model.item_vectors(), shown)
    index, data = TENSOR_FILES
    with replacing(folder / index) as draft:
        prefix = str(draft.parent / TENSOR)
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=[TENSOR], shape_and_slices=[""], tensors=[vectors])
        os.replace(draft.parent / data, folder / data)
    # TensorBoard looks for this file; the name in it is relative, so that the folder may be moved.
    write_text(folder / STATE, f'model_checkpoint_path: "{TENSOR}"\n')
    return len(shown)


def remove_projector(folder: Path) -> None:
    """Removes the files that `write_projector` wrote into a folder, if it did."""
    if _is_ours(folder / CONFIG):
        for name in (STATE, *TENSOR_FILES, METADATA, CONFIG):
            (folder / name).unlink(missing_ok=True)


def _is_ours(config: Path) -> bool:
    return config.is_file() and config.read_bytes().startswith(MARK.encode())


def _metadata(items: Items, shown: np.ndarray) -> str:
    """A line for each item, and one above them; the first column is what the projector writes beside the points."""
    columns = {"title": items.titles} if items.titles is not None else {}
    columns |= {"id": items.item_ids, "users": items.n_users}
    lines = ["\t".join(columns)]
    for item in shown:
        cells = {name: _cell(column[item]) for name, column in columns.items()}
        cells["title"] = cells.get("title") or cells["id"]
        lines.append("\t".join(cells[name] for name in columns))
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    """A value in one cell: white space of any kind, such as a tab or the end of a line, becomes one space."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())
