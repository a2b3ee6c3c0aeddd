"""Processes side by side, and one that the system kills."""

from __future__ import annotations

import os
import signal
import time

import pytest

from signstreams.errors import UserError
from signstreams.workers import worker_processes


def test_work_is_done_in_other_processes() -> None:
    with worker_processes(1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(UserError, match=r"2 at once.*fewer --jobs"), worker_processes(2) as pool:
        pid = pool.submit(os.getpid).result()
        waiting = pool.submit(time.sleep, 60)
        os.kill(pid, signal.SIGKILL)
        waiting.result()


def test_what_has_not_begun_is_dropped() -> None:
    started_s = time.monotonic()
    with pytest.raises(KeyError), worker_processes(1) as pool:
        for _ in range(100):
            pool.submit(time.sleep, 1)
        raise KeyError
    assert time.monotonic() - started_s < 30
