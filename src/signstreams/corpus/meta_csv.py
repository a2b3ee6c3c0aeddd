"""Read meta.csv, one clip per row: which column means what, numbers as spreadsheets write them, faults by row."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.clips import NUMBER_PARSERS, Clip, Row, RowReader
from signstreams.corpus.findings import Finding, Rule, few, few_ids, raise_errors
from signstreams.corpus.numbers import (
    UNIT_SUFFIXES,
    Unit,
    all_have_decimal_commas,
    has_decimal_comma,
    is_clock_time,
    is_mangled,
)
from signstreams.corpus.table import COLUMNS, ID_COLUMNS, Table, resembling, scan_table
from signstreams.ids import by_composition, shown
from signstreams.language import counted


def _with_units(*names: str) -> tuple[str, ...]:
    return (*names, *(f"{name}{suffix}" for name in names for suffix in UNIT_SUFFIXES))


COLUMN_NAMES = {
    "text": ("text", "texto", "texte", "sentence", "translation", "satz", "oracion", "frase", "phrase", "traduccion"),
    "video": ("video", "video_name", "video_file", "archivo", "datei", "dateiname", "fichier", "arquivo"),
    "start": _with_units(
        *("start", "start_time", "start_realigned", "begin", "begin_time", "inicio", "beginn", "anfang", "debut")
    ),
    "end": _with_units("end", "end_time", "end_realigned", "fin", "fim", "ende"),
    "duration": _with_units("duration", "duracion", "duracao", "dauer", "duree"),
    "fps": ("fps",),
    "frame_count": ("frame_count",),
    "signer": (
        "signer",
        "speaker",
        "sprecher",
        "sprecherin",
        "signante",
        "senante",
        "signeur",
        "interprete",
    ),
    "split": ("split",),
    "box": ("box",),
}
"""Meaning to the names of its column, without accents: English, Spanish, German, French, Portuguese; the first is ours.
Of several in one table the earliest counts. Times may have their unit at the end (`UNIT_SUFFIXES`)."""
KNOWN_COLUMNS = (*ID_COLUMNS, *(name for names in COLUMN_NAMES.values() for name in names))

ID_COLUMN = Rule("meta.id_column", "error", f"a column with the clip's id: {', '.join(ID_COLUMNS)}")
UNUSED = Rule("meta.unused_column", "info", f"only the columns {', '.join((*ID_COLUMNS, *COLUMN_NAMES))}")
SPANS = Rule("meta.spans", "error", "start and end where several rows name one video")
SIGNERS = Rule("meta.signers", "warning", "one spelling of each signer's name")
UNIQUE = Rule("meta.unique_id", "error", "each id once")
NUMBERS = Rule("meta.numbers", "warning", "plain numbers such as 165.33")
DURATION = Rule("meta.duration", "warning", "the length of the span")
VIDEO_KNOWN = Rule("clip.video_known", "error", "a video of the corpus")
META_RULES = (ID_COLUMN, UNUSED, SPANS, SIGNERS, UNIQUE, NUMBERS, DURATION, VIDEO_KNOWN)

# Forms of numbers that cannot be read: found, and fix.
_MANGLED = (
    "without the decimal mark, lost to a spreadsheet, or perhaps so",
    "export the table again without thousands separators",
)
_NO_NUMBERS = ("without a number", "write plain numbers, times in seconds")
_CLOCK = (
    "with colons but without milliseconds",
    "write seconds with a point, such as 65.5, or all digits with milliseconds, as 01:05.500 or 00:01:05.500",
)
_COMMA = ("with a decimal comma", "write a point instead, and no thousands separator")


@dataclass(frozen=True)
class MetaTable:
    """Content of a meta.csv."""

    clips: list[Clip] = field(default_factory=list)
    """In the order of the file: every clip whose times are known exactly, or that is a whole video."""
    issues: list[Finding] = field(default_factory=list)  # findings, also of rows that gave no clip
    num_rows: int = 0  # rows that are not empty, without the header
    untimed_rows: list[int] = field(default_factory=list)
    """Rows left out of ``clips`` because their times cannot be known."""
    absent: list[Clip] = field(default_factory=list)
    """Clips left out of ``clips`` because their video is not there, where that is allowed."""
    rows: list[Row] = field(default_factory=list)  # result of each row, with or without a clip; without ragged rows

    @property
    def named_videos(self) -> set[str]:
        """Ids of all videos that a row names, whether it gave a clip or not."""
        return {row.video_id for row in self.rows if row.video_id}


def scan_meta(
    path: str | Path,
    videos: Collection[str] | None = None,
    *,
    name: str | None = None,
    allow_absent_videos: bool = False,
) -> MetaTable:
    """Read ``path``; faults of its content are in ``issues`` and raise nothing.

    Times come from LSA-T's segments where ``split`` holds them, else from plain ``start`` and ``end``. A mangled number
    is never used; decimal commas are read where they are certain.

    A row without times is a whole video when the table has no spans, or when no other row names its video; otherwise it
    is reported and gives no clip. So are clips whose video is none of ``videos`` (None: any), which are left out where
    that is allowed. Findings have ``name`` as their file. A `UserError` says that ``path`` is absent.
    """
    path = Path(path)
    name = name or path.name
    table = scan_table(path, KNOWN_COLUMNS, name, holds="clips")
    return clips_of(table, name, videos, allow_absent_videos=allow_absent_videos)


def clips_of(
    table: Table, name: str, videos: Collection[str] | None = None, *, allow_absent_videos: bool = False
) -> MetaTable:
    """The clips of a table that was read already; see `scan_meta`."""
    issues = list(table.issues)
    if not table.columns and issues:
        return MetaTable(issues=issues)
    columns, column_issues = resolve_columns(table.columns, name)
    issues += column_issues
    if not columns:
        return MetaTable(issues=issues, num_rows=len(table.rows))
    fields = [(row, {key: texts[column] for key, column in columns.items()}) for row, texts in table.rows]
    grouped = {key: any(is_mangled(texts[key]) for _, texts in fields) for key in NUMBER_PARSERS if key in columns}
    comma = all_have_decimal_commas(texts[key] for _, texts in fields for key in grouped)
    units = units_of(columns)
    issues += _number_issues(fields, grouped, comma, name)
    reader = RowReader(name, grouped, _lone_videos(fields, columns), by_composition(videos or ()), comma, units)
    rows = [reader.read(row, texts) for row, texts in fields]
    for row in rows:
        issues += row.issues
    issues += _repeated_ids(rows, name)
    issues += _without_spans(rows, columns, table.columns, name)
    issues += _spellings(rows, name)
    issues += _disputed_durations(rows, name)
    clips = [row.clip for row in rows if row.clip is not None]
    absent: list[Clip] = []
    if videos is not None:
        present = set(videos)
        absent = [clip for clip in clips if clip.video_id not in present]
        issues += _absent_videos(absent, name, allow_absent_videos, columns, table.columns)
        if allow_absent_videos:
            clips = [clip for clip in clips if clip.video_id in present]
    untimed = [row.row for row in rows if row.is_untimed]
    return MetaTable(clips, issues, len(rows), untimed, absent if allow_absent_videos else [], rows)


def resolve_columns(columns: list[str], name: str) -> tuple[dict[str, str], list[Finding]]:
    """Meaning (``clip_id``, ``video``, ``text``, ``start``, ...) to the column that holds it.

    The clip's id is in ``clip_id``, else ``id``, else ``video_id``. When ``video_id`` is not the clip's id and there is
    no ``video``, it names the video. Without either, the clip's own id is the video's. The mapping is empty when no
    column holds an id.
    """
    clip_column = next((column for column in ID_COLUMNS if column in columns), None)
    if clip_column is None:
        found = f"the columns {few_ids(column[:40] for column in columns)}" if columns else "no header"
        return {}, [
            ID_COLUMN.breach(name, found, _rename(columns, ID_COLUMNS) or "rename the column that holds the ids")
        ]
    issues = []
    plain = {_without_accents(column): column for column in reversed(columns)}
    used = {"clip_id": clip_column}
    for meaning, names in COLUMN_NAMES.items():
        holders = [plain[name] for name in names if name in plain]
        if len(holders) > 1 and (names[0] not in plain or meaning == "text"):
            issues.append(
                COLUMNS.breach(name, f"both {few(holders)} hold the {meaning}", "rename or remove one of them")
            )
        if holders:
            used[meaning] = holders[0]
    if "video" not in used and clip_column != "video_id" and "video_id" in columns:
        used["video"] = "video_id"
    unused = [column for column in columns if column and column not in used.values()]
    if unused:
        fix = _rename(unused, _missing(used)) or "nothing to do"
        shown_columns = few([column[:60] for column in unused], 20)
        issues.append(UNUSED.breach(name, f"the columns {shown_columns}, which are not read", fix))
    return used, issues


def units_of(columns: Mapping[str, str]) -> dict[str, Unit]:
    """Meaning to the unit that the name of its column states, where that is not seconds."""
    found: dict[str, Unit] = {
        meaning: next((unit for suffix, unit in UNIT_SUFFIXES.items() if name.endswith(suffix)), "s")
        for meaning in ("start", "end", "duration")
        if (name := _without_accents(columns.get(meaning, "")))
    }
    return {meaning: unit for meaning, unit in found.items() if unit != "s"}


def _missing(used: Collection[str]) -> list[str]:
    return [meaning for meaning in COLUMN_NAMES if meaning not in used]


def _without_accents(column: str) -> str:
    decomposed = unicodedata.normalize("NFD", re.sub(r"[\s()\[\]-]+", "_", column).strip("_"))
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _rename(columns: list[str], meanings: Collection[str]) -> str:
    """What to do about columns that may be misspellings of the missing ``meanings``; empty for none."""
    names = [_without_accents(column) for column in columns if column not in KNOWN_COLUMNS]
    likely = [(column, match) for column in names if (match := resembling(column, meanings))]
    return ", ".join(f"rename {shown(column)} to {match} if that is meant" for column, match in likely)


def _lone_videos(fields: list[tuple[int, dict[str, str]]], columns: dict[str, str]) -> set[str] | None:
    """Cells of ``video`` (or of the id) that occur in one row only; None when the table has no spans at all."""
    if not any(texts.get("start") or texts.get("end") or texts.get("split", "").startswith("[") for _, texts in fields):
        return None
    counts = Counter(texts["video" if "video" in columns else "clip_id"] for _, texts in fields)
    return {video for video, count in counts.items() if count == 1 and video.strip()}


def _number_issues(
    fields: list[tuple[int, dict[str, str]]], grouped: dict[str, bool], comma: bool, name: str
) -> list[Finding]:
    """One finding for each column and form of numbers that cannot be read."""
    issues = []
    for column, has_mangled in grouped.items():
        forms: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for row, texts in fields:
            text = texts[column].strip()
            if text and NUMBER_PARSERS[column](text, grouped=has_mangled, comma=comma) is None:
                forms.setdefault(_unreadable_form(text, has_mangled), []).append((row, text))
        for (what, fix), bad in forms.items():
            row, text = next((item for item in bad if is_mangled(item[1])), bad[0])
            found = counted(
                "%(num)s value of the column '%(column)s' %(what)s, such as %(text)s in row %(row)s",
                "%(num)s values of the column '%(column)s' %(what)s, such as %(text)s in row %(row)s",
                len(bad),
                column=column,
                what=what,
                text=shown(text[:60]),
                row=row,
            )
            issues.append(NUMBERS.breach(name, found, f"{fix}; until then none of them is used"))
    return issues


def _unreadable_form(text: str, has_mangled: bool) -> tuple[str, str]:
    if is_clock_time(text):
        return _CLOCK
    if has_decimal_comma(text):
        return _COMMA
    return _MANGLED if has_mangled else _NO_NUMBERS


def _repeated_ids(rows: list[Row], name: str) -> list[Finding]:
    seen: dict[str, list[int]] = {}
    for row in rows:
        if row.clip_id:
            seen.setdefault(row.clip_id, []).append(row.row)
    return [
        UNIQUE.breach(name, f"the id {shown(clip_id)} is in the rows {few(numbers)}", "give each clip an id of its own")
        for clip_id, numbers in seen.items()
        if len(numbers) > 1
    ]


def _without_spans(rows: list[Row], columns: dict[str, str], present: list[str], name: str) -> list[Finding]:
    """Rows of one video in a table without any span: each would be the whole video."""
    if "video" not in columns or any(row.is_untimed or row.has_span for row in rows):
        return []
    counts = Counter(row.video_id for row in rows if row.clip is not None)
    shared = [video for video, count in counts.items() if count > 1]
    if not shared:
        return []
    unread = [column for column in present if column not in columns.values()]
    fix = _rename(unread, [meaning for meaning in ("start", "end") if meaning not in columns])
    found = counted(
        "%(rows)s rows name %(num)s video without saying which part is theirs: %(ids)s",
        "%(rows)s rows name %(num)s videos without saying which part is theirs: %(ids)s",
        len(shared),
        rows=f"{sum(counts[video] for video in shared):,}",
        ids=few_ids(shared),
    )
    return [SPANS.breach(name, found, fix or "add columns start and end, in seconds")]


def _spellings(rows: list[Row], name: str) -> list[Finding]:
    """Names of signers that differ in case or blanks alone count as several people."""
    spellings: dict[str, list[str]] = {}
    for signer in dict.fromkeys(row.clip.signer for row in rows if row.clip is not None and row.clip.signer):
        spellings.setdefault("".join(signer.casefold().split()), []).append(signer)
    found = [few_ids(names) for names in spellings.values() if len(names) > 1]
    if not found:
        return []
    return [SIGNERS.breach(name, f"signers who may be one: {few(found)}", "write one name, or names that differ more")]


def _disputed_durations(rows: list[Row], name: str) -> list[Finding]:
    disputed = [row for row in rows if row.disputed_duration is not None]
    if not disputed:
        return []
    found = counted(
        "the duration of %(num)s row is not that of its span: %(seconds)s s in row %(row)s",
        "the duration of %(num)s rows is not that of their span, such as %(seconds)s s in row %(row)s",
        len(disputed),
        seconds=f"{disputed[0].disputed_duration:g}",
        row=disputed[0].row,
    )
    return [DURATION.breach(name, found, "nothing to do: the span counts and these durations are not used")]


def _absent_videos(
    absent: list[Clip], name: str, is_allowed: bool, columns: dict[str, str], present: list[str]
) -> list[Finding]:
    rows: dict[str, list[int]] = {}
    for clip in absent:
        assert clip.row is not None
        rows.setdefault(clip.video_id, []).append(clip.row)
    if not rows:
        return []
    examples = few([f"{shown(video)} (row {numbers[0]})" for video, numbers in rows.items()])
    found = counted(
        "%(num)s clip of %(videos)s that is not there: %(ids)s",
        "%(num)s clips of %(videos)s that are not there: %(ids)s",
        len(absent),
        videos=counted("%(num)s video", "%(num)s videos", len(rows)),
        ids=examples,
    )
    if "video" not in columns:
        unread = [column for column in present if column not in columns.values()]
        found = f"no column names the video, and the clips' own ids are none of videos: {examples}"
        return [
            VIDEO_KNOWN.breach(name, found, _rename(unread, ["video"]) or "add a column 'video' with the videos' ids")
        ]
    if is_allowed:
        fix = "nothing to do: these clips are left out (allow_absent_videos)"
        return [VIDEO_KNOWN.breach(name, found, fix, severity="info")]
    fix = "add the videos to the videos folder, remove these rows, or leave them out with --allow-absent-videos"
    return [VIDEO_KNOWN.breach(name, found, fix)]


def why_no_texts(meta: Path) -> str | None:
    """Why nothing can be translated, in one line with what to do; None where a row of meta.csv has a text.

    The workflow asks before it plans a training.

    Raises:
        UserError: meta.csv is there and cannot be read.
    """
    if not meta.is_file():
        near = [path.name for path in meta.parent.glob("*") if path.stem.lower().startswith("meta") and path.is_file()]
        if not near:
            return f"{meta}: no such file; its column 'text' holds what the translation model learns to write"
        return f"{meta}: no such file, found {few_ids(sorted(near))}; save it as {meta.name}, a CSV table in UTF-8"
    table = scan_table(meta, KNOWN_COLUMNS, str(meta), holds="clips")
    raise_errors(table.issues)
    columns, issues = resolve_columns(table.columns, str(meta))
    raise_errors(issues)
    if "text" not in columns:
        fix = _rename([column for column in table.columns if column not in columns.values()], ["text"])
        return f"{meta}: no column 'text' among {few(table.columns, 20)}; {fix or 'add it'}"
    if not any(fields[columns["text"]].strip() for _, fields in table.rows):
        return f"{meta}: the column {shown(columns['text'])} is empty in every row; fill it in"
    return None
