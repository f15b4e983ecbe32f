"""Arrays of text that take memory by what they hold, also if one text among many is very long.

NumPy's usual text has one width for a whole array, which is fast and compact for ids and titles. But one text of 5,000
letters among 50,000 would take a gigabyte. Then the array is of NumPy's `StringDType`, in which each text has a length
of its own. A `.npz` file holds such an array as two: all texts in UTF-8, one after another, and the ends of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["TEXT_KINDS", "packed_texts", "text_array", "unpacked_texts"]

TEXT_KINDS = "UT"
"""The values of `dtype.kind` that arrays of text have."""
_MOST_BYTES = 2**28  # for all texts at one width, if some are longer than usual
_USUAL_LENGTH = 256
_LETTERS, _ENDS = "@utf-8", "@ends"


def text_array(texts: Sequence[str]) -> np.ndarray:
    """An array [n] of texts, at one width unless a long one among many would take too much memory.

    Example:
        >>> text_array(["Heat", "Alien"]).dtype
        dtype('<U5')
        >>> text_array(["x" * 5_000, *map(str, range(50_000))]).dtype
        StringDType()
    """
    longest = max(map(len, texts), default=0)
    if longest > _USUAL_LENGTH and 4 * longest * len(texts) > _MOST_BYTES:
        return np.array(texts, np.dtypes.StringDType())
    return np.array(texts, str)


def packed_texts(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Named arrays as a `.npz` file can hold them: each of `StringDType` as two arrays of numbers."""
    packed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.dtype.kind == "T":
            encoded = [text.encode() for text in array.tolist()]
            packed[name + _LETTERS] = np.frombuffer(b"".join(encoded), np.uint8)
            packed[name + _ENDS] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        else:
            packed[name] = array
    return packed


def unpacked_texts(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that `packed_texts` was given.

    Raises:
        ValueError: If the two arrays of a text do not fit together, or are no text.
    """
    arrays = dict(packed)
    for name in [name.removesuffix(_ENDS) for name in arrays if name.endswith(_ENDS)]:
        letters, ends = (arrays.pop(name + part, np.empty(0)) for part in (_LETTERS, _ENDS))
        if (letters.dtype, ends.dtype, letters.ndim, ends.ndim) != (np.uint8, np.int64, 1, 1):
            raise ValueError(f"the texts of {name!r} are not stored as letters and ends")
        starts = np.concatenate([[0], ends])
        if (np.diff(starts) < 0).any() or starts[-1] != len(letters):
            raise ValueError(f"the ends of the texts of {name!r} do not ascend to their total length")
        whole = letters.tobytes()
        texts = [whole[start:end].decode() for start, end in zip(starts[:-1], ends, strict=True)]
        arrays[name] = np.array(texts, np.dtypes.StringDType())
    return arrays
