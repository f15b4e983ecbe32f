"""A run of tfvae as a run of MLflow: its settings, curves and origin, and in the end its files.

It needs the extra `tfvae[mlflow]`. Where the runs go is said as for any program that uses MLflow, by
`MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import tfvae
from tfvae.system.environment import commit
from tfvae.system.errors import InputError
from tfvae.system.files import read_json, write_json
from tfvae.system.validation import Strict, checked
from tfvae.training.run_folder import RunFolder

__all__ = ["MLFLOW_FILE", "in_mlflow", "refuse_no_mlflow"]

MLFLOW_FILE = "mlflow.json"
"""The file in a run folder that names the MLflow run, so that a resumed run goes on in it."""
ARTIFACTS = "run"
"""The folder of the artifacts, which is a run folder: `tfvae recommend` takes a download of it."""

Follow = Callable[[Sequence[Mapping[str, float]]], None]


class _Place(Strict):
    """The content of `mlflow.json`."""

    format: Literal["tfvae mlflow run"] = "tfvae mlflow run"
    run_id: str


def refuse_no_mlflow() -> None:
    """Refuses to go on where MLflow is not installed, or where its tracking server does not answer.

    Raises:
        InputError: If so.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("MLflow is not installed; install it: pip install 'tfvae[mlflow]', or leave --log mlflow out.")
    import mlflow

    with _told("list its experiments"):
        mlflow.MlflowClient().search_experiments(max_results=1)


@contextmanager
def in_mlflow(folder: Path | str, log: Callable[[str], None] = print) -> Iterator[Follow]:
    """Logs what is trained within it to MLflow.

    The MLflow run is kept in the run folder (`mlflow.json`). A resumed run goes on in the same MLflow run, and no epoch
    is logged twice. One that was trained before is logged as well, unless it has been. If MLflow fails while the model
    is trained, that is said and training goes on; what is missing is logged later.

    Parameters are the settings, and metrics the entries of the history by epoch, in whose names "@" is "_at_", since
    MLflow has no "@" in names. Tags say the data's digest, and the version and commit of tfvae. Artifacts are the files
    of the finished run but for its split; the members of an ensemble and a pilot run are not logged.

    Example:
        >>> import tfvae
        >>> from tfvae.training.mlflow_log import in_mlflow
        >>> def train_and_log(settings, split, folder):
        ...     with in_mlflow(folder) as follow:
        ...         return tfvae.train(settings, split, folder, follow=follow)

    Args:
        folder: The run folder.
        log: Called with one line at a time.

    Yields:
        A function to be called with the history so far, which logs the epochs that are not logged yet.

    Raises:
        InputError: If MLflow cannot be used at the beginning or at the end, or the MLflow run of the folder is unknown.
    """
    logged = _MLflowRun(RunFolder(folder), log)
    try:
        yield logged.follow
    except BaseException:
        logged.fail()
        raise
    logged.finish()


class _MLflowRun:
    """The MLflow run of a run folder; it is made, or opened again, when there is something to log."""

    def __init__(self, run: RunFolder, log: Callable[[str], None]):
        self._run, self._log = run, log
        self._file = run.path / MLFLOW_FILE
        self._id = ""
        self._is_whole = False
        self._next_epoch = 0

    def follow(self, history: Sequence[Mapping[str, float]]) -> None:
        """Logs the epochs that are not logged yet; a failure of MLflow is only told."""
        self._open()
        try:
            self._log_epochs(history)
        except InputError as problem:
            self._log(f"{problem} Training goes on; what is missing in MLflow is logged with a later epoch.")

    def finish(self) -> None:
        """Logs what is missing of the finished run, and its files.

        Raises:
            InputError: If MLflow fails.
        """
        import mlflow

        _, outcome = self._run.finished()
        self._open()
        if self._is_whole:
            self._log(f"The MLflow run {self._id} is whole already.")
            return
        self._log_epochs(outcome["history"])
        with _told(f"complete the run {self._id} (the run in {self._run.path} is whole)"):
            facts = {name: outcome[name] for name in ("best_epoch", "seconds", "selected_beta")}
            found = {name: float(value) for name, value in facts.items() if value is not None}
            mlflow.log_metrics({f"run_{name}": value for name, value in found.items()}, run_id=self._id)
            for file in (self._run.settings_file, self._run.items_file, self._run.model_file, self._run.run_file):
                mlflow.log_artifact(str(file), ARTIFACTS, run_id=self._id)
            mlflow.end_run("FINISHED")
        self._log(f"In MLflow: run {self._id} at {_place()}")

    def fail(self) -> None:
        """Ends the MLflow run as failed, if there is one; the same run goes on when training does."""
        import mlflow

        if self._id and not self._is_whole:
            with suppress(InputError), _told("end the run"):
                mlflow.end_run("FAILED")

    def _open(self) -> None:
        """Makes the MLflow run, or opens that of the folder; logs the parameters and tags."""
        import mlflow

        if self._id:
            return
        claim = self._run.claim()
        before = None
        if self._file.is_file():
            before = checked(_Place, read_json(self._file, "the MLflow run of a run folder"), self._file).run_id
            client = mlflow.MlflowClient()
            with _told(f"find the run {before}, which {self._file} names (remove this file to begin a new one)"):
                self._is_whole = client.get_run(before).info.status == "FINISHED"
                known = client.get_metric_history(before, "loss")
            self._next_epoch = 1 + max((metric.step for metric in known), default=-1)
        if not self._is_whole:
            tags = {"tfvae.data_digest": claim.data_digest, "tfvae.version": tfvae.__version__}
            tags |= {"tfvae.commit": found} if (found := commit()) else {}
            with _told("begin a run"):
                opened = mlflow.start_run(run_id=before, run_name=None if before else self._run.path.name)
                mlflow.set_tags(tags)
                mlflow.log_params({name: _plain(value) for name, value in claim.settings.items()})
            before = opened.info.run_id
        self._id = before or ""
        write_json(self._file, _Place(run_id=self._id).model_dump())

    def _log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Logs the epochs that are not logged yet; raises InputError if MLflow fails."""
        import mlflow

        for entry in history[self._next_epoch :]:
            metrics = {name.replace("@", "_at_"): value for name, value in entry.items() if name != "epoch"}
            with _told(f"log epoch {entry['epoch'] + 1}"):
                mlflow.log_metrics(metrics, step=int(entry["epoch"]), run_id=self._id)
            self._next_epoch += 1


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns an error of MLflow into an `InputError`."""
    import mlflow

    try:
        yield
    except (mlflow.MlflowException, OSError) as problem:
        reason = str(problem).replace(mlflow.get_tracking_uri(), _place()).rstrip(".")
        raise InputError(f"MLflow at {_place()} cannot {what}: {reason}. Is MLFLOW_TRACKING_URI right?") from problem


def _place() -> str:
    """Where MLflow keeps its runs, without the user name and password that an address may have."""
    import mlflow

    scheme, colon, rest = mlflow.get_tracking_uri().partition("://")
    return scheme + colon + rest.rpartition("@")[2]


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
