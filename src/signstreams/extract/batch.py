"""Extraction of many videos: which ones, what is left as it is, processes, progress, and what counts as failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import few
from signstreams.errors import UserError, print_problems
from signstreams.extract.annotations import VideoAnnotations, read_annotations
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.pipeline import KINDS, OnFrame, extract_video
from signstreams.extract.preview import restore_preview
from signstreams.extract.results import current_metadata
from signstreams.extract.settings import ExtractConfig, missing_points
from signstreams.files import remove_leftovers, sha256_file, write_json
from signstreams.formats.layout import CorpusLayout, passed_over_videos
from signstreams.formats.metadata import VideoMetadata, read_metadata
from signstreams.formats.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, images_folder, source_id
from signstreams.ids import check_id, shown
from signstreams.processes import WorkerPool
from signstreams.progress import Progress
from signstreams.streams import STREAMS

_REPEATS_BELOW = 0.95  # of the target rate; 24 to 25 repeats one frame a second, and goes unsaid
_ENDINGS = ", ".join(VIDEO_SUFFIXES)


OnResult = Callable[[CorpusLayout, str, Path, VideoMetadata], object]
"""Called with layout, video id, video and metadata once all files of a video are there."""


@dataclass
class Outcome:
    """What became of the videos, by id."""

    extracted: dict[str, VideoMetadata] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    """Id to reason; those found in an earlier run included."""
    problems: list[str] = field(default_factory=list)
    """One line per video that could not be worked on at all."""
    unannotated: list[str] = field(default_factory=list)
    """Left out, as only annotated spans are wanted and meta.csv has none."""


@dataclass(frozen=True)
class _Result:
    """Of one video: metadata, or one line that says why there is none."""

    video_id: str
    metadata: VideoMetadata | None
    is_unchanged: bool = False
    problem: str = ""


def extract_videos(
    config: ExtractConfig,
    *,
    detector: DetectorKind | None = None,
    on_result: OnResult | None = None,
    annotations: dict[str, VideoAnnotations] | None = None,
) -> Outcome:
    """Extract all videos of the config; an unreadable one is quarantined, and the rest goes on.

    Args:
        config: Settings.
        detector: In place of the one that the config names; can be pickled.
        on_result: Called after each video, in the process that worked on it; can be pickled.
        annotations: Of each video, in place of what meta.csv says.

    Raises:
        UserError: When the videos or the output folder cannot be used; after all work, when a video could not be
            worked on, or, of several videos, more than ``max_failed_fraction`` are quarantined.
    """
    detector = detector or KINDS[config.detector]
    videos = find_all_videos(config.videos)
    if config.only is not None:
        videos = only_listed(videos, config.only)
    else:
        _warn_of_passed_over(config.videos)
    layout = CorpusLayout(config.root)
    _check_output(layout)
    annotations = read_annotations(layout, videos, config) if annotations is None else annotations
    outcome = Outcome(unannotated=[video_id for video_id in videos if video_id not in annotations])
    videos = {video_id: path for video_id, path in videos.items() if video_id in annotations}
    if problems := missing_points(config, videos):
        raise UserError(problems)
    is_single = len(videos) == 1
    if not is_single:  # listing the folders would cost a job per video more than it saves
        remove_leftovers(layout.processed, layout.report.parent)
    num_frames = num_pose_frames = 0
    with Progress(None if is_single else len(videos), "frames" if is_single else "videos", "extract") as progress:

        def on_frame(expected: int | None) -> None:
            if is_single:
                progress.total = expected
                progress.advance()
            else:
                progress.advance(0)

        for result in _results(videos, annotations, config, detector, on_result, on_frame):
            _record(result, outcome, videos[result.video_id])
            if result.is_unchanged:
                progress.skip(0 if is_single else 1)
            elif not is_single:
                if result.metadata:
                    num_frames += result.metadata.num_frames
                    num_pose_frames += result.metadata.num_pose_frames
                told: dict[str, int | str] = {"frames": num_frames}
                told |= {"with a person": f"{num_pose_frames / max(num_frames, 1):.0%}", "last": result.video_id}
                progress.advance(1, **told)
        if is_single:
            progress.total = progress.done  # containers only estimate their number of frames
    _warn_of_repeats(outcome, config)
    num_failed = len(outcome.quarantined)
    if len(videos) > 1 and num_failed > config.max_failed_fraction * len(videos):
        outcome.problems.append(
            f"{num_failed} of {len(videos)} videos are unreadable, expected at most a fraction of "
            f"{config.max_failed_fraction} (max_failed_fraction); replace or remove them, or raise it"
        )
    if outcome.problems:
        raise UserError(outcome.problems)
    if config.manifest is not None:
        write_json(config.manifest, {"videos": {video_id: _record_of(layout, video_id) for video_id in videos}})
    return outcome


def only_listed(videos: dict[str, Path], listing: Path) -> dict[str, Path]:
    """Those of ``videos`` whose ids a text file lists, in its order.

    Raises:
        UserError: The file cannot be read or lists nothing, and every id that is none of the videos.
    """
    try:
        ids = [line for line in listing.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{listing}: {getattr(error, 'strerror', None) or error}; expected ids, one a line") from None
    if not ids:
        raise UserError(f"{listing}: lists no id, expected those of the videos to extract, one a line")
    if absent := [video_id for video_id in ids if video_id not in videos]:
        raise UserError([f"{listing}: {shown(video_id)} is none of the videos; correct it" for video_id in absent])
    return {video_id: videos[video_id] for video_id in ids}


def find_all_videos(places: list[Path]) -> dict[str, Path]:
    """Video id to file or folder of frames, over files and folders.

    A folder stands for the videos in it; when it has none but images, or a numbered sub-folder of images, it is one.

    Raises:
        UserError: Every missing place, folder without videos, unsafe id, foreign ending and id that comes twice.
    """
    videos: dict[str, Path] = {}
    problems = []
    for place in places:
        if place.is_dir():
            images = images_folder(place)
            found = [place] if images is not None and images != place else _videos_in(place) or [place] * bool(images)
            if not found:
                passed_over = _passed_over(place, places)
                problems.append(
                    f"{place}: found no video in this folder, expected files ending in {_ENDINGS}, "
                    f"or folders of images ({', '.join(IMAGE_SUFFIXES)}){f'; {passed_over}' if passed_over else ''}"
                )
        elif not place.exists():
            problems.append(f"{place}: no such file or folder; expected a video or a folder of videos")
            continue
        elif place.suffix.lower() not in VIDEO_SUFFIXES:
            problems.append(f"{place}: the ending is '{place.suffix}', expected one of {_ENDINGS}")
            continue
        else:
            found = [place]
        for path in found:
            video_id = source_id(path)
            try:
                check_id(video_id)
            except ValueError as error:
                problems.append(f"{path}: the id {shown(video_id)} {error}; rename it")
                continue
            if video_id in videos and videos[video_id].resolve() != path.resolve():
                problems.append(f"{path}: gives the id '{video_id}', as does {videos[video_id]}; rename one of them")
            videos.setdefault(video_id, path)
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
    if outcome.unannotated:
        parts.append(f"{len(outcome.unannotated)} left out (no annotated span)")
    return f"{', '.join(parts)}; results in {CorpusLayout(root).processed}"


def _results(
    videos: dict[str, Path],
    annotations: dict[str, VideoAnnotations],
    config: ExtractConfig,
    detector: DetectorKind,
    on_result: OnResult | None,
    on_frame: OnFrame,
) -> Iterator[_Result]:
    num_jobs = min(config.num_jobs, len(videos))
    if num_jobs == 1:
        for video_id, path in videos.items():
            yield _extract_one(path, video_id, annotations[video_id], config, detector, on_result, on_frame)
        return
    with WorkerPool(num_jobs) as pool:
        futures = [
            pool.submit(_extract_one, path, video_id, annotations[video_id], config, detector, on_result)
            for video_id, path in videos.items()
        ]
        for future in as_completed(futures):
            yield future.result()


def _extract_one(
    path: Path,
    video_id: str,
    annotations: VideoAnnotations,
    config: ExtractConfig,
    detector: DetectorKind,
    on_result: OnResult | None,
    on_frame: OnFrame | None = None,
) -> _Result:
    layout = CorpusLayout(config.root)
    try:
        current = None if config.force else current_metadata(path, layout, video_id, config, detector, annotations)
        if current is not None and not restore_preview(path, layout, config, current):
            current = None
        metadata = current or extract_video(
            path, layout, video_id, config, detector=detector, annotations=annotations, on_frame=on_frame
        )
        if on_result is not None:
            on_result(layout, video_id, path, metadata)
        return _Result(video_id, metadata, is_unchanged=current is not None)
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


def _record_of(layout: CorpusLayout, video_id: str) -> dict[str, object]:
    """What a batch's manifest says of a video; its metadata vouches for all its other files."""
    path = layout.metadata(video_id)
    metadata = read_metadata(path)
    return {"status": metadata.status, "num_frames": metadata.num_frames, "metadata_sha256": sha256_file(path)}


def _warn_of_repeats(outcome: Outcome, config: ExtractConfig) -> None:
    """A rate holds for all videos, as translation wants it; but crops that repeat teach pretraining nothing."""
    if config.fps is None:
        return
    slow = {k: m.source_fps for k, m in outcome.extracted.items() if 0 < m.source_fps < _REPEATS_BELOW * config.fps}
    if slow:
        video_id = min(slow, key=lambda k: slow[k])
        _warn(
            f"{len(slow)} of {len(outcome.extracted)} videos have fewer than {config.fps:g} frames a second (the least "
            f"{slow[video_id]:.4g}, {shown(video_id)}): they repeat frames; a lower --fps, or none, would not"
        )


def _warn_of_passed_over(places: list[Path]) -> None:
    for place in places:
        if place.is_dir() and (text := _passed_over(place, places)):
            _warn(f"{place}: {text}")


def _passed_over(folder: Path, places: list[Path]) -> str:
    """Names what looks like videos and is passed over, and what to do; empty when there is none."""
    named = {place.resolve() for place in places}
    passed = [path for path in passed_over_videos(folder) if path.resolve() not in named]
    if not passed:
        return ""
    names = few([f"{path.name}/" if path.is_dir() else path.name for path in passed], limit=3)
    return (
        f"what looks like videos is passed over ({len(passed):,}: {names}); convert files (ffmpeg -i FILE NAME.mp4), "
        "and name sub-folders or move their videos up"
    )


def _warn(text: str) -> None:
    print_problems([text], kind="warning")


def _videos_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    return [p for p in paths if p.suffix.lower() in VIDEO_SUFFIXES or (p.is_dir() and images_folder(p) is not None)]


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
