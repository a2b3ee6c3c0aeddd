"""What extraction writes beside the crops: arrays, metadata, and which results are still current."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import signstreams
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.frame_records import CollectedTracks, KeypointSpool
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.signing_space import signing_space
from signstreams.files import digest, sha256_file
from signstreams.formats.arrays import Pose, write_keypoint_pieces, write_pose, write_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata, read_metadata, write_metadata
from signstreams.formats.video_sources import change_stamp, source_bytes, source_sha256
from signstreams.streams import STREAMS, BoxState

REVISION = 2
"""Raised when the same settings give other results: existing results then no longer count as current."""


def settings_digest(config: ExtractConfig, detector: DetectorKind, video_id: str) -> str:
    """Digest of all that shapes the results of every video: settings, detector with its version, revision of this code.

    What is a single video's own (spans, box, the file of its points) is not in it: a corpus made alike has one digest.
    """
    info = detector.info(config, video_id)
    return digest({"revision": _revision(config), "settings": config.settings(), "detector": [info.name, info.version]})


def _revision(config: ExtractConfig) -> int:
    """Of the code that these settings use: up to revision 2, frames between had wrong points where a rate repeats them.

    All other settings keep the results that they have.
    """
    return REVISION + (config.fps is not None and config.holistic.stride > 1)


def current_metadata(
    video_path: Path,
    layout: CorpusLayout,
    video_id: str,
    config: ExtractConfig,
    detector: DetectorKind,
    annotations: VideoAnnotations = NOT_ANNOTATED,
) -> VideoMetadata | None:
    """Metadata of complete results of this very video with these settings; None when there are none."""
    try:
        found = read_metadata(layout.metadata(video_id))
    except (OSError, ValueError):
        return None
    is_current = (
        found.settings_digest == settings_digest(config, detector, video_id)
        and found.detector == detector.info(config, video_id)
        and (found.spans_s, found.box) == (_spans(annotations), annotations.box)
        and found.source_bytes == source_bytes(video_path)
        and found.source_sha256 == source_sha256(video_path)
        and found.checksums == checksums(layout, video_id)
    )
    return found if is_current else None


def write_arrays(
    layout: CorpusLayout,
    video_id: str,
    keypoints: KeypointSpool,
    collected: CollectedTracks,
    size_px: tuple[int, int],
) -> dict[str, Any]:
    """Write keypoints, pose and tracks. The body points of the spool are used up.

    Args:
        layout: Where they go.
        video_id: Of the video.
        keypoints: Of T frames.
        collected: Times and final boxes of the T frames.
        size_px: Width and height of the frame.

    Returns:
        What the metadata counts: ``states``, ``num_pose_frames``, ``num_face_frames``.
    """
    pose = keypoints.take_pose()
    num_pose_frames = int((pose[..., 2] > 0).any(axis=1).sum())
    write_pose(layout.pose(video_id), Pose(signing_space(pose, *size_px, out=pose)))
    write_keypoint_pieces(layout.keypoints(video_id), len(keypoints), keypoints.pieces())
    tracks = collected.tracks()
    write_tracks(layout.tracks(video_id), tracks)
    return {
        "states": {
            stream: {state.name.lower(): int((track.state == state).sum()) for state in BoxState}
            for stream, track in tracks.streams.items()
        },
        "num_pose_frames": num_pose_frames,
        "num_face_frames": keypoints.num_face_frames,
    }


def write_record(
    layout: CorpusLayout,
    video_path: Path,
    video_id: str,
    config: ExtractConfig,
    detector: DetectorKind,
    annotations: VideoAnnotations,
    stamp: str | None,
    **found: Any,
) -> VideoMetadata:
    """Write the metadata, which vouches for all other files of the video by their checksums: the last file written.

    Raises:
        OSError: When the video is not as it was with ``stamp`` (None where it never could be opened), such as one that
            is still being copied: its checksum would vouch for frames that nobody saw.
    """
    sums = checksums(layout, video_id)
    assert sums is not None
    metadata = VideoMetadata(
        video_id=video_id,
        source_name=video_path.name,
        source_bytes=source_bytes(video_path),
        source_sha256=source_sha256(video_path),
        crop_px=config.crop_px,
        detector=detector.info(config, video_id),
        face_privacy=config.face_privacy,
        spans_s=_spans(annotations),
        box=annotations.box,
        settings=config.settings(),
        settings_digest=settings_digest(config, detector, video_id),
        checksums=sums,
        signstreams_version=signstreams.__version__,
        **found,
    )
    if stamp not in (None, change_stamp(video_path)):
        raise OSError("changed while it was read, expected a whole video; run again when it is")
    write_metadata(layout.metadata(video_id), metadata)
    return metadata


def checksums(layout: CorpusLayout, video_id: str) -> dict[str, str] | None:
    """Artifact to digest; None when one is absent."""
    paths = {stream: layout.crops(stream, video_id) for stream in STREAMS}
    paths |= {
        "pose": layout.pose(video_id),
        "keypoints": layout.keypoints(video_id),
        "tracks": layout.tracks(video_id),
    }
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: sha256_file(path) for name, path in paths.items()}


def mean_rate_hz(times_s: Sequence[float], spans_s: Sequence[tuple[float, float]] | None = None) -> float:
    """Frames a second over the video, or over its spans, rounded to what timestamps in milliseconds can tell; 0 when
    no two frames follow each other.
    """
    steps_s = np.diff(times_s)
    if spans_s is not None:
        span = np.searchsorted([start for start, _ in spans_s], times_s, side="right")
        steps_s = steps_s[np.diff(span) == 0]
    if not len(steps_s):
        return 0.0
    rate_hz = float(len(steps_s) / steps_s.sum())
    return float(round(rate_hz)) if math.isclose(rate_hz, round(rate_hz), rel_tol=1e-4) else rate_hz


def _spans(annotations: VideoAnnotations) -> list[tuple[float, float]] | None:
    return None if annotations.spans_s is None else list(annotations.spans_s)
