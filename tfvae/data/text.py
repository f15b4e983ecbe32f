"""Reads delimited text, plain or compressed, as typed columns; errors name the file and, if they can, the line."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from tfvae.data.streams import AnyPath, reading
from tfvae.system.errors import InputError

__all__ = [
    "IDS",
    "Section",
    "header",
    "line_of",
    "missing_column",
    "read_delimited",
]

IDS = pa.dictionary(pa.int32(), pa.string())
"""Column type for ids of unknown kind: each distinct text is stored once."""

_NOTHING = ["", "nan", "NaN", "null", "NULL"]
_KINDS = {"float": "a number", "double": "a number", "date32[day]": "a date (YYYY-MM-DD)", "null": "empty"}
_KINDS |= dict.fromkeys(("int32", "int64"), "a whole number")
_SECTION = re.compile(r"[0-9]+:")


class Section(NamedTuple):
    """A line such as ``17:`` that begins a section of a file, and its number, counted from 1."""

    line: int
    text: str


def missing_column(source: object, wanted: str, found: Sequence[str], likeness: float = 0.4) -> InputError:
    """The error for a missing column; it names the columns found and the most similar of them, if it is like enough."""
    nearest = difflib.get_close_matches(wanted, found, n=1, cutoff=likeness)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"{source}: no column {wanted!r}; found: {', '.join(map(repr, found))}{advice}")


def header(path: AnyPath, delimiter: str) -> list[str]:
    """The fields of the first line that is not blank, without quotes."""
    with reading(path) as stream:
        lines = (line.decode("utf-8-sig", "replace").rstrip("\r\n") for line in stream)
        line = next(filter(None, lines), "")
    return [name.strip('"') for name in line.split(delimiter)]


def read_delimited(
    path: AnyPath,
    columns: Mapping[str, pa.DataType],
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    sections: list[Section] | None = None,
) -> pa.Table:
    """Reads some columns of a delimited text file; their fields may not be empty, unless of the type null.

    Whole numbers are read as Arrow reads them, `0x10` and ` 5` included; `streams.refuse_other_bytes` refuses these.

    Args:
        path: The file, compressed or not.
        columns: The type of each wanted column.
        names: All columns of a file without a header line; None if the first line names them.
        delimiter: The single character between fields.
        sections: A list to which the file's section lines (``17:``) are appended instead of being refused as
            malformed.

    Returns:
        A table of the wanted columns.

    Raises:
        InputError: If the file is missing, unreadable or empty, a column is missing, or a line is malformed.
    """

    def skip(row: pa_csv.InvalidRow) -> str:
        if sections is None or not _SECTION.fullmatch(row.text):
            return "error"
        sections.append(Section(row.number, row.text))
        return "skip"

    def read(threads: bool) -> pa.Table:
        with reading(path) as stream:
            return pa_csv.read_csv(
                stream,
                read_options=pa_csv.ReadOptions(column_names=names, use_threads=threads),
                parse_options=pa_csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char=False,
                    invalid_row_handler=skip if sections is not None else None,
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=columns,
                    include_columns=list(columns),
                    null_values=_NOTHING,
                    strings_can_be_null=True,
                ),
            )

    try:
        table = read(threads=sections is None)
    except pa.ArrowKeyError:
        found = header(path, delimiter)
        wanted = next((name for name in columns if name not in found), None)
        if wanted is None:
            raise InputError(
                f"{path}: the columns {', '.join(columns)} are not to be told apart by its header"
            ) from None
        raise missing_column(path, wanted, found) from None
    except pa.ArrowInvalid as problem:
        if "Empty CSV" in str(problem):
            raise InputError(f"{path}: the file is empty; expected {', '.join(columns)}") from None
        try:
            read(threads=False)  # Arrow numbers the malformed row only then
        except pa.ArrowInvalid as numbered:
            problem = numbered
        raise _explained(path, problem, names or header(path, delimiter)) from None
    if not table.num_rows:
        raise InputError(f"{path}: no data lines; expected {delimiter!r}-separated {', '.join(columns)}")
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and not pa.types.is_null(column.type):
            row = pc.index(pc.is_null(column), True).as_py() + 1 + (names is None)
            line = line_of(path, _counted(row, sections))
            raise InputError(f"{path}, line {line}: {name} is empty; every line needs one")
    return table


def _counted(row: int, sections: Sequence[Section] | None) -> int:
    """Converts a row of the table to one of the file, which has section lines as well."""
    for section in sections or ():
        row += section.line <= row
    return row


def line_of(path: AnyPath, row: int) -> int:
    """The line of a row; both are counted from 1 and include the header, but blank lines are not rows to Arrow."""
    with reading(path) as stream:
        filled = (number for number, line in enumerate(stream, 1) if line.strip(b"\r\n"))
        return next(itertools.islice(filled, row - 1, None), row)


def _explained(path: AnyPath, problem: Exception, names: Sequence[str]) -> InputError:
    """Turns Arrow's error into ours, with the line if it states the row."""
    message = str(problem)
    row = re.search(r"Row #(\d+)", message)
    where = f"{path}, line {line_of(path, int(row[1]))}" if row else str(path)
    if value := re.search(r"column #(\d+):.*conversion error to (\S+): invalid value '(.*)'", message):
        kind = _KINDS.get(value[2], value[2])
        return InputError(f"{where}: {names[int(value[1])]} {value[3]!r} is not {kind}")
    if count := re.search(r"Expected (\d+) columns, got (\d+): (.*)", message):
        return InputError(f"{where}: {count[1]} fields expected, {count[2]} found in {count[3]!r}")
    return InputError(f"{where}: {message}")
