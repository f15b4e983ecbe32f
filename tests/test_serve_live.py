"""The service at work: batches, too many requests, new versions under load, and the process with its signals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_cli import run

import tfvae

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from tfvae.serving.http.app import create_app
from tfvae.serving.http.batching import Batcher
from tfvae.serving.http.errors import RequestError
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.server import _bound
from tfvae.serving.http.versions import Models
from tfvae.system.errors import InputError

pytestmark = pytest.mark.slow

ROWS = {"rows": 8, "window": 0.01, "queue": 100}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_split) -> tuple[Path, Path]:
    """The folders of two runs of EASE on the same split."""
    folder = tmp_path_factory.mktemp("runs")
    for name, regularization in (("first", 5.0), ("second", 500.0)):
        settings = tfvae.settings_of("ease", {"regularization": regularization})
        tfvae.train(settings, tiny_split, folder / name, log=lambda line: None)
    return folder / "first", folder / "second"


@pytest.fixture
def link(runs, tmp_path) -> Path:
    """A symbolic link to the first run, which is called shop."""
    lead_to(runs[0], tmp_path / "shop")
    return tmp_path / "shop"


def lead_to(target: Path, link: Path) -> None:
    """Makes the link lead elsewhere, in one step."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def post(client, **body):
    return client.post("/recommend", json={"history": [1, 2], "k": 3} | body)


def state(client) -> dict:
    return client.get("/models").json()["models"][0]


def wait_until(holds, seconds=60):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_questions_that_come_together_are_answered_together():
    batches = []

    def answer(questions):
        batches.append(list(questions))
        return [question * 10 for question in questions]

    async def ask_all():
        batcher = Batcher(answer, **ROWS)
        answers = await asyncio.gather(*(batcher.ask(number) for number in range(20)))
        with batcher.entered():
            alone = await batcher.alone(lambda number: -number, 5)
        await batcher.close()
        return answers, alone

    assert asyncio.run(ask_all()) == ([number * 10 for number in range(20)], -5)
    assert batches == [list(range(8)), list(range(8, 16)), [16, 17, 18, 19]]


def test_a_question_that_fails_fails_alone():
    def answer(questions):
        if 3 in questions:
            raise InputError("three")
        return [number + 1 for number in questions]

    async def ask_all():
        batcher = Batcher(answer, **ROWS)
        return await asyncio.gather(*(batcher.ask(number) for number in range(6)), return_exceptions=True)

    found = asyncio.run(ask_all())
    assert isinstance(found[3], InputError) and found[:3] + found[4:] == [1, 2, 3, 5, 6]


def test_what_is_pending_is_answered_before_a_batcher_closes():
    go = threading.Event()

    def answer(questions):
        go.wait(20)
        return questions

    async def scenario():
        batcher = Batcher(answer, **ROWS | {"queue": 2})

        async def request(number):
            with batcher.entered():
                first = await batcher.ask(number)
                return first, await batcher.alone(str, first)

        asked = [asyncio.create_task(request(number)) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as refused, batcher.entered():
            pass
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        assert not closing.done() and batcher.pending == 2
        go.set()
        await closing
        return await asyncio.gather(*asked), refused.value.status_code

    assert asyncio.run(scenario()) == ([(0, "0"), (1, "1")], 503)


def test_requests_are_batched_and_each_gets_its_own_answer(runs, tiny_split):
    models = Models([runs[0]], Limits(window_ms=50, batch=16))
    histories = [[number, (number * 7 + 1) % 40] for number in range(32)]
    model = tfvae.load_run(runs[0]).model
    wanted = tfvae.recommend(model, tiny_split.item_ids, histories, 5).items.tolist()
    with TestClient(create_app(models)) as client, ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(lambda history: post(client, history=history, k=5).json(), histories))
        batches = models.metrics.registry.get_sample_value("tfvae_batch_rows_count", {"model": "first"})
        rows = models.metrics.registry.get_sample_value("tfvae_batch_rows_sum", {"model": "first"})
    assert [[item["item"] for item in answer["items"]] for answer in answers] == wanted
    assert rows == 32 and batches < 32


def test_too_many_requests_get_503_and_when_to_ask_again(runs, monkeypatch):
    models = Models([runs[0]], Limits(queue=1))
    batcher, go = models.get(None).current.batcher, threading.Event()
    rank = batcher._answer
    monkeypatch.setattr(batcher, "_answer", lambda asked: go.wait(20) and rank(asked))
    with TestClient(create_app(models)) as client, ThreadPoolExecutor(1) as caller:
        first = caller.submit(post, client)
        wait_until(lambda: batcher.pending)
        refused = post(client)
        go.set()
        assert first.result().status_code == 200
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        assert post(client).status_code == 200


def test_a_new_version_takes_over_under_load_and_nothing_is_lost(runs, link):
    models = Models([link], Limits(poll_seconds=0.05, window_ms=1))
    done, answers = threading.Event(), []

    def hammer(number):
        while not done.is_set():
            answers.append(post(client, history=[number], because=1))

    with TestClient(create_app(models)) as client, ThreadPoolExecutor(4) as callers:
        asking = [callers.submit(hammer, number) for number in range(4)]
        seen, first = [state(client)["version"]], weakref.ref(models.get("shop").current.run)
        for target in (runs[1], runs[0]):
            lead_to(target, link)
            wait_until(lambda: state(client)["version"] != seen[-1])
            seen.append(state(client)["version"])
        wait_until(lambda: first() is None)  # its memory is free
        n_before = len(answers)
        wait_until(lambda: len(answers) > n_before + 20)
        done.set()
        for one in asking:
            one.result()
        text = client.get("/metrics").text
    assert seen[0] == seen[2] != seen[1]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["version"] for answer in answers} == set(seen)
    assert f'tfvae_model{{model="shop",version="{seen[0]}"}} 1.0' in text
    assert f'tfvae_model{{model="shop",version="{seen[1]}"}} 0.0' in text


def test_a_version_that_cannot_be_loaded_is_told_and_the_former_goes_on(runs, link, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(runs[1], broken)
    (broken / "model.keras").write_bytes(b"no model")
    models = Models([link], Limits(poll_seconds=0.05))
    with TestClient(create_app(models)) as client:
        first = state(client)["version"]
        for target, problem in ((broken, "model.keras"), (tmp_path / "nowhere", "holds no finished run")):
            lead_to(target, link)
            wait_until(lambda problem=problem: problem in (state(client)["problem"] or ""))
            assert str(tmp_path) not in state(client)["problem"]
            assert post(client).json()["version"] == first
        shutil.copy(runs[1] / "model.keras", broken)  # somebody puts the file right
        lead_to(broken, link)
        wait_until(lambda: state(client)["version"] != first)
        assert state(client)["problem"] is None and post(client).status_code == 200
        assert 'tfvae_load_failures_total{model="shop"} 2.0' in client.get("/metrics").text


def test_a_run_that_cannot_be_served_is_refused_at_the_start(runs, tmp_path, monkeypatch):
    assert "no finished run" in run("serve", str(tmp_path), "--port", "0", code=2).stderr
    (tmp_path / "first").symlink_to(runs[1])
    twice = run("serve", str(runs[0]), str(tmp_path / "first"), "--port", "0", code=2)
    assert "would both be called first" in twice.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in run("serve", str(runs[0]), "--port", port, code=2).stderr
    monkeypatch.setattr("tfvae.cli.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    told = run("serve", str(runs[0]), code=2).stderr
    assert "uvicorn is not installed" in told and "pip install 'tfvae[serve]'" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_the_process_serves_until_a_signal_and_answers_what_it_has_begun(number, runs):
    service = subprocess.Popen(
        [sys.executable, "-m", "tfvae", "serve", str(runs[0]), "--port", "0", "--window-ms", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        line = service.stdout.readline()
        assert line.startswith("Serving first (ease, "), service.stderr.read()
        address = line.split()[-1].removesuffix("/docs")
        assert address.startswith("http://127.0.0.1:")
        urllib.request.urlopen(f"{address}/health", timeout=60).close()  # on a busy machine it listens before it serves
        request = urllib.request.Request(
            f"{address}/recommend", json.dumps({"history": [1], "k": 3}).encode(), {"Content-Type": "application/json"}
        )
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(lambda: json.load(urllib.request.urlopen(request, timeout=60)))
            time.sleep(0.3)  # it is waiting for others to share its batch
            service.send_signal(number)
            assert len(answer.result()["items"]) == 3
        output, errors = service.communicate(timeout=60)
        assert service.returncode == 0 and "Traceback" not in errors
        assert output.endswith("Stopped; every request was answered.\n")
    finally:
        service.kill()
        service.wait()


def test_an_answer_is_sent_at_once_and_does_not_wait_for_an_acknowledgement():
    async def without_delay() -> int:
        found = asyncio.get_running_loop().create_future()

        def accepted(reader, writer):
            option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            found.set_result(option)

        with _bound("127.0.0.1", 0) as listener:
            server = await asyncio.start_server(accepted, sock=listener)
            _, writer = await asyncio.open_connection(*listener.getsockname())
            option = await found
            writer.close()
            server.close()
        return option

    assert asyncio.run(without_delay())
