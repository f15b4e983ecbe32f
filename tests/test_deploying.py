"""TensorFlow Serving: the page's own requests against an export's signatures, and the folders of versions."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from rating_rows import random_ratings
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.cli.display import how_to_start_serving
from tfvae.serving.export_folder import next_version
from tfvae.serving.recommendations import recommend
from tfvae.serving.saved_model import export
from tfvae.system.errors import InputError
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "deploying.md").read_text(encoding="utf-8")
REQUESTS = re.findall(r"curl http://localhost:8501/v1/models/(\w+):predict -d '(.*?)'\n", PAGE, flags=re.DOTALL)
N_ITEMS, SCALE = 120, (1.0, 5.0)
FILMS = np.array([318, 527, 296, 593, 858, *range(1000, 1000 + N_ITEMS - 5)])
IDS = {"ratings": FILMS, "shop": np.array([f"sku-{number}" for number in range(N_ITEMS)]), "stars": FILMS}
KINDS = {tf.int64: int, tf.int32: int, tf.float32: (int, float), tf.string: str, tf.bool: bool}


@pytest.fixture(scope="module")
def models():
    """A model of each name in the page's requests."""
    linear = settings_of("ease", {}).build(N_ITEMS)
    linear.item_weights.assign(np.random.default_rng(0).normal(size=(N_ITEMS, N_ITEMS)))
    of_ratings = settings_of("bias-mf", {"factors": 2}).build(N_ITEMS)
    of_ratings.fit_matrix(random_ratings(40, N_ITEMS), log=[].append)
    return {"ratings": linear, "shop": linear, "stars": of_ratings}


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """What TensorFlow Serving would load of each."""
    folder = tmp_path_factory.mktemp("exports")
    for name, model in models.items():
        export(model, IDS[name], folder / name / "1", scale=SCALE if model.predicts_ratings else None)
    return {name: tf.saved_model.load(folder / name / "1").signatures for name in models}


def tensor_of(value, spec):
    """A JSON value as TensorFlow Serving reads it for an input: by the type and the rank of the signature."""
    values = np.array(value, dtype=object)
    for one in values.ravel():
        assert isinstance(one, KINDS[spec.dtype]) and (spec.dtype == tf.bool or not isinstance(one, bool)), one
    found = tf.constant(value, spec.dtype)
    assert spec.shape.is_compatible_with(found.shape)
    return found


def predicted(signatures, body):
    """The answer of TensorFlow Serving's REST interface to a body, as its documentation has it."""
    assert set(body) <= {"signature_name", "inputs", "instances"} and ("inputs" in body) != ("instances" in body)
    signature = signatures[body.get("signature_name", "serving_default")]
    specs = signature.structured_input_signature[1]
    by_row = "instances" in body
    inputs = body["inputs"] if "inputs" in body else body["instances"]
    if by_row:  # every input has the users as its first axis
        assert all(spec.shape.rank for spec in specs.values())
        inputs = {name: [instance[name] for instance in inputs] for name in specs}
    assert set(inputs) == set(specs)
    found = {name: tensor.numpy() for name, tensor in signature(
        **{name: tensor_of(inputs[name], spec) for name, spec in specs.items()}
    ).items()}  # fmt: skip
    if by_row:
        assert len({len(array) for array in found.values()}) == 1
    return found


def test_the_page_has_a_request_of_each_kind():
    bodies = [json.loads(body) for _, body in REQUESTS]
    assert [name for name, _ in REQUESTS] == ["ratings", "ratings", "shop", "stars"]
    assert {"inputs", "instances"} == {key for body in bodies for key in body} - {"signature_name"}


@pytest.mark.parametrize(("name", "body"), REQUESTS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(REQUESTS)])
def test_a_request_of_the_page_is_answered(models, served, name, body):
    body = json.loads(body)
    found = predicted(served[name], body)
    rows = body["inputs"] if "inputs" in body else {"history": [row["history"] for row in body["instances"]]}
    k, given = rows.get("k", 100), {}
    if models[name].predicts_ratings:
        given = {"ratings": [[rating for rating in row if rating] for row in rows["ratings"]], "scale": SCALE}
    histories = [[item for item in row if item not in (-1, "")] for row in rows["history"]]
    expected = recommend(models[name], IDS[name], histories, k, **given)
    items = np.char.decode(found["items"].astype(bytes)) if name == "shop" else found["items"]
    np.testing.assert_array_equal(items, expected.items)
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=1e-5)
    assert found["unknown"].tolist() == [0] * len(histories)


def test_a_body_of_other_types_would_not_pass(served):
    for inputs in ({"history": [["318"]], "k": 10}, {"history": [[318.5]], "k": 10}, {"history": [[318]], "k": [10]}):
        with pytest.raises(AssertionError):
            predicted(served["ratings"], {"signature_name": "recommend", "inputs": inputs})
    with pytest.raises(AssertionError):  # k has no users
        predicted(served["ratings"], {"signature_name": "recommend", "instances": [{"history": [318], "k": 10}]})


def test_the_page_lists_the_signatures_and_their_inputs(served):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE[: PAGE.index("### REST")], flags=re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", inputs)) for name, inputs in rows}
    assert listed == {name: set(s.structured_input_signature[1]) for name, s in served["ratings"].items()}


def test_the_grpc_program_of_the_page(served, models, monkeypatch):
    (program,) = re.findall(r"```python\n(import grpc.*?)```", PAGE, flags=re.DOTALL)

    class PredictRequest:
        def __init__(self):
            self.model_spec, self.inputs = SimpleNamespace(), defaultdict(tf.make_tensor_proto(0).__class__)

    class PredictionServiceStub:
        def __init__(self, channel):
            assert channel == "localhost:8500"

        def Predict(self, request, timeout):
            signature = served[request.model_spec.name][request.model_spec.signature_name]
            inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
            for name, spec in signature.structured_input_signature[1].items():
                assert inputs[name].dtype == spec.dtype and spec.shape.is_compatible_with(inputs[name].shape)
            outputs = {name: tf.make_tensor_proto(tensor) for name, tensor in signature(**inputs).items()}
            return SimpleNamespace(outputs=outputs)

    apis = ModuleType("tensorflow_serving.apis")
    apis.predict_pb2 = SimpleNamespace(PredictRequest=PredictRequest)
    apis.prediction_service_pb2_grpc = SimpleNamespace(PredictionServiceStub=PredictionServiceStub)
    modules = {"tensorflow_serving": ModuleType("tensorflow_serving"), "tensorflow_serving.apis": apis}
    modules["grpc"] = ModuleType("grpc")
    modules["grpc"].insecure_channel = str
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    names: dict = {}
    exec(program, names)
    np.testing.assert_array_equal(names["items"], recommend(models["ratings"], FILMS, [[318, 527]], 10).items)
    assert names["scores"].dtype == np.float32


def test_the_command_writes_the_next_version_and_names_the_command_of_the_page(tiny_split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(settings_of("popularity", {}), tiny_split, "run", log=[].append)
    (tmp_path / "exports/ratings/007").mkdir(parents=True)
    (tmp_path / "exports/ratings/notes").write_text("mine")
    outputs = []
    for version in ("8", "9"):
        done = CliRunner().invoke(app, ["export", "run", "exports/ratings", "--versioned"])
        assert done.exit_code == 0, done.output
        assert done.output.startswith(f"Written: exports/ratings/{version}.")
        assert "serving_default" in tf.saved_model.load(f"exports/ratings/{version}").signatures
        outputs.append(done.output.splitlines()[-1].strip())
    assert sorted(path.name for path in (tmp_path / "exports/ratings").iterdir()) == ["007", "8", "9", "notes"]
    (of_page,) = re.findall(r"^docker run .*$", PAGE, flags=re.MULTILINE)
    assert {shlex.join(shlex.split(line)) for line in outputs} == {
        shlex.join(shlex.split(of_page.replace("$PWD", str(tmp_path))))
    }
    refused = CliRunner().invoke(app, ["export", "run", "exports/ratings"])
    assert refused.exit_code == 2 and "not an exported model of tfvae" in refused.stderr
    refused = CliRunner().invoke(app, ["export", "run", "exports/ratings/9", "--versioned"])
    assert refused.exit_code == 2 and "is itself a file or an exported model" in refused.stderr


def test_two_processes_do_not_take_one_version(tmp_path):
    with next_version(tmp_path / "films") as first:
        assert first == tmp_path / "films" / "1"
        with pytest.raises(InputError, match="in use by another process"), next_version(tmp_path / "films"):
            pass
    assert not (tmp_path / "films").exists()  # nothing was written
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(InputError, match="itself a file"), next_version(tmp_path / "letter"):
        pass
    assert (tmp_path / "letter").read_text() == "dear"


def test_the_serving_command_is_quoted():
    command = shlex.split(how_to_start_serving(Path("/data/my models")))
    assert "/data/my models:/models/my models" in command and "MODEL_NAME=my models" in command
