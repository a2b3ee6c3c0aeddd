"""What an importer takes from a corpus, and the checks that all of them share: what is left out is counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from signstreams.corpus.clips import BEYOND_VIDEO_S, Clip
from signstreams.corpus.findings import Finding, Rule, few, few_ids
from signstreams.corpus.table import resembling
from signstreams.formats.video_sources import SourceFolder, VideoSource, search
from signstreams.ids import by_composition, check_id, composed, shown
from signstreams.importers.media import lengths_s, picture_height_px
from signstreams.importers.settings import ImportConfig

ID = Rule("import.id", "warning", "an id that can name a file")
TWICE = Rule("import.twice", "warning", "each id once")
EMPTY = Rule("import.empty", "warning", "a text")
LETTERS = Rule("import.letters", "warning", "a text with letters")
TIMES = Rule("import.times", "warning", "0 <= start < end")
BEYOND = Rule("import.beyond", "warning", "a span inside its video")
OVERLAP = Rule("import.overlap", "warning", "clips of one signer after each other")
SIGNERS = Rule("import.signers", "warning", "one signer in each video: one person is followed through it")
ABSENT = Rule("import.absent", "error", "the video of each clip")
SAME_NAME = Rule("import.same_name", "error", "one video of each name")
UNREADABLE = Rule("import.unreadable", "warning", "a video that opens")
SPLIT = Rule("import.split", "error", "each video in one split, and clips in train, val and test")
UNUSED = Rule("import.unused_videos", "info", "a clip of every video")

MIN_CLIP_S = 0.2  # no sentence is as short: a slip of the annotator's mouse
MAX_SUGGESTIONS = 20  # of more absent videos none is a slip of the keyboard, and comparing names takes long
OVERLAP_S = 0.1  # less is the imprecision of annotators

SHORT = Rule("import.short", "warning", f"a clip of {MIN_CLIP_S:g} s at least")


@dataclass(frozen=True)
class Taken:
    """A clip with where it comes from."""

    clip: Clip
    file: str  # path below the source
    line: int | None = None  # row or line of it
    gloss: tuple[str, ...] = ()
    length_s: float | None = None  # of a clip that is a whole video, where its table says it

    def breach(self, rule: Rule, found: str, fix: str) -> Finding:
        """A finding on this clip."""
        return rule.breach(self.file, f"clip {shown(self.clip.clip_id)}: {found}", fix, row=self.line)


@dataclass
class Draft:
    """What an importer read."""

    name: str  # of the corpus, for people
    language: str | None = None  # of the texts, as in mBART's codes: de_DE
    taken: list[Taken] = field(default_factory=list)
    folders: list[SourceFolder] = field(default_factory=list)  # that may hold the videos, searched in order
    issues: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was taken for what, for the report
    frames_fps: float = 25.0  # of videos that are folders of frames
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage to keys that the corpus wants set


@dataclass(frozen=True)
class Checked:
    """Clips that remain, and what is known of their videos."""

    taken: list[Taken]
    videos: dict[str, VideoSource]  # by id, of the clips that remain, those that are there
    folders: list[Path]  # that hold them, in the order of the search
    absent: set[str]  # ids of the videos that are not there
    lengths_s: dict[str, float]  # of the clips that remain, where it is known
    height_px: int | None  # of the pictures of one of the videos
    issues: list[Finding]

    @property
    def present(self) -> list[Taken]:
        """The clips whose video is there: those that the workflow will use."""
        return [item for item in self.taken if item.clip.video_id not in self.absent]

    @property
    def seconds(self) -> float:
        """Length of these clips, as far as it is known."""
        return sum(self.lengths_s.get(item.clip.clip_id, 0.0) for item in self.present)


def check_draft(draft: Draft, config: ImportConfig) -> Checked:
    """Leave out what cannot be used, with a finding for each clip; say which videos are there."""
    issues = list(draft.issues)
    sources, passed = search(draft.folders)
    as_on_disk = by_composition(sources)
    taken = _usable([_composed(item, as_on_disk) for item in draft.taken], issues)
    videos = {item.clip.video_id: sources[item.clip.video_id][0] for item in taken if item.clip.video_id in sources}
    absent = {item.clip.video_id for item in taken if item.clip.video_id not in videos}
    issues += _absent(taken, absent, sources, config.allow_absent_videos)
    issues += _same_names({video_id: sources[video_id] for video_id in videos}, passed, config)
    parents = {video.path.parent for video in videos.values()}
    folders = [folder.path for folder in draft.folders if folder.path in parents]
    used = {video_id for folder in draft.folders if folder.path in folders for video_id in folder.sources}
    if unused := sorted(used - videos.keys()):
        found = f"{len(unused):,} videos that no clip names: {few_ids(unused)}"
        issues.append(UNUSED.breach(str(folders[0]), found, "nothing to do: they serve pretraining"))
    known_s, unreadable = _video_lengths(taken, videos, draft.frames_fps)
    for video_id, why in unreadable.items():
        issues.append(UNREADABLE.breach(str(videos[video_id].path), why, "fetch it again; extraction leaves it out"))
    taken = _inside(taken, known_s, issues)
    _report_overlaps(taken, issues)
    _report_signers(taken, issues)
    height_px = picture_height_px(next(iter(videos.values()))) if videos else None
    return Checked(taken, videos, folders, absent, _clip_lengths(taken, known_s), height_px, issues)


def _composed(item: Taken, as_on_disk: Mapping[str, str]) -> Taken:
    """With texts and ids composed; the video's as its file is named."""
    clip = item.clip
    video_id = composed(clip.video_id)
    clip = replace(
        clip,
        clip_id=composed(clip.clip_id),
        video_id=as_on_disk.get(video_id, video_id),
        text=composed(clip.text),
        signer=None if clip.signer is None else composed(clip.signer),
    )
    return replace(item, clip=clip, gloss=tuple(map(composed, item.gloss)))


def _usable(taken: Sequence[Taken], issues: list[Finding]) -> list[Taken]:
    """Those with ids, times and a text that can be used (glosses, where no clip has one); of equal ids the first."""
    has_texts = any(item.clip.text.strip() for item in taken)  # else a corpus of glosses alone
    first: dict[str, Taken] = {}
    for item in taken:
        clip = item.clip
        problem = _id_problem(clip) or _time_problem(clip) or _text_problem(item, has_texts)
        if problem is not None:
            rule, found, fix = problem
            issues.append(item.breach(rule, found, fix))
        elif clip.clip_id in first:
            found = f"its id again, first in {_place(first[clip.clip_id])}"
            issues.append(item.breach(TWICE, found, "give it an id of its own; the first counts"))
        else:
            first[clip.clip_id] = item
    return list(first.values())


Problem = tuple[Rule, str, str] | None


def _id_problem(clip: Clip) -> Problem:
    for what, text in (("clip", clip.clip_id), ("video", clip.video_id)):
        try:
            check_id(text)
        except ValueError as error:
            return ID, f"the {what} id {shown(text)} {error}", f"give the {what} another id; it is left out"
    return None


def _time_problem(clip: Clip) -> Problem:
    if clip.start_s is None or clip.end_s is None:
        return None
    if not 0 <= clip.start_s < clip.end_s:
        return TIMES, f"start {clip.start_s:g} s and end {clip.end_s:g} s", "correct them; it is left out"
    if clip.end_s - clip.start_s < MIN_CLIP_S:
        return SHORT, f"{clip.end_s - clip.start_s:.3g} s long", "nothing to do: it is left out"
    return None


def _text_problem(item: Taken, has_texts: bool) -> Problem:
    text = item.clip.text.strip()
    if any(char.isalnum() for char in text) or (item.gloss and not has_texts):
        return None
    if text:
        return LETTERS, f"the text {shown(text[:40])}", "nothing to do: it is left out"
    return EMPTY, "no text", "fill it in; it is left out"


def _place(item: Taken) -> str:
    return item.file if item.line is None else f"{item.file} row {item.line}"


def _absent(taken: list[Taken], absent: set[str], present: Collection[str], is_allowed: bool) -> list[Finding]:
    """A finding for each video that is not there; one of the ``present`` may be meant by a misspelt name."""
    first: dict[str, Taken] = {}
    counts: dict[str, int] = defaultdict(int)
    for item in taken:
        if item.clip.video_id in absent:
            first.setdefault(item.clip.video_id, item)
            counts[item.clip.video_id] += 1
    findings = []
    for video_id, item in first.items():
        found = f"no video {shown(video_id)} (of {counts[video_id]:,} clips)"
        fix = "add it, name its folder with --videos, or leave its clips out with --allow-absent-videos"
        if is_allowed:
            fix = "nothing to do: its clips are left out as long as it is absent"
        alike = [other for other in present if _digits(other) == _digits(video_id)]  # IMG_0240 is no slip for IMG_0231
        if len(first) <= MAX_SUGGESTIONS and (match := resembling(video_id, alike)) is not None:
            found += f", but {shown(match)}, which may be meant"
            fix = f"correct the name; else {fix}"
        finding = ABSENT.breach(item.file, found, fix, row=item.line, severity="info" if is_allowed else "error")
        findings.append(finding)
    return findings


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _same_names(
    sources: dict[str, list[VideoSource]], passed: dict[str, list[Path]], config: ImportConfig
) -> list[Finding]:
    """A finding for each video whose name another one has, in its folder or below the same place of the search.

    Of those below different ``--videos`` the first counts, as the user ordered them.
    """
    places = [*config.videos, config.source]

    def place_of(path: Path) -> Path | None:
        return next((place for place in places if path.is_relative_to(place)), None)

    issues = []
    for video_id, (video, *beside) in sources.items():
        later = [path for path in passed.get(video_id, ()) if place_of(path) == place_of(video.path)]
        others = [path for path in (*(one.path for one in beside), *later) if path.resolve() != video.path.resolve()]
        if others:
            found = f"{shown(video_id)} is also {few([str(path) for path in others], 3)}"
            fix = "rename them, as its clips may be of either, or name the folder that counts with --videos"
            issues.append(SAME_NAME.breach(str(video.path), found, fix))
    return issues


def _video_lengths(
    taken: list[Taken], videos: dict[str, VideoSource], frames_fps: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Lengths of the videos whose clips are spans, or whole videos of unknown length; and those that do not open."""
    wanted = {item.clip.video_id for item in taken if not item.clip.is_whole_video or item.length_s is None}
    return lengths_s({video_id: videos[video_id] for video_id in sorted(wanted & videos.keys())}, frames_fps)


def _inside(taken: list[Taken], known_s: dict[str, float], issues: list[Finding]) -> list[Taken]:
    kept = []
    for item in taken:
        end_s, length_s = item.clip.end_s, known_s.get(item.clip.video_id)
        if end_s is not None and length_s is not None and end_s > length_s + BEYOND_VIDEO_S:
            found = f"ends at {end_s:g} s, its video at {length_s:.2f} s"
            issues.append(item.breach(BEYOND, found, "correct the times, or fetch the whole video; it is left out"))
        else:
            kept.append(item)
    return kept


def _report_overlaps(taken: list[Taken], issues: list[Finding]) -> None:
    """Of clips of one signer in one video that overlap, the later one; both are kept."""
    tracks: dict[tuple[str, str | None], list[Taken]] = defaultdict(list)
    for item in taken:
        if item.clip.start_s is not None:
            tracks[item.clip.video_id, item.clip.signer].append(item)
    for track in tracks.values():
        track.sort(key=_start_s)
        before = track[0]
        for item in track[1:]:
            overlap_s = min(before.clip.end_s or 0.0, item.clip.end_s or 0.0) - _start_s(item)
            if overlap_s > OVERLAP_S:
                found = f"begins {overlap_s:.2f} s before {shown(before.clip.clip_id)} ends"
                issues.append(item.breach(OVERLAP, found, "nothing to do if intended: both are kept"))
            if (item.clip.end_s or 0.0) > (before.clip.end_s or 0.0):
                before = item


def _report_signers(taken: list[Taken], issues: list[Finding]) -> None:
    signers: dict[str, dict[str, Taken]] = defaultdict(dict)
    for item in taken:
        if item.clip.signer:
            signers[item.clip.video_id].setdefault(item.clip.signer, item)
    for video_id, found in signers.items():
        if len(found) > 1:
            text = f"video {shown(video_id)} has clips of {few_ids(found)}"
            fix = "use a video of each person, as from the cameras of a studio, or leave out the clips of all but one"
            item = list(found.values())[1]
            issues.append(SIGNERS.breach(item.file, text, fix, row=item.line))


def _start_s(item: Taken) -> float:
    return item.clip.start_s or 0.0


def _clip_lengths(taken: list[Taken], known_s: dict[str, float]) -> dict[str, float]:
    lengths = {}
    for item in taken:
        clip = item.clip
        if clip.start_s is not None and clip.end_s is not None:
            lengths[clip.clip_id] = clip.end_s - clip.start_s
        elif (length_s := item.length_s or known_s.get(clip.video_id)) is not None:
            lengths[clip.clip_id] = length_s
    return lengths


Reader = Callable[[ImportConfig], Draft]
"""An importer: reads the source, writes nothing, raises `UserError` for what is not its layout."""
