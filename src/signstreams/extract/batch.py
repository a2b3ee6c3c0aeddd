"""Extraction of many videos: which ones, what is left as it is, processes, progress, and what counts as failed."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.config.extract import ExtractConfig
from signstreams.errors import UserError
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.pipeline import KINDS, OnFrame, extract_video
from signstreams.extract.results import current_metadata
from signstreams.formats.layout import VIDEO_SUFFIXES, CorpusLayout
from signstreams.formats.metadata import VideoMetadata
from signstreams.ids import check_id, shown
from signstreams.progress import Progress
from signstreams.streams import STREAMS

_ENDINGS = ", ".join(VIDEO_SUFFIXES)


@dataclass
class Outcome:
    """What became of the videos, by id."""

    extracted: dict[str, VideoMetadata] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    """Id to reason; those found in an earlier run included."""
    problems: list[str] = field(default_factory=list)
    """One line per video that could not be worked on at all."""


@dataclass(frozen=True)
class _Result:
    """Of one video: metadata, or one line that says why there is none."""

    video_id: str
    metadata: VideoMetadata | None
    is_unchanged: bool = False
    problem: str = ""


def extract_videos(config: ExtractConfig, *, detector: DetectorKind | None = None) -> Outcome:
    """Extract all videos of the config; an unreadable one is quarantined, and the rest goes on.

    Raises:
        UserError: When the videos or the output folder cannot be used; after all work, when a video could not be
            worked on, or, of several videos, more than ``max_failed_fraction`` are quarantined.
    """
    detector = detector or KINDS[config.detector]
    videos = find_all_videos(config.videos)
    layout = CorpusLayout(config.root)
    _check_output(layout)
    outcome = Outcome()
    is_single = len(videos) == 1
    with Progress(None if is_single else len(videos), "frames" if is_single else "videos", "extract") as progress:

        def on_frame(expected: int | None) -> None:
            if is_single:
                progress.total = expected
                progress.advance()
            else:
                progress.advance(0)

        for result in _results(videos, config, detector, on_frame):
            _record(result, outcome, videos[result.video_id])
            if result.is_unchanged:
                progress.skip(0 if is_single else 1)
            elif not is_single:
                frames = result.metadata.num_frames if result.metadata else 0
                progress.advance(last=result.video_id, frames=frames)
        if is_single:
            progress.total = progress.done  # containers only estimate their number of frames
    num_failed = len(outcome.quarantined)
    if len(videos) > 1 and num_failed > config.max_failed_fraction * len(videos):
        outcome.problems.append(
            f"{num_failed} of {len(videos)} videos are unreadable, expected at most a fraction of "
            f"{config.max_failed_fraction} (max_failed_fraction); replace or remove them, or raise it"
        )
    if outcome.problems:
        raise UserError(outcome.problems)
    return outcome


def find_all_videos(places: list[Path]) -> dict[str, Path]:
    """Video id to file, over files and folders.

    Raises:
        UserError: Every missing place, folder without videos, unsafe id, foreign ending and id that comes twice.
    """
    videos: dict[str, Path] = {}
    problems = []
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.name[0] != ".")
            if not found:
                problems.append(f"{place}: found no video in this folder, expected files ending in {_ENDINGS}")
        elif not place.exists():
            problems.append(f"{place}: no such file or folder; expected a video or a folder of videos")
            continue
        elif place.suffix.lower() not in VIDEO_SUFFIXES:
            problems.append(f"{place}: the ending is '{place.suffix}', expected one of {_ENDINGS}")
            continue
        else:
            found = [place]
        for path in found:
            try:
                check_id(path.stem)
            except ValueError as error:
                problems.append(f"{path}: the id {shown(path.stem)} {error}; rename the file")
                continue
            if path.stem in videos and videos[path.stem].resolve() != path.resolve():
                problems.append(f"{path}: gives the id '{path.stem}', as does {videos[path.stem]}; rename one of them")
            videos.setdefault(path.stem, path)
    if problems:
        raise UserError(problems)
    return videos


def summary(outcome: Outcome, root: Path) -> str:
    """One line for people: what was done, and where the results are."""
    parts = [f"{len(outcome.extracted)} extracted"]
    if outcome.unchanged:
        parts.append(f"{len(outcome.unchanged)} unchanged (same video and settings; --force extracts again)")
    if outcome.quarantined:
        parts.append(f"{len(outcome.quarantined)} quarantined")
    return f"{', '.join(parts)}; results in {CorpusLayout(root).processed}"


def _results(
    videos: dict[str, Path], config: ExtractConfig, detector: DetectorKind, on_frame: OnFrame
) -> Iterator[_Result]:
    num_jobs = min(config.num_jobs, len(videos))
    if num_jobs == 1:
        for video_id, path in videos.items():
            yield _extract_one(path, video_id, config, detector, on_frame)
        return
    # Fresh processes: MediaPipe's threads do not survive a fork.
    pool = ProcessPoolExecutor(num_jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(_extract_one, path, name, config, detector): name for name, path in videos.items()}
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; run again with fewer --jobs: "
            "videos that are done stay as they are"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _extract_one(
    path: Path, video_id: str, config: ExtractConfig, detector: DetectorKind, on_frame: OnFrame | None = None
) -> _Result:
    layout = CorpusLayout(config.root)
    try:
        if not config.force and (found := current_metadata(path, layout, video_id, config, detector)) is not None:
            return _Result(video_id, found, is_unchanged=True)
        return _Result(video_id, extract_video(path, layout, video_id, config, detector=detector, on_frame=on_frame))
    except OSError as error:  # no permission, no space: for the user to mend; the other videos go on
        place = error.filename or path
        return _Result(video_id, None, problem=f"{place}: {error.strerror or error}; '{video_id}' was not extracted")


def _record(result: _Result, outcome: Outcome, path: Path) -> None:
    if result.metadata is None:
        outcome.problems.append(result.problem)
        return
    if result.is_unchanged:
        outcome.unchanged.append(result.video_id)
    if result.metadata.status == "quarantined":
        outcome.quarantined[result.video_id] = result.metadata.reason or ""
        _warn(f"{path}: quarantined: {result.metadata.reason}")
    elif not result.is_unchanged:
        outcome.extracted[result.video_id] = result.metadata
        if result.metadata.note:
            _warn(f"{path}: {result.metadata.note}; the frames that could be read are kept")


def _warn(text: str) -> None:
    print("warning: " + text.replace("\r", "\\r").replace("\n", "\\n"), file=sys.stderr)


def _check_output(layout: CorpusLayout) -> None:
    folders = [*reversed(layout.processed.parents), layout.processed]
    folders += [layout.processed / name for name in (*STREAMS, "pose", "keypoints", "tracks", "metadata")]
    problems = [
        f"{f}: found a file, expected a folder for results; move it or choose another --root"
        for f in folders
        if f.is_file()
    ]
    if problems:
        raise UserError(problems)
