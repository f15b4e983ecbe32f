"""Lines of progress: the first after a minute, and then one a minute at most."""

from __future__ import annotations

from tfvae.system import progress
from tfvae.system.progress import OncePerMinute


def test_lines_are_passed_on_once_a_minute(monkeypatch):
    now, lines = [1000.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = OncePerMinute(lines.append)
    for second in (0, 59, 60, 61, 119, 121, 300, 301):
        now[0] = 1000.0 + second
        tell(f"{second} of 301 s")
    assert lines == ["60 of 301 s", "121 of 301 s", "300 of 301 s"]
    assert tell.seconds == 301
