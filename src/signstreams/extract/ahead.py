"""An iterator run ahead of its reader by a thread: decoding goes on while the detector computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

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
