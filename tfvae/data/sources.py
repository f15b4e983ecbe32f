"""Where a named data set's files lie: given by hand, in `TFVAE_DATA`, in the cache, or to be downloaded."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pooch

from tfvae.data.streams import AnyPath, members
from tfvae.system.errors import InputError

__all__ = ["Place", "cache_folder", "data_folder", "download", "look_in", "stem"]

_COMPRESSED = re.compile(r"\.(xz|gz|bz2)$")
_log = logging.getLogger(__name__)


class Place:
    """The files at one place: a folder, a zip, or a single file and its neighbours."""

    def __init__(self, root: Path, inner: Sequence[str] = ()):
        """Lists the files.

        Args:
            root: The folder, zip or file.
            inner: Folders inside a folder that are searched as well.

        Raises:
            InputError: If there is no such thing, or the zip is damaged.
        """
        self._neighbours: list[AnyPath] = []
        if root.is_dir():
            self._files = [path for folder in (root, *(root / name for name in inner)) for path in _files(folder)]
        elif not root.exists():
            raise InputError(f"{root}: no such file or folder")
        elif root.suffix == ".zip":
            self._files = _members(root)
        else:
            self._files, self._neighbours = [root], _files(root.parent)

    def holds(self, patterns: Sequence[str]) -> bool:
        """Whether a file matches one of the patterns; of a single file, whether it does itself."""
        return any(_matching(self._files, pattern) for pattern in patterns)

    def find(self, *patterns: str) -> AnyPath | None:
        """A file that matches the first pattern that any file matches, compressed or not."""
        for files in (self._files, self._neighbours):
            for pattern in patterns:
                if found := _matching(files, pattern):
                    return found[0]
        return None

    def require(self, *patterns: str) -> AnyPath:
        """As `find`.

        Raises:
            InputError: When there is no such file.
        """
        found = self.find(*patterns)
        if found is None:
            raise InputError(f"expected a file {' or '.join(patterns)}; found none beside the others of the data set.")
        return found

    def find_all(self, pattern: str) -> list[AnyPath]:
        """The files whose names match, compressed or not, in the order of their names."""
        return _matching(self._files, pattern) or _matching(self._neighbours, pattern)


def stem(data: str | os.PathLike) -> str:
    """What to call things made from a file: its name without folders and the endings of its format."""
    name = "standard-input" if str(data) == "-" else Path(data).resolve().name
    return re.sub(r"(\.(csv|tsv|txt|jsonl|ndjson|parquet|npz))?(\.(xz|gz|bz2|zip))?$", "", name, flags=re.I) or "data"


def look_in(folder: Path, names: Sequence[str], patterns: Sequence[str]) -> Place | None:
    """Looks for a data set in a folder of data sets.

    Args:
        folder: Holds a folder or a zip for each data set, or one data set's files themselves.
        names: What the data set's own folder or zip may be called.
        patterns: Names of files of which the data set has one at least.

    Returns:
        The first place that holds such a file, or None.
    """
    own = [path for name in names for path in (folder / name, folder / f"{name}.zip", folder / name / f"{name}.zip")]
    for root in (*own, folder):
        if root.exists() and (place := Place(root, names if root in own else ())).holds(patterns):
            return place
    return None


def data_folder() -> Path | None:
    """The folder of files fetched by hand, from the environment variable `TFVAE_DATA`; None if unset.

    Raises:
        InputError: If there is no such folder.
    """
    if not (value := os.environ.get("TFVAE_DATA")):
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"TFVAE_DATA={value}: no such folder; make it, or unset the variable")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: `TFVAE_CACHE`, or the platform's folder for caches."""
    return Path(os.environ.get("TFVAE_CACHE") or pooch.os_cache("tfvae")).expanduser()


def download(urls: Sequence[str], checksum: str, file_name: str) -> Path:
    """Downloads a file to the cache unless it is there, from the first address that answers rightly.

    Args:
        urls: The official address, then mirrors.
        checksum: ``"md5:…"`` or ``"sha256:…"``; a file with another one is thrown away.
        file_name: Its name in the cache.

    Returns:
        The path of the whole and verified file.

    Raises:
        InputError: When no address gave it, with the reason for each; nothing is left behind.
    """
    failures = []
    for url in urls:
        try:
            downloader = pooch.HTTPDownloader(progressbar=True)
            return Path(pooch.retrieve(url, checksum, file_name, cache_folder(), downloader=downloader))
        except (OSError, ValueError) as problem:  # of the network and of the checksum
            failures.append(f"  {url}: {problem}")
            _log.warning("%s: %s", url, problem)
    raise InputError("\n".join([f"{file_name} could not be downloaded:", *failures]))


def _members(root: Path) -> list[AnyPath]:
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as problem:
        raise InputError(f"{root}: not a whole zip file ({problem}); delete it and fetch it anew") from None
    return [zipfile.Path(archive, name) for name in members(root, archive)]


def _files(folder: Path) -> list[AnyPath]:
    return [*sorted(path for path in folder.iterdir() if path.is_file())] if folder.is_dir() else []


def _matching(files: Sequence[AnyPath], pattern: str) -> list[AnyPath]:
    return [path for path in files if fnmatch.fnmatch(_COMPRESSED.sub("", path.name), pattern)]
