"""Keras loads a model of tfvae in a new process, in whichever order the two are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfvae.models import MODELS, model_class
from tfvae.models.registration import _module_of
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
@pytest.mark.parametrize("imports", ["import keras, tfvae", "import tfvae, keras"])
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
