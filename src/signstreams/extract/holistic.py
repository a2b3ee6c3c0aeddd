"""MediaPipe Holistic as a detector, for comparison: body, face and hands of one person, by the models in its wheel."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import threading
import types
from collections import deque
from typing import Any, Self

from signstreams.array_types import Floats, Pixels
from signstreams.extract.detectors import MIN_CONFIDENCE, DetectorKind, VideoContext, assign_hands, missing_keypoints
from signstreams.extract.settings import ExtractConfig, HolisticConfig
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, NUM_FACE, POSE
from signstreams.formats.video_metadata import DetectorInfo
from signstreams.processes import QuietStderr

# -- MediaPipe's solutions, imported lean and run quietly


def solution_class(module: str, name: str) -> Any:
    """A class of ``mediapipe.python.solutions``, such as ("holistic", "Holistic").

    The import pulls in matplotlib for helpers unused here: one second per video. An empty module replaces it meanwhile,
    unless matplotlib is imported already.
    """
    stand_ins = {name: types.ModuleType(name) for name in ("matplotlib", "matplotlib.pyplot")}
    used = "matplotlib" not in sys.modules and "mediapipe" not in sys.modules
    if used:
        stand_ins["matplotlib"].__path__ = []  # a package, so that its child is importable
        stand_ins["matplotlib"].pyplot = stand_ins["matplotlib.pyplot"]  # type: ignore[attr-defined]
        sys.modules.update(stand_ins)
    try:
        return getattr(importlib.import_module(f"mediapipe.python.solutions.{module}"), name)
    finally:
        if used:
            for stand_in in stand_ins:
                sys.modules.pop(stand_in, None)


# -- The detector

OUTPUTS = ("pose_landmarks", "face_landmarks", "left_hand_landmarks", "right_hand_landmarks")
STEP_US = 33_333
"""Between timestamps, as in MediaPipe's own Python interface; the body's smoothing filter is tuned to it."""
_CHECK_S = 1.0


class HolisticGraph:
    """MediaPipe's Holistic graph with several frames in flight: submit images, collect landmarks in the same order.

    `Holistic.process` waits for each frame, but the graph itself keeps frames apart by their timestamps. Submitting the
    next frame before the last is done gives the same points, sooner if a core is free. The solution, a
    `mediapipe.python.solutions.holistic.Holistic`, is taken over and closed by `close`.
    """

    def __init__(self, solution: Any) -> None:
        from mediapipe.python.solution_base import PacketDataType

        self._solution = solution
        self._image_type = PacketDataType.IMAGE_FRAME
        self._outputs = _Outputs(solution._output_stream_type_info)
        solution._graph_outputs = self._outputs  # where its observers put what the graph gives
        self._timestamps: deque[int] = deque()
        self._last = 0

    def submit(self, image: Pixels) -> None:
        """Submit (H, W, 3) uint8 RGB; it is copied, and processed while the caller goes on."""
        self._last += STEP_US
        packet = self._solution._make_packet(self._image_type, image).at(self._last)
        self._solution._graph.add_packet_to_input_stream(stream="image", packet=packet)
        self._timestamps.append(self._last)

    def wait(self) -> None:
        """Wait until all images in flight are processed."""
        self._solution._graph.wait_until_idle()

    def collect(self) -> dict[str, Any]:
        """Landmark list per name of `OUTPUTS` for the oldest image in flight, None where nothing was found.

        Raises:
            RuntimeError: The graph failed.
        """
        timestamp = self._timestamps.popleft()
        while not self._outputs.wait(timestamp, _CHECK_S):
            if self._solution._graph.has_error():
                self._solution._graph.wait_until_idle()  # raises what went wrong
        kinds, content = self._solution._output_stream_type_info, self._solution._get_packet_content
        return {
            name: None if packet is None else content(kinds[name], packet)
            for name, packet in self._outputs.take(timestamp)
        }

    def close(self) -> None:
        """End the graph; images in flight are processed first."""
        self._solution.close()


class _Outputs(dict[str, Any]):
    """Packets by stream and timestamp, filled from the graph's threads through item assignment."""

    def __init__(self, names: Any) -> None:
        super().__init__()
        self._packets: dict[tuple[str, int], Any] = {}
        self._latest = dict.fromkeys(names, -1)
        self._changed = threading.Condition()

    def __setitem__(self, name: str, packet: Any) -> None:
        timestamp = packet.timestamp.value
        with self._changed:
            # An empty packet means that nothing comes up to its time: it may stand for several frames.
            if name in OUTPUTS and not packet.is_empty():
                self._packets[name, timestamp] = packet
            self._latest[name] = timestamp
            self._changed.notify_all()

    def wait(self, timestamp: int, timeout_s: float) -> bool:
        """Whether all outputs for the image of this time have arrived."""
        with self._changed:
            return self._changed.wait_for(lambda: min(self._latest.values()) >= timestamp, timeout_s)

    def take(self, timestamp: int) -> list[tuple[str, Any]]:
        with self._changed:
            return [(name, self._packets.pop((name, timestamp), None)) for name in OUTPUTS]


def holistic_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """Name, version and settings of `HolisticDetector`, without importing MediaPipe."""
    return DetectorInfo(
        name="mediapipe_holistic",
        version=importlib.metadata.version("mediapipe"),
        settings={"model_complexity": 1, **config.holistic.model_dump(exclude={"in_flight"})},
    )


class HolisticDetector:
    """MediaPipe Holistic in tracking mode: one person; hands and face are searched where the body has them.

    Its hands are named from the person's view (the separate Hands solution assumes a mirrored selfie and swaps them);
    `assign_hands` checks them against the person's own wrists. One object per video: it tracks from frame to frame.
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
        """Frames that may be submitted before one is collected; one until somebody is found (see `submit`)."""
        return self._config.in_flight if self._has_found else 1

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`."""
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """Start on the next frame; results are collected in the same order."""
        # Threads of the graph write to stderr while it starts, and again when the first person appears: until then,
        # each frame is waited for with stderr held back.
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
            return keypoints  # face and hands are searched from the body: none without it
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
    """Detector for one video."""
    return HolisticDetector(config.holistic)


HOLISTIC = DetectorKind(holistic_info, start_holistic)
