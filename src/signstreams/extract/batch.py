"""Extraction of many videos: find them, skip current results, run processes, show progress, and decide what failed."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import few, few_ids
from signstreams.errors import TryAgainError, UserError, is_of_machine, print_problems
from signstreams.extract.annotations import VideoAnnotations, read_annotations
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.pipeline import KINDS, OnFrame, extract_video
from signstreams.extract.preview import restore_preview
from signstreams.extract.results import VideoJob, current_metadata, is_of_holistic
from signstreams.extract.settings import ExtractConfig, missing_points
from signstreams.files import remove_leftovers, sha256_file, write_json
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata, read_metadata
from signstreams.formats.video_sources import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    SourceFolder,
    VideoSource,
    doubled_id,
    list_sources,
    special_file,
    unsafe_id,
)
from signstreams.ids import by_composition, composed, shown
from signstreams.language import counted
from signstreams.processes import WorkerPool
from signstreams.progress import Progress, UnlikeParts
from signstreams.streams import STREAMS
from signstreams.tracker.models import fetch_models, missing_models

_REPEATS_BELOW = 0.95  # of the target rate; 24 to 25 repeats one frame per second, which is not worth a warning
_ENDINGS = ", ".join(VIDEO_SUFFIXES)

OnResult = Callable[[CorpusLayout, str, Path, VideoMetadata], object]
"""Called with layout, video id, video and metadata once all files of a video are there."""


@dataclass
class Outcome:
    """What became of the videos, by id."""

    extracted: dict[str, VideoMetadata] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)  # id to reason, including those of earlier runs
    problems: list[str] = field(default_factory=list)  # one line per video that could not be processed at all
    machine_problems: list[str] = field(default_factory=list)  # the same, where the machine is to blame
    of_holistic: list[str] = field(default_factory=list)  # those of `unchanged` that MediaPipe Holistic found
    unannotated: list[str] = field(default_factory=list)
    """Left out: only annotated spans are extracted, and meta.csv has none of these videos."""


@dataclass(frozen=True)
class _Result:
    """Metadata of one job, or one line that states why there is none."""

    job: VideoJob
    metadata: VideoMetadata | None
    is_unchanged: bool = False
    problem: str = ""
    is_of_machine: bool = False  # whether the problem is one of disk, network or memory


def extract_videos(
    config: ExtractConfig,
    *,
    detector: DetectorKind | None = None,
    on_result: OnResult | None = None,
    on_frame: OnFrame | None = None,
    annotations: dict[str, VideoAnnotations] | None = None,
) -> Outcome:
    """Extract all videos of the config; an unreadable one is quarantined, and the rest goes on.

    ``detector`` and ``annotations`` (per video) replace those of config and meta.csv. ``on_result`` is called in the
    process that extracted the video; both it and the detector have to be picklable. ``on_frame`` is called after each
    frame of a single video.

    Raises:
        UserError: The videos or the output folder cannot be used; after all work, a video could not be processed, or,
            of several videos, more than ``max_failed_fraction`` are quarantined. It is a `TryAgainError` if nothing
            went wrong but disk, network or memory.
    """
    detector = detector or KINDS[config.detector]
    videos = find_videos(config.videos, warns=config.only is None)
    if config.only is not None:
        videos = only_listed(videos, config.only)
    layout = CorpusLayout(config.root)
    _check_output(layout)
    annotations = read_annotations(layout, videos, config) if annotations is None else annotations
    outcome = Outcome(unannotated=[video_id for video_id in videos if video_id not in annotations])
    jobs = [
        VideoJob(source, config, detector, annotations[video_id])
        for video_id, source in videos.items()
        if video_id in annotations
    ]
    problems = missing_points(config, [job.video_id for job in jobs])
    if detector == KINDS["holistic"] and importlib.util.find_spec("mediapipe") is None:
        problems.append(
            "detector: holistic needs MediaPipe; pip install 'signstreams[holistic]', or leave the detector out"
        )
    if detector == KINDS["tracker"] or (detector.sees_pixels and config.signer.choose != "none"):
        if config.tracker.download:
            fetch_models(config.tracker.models)
        problems += missing_models(config.tracker.models)
    if problems:
        raise UserError(problems)
    if len(jobs) != 1:  # listing the folders would cost a job per video more than it saves
        remove_leftovers(layout.processed, layout.report.parent)
    _run_jobs(jobs, config.num_jobs, on_result, outcome, on_frame)
    _warn_of_repeats(outcome, config)
    num_failed = len(outcome.quarantined)
    if len(jobs) > 1 and num_failed > config.max_failed_fraction * len(jobs):
        outcome.problems.append(
            f"{num_failed} of {len(jobs)} videos are unreadable, expected at most a fraction of "
            f"{config.max_failed_fraction} (max_failed_fraction); replace or remove them, or raise it"
        )
    if outcome.problems:
        raise UserError(outcome.problems + outcome.machine_problems)
    if outcome.machine_problems:
        raise TryAgainError(outcome.machine_problems)
    if config.manifest is not None:
        write_json(config.manifest, {"videos": {job.video_id: _manifest_entry(job) for job in jobs}})
    return outcome


def summary(outcome: Outcome, root: Path) -> str:
    """One line for people: what was done, and where the results are."""
    parts = [f"{len(outcome.extracted)} extracted"]
    if outcome.unchanged:
        parts.append(f"{len(outcome.unchanged)} unchanged (same video and settings; --force extracts again)")
    if outcome.of_holistic:
        parts.append(
            f"{len(outcome.of_holistic)} of these were extracted by MediaPipe Holistic, which misses more hands;"
            " --force finds them with the tracker"
        )
    if outcome.quarantined:
        parts.append(f"{len(outcome.quarantined)} quarantined")
    if outcome.unannotated:
        parts.append(f"{len(outcome.unannotated)} left out (no annotated span)")
    return f"{', '.join(parts)}; results in {CorpusLayout(root).processed}"


# -- Which videos


def find_videos(places: list[Path], *, warns: bool = False) -> dict[str, VideoSource]:
    """Video id to source, over files and folders.

    A folder stands for the videos in it; if it holds images only, or a numbered sub-folder of images, it is one video.
    Folders are searched in their order: a video that several of them have is that of the first. With ``warns``, these
    videos, and entries of the folders that look like videos but are none, are named in warnings.

    Raises:
        UserError: Every missing place, folder without videos, unsafe id, foreign ending and doubled id.
    """
    found: dict[str, list[VideoSource]] = {}
    folder_of: dict[str, Path] = {}  # id of each video that a folder gave to that folder
    shadowed: dict[str, Path] = {}
    problems, warnings = [], []
    for place in places:
        source = VideoSource.at(place)
        sources = [source]
        if source.is_folder:
            folder = list_sources(place)
            if folder.sources and source.images_dir in (None, place):
                sources = sorted(itertools.chain(*folder.sources.values()), key=lambda source: source.path)
            elif source.images_dir is None:
                passed_over = _passed_over_text(folder, places)
                problems.append(
                    f"{place}: found no video in this folder, expected files ending in {_ENDINGS}, "
                    f"or folders of images ({', '.join(IMAGE_SUFFIXES)}){passed_over and f'; {passed_over}'}"
                )
                continue
            if warns and (passed_over := _passed_over_text(folder, places)):
                warnings.append(f"{place}: {passed_over}")
        elif not place.exists():
            problems.append(f"{place}: no such file or folder; expected a video or a folder of videos")
            continue
        elif place.suffix.lower() not in VIDEO_SUFFIXES:
            problems.append(f"{place}: the ending is '{place.suffix}', expected one of {_ENDINGS}")
            continue
        is_listed = sources[0] is not source
        for source in sources:
            first = folder_of.get(source.video_id)
            if is_listed and first is not None and first != place:
                if source.path.resolve() != found[source.video_id][0].path.resolve():
                    shadowed[source.video_id] = place
                continue
            if is_listed:
                folder_of[source.video_id] = place
            found.setdefault(source.video_id, []).append(source)
    if shadowed:
        text = counted(
            "%(num)s video is also in a folder before it, whose file counts: %(ids)s",
            "%(num)s videos are also in a folder before it, whose files count: %(ids)s",
            len(shadowed),
            ids=few_ids(shadowed),
        )
        warnings.append(f"{next(iter(shadowed.values()))}: {text}")
    for video_id, sources in found.items():
        paths = {source.path.resolve(): str(source.path) for source in reversed(sources)} if len(sources) > 1 else {}
        if text := doubled_id(video_id, list(paths.values())[::-1]):
            problems.append(f"{sources[0].path}: {text}; rename one of them")
        if text := unsafe_id(video_id):
            problems.append(f"{sources[0].path}: {text}; rename it")
        if text := special_file(sources[0].path):
            problems.append(f"{sources[0].path}: {text}, expected a file; put the video there, or remove it")
    if problems:
        raise UserError(problems)
    if warns:
        print_problems(warnings, kind="warning")
    return {video_id: sources[0] for video_id, sources in found.items()}


def only_listed(videos: dict[str, VideoSource], listing: Path) -> dict[str, VideoSource]:
    """Those of ``videos`` that a text file lists by id, in its order.

    Raises:
        UserError: The file cannot be read or is empty, or lists ids that are none of the videos.
    """
    try:
        ids = [line for line in listing.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{listing}: {getattr(error, 'strerror', None) or error}; expected one id per line") from None
    if not ids:
        raise UserError(f"{listing}: lists no id, expected those of the videos to extract, one per line")
    known = by_composition(videos)
    if absent := [video_id for video_id in ids if composed(video_id) not in known]:
        raise UserError([f"{listing}: {shown(video_id)} is none of the videos; correct it" for video_id in absent])
    return {name: videos[name] for name in (known[composed(video_id)] for video_id in ids)}


def _passed_over_text(folder: SourceFolder, places: list[Path]) -> str:
    """Names what looks like videos but is passed over, and what to do about it; empty when there is none."""
    named = {place.resolve() for place in places}
    passed = [path for path in folder.passed_over() if path.resolve() not in named]
    if not passed:
        return ""
    names = few([f"{path.name}/" if path.is_dir() else path.name for path in passed], limit=3)
    return (
        f"what looks like videos is passed over ({len(passed):,}: {names}); convert files (ffmpeg -i FILE NAME.mp4), "
        "and name sub-folders or move their videos up"
    )


def _check_output(layout: CorpusLayout) -> None:
    folders = [*reversed(layout.processed.parents), layout.processed]
    folders += [layout.processed / name for name in (*STREAMS, "pose", "keypoints", "tracks", "metadata")]
    problem = "found a file, expected a folder for results; move it or choose another --root"
    if files := [folder for folder in folders if folder.is_file()]:
        raise UserError(f"{file}: {problem}" for file in files)


# -- Running


def _run_jobs(
    jobs: list[VideoJob],
    num_processes: int,
    on_result: OnResult | None,
    outcome: Outcome,
    also_on_frame: OnFrame | None,
) -> None:
    """Extract, and show progress: frames of a single video, else videos."""
    is_single = len(jobs) == 1
    num_frames = num_pose_frames = 0
    parts = UnlikeParts({} if is_single else _sizes(jobs), max(1, min(num_processes, len(jobs))))
    total, unit, left_s = (None, "frames", None) if is_single else (len(jobs), "videos", parts.left_s)
    with Progress(total, unit, "extract", left_s=left_s) as progress:

        def on_frame(expected: int | None) -> None:
            if is_single:
                progress.total = expected
                progress.advance()
                if also_on_frame is not None:
                    also_on_frame(expected)
            else:
                progress.advance(0)

        for result in _results(jobs, num_processes, on_result, on_frame):
            _record(result, outcome)
            if is_single:
                continue
            if result.is_unchanged or result.metadata is None:
                parts.leave_out(result.job.video_id)
            if result.is_unchanged:
                progress.skip(1)
                continue
            if result.metadata is not None:
                num_frames += result.metadata.num_frames
                num_pose_frames += result.metadata.num_pose_frames
                timings_s = result.metadata.timings_s
                parts.finish(result.job.video_id, timings_s["total"] - timings_s["start"])  # models load once
            shares: dict[str, int | str] = {"frames": num_frames}
            shares |= {"with a person": f"{num_pose_frames / max(num_frames, 1):.0%}", "last": result.job.video_id}
            progress.advance(1, **shares)
        if is_single:
            progress.total = progress.done  # containers only estimate their number of frames


def _sizes(jobs: list[VideoJob]) -> dict[str, float]:
    """Video to what its time follows: the seconds of its spans where all have such, else its bytes; none is opened."""
    spans = {job.video_id: job.annotations.spans_s for job in jobs}
    if all(own is not None for own in spans.values()):
        return {video_id: sum(end - start for start, end in own or ()) for video_id, own in spans.items()}
    sizes = dict.fromkeys(spans, 0.0)
    for job in jobs:
        with contextlib.suppress(OSError):  # told when it is extracted
            sizes[job.video_id] = float(job.source.num_bytes())
    return sizes


def _results(
    jobs: list[VideoJob], num_processes: int, on_result: OnResult | None, on_frame: OnFrame
) -> Iterator[_Result]:
    num_processes = min(num_processes, len(jobs))
    if num_processes == 1:
        for job in jobs:
            yield _extract_one(job, on_result, on_frame)
        return
    with WorkerPool(num_processes) as pool:
        for future in as_completed([pool.submit(_extract_one, job, on_result) for job in jobs]):
            yield future.result()


def _extract_one(job: VideoJob, on_result: OnResult | None, on_frame: OnFrame | None = None) -> _Result:
    try:
        current = None if job.config.force else current_metadata(job)
        if current is not None and not restore_preview(job, current):
            current = None
        metadata = current or extract_video(job, on_frame=on_frame)
        if on_result is not None:
            on_result(job.layout, job.video_id, job.source.path, metadata)
        return _Result(job, metadata, is_unchanged=current is not None)
    except Exception as error:  # no permission, no space, a disk that fails, no memory; the other videos go on
        is_machine = isinstance(error, MemoryError) or is_of_machine(error)
        if not is_machine and not isinstance(error, OSError):
            raise
        place = getattr(error, "filename", None) or job.source.path
        reason = getattr(error, "strerror", None) or str(error) if isinstance(error, OSError) else "no memory is left"
        problem = f"{place}: {reason}; '{job.video_id}' was not extracted"
        if is_machine:
            problem += ": the machine failed, not the video; run again"
        return _Result(job, None, problem=problem, is_of_machine=is_machine)


def _record(result: _Result, outcome: Outcome) -> None:
    video_id, path, metadata = result.job.video_id, result.job.source.path, result.metadata
    if metadata is None:
        (outcome.machine_problems if result.is_of_machine else outcome.problems).append(result.problem)
        return
    if result.is_unchanged:
        outcome.unchanged.append(video_id)
        if is_of_holistic(result.job, metadata):
            outcome.of_holistic.append(video_id)
    if metadata.status == "quarantined":
        outcome.quarantined[video_id] = metadata.reason or ""
        _warn(f"{path}: quarantined: {metadata.reason}")
    elif not result.is_unchanged:
        outcome.extracted[video_id] = metadata
        if metadata.note:
            _warn(f"{path}: {metadata.note}; the frames that could be read are kept")


def _manifest_entry(job: VideoJob) -> dict[str, object]:
    """What a batch's manifest records of a video; its metadata vouches for all its other files."""
    path = job.layout.metadata(job.video_id)
    metadata = read_metadata(path)
    return {"status": metadata.status, "num_frames": metadata.num_frames, "metadata_sha256": sha256_file(path)}


def _warn_of_repeats(outcome: Outcome, config: ExtractConfig) -> None:
    """One rate for all videos suits translation, but repeated crops teach pretraining nothing."""
    if config.fps is None:
        return
    slow = {k: m.source_fps for k, m in outcome.extracted.items() if 0 < m.source_fps < _REPEATS_BELOW * config.fps}
    if slow:
        video_id = min(slow, key=lambda k: slow[k])
        _warn(
            f"{len(slow)} of {len(outcome.extracted)} videos have fewer than {config.fps:g} frames per second (lowest: "
            f"{slow[video_id]:.4g}, {shown(video_id)}): they repeat frames; a lower --fps, or none, would not"
        )


def _warn(text: str) -> None:
    print_problems([text], kind="warning")
