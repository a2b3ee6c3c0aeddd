"""Processed videos as training reads them: times, body pose and MSKA's nodes, one array per video in memory maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstreams.array_types import Floats
from signstreams.corpus.findings import few_ids
from signstreams.errors import DamagedFile
from signstreams.files import sha256_file
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import crops_digest, list_crops
from signstreams.formats.landmarks import pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.nodes import gather_nodes
from signstreams.progress import Progress

log = logging.getLogger(__name__)

POINTS = "points"  # source of features that is no stream of crops
REVISION = "1"  # to be raised when the same files give other arrays
POSE_POINTS = ("nose", *(f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist") for side in ("left", "right")))
"""The seven body points of SignMusketeers."""
POSE_DIM = 3 * len(POSE_POINTS)
_POSE_COLUMNS = np.array([3 * pose_index(name) + channel for name in POSE_POINTS for channel in range(3)])


@dataclass(frozen=True)
class ProcessedVideo:
    """What a video's metadata say, and digests of its files."""

    video_id: str  # id of the video
    size_px: tuple[int, int]  # width and height of the frame
    sources: dict[str, str]  # kind of file (tracks, pose, keypoints, or a stream of crops) to its digest
    source_fps: float = 0.0  # frame rate that the source declares; 0 when it declares none


def read_videos(
    layout: CorpusLayout, video_ids: Iterable[str], kinds: Iterable[str]
) -> tuple[dict[str, ProcessedVideo], list[str], list[str]]:
    """Extracted videos by id, ids of quarantined ones, and problems; reads their metadata only."""
    videos, quarantined, problems = {}, [], []
    for video_id in video_ids:
        path = layout.metadata(video_id)
        try:
            metadata = read_metadata(path)
        except FileNotFoundError:
            problems.append(f"{path}: no such file, expected a processed video; run signstreams extract")
            continue
        except DamagedFile as error:
            problems += error.problems
            continue
        if metadata.status == "quarantined":
            quarantined.append(video_id)
            continue
        sources = {}
        for kind in kinds:
            try:
                sources[kind] = _source(layout, kind, video_id, metadata.checksums)
            except FileNotFoundError:
                problems += _absent(processed_file(layout, kind, video_id), kind).problems
            except DamagedFile as error:
                problems += error.problems
        videos[video_id] = ProcessedVideo(
            video_id, (metadata.width_px, metadata.height_px), sources, metadata.source_fps
        )
    return videos, quarantined, problems


def processed_file(layout: CorpusLayout, kind: str, video_id: str) -> Path:
    """File of one kind of a video."""
    if kind in ("tracks", "pose", "keypoints"):
        path: Path = getattr(layout, kind)(video_id)
        return path
    return layout.crops(kind, video_id)


def _absent(file: Path, kind: str) -> DamagedFile:
    return DamagedFile(file, "no such file", expected=f"the video's {kind}")


def _source(layout: CorpusLayout, kind: str, video_id: str, checksums: dict[str, str]) -> str:
    """Digest of a file: the checksum in the metadata with the file's present size; computed where there is none."""
    path = processed_file(layout, kind, video_id)
    if kind in checksums and path.is_file():
        return f"{checksums[kind]}:{path.stat().st_size}"
    if kind in ("tracks", "pose", "keypoints"):
        return sha256_file(path)
    return crops_digest(list_crops(path))


def log_quarantined_clips(num_clips: int, quarantined: list[str]) -> None:
    """Warn of clips that are left out because their videos could not be extracted."""
    if num_clips:
        names = few_ids(quarantined)
        log.warning("%d clips are left out: their videos are quarantined (%s)", num_clips, names)


def extraction_settings(root: Path, video_id: str) -> dict[str, Any]:
    """Settings with which a video of the corpus was extracted; a new video needs the same for the model."""
    return read_metadata(CorpusLayout(root).metadata(video_id)).settings


def fps_range(videos: Iterable[ProcessedVideo]) -> list[float] | None:
    """Lowest and highest frame rate that the videos declare; None where none does."""
    known = [video.source_fps for video in videos if video.source_fps > 0]
    return [min(known), max(known)] if known else None


# -- Points: arrays that need no backbone

POINT_KINDS = {"times": "tracks", "pose": "pose", "nodes": "keypoints"}  # array to the kind of file it is made from


@dataclass(frozen=True)
class Points:
    """Arrays of all videos that need no backbone."""

    times_s: ArrayStore  # (T,) float64, time of each frame
    pose: ArrayStore  # (T, 7, 3) float32: x, y in signing space, visibility; missing (-1, -1, 0)
    nodes: ArrayStore | None
    """(T, 79, 3) float32: x, y as fractions of the frame, confidence; missing (-1, -1, 0). None without MSKA."""

    @property
    def stores(self) -> dict[str, ArrayStore]:
        """Name of the array, as in `POINT_KINDS`, to its store."""
        return {"times": self.times_s, "pose": self.pose} | ({"nodes": self.nodes} if self.nodes is not None else {})


def open_points(features: Path, *, uses_nodes: bool) -> Points:
    """The stores in the folder of features."""
    stores = {name: ArrayStore(features / POINTS / f"{name}_{REVISION}") for name in POINT_KINDS}
    return Points(stores["times"], stores["pose"], stores["nodes"] if uses_nodes else None)


def embed_points(layout: CorpusLayout, videos: Iterable[ProcessedVideo], points: Points) -> list[str]:
    """Make the missing arrays of each video, and those whose file changed; returns problems.

    Damaged files, and values that are not finite, are problems.
    """
    due = []
    for video in videos:
        names = [
            name
            for name, store in points.stores.items()
            if (source := video.sources.get(POINT_KINDS[name])) and not store.is_current(video.video_id, source)
        ]
        if names:
            due.append((video, names))
    problems: list[str] = []
    if due:
        with Progress(len(due), "videos", "gather points") as progress:
            for video, names in due:
                for name in names:
                    problems += _embed(layout, video, name, points.stores[name])
                progress.advance(1)
    return problems


def check_lengths(layout: CorpusLayout, videos: Iterable[ProcessedVideo], stores: dict[str, ArrayStore]) -> list[str]:
    """Problems where an array has another number of frames than the video's times."""
    problems = []
    for video in videos:
        if video.video_id not in stores["times"].records:
            continue
        expected = stores["times"].num_frames(video.video_id)
        for name, store in stores.items():
            if video.video_id in store.records and (num_frames := store.num_frames(video.video_id)) != expected:
                file = processed_file(layout, POINT_KINDS.get(name, name), video.video_id)
                problems += DamagedFile(file, f"{num_frames} frames, but tracks has {expected}").problems
    return problems


def _embed(layout: CorpusLayout, video: ProcessedVideo, name: str, store: ArrayStore) -> list[str]:
    kind = POINT_KINDS[name]
    file = processed_file(layout, kind, video.video_id)
    try:
        array = _MAKERS[name](file)
        if not np.isfinite(array).all():
            raise DamagedFile(file, "holds values that are not finite")
    except FileNotFoundError:
        return _absent(file, kind).problems
    except DamagedFile as error:
        return error.problems
    store.add(video.video_id, video.sources[kind], array)
    return []


def _times(path: Path) -> Floats:
    return read_tracks(path).times_s


def _pose(path: Path) -> Floats:
    pose = read_pose(path)
    return pose[:, _POSE_COLUMNS].reshape(len(pose), -1, 3)  # (T, 7, 3)


def _nodes(path: Path) -> Floats:
    keypoints = read_keypoints(path)
    if not np.isfinite(keypoints).all():
        raise DamagedFile(path, "holds values that are not finite")
    return gather_nodes(keypoints)


_MAKERS: dict[str, Callable[[Path], Floats]] = {"times": _times, "pose": _pose, "nodes": _nodes}
