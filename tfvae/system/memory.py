"""The memory of this process: what is freed is kept for the next step, and its peak is measured."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import cache
from pathlib import Path

__all__ = ["forget_peak", "keep_freed_buffers", "peak_gb"]


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


def forget_peak() -> None:
    """Lets `peak_gb` start anew from what is resident now; without effect elsewhere than on Linux.

    What glibc keeps of earlier work (see `keep_freed_buffers`) is returned first. What TensorFlow's own allocator keeps
    of it, as it does with oneDNN, cannot be returned and stays part of the peak.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float | None:
    """Peak resident memory of this process in GB (10⁹ bytes), since `forget_peak` where that has an effect.

    Returns:
        The peak; None on Windows, which does not tell.
    """
    # Linux hands ru_maxrss on through exec: a child would report at least its parent's size. So this comes first.
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
