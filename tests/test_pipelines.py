"""The programs for Beam and Spark: they rank as tfvae does, by what it has exported, and say what they do not know.

Their engines want environments of their own. The variables TFVAE_BEAM_PYTHON and TFVAE_SPARK_PYTHON name the Python of
one that has the engine; without them, what needs an engine is skipped.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from test_cli import COLUMNS, run

from tfvae.models.ease import EASE
from tfvae.serving.recommendations import recommend
from tfvae.serving.saved_model import export
from tfvae.training.settings import settings_of

ROOT = Path(__file__).parents[1]
PROGRAMS = {name: ROOT / "examples" / name / "recommend.py" for name in ("beam", "spark")}
SHARED = {"Ranked", "Exported", "_text", "arguments", "report"}
N_ITEMS = 40
NUMBERS = np.random.default_rng(1).permutation(1000)[:N_ITEMS] - 200  # in no order; some are negative
TEXTS = np.array([f"tt{number:04d}é" for number in range(N_ITEMS)])
TITLES = [f"Film {number} ✓" for number in range(N_ITEMS)]


class Counters(dict):
    """What Beam and Spark call counters: each is found by its name, and counts."""

    def __missing__(self, name: str) -> SimpleNamespace:
        counter = SimpleNamespace(value=0)
        counter.inc = counter.add = lambda count: setattr(counter, "value", counter.value + count)
        return self.setdefault(name, counter)

    def plain(self) -> dict[str, int]:
        return {name: counter.value for name, counter in self.items()}


def program(engine: str) -> ModuleType:
    """A program as a module; the engine need not be installed."""
    spec = importlib.util.spec_from_file_location(f"{engine}_recommend", PROGRAMS[engine])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def beam(monkeypatch) -> ModuleType:
    """Beam's program, with as little of Beam as its parts call, and `counted`."""

    class ModelHandler:
        def __class_getitem__(cls, kinds):
            return cls

        def __init__(self, **batching):
            self.batching = batching

    counted = Counters()
    metrics = SimpleNamespace(counter=lambda namespace, name: counted[name])
    handlers = {"ModelHandler": ModelHandler, "KeyedModelHandler": None, "RunInference": None}
    modules = {
        "apache_beam": {},
        "apache_beam.io": {},
        "apache_beam.io.filesystems": {"FileSystems": None},
        "apache_beam.metrics": {"Metrics": metrics, "MetricsFilter": None},
        "apache_beam.ml": {},
        "apache_beam.ml.inference": {},
        "apache_beam.ml.inference.base": handlers,
        "apache_beam.options": {},
        "apache_beam.options.pipeline_options": {"PipelineOptions": None},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    loaded = program("beam")
    loaded.counted = counted
    return loaded


def matrix_of(n_users: int, seed: int) -> csr_array:
    return csr_array((np.random.default_rng(seed).random((n_users, N_ITEMS)) < 0.2).astype(np.float32))


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> tuple[EASE, dict[str, Path]]:
    """A model, and its exports with numbers and with text as the items' ids, and titles."""
    folder = tmp_path_factory.mktemp("exports")
    model = settings_of("ease", {}).build(N_ITEMS, n_users=60)
    model.fit_matrix(matrix_of(60, seed=5), log=lambda line: None)
    for name, ids in (("numbers", NUMBERS), ("texts", TEXTS)):
        export(model, ids, folder / name, TITLES)
    return model, {name: folder / name for name in ("numbers", "texts")}


def test_what_both_programs_have_is_the_same():
    parts = [
        {node.name: ast.unparse(node) for node in ast.parse(file.read_text(encoding="utf-8")).body
         if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in SHARED}
        for file in PROGRAMS.values()
    ]  # fmt: skip
    assert set(parts[0]) == SHARED and parts[0] == parts[1]


@pytest.mark.parametrize("engine", PROGRAMS)
def test_a_program_needs_nothing_but_what_its_requirements_list(engine):
    tree = ast.parse(PROGRAMS[engine].read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = sys.stdlib_module_names | {"recommend"}
    others = {name.replace("_", "-") for name in {path.split(".")[0] for path in imported} - own}
    lines = PROGRAMS[engine].with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [re.fullmatch(r"([a-z-]+)==[\d.]+( #.*)?", line) for line in lines if not line.startswith("#")]
    assert {found[1].removesuffix("-cpu") for found in pinned} >= others


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ids"), [("numbers", NUMBERS), ("texts", TEXTS)])
def test_it_ranks_as_in_process(exports, name, ids):
    model, folders = exports
    matrix = matrix_of(9, seed=0)
    histories = [ids[matrix[[row]].indices[::-1]].tolist() for row in range(9)]
    expected = recommend(model, ids, [*histories, [], ids.tolist()[1:]], 7, TITLES)
    told = [[str(item) for item in histories[0]], histories[1] + histories[1][:1], [*histories[2], "bike", -1, -1]]
    exported = program("spark").Exported(str(folders[name]))
    found = exported.recommend([*told, *histories[3:], [], ids.tolist()[1:]], 7)
    filled = np.isfinite(expected.scores)
    np.testing.assert_array_equal(found.people, np.nonzero(filled)[0])
    np.testing.assert_array_equal(found.columns["rank"], np.nonzero(filled)[1] + 1)
    np.testing.assert_array_equal(found.columns["item"].astype(ids.dtype), expected.items[filled])
    np.testing.assert_array_equal(found.columns["title"].astype(str), expected.titles[filled])
    np.testing.assert_allclose(found.columns["score"], expected.scores[filled], rtol=1e-5)
    assert filled[-1].sum() == 1  # whoever has all items but one is left with one rank
    n_items = matrix.nnz + N_ITEMS - 1 + 2
    assert found.counts == {"people": 11, "items": n_items, "unknown": 2, "empty": 1}
    with pytest.raises(ValueError, match="an item's id is missing"):
        exported.recommend([[ids[0], None]], 7)


@pytest.mark.slow
def test_beam_gets_the_ranks_of_each_history_in_a_batch(exports, beam):
    folder = str(exports[1]["texts"])
    handler = beam.ExportedHandler(folder, 3, 20)
    assert handler.batching == {"min_batch_size": 20, "max_batch_size": 20}
    exported = handler.load_model()
    batch = [[TEXTS[0]], TEXTS.tolist(), [TEXTS[5], "bike"], TEXTS[2:].tolist()]
    ranks = handler.run_inference(batch, exported)
    assert [len(of_one) for of_one in ranks] == [3, 0, 3, 2]
    whole = exported.recommend(batch, 3).columns
    assert [row for of_one in ranks for row in of_one] == list(zip(*(c.tolist() for c in whole.values()), strict=True))
    assert beam.counted.plain() == {"people": 4, "items": 1 + 40 + 2 + 38, "unknown": 1, "empty": 0}
    rows = list(beam.rows_of(("ann", ranks[3]), ["user", "rank", "item", "score", "title"]))
    assert [(row["user"], row["rank"]) for row in rows] == [("ann", 1), ("ann", 2)]
    assert {row["item"]: row["title"] for row in rows} == dict(zip(TEXTS[:2], TITLES[:2], strict=True))


def test_beam_reads_events_and_lists_alike(beam):
    events = pa.table({"user": [7, 9, 7], "item": ["tea", "oil", "rye"]})
    lists = pa.table({"user": [7, 9, 7], "item": [["tea"], ["oil"], ["rye"]]})
    assert dict(beam.histories_of(events)) == dict(beam.histories_of(lists)) == {7: ["tea", "rye"], 9: ["oil"]}
    assert dict(beam.histories_of(pa.table({"user": [7], "item": [[]]}))) == {7: []}
    with pytest.raises(ValueError, match="a person's id is missing"):
        list(beam.histories_of(pa.table({"user": [7, None], "item": ["tea", "rye"]})))


@pytest.mark.slow
def test_spark_ranks_in_batches_for_the_people_of_a_task(exports):
    spark, counters = program("spark"), Counters()
    exported = spark.Exported(str(exports[1]["numbers"]))
    spark.loaded = lambda folder: exported  # threads are set once in a process, and here they are
    items = [NUMBERS[:3].astype(str), np.array([], object), np.array(["bike"], object)]
    frames = [
        pd.DataFrame({"user": ["a", "b", "c"], "items": items}),
        pd.DataFrame({"user": ["d"], "items": items[:1]}),
    ]
    found = pd.concat(spark.ranked_frames(iter(frames), "", 2, 2, counters))
    assert found["user"].tolist() == ["a", "a", "b", "b", "c", "c", "d", "d"] and found["rank"].tolist() == [1, 2] * 4
    of = {user: rows["item"].tolist() for user, rows in found.groupby("user")}
    assert of["a"] == of["d"] != of["b"] == of["c"]
    assert counters.plain() == {"people": 4, "items": 7, "unknown": 1, "empty": 2}
    nobody = pd.DataFrame({"user": ["a", None], "items": items[:2]})
    with pytest.raises(ValueError, match="a person's id is missing"):
        list(spark.ranked_frames(iter([nobody]), "", 2, 2, counters))


@pytest.mark.slow
def test_another_model_is_refused(tmp_path):
    spark = program("spark")
    with pytest.raises(SystemExit, match="found no SavedModel"):
        spark.Exported(str(tmp_path))
    rater = settings_of("autorec", {"units": 2}).build(N_ITEMS, n_users=9)
    export(rater, NUMBERS, tmp_path / "rater", scale=(1.0, 5.0))
    with pytest.raises(SystemExit, match="predicts ratings from ratings"):
        spark.Exported(str(tmp_path / "rater"))


def test_it_is_told_what_is_not_known(capsys):
    report = program("spark").report
    report({"people": 3, "items": 9, "unknown": 0, "empty": 0}, "top")
    assert capsys.readouterr().out == "Written: top, rankings for 3 people\n"
    report({"people": 3, "items": 9, "unknown": 4, "empty": 1}, "top")
    assert "left out: 4 of 9 items" in (told := capsys.readouterr().out) and "any known item: 1," in told
    with pytest.raises(SystemExit, match="None of the items"):
        report({"people": 3, "items": 9, "unknown": 9, "empty": 3}, "top")


def submitted(engine: str, *arguments: object, code: int = 0) -> str:
    """What a program prints that its engine runs."""
    python = os.environ.get(variable := f"TFVAE_{engine.upper()}_PYTHON")
    if not python:
        pytest.skip(f"{variable} names no Python with {engine}; see docs/clusters.md")
    command = [python, PROGRAMS[engine]]
    if engine == "spark":
        options = ["--master", "local[2]", "--conf", "spark.sql.shuffle.partitions=3"]
        command = [Path(python).with_name("spark-submit"), *options, PROGRAMS[engine]]
    env = os.environ | {"PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    env.pop("PYTHONPATH", None)  # no tfvae
    done = subprocess.run(
        [*map(str, command), *map(str, arguments)], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("engine", PROGRAMS)
def test_an_engine_writes_what_the_command_does(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    events = pd.DataFrame([(u, 100 + i) for u in range(60) for i in draw.choice(30, 8, False)], columns=["uid", "sku"])
    events.to_csv("log.csv", index=False)
    run("fit", "log.csv", *COLUMNS, "--model", "ease", "--run", "run")
    run("export", "run", "exported")
    new = pd.DataFrame({"uid": draw.integers(1000, 1300, 2000), "sku": 100 + draw.integers(0, 33, 2000)})  # 3 unknown
    new.to_parquet("new.parquet", row_group_size=300)
    told = run("recommend", "run", "--users", "new.parquet", *COLUMNS, "--out", "top.parquet", "-k", "9").stderr
    expected = pd.read_parquet("top.parquet")
    asked = ["--export", "exported", "--user-col", "uid", "--item-col", "sku", "-k", 9, "--batch-size", 50]

    printed = submitted(engine, *asked, "--histories", "new.parquet", "--out", "events")
    (unknown,) = re.findall(r"left out: ([\d,]+) of ([\d,]+) items", printed)
    assert unknown == re.findall(r"left out: ([\d,]+) of ([\d,]+) events", told)[0]
    # The same as lists: text, in two files, with half of each person's in each.
    halves = new.assign(sku=new.sku.astype(str)).groupby(new.index % 2)
    for half, rows in halves:
        rows.groupby("uid").sku.agg(list).reset_index().to_parquet(f"lists{half}.parquet")
    submitted(engine, *asked, "--histories", "lists0.parquet", "lists1.parquet", "--out", "lists")

    for folder in ("events", "lists"):
        found = pd.read_parquet(folder).sort_values(["user", "rank"], ignore_index=True)
        assert found.dtypes.to_dict() == expected.dtypes.to_dict() and list(found) == list(expected)
        exact = ["user", "rank", "item"]
        pd.testing.assert_frame_equal(found[exact], expected[exact])
        np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("engine", PROGRAMS)
def test_an_engine_refuses_what_it_cannot_rank_for(engine, exports, tmp_path):
    pd.DataFrame({"user": [1, 2], "item": [0.5, 2.0]}).to_parquet(tmp_path / "fractions.parquet")
    asked = [
        "--export",
        exports[1]["numbers"],
        "--histories",
        tmp_path / "fractions.parquet",
        "--out",
        tmp_path / "top",
    ]
    assert "expected whole numbers or text in the column 'item', found double" in submitted(engine, *asked, code=1)
    assert "no column 'sku'" in submitted(engine, *asked, "--item-col", "sku", code=1)
    assert not (tmp_path / "top").exists()
