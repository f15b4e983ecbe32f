"""The models that are served, and how a new version takes the place of another without a lost request.

A model is named by its folder, or by a symbolic link to one. A task looks every few seconds whether another finished
run lies there. It is loaded and warmed up in a thread, and then takes the place of the former one: requests that came
before are still answered by that one. A version that cannot be loaded changes nothing but what `/models` says.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tfvae.serving.http.batching import Batcher
from tfvae.serving.http.errors import RequestError
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.loaded import Asked, LoadedRun, Ranked
from tfvae.serving.http.metrics import Metrics
from tfvae.system.errors import InputError, TfvaeError, unknown_name
from tfvae.system.files import digest, read_json, sha256_of
from tfvae.training.run_folder import RunFolder

__all__ = ["Models", "ServedModel", "Version"]

_log = logging.getLogger(__name__)

Stamp = tuple[str, tuple[tuple[int, int, int] | None, ...]]


@dataclass(frozen=True, eq=False)
class Version:
    """A version of a model that answers requests.

    Attributes:
        name: First digits of the SHA-256 over the stored model and its items.
        run: The run.
        batcher: Collects the requests to it.
        loaded: When it was loaded, in UTC.
    """

    name: str
    run: LoadedRun
    batcher: Batcher[Asked, Ranked]
    loaded: str


@dataclass(eq=False)
class ServedModel:
    """A model by its name, and the version that answers now.

    Attributes:
        name: The name of its folder or link.
        folder: That folder or link.
        current: The version that answers.
        stamp: What the folder looked like when it was last looked at.
        problem: Why the newest version is not served; None if it is.
        ending: Former versions that still answer requests.
    """

    name: str
    folder: Path
    current: Version
    stamp: Stamp
    problem: str | None = None
    ending: set[asyncio.Task] = field(default_factory=set)


class Models:
    """All models of a service; they are loaded here.

    Args:
        folders: Run folders, or symbolic links to such.
        limits: The limits of the service.

    Attributes:
        limits: The same limits.
        metrics: The metrics of the service.

    Raises:
        InputError: If two folders have one name, or one holds no finished run that can be served.
    """

    def __init__(self, folders: Sequence[Path | str], limits: Limits | None = None):
        self.limits, self.metrics = limits or Limits(), Metrics()
        self._loader = ThreadPoolExecutor(1, "loader")
        self._by_name: dict[str, ServedModel] = {}
        for folder in map(Path, folders):
            name = folder.name or folder.resolve().name
            if name in self._by_name:
                raise InputError(
                    f"{self._by_name[name].folder} and {folder} would both be called {name}; make a symbolic link of "
                    "another name to one of them, and serve that."
                )
            stamp = _stamp(folder)
            self._by_name[name] = served = ServedModel(name, folder, self._load(name, folder), stamp)
            self._tell(served.name, served.current)

    def __iter__(self) -> Iterator[ServedModel]:
        """The models, in the order in which they were given."""
        return iter(self._by_name.values())

    def __len__(self) -> int:
        """How many they are."""
        return len(self._by_name)

    def get(self, name: str | None) -> ServedModel:
        """The model of a name; the only one, if there is one and no name is given.

        Raises:
            RequestError: With status 404, if there is none, or 422, if a name is needed.
        """
        if name is None and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        if name is None:
            raise RequestError(
                422, "invalid_request", f"model: expected the name of one of the models, {', '.join(self._by_name)}."
            )
        if name not in self._by_name:
            raise RequestError(404, "unknown_model", str(unknown_name("model", name, self._by_name)))
        return self._by_name[name]

    async def watch(self) -> None:
        """Looks for new versions until it is cancelled."""
        while True:
            await asyncio.sleep(self.limits.poll_seconds)
            for served in self:
                await self.look(served)

    async def look(self, served: ServedModel) -> None:
        """Lets the run that now lies in a model's folder take over, if it is another one."""
        loop = asyncio.get_running_loop()
        stamp = _stamp(served.folder)
        if stamp == served.stamp:
            return
        try:
            version = await loop.run_in_executor(self._loader, self._load_other, served)
        except Exception as error:  # whatever a foreign file leads to, the former version goes on
            if not isinstance(error, TfvaeError | OSError | MemoryError):
                _log.exception("%s: unexpected error", served.folder)
            told = str(error) or type(error).__name__
            # Callers need not know where on this machine the folder is.
            served.problem = told.replace(str(served.folder.resolve()), served.name)
            served.stamp = stamp
            self.metrics.failures.labels(served.name).inc()
            _log.error("%s: version %s goes on: %s", served.name, served.current.name, told)
            return
        served.stamp, served.problem = stamp, None
        if version is None:
            return
        former, served.current = served.current, version
        self.metrics.models.labels(served.name, former.name).set(0)
        self._tell(served.name, version)
        _log.info("%s: version %s takes over from %s", served.name, version.name, former.name)
        ending = asyncio.create_task(_end(former))
        served.ending.add(ending)
        ending.add_done_callback(served.ending.discard)

    async def close(self) -> None:
        """Ends all threads once everything that waits has been answered."""
        for served in self:
            await served.current.batcher.close()
            await asyncio.gather(*served.ending)
        self._loader.shutdown(wait=False)

    def _tell(self, name: str, version: Version) -> None:
        """Makes the metrics speak of a version."""
        self.metrics.models.labels(name, version.name).set(1)
        self.metrics.pending.labels(name).set_function(lambda: version.batcher.pending)

    def _load_other(self, served: ServedModel) -> Version | None:
        """The run in a model's folder, ready to answer; None if it is the one that is served."""
        if _version_of(RunFolder(served.folder.resolve())) == served.current.name:
            return None
        return self._load(served.name, served.folder)

    def _load(self, name: str, folder: Path) -> Version:
        """The run in a folder, ready to answer.

        The link is followed once, so that all files are of one run, even if it is changed in between.
        """
        folder = folder.resolve()
        version = _version_of(RunFolder(folder))
        run = LoadedRun(folder)
        limits = self.limits
        run.warm_up(limits.batch)
        batcher: Batcher[Asked, Ranked] = Batcher(
            run.rank,
            rows=limits.batch,
            window=limits.window_ms / 1000,
            queue=limits.queue,
            on_batch=self.metrics.batch_rows.labels(name).observe,
        )
        return Version(version, run, batcher, datetime.now(UTC).isoformat(timespec="seconds"))


async def _end(version: Version) -> None:
    """Lets a former version answer what it was asked; its memory is free afterwards."""
    await version.batcher.close()
    del version
    gc.collect()  # models have cycles


def _version_of(run: RunFolder) -> str:
    """The version of the finished run in a folder."""
    run.refuse_unfinished()
    files = read_json(run.run_file, "the outcome of a run").get("files", {})
    stored = [files.get(file.name) or sha256_of(file) for file in (run.model_file, run.items_file) if file.is_file()]
    return digest(*stored)[:12]


def _stamp(folder: Path) -> Stamp:
    """Where a folder leads, and what its files look like, without reading them."""
    run = RunFolder(folder.resolve())
    states = []
    for file in (run.run_file, run.settings_file, run.model_file, run.items_file):
        state = None
        with suppress(OSError):
            found = file.stat()
            state = (found.st_ino, found.st_mtime_ns, found.st_size)
        states.append(state)
    return str(run.path), tuple(states)
