"""House rules that a reader of one file cannot check: floors, cycles, forbidden words, sizes, import cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfvae"
MODULES = sorted(PACKAGE.rglob("*.py"))
OURS = [
    *MODULES,
    *sorted(ROOT.glob("tests/*.py")),
    *sorted(ROOT.glob("benchmarks/*.py")),
    *sorted(ROOT.glob("site_builder/*.py")),
]
# From the top to the foundation: a folder imports from itself and from those after it.
FOLDERS = ("cli", "experiments", "serving", "training", "evaluation", "models", "nn", "data", "system")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def folder_of(path: Path) -> str:
    """The folder of the package that a file lies in; "" for a file beside the folders."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else ""


def imports_of(path: Path, *, at_import: bool = False) -> set[str]:
    """The modules a file imports, by full name; only those outside functions with `at_import`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if at_import:
        lazy = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        inner = {id(child) for node in nodes if isinstance(node, lazy) for child in ast.walk(node)}
        checking = [node for node in nodes if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
        inner |= {id(child) for node in checking for child in ast.walk(node)}
        nodes = [node for node in nodes if id(node) not in inner]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def file_of(module: str) -> Path | None:
    """The file of a module of the package; None for a name inside one and for other packages."""
    place = ROOT.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path in MODULES), None)


def test_the_package_is_its_folders():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(FOLDERS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", [path for path in MODULES if folder_of(path)], ids=name_of)
def test_a_folder_imports_only_from_those_below(path):
    below = FOLDERS[FOLDERS.index(folder_of(path)) :]
    for module in imports_of(path):
        other = file_of(module)
        if other is not None and folder_of(other):
            assert folder_of(other) in below, f"{name_of(path)} imports {module}"


def test_contributing_lists_the_folders_in_their_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)/` \|", text, flags=re.MULTILINE)) == FOLDERS


def test_imports_have_no_cycle():
    graph = {}
    for path in MODULES:
        targets = {file_of(module) for module in imports_of(path, at_import=True)}
        graph[path] = targets - {None, path, PACKAGE / "__init__.py"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", [p for p in MODULES if folder_of(p) in ("", "data", "system")], ids=name_of)
def test_data_and_system_load_no_tensorflow(path):
    heavy = {module.split(".")[0] for module in imports_of(path, at_import=True)}
    assert not heavy & {"tensorflow", "keras", "tensorflow_probability"}


FORBIDDEN = {
    r"\.(toarray|todense)\(": "a dense copy of a sparse matrix",
    r"\btf\.keras\b": "the legacy Keras, or its alias",
    r"\b(import|from) tf_keras\b": "Keras 2",
    r"\btfp\.layers\b": "layers of Keras 2",
    r"\bcompat\.v1\b": "TensorFlow 1",
    r"\ballow_pickle=True\b": "pickled arrays run code when loaded",
    r"\b(import|from) (pickle|cPickle|joblib|dill)\b": "pickles run code when loaded",
    r"\b(TODO|FIXME|XXX)\b": "unfinished work",
    r"\bnp\.random\.(seed|rand|randn|randint|shuffle|permutation|choice)\(": "NumPy's global generator",
    r"\btf\.random\.(set_seed|normal|uniform)\(": "TensorFlow's global generator",
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_forbidden_words(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for pattern, reason in FORBIDDEN.items():
            assert not re.search(pattern, line), f"{name_of(path)}:{number}: {reason}: {line.strip()}"


@pytest.mark.parametrize(
    "line", ["x.toarray()", "tf.keras.Model", "import pickle", "np.load(f, allow_pickle=True)", "tf.compat.v1.x"]
)
def test_forbidden_words_are_found(line):
    assert any(re.search(pattern, line) for pattern in FORBIDDEN)


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_files_are_short_and_know_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert not re.search(r"[\"' =(]/(work|home|root|Users|farm)/", text)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_and_what_it_offers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if path.name in ("__init__.py", "__main__.py"):
        return
    names = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
             if isinstance(target, ast.Name)}  # fmt: skip
    assert "__all__" in names


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after some code."""
    report = "\nimport sys; print('LOADED', *sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return set(line.split()) & {"tensorflow", "keras", "tensorflow_probability", "tf_keras", "matplotlib", "optuna"}


@pytest.mark.parametrize(
    "code",
    [
        "import tfvae",
        "import tfvae.data.datasets, tfvae.data.vae_cf, tfvae.evaluation.metrics, tfvae.evaluation.stats",
        "import tfvae.training.settings, tfvae.models, tfvae.system.files, tfvae.system.environment",
        "from typer.testing import CliRunner\nfrom tfvae.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\nassert result.exit_code == 0, result",
    ],
    ids=["tfvae", "data", "settings", "tfvae --help"],
)
def test_loads_nothing_heavy(code):
    assert loaded_by(code) == set()


def test_what_is_heavy_would_be_seen():
    assert "keras" in loaded_by("import sys, types; sys.modules['keras'] = types.ModuleType('keras')")
