"""Recommendations as a LiteRT file (formerly TensorFlow Lite), for phones, browsers and small servers.

The file takes numbers of items and returns numbers of items, since LiteRT has no tables of ids; `items.csv` beside it
says which item each number is. `tfvae recommend` takes it in place of a run. It answers for one person at a time:

    model = Interpreter("model.tflite").get_signature_runner("recommend")
    model(history=np.array([[3, 17]], np.int32), k=np.int32(10))
"""

from __future__ import annotations

import csv
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfvae.data.items import ITEMS_FILE, Items
from tfvae.nn.batches import SparseBatch, unpad
from tfvae.nn.sparse_ops import portable_ops
from tfvae.serving.export_folder import MODEL_FILE, exporting, refuse_export
from tfvae.serving.ranker import Ranker, plain_ids
from tfvae.serving.recommendations import refuse_training_users_only
from tfvae.system.errors import InputError
from tfvae.system.text_arrays import text_array

if TYPE_CHECKING:
    from tfvae.models.base import Recommender
    from tfvae.serving.rules import Rules

__all__ = ["ITEMS_TABLE", "export_litert"]

ITEMS_TABLE = "items.csv"
LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into a file whose offsets are 32-bit, with room for the graph."""
SOLVERS = frozenset({"Cholesky", "MatrixTriangularSolve"})
"""The operations by which models solve a system of equations for each person."""
INSTEAD = "Export it as a SavedModel, which every model can be that serves new users."
TOLERANCE = 1e-3
"""How far a converted score may be from the model's, as a share of the largest: some 1,000 times what is measured."""


class _Core(tf.Module):
    """The two functions of the file, for one person and items by their numbers."""

    def __init__(self, model: Recommender, rank: Ranker):
        super().__init__(name="recommendations")
        self._model_scores, self._rank, self._n_items = model.scores, rank, model.n_items
        inputs = [tf.TensorSpec([1, None], tf.int32, "history")]
        if rank.scale is not None:
            inputs.append(tf.TensorSpec([1, None], tf.float32, "ratings"))
        self.recommend = tf.function(self._recommend, [*inputs, tf.TensorSpec([], tf.int32, "k")], autograph=False)
        self.scores = tf.function(self._scores, inputs, autograph=False)
        self._weights = list(self.scores.get_concrete_function().graph.variables)

    @property
    def n_bytes(self) -> int:
        """The size of the weights that scoring reads."""
        return sum(weight.dtype.size * weight.shape.num_elements() for weight in self._weights)

    def without_kernels(self) -> str:
        """What the model computes that LiteRT has no kernels for, as a clause; "" if there is no such thing."""
        graph = self.recommend.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        solvers = sorted(SOLVERS & {node.op for node in nodes})
        if solvers:
            return f"solves a system of equations for each user (by {' and '.join(solvers)})"
        if any(value.type == tf.bfloat16.as_datatype_enum for node in nodes for value in node.attr.values()):
            return "computes in bfloat16 (precision)"
        return ""

    def _recommend(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        *told, k = inputs
        batch, unknown = self._read(*told)
        return self._rank.places(batch, k) | {"unknown": unknown}

    def _scores(self, *told: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": tf.cast(self._model_scores(self._read(*told)[0]), tf.float32)}

    def _read(self, history: tf.Tensor, ratings: tf.Tensor | None = None) -> tuple[SparseBatch, tf.Tensor]:
        """The one row, with each item once and its last rating, and the number of unknown entries, int32 [1]."""
        known = tf.where((history[0] >= 0) & (history[0] < self._n_items))[:, 0]
        given = tf.gather(history[0], known)
        items, places = tf.unique(given)
        values = None
        if ratings is not None:
            last = tf.math.unsorted_segment_max(tf.range(tf.size(given)), places, tf.size(items))
            values = tf.gather(tf.gather(ratings[0], known), last)
        lengths = tf.cast(tf.size(items), tf.float32)[None]
        n_told = tf.reduce_sum(tf.cast(tf.not_equal(history, -1), tf.int32), axis=1)
        return SparseBatch(items, tf.zeros_like(items), lengths, values), n_told - tf.size(given)


def export_litert(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    folder: Path | str,
    titles: Sequence[str] | np.ndarray | None = None,
    scale: tuple[float, float] | None = None,
    rules: Rules | None = None,
    made_of: str | None = None,
) -> None:
    """Writes a LiteRT file that recommends to one person at a time, by LiteRT's own operations alone, in float32.

    `model.tflite` has two signatures. Items are numbers from 0 to n_items − 1; `items.csv` beside it has the `id` and,
    if titles are given, the `title` of each `number`. `items.npz` has the same for `tfvae recommend`.

    - `recommend` takes `history` [1, L], int32, with pads of −1 at any place, and `k`, an int32 scalar. It returns
      `items`, int32, and `scores`, float32, both [1, k], and `unknown` [1], the number of entries that are no item's
      number. If fewer than k items can be recommended, the last ranks have item −1 and, as score, the lowest float32,
      which the converter makes of −∞.
    - `scores` takes `history` and returns `scores` [1, n_items], those of the model.

    For a model of ratings, both also take `ratings`, float32 [1, L], with any value at pads. `recommend` then returns
    predicted ratings within the scale; it gives no standard deviations, and does not refuse ratings off the scale.

    The file is run on a few histories before it is put in place, and its scores are compared with the model's.

    Args:
        model: Any recommender that scores users on whom it was not trained, but for those that solve a system of
            equations for each: WMF, PMF, BiasMF, two-sided p-VAE, and ensembles with one of them.
        item_ids: The ids of the model's items, [n_items], such as `split.item_ids`.
        folder: The folder to write, in one step; an earlier export is replaced if nothing was added to it.
        titles: The items' titles, [n_items]; None writes none.
        scale: For a model of ratings, the lowest and the highest training rating, such as `split.scale`.
        rules: What may always be recommended; None allows all items. They can neither have `at_most` nor `diversity`.
        made_of: What the file is made of, such as a digest of the run; it is kept beside the file.

    Raises:
        InputError: If LiteRT has no kernel for an operation of the model, the weights are larger than 2 GB, or the
            converted scores are others; and for the reasons that are given at `tfvae.export.export`.
    """
    folder = Path(folder)
    refuse_export(folder, rules)
    refuse_training_users_only(model)
    with portable_ops():
        core = _Core(model, Ranker(model, item_ids, titles, scale, rules, with_sd=False))
        converted = _converted(core, model.name)
    _refuse_other_scores(converted, model, scale)
    kind, ids = plain_ids(item_ids, "item ids")
    described = Items(
        np.array(ids, np.int64) if kind == tf.int64 else text_array(list(map(str, ids))),
        None if titles is None else text_array(list(map(str, titles))),
        scale,
        np.zeros(len(ids), np.int64) if rules is None or rules.n_users is None else np.asarray(rules.n_users),
    )
    with exporting(folder, read_again=[MODEL_FILE, ITEMS_FILE], of=made_of) as draft:
        (draft / MODEL_FILE).write_bytes(converted)
        described.save(draft)
        with open(draft / ITEMS_TABLE, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["number", "id"] if titles is None else ["number", "id", "title"])
            table.writerows(zip(range(model.n_items), ids, *([] if titles is None else [titles]), strict=True))


def _converted(core: _Core, name: str) -> bytes:
    """The file's content."""
    if reason := core.without_kernels():
        raise InputError(f"{name} {reason}, for which LiteRT has no kernels. {INSTEAD}")
    if core.n_bytes > LARGEST:
        raise InputError(
            f"the weights of {name} are {core.n_bytes / 1e9:.1f} GB, and a LiteRT file holds 2 GB. {INSTEAD}"
        )
    signatures = {"recommend": core.recommend, "scores": core.scores}
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(core, folder, signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = False  # the weights become constants
        try:
            return converter.convert()
        except Exception as problem:  # the converter's own errors have no public class
            missing = ", ".join(sorted(set(re.findall(r"(?:TF Select|Custom) ops: (.*)", str(problem)))))
            reason = f"LiteRT has no kernels for {missing}" if missing else str(problem)[-300:].strip()
            raise InputError(f"{name} cannot be converted: {reason}. {INSTEAD}") from problem


def _refuse_other_scores(converted: bytes, model: Recommender, scale: tuple[float, float] | None) -> None:
    """Refuses a file that does not give the model's scores for the first items, for the last one, and for none."""
    with warnings.catch_warnings():  # that the interpreter of the package ai-edge-litert will take its place
        warnings.simplefilter("ignore")
        # With the default delegate it says on the standard error that there is one.
        plain = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = tf.lite.Interpreter(model_content=converted, experimental_op_resolver_type=plain)
        scores = interpreter.get_signature_runner("scores")
    for items in ([0, 1, 2][: model.n_items], [model.n_items - 1], [-1]):
        told = {"history": np.array([items], np.int32)}
        if scale is not None:
            told["ratings"] = np.full((1, len(items)), scale[1], np.float32)
        expected = np.asarray(model.scores(unpad(told["history"], values=told.get("ratings"))), np.float32)
        error, largest = np.abs(scores(**told)["scores"] - expected).max(), np.abs(expected).max()
        if not error <= TOLERANCE * largest:
            raise InputError(
                f"the converted scores of {model.name} differ by up to {error:.3g} from the model's, of which the "
                f"largest is {largest:.3g}. {INSTEAD}"
            )
