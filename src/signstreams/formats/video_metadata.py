"""Metadata of one video, ``processed/metadata/<video>.json``: what extraction read, did and wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from signstreams.errors import DamagedFile
from signstreams.files import read_json, write_json

FacePrivacy = Literal["none", "eyes-mouth", "blur"]  # what is hidden of the signer's face in crops and previews

FORMAT_VERSION: Final = 2

LONGEST_GAP_S: Final = 10.0
"""Frames that follow each other later than this are no constant rate: nothing is repeated in between."""


class DetectorInfo(BaseModel):
    """The detector that found the points."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    settings: dict[str, Any] = {}


class SignerInfo(BaseModel):
    """The person whose points these are, and how that person was chosen."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    chosen_by: Literal["detector", "alone", "hand_motion", "size", "box"]
    """detector: no search for people, or none found; alone: one person found; hand_motion: the hands that move most;
    size: the largest and most central, as hands did not decide; box: as meta.csv says."""
    num_people: int | None = None
    """People found side by side; None without a search for people."""
    region_px: tuple[int, int, int, int] | None = None
    """x0, y0, x1, y1 of the part of the frame that was searched for the signer; None for the whole frame."""
    hand_motion: list[float] = []
    """Motion of each person's hands, from left to right in the picture, in head units per second."""


class VideoMetadata(BaseModel):
    """Content of ``processed/metadata/<video>.json``."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    format_version: Literal[2] = FORMAT_VERSION
    video_id: str
    status: Literal["ok", "quarantined"]
    reason: str | None = None
    """Why the video was quarantined; None when it was not."""
    note: str | None = None
    """Fault of a video that was read, such as an early end or damaged packets."""
    source_name: str
    """File name of the video."""
    source_bytes: int
    source_sha256: str
    width_px: int
    """Width of the upright frame."""
    height_px: int
    source_fps: float
    """Frames per second that the file declares."""
    fps: float
    """Frames per second that were extracted."""
    num_frames: int
    duration_s: float
    crop_px: int
    detector: DetectorInfo
    signer: SignerInfo
    face_privacy: FacePrivacy
    """What was done to faces in the crops."""
    spans_s: list[tuple[float, float]] | None
    """Spans that were extracted, in seconds of the video; None for the whole video."""
    box: tuple[float, float, float, float] | None = None
    """Box of the signer in meta.csv, x0, y0, x1, y1 in px; None without one."""
    settings: dict[str, Any]
    """The extraction config as used."""
    settings_digest: str
    states: dict[str, dict[str, int]]
    """Stream to the number of frames in each state: missing, detected, tracked, filled."""
    num_pose_frames: int
    """Frames in which the body was found."""
    num_face_frames: int
    """Frames in which the face was found by the face detector."""
    num_damaged_frames: int | None = None
    """Frames, of those extracted, that the decoder had to invent, at least in part, or that build on such frames; they
    have no points and no crops. None in records of versions that did not look."""
    assumed_matrix: Literal["bt601", "bt709"] | None = None
    """Matrix by which YUV was made RGB although the video states none; None when it does, and in records of versions
    that always took BT.601."""
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
        DamagedFile: It is no JSON or has other fields.
    """
    try:
        return VideoMetadata.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedFile(path, f"'{'.'.join(map(str, first['loc']))}': {first['msg']}") from None
    except ValueError as error:
        raise DamagedFile.of(path, error) from None
