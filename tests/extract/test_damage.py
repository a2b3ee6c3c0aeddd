"""Damaged content: frames that a decoder invents give no points and no crops, in every codec that tells of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.extract.batch import extract_videos
from signstreams.extract.damage import is_damaged_jpeg
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import VideoReader
from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import STREAMS

CODECS = {
    "a.mp4": ("libx264", "yuv420p", {"g": "20", "bf": "3"}),
    "b.mkv": ("libx264", "yuv420p", {"g": "20", "bf": "0"}),
    "c.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none:keyint=20"}),
    "d.webm": ("libvpx-vp9", "yuv420p", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "e.webm": ("libvpx", "yuv420p", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "f.avi": ("mpeg4", "yuv420p", {"g": "20"}),
    "g.mkv": ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"}),
    "h.avi": ("mjpeg", "yuvj420p", {}),
    "i.mkv": ("ffv1", "yuv420p", {}),
    "j.gif": ("gif", "rgb8", {}),
}
TELL = ("a.mp4", "b.mkv", "f.avi", "g.mkv", "h.avi")
"""Codecs whose decoders notice most damages."""
NUM_FRAMES = 60


@pytest.fixture(scope="module")
def films(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of a real clip, small, in each codec."""
    folder = tmp_path_factory.mktemp("films")
    with av.open(str(shared_data / "clips" / "webcam_one_hand.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24")[::3, ::3] for frame in container.decode(video=0)][:30]
    images = [np.ascontiguousarray(image[:240, :176]) for image in images + images[::-1]]
    for name, (codec, pix_fmt, options) in CODECS.items():
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=30, options=options)
            stream.width, stream.height, stream.pix_fmt = 176, 240, pix_fmt
            for image in images:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            out.mux(stream.encode(None))
    return folder


def damaged(path: Path, rng: np.random.Generator, folder: Path, num_bytes: int = 16) -> Path:
    data = bytearray(path.read_bytes())
    place = int(rng.integers(len(data) // 8, len(data) * 7 // 8))
    data[place : place + num_bytes] = rng.bytes(num_bytes)
    copy = folder / path.name
    copy.write_bytes(data)
    return copy


def frames_of(path: Path) -> tuple[dict[float, np.ndarray], set[float], str]:
    """Time to pixels, times of the frames that are marked as damaged, and the note."""
    with VideoReader(path) as reader:
        frames = list(reader.frames())
        note = reader.note or ""
    return {round(f.time_s, 3): f.image for f in frames}, {round(f.time_s, 3) for f in frames if f.is_damaged}, note


def differ(image: np.ndarray, other: np.ndarray | None) -> bool:
    """Whether more than 1 % of the pixels differ visibly."""
    return other is None or bool((np.abs(image.astype(int) - other).max(axis=-1) > 10).mean() > 0.01)


@pytest.mark.parametrize("name", CODECS)
def test_a_whole_video_has_no_damaged_frame(films: Path, name: str) -> None:
    _, marked, note = frames_of(films / name)
    assert not marked and not note


@pytest.mark.parametrize("name", TELL)
def test_what_a_decoder_invents_is_marked_until_the_next_keyframe(films: Path, tmp_path: Path, name: str) -> None:
    whole, _, _ = frames_of(films / name)
    rng = np.random.default_rng(2)
    num_wrong = num_marked = 0
    for _ in range(6):
        found, marked, note = frames_of(damaged(films / name, rng, tmp_path))
        wrong = {time_s for time_s, image in found.items() if differ(image, whole.get(time_s))}
        num_wrong += len(wrong)
        num_marked += len(wrong & marked)
        assert bool(marked) == ("frames are damaged" in note)
    assert num_wrong >= 5
    assert num_marked >= (0.5 if name == "h.avi" else 0.75) * num_wrong


def test_frames_that_come_out_before_the_broken_one_they_build_on_are_marked_too(films: Path, tmp_path: Path) -> None:
    """B-frames are shown before the P-frame that they need."""
    path = films / "a.mp4"
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        broken = next(
            packet
            for packet, after in pairwise(packets[25:])
            if not packet.is_keyframe and after.pts < packet.pts  # B-frames follow
        )
        rest = packets[packets.index(broken) :]
        first_s = float(min(packet.pts for packet in rest) * broken.time_base)
        key_s = float(next(packet.pts for packet in rest if packet.is_keyframe) * broken.time_base)
        place, size = broken.pos, broken.size
    data = bytearray(path.read_bytes())
    data[place + size // 3 : place + size] = b"\x55" * (size - size // 3)
    copy = tmp_path / "v.mp4"
    copy.write_bytes(data)
    found, marked, _ = frames_of(copy)
    assert marked and min(marked) < float(broken.pts * broken.time_base) - 0.01
    assert marked == {time_s for time_s in found if first_s - 0.001 < time_s < key_s - 0.001}


def test_spans_mark_the_same_frames_as_a_full_pass(films: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    path = damaged(films / "b.mkv", rng, tmp_path, 200)
    _, marked, _ = frames_of(path)
    assert marked
    spans = [(0.2, 0.7), (1.0, 1.6)]
    with VideoReader(path, spans_s=spans) as reader:
        found = {round(frame.time_s, 3) for frame in reader.frames() if frame.is_damaged}
    assert found == {time_s for time_s in marked if any(start <= time_s < end for start, end in spans)}


def mark_as_damaged(monkeypatch: pytest.MonkeyPatch, indices: set[int]) -> None:
    real = VideoReader.frames

    def frames(self: VideoReader, fps: float | None = None) -> object:
        from dataclasses import replace

        return (replace(frame, is_damaged=frame.source_index in indices) for frame in real(self, fps))

    monkeypatch.setattr(VideoReader, "frames", frames)


@pytest.mark.parametrize("fps", [None, 25, 60])
def test_damaged_frames_have_no_points_no_crops_and_are_counted(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch, fps: float | None
) -> None:
    path = make_video("v.mp4", 30)
    config = ExtractConfig(videos=[path], root=tmp_path, fps=fps)
    extract_videos(config, detector=discs)
    layout = CorpusLayout(tmp_path)
    before = read_keypoints(layout.keypoints("v"))
    mark_as_damaged(monkeypatch, {10, 11, 20})
    extract_videos(config.model_copy(update={"force": True}), detector=discs)
    metadata = read_metadata(layout.metadata("v"))
    keypoints, tracks = read_keypoints(layout.keypoints("v")), read_tracks(layout.tracks("v"))
    with VideoReader(path) as reader:
        is_damaged = np.array([frame.is_damaged for frame in reader.frames(fps)])
    assert metadata.num_damaged_frames == is_damaged.sum() >= 2
    assert (keypoints[is_damaged, :, 2] == 0).all()
    np.testing.assert_array_equal(keypoints[~is_damaged], before[~is_damaged])
    for stream in STREAMS:  # although short gaps are filled
        assert (tracks.streams[stream].state[is_damaged] == 0).all()
        assert (tracks.streams[stream].state[~is_damaged] != 0).all()
    report = validate(ContractConfig(root=tmp_path, max_damaged_fraction=0.05))
    assert "video.damaged" in {finding.rule for finding in report.findings}
    report = validate(ContractConfig(root=tmp_path, max_damaged_fraction=0.2))
    assert not [finding for finding in report.findings if finding.severity == "error"]


def test_extraction_of_a_damaged_file_says_how_many_frames(
    films: Path, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    path = damaged(films / "b.mkv", np.random.default_rng(6), tmp_path, 200)
    extract_videos(ExtractConfig(videos=[path], root=tmp_path / "c"), detector=discs)
    metadata = read_metadata(CorpusLayout(tmp_path / "c").metadata("b"))
    assert metadata.status == "ok" and metadata.num_damaged_frames
    expected = f"{metadata.num_damaged_frames} of {metadata.num_frames} frames are damaged or build on damaged ones"
    assert metadata.note is not None and expected in metadata.note
    assert f"warning: {path}: " in capsys.readouterr().err


def jpeg(image: np.ndarray, **flags: int) -> bytes:
    names = {"quality": cv2.IMWRITE_JPEG_QUALITY, "progressive": cv2.IMWRITE_JPEG_PROGRESSIVE}
    names["restart"] = cv2.IMWRITE_JPEG_RST_INTERVAL
    words = [word for name, value in flags.items() for word in (names[name], value)]
    return cv2.imencode(".jpg", image, words)[1].tobytes()


@pytest.fixture(scope="module")
def picture(shared_data: Path) -> np.ndarray:
    with av.open(str(shared_data / "clips" / "webcam_one_hand.mp4")) as container:
        return next(container.decode(video=0)).to_ndarray(format="bgr24")


KINDS = ({"quality": 75}, {"quality": 95}, {"quality": 90, "progressive": 1}, {"quality": 90, "restart": 4})


@pytest.mark.parametrize("flags", KINDS)
def test_a_jpeg_with_zeroed_bytes_is_damaged_and_a_whole_one_is_not(picture: np.ndarray, flags: dict[str, int]) -> None:
    data = jpeg(picture, **flags)
    assert not is_damaged_jpeg(data)
    assert not is_damaged_jpeg(data + b"\0" * 99)  # cameras append previews
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(10):
        place = int(rng.integers(2000, len(data) - 2000))
        found += is_damaged_jpeg(data[:place] + bytes(600) + data[place + 600 :])
    assert found >= 6


def test_kinds_of_whole_jpegs_are_no_damage(picture: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(picture[::2, ::2, ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in {
        "grey": {},
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "optimised": {"optimize": True},
        "exif": {"exif": exif.tobytes()[:14] + b"\xff" * 9},  # what a careless editor leaves
        "cmyk": {},
    }.items():
        path = tmp_path / f"{kind}.jpg"
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(path, **options)
        assert not is_damaged_jpeg(path.read_bytes()), kind
    assert not is_damaged_jpeg(b"") and not is_damaged_jpeg(b"\xff\xd8\xff")


def test_a_damaged_jpeg_of_a_frame_folder_is_marked(picture: np.ndarray, tmp_path: Path) -> None:
    data = jpeg(picture, quality=75)
    place = len(data) // 2
    for index in range(6):
        bad = index == 3
        own = data[:place] + bytes(600) + data[place + 600 :] if bad else data
        (tmp_path / f"{index:04d}.jpg").write_bytes(own)
    with VideoReader(tmp_path) as reader:
        assert [frame.is_damaged for frame in reader.frames()] == [k == 3 for k in range(6)]
        note = reader.note
    assert note == ("1 of 6 frames are damaged or build on damaged ones: they give no points and no crops (0003.jpg)")


FUZZ = """
import re, sys, time, resource
from pathlib import Path
import numpy as np
from signstreams.extract.video import UnreadableVideoError, VideoReader
folder, scratch, budget_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
rng = np.random.default_rng(16)
start_s, worst_s, num = time.perf_counter(), 0.0, 0
names = sorted(path.name for path in folder.iterdir())
while num < 40 * len(names) and time.perf_counter() - start_s < budget_s:
    name = names[num % len(names)]
    data = bytearray((folder / name).read_bytes())
    kind = num // len(names) % 5
    if kind == 0:  # content
        for place in rng.integers(0, len(data), 4):
            data[place : place + 16] = rng.bytes(16)
    elif kind == 1:  # headers and timing
        for place in rng.integers(0, min(len(data), 4000), 6):
            data[place] = int(rng.integers(256))
    elif kind == 2:  # index and timing at the end
        for place in rng.integers(max(0, len(data) - 3000), len(data), 6):
            data[place] = int(rng.integers(256))
    elif kind == 3:
        del data[int(rng.integers(len(data))) :]
    else:  # a hole, as a lost block of a copy leaves it
        place = int(rng.integers(len(data)))
        data[place : place + 4096] = bytes(min(4096, len(data) - place))
    path = scratch / name
    path.write_bytes(data[: len(data)])
    began_s = time.perf_counter()
    num += 1
    try:
        with VideoReader(path) as reader:
            count, last_s = 0, -1.0
            for frame in reader.frames(25):
                assert frame.time_s > last_s
                last_s, count = frame.time_s, count + 1
                assert frame.image.ndim == 3 and frame.image.shape[2] == 3
            assert count < 60 * 260, (name, num, count)
            reader.note
    except UnreadableVideoError as error:
        assert str(error)
    worst_s = max(worst_s, time.perf_counter() - began_s)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(num, round(worst_s, 2), round(peak))
"""


def test_no_damage_ends_in_a_traceback_a_hang_or_without_bound(films: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, films, tmp_path, "12"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    num, worst_s, peak_mib = map(float, done.stdout.split())
    assert num >= 50 and worst_s < 10 and peak_mib < 1500
    assert not re.search("Traceback", done.stderr)
