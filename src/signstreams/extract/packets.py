"""Which frames a video file holds, without decoding them: to jump over what is not wanted, and to know what comes."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import av
from av.error import FFmpegError

_WITHOUT_KEYFRAMES = {"gif", "apng", "webp"}
"""Their frames draw on the ones before, whatever their packets are marked as."""
WITHOUT_PTS = "avi"
"""The format does not know when a frame is shown: only in which order they come."""


class Keyframe(NamedTuple):
    """A frame from which decoding can start.

    Attributes:
        index: Among all frames in order of display.
        position: Among all packets in order of decoding.
        pts: Of its packet, in units of the stream's time base.
        seek_to: Timestamp that leads to it or to a keyframe before: mp4 goes by decoding time, Matroska by the other.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    position: int
    pts: int
    seek_to: int


class PacketTable:
    """Every frame of a stream in order of display.

    Attributes:
        pts: Timestamps, rising.
    """

    def __init__(self, pts: list[int], keyframes: list[Keyframe], tick: tuple[int, int]) -> None:
        self.pts = pts
        self._keyframes = keyframes
        self._tick = tick

    @classmethod
    def read(cls, path: Path, stream_index: int) -> PacketTable | None:
        """Read a file through (a GB in seconds); None when its packets do not tell what is shown when.

        Raises:
            OSError: When the file cannot be opened.
        """
        shown: list[tuple[int, int | None, int, bool]] = []
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            stream = container.streams[stream_index]
            if stream.codec_context.name in _WITHOUT_KEYFRAMES or container.format.name == WITHOUT_PTS:
                return None
            if stream.time_base is None:
                return None
            tick = (stream.time_base.numerator, stream.time_base.denominator)
            try:
                for position, packet in enumerate(container.demux(stream)):
                    if packet.size == 0 or packet.is_discard:  # the end; what an edit list cuts off
                        continue
                    if packet.pts is None:
                        return None
                    shown.append((packet.pts, packet.dts, position, packet.is_keyframe))
            except FFmpegError:
                pass  # the file ends early: so much of it is there
        shown.sort(key=lambda entry: entry[0])
        pts = [entry[0] for entry in shown]
        if not pts or len(set(pts)) < len(pts):
            return None
        keyframes = [
            Keyframe(index, position, own_pts, own_pts if own_dts is None else min(own_pts, own_dts))
            for index, (own_pts, own_dts, position, is_key) in enumerate(shown)
            if is_key
        ]
        return cls(pts, keyframes, tick) if keyframes and keyframes[0].index == 0 else None

    def last_at(self, time_s: float) -> int:
        """Index of the last frame at or before a time as the file counts; of the first when none is."""
        numerator, denominator = self._tick  # as PyAV computes a frame's time
        return max(0, bisect_right(self.pts, time_s, key=lambda pts: float(pts) * numerator / denominator) - 1)

    def keyframe_before(self, index: int) -> Keyframe:
        """The last one at or before a frame."""
        return self._keyframes[bisect_right(self._keyframes, index, key=lambda key: key.index) - 1]
