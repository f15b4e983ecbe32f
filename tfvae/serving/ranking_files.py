"""Files of rankings: the columns of a ranking of many people, as Parquet, CSV or JSON lines.

All three formats have one row, or line, for each item that is recommended to a person, and the same columns:

- `user`, the person's id, and `item`, the item's id, as they are in the data;
- `rank`, counted from 1, the best first;
- `score`, float32: the model's score, or the predicted rating within the scale;
- `title` (if titles are known), empty where one is unknown;
- `sd`, float32 (of a model of ratings that knows it): the standard deviation of the rating.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tfvae.system.errors import InputError

__all__ = ["FORMATS", "ranking_table", "refuse_output", "writing"]

ALWAYS, SOMETIMES = ("user", "rank", "item", "score"), ("title", "sd")

_ESCAPED = r'["\\\x00-\x1f]'  # the characters that JSON does not have as they are
Write = Callable[[pa.Table], object]


def refuse_output(path: Path) -> None:
    """Refuses a file that no ranking can be written to; a ranking that is there may be replaced.

    Raises:
        InputError: If the ending of the name is that of no format, or there is anything but a ranking.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: expected a name that ends in {', '.join(FORMATS)}, which says the format.")
    if path.exists() and not _is_ranking(path):
        raise InputError(f"{path} exists and is no ranking of tfvae; give another name, or remove it.")


def ranking_table(
    user_ids: pa.Array, item_ids: pa.Array, titles: pa.Array | None, found: Mapping[str, np.ndarray]
) -> pa.Table:
    """The rows of n people.

    Args:
        user_ids: Their ids, [n].
        item_ids: The ids of all items, [n_items].
        titles: Their titles, [n_items]; None if they are not known.
        found: `items`, int32 [n, k], places among all items, −1 in empty ranks; `scores`, float32 [n, k]; and perhaps
            `sd`, float32 [n, k].

    Returns:
        A table with a row for each rank that is not empty, person by person.
    """
    filled = found["items"] >= 0
    rows, ranks = np.nonzero(filled)
    items = pa.array(found["items"][filled])
    columns = {
        "user": user_ids.take(pa.array(rows)),
        "rank": pa.array(ranks + 1, pa.int32()),
        "item": item_ids.take(items),
        "score": pa.array(found["scores"][filled]),
    }
    if titles is not None:
        columns["title"] = titles.take(items)
    if "sd" in found:
        columns["sd"] = pa.array(found["sd"][filled])
    return pa.table(columns)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Opens a new file in the format that its name says.

    Args:
        path: The file.
        schema: The columns of all tables that will be written.

    Yields:
        A function that appends a table; in Parquet each is a row group.
    """
    with FORMATS[path.suffix.lower()](path, schema) as write:
        yield write


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with pq.ParquetWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    readable = _as_text(schema.empty_table()).schema
    with pa_csv.CSVWriter(path, readable) as writer:
        yield lambda table: writer.write_table(_as_text(table))


@contextmanager
def _json_lines(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with open(path, "wb") as file:
        yield lambda table: file.write(_lines_of(_as_text(table)))


FORMATS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
"""The function that opens a file of each format, by the ending of the file's name."""


def _as_text(table: pa.Table) -> pa.Table:
    """The table with ids that are bytes as text, for formats that have no bytes."""
    for place, column in enumerate(table.columns):
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            table = table.set_column(place, table.column_names[place], column.cast(pa.string()))
    return table


def _lines_of(table: pa.Table) -> memoryview | bytes:
    """The JSON object of each row, one a line, in UTF-8.

    The texts are put together by Arrow, which takes the time of a few rows of `json.dumps` for a thousand of them, and
    writes each float32 with the digits that it needs; pandas's `to_json` rounds small scores to a number of decimals.
    """
    if not table.num_rows:
        return b""
    pieces: list[pa.Array | pa.Scalar] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        pieces += [pa.scalar(f"{', ' if pieces else '{'}{json.dumps(name)}: "), _in_json(column.combine_chunks())]
    lines = pc.binary_join_element_wise(*pieces, "}\n", "")
    if isinstance(lines, pa.ChunkedArray):
        lines = lines.combine_chunks()
    _, offsets, text = lines.buffers()  # the text of all lines, one after the other
    width = np.int64 if pa.types.is_large_string(lines.type) else np.int32
    ends = np.frombuffer(offsets, width)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(text)[ends[0] : ends[-1]]


def _in_json(column: pa.Array) -> pa.Array:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.cast(pa.string())
    encoded = column.dictionary_encode()
    texts = encoded.dictionary.cast(pa.string())
    odd = pc.match_substring_regex(texts, _ESCAPED)
    escaped = pa.array([json.dumps(text, ensure_ascii=False) for text in texts.filter(odd).to_pylist()], pa.string())
    quoted = pc.replace_with_mask(pc.binary_join_element_wise('"', texts, '"', ""), odd, escaped)
    return quoted.take(encoded.indices)


def _is_ranking(path: Path) -> bool:
    """Whether a file has the columns of a ranking, or nothing at all."""
    if path.is_file() and not path.stat().st_size:
        return True
    try:
        match path.suffix.lower():
            case ".parquet":
                names = pq.read_schema(path).names
            case ".csv":
                with open(path, encoding="utf-8", newline="") as file:
                    names = next(csv.reader([file.readline(4096)]))
            case _:
                with open(path, encoding="utf-8") as file:
                    names = list(json.loads(file.readline(1 << 20)))
    except Exception:  # whatever it is, it is not ours to replace
        return False
    optional = tuple(name for name in SOMETIMES if name in names)
    return tuple(names) == ALWAYS + optional
