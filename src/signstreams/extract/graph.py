"""MediaPipe's Holistic graph with several frames in flight.

`Holistic.process` waits for each frame, though body and hands of neighbouring frames could be looked for side by side:
the graph itself keeps frames apart by their timestamps. Feeding the next frame before the last is done gives the same
points, sooner, where a core is free.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from signstreams.array_types import Pixels

OUTPUTS = ("pose_landmarks", "face_landmarks", "left_hand_landmarks", "right_hand_landmarks")
STEP_US = 33_333
"""Between timestamps, as in MediaPipe's own Python interface; the body's smoothing filter is tuned to it."""
_CHECK_S = 1.0


class HolisticGraph:
    """Submit images, collect their landmarks in the same order.

    Args:
        solution: A `mediapipe.python.solutions.holistic.Holistic`; taken over and closed by `close`.
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
        """Feed (H, W, 3) uint8 RGB; it is copied, and worked on while the caller goes on."""
        self._last += STEP_US
        packet = self._solution._make_packet(self._image_type, image).at(self._last)
        self._solution._graph.add_packet_to_input_stream(stream="image", packet=packet)
        self._timestamps.append(self._last)

    def wait(self) -> None:
        """Until all images in flight are worked through."""
        self._solution._graph.wait_until_idle()

    def collect(self) -> dict[str, Any]:
        """Landmark list of each of `OUTPUTS` for the oldest image in flight, None where nothing was found.

        Raises:
            RuntimeError: When the graph failed.
        """
        timestamp = self._timestamps.popleft()
        while not self._outputs.wait(timestamp, _CHECK_S):
            if self._solution._graph.has_error():
                self._solution._graph.wait_until_idle()  # raises what went wrong
        return {
            name: None if packet is None else self._solution._get_packet_content(self._kind(name), packet)
            for name, packet in self._outputs.take(timestamp)
        }

    def close(self) -> None:
        """End the graph; images in flight are worked through first."""
        self._solution.close()

    def _kind(self, name: str) -> Any:
        return self._solution._output_stream_type_info[name]


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
            # An empty packet says that nothing comes up to its time: it may stand for several frames.
            if name in OUTPUTS and not packet.is_empty():
                self._packets[name, timestamp] = packet
            self._latest[name] = timestamp
            self._changed.notify_all()

    def wait(self, timestamp: int, timeout_s: float) -> bool:
        """Whether all streams have spoken about the image of this time."""
        with self._changed:
            return self._changed.wait_for(lambda: min(self._latest.values()) >= timestamp, timeout_s)

    def take(self, timestamp: int) -> list[tuple[str, Any]]:
        with self._changed:
            return [(name, self._packets.pop((name, timestamp), None)) for name in OUTPUTS]
