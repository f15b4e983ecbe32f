"""Memory that is freed is kept for the next step."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_buffers"]


@cache
def keep_freed_buffers() -> None:
    """Tells glibc to keep freed memory for the next step instead of returning it to the system.

    A batch of logits is some 40 MB. By default every such buffer is mapped, zeroed page by page and unmapped
    again, which can cost more than the arithmetic on it; oneDNN's own allocator spares most of that already
    (`benchmarks/` has the ratio). The process then holds on to its peak. Elsewhere than on glibc this does nothing.
    """
    mmap_threshold, trim_threshold, never = -3, -1, 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(mmap_threshold, never)
    mallopt(trim_threshold, never)
