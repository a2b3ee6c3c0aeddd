"""Spans of a video give the same frames as a pass over all of it, with less decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.extract.container import ContainerSource, Keyframe
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader

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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each packet that goes to the decoder."""
    packets: list[int] = []
    real = ContainerSource._decode

    def count(source: ContainerSource, given: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
        return real(source, (packets.append(1) or packet for packet in given))

    monkeypatch.setattr(ContainerSource, "_decode", count)
    return packets


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.mov", "vp9.webm"])
def test_long_stretches_are_jumped_over(encode: Callable, decoded: list[int], name: str) -> None:
    codec, options = CASES[name]
    path = encode(name, codec, options, num_frames=900)
    spans = [(20.0, 20.5), (28.0, 28.5)]
    with VideoReader(path, spans_s=spans) as reader:
        assert len(list(reader.frames())) == 30
        assert reader.end_s is None  # nobody looked
    assert len(decoded) < 200


def test_short_gaps_are_decoded_through(encode: Callable, decoded: list[int]) -> None:
    path = encode("v.mp4", "libx264", {"g": "10", "bf": "0", "tune": "zerolatency"})
    with VideoReader(path, spans_s=[(0.0, 1.0), (1.5, 2.0)]) as reader:
        list(reader.frames())
    assert 55 <= len(decoded) <= 70  # two seconds and a few, none twice


@pytest.mark.parametrize("fault", ["leads past", "refused"])
def test_a_file_that_seeks_badly_gives_the_same_frames(
    encode: Callable, monkeypatch: pytest.MonkeyPatch, decoded: list[int], fault: str
) -> None:
    path = encode("v.mp4", *CASES["h264.mp4"])
    with VideoReader(path) as reader:
        expected = [frame for frame in reader.frames() if inside(frame, SPANS)]
    decoded.clear()
    num_asked = 0
    real = ContainerSource._from

    def bad(source: ContainerSource, key: Keyframe) -> Iterator[av.Packet] | None:
        nonlocal num_asked
        num_asked += 1
        if num_asked % 2 == 0:  # after reopening the file
            return real(source, key)
        if fault == "refused":
            raise av.error.PermissionError(1, "Operation not permitted")
        source._container.seek(2**40)
        return real(source, key)

    monkeypatch.setattr(ContainerSource, "_from", bad)
    with VideoReader(path, spans_s=SPANS) as reader:
        assert same(list(reader.frames()), expected)
    assert num_asked == 4
    assert len(decoded) < 200  # what lies between was read, not decoded


def test_a_damaged_stretch_gives_what_decoding_everything_gives(encode: Callable) -> None:
    path = encode("v.mkv", *CASES["h264.mkv"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        expected = [frame for frame in reader.frames() if inside(frame, SPANS)]
    with VideoReader(path, spans_s=SPANS) as reader:
        found = list(reader.frames())
    assert [frame.time_s for frame in found] == [frame.time_s for frame in expected]


def test_spans_without_a_frame_say_where_the_video_ends(encode: Callable) -> None:
    path = encode("v.mp4", "libx264", {}, num_frames=30)
    with (
        VideoReader(path, spans_s=[(5.0, 6.0)]) as reader,
        pytest.raises(UnreadableVideoError, match=r"no frame of 1\.00 s lies in its annotated spans \(5 to 6 s\)"),
    ):
        list(reader.frames())


def test_progress_expects_the_frames_of_the_spans(encode: Callable) -> None:
    path = encode("v.mp4", "libx264", {})
    with VideoReader(path, spans_s=SPANS) as reader:
        assert reader.num_frames(25) == pytest.approx(25 * (0.2 + 0.5 + 0.01 + 0.39), abs=1)
        assert len(list(reader.frames(25))) == pytest.approx(reader.num_frames(25), abs=2)
