"""Times and pixels that depend on what a container declares: edit lists, ranges of values, palettes, alpha."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.extract.video import VideoReader


def read(path: Path, **settings: object) -> tuple[VideoReader, list]:
    with VideoReader(path, **settings) as reader:
        return reader, list(reader.frames())


def grey(index: int) -> np.ndarray:
    return np.full((64, 64, 3), 20 + 3 * index, np.uint8)


def levels(frames: list) -> list[int]:
    """Numbers of the frames drawn by `grey`."""
    return [round((float(frame.image[32, 32].mean()) - 20) / 3) for frame in frames]


def move_edit(path: Path, num_frames: int) -> None:
    """Let the edit list (ISO 14496-12, 8.6.6) skip the first frames, as a cut without encoding does."""
    data = bytearray(path.read_bytes())
    timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    entry = data.index(b"elst") + 12  # version and flags, number of entries
    duration, media_time = struct.unpack_from(">Ii", data, entry)
    struct.pack_into(">Ii", data, entry, duration - num_frames * 1000 // 30, media_time + num_frames * timescale // 30)
    path.write_bytes(data)


def test_frames_cut_off_by_an_edit_list_are_not_there(make_video: Callable) -> None:
    path = make_video("v.mp4", 70, draw=grey)
    move_edit(path, 40)
    _, found = read(path)
    assert levels(found) == list(range(40, 70))
    assert [frame.time_s for frame in found] == pytest.approx([k / 30 for k in range(30)], abs=1e-4)
    spans = [(0.5, 0.6)]
    _, part = read(path, spans_s=spans)
    expected = [frame for frame in found if 0.5 <= frame.time_s < 0.6]
    assert [(f.time_s, f.source_index) for f in part] == [(f.time_s, f.source_index) for f in expected]


def test_a_first_timestamp_above_zero_is_the_start_of_a_film_without_sound(make_video: Callable) -> None:
    _, found = read(make_video("v.mkv", times_ms=[700, 733, 767], draw=grey))
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.033, 0.067])


def test_no_frame_is_before_the_start_no_matter_what_the_file_says_of_its_sound(make_video: Callable) -> None:
    """FFmpeg says of this file, whose sound begins at 64 ms, that its pictures begin there too."""
    path = make_video("v.mkv", times_ms=[0, 33, 67], draw=grey, audio=True)
    with av.open(str(path)) as container:
        assert container.start_time == 64_000
    _, found = read(path)
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.033, 0.067])
    _, part = read(path, spans_s=[(0.03, 0.05)])
    assert [frame.time_s for frame in part] == pytest.approx([0.033])


@pytest.mark.parametrize("bf", ["0", "3"])
def test_an_avi_knows_no_times_of_display_and_its_frames_come_in_order_all_the_same(tmp_path: Path, bf: str) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"bf": bf, "b_strategy": "0", "preset": "fast", "crf": "10"}
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(grey(index), "rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    reader, found = read(path)
    assert reader.note is None
    assert levels(found) == list(range(60))
    assert [frame.time_s for frame in found] == pytest.approx([k / 25 for k in range(60)])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("v.mp4", "libx264", "yuv420p"),
        ("v.mov", "mjpeg", "yuvj420p"),  # full range: 0 to 255 where others have 16 to 235
        ("v.mkv", "libx264", "yuv420p10le"),
        ("v.mkv", "libx264", "yuv444p"),
        ("v.mkv", "ffv1", "gray"),
        ("v.mkv", "ffv1", "gray10le"),
        ("v.mov", "qtrle", "rgb24"),
        ("v.gif", "gif", "rgb8"),
    ],
)
@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_black_grey_and_white_are_what_they_were(
    make_video: Callable, name: str, codec: str, pix_fmt: str, level: int
) -> None:
    def draw(index: int) -> np.ndarray:
        return np.full((64, 64, 3), level, np.uint8)

    path = make_video(name, 2, fps=25, draw=draw, codec=codec, pix_fmt=pix_fmt)
    tolerance = 20 if codec == "gif" else 3  # a palette of 3:3:2 bits
    for frame in read(path)[1]:
        assert frame.image.reshape(-1, 3).mean(0) == pytest.approx([level] * 3, abs=tolerance)


def test_transparent_pixels_of_a_film_are_black(make_video: Callable) -> None:
    def draw(index: int) -> np.ndarray:
        image = np.full((64, 64, 4), 200, np.uint8)
        image[:32, :, 3], image[32:, :, 3] = 0, 255
        return image

    _, found = read(make_video("v.mov", 2, draw=draw, codec="qtrle", pix_fmt="argb", pixel_format="rgba"))
    assert found[0].image[5, 5].tolist() == [0, 0, 0]
    assert found[0].image[60, 5].tolist() == [200] * 3


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm", "v.mov", "v.avi", "v.gif"])
def test_thirty_to_twenty_five_gives_twenty_five_in_every_container(make_video: Callable, name: str) -> None:
    codec, pix_fmt = {"v.webm": ("libvpx-vp9", "yuv420p"), "v.avi": ("mpeg4", "yuv420p"), "v.gif": ("gif", "rgb8")}.get(
        name, ("libx264", "yuv420p")
    )
    path = make_video(name, 60, codec=codec, pix_fmt=pix_fmt, fps=20 if name == "v.gif" else 30, draw=grey)
    with VideoReader(path) as reader:  # a GIF counts hundredths of a second: 20 Hz is exact
        found = list(reader.frames(25))
    assert len(found) == (75 if name == "v.gif" else 50)
    assert [frame.time_s for frame in found] == pytest.approx([k / 25 for k in range(len(found))])
