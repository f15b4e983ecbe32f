"""The examples in the package's docstrings give what they say they give."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import tfvae

PACKAGE = Path(tfvae.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    if example.examples
]


def test_there_are_examples_of_what_people_meet():
    shown = {example.values[0].name.rpartition(".")[2] for example in EXAMPLES}
    assert {"EASE", "SLIM", "WMF", "Popularity", "AutoRec", "PVAE", "VampPrior", "CompositePrior"} <= shown
    assert {"EmbeddingBag", "SetEncoder", "Sampler", "FusedAdam"} <= shown


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_gives_what_it_says(example, capsys):
    result = doctest.DocTestRunner().run(example)
    assert not result.failed, capsys.readouterr().out
