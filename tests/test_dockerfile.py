"""The Dockerfile, as far as it can be checked without building it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from test_cli import run

import tfvae

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with what follows its name."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def argument(name: str, within: str = "") -> str:
    """What follows the only instruction of a name; the only one with a text in it, if one is given."""
    (found,) = [rest for instruction, rest in instructions() if instruction == name and within in rest]
    return found


def copied() -> list[str]:
    return [source for name, rest in instructions() if name == "COPY" for source in shlex.split(rest)[:-1]]


def sent_to_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a file or folder of the root through; the last pattern that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            sent = line.startswith("!")
    return sent


def test_everything_that_is_copied_exists_and_is_sent_and_nothing_else_is():
    assert set(copied()) == {path.name for path in ROOT.iterdir() if sent_to_the_builder(path.name)}
    needed = re.findall(r'^readme = "(.+)"|^license-files = \["(\w+)"', PROJECT, flags=re.MULTILINE)
    assert {name for pair in needed for name in pair if name} == {"README.md", "LICENSE"}
    assert {"pyproject.toml", "README.md", "LICENSE", "tfvae"} <= set(copied())


def test_the_base_is_a_supported_python_of_a_stated_version():
    name, _, tag = argument("FROM").partition(":")
    assert name == "python" and "slim" in tag
    version = re.match(r"\d+\.\d+\.\d+(?=-)", tag)
    (supported,) = re.findall(r'^requires-python = "(.+)"', PROJECT, flags=re.MULTILINE)
    assert version and version[0] in SpecifierSet(supported)


def test_what_is_installed_is_what_requirements_pin():
    (install,) = [command.split() for command in argument("RUN", "pip").split("&&") if "pip install" in command]
    assert install[install.index("--constraint") + 1] == "requirements.txt" and install[-1] == "'.[serve]'"
    pins = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pinned = {name.lower().replace("_", "-") for name in pins}
    (own,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PROJECT, flags=re.DOTALL | re.MULTILINE)
    (serve,) = re.findall(r"^serve = \[\n(.*?)^\]", PROJECT, flags=re.DOTALL | re.MULTILINE)
    needed = set(re.findall(r'^ +"([\w-]+)', own + serve, flags=re.MULTILINE))
    assert len(needed) > 20 and needed <= pinned


def test_it_runs_as_a_user_who_is_not_root():
    user = argument("USER")
    assert int(user) > 0 and f"--uid {user} " in argument("RUN", "useradd")
    names = [name for name, _ in instructions()]
    assert (
        max(place for place, name in enumerate(names) if name == "RUN")
        < names.index("USER")
        < names.index("ENTRYPOINT")
    )


def test_its_command_is_one_that_tfvae_takes():
    command = [*json.loads(argument("ENTRYPOINT")), *json.loads(argument("CMD"))]
    assert command[0] == "tfvae" and f'\ntfvae = "{tfvae.__name__}.cli.app:main"' in PROJECT
    assert "/runs/current holds no finished run" in run(*command[1:], "--port", "0", code=2).stderr
    assert argument("EXPOSE") == "8000"


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_its_health_check_asks_the_service(status, healthy):
    asked = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    options, _, command = argument("HEALTHCHECK").partition("CMD ")
    name, *arguments = json.loads(command)
    assert name == "python" and "--start-period" in options
    with HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.handle_request).start()
        there = [text.replace("127.0.0.1:8000", f"127.0.0.1:{service.server_port}") for text in arguments]
        assert there != arguments
        done = subprocess.run([sys.executable, *there], capture_output=True, timeout=60)
    assert (done.returncode == 0) is healthy and asked == ["/health"]
