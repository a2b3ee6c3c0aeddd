"""Frames through a detector: in order, several in flight where it can, every k-th one where that is enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from signstreams.array_types import Floats
from signstreams.extract.detectors import Detector, missing_keypoints
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE

MAX_GAP_S = 0.5
"""Frames farther apart than this are of different spans; nothing is interpolated across."""
_PARTS = (POSE, FACE, HAND_L, HAND_R)


class Detection(NamedTuple):
    """Points of one frame.

    Attributes:
        frame: The frame.
        keypoints: (543, 3) float32.
        is_interpolated: Whether the detector was not asked and the points lie between those of its neighbours.
    """

    frame: Frame
    keypoints: Floats
    is_interpolated: bool


class InFlight(Protocol):
    """A detector that takes frames before the last ones are done."""

    @property
    def max_in_flight(self) -> int: ...

    def submit(self, frame: Frame) -> None: ...

    def collect(self) -> Floats: ...


class _InStep:
    """One frame at a time, for a detector that knows no other way."""

    max_in_flight = 1

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def submit(self, frame: Frame) -> None:
        self._keypoints = self._detector.detect(frame)

    def collect(self) -> Floats:
        return self._keypoints


def in_flight(detector: Detector) -> InFlight:
    """The detector, as one that is fed and collected from."""
    return detector if hasattr(detector, "submit") else _InStep(detector)  # type: ignore[return-value]


def detections(detector: Detector, frames: Iterable[Frame], stride: int = 1) -> Iterator[Detection]:
    """Points of every frame, in order. A frame that repeats the one before is not looked at again.

    Args:
        detector: Asked for every ``stride``-th new frame and the last one of each span.
        frames: In order of time.
        stride: 1 asks for every new frame; else points between two frames asked for are interpolated linearly in time.
    """
    between: deque[Frame] = deque()  # of two frames that were asked for
    before: Detection | None = None
    for detection in _asked(detector, _chosen(frames, stride, between)):
        while between and between[0].time_s < detection.frame.time_s:
            assert before is not None
            yield _interpolated(between.popleft(), before, detection)
        yield detection
        before = detection


def _chosen(frames: Iterable[Frame], stride: int, between: deque[Frame]) -> Iterator[Frame]:
    """Frames to ask for; the others are appended to ``between``. A repeat goes where the frame that it repeats went."""
    since, last_s = 0, 0.0  # new frames from the last one asked for on; 0 at the start of a span
    for frame in frames:
        if frame.time_s - last_s > MAX_GAP_S:
            if since > 1:
                yield from _last_shown(between)  # the last of a span: what comes next is somewhere else
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


def _asked(detector: Detector, frames: Iterable[Frame]) -> Iterator[Detection]:
    worker = in_flight(detector)
    waiting: deque[Frame] = deque()
    num_submitted = 0
    keypoints: Floats | None = None

    def next_one() -> Detection:
        nonlocal keypoints, num_submitted
        frame = waiting.popleft()
        if keypoints is None or not frame.is_repeat:
            keypoints, num_submitted = worker.collect(), num_submitted - 1
        return Detection(frame, keypoints, False)

    is_first = True
    for frame in frames:
        if is_first or not frame.is_repeat:
            worker.submit(frame)
            num_submitted += 1
        is_first = False
        waiting.append(frame)
        while num_submitted >= worker.max_in_flight or (waiting and num_submitted == 0):
            yield next_one()
    while waiting:
        yield next_one()


def _interpolated(frame: Frame, before: Detection, after: Detection) -> Detection:
    """Between two detections; a part (body, face, a hand) that one of them lacks is missing."""
    share = (frame.time_s - before.frame.time_s) / (after.frame.time_s - before.frame.time_s)
    keypoints = missing_keypoints()
    for part in _PARTS:
        first, last = before.keypoints[part], after.keypoints[part]
        seen = (first[:, 2] > 0) & (last[:, 2] > 0)
        keypoints[part][seen] = (1 - share) * first[seen] + share * last[seen]
    return Detection(frame, keypoints, True)
