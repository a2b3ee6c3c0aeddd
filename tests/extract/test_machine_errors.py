"""Errors of disk, network and memory: nothing is said of the video, no record is left, and the exit code is 75."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams import errors
from signstreams.contract.inventory import VideoFiles, artifacts_of
from signstreams.contract.run_checks import check_and_record
from signstreams.errors import TRY_AGAIN_EXIT_CODE, TryAgainError, UserError, exit_on_user_error, is_of_machine
from signstreams.extract import container
from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame, VideoReader
from signstreams.formats.layout import CorpusLayout


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (96, 96, 3), np.uint8)


def fail_from(monkeypatch: pytest.MonkeyPatch, first_byte: int, code: int) -> None:
    """Reading a video beyond a byte gives an error, as FFmpeg meets it."""

    class Disk(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() + (size or 0) > first_byte:
                raise OSError(code, os.strerror(code))
            return super().read(size)

    class File(container._File, Disk):
        pass

    monkeypatch.setattr(container, "_File", File)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
def test_a_disk_that_fails_condemns_no_video(
    make_video: Callable,
    tmp_path: Path,
    discs: DetectorKind,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    share: float,
    code: int,
) -> None:
    codec = "mpeg4" if name == "v.avi" else "libx264"
    options = {"movflags": "faststart"} if name == "v.mp4" else None
    path = make_video(name, 60, draw=noise, codec=codec, options=options)
    config = ExtractConfig(videos=[path], root=tmp_path / "c")
    layout = CorpusLayout(config.root)
    with monkeypatch.context() as patch:
        fail_from(patch, int(share * path.stat().st_size), code)
        with pytest.raises(TryAgainError, match=r"'v' was not extracted: the machine failed, not the video; run again"):
            extract_videos(config, detector=discs)
    assert not layout.metadata("v").exists()
    outcome = extract_videos(config, detector=discs)
    assert outcome.extracted["v"].num_frames == 60 and outcome.extracted["v"].note is None


def test_spans_meet_the_same_error(make_video: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("v.mkv", 90, draw=noise)
    fail_from(monkeypatch, path.stat().st_size // 2, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), VideoReader(path, spans_s=[(2.0, 2.5)]) as reader:
        list(reader.frames())


def test_no_file_left_to_open_condemns_no_video(make_video: Callable) -> None:
    path = make_video("v.mp4", 3)
    own, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with path.open("rb") as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 1, most))
        taken = _take_all()
        try:
            with pytest.raises(OSError) as caught:
                VideoReader(path)
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (own, most))
    assert caught.value.errno == errno.EMFILE and is_of_machine(caught.value)


def _take_all() -> list[int]:
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return taken


LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
import cv2, numpy as np
from signstreams.errors import is_of_machine
from signstreams.extract.video import UnreadableVideoError, VideoReader
cv2.setNumThreads(1)
path = Path(sys.argv[1])
list(VideoReader(Path(sys.argv[2])).frames())  # what is loaded once
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]) * 2**20, -1))
try:
    with VideoReader(path) as reader:
        frames = list(reader.frames())
        print("read", len(frames), reader.note)
except UnreadableVideoError as error:
    print("unreadable", error)
except (OSError, MemoryError) as error:
    print("machine", is_of_machine(error))
"""


@pytest.mark.parametrize("room_mib", [8, 30, 80, 160])
def test_no_memory_left_condemns_no_video(make_video: Callable, room_mib: int) -> None:
    def draw(index: int) -> np.ndarray:
        return np.full((1088, 1920, 3), 20 * index % 256, np.uint8)

    small, large = make_video("s.mp4", 2), make_video("l.mp4", 40, draw=draw)
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, large, small, str(room_mib)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "machine True\n", (done.stdout, done.stderr[-500:])


def test_a_check_that_meets_a_failing_disk_leaves_no_record(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("v.mp4", 5)
    extract_videos(ExtractConfig(videos=[path], root=tmp_path), detector=discs)
    layout = CorpusLayout(tmp_path)
    layout.check("v").unlink(missing_ok=True)
    real = Path.open

    def fail(self: Path, *args: object, **how: object) -> object:
        if self == layout.crops("hand_r", "v"):
            raise OSError(errno.EIO, "Input/output error", str(self))
        return real(self, *args, **how)

    monkeypatch.setattr(Path, "open", fail)
    video = VideoFiles("v", path, artifacts_of(layout, "v"))
    with pytest.raises(OSError, match="Input/output error"):
        check_and_record(layout, video, "all")
    assert not layout.check("v").exists()


def test_exit_codes() -> None:
    for error, code in (
        (UserError("yours"), 2),
        (TryAgainError("the machine's"), TRY_AGAIN_EXIT_CODE),
        (OSError(errno.EIO, "Input/output error", "a"), TRY_AGAIN_EXIT_CODE),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 2),
    ):
        with pytest.raises(SystemExit) as caught, exit_on_user_error():
            raise error
        assert caught.value.code == code


def test_a_video_that_the_disk_does_not_give_stops_no_other(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [make_video("a.mp4", 3), make_video("b.mkv", 60, draw=noise)]
    config = ExtractConfig(videos=videos, root=tmp_path / "c")
    fail_from(monkeypatch, videos[1].stat().st_size // 2, errno.EIO)
    with pytest.raises(TryAgainError, match="'b' was not extracted"):
        extract_videos(config, detector=discs)
    layout = CorpusLayout(config.root)
    assert layout.metadata("a").exists() and not layout.metadata("b").exists()


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_a_detector_without_memory_condemns_no_video(
    make_video: Callable,
    tmp_path: Path,
    discs: DetectorKind,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
) -> None:
    class Poor(discs.start):
        def detect(self, frame: Frame) -> np.ndarray:
            raise kind("inference_interpreter_delegate_runner.cc:298")

    config = ExtractConfig(videos=[make_video("v.mp4", 5)], root=tmp_path / "c")
    poor = discs._replace(start=Poor)
    if kind is RuntimeError:
        with pytest.raises(RuntimeError):  # with memory enough it is a bug, which keeps its traceback
            extract_videos(config, detector=poor)
    monkeypatch.setattr(errors, "_is_memory_short", lambda: True)
    with pytest.raises(TryAgainError, match="no memory is left; 'v' was not extracted"):
        extract_videos(config, detector=poor)
    assert not CorpusLayout(config.root).metadata("v").exists()


def test_a_folder_of_frames_meets_the_same_errors(
    tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), noise(index))
    real = Path.read_bytes

    def fail(self: Path) -> bytes:
        if self.name == "3.png":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return real(self)

    config = ExtractConfig(videos=[folder], root=tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(TryAgainError, match=r"3\.png: Stale file handle; 'v' was not extracted"):
            extract_videos(config, detector=discs)
    assert extract_videos(config, detector=discs).extracted["v"].note is None
