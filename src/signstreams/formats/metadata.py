"""What extraction records about one video."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from signstreams.files import read_json, write_json

FORMAT_VERSION = 1


class DetectorInfo(BaseModel):
    """Which detector found the points."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    settings: dict[str, Any] = {}


class VideoMetadata(BaseModel):
    """Content of ``processed/metadata/<video>.json``."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format_version: Literal[1] = FORMAT_VERSION
    video_id: str
    status: Literal["ok", "quarantined"]
    reason: str | None = None
    """Why the video was quarantined."""
    source_name: str
    """File name of the video."""
    source_bytes: int
    source_sha256: str
    width_px: int
    """Width of the upright frame."""
    height_px: int
    source_fps: float
    """Frames a second that the file declares."""
    fps: float
    """Frames a second of what was extracted."""
    num_frames: int
    duration_s: float
    crop_px: int
    detector: DetectorInfo
    settings: dict[str, Any]
    """The extraction config as used."""
    settings_digest: str
    states: dict[str, dict[str, int]]
    """Stream to the number of frames in each state: missing, detected, tracked, filled."""
    num_pose_frames: int
    """Frames in which the body was found."""
    num_face_frames: int
    """Frames in which the face was found by the face detector."""
    timings_s: dict[str, float]
    checksums: dict[str, str]
    """Artifact (face, hand_l, hand_r, pose, keypoints, tracks) to the SHA-256 of its file."""
    signstreams_version: str


def write_metadata(path: str | Path, value: VideoMetadata) -> None:
    """Write as JSON."""
    write_json(path, value.model_dump(mode="json"))


def read_metadata(path: str | Path) -> VideoMetadata:
    """Read from JSON.

    Raises:
        ValueError: When it is no JSON or has other fields; the message is one line.
    """
    try:
        return VideoMetadata.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"'{'.'.join(map(str, first['loc']))}': {first['msg']}") from None
