"""What a translation will do, known before anything is extracted: videos, their sentences, settings, outputs.

Imports no torch: which videos and outputs there are is checked before it is loaded.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from signstreams.errors import UserError
from signstreams.extract.batch import find_videos
from signstreams.extract.settings import ExtractConfig, missing_points
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.subtitles import Cue
from signstreams.formats.video_sources import VideoSource
from signstreams.integrate.settings import few_clips
from signstreams.segment.given import check_within, read_segments
from signstreams.translate.settings import VIDEO_FIELD, WHOLE, TranslateConfig

if TYPE_CHECKING:
    from signstreams.integrate.trained_model import TrainedModel

RATES_DIFFER = 1.05
"""Frame rates that differ by less than this factor count as equal, such as 24 and 25 frames per second."""


@dataclass(frozen=True)
class VideoPlan:
    """One video to translate."""

    path: Path
    video_id: str
    extraction: ExtractConfig  # settings of its extraction, but for the spans
    outputs: list[Path]  # files to write
    length_s: float | None  # its length; None when its file does not tell it
    fps: float  # frames per second that are extracted; 0 when unknown
    segments: list[Cue] | None  # sentences to translate, in order of time; None: they are to be found
    notes: list[str] = field(default_factory=list)  # what was left out of a file of segments, or decided

    def span_s(self, given: TranslateConfig) -> tuple[float, float]:
        """Start and end of what is asked for; the end is infinite where the length is not known."""
        end_s = math.inf if self.length_s is None else self.length_s
        return given.start_s or 0.0, min(end_s, math.inf if given.end_s is None else given.end_s)


def list_videos(places: list[Path]) -> list[Path]:
    """Videos of files and folders, in their order; two from different places may have the same name."""
    return [source.path for place in places for source in find_videos([place]).values()]


def check_outputs(given: TranslateConfig, paths: list[Path]) -> dict[Path, list[Path]]:
    """Video to the files that it gives.

    Raises:
        UserError: Two videos would give one file, or a file cannot be where it is asked for.
    """
    outputs: dict[Path, list[Path]] = {}
    owners: dict[Path, Path] = {}
    problems = []
    for path in paths:
        video_id = VideoSource.at(path).video_id
        outputs[path] = [Path(str(output).replace(VIDEO_FIELD, video_id)) for output in given.output]
        for target in outputs[path]:
            owner = owners.setdefault(target.absolute(), path)
            if owner != path:
                hint = "put {video} into its name" if VIDEO_FIELD not in str(given.output) else "translate one by one"
                problems.append(f"--output {target}: both {owner} and {path} would be written to it; {hint}")
            inputs = {path.resolve(): "is the video itself"}
            if given.segments_file is not None:
                inputs[given.segments_file.resolve()] = "is the file of --segments"
            if target.is_dir() or target.resolve() in inputs:
                found = inputs.get(target.resolve(), "is a folder")
                problems.append(f"--output {target}: {found}, expected a file to write; name another")
            elif problem := _why_not_in(target.absolute().parent):
                problems.append(f"--output {target}: {problem}, expected a folder for it; name another place")
    if problems:
        raise UserError(dict.fromkeys(problems))
    return outputs


def _why_not_in(folder: Path) -> str:
    """Why no file can be written to a folder, which need not exist; empty where one can."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        return f"{existing} is a file"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} may not be written to"


def plan_videos(given: TranslateConfig, trained: TrainedModel, root: Path) -> list[VideoPlan]:
    """The plan of each video; results of extraction will go to ``root``.

    Raises:
        UserError: All that is impossible, of all videos: nothing was extracted yet.
    """
    paths = list_videos(given.videos)
    outputs = check_outputs(given, paths)
    plans: list[VideoPlan] = []
    problems: list[str] = []
    for path in paths:
        try:
            plans.append(_plan(given, trained, path, outputs[path], root, is_only_video=len(paths) == 1))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return plans


def _plan(
    given: TranslateConfig, trained: TrainedModel, path: Path, outputs: list[Path], root: Path, *, is_only_video: bool
) -> VideoPlan:
    video_id = VideoSource.at(path).video_id
    extraction = _extraction(given, trained, path, root)
    if problems := missing_points(extraction, [video_id]):
        raise UserError(problems)
    try:
        with VideoReader(path, frames_fps=extraction.frames_fps) as reader:
            length_s, file_fps = reader.length_s(), reader.fps
    except UnreadableVideoError as error:
        other = "name another video" if given.box is None else "name another video or --box"
        raise UserError(f"{path}: {error}; convert it with ffmpeg, or {other}") from None
    fps = extraction.fps or file_fps
    plan = VideoPlan(path, video_id, extraction, outputs, length_s, fps, None)
    start_s, end_s = plan.span_s(given)
    if length_s is not None and start_s >= length_s:
        raise UserError(f"{path}: lasts {length_s:.2f} s, but --start is {start_s:g}; give an earlier one")
    segments, notes = _segments(given, trained, plan, file_fps, is_only_video)
    if not math.isfinite(end_s) and (segments is None or start_s > 0):
        raise UserError(f"{path}: does not tell its length; copy it with ffmpeg -i {path.name} -c copy, or give --end")
    if not trained.config.mska.learns_text:
        notes = [*notes, f"{trained.path}: learned glosses alone (mska.translation_weight 0): there is no text"]
    elif (few := few_clips(trained.about["num_train_clips"])) is not None:
        notes = [*notes, f"{trained.path}: {few}"]
    return VideoPlan(path, video_id, extraction, outputs, length_s, fps, segments, notes)


def _segments(
    given: TranslateConfig, trained: TrainedModel, plan: VideoPlan, file_fps: float, is_only_video: bool
) -> tuple[list[Cue] | None, list[str]]:
    """The sentences that are known, None where they are to be found; and notes."""
    start_s, end_s = plan.span_s(given)
    file = given.segments_file
    if file is not None:
        found = read_segments(file, plan.video_id, tier=given.tier, is_only_video=is_only_video, fps=file_fps)
        late = [] if plan.length_s is None else check_within(found, file, plan.length_s)
        segments = [cue for cue in found.segments if cue.start_s < end_s and start_s < cue.end_s]
        if not segments:
            raise UserError(f"{file}: no sentence of {plan.video_id} is between --start and --end; give other times")
        return segments, [*found.warnings(file), *late]
    if given.segments != WHOLE and (given.finds_sentences or _is_long(trained, plan, end_s - start_s)):
        is_told = given.finds_sentences
        longest_s = longest_clip_s(trained, plan.fps)
        note = f"{plan.path}: is longer than a clip of the training ({longest_s:.0f} s) and is cut into sentences"
        return None, [] if is_told else [note]
    is_to_the_end = given.end_s is None and not _is_long(trained, plan, end_s - start_s)
    return [Cue(start_s, math.inf if is_to_the_end else end_s)], []  # its last frames may lie after the declared end


def _is_long(trained: TrainedModel, plan: VideoPlan, length_s: float) -> bool:
    return math.isfinite(length_s) and length_s > longest_clip_s(trained, plan.fps)


LONGEST_THINNED_S = 120.0
"""Longest part that is read at once by a model that thins long clips out (``data.long_clips: stride``)."""


def longest_clip_s(trained: TrainedModel, fps: float) -> float:
    """Length that the model reads at once, s."""
    data = trained.config.data
    longest_s = (data.max_frames - 1) * data.frame_stride / (fps or 25.0)
    return max(longest_s, LONGEST_THINNED_S) if data.long_clips == "stride" else longest_s


def _extraction(given: TranslateConfig, trained: TrainedModel, path: Path, root: Path) -> ExtractConfig:
    settings = {**trained.about["extraction"], "videos": [path], "root": root, "max_failed_fraction": 1, "force": True}
    settings["spans_only"] = False  # spans are those of the sentences, not of a table
    settings.pop("span_padding_s", None)
    if settings.get("detector") == "precomputed":
        if given.points is None:
            raise UserError(
                f"{trained.path}: was trained on points of another tool, expected a folder with those of {path.name};"
                " name it with --points"
            )
        settings["precomputed"] = {**(settings.get("precomputed") or {}), "folder": given.points}
    elif given.points is not None:
        raise UserError(
            f"points has no effect: {trained.path} was trained on points detected by extraction itself; leave it out"
        )
    if settings.get("fps") is None and (known := trained.about.get("fps_range")) is not None:
        settings["fps"] = _fps(path, known, settings.get("frames_fps", 25.0))
    try:
        return ExtractConfig.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{trained.path}: the settings of its extraction do not fit this version of signstreams ({place}:"
            f" {problem['msg']}); train the model again"
        ) from None


def _fps(path: Path, known: list[float], frames_fps: float) -> float | None:
    """Frame rate at which to extract a new video for a model whose videos were extracted each at its own rate.

    None, for its own rate, if that is within the range of the corpus or not declared; else the nearest rate of the
    range: at twice the rate the same signing would look half as fast.
    """
    low, high = known
    fps = 0.0
    with suppress(UnreadableVideoError, OSError), VideoReader(path, frames_fps=frames_fps) as reader:
        fps = reader.fps
    if not fps or low / RATES_DIFFER <= fps <= high * RATES_DIFFER:
        return None
    return low if fps < low else high
