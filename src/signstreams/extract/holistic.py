"""MediaPipe Holistic as a detector: body, face and hands of one person, from the models in MediaPipe's wheel."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import types
from typing import Any, Self

import numpy as np

from signstreams.config.extract import ExtractConfig, HolisticConfig
from signstreams.extract.detectors import MIN_CONFIDENCE, DetectorKind, VideoContext, missing_keypoints
from signstreams.extract.hands import assign_hands
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, NUM_FACE, POSE
from signstreams.formats.metadata import DetectorInfo


def holistic_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """Name, version and settings of `HolisticDetector`, without importing MediaPipe."""
    return DetectorInfo(
        name="mediapipe_holistic",
        version=importlib.metadata.version("mediapipe"),
        settings={"model_complexity": 1, **config.holistic.model_dump()},
    )


class HolisticDetector:
    """MediaPipe Holistic in tracking mode: one person; hands and face are looked for where the body has them.

    Its hands are named from the person's view (the separate Hands solution assumes a mirrored selfie and names them the
    other way round); `assign_hands` holds it to the person's own wrists. One object for each video: it follows the
    person from frame to frame.
    """

    def __init__(self, config: HolisticConfig) -> None:
        self._config = config
        self._graph: Any = None
        self._quiet = QuietStderr()
        with self._quiet:
            self._make_graph = _holistic_class()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._quiet:
            if self._graph is not None:
                self._graph.close()
        self._quiet.close()

    def detect(self, frame: Frame) -> np.ndarray:
        """See `Detector`."""
        image = frame.image
        # The graph starts in threads that report on stderr, and waits for them only with the first frame; the first
        # person brings a warning of its own, whenever she comes.
        with self._quiet:
            if self._graph is None:
                self._graph = self._make_graph(
                    model_complexity=1,
                    min_detection_confidence=self._config.min_detection_confidence,
                    min_tracking_confidence=self._config.min_tracking_confidence,
                )
            found = self._graph.process(image)
        keypoints = missing_keypoints()
        if found.pose_landmarks is None:
            return keypoints  # face and hands are looked for from the body; none without it
        keypoints[POSE] = [
            (point.x, point.y, min(1.0, max(point.visibility, MIN_CONFIDENCE)))
            for point in found.pose_landmarks.landmark
        ]
        if found.face_landmarks is not None:
            keypoints[FACE, :2] = [(point.x, point.y) for point in found.face_landmarks.landmark[:NUM_FACE]]
            keypoints[FACE, 2] = 1.0
        for rows, hand in ((HAND_L, found.left_hand_landmarks), (HAND_R, found.right_hand_landmarks)):
            if hand is not None:
                keypoints[rows, :2] = [(point.x, point.y) for point in hand.landmark]
                keypoints[rows, 2] = 1.0
        height_px, width_px = image.shape[:2]
        return assign_hands(keypoints, width_px / height_px)


def start_holistic(config: ExtractConfig, video: VideoContext) -> HolisticDetector:
    """For one video: the graph follows a person from frame to frame."""
    return HolisticDetector(config.holistic)


HOLISTIC = DetectorKind(holistic_info, start_holistic)


def _holistic_class() -> Any:
    """MediaPipe's Holistic. Importing it draws in matplotlib's plotting for helpers unused here: a second a video.

    An empty module takes its place during the import, unless matplotlib is there already.
    """
    stand_ins = {name: types.ModuleType(name) for name in ("matplotlib", "matplotlib.pyplot")}
    used = "matplotlib" not in sys.modules and "mediapipe" not in sys.modules
    if used:
        stand_ins["matplotlib"].__path__ = []  # type: ignore[attr-defined]  # a package, so that its child is importable
        stand_ins["matplotlib"].pyplot = stand_ins["matplotlib.pyplot"]  # type: ignore[attr-defined]
        sys.modules.update(stand_ins)
    try:
        from mediapipe.python.solutions.holistic import Holistic
    finally:
        if used:
            for name in stand_ins:
                sys.modules.pop(name, None)
    return Holistic


class QuietStderr:
    """While entered, holds back what native code (MediaPipe, TFLite, absl) writes to stderr; shows it on failure.

    Cheap enough for every frame (0.01 ms). Not reentrant.
    """

    def __init__(self) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._held.seek(0)
        self._held.truncate()
        self._kept = os.dup(2)
        os.dup2(self._held.fileno(), 2)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        if kind is not None:
            self._held.seek(0)
            os.write(2, self._held.read())

    def close(self) -> None:
        """Free the file."""
        self._held.close()
