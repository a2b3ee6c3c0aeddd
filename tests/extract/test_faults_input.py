"""Videos that are not as they should be, each with its outcome, from the file to the metadata."""

from __future__ import annotations

import errno
import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.extract import container
from signstreams.extract.batch import Outcome, extract_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.arrays import read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata, read_metadata

MAX_RSS_MIB = 700


@pytest.fixture
def extract(tmp_path: Path, discs: DetectorKind) -> Callable[..., tuple[Outcome, VideoMetadata]]:
    """Extract one file as a user would: outcome and metadata."""

    def run(path: Path) -> tuple[Outcome, VideoMetadata]:
        outcome = extract_videos(ExtractConfig(videos=[path], root=tmp_path / "corpus"), detector=discs)
        return outcome, read_metadata(CorpusLayout(tmp_path / "corpus").metadata(path.stem))

    return run


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


FAULTS = {
    "zero.mp4": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "text.mkv": (lambda path: path.write_text("no video\n" * 99), "is not a video that FFmpeg can open"),
    "noise.avi": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "is not a video that FFmpeg"),
    "sound.mp4": (write_sound, "has no video stream (only sound)"),
    "pointer.mp4": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        "is a Git LFS pointer, not the video itself; fetch it with: git lfs pull",
    ),
    "page.mp4": (
        lambda path: path.write_text("\ufeff\n<!DOCTYPE html><html><body>404</body></html>"),
        "is a web page (HTML), as a failed download leaves it, not a video; download it again",
    ),
    "login.mkv": (lambda path: path.write_text("<html>\n<head>Sign in</head>"), "is a web page (HTML)"),
    "cut.gif": (lambda path: path.write_bytes(b"GIF89a"), "FFmpeg can open"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read_is_quarantined_with_its_reason(tmp_path: Path, extract: Callable, name: str) -> None:
    write, reason = FAULTS[name]
    write(tmp_path / name)
    outcome, metadata = extract(tmp_path / name)
    assert reason in outcome.quarantined[Path(name).stem]
    assert (metadata.status, metadata.num_frames, metadata.reason) == (
        "quarantined",
        0,
        outcome.quarantined[Path(name).stem],
    )
    assert len(metadata.checksums) == 6  # all files are there, empty: a workflow goes on


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm", "v.avi"])
def test_a_video_that_ends_early_is_kept_to_there_and_says_so(
    make_video: Callable, extract: Callable, name: str
) -> None:
    codec = {"v.webm": "libvpx-vp9", "v.avi": "mpeg4"}.get(name, "libx264")
    options = {"movflags": "faststart"} if name == "v.mp4" else None
    rng = np.random.default_rng(0)
    path = make_video(
        name, 90, codec=codec, options=options, draw=lambda k: rng.integers(0, 255, (96, 96, 3), np.uint8)
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    outcome, metadata = extract(path)
    assert not outcome.quarantined and metadata.status == "ok"
    assert 40 <= metadata.num_frames < 80
    assert metadata.note is not None
    assert "of the 3.0" in metadata.note or "broke off" in metadata.note or "could not be decoded" in metadata.note


def test_a_video_that_is_still_being_copied_is_not_taken_for_whole(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    path = make_video("one.mkv", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])

    class Copying(discs.start):
        def detect(self, frame: Frame) -> np.ndarray:
            if path.stat().st_size < len(data):
                path.write_bytes(data)  # the copy ends while the first half is worked on
            return super().detect(frame)

    config = ExtractConfig(videos=[path], root=tmp_path / "corpus")
    with pytest.raises(UserError, match=r"one\.mkv: changed while it was read.*'one' was not extracted"):
        extract_videos(config, detector=discs._replace(start=Copying))
    assert not CorpusLayout(config.root).metadata("one").exists()
    outcome = extract_videos(config, detector=discs)
    assert outcome.extracted["one"].num_frames == 40


def test_a_video_that_is_emptied_while_it_is_read_is_named(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    path = make_video("one.mkv", 300)

    class Emptying(discs.start):
        def detect(self, frame: Frame) -> np.ndarray:
            path.write_bytes(b"")
            return super().detect(frame)

    config = ExtractConfig(videos=[path], root=tmp_path / "corpus")
    with pytest.raises(UserError, match=r"one\.mkv: changed while it was read.*'one' was not extracted"):
        extract_videos(config, detector=discs._replace(start=Emptying))
    with container._File(path) as file:
        assert file.seek(-1, io.SEEK_END) == -errno.EINVAL
        file.check()


def test_a_declared_length_that_is_a_lie_changes_no_frame(make_video: Callable, extract: Callable) -> None:
    path = make_video("v.mkv", 30)
    data = path.read_bytes()
    place = data.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a double of milliseconds
    assert struct.unpack_from(">d", data, place)[0] == pytest.approx(1000, abs=40)
    for lie_ms, note in ((60_000.0, "ends at 1.00 s of the 60.00 s that it declares"), (100.0, None)):
        path.write_bytes(data[:place] + struct.pack(">d", lie_ms) + data[place + 8 :])
        _, metadata = extract(path)
        assert (metadata.num_frames, metadata.note) == (30, note)
        assert metadata.duration_s == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("codec", "mark"), [("mpeg2video", {"flags": "+ildct+ilme"}), ("libx264", {})])
def test_an_interlaced_video_is_kept_and_says_so(
    tmp_path: Path, extract: Callable, capsys: pytest.CaptureFixture, codec: str, mark: dict[str, str]
) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=mark or {"x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for index in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((128, 160, 3), 20 * index, np.uint8))))
        container.mux(stream.encode(None))
    _, metadata = extract(path)
    assert (metadata.status, metadata.num_frames) == ("ok", 10)
    assert metadata.note is not None and metadata.note.startswith("10 of 10 frames are marked as interlaced")
    assert f"warning: {path}: {metadata.note}" in capsys.readouterr().err


def test_one_frame_is_a_video(make_video: Callable, extract: Callable, tmp_path: Path) -> None:
    _, metadata = extract(make_video("v.mp4", 1))
    assert (metadata.status, metadata.num_frames, metadata.note) == ("ok", 1, None)
    assert metadata.states["face"]["detected"] == 1
    assert read_tracks(CorpusLayout(tmp_path / "corpus").tracks("v")).times_s.tolist() == [0.0]


def test_an_id_with_blanks_and_accents_names_all_its_files(make_video: Callable, extract: Callable) -> None:
    name = "Ñandú dos años (1) 'x'; ö"
    outcome, metadata = extract(make_video(f"{name}.mp4", 3))
    assert list(outcome.extracted) == [name]
    assert metadata.video_id == name


# VmHWM, not ru_maxrss: that one keeps, over fork and exec, the peak of the process that started this one.
PHONE = """
import re, sys
from pathlib import Path
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.batch import extract_videos
extract_videos(ExtractConfig(videos=[Path(sys.argv[1])], root=Path(sys.argv[2])))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def test_a_4k_portrait_phone_video_stays_upright_and_within_memory(make_video: Callable, tmp_path: Path) -> None:
    """With the real detector, in a process of its own: 25 MB a frame, of which many wait for their box."""

    def draw(index: int) -> np.ndarray:
        image = np.full((2160, 3840, 3), 90, np.uint8)
        image[:, 40 * index : 40 * index + 200] = 200
        return image

    path = make_video("phone.mp4", 48, draw=draw)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2
    struct.pack_into(">9i", data, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PHONE, path, tmp_path / "c"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    metadata = read_metadata(CorpusLayout(tmp_path / "c").metadata("phone"))
    assert (metadata.width_px, metadata.height_px, metadata.num_frames) == (2160, 3840, 48)
    assert float(done.stdout.splitlines()[-1]) < MAX_RSS_MIB
