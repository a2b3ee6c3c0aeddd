"""SIGTERM ends a run of the tests: the tests in all its processes, and every process that these have started.

Without this, pytest-xdist's workers go on for some time, and what their tests started lives on without them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import pytest

EXIT_CODE = 128 + signal.SIGTERM
GRACE_S = 10
"""Seconds until what has not ended by itself is killed."""
_PR_SET_PDEATHSIG = 1


def descendants(pid: int) -> list[int]:
    """Ids of all processes below ``pid``; none where there is no ``/proc``."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def install(config: pytest.Config) -> None:
    """Handle SIGTERM in this process, which is pytest or a worker of pytest-xdist."""
    owner, asked, is_worker = os.getpid(), False, hasattr(config, "workerinput")
    before = signal.getsignal(signal.SIGTERM)

    def kill_the_rest(pids: list[int]) -> None:
        time.sleep(GRACE_S)
        signal_all([*pids, *descendants(owner)], signal.SIGKILL)
        os._exit(EXIT_CODE)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:  # a process that was forked from this one
            signal.signal(number, before or signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if asked:
            return
        asked = True
        pids = descendants(owner)
        signal_all(pids, signal.SIGTERM)
        threading.Thread(target=kill_the_rest, args=(pids,), daemon=True).start()
        # pytest-xdist expects this code from a worker that was stopped, and takes any other for a bug
        pytest.exit("ended by SIGTERM", returncode=pytest.ExitCode.INTERRUPTED if is_worker else EXIT_CODE)

    signal.signal(signal.SIGTERM, stop)
    if is_worker and sys.platform == "linux":  # also when pytest itself was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
