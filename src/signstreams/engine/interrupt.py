"""Preemption: SIGTERM and SIGUSR1 ask a run to write a checkpoint and leave with a code that asks for another try."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

TRY_AGAIN_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h


class StopRequest:
    """Whether the run was asked to stop; read it between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGUSR1 in place of dying; the earlier handlers come back at the end."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number

    earlier = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
