"""Sentences whose times a file gives: a table, subtitles, or a tier of an ELAN file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath

from signstreams.corpus.clips import BEYOND_VIDEO_S
from signstreams.corpus.findings import errors, few, lines
from signstreams.corpus.meta_csv import KNOWN_COLUMNS, resolve_columns, units_of
from signstreams.corpus.numbers import all_have_decimal_commas, parse_number, parse_time_s
from signstreams.corpus.table import decode_text, scan_table
from signstreams.errors import UserError
from signstreams.formats.elan import ELAN_SUFFIX, ElanFile, Tier, read_elan
from signstreams.formats.subtitles import NO_LENGTH, SUBTITLE_SUFFIXES, UNREADABLE_TIMES, Cue, Fault, parse_subtitles
from signstreams.formats.video_sources import VIDEO_SUFFIXES
from signstreams.ids import by_composition, composed, shown

MAX_SHOWN_FAULTS = 10
OVERLAP, TWICE = "overlap", "the same twice"


@dataclass(frozen=True)
class GivenSegments:
    """Sentences of one video."""

    segments: list[Cue]  # in order of time, apart; the text is what the file says
    faults: list[Fault] = field(default_factory=list)  # what was left out or cut

    def warnings(self, path: Path) -> list[str]:
        """A line per kind of fault: how many, and the first ones with their place."""
        kinds = Counter(fault.kind for fault in self.faults)
        return [
            f"{path}: {count:,} times {kind}: "
            + few([str(fault) for fault in self.faults if fault.kind == kind], MAX_SHOWN_FAULTS)
            + "; these are cut or left out"
            for kind, count in kinds.items()
        ]


def read_segments(
    path: Path, video_id: str, *, tier: str | None = None, is_only_video: bool = True, fps: float | None = None
) -> GivenSegments:
    """Read the sentences of a video from ``.srt``, ``.vtt``, ``.eaf`` or a table with start and end.

    A table that names videos gives the rows of this one; one that names none is of ``is_only_video``. ``tier`` is that
    of an ELAN file with the sentences; None where it has one tier of its own times alone. Times have the unit that
    their columns state (``start_ms``); those in frames are read by the column fps, else by ``fps`` of the video.

    Raises:
        UserError: The file cannot be read, or gives no sentence of this video.
    """
    suffix = path.suffix.lower()
    if tier is not None and suffix != ELAN_SUFFIX:
        raise UserError(f"tier has no effect: {path} is not an ELAN file ({ELAN_SUFFIX}); leave --tier out")
    if suffix in (*SUBTITLE_SUFFIXES, ELAN_SUFFIX) and not is_only_video:
        raise UserError(f"{path}: is of one video, expected a single one to translate; translate them one by one")
    if suffix in SUBTITLE_SUFFIXES:
        cues, faults = _read_subtitles(path, suffix)
    elif suffix == ELAN_SUFFIX:
        cues, faults = _read_tier(path, tier)
    else:
        cues, faults = _read_table(path, video_id, is_only_video, fps)
    segments, more = _apart(cues)
    faults += more
    if not segments:
        found = f": {few([str(fault) for fault in faults], MAX_SHOWN_FAULTS)}" if faults else ""
        raise UserError(
            f"{path}: gives no sentence of {shown(video_id)}{found}; correct it, or name another --segments"
        )
    return GivenSegments(segments, faults)


def check_within(given: GivenSegments, path: Path, length_s: float) -> list[str]:
    """Refuse sentences that start after the end of a video of this length; a note on those that end after it."""
    beyond = [cue for cue in given.segments if cue.start_s >= length_s]
    if beyond:
        raise UserError(
            f"{path}: {len(beyond):,} of {len(given.segments):,} sentences start after the video's end"
            f" ({length_s:.2f} s), the first at {beyond[0].start_s:g} s; they are of another video, or of other times"
        )
    late = [cue for cue in given.segments if cue.end_s > length_s + BEYOND_VIDEO_S]
    if not late:
        return []
    found = f"{len(late):,} of {len(given.segments):,} sentences end after the video's end ({length_s:.2f} s)"
    return [f"{path}: {found}, the first at {late[0].end_s:g} s; they are cut there"]


def _apart(cues: Iterable[Cue]) -> tuple[list[Cue], list[Fault]]:
    """In order of time; the earlier of two that overlap ends where the later one starts."""
    ordered = sorted(cues, key=lambda cue: (cue.start_s, cue.end_s))
    segments, faults = [], []
    for cue, following in pairwise([*ordered, None]):
        assert cue is not None
        place = f"{cue.start_s:g} to {cue.end_s:g} s"
        if following is not None and following.start_s < cue.end_s:
            if round(1000 * following.start_s) <= round(1000 * cue.start_s):
                faults.append(Fault(TWICE, place, f"another one starts there and ends at {following.end_s:g} s"))
                continue
            faults.append(Fault(OVERLAP, place, f"the next one starts at {following.start_s:g} s"))
            cue = Cue(cue.start_s, following.start_s, cue.text)
        segments.append(cue)
    return segments, faults


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected the sentences' times; name another --segments") from None


def _read_subtitles(path: Path, suffix: str) -> tuple[list[Cue], list[Fault]]:
    try:
        text, _ = decode_text(_bytes(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}; save it again as UTF-8") from None
    return parse_subtitles(text, suffix)


def _read_tier(path: Path, name: str | None) -> tuple[list[Cue], list[Fault]]:
    try:
        document = read_elan(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected an ELAN file; name another --segments") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; open it in ELAN and save it again") from None
    tier = _tier(path, document, name)
    origin_s = document.media[0].origin_s if document.media else 0.0
    cues = [Cue(cue.start_s + origin_s, cue.end_s + origin_s, cue.text) for cue in tier.annotations]
    own = [fault for fault in document.faults if fault.place.startswith(f"tier {shown(tier.name)}")]
    return cues, own


def _tier(path: Path, document: ElanFile, name: str | None) -> Tier:
    """The tier that is named, or the only one with annotations that have times of their own."""
    listed = few([f"{shown(tier.name)} ({len(tier.annotations):,})" for tier in document.tiers.values()], 20)
    if name is not None:
        as_written = by_composition(document.tiers).get(composed(name))
        if as_written is None:
            raise UserError(f"{path}: has no tier {shown(name)}, expected one of {listed}; name it with --tier")
        return document.tiers[as_written]
    whole = [tier for tier in document.tiers.values() if tier.parent is None and tier.annotations]
    if len(whole) != 1:
        raise UserError(f"{path}: holds the tiers {listed or '(none)'}; name the one with the sentences with --tier")
    return whole[0]


def _read_table(path: Path, video_id: str, is_only_video: bool, fps: float | None) -> tuple[list[Cue], list[Fault]]:
    table = scan_table(path, KNOWN_COLUMNS, str(path), holds="sentences")
    if wrong := errors(table.issues):
        raise UserError(lines(wrong))
    known, issues = resolve_columns([*table.columns, "clip_id"], str(path))  # sentences need no ids
    start, end, text, video = (known.get(meaning) for meaning in ("start", "end", "text", "video"))
    if wrong := errors(issues):
        raise UserError(lines(wrong))
    if start is None or end is None:
        found = few([shown(column) for column in table.columns], 20) or "no columns"
        raise UserError(f"{path}: has {found}, expected columns start and end, in seconds; rename those that hold them")
    units = units_of(known)
    if video is None and not is_only_video:
        raise UserError(f"{path}: has no column video, expected one where several videos are translated; add it")
    rows = [(row, texts) for row, texts in table.rows if video is None or _names(texts[video], video_id)]
    if video is not None and table.rows and not rows:
        names = few(list(dict.fromkeys(shown(texts[video]) for _, texts in table.rows)))
        raise UserError(f"{path}: no row is of the video {shown(video_id)}, its rows are of {names}; correct the ids")
    comma = all_have_decimal_commas(texts[name] for _, texts in rows for name in (start, end))
    cues, faults = [], []
    for row, texts in rows:
        rate_hz = parse_number(texts[known["fps"]]) if "fps" in known else fps
        span = [
            parse_time_s(texts[name], comma=comma, unit=units.get(meaning, "s"), fps=rate_hz)
            for meaning, name in (("start", start), ("end", end))
        ]
        if span[0] is None or span[1] is None or span[0] < 0:
            found = f"start {shown(texts[start])}, end {shown(texts[end])}"
            if "frames" in units.values() and not rate_hz:
                found += " in frames, without frames per second (add a column fps)"
            faults.append(Fault(UNREADABLE_TIMES, f"row {row}", found))
        elif round(1000 * span[1]) <= round(1000 * span[0]):  # no file of subtitles can hold it
            faults.append(Fault(NO_LENGTH, f"row {row}", f"{span[0]:g} to {span[1]:g} s"))
        else:
            cues.append(Cue(span[0], span[1], " ".join(texts[text].split()) if text is not None else ""))
    return cues, faults


def _names(cell: str, video_id: str) -> bool:
    name = composed(PurePath(cell.strip()).name)
    without_ending = PurePath(name).stem if PurePath(name).suffix.lower() in VIDEO_SUFFIXES else name
    return composed(video_id) in (name, without_ending)
