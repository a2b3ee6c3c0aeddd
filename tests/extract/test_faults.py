"""What an extraction leaves behind that was killed, or that ran out of disk."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.extract.detectors import DetectorKind
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob, checksums
from signstreams.extract.settings import ExtractConfig
from signstreams.files import sha256_file
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import STREAMS

NUM_FRAMES = 120

EXTRACT = """
import sys, time
from pathlib import Path
import numpy as np
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob
from signstreams.formats.video_sources import VideoSource
from signstreams.formats.video_metadata import DetectorInfo

class Middle:
    def __init__(self, config, video): pass
    def __enter__(self): return self
    def __exit__(self, *exception): pass
    def detect(self, frame):
        time.sleep(0.002)
        return np.random.default_rng(frame.source_index).uniform(0.3, 0.7, (543, 3)).astype(np.float32)

kind = DetectorKind(lambda config, video_id: DetectorInfo(name="middle", version="1"), Middle, sees_pixels=False)
video, root = map(Path, sys.argv[1:])
config = ExtractConfig(videos=[video], root=root)
print("started", flush=True)
extract_video(VideoJob(VideoSource.at(video), config, kind))
"""


def start(video: Path, root: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", EXTRACT, video, root], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"started\n"
    return process


def artifacts(root: Path) -> dict[str, str]:
    """Name to digest of everything but the metadata, whose timings differ."""
    files = (path for path in (root / "processed").rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files if path.suffix != ".json"}


def assert_whole(root: Path, video_id: str) -> None:
    """Whatever has a final name can be read to its end."""
    layout = CorpusLayout(root)
    reader = CropReader()
    for stream in STREAMS:
        if layout.crops(stream, video_id).exists():
            assert all(reader.read(crop).endswith(b"\xff\xd9") for crop in list_crops(layout.crops(stream, video_id)))
    reader.close()
    for path, read in (
        (layout.keypoints(video_id), read_keypoints),
        (layout.pose(video_id), read_pose),
        (layout.tracks(video_id), read_tracks),
    ):
        if path.exists():
            read(path)
    if layout.metadata(video_id).exists():
        assert read_metadata(layout.metadata(video_id)).checksums == checksums(layout, video_id)


@pytest.fixture
def video(make_video: Callable) -> Path:
    return make_video("señas d'ayer 1.mp4", NUM_FRAMES)


def test_a_kill_at_any_moment_leaves_whole_files_and_the_next_run_ends_as_a_calm_one(
    video: Path, tmp_path: Path
) -> None:
    calm, root = tmp_path / "calm", tmp_path / "killed"
    began_s = time.perf_counter()
    assert start(video, calm).wait() == 0
    calm_s = time.perf_counter() - began_s
    choose = random.Random(0)
    for _ in range(8):
        process = start(video, root)
        time.sleep(choose.uniform(0, calm_s))
        process.kill()
        process.wait()
        assert_whole(root, video.stem)
    assert start(video, root).wait() == 0
    assert_whole(root, video.stem)
    assert artifacts(root) == artifacts(calm)
    assert not list(root.rglob("*.part"))


def test_a_kill_while_a_finished_video_is_extracted_again_never_leaves_its_old_record(
    video: Path, tmp_path: Path, discs: DetectorKind
) -> None:
    config = ExtractConfig(videos=[video], root=tmp_path / "c")
    layout = CorpusLayout(config.root)
    extract_video(VideoJob(VideoSource.at(video), config, discs))
    process = start(video, config.root)
    while layout.metadata(video.stem).exists() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert_whole(config.root, video.stem)
    assert not layout.metadata(video.stem).exists()


def run_script(project: Path, *words: object, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, project / "scripts" / "extract_rois_v2.py", *words]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)


def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(
    shared_data: Path, project: Path, small_disk: Callable[[int], Path]
) -> None:
    clip, disk = shared_data / "clips" / "webcam_one_hand.mp4", small_disk(1024)
    done = run_script(project, "--videos", clip, "--root", disk)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "No space left on device" in errors[0] and clip.stem in errors[0]
    assert "Traceback" not in done.stderr
    left = [path for path in disk.rglob("*") if path.is_file()]
    assert not left, left


def test_a_file_that_may_not_grow_is_one_line_too(shared_data: Path, project: Path, tmp_path: Path) -> None:
    """A quota, or a file system with a greatest file size: the same for every user, without mounting."""
    clip = shared_data / "clips" / "webcam_one_hand.mp4"
    done = run_script(project, "--videos", clip, "--root", tmp_path / "c", limit_bytes=100_000)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "File too large" in errors[0]
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(shared_data: Path, project: Path, tmp_path: Path) -> None:
    place = tmp_path / "c" / "processed"
    place.mkdir(parents=True)
    place.chmod(0o500)
    done = run_script(project, "--videos", shared_data / "clips" / "webcam_one_hand.mp4", "--root", tmp_path / "c")
    place.chmod(0o700)
    assert done.returncode == 2 and "Permission denied" in done.stderr and "Traceback" not in done.stderr
