"""The memory of this process: freed memory is kept for the next step, and the peak is measured."""

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

    A batch of logits takes some 40 MB. By default every such buffer is mapped, zeroed page by page and unmapped again,
    which can take longer than the arithmetic on it. With oneDNN, TensorFlow's own allocator already avoids most of this
    (`benchmarks/README.md` compares both). The process then keeps the memory of its peak. Without glibc this does
    nothing.
    """
    mmap_threshold, trim_threshold, never = -3, -1, 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(mmap_threshold, never)
    mallopt(trim_threshold, never)


def forget_peak() -> None:
    """Resets the peak that `peak_gb` reports to the memory that is resident now; it has no effect outside Linux.

    Memory that glibc has kept (see `keep_freed_buffers`) is first returned to the system. Memory that TensorFlow's own
    allocator has kept, as it does with oneDNN, cannot be returned and remains part of the peak.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float | None:
    """Peak resident memory of this process in GB (10⁹ bytes), since `forget_peak` where that has an effect.

    Returns:
        The peak; None on Windows, where it is not measured.
    """
    # On Linux, ru_maxrss survives exec, so that a child would report at least its parent's size.
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
