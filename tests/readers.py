"""Every reader of files, with a whole file of its kind and what holds of whatever it reads.

`outcome_of` gives a reader a damaged file. It refuses it by an error of ours that names the file, or what it returns is
valid; anything else is a fault.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import slow_parsers
from item_readers import ITEM_READERS, check_attributes, described
from model_readers import MODEL_READERS
from mutations import Mutator, bytes_damaged, json_damaged, npz_damaged, parquet_damaged, toml_damaged
from reader import Fault, Reader
from stored_examples import CLAIM, OUTCOME, RUN, SWEEP, TABLE, WHOLE

from tfvae.data import formats, splits
from tfvae.data.interactions import Interactions
from tfvae.data.items import ITEMS_FILE, Items
from tfvae.data.sources import Place
from tfvae.data.splits import Split, load_split
from tfvae.data.synthetic import synthetic
from tfvae.data.user_lists import read_given_parts
from tfvae.data.vae_cf import read_vae_cf, write_vae_cf
from tfvae.experiments import records, results_folder
from tfvae.experiments.definitions import Table, load_table
from tfvae.system.errors import TfvaeError
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import stored_settings

__all__ = ["READERS", "Fault", "Reader", "outcome_of"]


def outcome_of(name: str, seed: int, folder: Path) -> Literal["read", "refused"]:
    """Reads one damaged file.

    Args:
        name: Of the reader.
        seed: Of the damage.
        folder: An empty folder, or one that this reader was given before.

    Raises:
        Fault: If it is neither refused by a clear error of ours nor read as something valid.
    """
    reader, rng = READERS[name], random.Random(f"{name} {seed}")
    whole = _whole_files(name, folder)
    victim = rng.choice(reader.damaged or tuple(whole))
    files = whole | {victim: reader.damage(whole[victim], rng)}
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        read = reader.read(folder)
    except TfvaeError as problem:
        if str(folder) not in str(problem):
            raise Fault(f"{name}, seed {seed}: the error does not name the file: {problem}") from problem
        return "refused"
    except Exception as problem:
        raise Fault(f"{name}, seed {seed}: {type(problem).__name__}: {str(problem)[:300]}") from problem
    try:
        reader.check(read, files)
    except Exception as problem:
        raise Fault(f"{name}, seed {seed}: accepted, but {type(problem).__name__}: {str(problem)[:300]}") from problem
    return "read"


_made: dict[str, dict[str, bytes]] = {}


def _whole_files(name: str, folder: Path) -> dict[str, bytes]:
    if name not in _made:
        _made[name] = READERS[name].files(folder)
    return _made[name]


# ---- what holds of what is read ---------------------------------------------------------------------


def check_interactions(found: Interactions) -> None:
    """Rows, columns, ratings and times are of one length, in range and finite; ids ascend."""
    n = found.n_events
    assert n and found.users.shape == found.items.shape == found.values.shape == (n,)
    assert (found.users.dtype, found.items.dtype, found.values.dtype) == (np.int32, np.int32, np.float32)
    for rows, ids in ((found.users, found.user_ids), (found.items, found.item_ids)):
        check_ids(ids)
        assert (np.unique(ids) == ids).all()
        assert 0 <= rows.min() <= rows.max() < len(ids)
    assert np.isfinite(found.values).all()
    assert found.timestamps is None or (found.timestamps.shape, found.timestamps.dtype) == ((n,), np.int64)
    if found.nanoseconds is not None:
        assert found.timestamps is not None and (found.nanoseconds.shape, found.nanoseconds.dtype) == ((n,), np.int32)
        assert 0 <= found.nanoseconds.min() <= found.nanoseconds.max() < 10**9
    assert found.titles is None or (found.titles.shape, found.titles.dtype.kind) == ((found.n_items,), "U")
    for features, size in ((found.user_features, found.n_users), (found.item_features, found.n_items)):
        assert all(array.shape == (size,) and array.dtype.kind in "iufUb" for array in features.values())
    assert len(found.digest) == 64


def check_ids(ids: np.ndarray) -> None:
    """Different whole numbers of 64 bits, or texts that can be written."""
    assert ids.ndim == 1 and ids.dtype.kind in "iuU"
    assert len(set(ids.tolist())) == len(ids)
    "".join(map(str, ids.tolist())).encode()


def check_split(split: Split) -> None:
    """All matrices are of the size that the ids say, in order and finite; nothing told is asked."""
    check_ids(split.user_ids)
    check_ids(split.item_ids)
    check_matrix(split.train, (len(split.user_ids), split.n_items))
    assert split.titles is None or (split.titles.shape, split.titles.dtype.kind) == ((split.n_items,), "U")
    for part in filter(None, (split.validation, split.test)):
        check_ids(part.user_ids)
        for matrix in (part.history, part.targets):
            check_matrix(matrix, (len(part.user_ids), split.n_items))
        if hasattr(part, "negatives"):
            assert part.items.dtype.kind in "iu" and part.negatives.dtype.kind in "iu" and part.negatives.size
        else:
            assert part.history.multiply(part.targets).nnz == 0
    for name, lines in getattr(split, "lines", {}).items():
        matrix = split.train if name == "train" else None
        assert sorted(lines.tolist()) == list(range(len(lines))), name
        assert matrix is None or len(lines) == matrix.nnz
    for features, size in ((split.user_features, len(split.user_ids)), (split.item_features, split.n_items)):
        assert all(array.shape == (size,) and array.dtype.kind in "iufUb" for array in features.values())
    check_attributes(split.attributes, split.n_items)
    assert split.digest and check_finite(dict(split.counts)) is None


def check_matrix(matrix: Any, shape: tuple[int, int]) -> None:
    """A CSR matrix of finite float32 with ascending columns in each row."""
    assert matrix.shape == shape and matrix.dtype == np.float32 and matrix.has_canonical_format
    rows = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    assert len(rows) == len(matrix.indices) == len(matrix.data) and np.isfinite(matrix.data).all()
    assert not len(rows) or 0 <= matrix.indices.min() <= matrix.indices.max() < shape[1]
    assert len(set(zip(rows.tolist(), matrix.indices.tolist(), strict=True))) == len(rows)


def check_items(items: Items) -> None:
    """As many titles and counts as ids, and a scale that ascends."""
    check_ids(items.item_ids)
    assert items.n_users.shape == (items.n_items,) and items.n_users.dtype.kind in "iu" and (items.n_users >= 0).all()
    assert items.titles is None or (items.titles.shape, items.titles.dtype.kind) == ((items.n_items,), "U")
    assert items.scale is None or (len(items.scale) == 2 and -math.inf < items.scale[0] <= items.scale[1] < math.inf)

    check_attributes(items.attributes, items.n_items)


def check_finite(value: Any) -> None:
    """No number that JSON does not have, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            check_finite(part)
    assert not isinstance(value, float) or math.isfinite(value)


def check_run(run: records.StoredRun) -> None:
    """It is the run of its file, and its figures are figures."""
    check_finite(run.model_dump())
    assert (run.table, run.dataset, run.slug, run.seed) == ("mine", "ml-1m", RUN["slug"], RUN["seed"])
    assert run.metrics and all({"mean", "se", "low", "high"} == set(summary) for summary in run.metrics.values())
    assert all(summary["se"] >= 0 for summary in run.metrics.values())
    assert min(run.users, run.users_without_targets, run.seconds, run.epochs, run.parameters) >= 0
    if run.lists is not None:
        assert set(RUN["lists"]) >= set(run.lists) >= set(RUN["lists"]) - {"similarity"}
        assert run.lists["k"] >= 1 and run.lists["k"] % 1 == 0 and run.lists["users_per_second"] > 0
        assert all(0 <= run.lists[name] <= 1 for name in ("coverage", "popularity", "similarity") if name in run.lists)
    if run.intervals is not None:
        assert set(run.intervals) in ({"crps"}, set(RUN["intervals"])) and min(run.intervals.values()) >= 0
        assert all(run.intervals.get(name, 0) <= 1 for name in ("within_50", "within_90"))


def check_sweep(sweep: records.Sweep) -> None:
    """Its trials are numbered, have a value or failed, and lie in the space."""
    check_finite(sweep.model_dump())
    for number, trial in enumerate(sweep.trials):
        assert trial.number == number and (trial.state == "complete") == (trial.value is not None)
        assert set(trial.params) == set(sweep.space)
    if sweep.trials:
        from tfvae.experiments.sweep import _next_params

        assert set(_next_params(sweep)) == set(sweep.space)


def check_table(table: Table) -> None:
    """Numbers are finite, seeds are seeds, rows have names of their own."""
    check_finite(table.model_dump())
    assert all(0 <= seed < 2**32 for seed in table.seeds)
    assert len({row.slug for row in table.rows}) == len(table.rows)


def check_claim(claim: Any) -> None:
    """Settings that are settings of today, and finite."""
    check_finite(claim.model_dump())
    assert len(claim.digest) == 64 and stored_settings(claim.settings)


def check_outcome(finished: tuple[Any, dict[str, Any]]) -> None:
    """A best epoch among those of the history."""
    outcome = finished[1]
    check_finite(outcome)
    assert outcome["seconds"] >= 0
    assert outcome["best_epoch"] is None or 0 <= outcome["best_epoch"] < len(outcome["history"])


def check_vectors(arrays: dict[str, np.ndarray] | None) -> None:
    """Named arrays of finite numbers, one for each user or point."""
    assert arrays is None or all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values())
    assert arrays is None or len({len(array) for array in arrays.values()} | {0}) <= 3


# ---- the readers ------------------------------------------------------------------------------------


def _file(name: str, content: str | bytes, encoding: str = "utf-8") -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {name: content if isinstance(content, bytes) else content.encode(encoding)}


def _saved(name: str, save: Callable[[Path], Any]) -> Callable[[Path], dict[str, bytes]]:
    def files(folder: Path) -> dict[str, bytes]:
        save(folder / name)
        return {name: (folder / name).read_bytes()}

    return files


def _raw(format_name: str, read: Callable[[Path], Any], encoding: str = "utf-8") -> Reader:
    """A named raw format, whose slow parser must agree on every file that is accepted."""

    def check(found: Any, files: Mapping[str, bytes]) -> None:
        slow_parsers.compare(format_name, found, files["raw"])

    return Reader(
        _file("raw", slow_parsers.EXAMPLES[format_name], encoding), bytes_damaged, lambda f: read(f / "raw"), check
    )


def _events() -> Interactions:
    return synthetic(40, 20, 400, n_tastes=2, taste=0.9)


def _own(name: str, content: bytes, damage: Mutator) -> Reader:
    def check(found: Interactions, files: Mapping[str, bytes]) -> None:
        check_interactions(found)
        slow_parsers.compare_own(found, files[name])

    def read(folder: Path) -> Interactions:
        return Interactions.from_file(folder / name, "user", "item", "rating", "time")

    return Reader(_file(name, content), damage, read, check)


def _parquet() -> bytes:
    return pd.read_csv(io.StringIO(slow_parsers.OWN)).to_parquet()


def _layout(folder: Path) -> dict[str, bytes]:
    split = splits.strong_generalization(_events(), splits.StrongGeneralizationSettings(held_out_users=8))
    write_vae_cf(split, folder / "layout")
    return {f"layout/{path.name}": path.read_bytes() for path in (folder / "layout").iterdir()}


def _check_layout(split: Any, files: Mapping[str, bytes]) -> None:
    check_split(split)
    slow_parsers.compare_layout(split, files)


def _split(cut: Callable[[], Split]) -> Reader:
    read = lambda folder: load_split(folder / "split.npz")  # noqa: E731
    return Reader(_saved("split.npz", lambda path: cut().save(path)), npz_damaged, read, lambda s, _: check_split(s))


def _record(name: str, content: Any, read: Callable[[Path], Any], check: Callable[[Any], None]) -> Reader:
    text = json.dumps(content)
    place = f"mine/ml-1m/{name}"
    return Reader(_file(place, text), json_damaged, lambda f: read(f), lambda found, _: check(found))


def _with_arrays(suffix: str, arrays: dict[str, np.ndarray], read: Callable[..., Any]) -> Reader:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    run = records.StoredRun(**RUN)
    name = f"mine/ml-1m/{run.slug}.seed{run.seed}{suffix}"
    return Reader(_file(name, buffer.getvalue()), npz_damaged, lambda f: read(run, f), lambda a, _: check_vectors(a))


def _run_folder(damaged: str, read: Callable[[RunFolder], Any], check: Callable[[Any], None]) -> Reader:
    texts = {"settings.json": json.dumps(CLAIM), "run.json": json.dumps(OUTCOME), **WHOLE}
    files = {f"run/{name}": text.encode() for name, text in texts.items()}
    return Reader(
        lambda folder: files,
        json_damaged,
        lambda folder: read(RunFolder(folder / "run")),
        lambda found, _: check(found),
        damaged=(f"run/{damaged}",),
    )


def _users() -> dict[str, np.ndarray]:
    return {name: np.full(RUN["users"], summary["mean"]) for name, summary in RUN["metrics"].items()}


READERS: dict[str, Reader] = {
    "double_colon": _raw("double_colon", formats.read_double_colon),
    "movielens_csv": _raw("movielens_csv", formats.read_movielens_csv),
    "tabbed": _raw("tabbed", formats.read_tabbed),
    "triplets": _raw("triplets", formats.read_triplets),
    "netflix": _raw("netflix", lambda path: formats.read_netflix([path])),
    "movies_dat": _raw("movies_dat", lambda path: formats.read_movies_dat(path, "utf-8")),
    "movies_csv": _raw("movies_csv", formats.read_movies_csv),
    "netflix_titles": _raw("netflix_titles", formats.read_netflix_titles, "latin-1"),
    "u_item": _raw("u_item", formats.read_u_item, "latin-1"),
    "users_dat": _raw("users_dat", formats.read_users_dat),
    "u_user": _raw("u_user", formats.read_u_user),
    "user_lists": _raw("user_lists", formats.read_user_lists),
    "ncf_negatives": _raw("ncf_negatives", formats.read_ncf_negatives),
    "given parts": Reader(
        lambda folder: {name: text.encode() for name, text in slow_parsers.PARTS.items()},
        bytes_damaged,
        lambda folder: read_given_parts(Place(folder)),
        slow_parsers.compare_parts,
    ),
    "own csv": _own("own.csv", slow_parsers.OWN.encode(), bytes_damaged),
    "own json lines": _own("own.jsonl", slow_parsers.own_json().encode(), bytes_damaged),
    "own parquet": _own("own.parquet", _parquet(), parquet_damaged),
    "vae_cf": Reader(_layout, bytes_damaged, lambda folder: read_vae_cf(folder / "layout"), _check_layout),
    "split of users": _split(
        lambda: splits.strong_generalization(_events(), splits.StrongGeneralizationSettings(held_out_users=8))
    ),
    "split of ratings": _split(lambda: splits.rating_holdout(_events(), splits.RatingHoldoutSettings(scale=(1, 5)))),
    "split of items": _split(lambda: splits.leave_one_out(_events(), splits.LeaveOneOutSettings(n_negatives=2))),
    "split of shares": _split(lambda: described(splits.weak_generalization(_events()))),
    "split of given shares": _split(
        lambda: splits.weak_generalization(e := _events(), None, e.items % 5 == 0, e.items % 5 == 1)
    ),
    "interactions": Reader(
        _saved("saved.npz", _events().save),
        npz_damaged,
        lambda folder: Interactions.load(folder / "saved.npz"),
        lambda found, _: check_interactions(found),
    ),
    "items": Reader(
        _saved(ITEMS_FILE, lambda path: Items.of(described(splits.rating_holdout(_events()))).save(path.parent)),
        npz_damaged,
        Items.load,
        lambda found, _: check_items(found),
    ),
    "settings.json": _run_folder("settings.json", RunFolder.claim, check_claim),
    "run.json": _run_folder("run.json", RunFolder.finished, check_outcome),
    "stored run": _record(
        f"{RUN['slug']}.seed{RUN['seed']}.json",
        RUN,
        lambda folder: results_folder.stored_run("mine", "ml-1m", RUN["slug"], RUN["seed"], folder),
        check_run,
    ),
    "stored sweep": _record(
        "multvae.sweep.json",
        SWEEP,
        lambda folder: results_folder.stored_sweep("mine", "ml-1m", "multvae", folder),
        check_sweep,
    ),
    "stored metrics": _with_arrays(".npz", _users(), results_folder.per_user_metrics),
    "stored latents": _with_arrays(
        ".latents.npz",
        {name: np.ones((5, 2), np.float16) for name in ("posterior", "prior")},
        results_folder.stored_latents,
    ),
    "table": Reader(
        _file("mine/table.toml", TABLE),
        toml_damaged,
        lambda folder: load_table("mine", folder),
        lambda table, _: check_table(table),
    ),
    **ITEM_READERS,
    **MODEL_READERS,
}
