"""The order of the crops in a pass: a pure function of (seed, pass) that keeps near-duplicates out of one batch.

Consecutive frames of a video are near-duplicates. Each video's frames are spread evenly over the pass, so that a batch
holds as few frames of a video as possible, and those far apart in time. Where two still come closer than the least gap,
one of them changes places with a crop of another batch. Rare signers, and crops that look like few others, may be drawn
more often than once per pass, and the others less often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from signstreams.array_types import Flags, Floats, Ints
from signstreams.engine.seeding import numpy_rng

GOLDEN_RATIO = (5**0.5 - 1) / 2
USUAL_GAP_FRAMES = 10  # gap aimed at where none is set: .4 s at 25 frames per second
MAX_ROUNDS, MAX_CANDIDATES = 4, 256
MAX_TIMES_OF_CLUSTER = 4
"""Draws per pass for each crop of a cluster, at most on average: the smallest clusters are seldom rare handshapes, and
more often a crop that shows something else, and what is drawn more often than a pass has batches meets itself."""


@dataclass(frozen=True)
class CropGroups:
    """What the order depends on, of N crops of V videos."""

    video: Ints  # (N,) number of each crop's video, below V
    frame: Ints  # (N,) frame of each crop
    order: Ints  # (N,) crops by video and frame
    starts: Ints  # (V,) place in ``order`` where each video begins
    counts: Ints  # (V,) number of crops of each video
    signer: Ints  # (V,) number of each video's signer
    cluster: Ints | None = None  # (N,) number of each crop's cluster of crops that look alike, where they are balanced

    @classmethod
    def of(cls, video: Ints, frame: Ints, signer: Ints | None = None, cluster: Ints | None = None) -> CropGroups:
        """Groups of N crops; ``video`` (N,) counts from 0, ``signer`` (N,) holds any numbers (None: one per video)."""
        key = video.astype(np.int64) << 32 | frame
        order = np.arange(len(key)) if (np.diff(key) >= 0).all() else np.argsort(key, kind="stable")
        is_first = np.diff(video[order], prepend=-1) != 0
        starts = np.flatnonzero(is_first)
        number = np.empty(len(order), np.int64)
        number[order] = np.cumsum(is_first) - 1
        counts = np.diff(starts, append=len(order))
        signer_of_video = np.arange(len(starts)) if signer is None else signer[order[starts]]
        return cls(number, frame, order, starts, counts, signer_of_video, cluster)

    @property
    def num_videos(self) -> int:
        return len(self.counts)


def pass_order(groups: CropGroups, seed: int, number: int, balance: float = 0.0, cluster_balance: float = 0.0) -> Ints:
    """Crops in the order of pass ``number``, as many as there are.

    ``balance`` 0: each crop once. 1: each signer equally often, so that crops of rare signers are seen several times
    and those of frequent ones in some passes only. In between: a signer's share is (its crops) ** (1 - balance).
    ``cluster_balance``: the same of clusters, each with the crops that the signers' balance leaves to it. A pass has
    the draws of each cluster exactly, up to one.
    """
    rng = numpy_rng(seed, "order", number)
    drawn = None  # places in `CropGroups.order`, by video and frame, as often as each is drawn
    if cluster_balance and groups.cluster is not None:
        times = _times_drawn(groups, groups.cluster, balance, cluster_balance, rng)
        drawn, quotas = np.repeat(np.arange(len(times)), times), np.add.reduceat(times, groups.starts)
    else:
        quotas = _quotas(groups, balance, rng)
    total = int(quotas.sum())
    video = np.repeat(np.arange(len(quotas)), quotas)
    step = np.arange(total) - np.repeat(np.cumsum(quotas) - quotas, quotas)  # 0, 1, .. within each video
    # golden-ratio steps: any few consecutive picks are spread over the whole video
    phase = (np.repeat(rng.random(len(quotas)), quotas) + GOLDEN_RATIO * step) % 1.0
    rank = np.empty(total, np.int64)
    rank[np.argsort(video + phase, kind="stable")] = step
    count, quota = groups.counts[video], quotas[video]
    if drawn is None:
        shift = np.repeat(rng.random(len(quotas)), quotas)
        spread = np.minimum((rank + shift) * count // quota, count - 1).astype(np.int64)
        at = groups.starts[video] + np.where(quota == count, rank, spread)
    else:
        at = drawn[(np.cumsum(quotas) - quotas)[video] + rank]
    place = (step + rng.random(total)) / quota
    order: Ints = groups.order[at][np.argsort(place, kind="stable")]
    return order


def _quotas(groups: CropGroups, balance: float, rng: np.random.Generator) -> Ints:
    """(V,) crops of each video in a pass; their sum is the number of crops."""
    if not balance:
        return groups.counts
    of_signer = np.bincount(groups.signer, weights=groups.counts)[groups.signer]  # (V,)
    ideal = groups.counts * of_signer**-balance
    return _rounded(ideal, len(groups.order), rng)


def _rounded(ideal: Floats, total: int, rng: np.random.Generator) -> Ints:
    """Whole numbers in proportion to ``ideal`` whose sum is ``total``: of any run of them, too, up to one."""
    ends = np.cumsum(ideal * (total / ideal.sum()))
    ends[-1] = total
    shift = rng.random()  # rounds up here in one pass, there in the next
    return np.diff(np.floor(np.concatenate(([0.0], ends)) + shift)).astype(np.int64)


def _times_drawn(
    groups: CropGroups, cluster: Ints, balance: float, cluster_balance: float, rng: np.random.Generator
) -> Ints:
    """(N,) how often a pass draws each crop, by place in ``groups.order``; their sum is N."""
    of_signer = np.bincount(groups.signer, weights=groups.counts) ** -balance
    weight = np.repeat(of_signer[groups.signer], groups.counts)  # (N,), as all that follow
    weight *= len(weight) / weight.sum()
    label = cluster[groups.order]
    mass = np.bincount(label, weights=weight).astype(np.float64)  # (C,)
    draws = cluster_draws(mass, np.bincount(label), cluster_balance)  # (C,)
    by = np.argsort(label, kind="stable")  # by cluster, video and frame: evenly from the videos of a cluster
    times = np.empty(len(by), np.int64)
    times[by] = _rounded((weight * (draws / np.maximum(mass, 1e-12))[label])[by], len(by), rng)
    return times


def cluster_draws(mass: Floats, sizes: Ints, balance: float) -> Floats:
    """(C,) draws of each cluster in a pass over N crops, by ``mass`` (C,) ** (1 - balance); their sum is N.

    ``sizes`` (C,) are the clusters' crops: of each of them no more than `MAX_TIMES_OF_CLUSTER` on average; what a
    cluster has no room for goes to the others.
    """
    limit = MAX_TIMES_OF_CLUSTER * sizes.astype(np.float64)
    share = np.where(sizes > 0, mass ** (1 - balance), 0.0)
    is_full = np.zeros(len(sizes), bool)
    while True:
        rest = np.where(is_full, 0.0, share)
        draws: Floats = np.where(is_full, limit, rest * ((sizes.sum() - limit[is_full].sum()) / rest.sum()))
        is_over = ~is_full & (draws > limit)
        if not is_over.any():
            return draws
        is_full |= is_over


def too_close(order: Ints, groups: CropGroups, batch: int, gap_frames: int) -> Ints:
    """Places in ``order`` whose crop is less than ``gap_frames`` after one of the same video in the same batch."""
    order = order[: len(order) // batch * batch]
    key = np.arange(len(order)) // batch * groups.num_videos + groups.video[order]  # of batch and video
    by = np.argsort(key, kind="stable")
    is_again = np.diff(key[by]) == 0
    among = by[np.append(is_again, False) | np.insert(is_again, 0, False)]  # few: with another of their video
    key, frame = key[among], groups.frame[order[among]].astype(np.int64)
    by = np.lexsort((frame, key))
    near = (np.diff(key[by]) == 0) & (np.diff(frame[by]) < gap_frames)
    return np.sort(among[by[1:][near]])


class BatchPlan:
    """The crops of each step's batch, ``batch_size`` per process, for any step, without state.

    All processes together see the batch that one process with all of it would see. ``balance`` is as in `pass_order`.
    ``min_gap_frames`` is the least distance of any two crops of a video in a joint batch; if necessary, a crop is left
    out of the pass and another repeated. None: `USUAL_GAP_FRAMES`, where an exchange suffices. ``cluster_balance`` is
    without effect where ``groups`` know no clusters.

    Raises:
        ValueError: When the crops do not fill one batch, or not with that gap.
    """

    def __init__(
        self,
        groups: CropGroups,
        *,
        batch_size: int,
        world_size: int,
        seed: int,
        balance: float = 0.0,
        cluster_balance: float = 0.0,
        min_gap_frames: int | None = None,
    ) -> None:
        self.groups = groups
        self.batch_size, self.world_size, self.seed = batch_size, world_size, seed
        self.balance, self.cluster_balance, self.min_gap_frames = balance, cluster_balance, min_gap_frames
        self.num_crops = len(groups.order)
        self.global_batch = batch_size * world_size
        self.steps_per_pass = self.num_crops // self.global_batch
        self._kept: tuple[int, Ints] = (-1, np.empty(0, np.int64))  # number and order of the pass at hand
        if self.steps_per_pass == 0:
            raise ValueError(f"{self.num_crops} crops do not fill a batch of {self.global_batch}")
        if min_gap_frames and (room := self._room(min_gap_frames)) < self.global_batch:
            raise ValueError(
                f"dataset.min_gap_frames = {min_gap_frames}: is guaranteed for {room} crops of {groups.num_videos}"
                f" videos, and a batch has {self.global_batch}"
            )

    def order(self, number: int) -> Ints:
        """Crops of pass ``number``, batch after batch; the last incomplete one is not used."""
        order = pass_order(self.groups, self.seed, number, self.balance, self.cluster_balance)
        gap = USUAL_GAP_FRAMES if self.min_gap_frames is None else self.min_gap_frames
        if gap:
            self._keep_apart(order, numpy_rng(self.seed, "gap", number), gap)
        return order

    def batches(self, rank: int, first_step: int, last_step: int) -> Iterator[list[tuple[int, int]]]:
        """(step, crop index) pairs of each step's batch of ``rank``, for first_step <= step < last_step.

        The crops that do not fill a last batch are left out of that pass; another pass leaves out others. The order of
        the pass at hand is kept, since epochs may be far shorter: for a million crops it takes .35 s of one core.
        """
        for step in range(first_step, last_step):
            number = step // self.steps_per_pass
            if self._kept[0] != number:
                self._kept = number, self.order(number)
            order = self._kept[1]
            start = (step % self.steps_per_pass) * self.global_batch + rank * self.batch_size
            yield [(step, int(index)) for index in order[start : start + self.batch_size]]

    def _keep_apart(self, order: Ints, rng: np.random.Generator, gap: int) -> None:
        """Exchange crops of ``order`` until none meets one of its video nearer than ``gap``."""
        for _ in range(MAX_ROUNDS):
            conflicts = too_close(order, self.groups, self.global_batch, gap)
            if not len(conflicts):
                return
            for place in conflicts:
                self._exchange(order, int(place), rng, gap)
        if self.min_gap_frames is None:
            return
        for place in too_close(order, self.groups, self.global_batch, gap):
            order[place] = self._any_fitting(order, int(place), rng, gap)

    def _exchange(self, order: Ints, place: int, rng: np.random.Generator, gap: int) -> None:
        rest = self._others(order, place)
        if not self._is_near(order[place : place + 1], rest, gap)[0]:
            return  # an earlier exchange has solved it
        others = rng.integers(0, len(order), MAX_CANDIDATES)
        batch = place // self.global_batch
        others = others[(others // self.global_batch != batch) & ~self._is_near(order[others], rest, gap)]
        for other in others.tolist():
            if not self._is_near(order[place : place + 1], self._others(order, other), gap)[0]:
                order[place], order[other] = order[other], order[place]
                return

    def _any_fitting(self, order: Ints, place: int, rng: np.random.Generator, gap: int) -> int:
        rest = self._others(order, place)
        start = int(rng.integers(self.num_crops))
        for block in np.array_split(np.roll(self.groups.order, -start), -(-self.num_crops // MAX_CANDIDATES)):
            if len(fitting := block[~self._is_near(block, rest, gap)]):
                return int(fitting[0])
        raise AssertionError("a batch has room, by the check at the start")

    def _others(self, order: Ints, place: int) -> Ints:
        """Crops that share the batch of a place; none for places after the last full batch."""
        batch = place // self.global_batch
        if batch == self.steps_per_pass:
            return order[:0]
        start = batch * self.global_batch
        return np.concatenate((order[start:place], order[place + 1 : start + self.global_batch]))

    def _is_near(self, crops: Ints, rest: Ints, gap: int) -> Flags:
        """(C,) bool: whether each crop is nearer than ``gap`` to one of ``rest``."""
        groups = self.groups
        same = groups.video[crops][:, None] == groups.video[rest]
        distance = np.abs(groups.frame[crops].astype(np.int64)[:, None] - groups.frame[rest])
        near: Flags = (same & (distance < gap)).any(axis=1)
        return near

    def _room(self, gap: int) -> int:
        """Crops that fit into a batch in any order: each excludes at most 2 gap - 1 frames of its video."""
        return int((-(-self.groups.counts // (2 * gap - 1))).sum())
