"""The plan of batches (every clip once an epoch, like lengths together), and the thread that reads ahead."""

from __future__ import annotations

import threading
import time

import pytest

from signstreams.errors import UserError
from signstreams.integrate.batches import BatchPlan, Loader


def test_every_clip_is_in_one_part_of_one_step_of_an_epoch() -> None:
    lengths = [5, 9, 30, 31, 8, 7, 6, 29, 28, 10, 4]
    plan = BatchPlan(lengths, batch_size=2, num_parts=2, seed=0)
    assert plan.steps_per_epoch == 3
    for epoch in range(3):
        steps = range(epoch * 3, epoch * 3 + 3)
        parts = [plan.rows(step, part) for step in steps for part in range(2)]
        assert sorted(row for rows in parts for row in rows) == list(range(11))
        assert all(len(rows) <= 2 for rows in parts)
    joint = [[*plan.rows(step, 0), *plan.rows(step, 1)] for step in range(3)]
    spreads = [max(lengths[row] for row in rows) - min(lengths[row] for row in rows) for rows in joint]
    assert sorted(spreads)[0] <= 3  # like lengths together


def test_a_part_without_clips_counts_for_nothing() -> None:
    plan = BatchPlan([5, 6, 7], batch_size=2, num_parts=4, seed=0)
    assert sorted(len(plan.rows(0, part)) for part in range(4)) == [0, 1, 1, 1]


def test_the_order_follows_the_seed_and_the_epoch_alone() -> None:
    lengths = list(range(40))
    plans = [BatchPlan(lengths, batch_size=4, num_parts=2, seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([plan.rows(step, 1) for step in range(10)] for plan in plans)
    assert first == again != other
    assert first[:5] != first[5:]  # two epochs
    assert plans[0].rows(2, 1) == first[2]  # back in the first one
    assert [plans[0].epoch(step) for step in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 2]


def test_the_next_step_is_read_while_the_current_one_is_in_use() -> None:
    read: list[int] = []
    is_read = {step: threading.Event() for step in range(3)}

    def read_step(step: int) -> list[None]:
        read.append(step)
        is_read[step].set()
        return [None] * (step + 1)

    with Loader(read_step) as loader:
        assert loader.get(0, is_last=False) == [None]
        assert is_read[1].wait(10)  # nobody asked yet
        assert loader.get(1, is_last=False) == [None] * 2
        assert loader.get(2, is_last=True) == [None] * 3
    assert read == [0, 1, 2]  # each once, and none after the last


def test_a_step_that_was_not_expected_is_read_all_the_same() -> None:
    with Loader(lambda step: [None] * step) as loader:
        assert [len(loader.get(step, is_last=False)) for step in (3, 7, 7, 1)] == [3, 7, 7, 1]


def test_an_error_of_the_reader_comes_up_where_its_step_is_asked_for() -> None:
    def read_step(step: int) -> list[None]:
        if step == 1:
            raise UserError("v.zip: frame 3 is no readable JPEG")
        return [None]

    with Loader(read_step) as loader:
        assert loader.get(0, is_last=False) == [None]
        with pytest.raises(UserError, match="frame 3"):
            loader.get(1, is_last=False)


def test_what_is_waited_for_is_counted() -> None:
    with Loader(lambda step: time.sleep(0.05) or [None]) as loader:
        loader.get(0, is_last=True)
        assert loader.waited_s >= 0.05
