"""Reading videos as they come: rates, rotation, pixel formats, offsets, and files that are none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.extract.video import UnreadableVideoError, VideoReader


def read(path: Path, fps: float | None = None) -> tuple[VideoReader, list]:
    with VideoReader(path) as reader:
        return reader, list(reader.frames(fps))


def corner(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Black, with the upper left quarter red and the upper right one green."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    return image


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrite the matrix in an MP4's track header (ISO 14496-12, 8.3.2), as a phone writes it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and id and duration, layer to volume
    struct.pack_into(">9i", data, start, *(value << 16 for value in (a, b)), 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def is_red(pixel: np.ndarray) -> bool:
    return bool(pixel[0] > 180 and pixel[1] < 80)


def is_green(pixel: np.ndarray) -> bool:
    return bool(pixel[1] > 180 and pixel[0] < 80)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mkv", "ffv1", "yuv422p10le"),
        ("a.avi", "rawvideo", "bgr24"),
        ("a.mkv", "ffv1", "gray"),
    ],
)
def test_containers_and_pixel_formats_give_rgb(make_video: Callable, name: str, codec: str, pix_fmt: str) -> None:
    path = make_video(name, 5, fps=25, draw=corner, codec=codec, pix_fmt=pix_fmt)
    reader, frames = read(path)
    assert (reader.width_px, reader.height_px, len(frames)) == (64, 48, 5)
    assert [f.time_s for f in frames] == pytest.approx([k / 25 for k in range(5)], abs=1.1e-3)
    assert frames[0].image.dtype == np.uint8
    if pix_fmt == "gray":
        assert frames[0].image[10, 10].tolist() == [frames[0].image[10, 10, 0]] * 3
    else:
        assert is_red(frames[0].image[10, 10]) and is_green(frames[0].image[10, 50])
    assert reader.note is None


@pytest.mark.parametrize(
    ("matrix", "size", "red", "green"),
    [
        ((0, 1, -1, 0), (48, 64), (10, 40), (50, 40)),  # a phone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), (48, 64), (50, 10), (10, 10)),
        ((-1, 0, 0, -1), (64, 48), (40, 50), (40, 10)),
        ((-1, 0, 0, 1), (64, 48), (10, 50), (10, 10)),  # mirrored: left and right would swap if it went unseen
    ],
)
def test_rotated_and_mirrored_videos_come_upright(
    make_video: Callable, matrix: tuple, size: tuple, red: tuple, green: tuple
) -> None:
    path = make_video("phone.mp4", 3, draw=corner)
    set_display_matrix(path, *matrix)
    reader, frames = read(path)
    assert (reader.width_px, reader.height_px) == size
    assert frames[0].image.shape == (size[1], size[0], 3)
    assert is_red(frames[0].image[red]) and is_green(frames[0].image[green])


def test_pixels_that_are_not_square_become_so(make_video: Callable) -> None:
    reader, frames = read(make_video("tv.mkv", 2, draw=corner, aspect=(2, 1)))
    assert (reader.width_px, reader.height_px) == (128, 48)
    assert frames[0].image.shape == (48, 128, 3)


def test_a_target_rate_goes_by_timestamp(make_video: Callable) -> None:
    path = make_video("v.mp4", 60, fps=30, draw=corner)
    reader, frames = read(path, 25)
    assert len(frames) == 50
    assert reader.num_frames(25) == 50
    assert reader.num_frames(None) == 60


def test_variable_rates_keep_their_times(make_video: Callable) -> None:
    times_ms = [0, 40, 200, 233, 700]
    _, frames = read(make_video("v.mkv", times_ms=times_ms, draw=corner))
    assert [f.time_s for f in frames] == pytest.approx([t / 1000 for t in times_ms])


def test_a_late_first_frame_keeps_its_time_against_the_sound(make_video: Callable) -> None:
    _, frames = read(make_video("v.mkv", times_ms=[500, 540, 580], draw=corner, audio=True))
    assert frames[0].time_s == pytest.approx(0.5, abs=0.07)  # the sound starts up to 64 ms before 0


def test_transparent_gif_pixels_are_black_as_the_padding(make_video: Callable, tmp_path: Path) -> None:
    from PIL import Image

    frames = []
    for index in range(3):
        image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        image.paste((250, 10, 10, 255), (8 + index, 8, 20, 20))
        frames.append(image)
    path = tmp_path / "t.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[50, 200, 100], disposal=2)
    _, found = read(path)
    assert [f.time_s for f in found] == pytest.approx([0.0, 0.05, 0.25])
    assert found[0].image[2, 2].tolist() == [0, 0, 0]
    assert is_red(found[0].image[12, 12])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("empty.mp4", b"", "0 bytes"), ("text.mp4", b"these are words\n" * 50, "not a video")],
)
def test_what_is_no_video_says_why(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=reason):
        VideoReader(path)


def test_sound_without_pictures_says_so(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableVideoError, match="no video stream"):
        VideoReader(path)


def test_a_container_without_frames_says_so(make_video: Callable) -> None:
    path = make_video("v.mp4", 4, draw=corner, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes().partition(b"mdat")[0] + b"mdat")  # all headers, none of the pictures
    with pytest.raises(UnreadableVideoError, match="no frame"):
        VideoReader(path)


def test_a_cut_video_gives_what_is_left_and_a_note(make_video: Callable) -> None:
    path = make_video("v.mp4", 90, fps=30, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reader, frames = read(path)
    assert 30 <= len(frames) < 80
    assert reader.note is not None
    assert "declares" in reader.note or "broke off" in reader.note


def test_a_damaged_middle_is_passed_over_and_noted(make_video: Callable) -> None:
    path = make_video("v.mkv", 60, fps=30, codec="ffv1", pix_fmt="yuv420p", draw=corner)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    _, frames = read(path)
    assert len(frames) >= 30


def test_a_recording_that_does_not_declare_its_length_is_measured(make_video: Callable) -> None:
    """As browsers record: WebM that is written live."""
    path = make_video("a.webm", 30, fps=30, codec="libvpx-vp9", options={"live": "1"})
    with VideoReader(path) as reader:
        assert reader.duration_s is None
        assert reader.length_s() == pytest.approx(1.0, abs=0.05)
    with VideoReader(make_video("b.mp4", 30, fps=30)) as reader:
        assert reader.length_s() == reader.duration_s


def test_one_frame_is_a_video(make_video: Callable) -> None:
    _, frames = read(make_video("v.mp4", 1, draw=corner))
    assert len(frames) == 1


def test_names_with_blanks_quotes_and_accents_open(make_video: Callable) -> None:
    _, frames = read(make_video("señal 'dos' \"uno\" %d.mp4", 2, draw=corner))
    assert len(frames) == 2


def test_a_repeated_frame_is_converted_once(make_video: Callable) -> None:
    _, frames = read(make_video("v.mp4", 4, fps=10, draw=corner), 30)
    assert len(frames) == 12
    assert frames[1].is_repeat
    assert frames[1].image is frames[0].image
