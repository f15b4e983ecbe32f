"""The service: its answers are those of the functions in Python, and what is not as it should be is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import COLUMNS, run

import tfvae
from tfvae.data.splits import load_split

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from tfvae.serving.http.app import create_app
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.loaded import Asked, LoadedRun
from tfvae.serving.http.versions import Models
from tfvae.serving.reranking import training_vectors
from tfvae.system.errors import DivergedError

pytestmark = pytest.mark.slow

LIMITS = Limits(max_history=20, max_k=35, max_body=2_000, batch=4, poll_seconds=60)
KINDS = ["odd|low", "even", ""]
HISTORY = ["i05", "i01", "i20", "i01"]
RATED = [{"item": "i05", "rating": 5}, {"item": "i01", "rating": 1}, {"item": "i20", "rating": 4.0}]


def write_ratings(file: Path) -> None:
    """Writes ratings of 12 of 30 items by each of 50 users, whose ids are texts."""
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(50):
        for item in draw.choice(30, 12, replace=False):
            lines.append(f"u{user},i{item:02},{np.clip(round(3 + draw.normal() + (-1) ** (user + item)), 1, 5)}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of three runs on 50 users with 12 of 30 items each, whose ids are texts: ease, p-vae and gmf."""
    folder = tmp_path_factory.mktemp("serve")
    write_ratings(folder / "ratings.csv")
    titled = [f"i{item:02},Títle {item},{KINDS[item % 3]}" for item in range(30)]
    (folder / "items.csv").write_text("\n".join(["item,title,kind", *titled]) + "\n", encoding="utf-8")
    rater = ["--rating-col", "stars", "--model", "p-vae", "--set", "latent_dim=3", "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit", "ratings.csv", *COLUMNS, "--model", "ease", "--items", "items.csv", "--run", "ease")
        run("fit", "ratings.csv", *COLUMNS, *rater, "--run", "p-vae")
        run("prepare", "ratings.csv", *COLUMNS, "--protocol", "leave-one-out", "--negatives", "9", "--out", "one.npz")
        run("fit", "one.npz", "--model", "gmf", "--set", "factors=2", "--epochs", "1", "--run", "gmf")
    return folder


@pytest.fixture(scope="module")
def models(folder) -> Models:
    return Models([folder / name for name in ("ease", "p-vae", "gmf")], LIMITS)


@pytest.fixture(scope="module")
def client(models):
    with TestClient(create_app(models)) as client:
        yield client


@pytest.fixture(scope="module")
def trained(folder):
    """By name, the model and its split."""
    return {name: (tfvae.load_run(folder / name).model, load_split(folder / name)) for name in ("ease", "p-vae", "gmf")}


def asked(client, path="recommend", status=200, **body):
    answer = client.post(f"/{path}", json={"model": "ease"} | body)
    assert answer.status_code == status, answer.text
    return answer.json()


def ids_of(answer):
    return [item["item"] for item in answer["items"]]


def expected(trained, history=HISTORY, k=10, **rules):
    model, split = trained["ease"]
    return tfvae.recommend(model, split.item_ids, [history], k, rules=tfvae.Rules(**rules))


def test_a_ranking_is_that_of_python(client, trained):
    answer = asked(client, history=HISTORY, k=7)
    wanted = expected(trained, k=7)
    assert ids_of(answer) == wanted.items[0].tolist()
    np.testing.assert_allclose([item["score"] for item in answer["items"]], wanted.scores[0], rtol=1e-5)
    assert [item["title"] for item in answer["items"]] == [f"Títle {int(item[1:])}" for item in ids_of(answer)]
    assert answer["unknown"] == {} and answer["n_unknown"] == 0 and "sd" not in answer["items"][0]
    assert len(asked(client, history=HISTORY, k=35)["items"]) == 27  # no more are left
    nobody = asked(client, history=[])
    assert len(nobody["items"]) == 10


def test_a_ranking_by_ratings_is_that_of_python(client, trained):
    model, split = trained["p-vae"]
    ids, ratings = ["i05", "i01", "i20"], [5, 1, 4]
    wanted = tfvae.recommend(model, split.item_ids, [ids], 6, ratings=[ratings], scale=split.scale)
    # Of an item that comes twice the last rating counts.
    answer = asked(client, model="p-vae", history=[{"item": "i01", "rating": 5}, *RATED], k=6)
    assert ids_of(answer) == wanted.items[0].tolist()
    for name, values in (("score", wanted.scores[0]), ("sd", wanted.sd[0])):
        np.testing.assert_allclose([item[name] for item in answer["items"]], values, rtol=1e-4)


def test_unknown_ids_are_counted_and_told(client, trained, models):
    answer = asked(client, history=["nil", *HISTORY, 7], only=["i02", "i03", "none"], without=["i09", "noone"])
    assert answer["unknown"] == {"history": ["nil", 7], "only": ["none"], "without": ["noone"]}
    assert answer["n_unknown"] == 4 and set(ids_of(answer)) == {"i02", "i03"}
    assert models.metrics.registry.get_sample_value("tfvae_unknown_ids_total", {"model": "ease"}) >= 4
    assert ids_of(asked(client, history=["nil"])) == ids_of(asked(client, history=[]))


@pytest.mark.parametrize(
    "rules",
    [
        {"only": ["i02", "i05", "i09"]},
        {"without": ["i12", "i10"]},
        {"again": True},
        {"min_users": 20},
        {"at_most": 1},
        {"diversity": 0.6},
        {"at_most": 2, "diversity": 0.3, "again": True, "without": ["i11"], "min_users": 15},
    ],
    ids=str,
)
def test_rules_do_what_they_do_in_python(rules, client, trained):
    split = trained["ease"][1]
    body = {("min_users_per_item" if name == "min_users" else name): value for name, value in rules.items()}
    more = {}
    if "at_most" in rules:
        body["categories"] = "kind"
        more["categories"] = [KINDS[int(item[1:]) % 3].split("|") for item in split.item_ids]
    if "diversity" in rules:
        more["vectors"] = training_vectors(split.train)
    if "min_users" in rules:
        more["n_users"] = np.bincount(split.train.indices, minlength=split.n_items)
    wanted = expected(trained, k=30, **rules, **more).items[0]
    found = ids_of(asked(client, history=HISTORY, k=30, **body))
    assert found == [item for item in wanted.tolist() if item]
    assert found != ids_of(asked(client, history=HISTORY, k=30))


def test_reasons_are_those_of_python(client, trained):
    for name, history, ratings in (("ease", HISTORY, None), ("p-vae", ["i05", "i01", "i20"], [5, 1, 4])):
        model, split = trained[name]
        told = history if ratings is None else RATED
        answer = asked(client, model=name, history=told, k=12, because=2)
        found = [
            [(reason["item"], pytest.approx(reason["effect"], rel=1e-3)) for reason in item["because"]]
            for item in answer["items"]
        ]
        wanted = tfvae.reasons(model, split.item_ids, history, ids_of(answer), 2, ratings)
        assert found == [[tuple(reason) for reason in of_item] for of_item in wanted]
        assert any(found)
    assert asked(client, history=[], because=1, k=1)["items"][0]["because"] == []


@pytest.mark.parametrize("name", ["ease", "p-vae", "gmf"])
def test_a_training_user_is_served_by_their_id(name, client, trained):
    model, split = trained[name]
    for user in split.user_ids[:3].tolist():
        wanted = tfvae.recommend_to_users(model, split, [user], 5)
        assert ids_of(asked(client, model=name, user=user, k=5)) == wanted.items[0].tolist()


def test_a_batch_answers_each_by_their_own_rules(folder):
    loaded = LoadedRun(folder / "ease")
    places, allowed = np.array([1, 4, 9], np.int32), np.arange(30) % 2 == 0
    plain = Asked(places, k=30)
    people = [
        plain,
        replace(plain, again=True, k=4),
        replace(plain, allowed=allowed),
        Asked(np.array([2], np.int32), k=1),
    ]
    together = loaded.rank(people)
    for person, ranked in zip(people, together, strict=True):
        (alone,) = loaded.rank([person])
        assert ranked.places.tolist() == alone.places.tolist()
        np.testing.assert_allclose(ranked.scores, alone.scores, rtol=1e-5)
    assert [len(ranked.places) for ranked in together] == [27, 4, 14, 1]
    assert set(loaded.rank([replace(plain, again=True)])[0].places) == set(range(30))


def test_similar_items_are_those_of_python(client, trained):
    model, split = trained["ease"]
    wanted = tfvae.similar_items(model, split.item_ids, "i07", 4)
    answer = asked(client, "similar", item="i07", k=4)
    assert (answer["item"], answer["title"], answer["measure"]) == ("i07", "Títle 7", "weight")
    assert ids_of(answer) == wanted.items.tolist()
    assert client.get("/similar/i07?model=ease&k=4").json() == answer
    assert len(asked(client, "similar", item="i07", min_users_per_item=20, k=30)["items"]) < 29


def test_predicted_ratings_have_intervals(client, trained):
    model, split = trained["p-vae"]
    whole = tfvae.recommend(model, split.item_ids, [["i05", "i01", "i20"]], 27, ratings=[[5, 1, 4]], scale=split.scale)
    sds = dict(zip(whole.items[0].tolist(), whole.sd[0].tolist(), strict=True))
    ratings = dict(zip(whole.items[0].tolist(), whole.scores[0].tolist(), strict=True))
    answer = asked(client, "predict", model="p-vae", history=RATED, items=["i02", "gone", "i29"], level=0.5)
    assert [one["item"] for one in answer["ratings"]] == ["i02", "i29"] and answer["unknown"] == {"items": ["gone"]}
    for one in answer["ratings"]:
        assert one["rating"] == pytest.approx(ratings[one["item"]], rel=1e-4)
        assert one["sd"] == pytest.approx(sds[one["item"]], rel=1e-4)
        far = 0.67449 * one["sd"]  # the quartile of a standard normal distribution
        assert one["low"] == pytest.approx(max(1, one["rating"] - far), rel=1e-3)
        assert one["high"] == pytest.approx(min(5, one["rating"] + far), rel=1e-3)


def test_items_are_found_by_id_and_title(client, trained):
    found = client.get("/items?model=ease&search=tÍTLE 1&limit=35").json()["items"]
    assert {item["item"] for item in found} == {"i01", *(f"i{item}" for item in range(10, 20))}
    assert [item["users"] for item in found] == sorted((item["users"] for item in found), reverse=True)
    assert client.get("/items?model=ease&search=i07").json()["items"][0]["title"] == "Títle 7"
    assert client.get("/items?model=p-vae&search=I0&limit=3").json()["items"][2].keys() == {"item", "users"}
    assert client.get("/items?model=ease&search=zzz").json()["items"] == []
    assert len(client.get("/items?model=ease").json()["items"]) == 20


def test_models_say_what_they_take(client):
    assert client.get("/health").json() == {"status": "ok", "models": 3}
    states = {state["model"]: state for state in client.get("/models").json()["models"]}
    assert states["ease"]["categories"] == ["kind"] and states["ease"]["scale"] is None
    assert states["p-vae"]["has_intervals"] and states["p-vae"]["scale"] == [1, 5]
    assert {name: state["takes"] for name, state in states.items()} == {
        "ease": "history",
        "p-vae": "history",
        "gmf": "user",
    }
    assert all(state["problem"] is None for state in states.values())


def test_the_openapi_page_has_examples_that_are_valid(client):
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    assert {"/health", "/models", "/items", "/recommend", "/similar", "/predict"} <= set(schema["paths"])
    from tfvae.serving.http import bodies

    n_examples = 0
    for name, part in schema["components"]["schemas"].items():
        for example in part.get("examples", ()):
            getattr(bodies, name).model_validate(example)
            n_examples += 1
    assert n_examples >= 5


LONG = json.dumps({"model": "ease", "history": ["i01"] * 21})
BAD = [
    ("recommend", "[1", 400, "not_json", "line 1 column 3"),
    ("recommend", "[" * 1_900, 400, "not_json", "expected a JSON object"),
    ("recommend", b"\xff", 400, "not_json", "UTF-8"),
    ("recommend", '{"history": [], "history": []}', 400, "not_json", "the key 'history' comes twice"),
    ("recommend", '{"history": [{"item": 1, "rating": NaN}]}', 400, "not_json", "NaN is not a finite number"),
    ("recommend", '{"history": [{"item": 1, "rating": 1e999}]}', 400, "not_json", "not a finite number"),
    ("recommend", "", 422, "invalid_request", "expected, but not given"),
    ("recommend", "[]", 422, "invalid_request", ""),
    ("recommend", {}, 422, "invalid_request", 'either "history"'),
    ("recommend", {"history": [], "user": "u1"}, 422, "invalid_request", 'either "history"'),
    ("recommend", {"model": None, "history": []}, 422, "invalid_request", "one of the models, ease, p-vae, gmf"),
    ("recommend", {"model": "eese", "history": []}, 404, "unknown_model", "did you mean 'ease'?"),
    ("recommend", {"history": "i01"}, 422, "invalid_request", 'history: Input should be a valid list, found "i01"'),
    ("recommend", {"history": [1.5]}, 422, "invalid_request", "history.0: expected an item id"),
    ("recommend", {"history": [True]}, 422, "invalid_request", "history.0: expected an item id"),
    ("recommend", {"history": [["i01"]]}, 422, "invalid_request", "history.0: expected an item id"),
    ("recommend", {"history": ["\ud800"]}, 422, "invalid_request", "half of a surrogate"),
    (
        "recommend",
        {"history": ["i01"], "k": 0},
        422,
        "invalid_request",
        "k: Input should be greater than or",
    ),
    (
        "recommend",
        {"history": ["i01"], "k": "3"},
        422,
        "invalid_request",
        'valid integer, found "3"',
    ),
    ("recommend", {"history": ["i01"], "k": True}, 422, "invalid_request", "k: Input should be a valid integer"),
    ("recommend", {"history": ["i01"], "k": 36}, 422, "over_limit", "at most 35 items, found 36"),
    ("recommend", LONG, 422, "over_limit", "at most 20 items, found 21"),
    ("recommend", {"history": ["i01"] * 1_000}, 413, "body_too_large", "at most 2,000 bytes"),
    ("recommend", {"history": [], "kk": 1}, 422, "invalid_request", "unknown key 'kk'"),
    ("recommend", {"history": [], "only": []}, 422, "invalid_request", "only names no item"),
    ("recommend", {"history": [], "only": ["x"]}, 422, "invalid_request", "none of the 1 ids is an item"),
    ("recommend", {"history": [], "only": ["i1", "i2"], "without": ["i2"]}, 422, "invalid_request", "in only and in"),
    ("recommend", {"history": [], "min_users_per_item": 99}, 422, "invalid_request", "leave no item"),
    ("recommend", {"history": [], "at_most": 2}, 422, "invalid_request", '"at_most" and "categories" together'),
    ("recommend", {"history": [], "at_most": 2, "categories": "x"}, 422, "invalid_request", "it has kind"),
    ("recommend", {"history": [], "diversity": 2}, 422, "invalid_request", "diversity: Input should be less than"),
    ("recommend", {"history": ["i01=5"], "user": None, "again": 1}, 422, "invalid_request", "again: Input should be"),
    ("recommend", {"history": RATED}, 422, "invalid_request", "not by ratings; give 'i05' without one"),
    ("recommend", {"user": "u99"}, 422, "invalid_request", "u99 is none of the 40 training users"),
    ("recommend", {"model": "p-vae", "history": ["i01"]}, 422, "invalid_request", "predicts ratings from ratings"),
    ("recommend", {"model": "p-vae", "history": [{"item": "i01"}]}, 422, "invalid_request", "rating: expected, but"),
    ("recommend", {"model": "p-vae", "history": [{"item": "x", "rating": 6}]}, 422, "invalid_request", "found 6 for"),
    ("recommend", {"model": "gmf", "history": []}, 422, "invalid_request", "serves its training users only"),
    ("recommend", {"model": "gmf", "user": "u1", "because": 1}, 422, "invalid_request", "cannot say why"),
    ("similar", {"item": "x"}, 404, "unknown_item", "'x' is none of the 30 items of ease"),
    ("similar", {"item": "i01", "k": 36}, 422, "over_limit", "at most 35"),
    ("similar", {"item": "i01", "min_users_per_item": 99}, 422, "invalid_request", "no item has 99"),
    ("predict", {"history": [], "items": ["i01"]}, 422, "invalid_request", "ease ranks, and predicts no ratings"),
    ("predict", {"model": "p-vae", "history": [], "items": []}, 422, "invalid_request", "items: List should have"),
    ("predict", {"model": "p-vae", "history": [], "items": ["i01"], "level": 1}, 422, "invalid_request", "level: "),
    ("nothing", {}, 404, "not_found", "there is nothing at /nothing"),
    ("health", {}, 405, "method_not_allowed", "/health does not take POST, only GET"),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "message"), BAD)
def test_a_bad_request_is_refused_with_what_was_expected(path, body, status, code, message, client):
    content = json.dumps({"model": "ease"} | body) if isinstance(body, dict) else body
    answer = client.post(f"/{path}", content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert message in error["message"] and "Traceback" not in answer.text


def test_addresses_and_content_types_are_checked_too(client):
    for address, message in (
        ("/items?serch=x", "did you mean 'search'?"),
        ("/items?limit=0", "limit: Input should be greater"),
        ("/items?limit=36", "at most 35"),
        ("/similar/i01?model=ease&k=x", "k: Input should be a valid integer"),
    ):
        answer = client.get(address + ("" if "model" in address else "&model=ease"))
        assert answer.status_code == 422 and message in answer.json()["error"]["message"]
    assert client.get("/similar/x/y?model=ease").status_code == 404
    plain = client.post("/recommend", content="{}", headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415 and "Content-Type: application/json" in plain.json()["error"]["message"]
    parts = client.post("/recommend", content=iter([b"[" * 1_500] * 2), headers={"Content-Type": "application/json"})
    assert parts.status_code == 413  # though no length was announced


def test_an_error_that_nobody_foresaw_shows_no_traceback(client, models, monkeypatch, caplog):
    for error, code in ((RuntimeError("secret"), "internal_error"), (DivergedError("NaN"), "diverged")):

        def fail(asked, error=error):
            raise error

        monkeypatch.setattr(models.get("ease").current.batcher, "_answer", fail)
        answer = client.post("/recommend", json={"model": "ease", "history": []})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, code)
        assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_metrics_count_requests_by_route_model_and_status(client):
    for _ in range(3):
        client.post("/recommend", json={"model": "p-vae", "history": RATED})
    client.post("/recommend", json={"model": "no such model", "history": []})
    text = client.get("/metrics").text
    assert 'tfvae_requests_total{model="p-vae",route="/recommend",status="200"}' in text
    assert 'tfvae_requests_total{model="",route="/recommend",status="404"}' in text
    assert 'tfvae_batch_rows_count{model="p-vae"}' in text and "no such model" not in text
    assert text.count("tfvae_model{") == 3 and 'tfvae_pending{model="ease"} 0.0' in text
