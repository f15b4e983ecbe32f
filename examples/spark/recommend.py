"""Recommendations for everybody from an exported model, as an Apache Spark job.

    spark-submit recommend.py --export exports/ratings --histories events.parquet --out top -k 50

It needs what requirements.txt beside it lists, and no tfvae. Whoever runs it on a cluster needs this file alone: Spark
sends it to the workers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

if TYPE_CHECKING:
    from pyspark import Accumulator
    from pyspark.sql import DataFrame


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


@cache
def loaded(folder: str) -> Exported:
    """The model, read once in each Python process of Spark's."""
    # Spark runs a task on each core, so that more threads in each would only be in each other's way.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    return Exported(folder)


def ranked_frames(
    frames: Iterator[pd.DataFrame], folder: str, k: int, batch_size: int, counters: Mapping[str, Accumulator]
) -> Iterator[pd.DataFrame]:
    """Ranks for the people of a task.

    Args:
        frames: `user` and `items`, the lists of the ids of what each has.
        folder: The exported model.
        k: Length of the rankings.
        batch_size: People scored at once.
        counters: To which what `Ranked.counts` names is added.

    Yields:
        A row for each rank of a person: `user`, and the columns of `Ranked`.

    Raises:
        ValueError: If the id of a person or of an item is missing.
    """
    exported = loaded(folder)
    for frame in frames:
        if frame["user"].isna().any():
            raise ValueError("a person's id is missing; expected a whole number or text in each row.")
        for start in range(0, len(frame), batch_size):
            people = frame.iloc[start : start + batch_size]
            ranked = exported.recommend(people["items"].tolist(), k)
            for name, count in ranked.counts.items():
                counters[name].add(count)
            yield pd.DataFrame({"user": people["user"].array[ranked.people], **ranked.columns})


def histories_of(events: DataFrame, user: str, item: str) -> DataFrame:
    """All items of each person, as text, in rows of `user` and `items`.

    Within a partition, people with short histories come before those with long ones, so that little is padded.

    Args:
        events: Rows of a person and an item, or a list of items.
        user: The column of people's ids.
        item: The column of items' ids or of lists of them.

    Raises:
        SystemExit: If a column is missing or of another type.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, IntegralType, StringType

    for name in (user, item):
        if name not in events.columns:
            raise SystemExit(f"the histories have no column {name!r}, but {', '.join(events.columns)}. See --help.")
    kind = events.schema[item].dataType
    listed = isinstance(kind, ArrayType)
    for name, found in ((user, events.schema[user].dataType), (item, kind.elementType if listed else kind)):
        if not isinstance(found, IntegralType | StringType):
            raise SystemExit(f"expected whole numbers or text in the column {name!r}, found {found.simpleString()}.")
    column = events[item] if listed else F.array(events[item])
    lists = events.select(events[user].alias("user"), column.cast("array<string>").alias("items"))
    people = lists.groupBy("user").agg(F.flatten(F.collect_list("items")).alias("items"))
    return people.sortWithinPartitions(F.size("items"))


def main() -> None:
    """Reads, ranks, writes, and says what was not known."""
    from pyspark.sql import SparkSession

    args = arguments(__doc__.splitlines()[0]).parse_args()
    if args.k < 1 or args.batch_size < 1:
        raise SystemExit("-k and --batch-size: expected at least 1.")
    exported = loaded(args.export)
    spark = SparkSession.builder.appName("recommend").getOrCreate()
    # Spark would join small partitions to one; those of histories are small, but there is much to compute for each.
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", False)
    spark.sparkContext.addPyFile(str(Path(__file__).resolve()))
    counters = {name: spark.sparkContext.accumulator(0) for name in ("people", "items", "unknown", "empty")}
    people = histories_of(spark.read.parquet(*args.histories), args.user_col, args.item_col)
    schema = f"user {people.schema['user'].dataType.simpleString()}, rank int, item "
    schema += ("string" if exported.of_text else "bigint") + ", score float" + ", title string" * exported.titled
    rank = partial(ranked_frames, folder=args.export, k=args.k, batch_size=args.batch_size, counters=counters)
    people.mapInPandas(rank, schema).write.parquet(args.out)
    report({name: counter.value for name, counter in counters.items()}, args.out)
    spark.stop()


if __name__ == "__main__":
    # Spark sends what the main program defines anew with each task, and the model with it would be read anew. A module
    # is imported once by each process, so this file is imported as one, here and by Spark's processes.
    import recommend

    recommend.main()
