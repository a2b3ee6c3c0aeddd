"""Threads that read ahead of a consumer, and threads that finish work behind a producer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

# An iterator run ahead of its reader by a thread: decoding goes on while the detector computes.

ItemT = TypeVar("ItemT")


@contextmanager
def ahead(items: Iterable[ItemT], depth: int) -> Iterator[Iterator[ItemT]]:
    """Give an iterator over ``items`` of which up to ``depth`` wait ready.

    An error of ``items`` is raised where the failing item would have come. Leaving the block stops the thread.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    is_left = threading.Event()

    def put(entry: tuple[str, Any]) -> None:
        while not is_left.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put(("item", item))
                if is_left.is_set():
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    def read() -> Iterator[ItemT]:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        is_left.set()
        thread.join()


# Work handed to a thread that follows behind: crops are cut and encoded while the detector computes.


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
