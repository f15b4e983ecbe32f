"""The folder of a run: its files, the run that it belongs to, and the check that all files belong to one run.

`settings.json` marks a folder as that of a run, and is written first. During training there are `state-<epoch>.npz` and
`best-<epoch>.npz`; `parts/`, if an interrupted fit can go on from finished parts; `pilot/`, the folder of a pilot run;
and `members/`, with the folder of a run for each member of an ensemble. `tensorboard/` is kept. `model.keras`,
`items.npz` and `run.json`, which has the digests of the other two, are the finished run. The commands add `split.npz`,
`evaluation.json` and `quick/`, a copy of the model that answers at once; a retrained run has `retrained.json`.

A run only uses a folder that is new, that is empty but for `split.npz` and hidden files, or that has the mark of this
run. In any other folder nothing is written or removed. Files are removed by name; what tfvae did not write is kept.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from tfvae.models import model_class
from tfvae.models.matrix import MatrixRecommender
from tfvae.models.members import member_names
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_json, sha256_of, write_json
from tfvae.system.locks import LOCK_FILE, held
from tfvae.system.validation import Strict, checked
from tfvae.training.projector import remove_projector
from tfvae.training.settings import Settings, stored_settings, todays_flat

__all__ = ["CHECKPOINT", "SPLIT_FILE", "RunFolder", "part_files"]

SPLIT_FILE = "split.npz"
"""The split may be in a folder before the run is; whoever puts it there must check that the run is trained on it."""
CHECKPOINT = re.compile(r"(state|best)-(\d+)\.npz|state\.npz")  # version 0 wrote state.npz
DRAFT = re.compile(r"\.(settings\.json|run\.json|model\.keras|items\.npz|(state|best)-\d+\.npz)\.\w+-\d+-\w+")
WHOLE = ("model.keras", "items.npz")


def _names_a_model(settings: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(settings.get("model"), str):
        raise InputError("no model is named")
    stored_settings(settings)
    return settings


class Claim(Strict):
    """The content of `settings.json`, which marks a folder as that of a run.

    Attributes:
        format: A fixed text.
        version: Version of the files in the folder.
        settings: The run's flat settings, as they were stored.
        data_digest: Digest of the split.
        started_from: SHA-256 of the `model.keras` whose weights the run starts from; None if it starts from none.
    """

    format: Literal["tfvae run"] = "tfvae run"
    version: Literal[0, 1] = 0  # files of version 0 have neither key, and their run.json has no digests
    settings: Annotated[dict[str, Any], AfterValidator(_names_a_model)]
    data_digest: str
    started_from: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the settings, by their present names, the data, and the model that the run starts from."""
        started_from = [] if self.started_from is None else [self.started_from]
        return digest(stored_settings(self.settings).flat(), self.data_digest, *started_from)


class Outcome(Strict):
    """The content of `run.json`: the outcome of a finished run.

    Attributes:
        history: As in `TrainedModel`.
        best_epoch: As in `TrainedModel`.
        seconds: As in `TrainedModel`.
        selected_beta: As in `TrainedModel`.
        claim: The digest of `settings.json`; None in version 0.
        files: The SHA-256 of each file in `WHOLE`, by name; empty in version 0.
    """

    history: list[dict[str, int | float]]
    best_epoch: int | None
    seconds: float
    selected_beta: float | None
    claim: str | None = None
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _best_epoch_exists(self) -> Self:
        if self.seconds < 0:
            raise ValueError(f"seconds is {self.seconds}")
        if self.best_epoch is not None and not 0 <= self.best_epoch < len(self.history):
            raise ValueError(f"best_epoch is {self.best_epoch}, of {len(self.history)} epochs")
        return self


def part_files(settings: Settings) -> tuple[str, ...]:
    """Patterns of the names of the files that a model's fit keeps in `parts/`; empty if it keeps none."""
    kind = model_class(settings.name)
    return kind.part_files if issubclass(kind, MatrixRecommender) else ()


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder, which need not exist yet.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.settings_file, self.run_file = self.path / "settings.json", self.path / "run.json"
        self.model_file, self.items_file = (self.path / name for name in WHOLE)
        self.parts, self.pilot, self.tensorboard = (self.path / name for name in ("parts", "pilot", "tensorboard"))
        self.members = self.path / "members"

    @contextmanager
    def taken(self, settings: Settings, data_digest: str, started_from: str | None = None) -> Iterator[bool]:
        """Locks the folder for one run against other processes, without marking it yet.

        Args:
            settings: The run's settings.
            data_digest: Digest of its split.
            started_from: As in `Claim`.

        Yields:
            Whether the folder already belongs to this run.

        Raises:
            InputError: If the folder belongs to another run or holds other files, or another process holds it.
        """
        self.refuse_others(settings, data_digest, started_from)
        with held(self.path):
            before = self.refuse_others(settings, data_digest, started_from)
            if before:
                self._remove_drafts()
            yield before

    def refuse_others(self, settings: Settings, data_digest: str, started_from: str | None = None) -> bool:
        """Refuses a folder that is neither new, empty nor this run's; it is not locked.

        Args:
            settings: The run's settings.
            data_digest: Digest of its split.
            started_from: As in `Claim`.

        Returns:
            Whether the folder already belongs to this run.

        Raises:
            InputError: If the folder belongs to another run or holds other files.
        """
        self._refuse_foreign()
        return self._is_of(settings, data_digest, started_from)

    def mark(self, settings: Settings, data_digest: str, started_from: str | None = None) -> None:
        """Marks the folder as that of a run.

        Args:
            settings: The run's settings.
            data_digest: Digest of its split.
            started_from: As in `Claim`.
        """
        claim = Claim(version=1, settings=settings.flat(), data_digest=data_digest, started_from=started_from)
        write_json(self.settings_file, claim.model_dump(exclude=set() if started_from else {"started_from"}))

    def claim(self) -> Claim:
        """The mark of the run that the folder belongs to.

        Raises:
            InputError: If the folder is not marked, or the mark cannot be read.
        """
        return checked(Claim, read_json(self.settings_file, "the mark of a run"), self.settings_file)

    @property
    def is_finished(self) -> bool:
        """Whether the folder has a finished run."""
        return self.run_file.is_file()

    def refuse_unfinished(self) -> None:
        """Raises InputError if the folder has no finished run; its files are not checked."""
        if not self.is_finished:
            raise InputError(f"{self.path} holds no finished run: run.json is missing. Train it to the end first.")

    def finish(self, outcome: dict[str, Any]) -> None:
        """Writes `run.json`, which marks the run as finished.

        Args:
            outcome: The attributes of `Outcome` but for the digests.
        """
        files = {name: sha256_of(self.path / name) for name in WHOLE}
        write_json(self.run_file, Outcome(claim=self.claim().digest, files=files, **outcome).model_dump())

    def finished(self) -> tuple[Settings, dict[str, Any]]:
        """Checks the files of the finished run, and reads its settings and outcome.

        Returns:
            The settings, and the attributes of `Outcome` but for the digests.

        Raises:
            InputError: If there is no finished run, or a file is missing, damaged or another run's.
        """
        self.refuse_unfinished()
        claim, outcome = self.claim(), checked(Outcome, read_json(self.run_file, "the outcome of a run"), self.run_file)
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
        """Refuses a split on which the run was not trained.

        Args:
            digests: The digest of the split, followed by that of its part for tuning, on which a model may be trained.

        Raises:
            InputError: If the run's data have none of these digests, or the folder is not marked.
        """
        trained_on = self.claim().data_digest
        if trained_on not in digests:
            raise InputError(
                f"{self.path} is a run trained on data of digest {trained_on[:12]}; the split that is given or lies "
                f"there has {digests[0][:12]}. A run keeps its own split: put that back, or give another folder."
            )

    def member_folders(self, settings: Settings) -> list[Path]:
        """The folder of the run of each member, if these are the settings of an ensemble; else none."""
        return [self.members / name for name in member_names(settings.members)]

    @property
    def has_training_files(self) -> bool:
        """Whether there are files that are only needed until a run has finished, as a killed process leaves them."""
        lock = (self.path / LOCK_FILE).is_file()
        runs = [self.pilot, *self.member_folders(stored_settings(self.claim().settings))]
        return lock or bool(self._training_files()) or any(RunFolder(run)._is_marked for run in runs)

    def remove_training_files(self) -> None:
        """Removes the files that are only needed until a run has finished."""
        for path in self._training_files():
            path.unlink()
        _remove_if_empty(self.parts)
        for run in (self.pilot, *self.member_folders(stored_settings(self.claim().settings))):
            RunFolder(run).remove()
        _remove_if_empty(self.members)

    def remove(self) -> None:
        """Removes the run's files one by one; other files are kept, and so are all files of a folder without a mark."""
        if not self._is_marked:
            _remove_if_empty(self.path)
            return
        self.remove_training_files()
        self._remove_drafts()
        remove_projector(self.tensorboard)
        for events in [*self.tensorboard.glob("*/events.out.tfevents.*"), *self.tensorboard.glob("events.out.*")]:
            events.unlink()
        for folder in (*self.tensorboard.glob("*"), self.tensorboard):
            _remove_if_empty(folder)
        for file in (self.run_file, self.items_file, self.model_file, self.settings_file):
            file.unlink(missing_ok=True)
        _remove_if_empty(self.path)

    @property
    def _is_marked(self) -> bool:
        """Whether the folder has a readable mark."""
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
        _refuse_links(self.parts, self.pilot, self.tensorboard, self.members)
        names = (path.name for path in self.path.glob("*"))
        others = sorted(name for name in names if name != SPLIT_FILE and not name.startswith("."))
        if self.settings_file.is_file():
            try:
                claim = self.claim()
            except InputError as problem:
                reason = str(problem).rstrip(".")
                raise InputError(f"{self.path} is not the folder of a run ({reason}). Give another folder.") from None
            _refuse_links(*self.member_folders(stored_settings(claim.settings)))
        elif others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise InputError(
                f"{self.path} is not empty and not the folder of a run: it holds {', '.join(others[:3])}{more}. Give a "
                "new or an empty folder; nothing was touched."
            )

    def _is_of(self, settings: Settings, data_digest: str, started_from: str | None) -> bool:
        """Whether the folder has this run's mark; False without a mark, and InputError if it is another run's."""
        if not self.settings_file.is_file():
            return False
        claim = self.claim()
        try:  # settings that are newer than the folder have their defaults
            there = stored_settings(claim.settings).flat()
        except InputError:
            there = todays_flat(claim.settings)
        here = settings.flat()
        differing = [
            f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        ]
        if claim.data_digest != data_digest:
            differing.append("the data are others")
        if claim.started_from != started_from:
            differing.append("it starts from other weights")
        if differing:
            raise InputError(
                f"{self.path} holds a run of another configuration: {'; '.join(differing)}. Choose another folder or "
                "remove it."
            )
        return True

    def _remove_drafts(self) -> None:
        """Removes files that a killed process had not finished writing; the folder must be held."""
        for path in self.path.iterdir():
            if DRAFT.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)


def _refuse_links(*folders: Path) -> None:
    for folder in folders:
        if folder.is_symlink():
            raise InputError(f"{folder} is a link; a run writes nothing outside its folder. Remove the link.")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
