"""MediaPipe Holistic as a detector: body, face and hands of one person, from the models in MediaPipe's wheel."""

from __future__ import annotations

import importlib.metadata
from collections import deque
from typing import Self

from signstreams.array_types import Floats
from signstreams.config.extract import ExtractConfig, HolisticConfig
from signstreams.extract.detectors import MIN_CONFIDENCE, DetectorKind, VideoContext, missing_keypoints
from signstreams.extract.graph import OUTPUTS, HolisticGraph
from signstreams.extract.hands import assign_hands
from signstreams.extract.solutions import QuietStderr, solution_class
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, NUM_FACE, POSE
from signstreams.formats.metadata import DetectorInfo


def holistic_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """Name, version and settings of `HolisticDetector`, without importing MediaPipe."""
    return DetectorInfo(
        name="mediapipe_holistic",
        version=importlib.metadata.version("mediapipe"),
        settings={"model_complexity": 1, **config.holistic.model_dump(exclude={"in_flight"})},
    )


class HolisticDetector:
    """MediaPipe Holistic in tracking mode: one person; hands and face are looked for where the body has them.

    Its hands are named from the person's view (the separate Hands solution assumes a mirrored selfie and names them the
    other way round); `assign_hands` holds it to the person's own wrists. One object for each video: it follows the
    person from frame to frame.
    """

    def __init__(self, config: HolisticConfig) -> None:
        self._config = config
        self._graph: HolisticGraph | None = None
        self._aspect_ratios: deque[float] = deque()
        self._has_found = False
        self._quiet = QuietStderr()
        with self._quiet:
            self._solution_class = solution_class("holistic", "Holistic")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._quiet:
            if self._graph is not None:
                self._graph.close()
        self._quiet.close()

    @property
    def max_in_flight(self) -> int:
        """Frames that may be submitted before one is collected; one until somebody was found (see `submit`)."""
        return self._config.in_flight if self._has_found else 1

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`."""
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """Start on the next frame; results are collected in the same order."""
        # The graph starts in threads that report on stderr, and waits for them only with the first frame; the first
        # person brings warnings of its own, whenever she comes: until then, each frame is waited for in silence.
        with self._quiet:
            if self._graph is None:
                self._graph = HolisticGraph(
                    self._solution_class(
                        model_complexity=1,
                        min_detection_confidence=self._config.min_detection_confidence,
                        min_tracking_confidence=self._config.min_tracking_confidence,
                    )
                )
            self._graph.submit(frame.image)
            if not self._has_found:
                self._graph.wait()
        height_px, width_px = frame.image.shape[:2]
        self._aspect_ratios.append(width_px / height_px)

    def collect(self) -> Floats:
        """(543, 3) points of the oldest frame submitted and not collected; waits for them."""
        assert self._graph is not None
        with self._quiet:
            found = self._graph.collect()
        aspect_ratio = self._aspect_ratios.popleft()
        keypoints = missing_keypoints()
        body, face, left, right = (found[name] for name in OUTPUTS)
        if body is None:
            return keypoints  # face and hands are looked for from the body; none without it
        self._has_found = True
        keypoints[POSE] = [
            (point.x, point.y, min(1.0, max(point.visibility, MIN_CONFIDENCE))) for point in body.landmark
        ]
        if face is not None:
            keypoints[FACE, :2] = [(point.x, point.y) for point in face.landmark[:NUM_FACE]]
            keypoints[FACE, 2] = 1.0
        for rows, hand in ((HAND_L, left), (HAND_R, right)):
            if hand is not None:
                keypoints[rows, :2] = [(point.x, point.y) for point in hand.landmark]
                keypoints[rows, 2] = 1.0
        return assign_hands(keypoints, aspect_ratio)


def start_holistic(config: ExtractConfig, video: VideoContext) -> HolisticDetector:
    """For one video: the graph follows a person from frame to frame."""
    return HolisticDetector(config.holistic)


HOLISTIC = DetectorKind(holistic_info, start_holistic)
