"""Config of extraction: from videos to crops, keypoints, pose and tracks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from signstreams.config.section import Flag, Prob, Section, refuse_without_effect
from signstreams.formats.video_metadata import FacePrivacy
from signstreams.ids import by_composition, composed


class TrackerConfig(Section):
    """The project's own tracker, on MediaPipe's models."""

    stride: Annotated[int, Field(ge=1, le=10)] = 1
    """Detect on every k-th frame only and interpolate in between: faster, less exact (docs/extraction.md)."""
    models: Path | None = None
    """Folder with the models; none: where `signstreams models` puts them."""
    download: bool = False
    """Fetch the models first if they are not there."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)?$")] = ""
    """Where torch runs the models in batches: cpu, cuda, cuda:1. Empty: LiteRT, on the CPU, twice as fast there."""


class HolisticConfig(Section):
    """MediaPipe Holistic, model complexity 1, where it is installed: for comparison, and for models trained on it."""

    min_detection_confidence: Prob = 0.5
    """Least score of a person detection."""
    min_tracking_confidence: Prob = 0.5
    """Least score for tracking the body from the previous frame; below it, the person is detected again."""
    stride: Annotated[int, Field(ge=1, le=10)] = 1
    """Detect on every k-th frame only and interpolate in between: faster, less exact (docs/extraction.md)."""
    in_flight: Annotated[int, Field(ge=1, le=8)] = 2
    """Frames processed at the same time within one video: the same results, faster if a core is free."""


class PrecomputedConfig(Section):
    """Points that another tool found: 543 of MediaPipe or 133 of COCO-WholeBody (RTMPose, HRNet, ViTPose, DWPose)."""

    folder: Path | None = None
    """Folder with <video>.npz, <video>.npy or <video>.pose for every video."""
    units: Literal["auto", "fraction", "px"] = "auto"
    """Units of x and y: fraction or px of the upright frame. auto: px if most are above 2; .pose files have px."""
    min_confidence: Prob = 0.3
    """Of 133 points, those below this confidence count as missing: top-down models guess every point. A hand or face of
    which less than half reach it is missing. MediaPipe's 543 count as missing where their file says so."""


class SignerConfig(Section):
    """Which of several people is the signer; ``box`` in meta.csv takes precedence."""

    choose: Literal["motion", "none"] = "motion"
    """motion: detect people and, of several, take the one whose hands move most; none: the detector's own choice."""


class BoxConfig(Section):
    """From points to square boxes. Durations in seconds, so that a setting means the same at any frame rate."""

    face_scale: Annotated[float, Field(ge=1, le=4)] = 1.3
    """Side of the face box over the extent of the face points, which end at chin and mid-forehead."""
    hand_scale: Annotated[float, Field(ge=1, le=4)] = 1.5
    """Side of a hand box over the extent of the 21 joints, which are inside the hand."""
    min_visibility: Prob = 0.5
    """Least visibility of the body points that place a box where the detector found no face or hand."""
    max_gap_s: Annotated[float, Field(ge=0, le=2)] = 0.25
    """Longest time between two known boxes across which boxes are interpolated."""
    centre_smoothing_s: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Standard deviation of the Gaussian (symmetric in time: no lag) that smooths box centres; 0 switches it off."""
    size_smoothing_s: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """The same for box sizes, which change more slowly than hands move."""


class ExtractConfig(Section):
    """Cut face and hand crops from videos and write keypoints, pose, tracks and metadata.

    One video, several, or a folder of them; existing results of the same video and settings are left as they are.
    """

    videos: list[Path]
    """Videos, or folders of them: files, and folders of images. A file's id is its name without ending, a folder's
    its name."""
    root: Path
    """Corpus folder: results go into its `processed/`."""
    only: Path | None = None
    """Extract only the videos listed by id in this text file, one per line."""
    manifest: Path | None = None
    """JSON file that is written once all videos are done: each id with status, frames and checksum of metadata."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames per second to take, by timestamp: 30 to 25 gives 25. None takes every frame at its own time."""
    frames_fps: Annotated[float, Field(gt=0, le=1000)] = 25.0
    """Frames per second of a video that is a folder of images."""
    crop_px: Annotated[int, Field(ge=16, le=1024)] = 224
    """Side of the square crops."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Quality of the crops' JPEG encoding."""
    max_failed_fraction: Prob = 0.1
    """Share of several videos that may be unreadable before the run counts as failed."""
    num_jobs: Annotated[int, Field(ge=1, le=256), Flag("--jobs")] = 1
    """Videos processed in parallel, each in its own process; one keeps about 1.4 cores busy."""
    force: bool = False
    """Extract again even where results of the same video and settings exist."""
    max_buffer_mib: Annotated[int, Field(ge=16)] = 256
    """Memory for decoded frames, most of which wait for their box; 4K and 1080p above 60 Hz need more
    (docs/extraction.md)."""
    face_privacy: FacePrivacy = "none"
    """What crops and previews show of the signer's face: everything (none), only eyes with brows and mouth
    (eyes-mouth), or averages over cells of a seventh of its height, blurred (blur)."""
    spans_only: bool = False
    """Extract only the spans annotated in ROOT/meta.csv, padded, rather than whole videos."""
    span_padding_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Seconds kept before and after each annotated span."""
    detector: Literal["tracker", "holistic", "precomputed"] = "tracker"
    """Where the points come from: our tracker, MediaPipe Holistic (pip install 'signstreams[holistic]'), or files of
    another tool (``precomputed.folder``)."""
    tracker: TrackerConfig = TrackerConfig()
    holistic: HolisticConfig = HolisticConfig()
    precomputed: PrecomputedConfig = PrecomputedConfig()
    signer: SignerConfig = SignerConfig()
    boxes: BoxConfig = BoxConfig()

    @field_validator("videos")
    @classmethod
    def _some_video(cls, videos: list[Path]) -> list[Path]:
        if not videos:
            raise ValueError("names no video; give a file or a folder")
        return videos

    @model_validator(mode="after")
    def _precomputed_has_a_folder(self) -> ExtractConfig:
        if self.detector == "precomputed" and self.precomputed.folder is None:
            raise ValueError("detector precomputed needs the folder of its points; set precomputed.folder")
        return self

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> ExtractConfig:
        for key in ("tracker", "holistic", "precomputed"):
            if key != self.detector:
                idle = getattr(self, key)
                refuse_without_effect(idle, type(idle).model_fields, f"detector is '{self.detector}'", prefix=f"{key}.")
        if not self.spans_only:
            refuse_without_effect(self, ("span_padding_s",), "spans_only is false")
        return self

    def settings(self) -> dict[str, Any]:
        """Settings that shape the results, in the order of the class; paths and the number of processes do not."""
        whole = {"videos", "root", "only", "manifest", "max_failed_fraction", "num_jobs", "force"}
        parts = {"precomputed": {"folder"}, "holistic": {"in_flight"}, "tracker": {"models", "download", "device"}}
        # Settings of before know no tracker: with another detector they are as they were.
        whole.add("holistic" if self.detector == "tracker" else "tracker")
        return self.model_dump(mode="json", exclude={**parts, **dict.fromkeys(whole, True)})

    @property
    def stride(self) -> int:
        """Of the detector that is used: on every k-th frame."""
        return {"tracker": self.tracker.stride, "holistic": self.holistic.stride}.get(self.detector, 1)


# -- Files of precomputed points; the workflow asks for every video when it starts

SUFFIXES = (".npz", ".npy", ".pose")


def points_path(folder: Path | None, video_id: str) -> Path | None:
    """The video's file of points; None when there is none."""
    return next(iter(_candidates(folder, video_id)), None) if folder else None


def missing_points(config: ExtractConfig, video_ids: Iterable[str]) -> list[str]:
    """One line per video without points or with several files of them; none for other detectors."""
    folder = config.precomputed.folder
    if config.detector != "precomputed" or folder is None:
        return []
    if not folder.is_dir():
        return [f"{folder}: no such folder; expected the points of the videos (precomputed.folder)"]
    problems = []
    for video_id in video_ids:
        found = _candidates(folder, video_id)
        if not found:
            endings = ", ".join(SUFFIXES)
            problems.append(
                f"{folder / video_id}: no points of this video, expected a file ending in {endings}; "
                "add it, or leave the video out"
            )
        elif len(found) > 1:
            problems.append(f"{found[0]}: the points of this video are also in {found[1].name}; remove one of them")
        elif found[0].suffix == ".pose" and importlib.util.find_spec("pose_format") is None:
            problems.append(f"{found[0]}: reading .pose files needs pose-format; pip install 'signstreams[extract]'")
    return problems


def _candidates(folder: Path, video_id: str) -> list[Path]:
    found = [path for suffix in SUFFIXES if (path := folder / f"{video_id}{suffix}").is_file()]
    if found or video_id.isascii() or not folder.is_dir():
        return found
    as_on_disk = by_composition(os.listdir(folder))
    names = (as_on_disk.get(composed(f"{video_id}{suffix}")) for suffix in SUFFIXES)
    return [folder / name for name in names if name is not None and (folder / name).is_file()]
