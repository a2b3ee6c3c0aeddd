"""Videos with captions beside them, and YouTube-ASL, whose videos and captions are fetched by their ids."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Rule, Severity, few, few_ids
from signstreams.corpus.table import CONVERTED, READABLE, decode_text
from signstreams.errors import UserError
from signstreams.formats.subtitles import CAPTION_SUFFIXES, Cue, parse_subtitles
from signstreams.formats.video_sources import search
from signstreams.ids import by_composition, composed, shown
from signstreams.importers.draft import ABSENT, Draft, Taken
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import what_is_there

CUE = Rule("captions.cue", "warning", "a line such as 00:00:01.200 --> 00:00:03.400 above each text")
NO_CAPTIONS = Rule("import.no_captions", "warning", "captions of each video")
_LANGUAGE = re.compile(r"\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*)$")


def read_subtitles(config: ImportConfig) -> Draft:
    """Each caption is a clip."""
    draft = Draft(config.source.name, config.language)
    draft.folders = folders_below([config.source, *config.videos])
    _read(draft, config, set(search(draft.folders)[0]), are_all_meant=True)
    return draft


def read_youtube_asl(config: ImportConfig) -> Draft:
    """YouTube-ASL: a list of ids; the videos and captions that could be fetched."""
    lists = sorted(config.source.rglob("*youtube_asl_video_ids.txt"))
    if len(lists) != 1:
        raise UserError(
            f"{config.source}: {len(lists)} files youtube_asl_video_ids.txt in it and below, expected one,"
            f" {what_is_there(config)}; fetch it from the corpus"
        )
    try:
        text, _ = decode_text(lists[0].read_bytes())
    except ValueError as error:
        raise UserError(f"{lists[0]}: {error}, expected one id per line; fetch it again") from None
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    draft = Draft("YouTube-ASL", "en_XX")
    draft.folders = folders_below(config.videos or [config.source])
    present = search(draft.folders)[0].keys()
    absent = [video_id for video_id in dict.fromkeys(ids) if video_id not in present]
    if absent:
        found = f"{len(absent):,} of {len(ids):,} videos of the list are not there: {few_ids(absent)}"
        severity: Severity = "info" if config.allow_absent_videos else "error"
        fix = "fetch them, or leave them out with --allow-absent-videos"
        draft.issues.append(ABSENT.breach(lists[0].name, found, fix, severity=severity))
    _read(draft, config, set(ids) & set(present))
    return draft


def _read(draft: Draft, config: ImportConfig, video_ids: set[str], *, are_all_meant: bool = False) -> None:
    """Captions of these videos; those of no video are a finding where all that are there are meant."""
    files, lost = _caption_files(config, video_ids)
    if not files:
        raise UserError(
            f"{config.source}: no captions ({', '.join(CAPTION_SUFFIXES)}) with the name of one of {len(video_ids):,}"
            f" videos, {what_is_there(config)}; put them beside the videos, as VIDEO.srt or VIDEO.en.vtt"
        )
    if are_all_meant:
        severity: Severity = "info" if config.allow_absent_videos else "error"
        fix = "add it, give both one name, or leave these captions out with --allow-absent-videos"
        for path in lost:
            found = f"no video {shown(path.stem)}"
            draft.issues.append(ABSENT.breach(_below(config.source, path), found, fix, severity=severity))
    for video_id in sorted(video_ids - files.keys()):
        draft.issues.append(NO_CAPTIONS.breach(video_id, "no caption file", "add it; the video serves pretraining"))
    for video_id, path in sorted(files.items()):
        name = _below(config.source, path)
        counts: Counter[str] = Counter()
        for cue in _cues(draft, path, name):
            clip_id = f"{video_id}_{round(cue.start_s * 1000):08d}"
            counts[clip_id] += 1
            if counts[clip_id] > 1:  # of two captions with one start, as of two speakers
                clip_id += f"_{counts[clip_id]}"
            clip = Clip(clip_id, video_id, cue.text, cue.start_s, cue.end_s)
            draft.taken.append(Taken(clip, name, cue.line))
    draft.notes.append(f"captions from {len(files):,} files; a clip's id is VIDEO_<start in ms>")


def _cues(draft: Draft, path: Path, name: str) -> list[Cue]:
    """The captions of a file; what is wrong with it becomes findings."""
    try:
        text, encoding = decode_text(path.read_bytes())
        cues, faults = parse_subtitles(text, path.suffix)
    except ValueError as error:
        draft.issues.append(READABLE.breach(name, str(error), "fetch it again, or save it as UTF-8"))
        return []
    if encoding:
        fix = "check a text with accents, then save the file again as UTF-8"
        draft.issues.append(CONVERTED.breach(name, f"{encoding}, read as such", fix))
    for fault in faults:
        found = f"{fault.kind}: {fault.found}"
        draft.issues.append(CUE.breach(name, found, "correct it; it is left out", row=fault.line or None))
    if text.strip() and not cues and not faults:
        draft.issues.append(CUE.breach(name, "no cue", "leave it out, or add its times", row=1))
    return cues


def _below(source: Path, path: Path) -> str:
    """A path from the source, as findings name files."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)


def _caption_files(config: ImportConfig, video_ids: set[str]) -> tuple[dict[str, Path], list[Path]]:
    """The caption file of each video, and those of none of them.

    Raises:
        UserError: Videos have several, and it is not said which one counts.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))  # video, language: files
    known = by_composition(video_ids)
    lost: list[Path] = []
    for place in [config.source, *config.videos]:
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() not in CAPTION_SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            stem, language = composed(path.stem), ""
            if stem not in known and (match := _LANGUAGE.search(stem)):
                stem, language = stem[: match.start()], match[1]
            files_of = found[known[stem]][language] if stem in known else lost
            if path not in files_of:
                files_of.append(path)
    files: dict[str, Path] = {}
    problems = []
    for video_id, by_language in found.items():
        wanted = config.captions
        paths = by_language.get(wanted, []) if wanted else [path for paths in by_language.values() for path in paths]
        if len(paths) > 1:
            names = few(sorted(_below(config.source, path) for path in paths))
            fix = "keep one of them" if wanted else "say which language, with --captions en, or keep one of them"
            problems.append(f"{config.source}: {names} are all captions of one video, expected one file; {fix}")
        elif paths:
            files[video_id] = paths[0]
    if problems:
        raise UserError([*problems[:10], *([f"and {len(problems) - 10:,} more videos"] if problems[10:] else [])])
    return files, lost
