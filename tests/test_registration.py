"""Keras loads a model of tfvae in a new process, in whichever order the two are imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfvae.models import MODELS, model_class
from tfvae.models.registration import _module_of
from tfvae.system.imports import after_import
from tfvae.training.settings import settings_of

ROOT = Path(__file__).parents[1]
NAMES = ("mult-vae", "evcf-mult-vae", "ease", "p-vae", "neumf")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        settings_of(name, model_class(name).example_settings).build(9, 12).save(folder / f"{name}.keras")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports", ["import keras, tfvae", pytest.param("import tfvae, keras", marks=pytest.mark.long)]
)
def test_keras_loads_a_model_after_import_tfvae(imports, saved):
    code = f"""
import sys
{imports}
assert not [name for name in sys.modules if name.startswith("tfvae.models.") and "registration" not in name]
for path in sys.argv[1:]:
    print(type(keras.models.load_model(path)).__name__)
"""
    paths = [str(saved / f"{name}.keras") for name in NAMES]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [model_class(name).__name__ for name in NAMES]


def test_every_model_is_found_by_the_name_of_its_class():
    for name in MODELS:
        assert _module_of(model_class(name).__name__) == model_class(name).__module__
    assert _module_of("NoSuchModel") is None


def test_the_registry_of_keras_is_as_before_for_other_names():
    import keras

    objects = keras.saving.get_custom_objects()
    assert "tfvae>NoSuchModel" not in objects and "other>MultVAE" not in objects and 3 not in objects
    assert "tfvae>MultVAE" in objects and np.iterable(objects)


def test_an_action_runs_once_when_its_module_is_imported_and_no_finder_stays(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders, seen = list(sys.meta_path), []
    after_import("late_module", lambda module: seen.append(module.value))
    importlib.import_module("json")
    assert not seen and len(sys.meta_path) == len(finders) + 1
    module = importlib.import_module("late_module")
    assert seen == [3] and sys.meta_path == finders
    after_import("late_module", seen.append)
    assert seen == [3, module]


def test_an_action_waits_if_the_import_fails(tmp_path, monkeypatch):
    source = tmp_path / "broken_module.py"
    source.write_text("raise OSError('not yet')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seen = []
    after_import("broken_module", seen.append)
    with pytest.raises(OSError, match="not yet"):
        importlib.import_module("broken_module")
    source.write_text("value = 4\n")
    importlib.invalidate_caches()
    assert importlib.import_module("broken_module") is seen[0]
