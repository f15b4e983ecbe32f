"""Finds a named data set's files at a given path, in `TFVAE_DATA` or in the cache, or downloads them."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

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
            inner: Names of subfolders that are searched as well if the root is a folder.

        Raises:
            InputError: If the root does not exist, or is a zip that is damaged or has unsafe members.
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
        """Whether a file matches one of the patterns; the neighbours of a single file do not count."""
        return any(_matching(self._files, pattern) for pattern in patterns)

    def find(self, *patterns: str) -> AnyPath | None:
        """A file that matches the first pattern that any file matches, compressed or not; None if none does."""
        for files in (self._files, self._neighbours):
            for pattern in patterns:
                if found := _matching(files, pattern):
                    return found[0]
        return None

    def require(self, *patterns: str) -> AnyPath:
        """A file as `find` returns it.

        Raises:
            InputError: If there is no such file.
        """
        found = self.find(*patterns)
        if found is None:
            raise InputError(f"expected a file {' or '.join(patterns)}; found none beside the others of the data set.")
        return found

    def find_all(self, pattern: str) -> list[AnyPath]:
        """The files whose names match, compressed or not, in the order of their names."""
        return _matching(self._files, pattern) or _matching(self._neighbours, pattern)


def stem(data: str | os.PathLike) -> str:
    """A name for what is made from a file: its own, without its folder and the suffixes of its format."""
    name = "standard-input" if str(data) == "-" else Path(data).resolve().name
    return re.sub(r"(\.(csv|tsv|txt|jsonl|ndjson|parquet|npz))?(\.(xz|gz|bz2|zip))?$", "", name, flags=re.I) or "data"


def look_in(folder: Path, names: Sequence[str], patterns: Sequence[str]) -> Place | None:
    """Looks for a data set in a folder of data sets.

    Args:
        folder: The folder; it holds a folder or a zip for each data set, or the files of one data set.
        names: Possible names of the data set's own folder or zip.
        patterns: Name patterns of its main file.

    Returns:
        The first place that holds such a file, or None.

    Raises:
        InputError: If a zip of one of these names is damaged or has unsafe members.
    """
    own = [path for name in names for path in (folder / name, folder / f"{name}.zip", folder / name / f"{name}.zip")]
    for root in (*own, folder):
        if root.exists() and (place := Place(root, names if root in own else ())).holds(patterns):
            return place
    return None


def data_folder() -> Path | None:
    """The folder of files fetched by hand, which the environment variable `TFVAE_DATA` names; None if it is unset.

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
    """The folder of downloads: `TFVAE_CACHE` if it is set, otherwise one in the platform's folder for caches."""
    import pooch  # here, since it loads asyncio and more, and most commands download nothing

    return Path(os.environ.get("TFVAE_CACHE") or pooch.os_cache("tfvae")).expanduser()


def download(urls: Sequence[str], checksum: str, file_name: str) -> Path:
    """Downloads a file to the cache, unless it is there, from the first address that gives the right file.

    Args:
        urls: The official address, then mirrors.
        checksum: ``"md5:…"`` or ``"sha256:…"``; a file with another checksum is discarded.
        file_name: Name of the file in the cache.

    Returns:
        The path of the complete and verified file.

    Raises:
        InputError: If no address gives it; the message has the reason for each. No partial file is left behind.
    """
    import pooch

    failures = []
    for url in urls:
        try:
            downloader = pooch.HTTPDownloader(progressbar=True)
            return Path(pooch.retrieve(url, checksum, file_name, cache_folder(), downloader=downloader))
        except (OSError, ValueError) as problem:  # from the network, or for a wrong checksum
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
