"""Spans of a video: the very frames that a pass over all of it gives, and less decoding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.extract.video import Frame, VideoReader

SPANS = [(0.5, 0.7), (4.0, 4.5), (4.6, 4.61), (7.95, 99.0)]


def noisy(index: int) -> np.ndarray:
    """A picture that no other frame has, and that moves, so that B-frames pay."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 255, (48, 64, 3), np.uint8)
    image = np.roll(image, index, axis=1)
    image[:8, :8] = (index * 37 % 256, index * 91 % 256, index * 11 % 256)
    return image


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Path]:
    """A video of 250 frames at 29.97 Hz."""

    def make(name: str, codec: str, options: dict[str, str], *, num_frames: int = 250, start: int = 0) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=Fraction(30000, 1001))
            stream.width, stream.height, stream.options = 64, 48, options
            stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            for index in range(num_frames):
                frame = av.VideoFrame.from_ndarray(noisy(index), "rgb24")
                frame.pts = start + index
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return path

    return make


def same(found: list[Frame], expected: list[Frame]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(
        (a.time_s, a.source_index) == (b.time_s, b.source_index) and np.array_equal(a.image, b.image) for a, b in pairs
    )


def inside(frame: Frame, spans: list) -> bool:
    return any(start <= frame.time_s < end for start, end in spans)


B_FRAMES = {"g": "40", "bf": "3", "preset": "fast", "b_strategy": "0"}
CASES = {
    "h264.mp4": ("libx264", B_FRAMES),
    "h264.mkv": ("libx264", B_FRAMES),
    "h264.mov": ("libx264", {**B_FRAMES, "x264-params": "open-gop=1"}),
    "h264.avi": ("libx264", B_FRAMES),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=40"}),
    "long_gop.mp4": ("libx264", {"g": "1000", "preset": "fast"}),
    "intra.mov": ("mjpeg", {}),
    "mpeg4.avi": ("mpeg4", {"g": "20"}),
    "mpeg4b.mp4": ("mpeg4", {"g": "20", "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"g": "40", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "10"}),
    "vp8.webm": ("libvpx", {"g": "40", "deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "canvas.gif": ("gif", {}),
}


@pytest.mark.parametrize("fps", [None, 25.0, 12.5, 60.0])
@pytest.mark.parametrize("name", CASES)
def test_spans_give_the_frames_that_picking_from_all_gives(encode: Callable, name: str, fps: float | None) -> None:
    codec, options = CASES[name]
    path = encode(name, codec, options)
    with VideoReader(path) as reader:
        everything = list(reader.frames(fps))
        end_s = reader.end_s
    assert len(everything) > 80
    with VideoReader(path, spans_s=SPANS) as reader:
        found = list(reader.frames(fps))
        assert reader.note is None and reader.end_s == end_s
    expected = [frame for frame in everything if inside(frame, SPANS)]
    assert len(expected) >= 8
    assert same(found, expected)
    last = -1
    for frame in found:
        assert frame.is_repeat == (frame.source_index == last)
        last = frame.source_index
