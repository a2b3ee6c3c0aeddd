"""Processed videos as training reads them: times, body pose and MSKA's nodes in memory maps, made once a video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstreams.array_types import Floats
from signstreams.corpus.findings import few
from signstreams.files import sha256_file
from signstreams.formats.arrays import Keypoints, Pose, Tracks, read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import crops_digest, list_crops
from signstreams.formats.damaged import DamagedFile
from signstreams.formats.landmarks import pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import read_metadata
from signstreams.ids import shown
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.nodes import gather_nodes
from signstreams.progress import Progress

log = logging.getLogger(__name__)

POINTS = "points"
"""Name of what is no stream of crops among the sources that can be embedded."""
REVISION = "1"
"""Raised when the same files give other arrays."""
POSE_POINTS = (
    "nose",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
)
"""The seven body points of SignMusketeers."""
POSE_DIM = 3 * len(POSE_POINTS)
_POSE_COLUMNS = np.array([3 * pose_index(name) + channel for name in POSE_POINTS for channel in range(3)])


@dataclass(frozen=True)
class ProcessedVideo:
    """What a video's metadata say, and digests of its files.

    Attributes:
        video_id: Its id.
        size_px: Width and height of the frame.
        sources: Kind of file (tracks, pose, keypoints, or a stream of crops) to digest.
        source_fps: Frames a second that the video declares; 0 when it does not.
    """

    video_id: str
    size_px: tuple[int, int]
    sources: dict[str, str]
    source_fps: float = 0.0


def read_videos(
    layout: CorpusLayout, video_ids: Iterable[str], kinds: Iterable[str]
) -> tuple[dict[str, ProcessedVideo], list[str], list[str]]:
    """Videos that were extracted, ids of those that were quarantined, and problems; reads metadata alone."""
    videos, quarantined, problems = {}, [], []
    for video_id in video_ids:
        path = layout.metadata(video_id)
        try:
            metadata = read_metadata(path)
        except FileNotFoundError:
            problems.append(f"{path}: no such file, expected a processed video; run scripts/extract_rois_v2.py")
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
                problems += _absent(file_of(layout, kind, video_id), kind).problems
            except DamagedFile as error:
                problems += error.problems
        videos[video_id] = ProcessedVideo(
            video_id, (metadata.width_px, metadata.height_px), sources, metadata.source_fps
        )
    return videos, quarantined, problems


def file_of(layout: CorpusLayout, kind: str, video_id: str) -> Path:
    """File of one kind of a video."""
    if kind in ("tracks", "pose", "keypoints"):
        path: Path = getattr(layout, kind)(video_id)
        return path
    return layout.crops(kind, video_id)


def _absent(file: Path, kind: str) -> DamagedFile:
    return DamagedFile(file, "no such file", expected=f"the video's {kind}")


def _source(layout: CorpusLayout, kind: str, video_id: str, checksums: dict[str, str]) -> str:
    """Digest of a file: the checksum that extraction took, with its present size; else taken now."""
    path = file_of(layout, kind, video_id)
    if kind in checksums and path.is_file():
        return f"{checksums[kind]}:{path.stat().st_size}"
    if kind in ("tracks", "pose", "keypoints"):
        return sha256_file(path)
    return crops_digest(list_crops(path))


@dataclass(frozen=True)
class Points:
    """Arrays of all videos that need no backbone.

    Attributes:
        times_s: (T,) float64 of each frame.
        pose: (T, 7, 3) float32: x, y in signing space, visibility; missing (-1, -1, 0).
        nodes: (T, 79, 3) float32: x, y as fractions of the frame, confidence; missing (-1, -1, 0). None without MSKA.
    """

    times_s: ArrayStore
    pose: ArrayStore
    nodes: ArrayStore | None


POINT_KINDS = {"times": "tracks", "pose": "pose", "nodes": "keypoints"}
"""Array to the kind of file it is made from."""


def open_points(features: Path, *, uses_nodes: bool) -> Points:
    """The stores below the folder of features."""
    stores = {name: ArrayStore(features / POINTS / f"{name}_{REVISION}") for name in POINT_KINDS}
    return Points(stores["times"], stores["pose"], stores["nodes"] if uses_nodes else None)


def embed_points(layout: CorpusLayout, videos: Iterable[ProcessedVideo], points: Points) -> list[str]:
    """Make the arrays of every video that lacks them, or whose files changed; returns problems.

    A video whose arrays disagree, or hold values that are not finite, is a problem.
    """
    given = {"times": points.times_s, "pose": points.pose, "nodes": points.nodes}
    stores = {name: store for name, store in given.items() if store is not None}
    due = [
        (video, names)
        for video in videos
        if (
            names := [
                name
                for name, store in stores.items()
                if POINT_KINDS[name] in video.sources
                and not store.is_current(video.video_id, video.sources[POINT_KINDS[name]])
            ]
        )
    ]
    problems: list[str] = []
    if due:
        with Progress(len(due), "videos", "gather points") as progress:
            for video, names in due:
                problems += _embed_video(layout, video, stores, names)
                progress.advance(1)
    return problems


def check_lengths(layout: CorpusLayout, videos: Iterable[ProcessedVideo], stores: dict[str, ArrayStore]) -> list[str]:
    """Problems where an array of a video has other frames than its times."""
    problems = []
    for video in videos:
        if video.video_id not in stores["times"].records:
            continue
        expected = stores["times"].num_frames(video.video_id)
        for name, store in stores.items():
            if video.video_id in store.records and store.num_frames(video.video_id) != expected:
                file = file_of(layout, POINT_KINDS.get(name, name), video.video_id)
                found = f"{store.num_frames(video.video_id)} frames, but tracks has {expected}"
                problems += DamagedFile(file, found).problems
    return problems


def _embed_video(
    layout: CorpusLayout, video: ProcessedVideo, stores: dict[str, ArrayStore], names: list[str]
) -> list[str]:
    problems = []
    for name in names:
        kind = POINT_KINDS[name]
        file = file_of(layout, kind, video.video_id)
        try:
            array = _MAKERS[name](file)
            if not np.isfinite(array).all():
                raise DamagedFile(file, "holds values that are not finite")
        except FileNotFoundError:
            problems += _absent(file, kind).problems
            continue
        except DamagedFile as error:
            problems += error.problems
            continue
        stores[name].add(video.video_id, video.sources[kind], array)
    return problems


def _times(path: Path) -> Floats:
    tracks: Tracks = read_tracks(path)
    return tracks.times_s


def _pose(path: Path) -> Floats:
    value: Pose = read_pose(path)
    return value.pose[:, _POSE_COLUMNS].reshape(len(value.pose), -1, 3)  # (T, 7, 3)


def _nodes(path: Path) -> Floats:
    value: Keypoints = read_keypoints(path)
    if not np.isfinite(value.keypoints).all():
        raise DamagedFile(path, "holds values that are not finite")
    return gather_nodes(value.keypoints)


_MAKERS: dict[str, Callable[[Path], Any]] = {"times": _times, "pose": _pose, "nodes": _nodes}


def say_left_out(num_clips: int, quarantined: list[str]) -> None:
    """One line on clips whose videos could not be read."""
    if num_clips:
        names = few([shown(video_id) for video_id in quarantined])
        log.warning("%d clips lie in quarantined videos and are left out (%s)", num_clips, names)


def extraction_settings(root: Path, video_id: str) -> dict[str, Any]:
    """How a video of the corpus was extracted: a new one must be, for the model to understand it."""
    return read_metadata(CorpusLayout(root).metadata(video_id)).settings


def fps_range(videos: Iterable[ProcessedVideo]) -> list[float] | None:
    """Lowest and highest frames a second that videos declare; None where none does."""
    known = [video.source_fps for video in videos if video.source_fps > 0]
    return [min(known), max(known)] if known else None
