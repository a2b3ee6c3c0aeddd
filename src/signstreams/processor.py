"""Settings of the process that libraries read when they are loaded, or never by themselves."""

from __future__ import annotations

import contextlib
import ctypes
import os

# mallopt's numbers in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT_BYTES = 2**31 - 1  # the largest that mallopt takes
MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def prepare_processor() -> None:
    """Let idle threads leave the cores alone, and keep memory that was freed; called before torch is loaded.

    By itself glibc gives every large tensor back to the system when it is freed, and the next one comes page by page,
    zeroed: a fifth to a third of the time of a training step on a CPU (benchmarks/mska.py). What the user's
    environment says of either holds.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name in os.environ for name in MALLOC_VARIABLES):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library: its own ways
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl and macOS have no such symbol
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
