"""Times and pixels that depend on what a container declares: edit lists, ranges of values, palettes, alpha."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import Colorspace

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
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


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_a_gap_of_a_day_is_not_filled_and_the_note_says_where(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, name: str
) -> None:
    times_ms = [*range(0, 2000, 40), *range(86_400_000, 86_402_000, 40)]
    path = make_video(name, times_ms=times_ms)
    for fps in (None, 25):
        config = ExtractConfig(videos=[path], root=tmp_path / f"c{fps}", fps=fps)
        metadata = extract_videos(config, detector=discs).extracted["v"]
        assert metadata.num_frames == pytest.approx(100, abs=2)
        assert metadata.fps == pytest.approx(25, abs=0.1)
        if fps:
            assert metadata.note is not None and "no frame for 86398.0 s after 1.96 s" in metadata.note
        findings = validate(ContractConfig(root=config.root, videos_dir=path.parent)).findings
        assert not [finding for finding in findings if finding.severity == "error"]


def test_what_spans_leave_out_is_no_gap(make_video: Callable) -> None:
    path = make_video("v.mkv", times_ms=list(range(0, 40_000, 100)))
    with VideoReader(path, spans_s=[(0.0, 1.0), (30.0, 31.0)]) as reader:
        found = list(reader.frames(25))
        assert len(found) == 50 and reader.note is None


def write_streams(path: Path, films: list[dict]) -> None:
    """A file with several video streams: grey level, size, number of frames, perhaps a disposition of each."""
    with av.open(str(path), "w") as out:
        streams = []
        for film in films:
            stream = out.add_stream(film.get("codec", "libx264"), rate=25)
            stream.width, stream.height = film["size"]
            stream.pix_fmt = film.get("pix_fmt", "yuv420p")
            if "disposition" in film:
                stream.disposition = film["disposition"]
            streams.append(stream)
        for film, stream in zip(films, streams, strict=True):
            for index in range(film["num_frames"]):
                frame = av.VideoFrame.from_ndarray(np.full((*film["size"][::-1], 3), film["level"], np.uint8))
                frame.pts = index
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ({"disposition": 0}, {"disposition": Disposition.default}, 1),
        ({"disposition": Disposition.default}, {"disposition": 0, "size": (128, 128)}, 0),
        ({"num_frames": 1, "codec": "mjpeg", "pix_fmt": "yuvj420p"}, {}, 1),  # a thumbnail
        ({}, {"size": (128, 96)}, 1),
        ({}, {}, 0),
    ],
)
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_of_several_video_streams_a_players_choice_is_read(
    tmp_path: Path, name: str, first: dict, second: dict, chosen: int
) -> None:
    if name == "v.mkv" and "num_frames" in first:
        pytest.skip("Matroska does not say how many frames a stream has")
    if name == "v.mp4" and "size" in second and "disposition" not in first:
        pytest.skip("one of its streams is always the default")
    plain = {"size": (64, 64), "num_frames": 10}
    films = [plain | first | {"level": 60}, plain | second | {"level": 200}]
    write_streams(tmp_path / name, films)
    reader, found = read(tmp_path / name)
    assert len(found) == 10
    assert found[3].image.mean() == pytest.approx(films[chosen]["level"], abs=5)
    size = "x".join(map(str, films[chosen]["size"]))
    assert reader.note == f"holds 2 video streams: number {chosen + 1} ({size} px) was read"
    assert len(read(tmp_path / name, spans_s=[(0.1, 0.2)])[1]) in (2, 3)


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25)])
def test_h264_in_avi_has_the_rate_of_its_frames(tmp_path: Path, bf: str, rate: Fraction) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"bf": bf, "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(grey(index), "rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    reader, found = read(path)
    assert reader.fps == pytest.approx(float(rate))
    assert [frame.time_s for frame in found] == pytest.approx([k / float(rate) for k in range(40)])
    assert reader.num_frames(None) == 40


PATCHES = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (190, 160, 130))  # the last is skin


def write_untagged(path: Path, size: tuple[int, int], matrix: Colorspace, *, is_tagged: bool = False) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(PATCHES):
        image[:, index * width // 4 : (index + 1) * width // 4] = colour
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if is_tagged:
            stream.codec_context.colorspace = 1 if matrix == Colorspace.ITU709 else 6
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", src_colorspace=matrix, dst_colorspace=matrix
        )
        frame.colorspace = (1 if matrix == Colorspace.ITU709 else 6) if is_tagged else 2
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("size", "matrix", "is_tagged", "assumed"),
    [
        ((640, 480), Colorspace.ITU601, False, "bt601"),
        ((1280, 720), Colorspace.ITU709, False, "bt709"),
        ((720, 1280), Colorspace.ITU709, False, "bt709"),
        ((1280, 720), Colorspace.ITU601, True, None),
        ((640, 480), Colorspace.ITU709, True, None),
    ],
)
def test_colours_of_untagged_video_follow_its_lines(
    tmp_path: Path, discs: DetectorKind, size: tuple[int, int], matrix: Colorspace, is_tagged: bool, assumed: str | None
) -> None:
    path = tmp_path / "v.mp4"
    write_untagged(path, size, matrix, is_tagged=is_tagged)
    reader, (frame,) = read(path)
    width = size[0]
    for index, colour in enumerate(PATCHES):
        middle = (2 * index + 1) * width // 8
        assert frame.image[size[1] // 2, middle] == pytest.approx(colour, abs=4)
    assert reader.assumed_matrix == assumed
    metadata = extract_videos(ExtractConfig(videos=[path], root=tmp_path), detector=discs).extracted["v"]
    assert metadata.assumed_matrix == assumed and metadata.note is None
