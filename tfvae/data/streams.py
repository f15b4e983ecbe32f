"""Bytes and text of files, unpacked and decoded according to their content, not to their name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tfvae.system.errors import InputError

__all__ = ["AnyPath", "encoding_of", "members", "reading", "reading_text", "refuse_other_bytes"]

AnyPath = Path | zipfile.Path

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}
_ZIP = b"PK\x03\x04"
_BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# zipfile raises RuntimeError for a member that is encrypted or compressed by an unknown method.
_DAMAGED = (OSError, EOFError, UnicodeError, RuntimeError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)


@contextmanager
def reading(path: AnyPath) -> Iterator[IO[bytes]]:
    """Opens a file or a member of a zip, and unpacks it if it is in xz, gzip or bzip2, or a zip of one file.

    Args:
        path: The file.

    Yields:
        A stream of its unpacked bytes.

    Raises:
        InputError: If there is no such file, it is a zip of several, or it cannot be read to its end.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if isinstance(path, Path) and start.startswith(_ZIP) and (member := _only_member(path)):
                with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
                    yield stream
            elif opener := next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None):
                with opener(file) as stream:
                    yield stream
            else:
                yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except _DAMAGED as problem:
        raise InputError(f"{path}: cannot be read ({problem}); is the file whole?") from None


@contextmanager
def reading_text(path: AnyPath, encoding: str) -> Iterator[Iterator[str]]:
    """Yields the lines of a file with their ends (LF, CR LF or CR), as `csv.reader` needs; errors as for `reading`."""
    with reading(path) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        try:
            yield iter(text)
        finally:
            text.detach()  # `reading` closes the stream


def refuse_other_bytes(path: AnyPath, allowed: bytes, *, header: bool = False) -> None:
    """Refuses a file with a byte that its format lacks, since Arrow accepts ` 5` and `0x10` as whole numbers too.

    Args:
        path: The file, compressed or not.
        allowed: The bytes of its format, including those of line ends.
        header: Whether the first line names the columns, and so may have other bytes.

    Raises:
        InputError: If there is such a byte; the message names the line of the first.
    """
    if not _has_others(path, allowed, header):
        return
    with reading(path) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    # A carriage return alone ends a line too, as it does for Arrow.
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines[header:], 1 + header):
        if others := line.translate(None, allowed):
            raise InputError(
                f"{path}, line {number}: {others[:1].decode('latin-1')!r} is no letter of this format; found "
                f"{line[:80].decode('utf-8', 'replace')!r}"
            )


def _has_others(path: AnyPath, allowed: bytes, header: bool) -> bool:
    with reading(path) as stream:
        chunk = stream.readline() if header else stream.read(1 << 22)
        chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        if header:
            chunk = chunk.partition(b"\r")[2]
        while chunk or (chunk := stream.read(1 << 22)):
            if chunk.translate(None, allowed):
                return True
            chunk = b""
    return False


def encoding_of(start: bytes) -> str | None:
    """The encoding that a file's first bytes show, if it is UTF-16 or UTF-32; otherwise None."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    # In UTF-16 without a mark, one of the two bytes of most characters is 0, always on the same side.
    zeros = [start[side::2].count(0) for side in (0, 1)]
    if max(zeros) > len(start) // 4 and min(zeros) < max(zeros) // 4:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return None


def members(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """The names of the files in a zip, sorted, without those that macOS adds.

    Raises:
        InputError: If a member is a link, or would lie outside the folder in which the zip is unpacked. Nothing is
            unpacked here, but such a zip is not to be trusted.
    """
    for entry in archive.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":") or stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{path}: its member {entry.filename!r} is a link or leads out of the archive's folder.")
    names = sorted(archive.namelist())
    return [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]


def _only_member(path: Path) -> str | None:
    """The only file in a zip; None if the zip is a spreadsheet."""
    with zipfile.ZipFile(path) as archive:
        names = members(path, archive)
    if "[Content_Types].xml" in names or "mimetype" in names:
        return None
    if len(names) != 1:
        raise InputError(f"{path}: expected one file in the zip, found {len(names)}; unpack it and name one of them.")
    return names[0]
