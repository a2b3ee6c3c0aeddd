"""Signals that ask a run to save and stop: preemption and hang-up, to be tried again; Ctrl-C, which is final."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from signstreams.errors import INTERRUPTED_EXIT_CODE

TRY_AGAIN_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Whether the run was asked to stop; read it between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """Exit code of the run: after Ctrl-C nobody wants it to be started again."""
        return INTERRUPTED_EXIT_CODE if self.signal == signal.SIGINT else TRY_AGAIN_EXIT_CODE


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGUSR1, SIGHUP and Ctrl-C instead of dying; the earlier handlers are restored at the end.

    A signal that was ignored at the start stays ignored. A second Ctrl-C is a `KeyboardInterrupt`, as usual.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if request.signal == signal.SIGINT:
                raise KeyboardInterrupt
            if os.environ.get("RANK", "0") == "0":  # not print: the signal may have come in the middle of one
                os.write(2, b"\nstopping as soon as this step is saved; Ctrl-C once more ends at once\n")
        request.signal = number

    # a job in the background of a shell ignores Ctrl-C, one under `nohup` SIGHUP
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, note) for number in handled}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
