"""CSV as people write it: any usual delimiter, encoding, quoting and field length, recognised by the content."""

from __future__ import annotations

import codecs
import csv
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tfvae.data.event_files import EventColumns, places_of, refuse_two_purposes
from tfvae.data.streams import encoding_of, reading, reading_text
from tfvae.data.text import IDS
from tfvae.system.errors import InputError

__all__ = ["CsvStart", "csv_header", "csv_start", "csv_to_parquet", "read_csv"]

_DELIMITERS = ",;\t|"
_CHUNK = 1 << 22
_LARGEST_BLOCK = 2**31 - 1  # the most bytes that Arrow parses at a time
_log = logging.getLogger(__name__)
Read = TypeVar("Read")

csv.field_size_limit(_LARGEST_BLOCK)  # some files have fields above Python's default limit of 131,072 characters


class CsvStart(NamedTuple):
    """The beginning of a file of delimited text.

    Attributes:
        header: The fields of the first line.
        delimiter: The character between fields.
        rows: The fields of the lines after it, as text.
    """

    header: list[str]
    delimiter: str
    rows: list[list[str]]


def csv_header(
    path: Path, wanted: Sequence[str] = (), delimiter: str | None = None, encoding: str | None = None
) -> list[str]:
    """The names of the columns, which are the fields of the first line.

    Arguments and errors are as for `read_csv`, but for `wanted`: names that help to find the delimiter.
    """
    return csv_start(path, 0, wanted, delimiter, encoding).header


def csv_start(
    path: Path, n_rows: int, wanted: Sequence[str] = (), delimiter: str | None = None, encoding: str | None = None
) -> CsvStart:
    """The first line and at most `n_rows` after it; what is malformed in these is left to `read_csv` to refuse.

    Other arguments and errors are as for `csv_header`.
    """
    if encoding is not None:
        _check_encoding(encoding)
    encoding = encoding or _survey(path).encoding
    with reading_text(path, encoding) as lines:
        header, found, n_header_lines = _first_record(path, lines, wanted, delimiter)
    rows: list[list[str]] = []
    if n_rows:
        with reading_text(path, encoding) as lines, suppress(csv.Error):
            records = csv.reader(islice(lines, n_header_lines, None), delimiter=found, strict=True)
            rows.extend(islice((fields for fields in records if len(fields) == len(header)), n_rows))
    return CsvStart(header, found, rows)


def read_csv(
    path: Path,
    named: Mapping[str, str],
    delimiter: str | None = None,
    encoding: str | None = None,
) -> EventColumns:
    """Reads columns of delimited text whose first line names the columns.

    Fields in double quotes may hold delimiters and line breaks. Ratings may have a decimal comma unless the comma is
    the delimiter.

    Args:
        path: The file, compressed or not.
        named: The name of the column for each purpose: "user", "item", "rating" and "timestamp"; the columns of other
            purposes are read as text.
        delimiter: The character between fields; by default a comma, semicolon, tab or bar, whichever best splits the
            first line into the wanted columns.
        encoding: The encoding of the text; by default UTF-8, UTF-16 or UTF-32, whichever the bytes show, and otherwise
            Windows-1252.

    Returns:
        The columns, and a function that names the line of an event.

    Raises:
        InputError: If the file is missing or malformed; the message names the file, and the line and value if it can.
    """
    form, wanted = _form(path, named, delimiter, encoding)
    types = {"user": IDS, "item": IDS, "rating": pa.float32(), "timestamp": pa.int64()}
    attempts = [(types, ".")] if not form.survey.hexadecimal else []  # Arrow accepts 0x10 as a whole number
    if "timestamp" in named or not attempts:
        attempts.append((types | {"timestamp": pa.string()}, "."))
    if "rating" in named and form.delimiter != ",":
        attempts += [(kinds, ",") for kinds, _ in attempts]
    for kinds, point in attempts:
        table = form.read({wanted[purpose]: kinds.get(purpose, IDS) for purpose in named}, point, _whole)
        if table is not None:
            break
    else:
        raise form.what_is_wrong(wanted)
    form.check_end(table.num_rows, point)
    return EventColumns({purpose: table[str(place)] for purpose, place in wanted.items()}, form.place)


def csv_to_parquet(
    path: Path,
    named: Mapping[str, str],
    target: Path,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Callable[[int], str]:
    """Copies columns of delimited text to a Parquet file, piece by piece, as `read_csv` would read them.

    Args:
        path: The file.
        named: The name of the column for each purpose: "user", "item" and "rating".
        target: The Parquet file, whose columns are called by their purposes: text, text and float32.
        delimiter: As for `read_csv`.
        encoding: As for `read_csv`.

    Returns:
        A function that names the line of an event.

    Raises:
        InputError: As for `read_csv`.
    """
    form, wanted = _form(path, named, delimiter, encoding)
    types = {wanted[purpose]: pa.float32() if purpose == "rating" else pa.string() for purpose in named}
    schema = pa.schema([(purpose, types[place]) for purpose, place in wanted.items()])

    def copied(stream: IO[bytes], **options: Any) -> int:
        n_rows = 0
        with pa_csv.open_csv(stream, **options) as batches, pq.ParquetWriter(target, schema) as writer:
            for batch in batches:
                columns = [batch.column(str(place)) for place in wanted.values()]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                n_rows += batch.num_rows
        return n_rows

    points = [".", ","] if "rating" in named and form.delimiter != "," else ["."]
    for point in points:
        n_rows = form.read(types, point, copied)
        if n_rows is not None:
            break
    else:
        raise form.what_is_wrong(wanted)
    form.check_end(n_rows, point)
    return form.place


def _form(
    path: Path, named: Mapping[str, str], delimiter: str | None, encoding: str | None
) -> tuple[_Form, dict[str, int]]:
    """How a file is written, and the place of the column of each purpose; arguments and errors are `read_csv`'s."""
    refuse_two_purposes(path, named)
    if encoding is not None:
        _check_encoding(encoding)
    survey = _survey(path, encoding)
    with reading_text(path, survey.encoding) as lines:
        first = _first_record(path, lines, list(named.values()), delimiter)
    form = _Form(path, survey, *first)
    if not set(named.values()) & set(form.header) and any(map(_is_number, form.header)):
        raise InputError(
            f"{path}, line 1: expected the names of the columns, among them {', '.join(map(repr, named.values()))}; "
            f"found {form.delimiter.join(form.header)[:120]!r}"
        )
    places = places_of(path, list(named.values()), form.header)
    return form, dict(zip(named, places, strict=True))


def _whole(stream: IO[bytes], **options: Any) -> pa.Table:
    return pa_csv.read_csv(stream, **options)


class _Survey(NamedTuple):
    """What one pass over a file's bytes finds."""

    encoding: str
    quoted: bool
    hexadecimal: bool
    n_lines: int


@dataclass(frozen=True)
class _Form:
    """How a file of delimited text is written."""

    path: Path
    survey: _Survey
    header: list[str]
    delimiter: str
    n_header_lines: int

    def read(self, types: Mapping[int, pa.DataType], decimal_point: str, reader: Callable[..., Read]) -> Read | None:
        """Reads columns by their places.

        Args:
            types: The type of each column.
            decimal_point: What stands before the decimals of a number.
            reader: Called with the stream and the options of Arrow's readers, perhaps again with larger blocks.

        Returns:
            What `reader` returned; None if a line or a value is malformed.
        """
        block = _CHUNK
        while True:
            try:
                with reading(self.path) as stream:
                    return reader(stream, **self._options(types, decimal_point, block))
            except pa.ArrowInvalid as problem:
                # A field or the header may be larger than a block.
                too_small = "block" in str(problem) and block < _LARGEST_BLOCK
                if not too_small:
                    return None
                block = min(block * 16, _LARGEST_BLOCK)

    def _options(self, types: Mapping[int, pa.DataType], decimal_point: str, block: int) -> dict[str, Any]:
        names = [str(place) for place in range(len(self.header))]
        return {
            "read_options": pa_csv.ReadOptions(
                column_names=names,
                skip_rows=self.n_header_lines,
                block_size=block,
                encoding="utf8" if self.survey.encoding == "utf-8-sig" else self.survey.encoding,
            ),
            "parse_options": pa_csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char='"' if self.survey.quoted else False,
                newlines_in_values=self.survey.quoted,
            ),
            "convert_options": pa_csv.ConvertOptions(
                column_types={str(place): kind for place, kind in types.items()},
                include_columns=[str(place) for place in types],
                null_values=[],
                strings_can_be_null=False,
                decimal_point=decimal_point,
            ),
        }

    def check_end(self, n_rows: int, decimal_point: str) -> None:
        """Refuses a file without data lines or with malformed quotes, once all is read; says a decimal comma."""
        if not n_rows:
            raise InputError(f"{self.path}: no data lines after the header; expected one for each event.")
        if self.survey.quoted and n_rows + self.n_header_lines < self.survey.n_lines:
            self.check_quotes()
        if decimal_point == ",":
            _log.warning("%s: numbers are read with a decimal comma.", self.path.name)

    def check_quotes(self) -> None:
        """Refuses a file with a quote that is not closed, or with text after a closing one."""
        for _ in self._numbered_records():
            pass

    def what_is_wrong(self, wanted: Mapping[str, int]) -> InputError:
        """The error for the first malformed line."""
        comma = self.delimiter != ","
        for line, fields in self._numbered_records():
            where = f"{self.path}, line {line}"
            if len(fields) != len(self.header):
                found = self.delimiter.join(fields)[:120]
                return InputError(f"{where}: {len(self.header)} fields expected, {len(fields)} found in {found!r}")
            rating = fields[wanted["rating"]] if "rating" in wanted else "0"
            if not (_is_number(rating) or (comma and _is_number(rating.replace(",", ".", 1)))):
                return InputError(f"{where}: {self.header[wanted['rating']]} {rating!r} is not a number")
        hint = "some ratings have a decimal comma and some a decimal point" if comma else "Arrow refuses it"
        return InputError(f"{self.path}: cannot be read as fields between {self.delimiter!r}; {hint}.")

    def place(self, number: int) -> str:
        """The line on which an event begins, for messages; the event's number if the line is not found."""
        for event, (line, _) in enumerate(self._numbered_records(strict=False)):
            if event == number:
                return f"line {line}"
        return f"event {number + 1:,}"

    def _numbered_records(self, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record after the header begins, and its fields; blank lines are skipped."""
        with reading_text(self.path, self.survey.encoding) as lines:
            for _ in range(self.n_header_lines):
                next(lines)
            reader = csv.reader(lines, delimiter=self.delimiter, strict=strict)
            before = 0
            try:
                for fields in reader:
                    if fields:
                        yield self.n_header_lines + before + 1, fields
                    before = reader.line_num
            except csv.Error as problem:
                raise InputError(
                    f"{self.path}, line {self.n_header_lines + before + 1}: a field in double quotes is malformed or "
                    f'never closed ({problem}); a quote within one is written as "".'
                ) from None


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise InputError(f"{name!r} is no encoding of text; expected one such as utf-8, latin-2 or cp1251.") from None


def _is_number(text: str) -> bool:
    """Whether text is a number to Arrow too, which does not accept underscores between digits."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and text.isascii()


def _first_record(
    path: Path, lines: Iterator[str], wanted: Sequence[str], delimiter: str | None
) -> tuple[list[str], str, int]:
    """The names of the columns, the delimiter, and the number of lines up to the header's end."""
    tab_first = path.name.lower().partition(".tsv")[1]
    candidates = delimiter or ("\t,;|" if tab_first else _DELIMITERS)
    if delimiter and (len(delimiter) > 1 or not delimiter.isascii() or delimiter in '"\r\n\0'):
        raise InputError(f"{path}: expected one ASCII character between fields, found {delimiter!r}.")
    seen = _Repeatable(lines)
    headers = []
    for candidate in candidates:
        reader = csv.reader(seen.again(), delimiter=candidate, strict=True)
        try:
            names = next((fields for fields in reader if fields), [])
        except csv.Error:
            continue
        headers.append((names, candidate, reader.line_num))
    if not headers:
        raise InputError(f"{path}, line 1: a name in double quotes is malformed or never closed.")
    # Most of the wanted columns decide, then most columns; among equals the most usual delimiter, which comes first.
    return max(headers, key=lambda header: (sum(name in header[0] for name in wanted), len(header[0])))


class _Repeatable:
    """The lines of a file, whose first ones can be read several times."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.seen: list[str] = []

    def again(self) -> Iterator[str]:
        """Yields the lines, beginning with the first."""
        yield from self.seen
        for line in self.lines:
            self.seen.append(line)
            yield line


def _survey(path: Path, encoding: str | None = None) -> _Survey:
    """Reads a file once to find its encoding, whether quotes and `0x` occur in it, and its number of lines."""
    quoted = hexadecimal = False
    n_lines, end = 1, b""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    with reading(path) as stream:
        chunk = stream.read(4096)
        if (known := encoding or encoding_of(chunk)) is not None:
            # Its bytes may not be its characters, so nothing can be ruled out.
            return _Survey(known, True, True, sys.maxsize)
        guess = "utf-8-sig"
        while chunk:
            quoted = quoted or b'"' in chunk
            hexadecimal = hexadecimal or b"0x" in (end + chunk).lower()
            n_lines += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
            try:
                utf8.decode(chunk)
            except UnicodeDecodeError:
                guess = "cp1252"
            end, chunk = chunk[-1:], stream.read(_CHUNK)
        try:
            utf8.decode(b"", final=True)
        except UnicodeDecodeError:
            guess = "cp1252"
    if guess == "cp1252":
        _log.warning("%s: the text is not UTF-8; it is read as Windows-1252.", path.name)
    return _Survey(guess, quoted, hexadecimal, n_lines)
