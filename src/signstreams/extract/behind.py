"""Work handed to a thread that follows behind: crops are cut and encoded while the detector computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")


@contextmanager
def behind(work: Callable[[ItemT], None], depth: int) -> Iterator[Callable[[ItemT], None]]:
    """Give a function that queues an item for ``work``, which one thread does in order; up to ``depth`` items wait.

    Leaving the block well waits until all is done. An error of ``work`` is raised by the next call, or on leaving;
    after it, and after an error within the block, what waits is dropped.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    errors: list[BaseException] = []
    is_dropped = threading.Event()

    def run() -> None:
        while True:
            is_item, item = waiting.get()
            if not is_item:
                return
            if is_dropped.is_set():
                continue
            try:
                work(item)
            except BaseException as error:
                errors.append(error)
                is_dropped.set()

    def put(item: ItemT) -> None:
        if errors:
            raise errors[0]
        waiting.put((True, item))

    thread = threading.Thread(target=run, name="behind", daemon=True)
    thread.start()
    try:
        yield put
    except BaseException:
        is_dropped.set()
        raise
    finally:
        waiting.put((False, None))
        thread.join()
    if errors:
        raise errors[0]
