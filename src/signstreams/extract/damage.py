"""Which frames of a damaged video show what was never filmed: invented by a decoder, or built on such frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import av
from av.error import FFmpegError, InvalidDataError

if TYPE_CHECKING:
    Packet = av.Packet[av.VideoStream]  # generic in its stubs alone

WITHOUT_KEYFRAMES = {"gif", "apng", "webp"}
"""Their frames build on the ones before, even if their packets are marked as keyframes."""
_REFUSES_WHAT_FOLLOWS = {"libdav1d"}  # after a packet that it cannot decode it gives no frame that builds on it
_PIXELS = 0xDA  # marker of a JPEG's scan
_NOTES = {*range(0xE1, 0xEE), 0xEF, 0xFE}
_MAX_HELD = 16  # most frames that H.264 and HEVC reorder


class Decoded(NamedTuple):
    """A frame in order of display."""

    frame: av.VideoFrame
    is_damaged: bool


class DamageWatch:
    """Follows packets into a decoder and frames out of it.

    A frame is damaged if its packet is, or one since the last keyframe before it: H.264, HEVC, VP9 and their like
    change the frames before. A frame waits until those decoded before it are out, as only then it is known whether they
    were damaged: of three B-frames built on a broken P-frame all come out before it.
    """

    def __init__(self, decoder: str) -> None:
        self._decoder = decoder
        self._num_fed = 0
        self._keys: deque[tuple[int, int | None]] = deque()  # position in order of decoding, and timestamp
        self._damaged: list[int] = []  # positions, rising but for the order in which frames come out
        self._inside: dict[int, int] = {}  # position to timestamp of packets whose frames are not out yet
        self._held: deque[tuple[int, av.VideoFrame]] = deque()

    def feed(self, packet: Packet) -> None:
        """Note a packet that is about to be decoded."""
        position = self._num_fed
        self._num_fed += 1
        packet.opaque = position
        if packet.is_keyframe and (self._decoder not in WITHOUT_KEYFRAMES or not self._keys):
            self._keys.append((position, packet.pts))
        if packet.pts is not None and packet.size:
            self._inside[position] = packet.pts
        if packet.is_corrupt or (self._decoder == "mjpeg" and packet.size and is_damaged_jpeg(bytes(packet))):
            self._damaged.append(position)

    def lost(self) -> None:
        """Note that the last packet could not be decoded."""
        position = self._num_fed - 1
        self._inside.pop(position, None)
        if self._decoder not in _REFUSES_WHAT_FOLLOWS:
            self._damaged.append(position)

    def frames(self, decoded: Iterable[av.VideoFrame]) -> Iterator[Decoded]:
        """Frames of which all is known by now, after these came out of the decoder."""
        for frame in decoded:
            position = frame.opaque if isinstance(frame.opaque, int) else self._num_fed - 1
            self._inside.pop(position, None)
            if frame.is_corrupt:
                self._damaged.append(position)
            if frame.pts is not None:  # packets without a frame of their own
                self._inside = {place: pts for place, pts in self._inside.items() if pts > frame.pts}
            self._held.append((position, frame))
        while self._held and (len(self._held) > _MAX_HELD or not self._is_waiting(self._held[0][0])):
            yield self._next()

    def rest(self) -> Iterator[Decoded]:
        """Frames that are left at the end."""
        while self._held:
            yield self._next()

    def _is_waiting(self, position: int) -> bool:
        return any(place < position for place in self._inside)

    def _next(self) -> Decoded:
        position, frame = self._held.popleft()
        first = 0  # from here on, a damage reaches this frame
        for key, pts in self._keys:
            if key <= position and (pts is None or frame.pts is None or pts <= frame.pts):
                first = key
        while len(self._keys) > 1 and self._keys[1][0] <= first:
            self._keys.popleft()
        if not self._damaged:
            return Decoded(frame, False)
        self._damaged = [place for place in self._damaged if place >= self._keys[0][0]] if self._keys else self._damaged
        return Decoded(frame, any(first <= place <= position for place in self._damaged))


def damage_text(num_damaged: int, num_frames: int) -> str:
    """States how many frames are damaged."""
    return (
        f"{num_damaged} of {num_frames} frames are damaged or build on damaged ones: they give no points and no crops"
    )


def is_damaged_jpeg(data: bytes) -> bool:
    """Whether FFmpeg decodes a JPEG only by passing over faults; False as well for a kind that it does not decode.

    Every viewer shows such a picture, grey or shifted from the fault on. A fault whose bits still make sense goes
    unseen.
    """
    data = _without_notes(data)
    return _refuses(data, "explode") and not _refuses(data, "")


def _refuses(data: bytes, err_detect: str) -> bool:
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    if err_detect:
        decoder.options = {"err_detect": err_detect}
    try:
        return not [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except InvalidDataError:
        return True
    except FFmpegError:
        return False


def jpeg_segments(data: bytes) -> Iterator[tuple[int, slice]]:
    """Marker and place of each segment of a JPEG before its pixels, and a last one (0xDA) from these to the end."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, end = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if marker == _PIXELS:
            break
        yield marker, slice(place, end)
        place = end
    yield _PIXELS, slice(place, len(data))


def _without_notes(data: bytes) -> bytes:
    """The JPEG without Exif, profiles and comments, whose faults change no pixel. Adobe's says how to read colours."""
    kept = [data[place] for marker, place in jpeg_segments(data) if marker not in _NOTES]
    return b"".join([data[:2], *kept])
