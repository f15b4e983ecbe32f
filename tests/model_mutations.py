"""Damaged `.keras` files: the zip, its members, the configuration, and the HDF5 file of the weights.

As in `mutations.py`, a function takes the bytes of a whole file and a generator, and gives the bytes of a damaged one.
"""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from contextlib import suppress
from functools import partial

import h5py
import numpy as np
from mutations import ENCODED, array_damaged, bytes_damaged, json_damaged

__all__ = ["hdf5_damaged", "keras_damaged"]

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def keras_damaged(content: bytes, rng: random.Random) -> bytes:
    """One fault in a `.keras` file, mostly in a member, of which the archive then has the right checksum."""
    match rng.choice(("file", "file", "zip", "config", "config", "structure", "structure", "hdf5", "other")):
        case "file":
            return bytes_damaged(content, rng)
        case "zip":
            return _zip_damaged(content, rng)
        case "config":
            return _rewritten(content, CONFIG, json_damaged, rng)
        case "structure":
            return _rewritten(content, WEIGHTS, hdf5_damaged, rng)
        case "hdf5":
            return _rewritten(content, WEIGHTS, bytes_damaged, rng)
    return _rewritten(content, rng.choice(_names(content)), bytes_damaged, rng)


def _names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.namelist()


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _packed(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name may be there twice
        for name, member in members:
            archive.writestr(name, member)
    return buffer.getvalue()


def _rewritten(content: bytes, name: str, damage, rng: random.Random) -> bytes:
    return _packed([(n, damage(member, rng) if n == name else member) for n, member in _members(content)])


def _zip_damaged(content: bytes, rng: random.Random) -> bytes:
    members = _members(content)
    place = rng.randrange(len(members))
    match rng.randrange(6):
        case 0:
            del members[place]
        case 1:
            members.append((rng.choice(("a", "../a", "assets/a", "model.weights.npz")), rng.choice(ENCODED)))
        case 2:
            members.append((members[place][0], rng.choice(members)[1]))  # a name twice
        case 3:
            members[place] = (members[place][0], rng.choice((b"", rng.choice(members)[1], rng.choice(ENCODED))))
        case 4:
            members[place] = (rng.choice((members[place][0].upper(), "config", " ")), members[place][1])
        case 5:
            members[place] = (members[place][0], members[place][1] + b"\0" * (64 << 20))  # 64 MB in few bytes
            return _packed(members, zipfile.ZIP_DEFLATED)
    return _packed(members)


# ---- the weights ------------------------------------------------------------------------------------


def hdf5_damaged(content: bytes, rng: random.Random) -> bytes:
    """One or two faults in the groups and datasets of an HDF5 file."""
    buffer = io.BytesIO(content)
    faults = [rng.choice(HDF5_FAULTS) for _ in range(rng.choice((1, 1, 2)))]
    for fault in sorted(faults, key=lambda fault: fault is _huge):  # which no other fault can read
        with h5py.File(buffer, "r+") as file:
            entries: list[tuple[str, bool]] = [("/", False)]
            file.visititems(partial(_note, entries))
            groups, datasets = ([name for name, is_data in entries if is_data is kind] for kind in (False, True))
            # HDF5 refuses some of these faults of some datasets.
            with suppress(ValueError, TypeError, OSError, KeyError, IndexError, RuntimeError):
                fault(file, groups, datasets, rng)
    return buffer.getvalue()


def _note(entries: list[tuple[str, bool]], name: str, found: h5py.Group | h5py.Dataset) -> None:
    entries.append((name, isinstance(found, h5py.Dataset)))


def _values(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    """Other values, another shape or another type."""
    name = rng.choice(datasets)
    array = array_damaged(file[name][()], rng)
    if array.dtype.kind in "biufc":
        del file[name]
        file[name] = array


def _drop(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    del file[rng.choice((rng.choice(groups[1:]), rng.choice(datasets)))]


def _rename(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    name = rng.choice((rng.choice(groups[1:]), rng.choice(datasets)))
    file.move(name, rng.choice((f"{name}_", "other", name.rpartition("/")[0] + "/other")))


def _swap(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    one, other = rng.choice(datasets), rng.choice(datasets)
    if one != other:
        arrays = file[one][()], file[other][()]
        del file[one], file[other]
        file[one], file[other] = arrays[1], arrays[0]


def _link(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    name, target = rng.choice((rng.choice(groups[1:]), rng.choice(datasets))), rng.choice((*groups, *datasets))
    links = (h5py.SoftLink(f"/{target}"), h5py.ExternalLink("other.h5", target), file[target], h5py.SoftLink(name))
    link = rng.choice(links)
    if target != name:
        del file[name]
        file[name] = link if name not in file and (isinstance(link, h5py.SoftLink | h5py.ExternalLink) or link) else 0


def _huge(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    """A dataset that says it is large and stores next to nothing."""
    name = rng.choice(datasets)
    kind, n_axes = file[name].dtype, max(1, file[name].ndim)
    del file[name]
    shape = (rng.choice((2 * 10**8, 2**33, 2**62)),) + (1,) * (n_axes - 1)
    chunks = rng.choice((None, (1 << 16,) + (1,) * (n_axes - 1)))
    file.create_dataset(name, shape, kind, chunks=chunks, fillvalue=rng.choice((0, 1)))


def _packed_dataset(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    """The same values, in chunks and compressed."""
    name = rng.choice(datasets)
    array = file[name][()]
    if array.ndim:
        del file[name]
        file.create_dataset(name, data=array, compression=rng.choice(("gzip", "lzf")), shuffle=True)


def _more(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    where = file[rng.choice(groups)]
    name = rng.choice(("0", "1", "9", "vars", "other", "_layer_checkpoint_dependencies"))
    if name not in where:
        where[name] = rng.choice((np.zeros(3, np.float32), np.bytes_(b"text"), np.float32(1), [[1, 2], [3, 4]]))


def _attribute(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    found = file[rng.choice((*groups, *datasets))]
    found.attrs[rng.choice(("name", "dtype"))] = rng.choice(("bfloat16", "text", 1.5, [1, 2]))


def _kind_changed(file: h5py.File, groups: list[str], datasets: list[str], rng: random.Random) -> None:
    """Text, records or variable length in place of numbers."""
    name = rng.choice(datasets)
    shape = file[name].shape
    del file[name]
    text, ragged = h5py.string_dtype(), h5py.vlen_dtype(np.float32)
    file.create_dataset(name, shape, rng.choice((text, ragged, "S4", "i4,f4", "c8", "V4", h5py.ref_dtype)))


HDF5_FAULTS = (
    *(_values, _values, _values, _drop, _drop, _rename, _swap, _link, _huge),
    *(_packed_dataset, _more, _attribute, _kind_changed),
)
