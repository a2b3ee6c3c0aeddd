"""Processes that work side by side; one that is killed is a line for the user, not a traceback."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from signstreams.errors import UserError


@contextlib.contextmanager
def worker_processes(count: int, *, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of ``count`` processes; what has not begun is dropped when the block is left early.

    They are spawned: the threads of OpenCV, PyAV and MediaPipe do not survive a fork.

    Raises:
        UserError: When the system killed one.
    """
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=initializer)
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            f"a worker process was killed, perhaps for want of memory ({count} at once); run again with fewer --jobs:"
            " what is done stays as it is"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
