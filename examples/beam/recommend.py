"""Recommendations for everybody from an exported model, as an Apache Beam pipeline.

    python recommend.py --export exports/ratings --histories events.parquet --out top -k 50

It needs what requirements.txt beside it lists, and no tfvae. Options that it does not know, such as --runner, go to
Beam. Whoever runs it on a cluster needs this file alone: Beam sends it to the workers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

History = list[object]
Ranks = list[tuple]


class Ranked(NamedTuple):
    """The rankings of n people, in columns with a row for each rank that is not empty.

    Attributes:
        people: The place of each row's person among those who were asked for, [rows], ascending.
        columns: `rank` (int32, counted from 1), `item`, `score` (float32) and perhaps `title`, each [rows].
        counts: How many people, items of theirs, unknown items among these, and people without a known item there are.
    """

    people: np.ndarray
    columns: dict[str, np.ndarray]
    counts: dict[str, int]


class Exported:
    """A model that `tfvae export` has written, which needs TensorFlow alone.

    Args:
        folder: The folder, on any file system that TensorFlow reads.

    Attributes:
        of_text: Whether the ids of the items are text; else they are whole numbers.
        titled: Whether rankings have the items' titles.

    Raises:
        SystemExit: If the folder has no such model, or one that is told ratings.
    """

    def __init__(self, folder: str):
        if not tf.saved_model.contains_saved_model(folder):
            raise SystemExit(f"{folder}: expected what 'tfvae export' has written, found no SavedModel.")
        self._model = tf.saved_model.load(folder)  # which owns the weights of its signatures
        if not {"recommend", "items"} <= set(self._model.signatures):
            raise SystemExit(f"{folder}: expected what 'tfvae export' has written, found another SavedModel.")
        self._recommend = self._model.signatures["recommend"]
        if "ratings" in self._recommend.structured_input_signature[1]:
            raise SystemExit(f"{folder} predicts ratings from ratings; for such models use 'tfvae recommend --users'.")
        ids = self._model.signatures["items"]()["items"].numpy()
        self.of_text = ids.dtype == object
        self.titled = "titles" in self._recommend.structured_outputs
        self._pad = b"" if self.of_text else -1
        self._ids = np.append(ids, np.array([self._pad], ids.dtype))
        self._places = {_text(known): place for place, known in enumerate(ids.tolist())}

    def recommend(self, histories: Sequence[Sequence[object]], k: int) -> Ranked:
        """Ranks for n people.

        Items are compared as text, so that 7 and "7" are the same item, and one that comes twice counts once. The order
        of a history makes no difference.

        Args:
            histories: The ids of the items that each has.
            k: Length of the rankings.

        Raises:
            ValueError: If an id is missing.
        """
        distinct = [set(map(_text, history)) for history in histories]
        known = [sorted(self._places[text] for text in texts if text in self._places) for texts in distinct]
        padded = np.full((len(known), max(map(len, known), default=0)), len(self._ids) - 1)
        for row, places in zip(padded, known, strict=True):
            row[: len(places)] = places
        history = tf.constant(self._ids[padded], tf.string if self.of_text else tf.int64)
        found = {name: tensor.numpy() for name, tensor in self._recommend(history=history, k=tf.constant(k)).items()}
        filled = found["items"] != self._pad
        people, places = np.nonzero(filled)
        columns = {
            "rank": (places + 1).astype(np.int32),
            "item": found["items"][filled],
            "score": found["scores"][filled],
        }
        if self.titled:
            columns["title"] = found["titles"][filled]
        for name, column in columns.items():
            if column.dtype == object:
                columns[name] = np.array([text.decode() for text in column], object)
        n_items, n_known = sum(map(len, distinct)), sum(map(len, known))
        n_empty = sum(not places for places in known)
        counts = {"people": len(known), "items": n_items, "unknown": n_items - n_known, "empty": n_empty}
        return Ranked(people, columns, counts)


def _text(item: object) -> str:
    if item is None:
        raise ValueError("an item's id is missing; expected a whole number or text in each place.")
    return item.decode() if isinstance(item, bytes) else str(item)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that say what to read and to write."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--export", required=True, metavar="FOLDER", help="what 'tfvae export' has written")
    parser.add_argument("--histories", required=True, nargs="+", metavar="FILE", help="Parquet files, or patterns")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder for the Parquet files of rankings")
    parser.add_argument("-k", type=int, default=50, help="how many items to recommend to each (50)")
    parser.add_argument("--user-col", default="user", metavar="NAME", help="the column of people's ids (user)")
    parser.add_argument("--item-col", default="item", metavar="NAME", help="of items' ids, or of lists of them (item)")
    parser.add_argument("--batch-size", type=int, default=500, metavar="N", help="people scored at once (500)")
    return parser


def report(counts: Mapping[str, int], out: str) -> None:
    """Says what was written and what was not known.

    Raises:
        SystemExit: If none of the items was known, so that everybody got the same ranking.
    """
    print(f"Written: {out}, rankings for {counts['people']:,} people")
    if counts["unknown"]:
        print(f"Not in the training data, left out: {counts['unknown']:,} of {counts['items']:,} items of theirs")
    if counts["empty"]:
        print(f"Without any known item: {counts['empty']:,}, who got what the model recommends to somebody unknown")
    if counts["items"] and counts["unknown"] == counts["items"]:
        raise SystemExit("None of the items is one of the training data; is --item-col the column of their ids?")


class ExportedHandler(ModelHandler[History, Ranks, Exported]):
    """Loads an exported model, once in each process, and ranks for batches of histories.

    Beam's own handler of TensorFlow models loads them by Keras, which reads no SavedModel any more.

    Args:
        folder: The exported model.
        k: Length of the rankings.
        batch_size: People scored at once.
    """

    def __init__(self, folder: str, k: int, batch_size: int):
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        self._folder, self._k = folder, k

    def load_model(self) -> Exported:
        """The model; Beam shares it among the threads of a process."""
        return Exported(self._folder)

    def run_inference(
        self, batch: Sequence[History], model: Exported, inference_args: dict[str, Any] | None = None
    ) -> list[Ranks]:
        """The ranks of each history: tuples of rank, item, score and, if the export has titles, title."""
        ranked = model.recommend(batch, self._k)
        for name, count in ranked.counts.items():
            Metrics.counter("recommend", name).inc(count)
        ranks = list(zip(*(column.tolist() for column in ranked.columns.values()), strict=True))
        bounds = np.searchsorted(ranked.people, np.arange(len(batch) + 1))
        return [ranks[start:end] for start, end in pairwise(bounds)]


def histories_of(table: pa.Table) -> Iterator[tuple[object, History]]:
    """The people of a part of a file, whom other parts may have as well, and their items.

    Args:
        table: A column of people's ids, and one of items' ids or of lists of them.

    Raises:
        ValueError: If somebody has no id.
    """
    history: dict[object, History] = {}
    users, items = (column.to_pylist() for column in table.columns)
    for user, item in zip(users, items, strict=True):
        if user is None:
            raise ValueError("a person's id is missing; expected a whole number or text in each row.")
        history.setdefault(user, []).extend(item if isinstance(item, list) else [item])
    yield from history.items()


def rows_of(ranked: tuple[object, Ranks], names: Sequence[str]) -> Iterator[dict[str, object]]:
    """A row of the output for each rank of a person."""
    user, ranks = ranked
    for values in ranks:
        yield dict(zip(names, (user, *values), strict=True))


def output_schema(file: str, user: str, item: str, exported: Exported) -> pa.Schema:
    """The columns of the output, with people's ids as the file has them.

    Raises:
        SystemExit: If the file lacks a column, or has it in another type.
    """
    with FileSystems.open(file) as opened:
        found = pq.read_schema(opened)
    kinds = {}
    for name in (user, item):
        if name not in found.names:
            raise SystemExit(f"{file} has no column {name!r}; it has {', '.join(found.names)}. See --help.")
        kinds[name] = _plain(found.field(name).type)
    if pa.types.is_list(kinds[item]) or pa.types.is_large_list(kinds[item]):
        kinds[item] = _plain(kinds[item].value_type)
    for name, kind in kinds.items():
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise SystemExit(f"{file}: expected whole numbers or text in the column {name!r}, found {kind}.")
    columns = {"user": kinds[user], "rank": pa.int32(), "item": pa.string() if exported.of_text else pa.int64()}
    columns |= {"score": pa.float32()} | ({"title": pa.string()} if exported.titled else {})
    return pa.schema(columns.items())


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, however they are stored."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def files_of(patterns: Sequence[str]) -> list[str]:
    """The files that the patterns name.

    Raises:
        SystemExit: If one names none.
    """
    found = [[file.path for file in match.metadata_list] for match in FileSystems.match(list(patterns))]
    for pattern, files in zip(patterns, found, strict=True):
        if not files:
            raise SystemExit(f"{pattern}: expected Parquet files, found none.")
    return list(chain.from_iterable(found))


def main() -> None:
    """Reads, ranks, writes, and says what was not known."""
    args, others = arguments(__doc__.splitlines()[0]).parse_known_args()
    if args.k < 1 or args.batch_size < 1:
        raise SystemExit("-k and --batch-size: expected at least 1.")
    files = files_of(args.histories)
    if FileSystems.match([FileSystems.join(args.out, "*")])[0].metadata_list:
        raise SystemExit(f"{args.out} is not empty; give --out a new folder.")
    schema = output_schema(files[0], args.user_col, args.item_col, Exported(args.export))
    handler = KeyedModelHandler(ExportedHandler(args.export, args.k, args.batch_size))
    pipeline = beam.Pipeline(options=PipelineOptions(others))
    (
        pipeline
        | "Files" >> beam.Create(files)
        | "Read" >> beam.io.ReadAllFromParquetBatched(columns=[args.user_col, args.item_col])
        | "Parts of histories" >> beam.FlatMap(histories_of)
        | "By person" >> beam.GroupByKey()
        | "Histories" >> beam.MapTuple(lambda user, parts: (user, list(chain.from_iterable(parts))))
        | "Rank" >> RunInference(handler)
        | "Rows" >> beam.FlatMap(rows_of, schema.names)
        | "Write" >> beam.io.WriteToParquet(FileSystems.join(args.out, "part"), schema, file_name_suffix=".parquet")
    )
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("recommend"))["counters"]
    report(
        {"people": 0, "items": 0, "unknown": 0, "empty": 0} | {c.key.metric.name: c.result for c in counters}, args.out
    )


if __name__ == "__main__":
    main()
