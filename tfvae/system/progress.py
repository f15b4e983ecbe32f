"""Lines of progress from long computations, at most one a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["OncePerMinute"]

SECONDS_BETWEEN_LINES = 60


class OncePerMinute:
    """Passes lines of progress on to a log, at most one a minute, the first after one minute.

    Args:
        log: Called with each line that is passed on.
    """

    def __init__(self, log: Callable[[str], None]):
        self._log = log
        self._begun = self._logged = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds since this object was made."""
        return time.monotonic() - self._begun

    def __call__(self, line: str) -> None:
        """Passes the line on, or drops it in the first minute and in the minute after a line that was passed on."""
        now = time.monotonic()
        if now - self._logged >= SECONDS_BETWEEN_LINES:
            self._logged = now
            self._log(line)
