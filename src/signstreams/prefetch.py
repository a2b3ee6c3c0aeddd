"""Two threads around a slow step: one prefetches its input, one writes its output behind it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
_POLL_S = 0.1  # how often a thread with a full queue checks whether its reader has left


@contextmanager
def prefetch(items: Iterable[ItemT], depth: int) -> Iterator[Iterator[ItemT]]:
    """Iterate over ``items`` in a thread; the block reads them from an iterator.

    Up to ``depth`` items are ready and one more is in work. An exception of ``items`` is raised where the failing item
    would have come. Leaving the block, for whatever reason, ends the thread.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    is_left = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not is_left.is_set():
            with suppress(queue.Full):
                ready.put((kind, value), timeout=_POLL_S)
                return

    def run() -> None:
        try:
            for item in items:
                put("item", item)
                if is_left.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    def read() -> Iterator[ItemT]:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        is_left.set()
        thread.join()


@contextmanager
def write_behind(work: Callable[[ItemT], None], depth: int) -> Iterator[Callable[[ItemT], None]]:
    """Call ``work`` in a thread, in order, for each item that the block passes to the function it is given.

    Up to ``depth`` items wait; then the function blocks. Leaving the block waits until all is done. An exception of
    ``work`` is raised by the next call or on leaving; after it, or after one in the block, waiting items are dropped.
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

    thread = threading.Thread(target=run, name="write behind", daemon=True)
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
