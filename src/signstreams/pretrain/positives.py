"""Positives that are no augmentation: global view 2 is cut from another crop that shows nearly the same hand or face.

Both global views are the teacher's, each the target of the other and of the local ones. So it is enough that view 2
comes from a partner, and view 1 and the local views from the crop itself. A partner is a frame of the same video some
tenths of a second away, in which light and signer are the same and the pose nearly so (time-contrastive learning,
Sermanet et al. 2018); or a crop of another signer whose hand has nearly the same points, in which nearly all but the
pose differs. Where a crop has none, view 2 comes from the crop itself.

Which crop it is, is a pure function of seed, step and crop: nothing to save, the same for any number of processes.
Letters: N crops, S of them with points, M in the bank, K partners.
"""

from __future__ import annotations

import hashlib
import logging
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from signstreams.array_types import Floats, Ints
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import DamagedFile, UserError
from signstreams.formats.arrays import as_damage, read_times
from signstreams.formats.crops import evenly_spread
from signstreams.formats.video_metadata import read_metadata
from signstreams.pretrain.crop_index import CropIndex
from signstreams.pretrain.crop_points import point_shapes
from signstreams.pretrain.selection import by_video, measured_once, signers
from signstreams.pretrain.settings import PositivesConfig
from signstreams.processes import available_cores
from signstreams.progress import Progress

log = logging.getLogger(__name__)

NUM_NEAREST = 4  # partners of other signers that a crop has at most: one alone would be its only one, step after step
MIN_COSINE = 0.95
"""Cosine of two shapes that are nearly the same: less than most hands of 20 Korean signs move in a fifth of a second
(median .97), and more than 99 % of random pairs of signers have (.953); 70 % of the crops have a partner there."""
MAX_BANK = 65_536  # crops that partners are taken from, evenly spread: those between are near-duplicates of them
NEAREST_CACHE = "nearest_others.npz"  # in the state of a run
_BLOCK = 256  # crops compared with the bank at once: 67 MB of cosines
_ROUNDING = 1e-6  # of seconds times frames per second
_LONGEST_STEP = 1.5  # in frames; times in milliseconds and an uneven rate stay below it
_MOST_TOLD = 3  # videos that a message names


class Reach(NamedTuple):
    """Which frames are so many seconds away from each other."""

    frames: Ints  # (videos of the index, 2) int32: least and most distance in frames
    runs: Ints  # (N,) int32 rising: number of the run of frames without a gap, of one video, that each crop is in

    def of(self, index: CropIndex, crop: int) -> tuple[range, range]:
        """Crops within reach before and after a crop, of its own run: beyond a gap, frames are no measure of time."""
        least, most = self.frames[index.video[crop]].tolist()
        frame, run = int(index.frame[crop]), self.runs[crop]
        start, end = np.searchsorted(self.runs, (run, run + 1)).tolist()
        bounds = [frame - most, frame - least + 1, frame + least, frame + most + 1]
        first, last, next_, end = (start + int(at) for at in np.searchsorted(index.frame[start:end], bounds))
        return range(first, last), range(next_, end)


@dataclass(frozen=True)
class Positives:
    """Partners of the crops of an index, sorted by video and frame as it is."""

    index: CropIndex
    seed: int
    other_signer_prob: float
    nearest: Ints | None  # (N, K) int32 crops of other signers, -1 where there is none; None: not asked for
    reach: Reach | None  # None: not asked for

    def partner(self, step: int, crop: int) -> int:
        """The crop that view 2 of a crop is cut from at a step: its own number where it has no partner."""
        kind, place = numpy_rng(self.seed, "positives", step, crop).random(2)
        if self.nearest is not None and kind < self.other_signer_prob:
            others = self.nearest[crop][self.nearest[crop] >= 0]
            if len(others):
                return int(others[int(place * len(others))])
        if self.reach is not None:
            before, after = self.reach.of(self.index, crop)
            if count := len(before) + len(after):
                chosen = int(place * count)
                return before[chosen] if chosen < len(before) else after[chosen - len(before)]
        return crop


def find_reach(index: CropIndex, neighbour_s: list[float]) -> Reach:
    """What is within ``neighbour_s`` of each crop, least and most distance in seconds.

    By frames per second, in the metadata, and gaps, in the times of the tracks: numbers of frames go on after a span
    that was not extracted. A video without tracks, or whose tracks have no times, counts as one run.

    Raises:
        UserError: A video's metadata or tracks cannot be read, or no frame is so near.
    """
    low_s, high_s = neighbour_s
    reach = np.zeros((len(index.videos), 2), np.int32)
    gaps = np.zeros(len(index), np.int32)  # (N,) before each crop, in its video
    rates = set()

    def fill(video: int, at: slice) -> list[str]:
        folder, name = index.folders[index.video_folder[video]], index.videos[video]
        processed = folder.resolve().parent
        path, tracks = processed / "metadata" / f"{name}.json", processed / "tracks" / f"{name}.npz"
        try:
            fps = read_metadata(path).fps
        except FileNotFoundError:
            return [f"{path}: no such file, but positives.neighbour_s needs its frames per second"]
        except (OSError, ValueError) as error:
            return DamagedFile.of(path, error).problems
        rates.add(fps)
        reach[video] = math.ceil(low_s * fps - _ROUNDING), math.floor(high_s * fps + _ROUNDING)
        try:
            if (times_s := _times(tracks)) is not None:
                is_after_gap = np.diff(times_s, prepend=times_s[:1]) * fps > _LONGEST_STEP  # (T,)
                gaps[at] = np.cumsum(is_after_gap)[index.frame[at]]
        except (OSError, ValueError) as error:
            return DamagedFile.of(tracks, error).problems
        except IndexError:
            return DamagedFile(tracks, f"has fewer frames than {folder} has crops of").problems
        return []

    with ThreadPoolExecutor(available_cores()) as pool:
        problems = [problem for found in pool.map(lambda span: fill(*span), by_video(index)) for problem in found]
    if problems:
        more = [f"and {len(problems) - _MOST_TOLD} more videos alike"] if len(problems) > _MOST_TOLD else []
        raise UserError(problems[:_MOST_TOLD] + more)
    if not (reach[np.unique(index.video)] @ (-1, 1) >= 0).any():
        fps = max(rates)
        raise UserError(
            f"positives.neighbour_s [{low_s:g}, {high_s:g}]: no frame is so far away at {fps:g} frames per second; give"
            f" a range that holds a multiple of {1 / fps:.3g} s"
        )
    is_next = [np.diff(column, prepend=column[:1]) != 0 for column in (index.video, gaps)]
    return Reach(reach, np.cumsum(is_next[0] | is_next[1], dtype=np.int32))


def _times(path: Path) -> Floats | None:
    """Times (T,) of a video's frames in seconds; None where tracks are absent, or have none.

    Raises:
        DamagedFile: The tracks cannot be read.
    """
    try:
        with as_damage(path), zipfile.ZipFile(path) as archive:
            if "times_s.npy" not in archive.namelist():
                return None
    except FileNotFoundError:
        return None
    return read_times(path)


def nearest_others(shapes: Floats, groups: list[Ints]) -> Ints:
    """(N, NUM_NEAREST) int32: for each shape (N, 42) the nearest ones of other groups, nearest first; -1 for none.

    Crops with the same number in any of the ``groups`` (N,) are never each other's; nor are those below `MIN_COSINE`,
    or without points (NaN). Blocks of cosines with a bank of at most `MAX_BANK` crops: N * M * 84 operations.
    """
    found = np.full((len(shapes), NUM_NEAREST), -1, np.int32)
    seen = np.flatnonzero(~np.isnan(shapes).any(axis=1))  # (S,)
    bank = seen[evenly_spread(min(MAX_BANK, len(seen)), len(seen))]  # (M,)
    there = torch.from_numpy(shapes[bank]).T.contiguous()  # (42, M)
    numbers = [torch.from_numpy(np.unique(group, return_inverse=True)[1]) for group in groups]
    with Progress(len(seen), "crops", "find hands of other signers") as progress:
        for start in range(0, len(seen), _BLOCK):
            block = seen[start : start + _BLOCK]
            cosines = torch.from_numpy(shapes[block]) @ there  # (b, M)
            for number in numbers:
                cosines.masked_fill_(number[block][:, None] == number[bank], -2.0)
            best, places = cosines.topk(min(NUM_NEAREST, len(bank)), dim=1)
            found[block, : best.shape[1]] = np.where(best.numpy() >= MIN_COSINE, bank[places.numpy()], -1)
            progress.advance(len(block))
    return found


class PartnerSearch:
    """What the partners of a run follow from; its `digest` is known before they are searched for."""

    def __init__(self, config: PositivesConfig, index: CropIndex, points: Floats | None, seed: int) -> None:
        """``points`` (N, 21, 2) are those of the crops, where other signers are asked for.

        Raises:
            UserError: As `find_reach`.
        """
        self.config, self.index, self.seed = config, index, seed
        self.shapes = point_shapes(points) if config.other_signer_prob and points is not None else None
        self.reach = find_reach(index, config.neighbour_s) if config.neighbour_s is not None else None
        self.groups: list[Ints] = []
        state = hashlib.sha256()
        if self.reach is not None:
            videos = np.unique(index.video)
            state.update(np.ascontiguousarray(self.reach.frames[videos]).data)
            if self.reach.runs[-1] + 1 > len(videos):  # without gaps, as before they were looked for
                state.update(self.reach.runs.data)
        if self.shapes is not None and points is not None:
            self.groups = [signers(index), _recordings(index)]
            for array in (points, *self.groups):
                state.update(np.ascontiguousarray(array).data)
        self.digest = state.hexdigest()

    def partners(self, cache_dir: Path | None) -> Positives:
        """The partners, once; what was found of other signers is kept in ``cache_dir``, and the shapes no longer.

        Raises:
            UserError: No crop has a partner of another signer.
        """
        shapes, self.shapes = self.shapes, None
        nearest = None if shapes is None else self._nearest(shapes, cache_dir)
        return Positives(self.index, self.seed, self.config.other_signer_prob, nearest, self.reach)

    def _nearest(self, shapes: Floats, cache_dir: Path | None) -> Ints:
        def find() -> Ints:
            nearest = nearest_others(shapes, self.groups)
            count, num_groups = int((nearest[:, 0] >= 0).sum()), len(np.unique(self.groups[0]))
            if not count:
                raise UserError(
                    f"positives.other_signer_prob: no crop has nearly the hand points of one of another signer"
                    f" ({num_groups} signers); leave it out, or add footage of others"
                )
            log.info(
                "%s of %s crops have a partner of another signer (%d signers; a video that names none counts as one)",
                *(f"{count:,}", f"{len(nearest):,}", num_groups),
            )
            return nearest

        path = None if cache_dir is None else cache_dir / NEAREST_CACHE
        return measured_once(path, self.digest, "nearest", len(shapes), find)


def _recordings(index: CropIndex) -> Ints:
    """(N,) number of each crop's video, the same for crops of both hands of one video."""
    numbers: dict[tuple[str, str], int] = {}
    out = np.empty(len(index), np.int64)
    for video, at in by_video(index):
        processed = str(index.folders[index.video_folder[video]].resolve().parent)
        out[at] = numbers.setdefault((processed, index.videos[video]), len(numbers))
    return out
