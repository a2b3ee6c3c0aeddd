"""The project's tracker as a detector: it holds a window of frames, so that hands are found from later ones, too."""

from __future__ import annotations

from collections import deque
from typing import Self

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.detectors import MAX_GAP_S, MIN_CONFIDENCE, DetectorKind, VideoContext, missing_keypoints
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE
from signstreams.formats.video_metadata import DetectorInfo
from signstreams.tracker.body import SMOOTHED_OVER_S, UNKNOWN_HEAD, BodyTracker, smoothed
from signstreams.tracker.engine import Engine, shared_engine
from signstreams.tracker.faces import FaceMesh
from signstreams.tracker.hands import Hands, HandTracker

VERSION = "1"  # raised when the same frames give other points
WINDOW_FRAMES = 32  # 1.3 s at 25 Hz: a hand that is lost for longer is searched along the forearm
MIN_WINDOW_FRAMES = 4
_SHARE = 3  # of the memory for decoded frames, one part is the window's: 1080p gets 14 of them
OVERLAP = 4  # a quarter of the window is held for the next one, whose hands may reach back


def window_frames(config: ExtractConfig, width_px: int, height_px: int) -> int:
    """Frames that are seen at a time; with a stride, those between them are held as well."""
    affordable = config.max_buffer_mib * 2**20 // (_SHARE * width_px * height_px * 3 * config.tracker.stride)
    return int(np.clip(affordable, MIN_WINDOW_FRAMES, WINDOW_FRAMES))


class TrackerDetector:
    """Body, face and hands of one person; one object per video.

    Frames are processed by the window. The last quarter of each is held and processed with the next: a hand that is
    found there is followed backward into it.
    """

    def __init__(self, engine: Engine, config: ExtractConfig, video: VideoContext) -> None:
        self._size_px = (video.width_px, video.height_px)
        self.max_in_flight = window_frames(config, *self._size_px)
        self._body, self._hands, self._faces = BodyTracker(engine), HandTracker(engine), FaceMesh(engine)
        self._images: list[Pixels] = []
        self._times_s: list[float] = []
        self._heads: list[tuple[float, float, float] | None] = []
        # What is known of the first images, which are held for the second time: body, face and hands.
        self._known: tuple[Floats, Floats, Hands] | None = None
        self._past: tuple[Floats, Floats] = np.empty((0, 33, 4)), np.empty(0)  # body and times of frames let go
        self._ready: deque[Floats] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._images.clear()

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`; a frame by itself, without those after it."""
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """See `InFlight`."""
        if self._times_s and frame.time_s - self._times_s[-1] > MAX_GAP_S:
            self._process(0)  # nothing reaches across
        self._images.append(frame.image)
        self._times_s.append(frame.time_s)
        self._heads.append(frame.head)
        if len(self._images) == self.max_in_flight:
            self._process(self.max_in_flight // OVERLAP)

    def collect(self) -> Floats:
        """See `InFlight`."""
        if not self._ready:
            self._process(0)
        return self._ready.popleft()

    def _process(self, num_held: int) -> None:
        """Find everything in the window and let go of all frames but the last ``num_held``."""
        if not self._images:
            return
        times_s = np.array(self._times_s)
        body, face, known = (np.empty((0, 33, 4)), np.empty((0, 468, 2)), None) if self._known is None else self._known
        first = len(body)  # of the new frames
        new = self._images[first:]
        if new:
            heads = np.array([head or UNKNOWN_HEAD for head in self._heads[first:]])  # (M, 3)
            found = self._body.track(new, heads)  # (M, 33, 4) px
            body = np.concatenate([body, found])  # (N, 33, 4)
            head = smoothed(found, times_s[first:])  # a region that rests makes a mesh that rests
            face = np.concatenate([face, self._faces.find(new, head)])  # (N, 468, 2) px
        hands = self._hands.find(self._images, times_s, body, known)
        num_done = len(self._images) - num_held
        steady = self._steady(body, times_s, num_done)
        self._ready.extend(_keypoints(steady, face[:num_done], hands, self._size_px))
        self._known = (body[num_done:], face[num_done:], hands.since(num_done)) if num_held else None
        del self._images[:num_done], self._times_s[:num_done], self._heads[:num_done]

    def _steady(self, body: Floats, times_s: Floats, num_done: int) -> Floats:
        """(num_done, 33, 4) body points of the first frames, smoothed with those before and after."""
        past, past_s = self._past
        body, times_s = np.concatenate([past, body]), np.concatenate([past_s, times_s])
        first, end = len(past), len(past) + num_done
        kept = np.arange(len(times_s)) >= np.searchsorted(times_s, times_s[end - 1] - SMOOTHED_OVER_S)
        kept[end:] = False  # they come again
        self._past = body[kept], times_s[kept]
        return smoothed(body, times_s)[first:end]


def _keypoints(body: Floats, face: Floats, hands: Hands, size_px: tuple[int, int]) -> list[Floats]:
    """N arrays of (543, 3) points as fractions of the frame, from (N, 33, 4) and (N, 468, 2) px."""
    result = np.tile(missing_keypoints(), (len(body), 1, 1))  # (N, 543, 3)
    is_seen = ~np.isnan(body[:, 0, 0])
    result[is_seen, POSE, :2] = body[is_seen, :, :2] / size_px
    result[is_seen, POSE, 2] = np.clip(body[is_seen, :, 3], MIN_CONFIDENCE, 1)
    is_seen = ~np.isnan(face[:, 0, 0])
    result[is_seen, FACE, :2] = face[is_seen] / size_px
    result[is_seen, FACE, 2] = 1
    for side, rows in enumerate((HAND_L, HAND_R)):
        confidence = hands.confidence[: len(body), side]  # (N,)
        is_seen = confidence > 0
        result[is_seen, rows, :2] = hands.points[: len(body)][is_seen, side] / size_px
        result[is_seen, rows, 2] = confidence[is_seen, None]
    return list(result)


def tracker_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """Name, version and settings of `TrackerDetector`, without importing an engine."""
    return DetectorInfo(name="tracker", version=VERSION, settings={"stride": config.tracker.stride})


def start_tracker(config: ExtractConfig, video: VideoContext) -> TrackerDetector:
    """Detector for one video."""
    return TrackerDetector(shared_engine(config.tracker.models, config.tracker.device), config, video)


TRACKER = DetectorKind(tracker_info, start_tracker)
