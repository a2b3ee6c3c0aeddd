"""Reading ahead of a consumer and writing behind a producer, each in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from signstreams.prefetch import prefetch, write_behind


def test_items_come_in_order_and_end() -> None:
    with prefetch(range(100), 3) as items:
        assert list(items) == list(range(100))


def test_no_more_items_are_made_than_may_wait() -> None:
    made = []

    def items() -> Iterator[int]:
        for index in range(50):
            made.append(index)
            yield index

    with prefetch(items(), 2) as read:
        assert next(read) == 0
        time.sleep(0.3)
        assert len(made) <= 5  # one read, two waiting, one in hand, one being made


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with prefetch(items(), 2) as read:
        assert next(read) == 1
        with pytest.raises(OSError, match="gone"):
            next(read)


def test_leaving_early_stops_the_thread() -> None:
    before = threading.active_count()
    with prefetch(iter(int, 1), 2) as read:  # endless zeros
        assert next(read) == 0
    assert threading.active_count() == before


def test_all_is_done_in_order_when_the_block_ends() -> None:
    done: list[int] = []
    with write_behind(done.append, 3) as put:
        for item in range(100):
            put(item)
    assert done == list(range(100))


def test_the_caller_waits_when_too_much_is_queued() -> None:
    go = threading.Event()
    with write_behind(lambda item: go.wait(5), 2) as put:
        for item in range(3):  # one in work, two waiting
            put(item)
        blocked = threading.Thread(target=put, args=(3,))
        blocked.start()
        blocked.join(0.3)
        assert blocked.is_alive()
        go.set()
        blocked.join(5)
        assert not blocked.is_alive()


def test_an_error_of_the_work_reaches_the_caller_and_ends_it() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise OSError("no space")
        done.append(item)

    with pytest.raises(OSError, match="no space"), write_behind(work, 2) as put:
        for item in range(1000):
            put(item)
            time.sleep(0.001)
    assert done == [0, 1]
    with pytest.raises(OSError, match="no space"), write_behind(work, 8) as put:
        put(2)  # heard of only on leaving
    assert threading.active_count() < 10


def test_after_an_error_in_the_block_what_waits_is_dropped() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> None:
        go.wait(5)
        done.append(item)

    with pytest.raises(RuntimeError, match="a bug"), write_behind(work, 8) as put:
        for item in range(5):
            put(item)
        threading.Timer(0.2, go.set).start()
        raise RuntimeError("a bug")
    assert len(done) <= 1
