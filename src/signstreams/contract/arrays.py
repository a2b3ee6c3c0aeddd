"""Checks of the per-frame arrays: keypoints, pose, tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from signstreams.array_types import Flags, Floats
from signstreams.contract import rules
from signstreams.contract.check_records import EXTRACT_AGAIN
from signstreams.corpus.findings import Finding, Rule, few
from signstreams.formats.arrays import PIECE_FRAMES, StreamTrack, Tracks, keypoint_pieces
from signstreams.formats.landmarks import NUM_POSE, POSE
from signstreams.streams import BoxState

MAX_FRAME_SIZES = 10.0  # body points may be outside the frame (hips below it), but not this many frame sizes away
SQUARE_PX, SQUARE_RATIO = 1.0, 0.01  # sides of a square box may differ by a pixel, or by a hundredth of a large one


class PointSurvey:
    """Counts wrong points in an array that is read piece by piece; x and y are to be within ``limits``.

    The rules are those for points that are not finite, half missing and out of range. ``num_pose_frames`` of the
    ``num_frames`` read so far have a body point.
    """

    KINDS = ("are not finite", "are half missing", "are out of range")

    def __init__(self, broken: tuple[Rule, Rule, Rule], limits: tuple[float, float]) -> None:
        self._rules, self._limits = broken, limits
        self._num_points, self._num_wrong_frames, self._examples = [0, 0, 0], [0, 0, 0], ["", "", ""]
        self.num_frames = self.num_pose_frames = 0

    def add(self, points: Floats) -> None:
        """Count in the next frames (T', J, 3), the 33 body points first."""
        for kind, wrong in enumerate(_wrong_points(points, self._limits)):  # (T', J) each
            if not wrong.any():
                continue
            frame, point = (int(index) for index in np.argwhere(wrong)[0])
            values = ", ".join(f"{value:.4g}" for value in points[frame, point])
            example = f"frame {self.num_frames + frame} point {point} is ({values})"
            self._examples[kind] = self._examples[kind] or example
            self._num_points[kind] += int(wrong.sum())
            self._num_wrong_frames[kind] += int(wrong.any(axis=1).sum())
        self.num_frames += len(points)
        self.num_pose_frames += int((points[:, POSE, 2] > 0).any(axis=1).sum())

    def findings(self, name: str) -> list[Finding]:
        """Findings about the array called ``name``."""
        counts = zip(self._rules, self.KINDS, self._num_points, self._num_wrong_frames, self._examples, strict=True)
        return [
            rule.breach(name, f"{num_points:,} points {what} in {num_frames:,} frames: {example}", EXTRACT_AGAIN)
            for rule, what, num_points, num_frames, example in counts
            if num_points
        ]


def survey_keypoints(path: Path) -> PointSurvey:
    """Survey the keypoints of a video, holding one piece of them in memory at a time.

    Raises:
        DamagedFile: As `signstreams.formats.arrays.read_keypoints`.
    """
    broken = (rules.KEYPOINTS_FINITE, rules.KEYPOINTS_SENTINEL, rules.KEYPOINTS_RANGE)
    survey = PointSurvey(broken, (-MAX_FRAME_SIZES, MAX_FRAME_SIZES))
    for piece in keypoint_pieces(path):
        survey.add(piece)
    return survey


def survey_pose(pose: Floats) -> PointSurvey:
    """Survey the pose (T, 99) of a video."""
    survey = PointSurvey((rules.POSE_FINITE, rules.POSE_SENTINEL, rules.POSE_RANGE), (0.0, 1.0))
    points = pose.reshape(-1, NUM_POSE, 3)  # (T, 33, 3)
    for start in range(0, len(points), PIECE_FRAMES):
        survey.add(points[start : start + PIECE_FRAMES])
    return survey


def _wrong_points(points: Floats, limits: tuple[float, float]) -> tuple[Flags, Flags, Flags]:
    """(T, J) each: points that are not finite, half missing, out of range."""
    x, y, confidence = np.moveaxis(points, -1, 0)  # (T, J) each
    finite = np.isfinite(points).all(axis=-1)
    missing = (x == -1) & (y == -1) & (confidence == 0)
    half_missing = finite & ~missing & ((x == -1) | (y == -1) | (confidence == 0))
    far = ((points[..., :2] < limits[0]) | (points[..., :2] > limits[1])).any(axis=-1)
    outside = finite & ~missing & ~half_missing & (far | (confidence < 0) | (confidence > 1))
    return np.asarray(~finite), half_missing, outside


def check_tracks(value: Tracks, size_px: tuple[int, int] | None, name: str) -> list[Finding]:
    """Check that times rise, and that boxes are squares that touch the frame, or -1 where the state is missing.

    ``size_px`` is width and height of the frame; None when unknown.
    """
    findings = []
    times_s = value.times_s
    wrong = ~np.isfinite(times_s) | (times_s < 0)
    wrong[1:] |= ~(np.diff(times_s) > 0)
    if wrong.any():
        found = f"{int(wrong.sum()):,} times are wrong: {_frames(wrong)}"
        findings.append(rules.TRACKS_TIMES.breach(name, found, EXTRACT_AGAIN))
    for stream, track in value.streams.items():
        findings += _check_track(track, stream, size_px, name)
    return findings


def _check_track(track: StreamTrack, stream: str, size_px: tuple[int, int] | None, name: str) -> list[Finding]:
    state, box, confidence = track.state, track.box, track.confidence
    missing = state == BoxState.MISSING
    blank = (box == -1).all(axis=1) & (confidence == 0)
    found = (
        (rules.TRACKS_STATE, state > max(BoxState), "states are unknown"),
        (rules.TRACKS_SENTINEL, missing & ~blank, "missing frames have a box or a confidence"),
        (rules.TRACKS_BOX, ~missing & ~_is_sane(box, size_px), "boxes are wrong"),
        (rules.TRACKS_CONFIDENCE, ~missing & ~((confidence >= 0) & (confidence <= 1)), "confidences are out of range"),
    )
    return [
        rule.breach(name, f"{stream}: {int(wrong.sum()):,} {what}: {_frames(wrong)}", EXTRACT_AGAIN)
        for rule, wrong, what in found
        if wrong.any()
    ]


def _is_sane(box: Floats, size_px: tuple[int, int] | None) -> Flags:
    """(T,) whether a box (T, 4) is finite, square, of positive size and touches the frame."""
    with np.errstate(invalid="ignore"):
        width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
        sane: Flags = np.isfinite(box).all(axis=1) & (width > 0) & (height > 0)
        sane &= np.abs(width - height) <= np.maximum(SQUARE_PX, SQUARE_RATIO * height)
        if size_px is not None:
            sane &= (box[:, 0] < size_px[0]) & (box[:, 1] < size_px[1]) & (box[:, 2] > 0) & (box[:, 3] > 0)
    return sane


def _frames(wrong: Flags) -> str:
    return f"frames {few(np.flatnonzero(wrong).tolist())}"


def check_agreement(track: StreamTrack, frames: list[int], stream: str, name: str) -> list[Finding]:
    """Check that there is a crop exactly where the state is not missing."""
    expected = set(np.flatnonzero(track.state != BoxState.MISSING).tolist())
    there = {frame for frame in frames if frame < len(track.state)}
    findings = []
    for wrong, what, where in ((expected - there, "no crop", "has a box"), (there - expected, "a crop", "is missing")):
        if wrong:
            found = f"{what} in {len(wrong):,} frames where {stream} {where}: frames {few(sorted(wrong))}"
            findings.append(rules.TRACKS_AGREE.breach(name, found, EXTRACT_AGAIN))
    return findings
