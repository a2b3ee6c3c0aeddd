"""Results of a video: data kept of its frames until it ends, files beside its crops, and whether they are current."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import signstreams
from signstreams.array_types import Floats
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.frame_boxes import NUM_STREAMS, corners
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.signing_space import signing_space
from signstreams.files import digest, sha256_file
from signstreams.formats.arrays import (
    PIECE_FRAMES,
    StreamTrack,
    Tracks,
    write_keypoint_pieces,
    write_pose,
    write_tracks,
)
from signstreams.formats.landmarks import FACE, MISSING, NUM_KEYPOINTS, NUM_POSE, POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import (
    LONGEST_GAP_S,
    DetectorInfo,
    VideoMetadata,
    read_metadata,
    write_metadata,
)
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import STREAMS, BoxState

REVISION = 2  # raised when the same settings give other results: existing results then no longer count as current


@dataclass(frozen=True)
class VideoJob:
    """One video to extract: what is read, with which settings and detector."""

    source: VideoSource
    config: ExtractConfig
    detector: DetectorKind
    annotations: VideoAnnotations = NOT_ANNOTATED

    @property
    def layout(self) -> CorpusLayout:
        return CorpusLayout(self.config.root)

    @property
    def video_id(self) -> str:
        return self.source.video_id

    @property
    def spans_s(self) -> list[tuple[float, float]] | None:
        """Spans to extract, as the metadata records them; None for the whole video."""
        return None if self.annotations.spans_s is None else list(self.annotations.spans_s)

    def detector_info(self) -> DetectorInfo:
        """Name, version and settings of the detector for this video."""
        return self.detector.info(self.config, self.video_id)

    def settings_digest(self) -> str:
        """Digest of everything that shapes the results of all videos: settings, detector with version, code revision.

        What belongs to one video (spans, box, its file of points) is not included: a corpus extracted with one set of
        settings has one digest.
        """
        # Up to revision 2, frames between those detected got wrong points where a rate repeats them; results of all
        # other settings are as before and stay current.
        revision = REVISION + (
            self.config.detector == "holistic" and self.config.fps is not None and self.config.stride > 1
        )
        return _digest(revision, self.config.settings(), self.detector_info())


def _digest(revision: int, settings: dict[str, Any], detector: DetectorInfo) -> str:
    return digest({"revision": revision, "settings": settings, "detector": [detector.name, detector.version]})


# -- What is kept of every frame until the video ends: points on disk, half a KB per frame in memory


class TrackRecorder:
    """Times and final boxes in flat arrays, 71 bytes per frame. Boxes follow later than times."""

    def __init__(self) -> None:
        self.times_s = array("d")  # (T,)
        self.num_damaged = 0  # frames that the decoder had to invent
        self._corners, self._confidence, self._state = array("f"), array("f"), array("B")

    @property
    def num_boxed(self) -> int:
        """Frames with boxes so far."""
        return len(self._state) // NUM_STREAMS

    def append(self, boxes: FrameBoxes) -> None:
        """Add the boxes of the next frame."""
        placed = np.where((boxes.state != BoxState.MISSING)[:, None], corners(boxes.box), MISSING[0])  # (S, 4)
        self._corners.frombytes(placed.astype(np.float32).tobytes())
        self._confidence.frombytes(boxes.confidence.astype(np.float32).tobytes())
        self._state.frombytes(boxes.state.tobytes())

    def tracks(self) -> Tracks:
        """Tracks of all frames, without copies; nothing can be added while they are in use."""
        placed = np.frombuffer(self._corners, np.float32).reshape(-1, NUM_STREAMS, 4)
        confidence = np.frombuffer(self._confidence, np.float32).reshape(-1, NUM_STREAMS)
        state = np.frombuffer(self._state, np.uint8).reshape(-1, NUM_STREAMS)
        streams = {
            stream: StreamTrack(placed[:, index], confidence[:, index], state[:, index])
            for index, stream in enumerate(STREAMS)
        }
        return Tracks(streams, np.frombuffer(self.times_s, np.float64))


class KeypointSpool:
    """Keypoints of all frames on disk (6.5 KB each), in a file without a name that vanishes with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._poses = array("f")
        self._num_frames = self.num_face_frames = 0

    def __enter__(self) -> KeypointSpool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, keypoints: Floats) -> None:
        """Add the (543, 3) points of the next frame."""
        keypoints = np.ascontiguousarray(keypoints, np.float32)
        self._file.write(keypoints.data)
        self._poses.frombytes(keypoints[POSE].tobytes())
        self._num_frames += 1
        self.num_face_frames += bool(keypoints[FACE.start, 2] > 0)

    def __len__(self) -> int:
        return self._num_frames

    def take_pose(self) -> Floats:
        """(T, 33, 3) float32 body points, writable; the spool gives them away, once."""
        poses, self._poses = self._poses, array("f")
        return np.frombuffer(poses, np.float32).reshape(-1, NUM_POSE, 3)

    def pieces(self) -> Iterator[Floats]:
        """(N, 543, 3) float32 each, in order."""
        self._file.seek(0)
        for start in range(0, len(self), PIECE_FRAMES):
            num_frames = min(PIECE_FRAMES, len(self) - start)
            data = self._file.read(num_frames * NUM_KEYPOINTS * 3 * 4)
            yield np.frombuffer(data, np.float32).reshape(num_frames, NUM_KEYPOINTS, 3)


# -- Files


def current_metadata(job: VideoJob) -> VideoMetadata | None:
    """Metadata of complete results of this very video with these settings; None when there are none."""
    try:
        found = read_metadata(job.layout.metadata(job.video_id))
    except (OSError, ValueError):
        return None
    is_current = (
        (
            (found.settings_digest == job.settings_digest() and found.detector == job.detector_info())
            or is_of_holistic(job, found)
        )
        and (found.spans_s, found.box) == (job.spans_s, job.annotations.box)
        and found.source_bytes == job.source.num_bytes()
        and found.source_sha256 == job.source.sha256()
        and found.checksums == checksums(job.layout, job.video_id)
    )
    return found if is_current else None


def is_of_holistic(job: VideoJob, found: VideoMetadata) -> bool:
    """Whether results are what this job would have given when MediaPipe Holistic was the default.

    They stay current: nobody wants a corpus of a thousand hours extracted again because the default changed.
    """
    config = job.config
    if config.detector != "tracker" or config.tracker.stride > 1 or found.detector.name != "mediapipe_holistic":
        return False
    ours, theirs = config.settings(), dict(found.settings)
    revision = REVISION + (config.fps is not None and theirs.get("holistic", {}).get("stride", 1) > 1)
    if found.settings_digest != _digest(revision, theirs, found.detector):
        return False
    for key in ("detector", "tracker", "holistic"):
        ours.pop(key, None), theirs.pop(key, None)
    return ours == theirs


def write_arrays(
    job: VideoJob, keypoints: KeypointSpool, recorder: TrackRecorder, size_px: tuple[int, int]
) -> dict[str, Any]:
    """Write keypoints, pose and tracks of a video; ``size_px`` is width and height of its frames.

    The body points of the spool are used up. Returns the counts for the metadata: ``states``, ``num_pose_frames``,
    ``num_face_frames``.
    """
    pose = keypoints.take_pose()
    num_pose_frames = int((pose[..., 2] > 0).any(axis=1).sum())
    write_pose(job.layout.pose(job.video_id), signing_space(pose, *size_px, out=pose))
    write_keypoint_pieces(job.layout.keypoints(job.video_id), len(keypoints), keypoints.pieces())
    tracks = recorder.tracks()
    write_tracks(job.layout.tracks(job.video_id), tracks)
    return {
        "states": {
            stream: {state.name.lower(): int((track.state == state).sum()) for state in BoxState}
            for stream, track in tracks.streams.items()
        },
        "num_pose_frames": num_pose_frames,
        "num_face_frames": keypoints.num_face_frames,
    }


def write_job_metadata(job: VideoJob, stamp: str | None, detector: DetectorInfo, **found: Any) -> VideoMetadata:
    """Write the metadata, which vouches for all other files of the video by their checksums: the last file written.

    ``stamp`` is that of the source when it was opened, None when it could not be; ``detector`` what the detector said
    of itself then, with the digest of the points it reads; ``found`` are the fields that reading the video gave.

    Raises:
        OSError: The video or its points have changed since, as a file that is still being copied: its checksum would
            vouch for frames that were never read.
    """
    sums = checksums(job.layout, job.video_id)
    assert sums is not None
    metadata = VideoMetadata(
        video_id=job.video_id,
        source_name=job.source.path.name,
        source_bytes=job.source.num_bytes(),
        source_sha256=_sha256(job.source, job.source.stamp()),
        crop_px=job.config.crop_px,
        detector=detector,
        face_privacy=job.config.face_privacy,
        spans_s=job.spans_s,
        box=job.annotations.box,
        settings=job.config.settings(),
        settings_digest=job.settings_digest(),
        checksums=sums,
        signstreams_version=signstreams.__version__,
        **found,
    )
    if stamp not in (None, job.source.stamp()):
        raise OSError("changed while it was read, expected a whole video; run again when it is")
    if detector != job.detector_info():
        raise OSError("its file of points changed while it was read, expected a whole one; run again when it is")
    write_metadata(job.layout.metadata(job.video_id), metadata)
    return metadata


@lru_cache(maxsize=1)
def _sha256(source: VideoSource, stamp: str) -> str:
    """Digest of a video, once where it is extracted in many parts; the ``stamp`` is another one if it changes."""
    return source.sha256()


def checksums(layout: CorpusLayout, video_id: str) -> dict[str, str] | None:
    """Artifact to digest; None when one is absent."""
    paths = {stream: layout.crops(stream, video_id) for stream in STREAMS}
    paths |= {"pose": layout.pose(video_id), "keypoints": layout.keypoints(video_id), "tracks": layout.tracks(video_id)}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: sha256_file(path) for name, path in paths.items()}


def mean_rate_hz(times_s: Sequence[float], spans_s: Sequence[tuple[float, float]] | None = None) -> float:
    """Mean frame rate over the video, or within its spans, without gaps; rounded to what timestamps in milliseconds can
    resolve. 0 when no two frames follow each other.
    """
    steps_s = np.diff(times_s)
    if spans_s is not None:
        span = np.searchsorted([start for start, _ in spans_s], times_s, side="right")
        steps_s = steps_s[np.diff(span) == 0]
    steps_s = steps_s[steps_s <= LONGEST_GAP_S]
    if not len(steps_s):
        return 0.0
    rate_hz = float(len(steps_s) / steps_s.sum())
    return float(round(rate_hz)) if math.isclose(rate_hz, round(rate_hz), rel_tol=1e-4) else rate_hz
