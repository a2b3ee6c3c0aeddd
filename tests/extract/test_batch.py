"""Many videos: which, what is left alone, what fails, and what the user reads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.extract import batch
from signstreams.extract.annotations import VideoAnnotations
from signstreams.extract.batch import extract_videos, find_videos, summary
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import VideoSource
from signstreams.processes import WorkerPool
from signstreams.progress import Progress


@pytest.fixture
def folder(make_video: Callable) -> Path:
    """Three videos, and a file of another kind."""
    path = make_video("a.mp4", 4)
    for name in ("b", "c"):
        shutil.copy(path, path.with_name(f"{name}.mp4"))
    (path.parent / "notes.txt").write_text("not a video")
    return path.parent


def config_for(videos: Path | list[Path], root: Path, **settings: object) -> ExtractConfig:
    return ExtractConfig(videos=videos if isinstance(videos, list) else [videos], root=root, **settings)


def test_a_folder_is_extracted_and_left_alone_the_second_time(
    folder: Path, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    config = config_for(folder, tmp_path / "c")
    first = extract_videos(config, detector=discs)
    assert sorted(first.extracted) == ["a", "b", "c"] and not first.unchanged
    written = {p: p.stat().st_mtime_ns for p in config.root.rglob("*") if p.is_file()}
    assert len(written) == 3 * 8
    second = extract_videos(config, detector=discs)
    assert second.unchanged == ["a", "b", "c"] and not second.extracted
    assert {p: p.stat().st_mtime_ns for p in config.root.rglob("*") if p.is_file()} == written
    assert "3 unchanged (same video and settings; --force extracts again)" in summary(second, config.root)
    assert "3/3 videos" in capsys.readouterr().err


def test_the_time_left_follows_the_sizes_of_the_videos(
    folder: Path, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []

    class Asked(Progress):
        def advance(self, units: int = 1, **shown: float | int | str) -> None:
            super().advance(units, **shown)
            asked.append(self._left_s())

    monkeypatch.setattr(batch, "Progress", Asked)
    (folder / "b.mp4").write_bytes(b"no video")
    with (folder / "c.mp4").open("ab") as file:
        file.write(b"\0" * 1000 * (folder / "a.mp4").stat().st_size)
    extract_videos(config_for(folder, tmp_path / "c", max_failed_fraction=1), detector=discs)
    assert asked[0] is None  # within the first video
    took_s = read_metadata(CorpusLayout(tmp_path / "c").metadata("a")).timings_s
    after_first = next(left_s for left_s in asked if left_s is not None)
    assert after_first == pytest.approx(1001 * (took_s["total"] - took_s["start"]), rel=0.1, abs=0.1)
    assert asked[-1] == 0.0


def test_the_size_of_an_annotated_video_is_that_of_its_spans(folder: Path, tmp_path: Path, discs: DetectorKind) -> None:
    config = config_for(folder, tmp_path / "c")
    spans = {"a": ((0.0, 1.0), (2.0, 2.5)), "b": ((0.0, 4.0),)}

    def sizes(spans: dict[str, tuple[tuple[float, float], ...] | None]) -> dict[str, float]:
        sources = {name: VideoSource.at(folder / f"{name}.mp4") for name in spans}
        return batch._sizes([VideoJob(sources[k], config, discs, VideoAnnotations(v)) for k, v in spans.items()])

    assert sizes(spans) == {"a": 1.5, "b": 4.0}
    assert sizes(spans | {"b": None}) == dict.fromkeys("ab", (folder / "a.mp4").stat().st_size)
    assert sizes({"absent": None}) == {"absent": 0.0}


def test_force_extracts_again(folder: Path, tmp_path: Path, discs: DetectorKind) -> None:
    extract_videos(config_for(folder, tmp_path / "c"), detector=discs)
    again = extract_videos(config_for(folder, tmp_path / "c", force=True), detector=discs)
    assert len(again.extracted) == 3


def test_other_settings_extract_again(folder: Path, tmp_path: Path, discs: DetectorKind) -> None:
    extract_videos(config_for(folder, tmp_path / "c"), detector=discs)
    again = extract_videos(config_for(folder, tmp_path / "c", crop_px=64), detector=discs)
    assert len(again.extracted) == 3
    assert read_metadata(CorpusLayout(tmp_path / "c").metadata("a")).crop_px == 64


def test_a_single_video_counts_frames(
    folder: Path, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    extract_videos(config_for(folder / "a.mp4", tmp_path / "c"), detector=discs)
    assert "4/4 frames" in capsys.readouterr().err


def test_an_unreadable_video_does_not_stop_the_rest(
    folder: Path, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    (folder / "b.mp4").write_bytes(b"")
    config = config_for(folder, tmp_path / "c", max_failed_fraction=0.4)
    outcome = extract_videos(config, detector=discs)
    assert sorted(outcome.extracted) == ["a", "c"]
    assert outcome.quarantined == {"b": "the file is empty (0 bytes)"}
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {folder / 'b.mp4'}: quarantined: the file is empty (0 bytes)"]
    assert extract_videos(config, detector=discs).quarantined  # known from before, and said again


def test_too_many_unreadable_videos_fail_the_run_after_all_is_done(
    folder: Path, tmp_path: Path, discs: DetectorKind
) -> None:
    (folder / "b.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 3 videos are unreadable.*max_failed_fraction"):
        extract_videos(config_for(folder, tmp_path / "c"), detector=discs)
    assert read_metadata(CorpusLayout(tmp_path / "c").metadata("c")).status == "ok"


def test_a_single_unreadable_video_is_quarantined_without_failing(tmp_path: Path, discs: DetectorKind) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"")
    outcome = extract_videos(config_for(path, tmp_path / "c"), detector=discs)
    assert list(outcome.quarantined) == ["x"]


def test_a_cut_video_is_kept_with_a_warning(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    path = make_video("v.mp4", 90, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert list(extract_videos(config_for(path, tmp_path / "c"), detector=discs).extracted) == ["v"]
    assert "the frames that could be read are kept" in capsys.readouterr().err


def test_a_rate_above_the_sources_own_repeats_frames_and_says_so_once(
    folder: Path, make_video: Callable, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    make_video("slow.mp4", 4, fps=8)
    outcome = extract_videos(config_for(folder, tmp_path / "c", fps=25), detector=discs)
    assert outcome.extracted["slow"].num_frames == 13  # the grid of the rate: all videos of a corpus have it
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warning == (
        "warning: 1 of 4 videos have fewer than 25 frames per second (lowest: 8, 'slow'): they repeat frames; a lower "
        "--fps, or none, would not"
    )


def test_every_bad_place_is_named_at_once(tmp_path: Path, make_video: Callable) -> None:
    video = make_video("a.mp4", 1)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(video, other / "a.mkv")
    shutil.copy(video, other / "bad .mp4")
    (tmp_path / "none").mkdir()
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UserError) as error:
        find_videos([video, tmp_path / "gone", tmp_path / "none", tmp_path / "x.txt", other])
    missing, empty, ending, twice, unsafe = error.value.problems
    assert missing == f"{tmp_path / 'gone'}: no such file or folder; expected a video or a folder of videos"
    assert empty.startswith(f"{tmp_path / 'none'}: found no video in this folder, expected files ending in .mp4, .mkv")
    assert "the ending is '.txt', expected one of .mp4" in ending
    assert twice == f"{video}: '{video}' and '{other / 'a.mkv'}' both give the video id 'a'; rename one of them"
    assert "the video id 'bad ' is empty or has blanks around it; rename it" in unsafe


def test_what_looks_like_videos_and_is_passed_over_is_named_in_one_line(
    folder: Path, tmp_path: Path, discs: DetectorKind, capsys: pytest.CaptureFixture
) -> None:
    for name in ("d.MTS", "e.wmv", "session1/f.mp4", "session2/g.mts"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a.mp4", folder / name)
    (tmp_path / "ids.txt").write_text("a\n")
    places = [folder, folder / "session1"]
    for settings, is_said in (({}, True), ({"only": tmp_path / "ids.txt"}, False)):
        extract_videos(config_for(places, tmp_path / "c", **settings), detector=discs)
        warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == is_said
        for warning in warnings:
            assert warning.startswith(f"warning: {folder}: what looks like videos is passed over (3: d.MTS, e.wmv, ")
            assert "session2/); convert files (ffmpeg -i FILE NAME.mp4)" in warning
    for path in folder.glob("*.mp4"):
        path.unlink()
    found = r"found no video in this folder.*passed over \(4: d\.MTS, e\.wmv, session1/ and 1 more\)"
    with pytest.raises(UserError, match=found):
        extract_videos(config_for(folder, tmp_path / "c"), detector=discs)


def test_the_same_file_named_twice_is_one_video(folder: Path) -> None:
    assert list(find_videos([folder, folder / "a.mp4"])) == ["a", "b", "c"]


def test_an_output_path_that_is_a_file_is_refused(folder: Path, tmp_path: Path, discs: DetectorKind) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "processed").write_text("")
    with pytest.raises(UserError, match="processed: found a file, expected a folder for results"):
        extract_videos(config_for(folder, tmp_path / "c"), detector=discs)


def test_a_write_that_fails_is_one_line_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batch.extract_video

    def full_disk(job: VideoJob, **kwargs: object) -> object:
        if job.video_id == "b":
            raise OSError(28, "No space left on device", str(job.layout.pose("b")))
        return real(job, **kwargs)

    monkeypatch.setattr(batch, "extract_video", full_disk)
    with pytest.raises(UserError) as error:
        extract_videos(config_for(folder, tmp_path / "c"), detector=discs)
    (problem,) = error.value.problems
    assert problem.endswith("b.npz: No space left on device; 'b' was not extracted")
    assert CorpusLayout(tmp_path / "c").metadata("c").exists()


def script(project: Path, *args: object) -> subprocess.CompletedProcess:
    command = [sys.executable, project / "scripts" / "extract_rois_v2.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_and_typos_answer_without_heavy_imports(project: Path) -> None:
    code = (
        "import runpy, sys; del sys.argv[0]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = {'torch', 'mediapipe', 'cv2', 'av', 'numpy'} & set(sys.modules)\n"
        "print('heavy:', heavy, 'code:', code)\n"
    )
    path = str(project / "scripts" / "extract_rois_v2.py")
    for args, expected in (
        (["--help"], "code: 0"),
        (["--videos", "v", "--root", "r", "--set", "boxes.hand_scal=2"], "code: 2"),
    ):
        done = subprocess.run([sys.executable, "-c", code, path, *args], capture_output=True, text=True, timeout=60)
        assert f"heavy: set() {expected}" in done.stdout
    assert "did you mean 'boxes.hand_scale'?" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--videos", "/nowhere", "--root", "r"], "error: /nowhere: no such file or folder"),
        (["--videos", "/nowhere", "--root", "r", "--fps", "fast"], "error: fps = 'fast' (--fps): "),
        (["--root", "r"], "error: missing key 'videos'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(project: Path, args: list[str], said: str) -> None:
    done = script(project, *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_jobs_do_what_one_does_and_keep_quiet(project: Path, folder: Path, tmp_path: Path) -> None:
    """The real detector in fresh processes: it finds nobody among the discs, and says nothing of its own."""
    (folder / "c.mp4").write_bytes(b"")
    root = tmp_path / "out put 'ñ'"
    done = script(project, "--videos", folder, "--root", root, "--jobs", 2, "--max-failed-fraction", 0.5)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2 extracted, 1 quarantined; results in {root / 'processed'}\n"
    unexpected = [line for line in done.stderr.splitlines() if not line.startswith(("extract: ", "warning: "))]
    assert unexpected == []
    metadata = read_metadata(CorpusLayout(root).metadata("a"))
    assert (metadata.num_frames, metadata.num_pose_frames) == (4, 0)
    assert metadata.states["hand_l"]["missing"] == 4
    again = script(project, "--videos", folder, "--root", root, "--jobs", 2, "--max-failed-fraction", 0.5)
    assert "0 extracted, 3 unchanged" in again.stdout


def test_a_killed_worker_is_explained(
    folder: Path, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(WorkerPool):
        def submit(self, *args: object) -> Future:
            future: Future = Future()
            future.set_exception(BrokenProcessPool())
            return future

    monkeypatch.setattr(batch, "WorkerPool", Killed)
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --jobs"):
        extract_videos(config_for(folder, tmp_path / "c", num_jobs=2), detector=discs)


def test_a_video_in_two_folders_is_that_of_the_first_which_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.mp4", "z.mp4"):
        shutil.copy(folder / "a.mp4", other / name)
    found = find_videos([other, folder], warns=True)
    assert {video_id: source.path.parent for video_id, source in found.items()} == {
        "a": other,
        "z": other,
        "b": folder,
        "c": folder,
    }
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {folder}: 1 video is also in a folder before it, whose file counts: 'a'"
    ]
    with pytest.raises(UserError, match="both give the video id 'a'"):
        find_videos([other, folder / "a.mp4"])  # a file is named on purpose
