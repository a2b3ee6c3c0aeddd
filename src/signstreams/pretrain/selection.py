"""Which crops a run learns from: by state, sharpness and signer; and the mean and deviation of their channels."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from signstreams.array_types import Array, Flags, Floats, Ints
from signstreams.corpus.meta_csv import scan_meta
from signstreams.errors import DamagedFile, UserError
from signstreams.files import replacing
from signstreams.formats.arrays import read_tracks
from signstreams.formats.crops import Crop, evenly_spread
from signstreams.formats.layout import CorpusLayout
from signstreams.pretrain.crop_index import CropIndex
from signstreams.pretrain.settings import DatasetConfig, PretrainConfig
from signstreams.pretrain.views import convert_crops, decode
from signstreams.processes import available_cores
from signstreams.streams import BoxState

log = logging.getLogger(__name__)

SHARPNESS_PX = 112
SHARPNESS_CACHE = "sharpness.npz"
STATS_CROPS, STATS_DECIMALS = 2048, 4
"""Crops whose mean and deviation are measured: enough for three digits, as crops differ by far less than 1."""
LOOKED_AT_CROPS, MIN_DISTINCT_CROPS = 256, 16
"""Crops that are compared byte by byte, and how many have to differ: below, there is nothing to learn."""
_CHUNK = 2048


def select(index: CropIndex, config: DatasetConfig, *, stream: str | None, cache_dir: Path | None) -> Flags:
    """(N,) bool: crops that pass the least sharpness, and the least confidence and states by the tracks of ``stream``.

    Raises:
        UserError: Tracks that are needed, or a crop, are absent or unreadable.
    """
    fits: dict[str, Flags] = {}
    if config.min_confidence or len(set(config.states)) < len(BoxState) - 1:
        confidence, state = track_values(index, stream)
        for other in set(BoxState) - {BoxState.MISSING, *(BoxState[name.upper()] for name in config.states)}:
            fits[f"{other.name.lower()} (dataset.states)"] = state != other
        if config.min_confidence:
            fits[f"below dataset.min_confidence {config.min_confidence:g}"] = confidence >= config.min_confidence
    if config.min_sharpness:
        fits[f"below dataset.min_sharpness {config.min_sharpness:g}"] = (
            sharpness(index, cache_dir) >= config.min_sharpness
        )
    chosen = np.ones(len(index), bool)
    reasons = []
    for reason, is_fit in fits.items():
        num_left_out = int((chosen & ~is_fit).sum())  # each crop by its first reason
        reasons.append(f"{num_left_out:,} ({num_left_out / max(1, len(index)):.2%}) {reason}")
        chosen &= is_fit
    if fits:
        log.info("%s of %s crops are left; left out: %s", f"{chosen.sum():,}", f"{len(index):,}", ", ".join(reasons))
    return chosen


def track_values(index: CropIndex, stream: str | None) -> tuple[Floats, Ints]:
    """Confidence (N,) float32 and state (N,) uint8 of each crop's box, from `tracks/<video>.npz` beside its folder.

    Raises:
        UserError: When a video has none, or another number of frames.
    """
    confidence, state = np.empty(len(index), np.float32), np.empty(len(index), np.uint8)
    problems = []
    for video, at in by_video(index):
        folder = index.folders[index.video_folder[video]]
        path = folder.resolve().parent / "tracks" / f"{index.videos[video]}.npz"
        try:
            track = read_tracks(path).streams[stream or folder.name]
            confidence[at], state[at] = track.confidence[index.frame[at]], track.state[index.frame[at]]
        except FileNotFoundError:
            problems.append(f"{path}: no such file, but dataset.min_confidence and dataset.states need it")
        except KeyError:
            raise UserError(f"{folder}: the folder's name is not a stream; add --stream") from None
        except (OSError, ValueError) as error:
            problems += DamagedFile.of(path, error).problems
        except IndexError:
            problems += DamagedFile(path, f"has fewer frames than {folder} has crops of").problems
    if problems:
        more = [f"and {len(problems) - 3} more videos alike"] if len(problems) > 3 else []
        raise UserError(problems[:3] + more)
    return confidence, state


def sharpness(index: CropIndex, cache_dir: Path | None) -> Floats:
    """(N,) float32 variance of the Laplacian of each grey crop at 112 px, measured once and kept in ``cache_dir``.

    Raises:
        UserError: When a crop cannot be read.
    """
    path = cache_dir / SHARPNESS_CACHE if cache_dir is not None else None

    def measure() -> Array:
        return of_each_crop(index, crop_sharpness).astype(np.float32, copy=False)

    return measured_once(path, index.digest, "sharpness", len(index), measure)


def measured_once(path: Path | None, digest: str, name: str, num_crops: int, measure: Callable[[], Array]) -> Array:
    """What ``measure`` returns, or what an earlier call kept for this ``digest``, under ``name`` in the file ``path``.

    An array of ``num_crops`` rows. A file that cannot be read or written costs a warning.
    """
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as kept:
                found: Array = kept[name]
                if str(kept["digest"]) == digest and len(found) == num_crops:
                    return found
        except (OSError, ValueError, KeyError):
            log.warning("%s: cannot be read, is measured again", path)
    values = measure()
    if path is not None:
        try:
            with replacing(path) as part, part.open("wb") as file:
                arrays: dict[str, Any] = {"digest": digest, name: values}
                np.savez(file, **arrays)
        except OSError as error:
            log.warning("%s: cannot be written (%s), is measured again next time", path, error.strerror)
    return values


def of_each_crop(index: CropIndex, measure: Callable[[bytes], Any]) -> Array:
    """(N, ...) what ``measure`` makes of the image of each crop, by all cores.

    Raises:
        UserError: When a crop cannot be read.
    """
    cv2.setNumThreads(1)

    def of_chunk(start: int) -> Array:
        return np.array(list(convert_crops(index[start : start + _CHUNK], measure)))

    with ThreadPoolExecutor(available_cores()) as threads:
        return np.concatenate(list(threads.map(of_chunk, range(0, len(index), _CHUNK))))


def crop_sharpness(jpeg: bytes) -> float:
    """Variance of the Laplacian of the grey crop at 112 px, grey levels squared: comparable for crops of any size.

    Raises:
        ValueError: When the bytes are no image.
    """
    gray = cv2.cvtColor(decode(jpeg, SHARPNESS_PX), cv2.COLOR_RGB2GRAY)
    if gray.shape != (SHARPNESS_PX, SHARPNESS_PX):
        gray = cv2.resize(gray, (SHARPNESS_PX, SHARPNESS_PX), interpolation=cv2.INTER_AREA)
    return float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0] ** 2)


def signers(index: CropIndex) -> Ints:
    """(N,) number of each crop's signer, from the corpus's meta.csv; a video that it lacks counts as a signer."""
    known: dict[int, dict[str, str]] = {}
    for number, folder in enumerate(index.folders):
        parents = folder.resolve().parents
        meta = CorpusLayout(parents[1]).meta if len(parents) > 1 else None
        known[number] = _signers_of(meta) if meta is not None and meta.exists() else {}
    numbers: dict[tuple[str, ...], int] = {}
    out = np.empty(len(index), np.int64)
    for video, at in by_video(index):
        number, video_id = index.video_folder[video], index.videos[video]
        signer = known[number].get(video_id)
        corpus = str(index.folders[number].resolve().parent)  # a signer's name means one person in one corpus
        key = (corpus, signer) if signer is not None else (corpus, "", str(number), video_id)
        out[at] = numbers.setdefault(key, len(numbers))
    return out


def by_video(index: CropIndex) -> Iterator[tuple[int, slice]]:
    """Number of each video that has crops, and the span of its crops."""
    if not len(index):
        return
    starts = np.flatnonzero(np.diff(index.video, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(index)], strict=True):
        yield int(index.video[start]), slice(int(start), int(end))


def _signers_of(meta: Path) -> dict[str, str]:
    """Video id to the most frequent signer of its clips."""
    found: dict[str, Counter[str]] = {}
    for clip in scan_meta(meta).clips:
        if clip.signer:
            found.setdefault(clip.video_id, Counter())[clip.signer] += 1
    return {video_id: counts.most_common(1)[0][0] for video_id, counts in found.items()}


def monotony(crops: Sequence[Crop]) -> str | None:
    """Why next to nothing can be learned from these crops, in one line; None where enough of them differ.

    Raises:
        UserError: When a crop cannot be read.
    """
    count = min(LOOKED_AT_CROPS, len(crops))
    distinct = len(set(convert_crops((crops[place] for place in evenly_spread(count, len(crops))), _digest)))
    if distinct >= max(MIN_DISTINCT_CROPS, count // 2):
        return None
    looked_at = f"{count} crops" if count == len(crops) else f"{count} of {len(crops):,} crops"
    return (
        f"{looked_at} show {distinct} different pictures: next to nothing can be learned from them; check train_dir,"
        " and add footage"
    )


def _digest(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def with_measured_stats(config: PretrainConfig, crops: Sequence[Crop]) -> PretrainConfig:
    """The config with measured mean and std, where it asks to measure them, as if they had been given."""
    if not config.dataset.measure_stats:
        return config
    mean, std = channel_stats(crops)
    changes = {
        "augmentation": config.augmentation.model_copy(update={"mean": mean, "std": std}),
        "dataset": config.dataset.model_copy(update={"measure_stats": False}),
    }
    return config.model_copy(update=changes)


def channel_stats(crops: Sequence[Crop]) -> tuple[list[float], list[float]]:
    """Mean and deviation of R, G, B in 0..1 over the pixels of up to `STATS_CROPS` crops, each with equal weight.

    Raises:
        UserError: When a crop cannot be read.
    """
    count = min(STATS_CROPS, len(crops))
    moments = np.zeros((2, 3))
    for image in convert_crops((crops[place] for place in evenly_spread(count, len(crops))), decode):
        pixels = image.reshape(-1, 3) / 255  # (P, 3)
        moments += pixels.mean(axis=0), (pixels**2).mean(axis=0)
    mean, square = moments / count
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), 10**-STATS_DECIMALS)  # crops of one colour
    return [round(float(value), STATS_DECIMALS) for value in mean], [
        round(float(value), STATS_DECIMALS) for value in std
    ]
