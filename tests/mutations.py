"""Files damaged by machine: their bytes, the arrays of an npz, the values of JSON and TOML.

Every function takes the bytes of a whole file and a generator, and gives the bytes of a damaged one; the same state of
the generator gives the same damage. Some of what comes out is still whole, or whole but different: what is read must
then be what the bytes say.
"""

from __future__ import annotations

import copy
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

__all__ = [
    *("ENCODED", "Mutator", "array_damaged", "bytes_damaged", "json_damaged", "npz_damaged", "parquet_damaged"),
    "toml_damaged",
]

Mutator = Callable[[bytes, random.Random], bytes]

PIECES = [
    *"0x102 0X1f -1 -0 +5 1_000 ٣ ² 1e3 1e400 1e-400 nan NaN inf -inf Infinity 0 007 1.0 1. .5 -1.5 1,5".split(),
    *"2147483647 2147483648 4294967296 9223372036854775807 9223372036854775808 99999999999999999999999999".split(),
    *"NULL null None NA true x 17: ٣: (1,2) 2005-13-06 0000-00-00 9999-12-31 {} [] é".split(),
    *["", " ", " 5", "5 ", "\t5", "\0", "\r", "\n", "\r\n", "\n\n", "\u2028", "\x0b", "\x1c", "\ufeff", "\u202e"],
    *["\t", ",", ":", "::", "|", ";", '"', '""', "'", "\\", "1" * 5_000, "x" * 70_000, "[" * 2_000, "\ud800"],
]
RAW = [b"\xff", b"\xfe\xff", b"\xff\xfe", b"\x80", b"\xc3", b"\xe9", b"\x1f\x8b\x08", b"PK\x03\x04", b"BZh9", b"PAR1"]
ENCODED = [*(piece.encode("utf-8", "surrogatepass") for piece in PIECES), *RAW]
TOKEN = re.compile(rb"[-+.\w]+")


def bytes_damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three faults in the bytes of a file, be it text or not."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(BYTE_FAULTS)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    place, damaged = rng.randrange(len(content) or 1), bytearray(content or b"\0")
    damaged[place] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _replace(content: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(content, rng)
    return content[:start] + rng.choice((rng.choice(ENCODED), rng.randbytes(stop - start))) + content[stop:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.choice(ENCODED) + content[place:]


def _delete(content: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(content, rng)
    return content[:start] + content[stop:]


def _duplicate(content: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(content, rng)
    return content[:stop] + content[start:]


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _other_token(content: bytes, rng: random.Random) -> bytes:
    tokens = list(TOKEN.finditer(content[:100_000]))
    if not tokens:
        return _insert(content, rng)
    token = rng.choice(tokens)
    other = rng.choice((rng.choice(ENCODED), b" " + token[0], token[0] + b" ", b"+" + token[0], b"0x" + token[0], b""))
    return content[: token.start()] + other + content[token.end() :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines[one], lines[other] = lines[other], lines[one]
        case 1:
            del lines[one]
        case 2:
            lines.insert(other, lines[one])
        case 3:
            lines[one] += b"\r"
        case 4:
            lines.insert(one, b"")
    return b"\n".join(lines)


def _slice(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((1, 2, 8, rng.randint(0, len(content)))))


BYTE_FAULTS = (_flip, _replace, _insert, _delete, _duplicate, _truncate, _other_token, _other_token, _lines, _lines)

# ---- JSON and TOML ----------------------------------------------------------------------------------

DEEP = "deeply nested"
VALUES: list[Any] = [
    *[None, True, False, 0, 1, -1, 7, 0.5, -1.5, float("nan"), float("inf"), -float("inf"), 2**31, 2**63, 10**25],
    *[10**400, "", "text", "nan", "1", "\ud800", "a\0b", "../x", [], [[]], [1, "a", None], {}, {"a": {}}, DEEP],
]


def json_damaged(content: bytes, rng: random.Random) -> bytes:
    """One or two faults in the values of a JSON file, or in its bytes."""
    if rng.random() < 0.25:
        return bytes_damaged(content, rng)
    try:
        value = json.loads(content)
    except ValueError:  # it is damaged already
        return bytes_damaged(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        value = _json_fault(value, rng)
    text = json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    if rng.random() < 0.05:
        text = re.sub(r'"(\w+)":', r'"\1": 3, "\1":', text, count=1)  # a key twice
    return text.encode()


def _json_fault(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.03:
        return rng.choice((_any_value(rng), _near(value, rng)))
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place, fault = rng.choice(places), rng.random()
    if fault < 0.7:
        value[place] = _json_fault(value[place], rng)
    elif fault < 0.8:
        del value[place]
    elif isinstance(value, list):
        value.insert(place, copy.deepcopy(rng.choice((value[place], _any_value(rng)))))
    else:
        name = rng.choice(("unknown", "", "model", "a\0", f"{place} ", place.upper()))
        value[name] = value.pop(place) if rng.random() < 0.5 else _any_value(rng)
    return value


def _any_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))  # which later faults may change


def _near(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((-value, value + 1, value * 10**6, value - 0.5 if abs(value) < 10**9 else 0, repr(value)))
    return value[::-1] if isinstance(value, str) else [value]


LITERALS = [
    *"nan inf -inf -1 0 1.5 true [] {} [[]] 1979-05-27 07:32:00 0x10 1_000 1e400 9223372036854775808 x".split(),
    *['""', '"text"', '"ndcg@100"', '"ndcg@0"', '"a\\u0000"', '"""', "[1, [2]]", "{a = nan}", "9" * 400, "9" * 5_000],
    *["[" * 5_000 + "]" * 5_000, '{"a" = ' * 100 + "1" + "}" * 100],
]


def toml_damaged(content: bytes, rng: random.Random) -> bytes:
    """One or two faults in the lines of a TOML file, or in its bytes."""
    if rng.random() < 0.25:
        return bytes_damaged(content, rng)
    lines = content.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2))):
        assigned = [number for number, line in enumerate(lines) if " = " in line]
        number = rng.choice(assigned or [0])
        name, _, value = lines[number].partition(" = ")
        match rng.randrange(6):
            case 0 | 1:
                lines[number] = f"{name} = {rng.choice(LITERALS)}"
            case 2:  # one of several values on a line
                literal = rng.choice(LITERALS)
                pattern = r"(?<=[ \[{])[\w.\"-]+(?=[,\]} ])"
                lines[number] = re.sub(pattern, lambda _, literal=literal: literal, lines[number], count=1)
            case 3:
                lines[number] = f"{rng.choice(('unknown', 'name', 'search.low', name.upper()))} = {value}"
            case 4:
                lines.insert(rng.randrange(len(lines)), lines[number])
            case 5:
                del lines[rng.randrange(len(lines))]
    return "\n".join(lines).encode()


# ---- arrays -----------------------------------------------------------------------------------------


def npz_damaged(content: bytes, rng: random.Random) -> bytes:
    """One or two faults in the arrays of an npz, or in its bytes."""
    if rng.random() < 0.2:
        return bytes_damaged(content, rng)
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)
    if "note" in arrays:  # of a split, which without a digest of its content is one of a former version
        note = json.loads(str(arrays["note"]))
        note.pop("content", None)
        arrays["note"] = np.array(json.dumps(note))
    for _ in range(rng.choice((1, 1, 2))):
        arrays = _arrays_fault(arrays, rng)
    buffer = io.BytesIO()
    np.savez(buffer, **{name.replace("\0", "") or "none": array for name, array in arrays.items()})
    if rng.random() < 0.03:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(rng.choice(("../x.npy", "text", "a.npy", "/x.npy")), rng.choice(ENCODED))
    return buffer.getvalue()


def _arrays_fault(arrays: dict[str, np.ndarray], rng: random.Random) -> dict[str, np.ndarray]:
    if not arrays:
        return arrays
    name, other = rng.choice(list(arrays)), rng.choice(list(arrays))
    match rng.randrange(10):
        case 0:
            return {key: array for key, array in arrays.items() if key != name}
        case 1:
            return arrays | {rng.choice(("unknown", f"{name}.x", f"x:{name}", other)): arrays[name]}
        case 2 if name == "note":
            return arrays | {
                "note": np.array(json_damaged(str(arrays["note"]).encode(), rng).decode("utf-8", "replace"))
            }
    return arrays | {name: array_damaged(arrays[name], rng)}


def array_damaged(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """One fault in an array; an empty one where the fault that was drawn has no meaning for it."""
    fault = rng.choice(ARRAY_FAULTS)
    try:
        with np.errstate(all="ignore"):
            return fault(array, rng)
    except (
        ValueError,
        TypeError,
        OverflowError,
        IndexError,
        AttributeError,
        RuntimeError,
    ):  # there is no such fault of this array
        return np.array([])


def _value(array: np.ndarray, rng: random.Random) -> np.ndarray:
    damaged = array.copy()
    values = [0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, np.nan, np.inf, -np.inf, "", "x", "a\0b", damaged.flat[0]]
    damaged.flat[rng.randrange(damaged.size)] = np.array(rng.choice(values)).astype(damaged.dtype)
    return damaged


def _bits(array: np.ndarray, rng: random.Random) -> np.ndarray:
    return np.frombuffer(_flip(array.tobytes(), rng), array.dtype).reshape(array.shape)


def _retyped(array: np.ndarray, rng: random.Random) -> np.ndarray:
    kind = rng.choice("i1 u1 i4 >i4 u4 i8 u8 f2 f4 >f8 f8 c16 ? U S3 M8[s] O i4,f4".split())
    return array.astype(kind)


ARRAY_FAULTS: list[Callable[[np.ndarray, random.Random], np.ndarray]] = [
    *[_value, _value, _value, _bits, _bits, _retyped, _retyped],
    lambda array, rng: array[: rng.randrange(array.size)],
    lambda array, rng: np.append(array, array[: rng.choice((1, 1, array.size))]),
    lambda array, rng: array[::-1],
    lambda array, rng: array[None],
    lambda array, rng: array[:, None],
    lambda array, rng: array.reshape(2, -1),
    lambda array, rng: array[:1].reshape(()),
    lambda array, rng: array[:0],
    lambda array, rng: np.sort(array),
    lambda array, rng: np.repeat(array[:1], array.size),
    lambda array, rng: array + array.dtype.type(rng.choice((1, -1, 100_000, 0.5))),
    lambda array, rng: array * array.dtype.type(rng.choice((-1, 2, 10**6))),
    lambda array, rng: np.random.default_rng(rng.randrange(99)).permutation(array),
]


def parquet_damaged(content: bytes, rng: random.Random) -> bytes:
    """One fault in the columns of a Parquet file, or some in its bytes."""
    if rng.random() < 0.4:
        return bytes_damaged(content, rng)
    try:
        return _parquet_fault(pd.read_parquet(io.BytesIO(content)), rng)
    except (
        ValueError,
        TypeError,
        OverflowError,
        IndexError,
        pa.ArrowException,
    ):  # there is no such fault of this column
        return bytes_damaged(content, rng)


def _parquet_fault(frame: pd.DataFrame, rng: random.Random) -> bytes:
    name = rng.choice(list(frame))
    match rng.randrange(5):
        case 0:
            frame = frame.drop(columns=name)
        case 1:
            frame = frame.rename(columns={name: rng.choice(("unknown", "", " item"))})
        case 2:
            frame[name] = array_damaged(frame[name].to_numpy(), rng)[: len(frame)]
        case 3:
            kinds = "int8 Int64 uint64 float32 string category bool datetime64[ns] timedelta64[s]".split()
            frame[name] = frame[name].astype(rng.choice(kinds))
        case 4:
            frame[name] = [rng.choice((None, [1], {"a": 1}, b"\xff"))] * len(frame)
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()
