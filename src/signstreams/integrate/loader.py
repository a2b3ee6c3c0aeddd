"""Batches of each step, the next ones read by a thread while the current ones are in use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from signstreams.engine.seeding import numpy_rng
from signstreams.integrate.batches import Batch, bucketed


class BatchPlan:
    """Which clips each step takes: clips of like length together, every clip once an epoch.

    The joint batch of a step is dealt to its parts (processes times passes before a step) in turn by length, so that
    all have about as many frames; the last batch of an epoch may be smaller, and a part of it empty.

    Args:
        lengths: Frames of each clip.
        batch_size: Clips of one part.
        num_parts: Parts of a step.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, num_parts: int, seed: int) -> None:
        self._lengths, self._joint, self._num_parts, self._seed = lengths, batch_size * num_parts, num_parts, seed
        self.steps_per_epoch = math.ceil(len(lengths) / self._joint)
        self._epoch, self._batches = -1, [[0]]

    def epoch(self, step: int) -> int:
        """Epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def rows(self, step: int, part: int) -> list[int]:
        """Clips of one part of a step."""
        epoch = self.epoch(step)
        if epoch != self._epoch:
            self._batches = bucketed(self._lengths, self._joint, numpy_rng(self._seed, "epoch", epoch))
            self._epoch = epoch
        return self._batches[step % self.steps_per_epoch][part :: self._num_parts]


class Loader:
    """Reads ahead by one step.

    Args:
        read: Step to its batches; None stands for a part without clips.
    """

    def __init__(self, read: Callable[[int], list[Batch | None]]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._next: tuple[int, Future[list[Batch | None]]] | None = None
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int, *, is_last: bool) -> list[Batch | None]:
        """Batches of a step; adds to ``waited_s`` what they were waited for."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._pool.submit(self._read, step))
        started_s = time.perf_counter()
        batches = self._next[1].result()
        self.waited_s += time.perf_counter() - started_s
        self._next = None if is_last else (step + 1, self._pool.submit(self._read, step + 1))
        return batches
