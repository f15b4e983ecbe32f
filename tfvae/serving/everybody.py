"""Recommendations for everybody: histories in, a file of rankings out, however many people there are.

People are ranked for in parts of some thousands. Each part is a file of item numbers and scores in the folder
`<out>.parts`, which also has a mark that says what is ranked. At the end the parts become the one file, with ids and
titles, and the folder is removed. A run that was interrupted keeps its parts, and the same call goes on with those that
are missing, to the same bytes. Memory is taken by the histories, one batch of scores and one part, never by all
rankings.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from tfvae.data.histories import Histories, id_array
from tfvae.data.items import Items
from tfvae.evaluation.scoring import history_store
from tfvae.serving.ranker import Ranker, diverged_refused
from tfvae.serving.ranking_files import ranking_table, refuse_output, writing
from tfvae.serving.recommendations import DEFAULT_K, USERS_AT_ONCE, rules_for
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_json, read_npz, reading, replacing, write_json, write_npz
from tfvae.system.locks import held
from tfvae.system.memory import keep_freed_buffers
from tfvae.system.validation import Strict, checked

if TYPE_CHECKING:
    from tfvae.data.splits import Split
    from tfvae.models.base import Recommender

__all__ = ["Written", "recommend_to_all"]

USERS_A_PART = 5_000
MOST_RANKS_A_PART = 2**20
MARK = "mark.json"
PART = re.compile(r"part-\d{6,}\.npz")
DRAFT = re.compile(r"\.(mark\.json|part-\d{6,}\.npz)\.\w+-\d+-\w+")

Part = dict[str, np.ndarray]


class Written(NamedTuple):
    """What `recommend_to_all` has written.

    Attributes:
        path: The file.
        n_users: Number of people who were ranked for.
        n_rows: Number of rows in the file, one for each item that is recommended to a person.
        n_without: Number of people who have no row, since no item is left that may be recommended to them.
    """

    path: Path
    n_users: int
    n_rows: int
    n_without: int


class _Mark(Strict):
    """The content of `mark.json`: what the parts in its folder are of."""

    format: Literal["tfvae ranking"] = "tfvae ranking"
    version: Literal[2] = 2
    model: str
    items: str
    histories: str
    rules: str
    k: int
    batch_size: int


def recommend_to_all(
    model: Recommender,
    items: Items | Split,
    histories: Histories,
    out: Path | str,
    k: int = DEFAULT_K,
    rules: Rules | None = None,
    *,
    batch_size: int = USERS_AT_ONCE,
    progress: bool = True,
) -> Written:
    """Recommends to many people items that they do not have, and writes the rankings to a file.

    The file has the columns that `tfvae.serving.ranking_files` lists, one row for each item recommended to a person,
    person by person in the order of the histories, the best item first. Whoever has fewer than `k` items left gets
    fewer rows. Its name says the format: `.parquet`, `.csv` or `.jsonl`. It is written in one step, and replaces a
    ranking that is there.

    An interrupted call leaves the folder `<out>.parts` behind; the same call goes on from it, and removes it in the
    end.

    Example:
        >>> import numpy as np, pandas as pd, tempfile, tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.data.items import Items
        >>> from tfvae.models.popularity import Popularity
        >>> model = Popularity(3)
        >>> model.fit_matrix(csr_array([[1, 1, 0], [1, 0, 0], [1, 1, 1]]), log=lambda line: None)
        >>> items = Items(np.array(["tea", "rye", "oil"]), None, None, np.array([3, 2, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pd.DataFrame({"user": [7, 9], "item": ["tea", "oil"]}).to_csv(f"{folder}/new.csv", index=False)
        ...     people = tfvae.Histories.from_file(f"{folder}/new.csv", items)
        ...     written = tfvae.recommend_to_all(model, items, people, f"{folder}/top.csv", k=1, progress=False)
        ...     print(written.path.read_text())
        "user","rank","item","score"
        7,1,"rye",2
        9,1,"tea",3
        <BLANKLINE>

    Args:
        model: Any recommender; one that only scores its training users takes `Histories.of_training`.
        items: The items of the model with their ids and titles: the split on which it was trained, or the items that
            lie beside a finished run.
        histories: The people and what they have.
        out: The file to write.
        k: Length of the rankings.
        rules: What may be recommended; None allows all items. If diversity is asked for without vectors, `items` must
            be a split, and items are alike that the same training users have.
        batch_size: People scored at once; a larger number needs more memory.
        progress: Whether to show a progress bar with the time left.

    Returns:
        What was written.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If `k` or `batch_size` is less than 1; if the file has an unknown ending or is there and no ranking;
            if the model only scores its training users, and these are others; if the items are not those of the model
            or the rules do not suit them; if the folder of parts holds another ranking or other files, or another
            process holds it.
    """
    out = Path(out)
    for name, number in (("k", k), ("batch_size", batch_size)):
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1.")
    refuse_output(out)
    if not (model.scores_new_users or histories.of_training_users):
        raise InputError(
            f"{model.name} serves its training users only, and cannot answer for new histories; recommend to those "
            "(--all-users; in Python, Histories.of_training(split))."
        )
    if not histories.n_users:
        raise InputError("the histories are of nobody; expected those of at least one person.")
    k = min(int(k), model.n_items)
    rank = Ranker(model, items.item_ids, items.titles, histories.scale, _rules_for(items, rules))
    mark = _Mark(
        model=_model_digest(model),
        items=digest(items.item_ids, items.titles),
        histories=histories.digest,
        rules=rank.rules.digest(items.item_ids),
        k=k,
        batch_size=int(batch_size),
    )
    parts = _Parts(Path(f"{out}.parts"), histories.n_users, k, batch_size, model.n_items)
    parts.refuse_others(mark)
    with held(parts.folder):
        parts.refuse_others(mark)
        try:
            write_json(parts.folder / MARK, mark.model_dump())
            missing = [number for number in range(parts.count) if parts.read(number) is None]
            if missing:
                with diverged_refused(model.name):
                    _rank_missing(parts, missing, _ranked(model, rank, histories, k, batch_size), model.name, progress)
            written = _joined(parts, out, items, histories, progress)
            parts.remove()
            return written
        finally:
            parts.remove_mark_of_nothing()


def _model_digest(model: Recommender) -> str:
    """SHA-256 of the model's kind, settings and weights, in hexadecimal."""
    return digest(type(model).__name__, model.get_config(), *map(np.asarray, model.weights))


def _rules_for(items: Items | Split, rules: Rules | None) -> Rules:
    """The rules with what is known of the items."""
    if isinstance(items, Items):
        return (rules or Rules()).for_items(items.item_ids, items.n_users)
    return rules_for(items, rules)


class _Parts:
    """The folder of the parts of one ranking.

    Args:
        folder: The folder, which need not exist yet.
        n_users: Number of people.
        k: Length of the rankings.
        batch_size: People scored at once; a part has whole batches, so that it does not depend on the others.
        n_items: Number of items.
    """

    def __init__(self, folder: Path, n_users: int, k: int, batch_size: int, n_items: int):
        self.folder = folder
        self._n_users, self._k, self._n_items = n_users, k, n_items
        batches = max(1, min(USERS_A_PART, MOST_RANKS_A_PART // k) // batch_size)
        self._size = batches * batch_size
        self.count = -(-n_users // self._size)

    def users(self, number: int) -> range:
        """The rows of the people of a part."""
        return range(number * self._size, min((number + 1) * self._size, self._n_users))

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06}.npz"

    def read(self, number: int) -> Part | None:
        """A part; None if it is missing, or damaged, so that it has to be made again."""
        try:
            with reading(self.path(number), "a part of a ranking"):
                part = read_npz(self.path(number))
        except InputError:
            return None
        shape, kinds = (len(self.users(number)), self._k), {"items": np.int32, "scores": np.float32, "sd": np.float32}
        if not {"items", "scores"} <= part.keys() <= kinds.keys():
            return None
        if any(array.shape != shape or array.dtype != kinds[name] for name, array in part.items()):
            return None
        return part if -1 <= part["items"].min() <= part["items"].max() < self._n_items else None

    def refuse_others(self, mark: _Mark) -> None:
        """Refuses a folder that is neither new, empty but for hidden files, nor the beginning of this ranking."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise InputError(f"{self.folder}: expected a folder for parts, found a file or a link. Remove it.")
        there = sorted(path.name for path in self.folder.glob("*") if not path.name.startswith("."))
        others = [name for name in there if MARK not in there or not (name == MARK or PART.fullmatch(name))]
        if others:
            raise InputError(
                f"{self.folder} is not empty and not of an unfinished ranking: it holds {', '.join(others[:3])}. "
                "Nothing was touched; move it away, or give the ranking another name."
            )
        if MARK not in there:
            return
        found = checked(_Mark, read_json(self.folder / MARK, "the mark of a ranking"), self.folder / MARK)
        differing = [
            f"{name} is {getattr(found, name)} there, {getattr(mark, name)} here"
            for name in ("k", "batch_size")
            if getattr(found, name) != getattr(mark, name)
        ]
        whole = {"model": "the model is", "items": "the items are", "histories": "the histories are"}
        whole["rules"] = "the rules are"
        differing += [f"{what} other" for name, what in whole.items() if getattr(found, name) != getattr(mark, name)]
        if differing:
            raise InputError(
                f"{self.folder} holds the beginning of another ranking: {'; '.join(differing)}. Finish that one with "
                "its own command, or remove the folder."
            )

    def remove(self) -> None:
        """Removes the parts, and what killed processes had not finished writing; the folder must be held."""
        for path in self.folder.iterdir():
            if PART.fullmatch(path.name):
                path.unlink()
            elif DRAFT.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)

    def remove_mark_of_nothing(self) -> None:
        """Removes the mark if there are no parts, since then there is nothing to go on from."""
        if not any(PART.fullmatch(path.name) for path in self.folder.iterdir()):
            (self.folder / MARK).unlink(missing_ok=True)


def _ranked(model: Recommender, rank: Ranker, histories: Histories, k: int, batch_size: int) -> Callable[[range], Part]:
    """A function that ranks for some people, given by their rows; its graph is traced once, here."""
    keep_freed_buffers()
    ranked = rank.of_rows(history_store(model, histories.matrix), k, batch_size)
    return lambda users: ranked(np.asarray(users, np.int64))


def _rank_missing(
    parts: _Parts, missing: Sequence[int], ranked: Callable[[range], Part], name: str, progress: bool
) -> None:
    to_do = sum(len(parts.users(number)) for number in missing)
    total = sum(len(parts.users(number)) for number in range(parts.count))
    with _bar(name, total, total - to_do, progress) as bar:
        for number in missing:
            users = parts.users(number)
            write_npz(parts.path(number), ranked(users), compressed=False)
            bar.update(len(users))


def _joined(parts: _Parts, out: Path, items: Items | Split, histories: Histories, progress: bool) -> Written:
    """Writes the one file."""
    item_ids, users = id_array(items.item_ids), histories.user_ids
    titles = None if items.titles is None else pa.array(items.titles.tolist(), pa.string())
    n_rows = n_without = 0
    bar = _bar(f"writing {out.name}", histories.n_users, 0, progress)
    with replacing(out) as draft, bar, ExitStack() as opened:
        write = None
        for number in range(parts.count):
            part = parts.read(number)
            if part is None:
                raise InputError(f"{parts.path(number)} was changed from outside; give the same command again.")
            chosen = parts.users(number)
            table = ranking_table(users.slice(chosen.start, len(chosen)), item_ids, titles, part)
            if write is None:
                write = opened.enter_context(writing(draft, table.schema))
            write(table)
            n_rows += table.num_rows
            n_without += int((part["items"][:, 0] < 0).sum())
            bar.update(len(chosen))
    return Written(out, histories.n_users, n_rows, n_without)


def _bar(name: str, total: int, done: int, progress: bool) -> Any:
    """A progress bar of people, with the time left."""
    pause = 0.2 if sys.stderr.isatty() else 15.0  # seconds; a log file keeps every state of the bar
    return tqdm(desc=name, total=total, initial=done, unit=" users", mininterval=pause, disable=not progress)
