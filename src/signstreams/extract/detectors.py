"""Detectors: the protocol, from a frame to the 543 points of one person; frames in flight, stride.

To add one, write a class with the methods of `Detector`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from signstreams.array_types import Floats
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, MISSING, NUM_KEYPOINTS, POSE, pose_index
from signstreams.formats.video_metadata import DetectorInfo

MIN_CONFIDENCE = 1e-4  # least confidence of a point that was found: 0 means missing


class VideoContext(NamedTuple):
    """What a detector may know about its video."""

    path: Path
    video_id: str
    width_px: int  # of the upright frame
    height_px: int
    fps: float  # mean rate of the source as declared, Hz; 0 when unknown
    box: tuple[float, float, float, float] | None = None  # of the signer, x0, y0, x1, y1 in px, if meta.csv says so
    duration_s: float | None = None  # length as declared; None when unknown


class Detector(Protocol):
    """Finds the points of one person, frame after frame of one video."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def detect(self, frame: Frame) -> Floats:
        """(543, 3) float32 points of the next frame: x, y, confidence; `MISSING` rows where nothing was found.

        Order and units are those of `signstreams.formats.landmarks`; hands are anatomical.
        """
        ...


class DetectorKind(NamedTuple):
    """How to describe a detector, without importing what it needs, and how to start it for one video."""

    info: Callable[[ExtractConfig, str], DetectorInfo]
    """Describes the detector for the video with this id; must change with whatever changes its results."""
    start: Callable[[ExtractConfig, VideoContext], Detector]
    """Makes the detector. Raises `UnreadableVideoError` when it cannot process this video."""
    sees_pixels: bool = True  # whether it uses the image; if not, the signer is not chosen from pixels


def missing_keypoints() -> Floats:
    """(543, 3) float32, every point missing."""
    return np.tile(np.array(MISSING, np.float32), (NUM_KEYPOINTS, 1))


class InFlight(Protocol):
    """A detector that also takes frames before earlier ones are done; optional."""

    @property
    def max_in_flight(self) -> int: ...

    def submit(self, frame: Frame) -> None: ...

    def collect(self) -> Floats: ...


class _OneByOne:
    """One frame at a time, for a detector that only has `detect`."""

    max_in_flight = 1

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def submit(self, frame: Frame) -> None:
        self._keypoints = self._detector.detect(frame)

    def collect(self) -> Floats:
        return self._keypoints


def in_flight(detector: Detector) -> InFlight:
    """The detector as one to submit to and collect from."""
    return detector if hasattr(detector, "submit") else _OneByOne(detector)  # type: ignore[return-value]


# -- Frames through a detector: in order, several in flight if it can, every k-th one if that is enough

MAX_GAP_S = 0.5  # frames farther apart than this belong to different spans; nothing is interpolated across
_PARTS = (POSE, FACE, HAND_L, HAND_R)


class Detection(NamedTuple):
    """Points of one frame."""

    frame: Frame  # the frame
    keypoints: Floats  # (543, 3) float32
    is_interpolated: bool  # whether the points were interpolated between neighbours instead of detected


def detections(detector: Detector, frames: Iterable[Frame], stride: int = 1) -> Iterator[Detection]:
    """Points of every frame, in order of time. A frame that repeats the one before is not detected again; of a damaged
    one all points are missing, whatever the detector found.

    The detector gets every ``stride``-th new frame, and the last one of each span; points in between are interpolated
    linearly in time.
    """
    between: deque[Frame] = deque()  # frames to interpolate
    before: Detection | None = None
    for detection in _detected(detector, _chosen(frames, stride, between)):
        while between and between[0].time_s < detection.frame.time_s:
            assert before is not None
            yield _interpolated(between.popleft(), before, detection)
        yield detection
        before = detection


def _chosen(frames: Iterable[Frame], stride: int, between: deque[Frame]) -> Iterator[Frame]:
    """Frames to detect; the others are appended to ``between``. A repeat goes where the frame it repeats went."""
    since, last_s = 0, 0.0  # new frames since the last chosen one, itself included; 0 at the start of a span
    for frame in frames:
        if frame.time_s - last_s > MAX_GAP_S:
            if since > 1:
                yield from _last_shown(between)  # the last frame of a span
            since = 0
        last_s = frame.time_s
        if frame.is_repeat and since > 0:
            is_chosen = since == 1
        else:
            is_chosen = since in (0, stride)
            since = 1 if is_chosen else since + 1
        if is_chosen:
            yield frame
        else:
            between.append(frame)
    if since > 1:
        yield from _last_shown(between)  # the last frame: nothing after it to interpolate towards


def _last_shown(between: deque[Frame]) -> Iterator[Frame]:
    """The last new frame and its repeats, taken out."""
    shown = [between.pop()]
    while shown[-1].is_repeat:
        shown.append(between.pop())
    return reversed(shown)


def _detected(detector: Detector, frames: Iterable[Frame]) -> Iterator[Detection]:
    worker = in_flight(detector)
    waiting: deque[Frame] = deque()
    num_submitted = 0
    keypoints: Floats | None = None

    def next_one() -> Detection:
        nonlocal keypoints, num_submitted
        frame = waiting.popleft()
        if keypoints is None or not frame.is_repeat:
            keypoints, num_submitted = worker.collect(), num_submitted - 1
        return Detection(frame, missing_keypoints() if frame.is_damaged else keypoints, False)

    for frame in frames:
        if not frame.is_repeat or (keypoints is None and num_submitted == 0):  # the first one is new in any case
            worker.submit(frame)
            num_submitted += 1
        waiting.append(frame)
        while num_submitted >= worker.max_in_flight or (waiting and num_submitted == 0):
            yield next_one()
    while waiting:
        yield next_one()


def _interpolated(frame: Frame, before: Detection, after: Detection) -> Detection:
    """Points between two detections; a part (body, face, a hand) that one of them lacks is missing."""
    share = (frame.time_s - before.frame.time_s) / (after.frame.time_s - before.frame.time_s)
    keypoints = missing_keypoints()
    for part in () if frame.is_damaged else _PARTS:
        first, last = before.keypoints[part], after.keypoints[part]
        seen = (first[:, 2] > 0) & (last[:, 2] > 0)
        keypoints[part][seen] = (1 - share) * first[seen] + share * last[seen]
    return Detection(frame, keypoints, True)


# -- Which detected hand belongs to which side: the person's own wrists decide

WRISTS = (pose_index("left_wrist"), pose_index("right_wrist"))
CLEARLY_NEARER = 0.5
"""A hand belongs to the other wrist if its distance is below this share of the distance to its own wrist."""


def assign_hands(keypoints: Floats, aspect_ratio: float) -> Floats:
    """Put each detected hand into the slot of the body wrist that it clearly belongs to.

    A hand clearly nearer to the other wrist moves there when that slot is empty, or when the two hands are clearly
    swapped. When both detections sit on one wrist (crossing hands draw both trackers onto the same hand), the stray
    one is dropped: the wrist of its own side still says where that hand is.

    ``keypoints`` are the (543, 3) points of one frame, with hands by the detector's own naming; a copy is returned when
    anything changes. ``aspect_ratio`` is the frame's width over its height: distances are the same along x and y.
    """
    is_stray = [_is_stray(keypoints, side, aspect_ratio) for side in (0, 1)]
    if not any(is_stray):
        return keypoints
    result = keypoints.copy()
    if all(is_stray):
        result[HAND_L], result[HAND_R] = keypoints[HAND_R], keypoints[HAND_L]
        return result
    stray, other = (HAND_L, HAND_R) if is_stray[0] else (HAND_R, HAND_L)
    if keypoints[other.start, 2] <= 0:
        result[other] = keypoints[stray]
    result[stray] = MISSING
    return result


def _is_stray(keypoints: Floats, side: int, aspect_ratio: float) -> bool:
    hand_wrist = keypoints[(HAND_L, HAND_R)[side].start]
    own, other = keypoints[WRISTS[side]], keypoints[WRISTS[1 - side]]
    if min(hand_wrist[2], own[2], other[2]) <= 0:
        return False
    to_own, to_other = (np.hypot((hand_wrist[0] - w[0]) * aspect_ratio, hand_wrist[1] - w[1]) for w in (own, other))
    return bool(to_other < CLEARLY_NEARER * to_own)
