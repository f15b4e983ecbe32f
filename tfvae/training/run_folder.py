"""A run folder: whose it is, what lies in it, and that what is read from it is one run's.

`settings.json` marks a folder as a run's, and is written first. While a model is trained there are `state-<epoch>.npz`
and `best-<epoch>.npz`, `parts/` of a fit that keeps them and `pilot/`, a run of its own; `tensorboard/` all along.
`model.keras`, `items.npz` and `run.json` are the finished run, which names the digests of the other two. The commands
put `split.npz` and `evaluation.json` beside it.

A folder is taken if it is new, empty or marked. Nothing is written or removed in any other, and what is removed is
named file by file.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict

from tfvae.models import model_class
from tfvae.models.matrix import MatrixRecommender
from tfvae.system.errors import InputError
from tfvae.system.files import digest, reading, sha256_of, write_json
from tfvae.system.locks import LOCK_FILE, held
from tfvae.system.validation import Strict, checked
from tfvae.training.settings import Settings, stored_settings, todays_flat

__all__ = ["CHECKPOINT", "SPLIT_FILE", "RunFolder", "part_files"]

SPLIT_FILE = "split.npz"
"""It may lie in a folder before the run does; whoever puts it there sees to it that it is the run's."""
CHECKPOINT = re.compile(r"(state|best)-(\d+)\.npz|state\.npz")  # the latter is that of version 0
DRAFT = re.compile(r"\.(settings\.json|run\.json|model\.keras|items\.npz|(state|best)-\d+\.npz)\.\w+-\d+-\w+")
WHOLE = ("model.keras", "items.npz")


def _names_a_model(settings: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(settings.get("model"), str):
        raise InputError("no model is named")
    stored_settings(settings)
    return settings


class Claim(Strict):
    """`settings.json`: what marks a folder as a run's."""

    format: Literal["tfvae run"] = "tfvae run"
    version: Literal[0, 1] = 0  # 0 named neither, nor did its `run.json` name digests
    settings: Annotated[dict[str, Any], AfterValidator(_names_a_model)]
    data_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of settings and data, whichever version stored them."""
        return digest(stored_settings(self.settings).flat(), self.data_digest)


class Outcome(Strict):
    """`run.json`: how a run ended; the attributes are `TrainedModel`'s, but for the digests."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    history: list[dict[str, int | float]]
    best_epoch: int | None
    seconds: float
    selected_beta: float | None
    claim: str | None = None
    files: dict[str, str] = {}


def part_files(settings: Settings) -> tuple[str, ...]:
    """Patterns of the names of the files that a model's fit keeps in `parts/`; none if it keeps none."""
    kind = model_class(settings.name)
    return kind.part_files if issubclass(kind, MatrixRecommender) else ()


class RunFolder:
    """The folder of one run.

    Args:
        path: Where it lies, or is to lie.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.settings_file, self.run_file = self.path / "settings.json", self.path / "run.json"
        self.model_file, self.items_file = (self.path / name for name in WHOLE)
        self.parts, self.pilot, self.tensorboard = (self.path / name for name in ("parts", "pilot", "tensorboard"))

    @contextmanager
    def taken(self, settings: Settings, data_digest: str) -> Iterator[bool]:
        """Holds the folder for one run against other processes; marks nothing yet.

        Args:
            settings: The run's settings.
            data_digest: Digest of its split.

        Yields:
            Whether the folder is this run's already.

        Raises:
            InputError: If it is another run's or not a run's at all, or another process holds it.
        """
        self.refuse_others(settings, data_digest)
        with held(self.path):
            before = self.refuse_others(settings, data_digest)
            if before:
                self._remove_drafts()
            yield before

    def refuse_others(self, settings: Settings, data_digest: str) -> bool:
        """Refuses a folder that is neither new, empty nor this run's; arguments and errors as for `taken`.

        Returns:
            Whether the folder is this run's already.
        """
        self._refuse_foreign()
        return self._is_of(settings, data_digest)

    def mark(self, settings: Settings, data_digest: str) -> None:
        """Writes whose folder this is."""
        claim = Claim(version=1, settings=settings.flat(), data_digest=data_digest)
        write_json(self.settings_file, claim.model_dump())

    def claim(self) -> Claim:
        """Whose folder this is.

        Raises:
            InputError: If it is not marked, or the mark cannot be read.
        """
        return checked(Claim, _json(self.settings_file), self.settings_file)

    @property
    def is_finished(self) -> bool:
        """Whether a finished run lies here."""
        return self.run_file.is_file()

    def finish(self, outcome: dict[str, Any]) -> None:
        """Writes `run.json`, which makes the run a finished one.

        Args:
            outcome: The attributes of `Outcome` but for the digests.
        """
        files = {name: sha256_of(self.path / name) for name in WHOLE}
        write_json(self.run_file, Outcome(claim=self.claim().digest, files=files, **outcome).model_dump())

    def finished(self) -> tuple[Settings, dict[str, Any]]:
        """The settings and the outcome of the finished run, whose files are all its own.

        Raises:
            InputError: If there is none, or a file is missing, damaged or another run's.
        """
        if not self.is_finished:
            raise InputError(f"{self.path} holds no finished run: run.json is missing. Train it to the end first.")
        claim, outcome = self.claim(), checked(Outcome, _json(self.run_file), self.run_file)
        if outcome.claim not in (None, claim.digest):
            raise InputError(
                f"{self.path}: settings.json and run.json are of different runs. Put the former files back, or train "
                "into another folder."
            )
        for name, expected in outcome.files.items():
            file = self.path / name
            if not file.is_file():
                raise InputError(f"{self.path}: {name} is missing. Put it back, or train into another folder.")
            if sha256_of(file) != expected:
                raise InputError(
                    f"{self.path}: {name} is not the file that the run ended with; its SHA-256 is not the one in "
                    "run.json. Put the former file back, or train into another folder."
                )
        if not self.model_file.is_file():
            raise InputError(f"{self.path}: model.keras is missing. Put it back, or train into another folder.")
        return stored_settings(claim.settings), outcome.model_dump(exclude={"claim", "files"})

    def refuse_another_split(self, digests: Sequence[str]) -> None:
        """Refuses a split beside the run that it was not trained on.

        Args:
            digests: Of the split, and of what a model is trained on of it.

        Raises:
            InputError: If the run's data have none of these digests.
        """
        trained_on = self.claim().data_digest
        if trained_on not in digests:
            raise InputError(
                f"{self.path} is a run trained on data of digest {trained_on[:12]}; the split that is given or lies "
                f"there has {digests[0][:12]}. A run keeps its own split: put that back, or give another folder."
            )

    @property
    def has_training_files(self) -> bool:
        """Whether files lie here that are needed only until a run has finished, such as a killed process leaves."""
        lock = (self.path / LOCK_FILE).is_file()
        return lock or bool(self._training_files()) or RunFolder(self.pilot)._is_marked

    def remove_training_files(self) -> None:
        """Removes what is needed only until a run has finished."""
        for path in self._training_files():
            path.unlink()
        _remove_if_empty(self.parts)
        RunFolder(self.pilot).remove()

    def remove(self) -> None:
        """Removes a run, file by file; what is not of it stays, and so does a folder without a mark."""
        if not self._is_marked:
            _remove_if_empty(self.path)
            return
        self.remove_training_files()
        self._remove_drafts()
        for events in [*self.tensorboard.glob("*/events.out.tfevents.*"), *self.tensorboard.glob("events.out.*")]:
            events.unlink()
        for folder in (*self.tensorboard.glob("*"), self.tensorboard):
            _remove_if_empty(folder)
        for file in (self.run_file, self.items_file, self.model_file, self.settings_file):
            file.unlink(missing_ok=True)
        _remove_if_empty(self.path)

    @property
    def _is_marked(self) -> bool:
        """Whether this is the folder of a run."""
        try:
            self.claim()
        except InputError:
            return False
        return True

    def _training_files(self) -> list[Path]:
        checkpoints = [path for path in self.path.glob("*.npz") if CHECKPOINT.fullmatch(path.name)]
        patterns = part_files(stored_settings(self.claim().settings))
        return checkpoints + [path for pattern in patterns for path in self.parts.glob(pattern)]

    def _refuse_foreign(self) -> None:
        """Refuses a folder that is neither new, empty nor marked."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder for the run, found a file. Give another name.")
        names = (path.name for path in self.path.glob("*"))
        others = sorted(name for name in names if name != SPLIT_FILE and not name.startswith("."))
        if self.settings_file.is_file():
            try:
                self.claim()
            except InputError as problem:
                reason = str(problem).rstrip(".")
                raise InputError(f"{self.path} is not the folder of a run ({reason}). Give another folder.") from None
        elif others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise InputError(
                f"{self.path} is not empty and not the folder of a run: it holds {', '.join(others[:3])}{more}. Give a "
                "new or an empty folder; nothing was touched."
            )

    def _is_of(self, settings: Settings, data_digest: str) -> bool:
        """Whether the folder is this run's already; False when it is nobody's, an error when it is another's."""
        if not self.settings_file.is_file():
            return False
        claim = self.claim()
        there, here = todays_flat(claim.settings), settings.flat()
        differing = [
            f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        ]
        if claim.data_digest != data_digest:
            differing.append("the data are others")
        if differing:
            raise InputError(
                f"{self.path} holds a run of another configuration: {'; '.join(differing)}. Choose another folder or "
                "remove it."
            )
        return True

    def _remove_drafts(self) -> None:
        """Removes what a killed process of this run was writing; the folder is held."""
        for path in self.path.iterdir():
            if DRAFT.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)


def _json(path: Path) -> Any:
    """What a JSON file holds; raises InputError where it cannot be read."""
    with reading(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
