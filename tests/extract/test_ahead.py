"""An iterator run ahead of its reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from signstreams.prefetch import ahead


def test_items_come_in_order_and_end() -> None:
    with ahead(range(100), 3) as items:
        assert list(items) == list(range(100))


def test_no_more_items_are_made_than_may_wait() -> None:
    made = []

    def items() -> Iterator[int]:
        for index in range(50):
            made.append(index)
            yield index

    with ahead(items(), 2) as read:
        assert next(read) == 0
        time.sleep(0.3)
        assert len(made) <= 5  # one read, two waiting, one in hand, one being made


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with ahead(items(), 2) as read:
        assert next(read) == 1
        with pytest.raises(OSError, match="gone"):
            next(read)


def test_leaving_early_stops_the_thread() -> None:
    before = threading.active_count()
    with ahead(iter(int, 1), 2) as read:  # endless zeros
        assert next(read) == 0
    assert threading.active_count() == before
