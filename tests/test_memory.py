"""The peak of the process's memory, which only Linux lets a process forget."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfvae.system.memory import forget_peak, keep_freed_buffers, peak_gb

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot forget its peak")


@linux
def test_the_peak_is_that_of_what_was_resident_since_it_was_forgotten():
    keep_freed_buffers()
    forget_peak()
    before = peak_gb()
    assert 0 < before < 500
    array = np.ones(50_000_000)
    assert peak_gb() == pytest.approx(before + array.nbytes / 1e9, abs=0.05)
    del array
    assert peak_gb() > before + 0.35
    forget_peak()
    assert peak_gb() == pytest.approx(before, abs=0.05)


def test_without_linux_the_peak_is_that_of_the_whole_process(monkeypatch):
    known = peak_gb()
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError))
    assert peak_gb() >= known * 0.99
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_gb() is None
