"""The order in which crops are seen: a pure function of (seed, pass), spread so that near-duplicates do not meet.

Consecutive frames of a video are near-duplicates. Each video's frames are laid evenly over the pass, so that a batch
holds as few of one video as can be, and those it holds lie far apart in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from signstreams.engine.seeding import numpy_rng

GOLDEN_RATIO = (5**0.5 - 1) / 2


def pass_order(videos: Sequence[np.ndarray], seed: int, number: int) -> np.ndarray:
    """Indices of all crops in the order of one pass.

    Args:
        videos: For each video, the indices of its crops by rising frame.
        seed: Of the run.
        number: Of the pass, from 0.
    """
    rng = numpy_rng(seed, "order", number)
    places, indices = [], []
    for crops in videos:
        count = len(crops)
        # golden-ratio steps: any few consecutive picks are spread over the whole video
        picks = np.argsort((rng.random() + GOLDEN_RATIO * np.arange(count)) % 1.0, kind="stable")
        frames = np.empty(count, np.int64)
        frames[picks] = np.arange(count)  # rank of each pick's position among the frames
        indices.append(crops[frames])
        places.append((np.arange(count) + rng.random(count)) / count)
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(indices)[order]


def group_by_video(video_ids: Sequence[str]) -> list[np.ndarray]:
    """Indices of each video's entries, in their order."""
    _, inverse = np.unique(np.asarray(video_ids, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


class BatchPlan:
    """Which crops make up the batch of each step; knows the past and the future without state.

    Args:
        videos: As in `pass_order`.
        batch_size: Crops of a process.
        world_size: Processes; together they see the batch that one process with all of it would see.
        seed: Of the run.

    Raises:
        ValueError: When the crops do not fill one batch.
    """

    def __init__(self, videos: Sequence[np.ndarray], *, batch_size: int, world_size: int, seed: int) -> None:
        self.videos = videos
        self.batch_size, self.world_size, self.seed = batch_size, world_size, seed
        self.num_crops = sum(len(crops) for crops in videos)
        self.steps_per_pass = self.num_crops // (batch_size * world_size)
        if self.steps_per_pass == 0:
            raise ValueError(f"{self.num_crops} crops do not fill a batch of {batch_size * world_size}")

    def batches(self, rank: int, first_step: int, last_step: int) -> Iterator[list[tuple[int, int]]]:
        """(step, crop index) pairs of each step's batch of ``rank``, for first_step <= step < last_step.

        The crops that do not fill a last batch are left out of that pass; another pass leaves out others.
        """
        number, order = -1, np.empty(0, np.int64)
        for step in range(first_step, last_step):
            if step // self.steps_per_pass != number:
                number = step // self.steps_per_pass
                order = pass_order(self.videos, self.seed, number)
            start = (step % self.steps_per_pass) * self.batch_size * self.world_size + rank * self.batch_size
            yield [(step, int(index)) for index in order[start : start + self.batch_size]]
