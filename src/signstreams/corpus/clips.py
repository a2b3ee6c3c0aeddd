"""A clip, a span of a video with its text, and the reader that makes one of a row of meta.csv."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from signstreams.corpus.findings import Finding, Rule
from signstreams.corpus.numbers import Unit, has_decimal_comma, is_clock_time, parse_number, parse_time_s
from signstreams.formats.layout import SPLITS
from signstreams.formats.video_sources import VIDEO_SUFFIXES
from signstreams.ids import check_id, composed, shown


@dataclass(frozen=True)
class Clip:
    """One row of meta.csv, or a whole video of a corpus without one."""

    clip_id: str  # unique in the corpus; safe as a file name
    video_id: str  # its video
    text: str = ""  # as written, blanks included; empty when there is none
    start_s: float | None = None  # start of the span; None (with ``end_s``) for the whole video
    end_s: float | None = None  # end of the span: it covers frames with ``start_s <= time < end_s``
    signer: str | None = None  # who signs, when known
    split: str | None = None  # ``train``, ``val`` or ``test`` when meta.csv says so
    box: tuple[float, float, float, float] | None = None
    """Where the signer is: x0, y0, x1, y1 in px of the upright source frame."""
    duration_s: float | None = None  # declared length of the clip; None when absent, mangled or different from the span
    fps: float | None = None  # declared frames per second of the video
    frame_count: int | None = None  # declared number of frames of the clip
    row: int | None = None  # row in meta.csv (the header is row 1); None when there is no meta.csv

    @property
    def is_whole_video(self) -> bool:
        """Whether it has no span."""
        return self.start_s is None


# -- Rows of meta.csv

NUMBER_PARSERS = {
    **dict.fromkeys(("start", "end", "duration"), parse_time_s),
    **dict.fromkeys(("fps", "frame_count"), parse_number),
}
"""Column of numbers to what reads its cells."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "dev", "valid", "validation"), "val"),
    "test": "test",
}
"""Names of splits in meta.csv to ours."""
AGREE_S = 0.01  # largest difference between the columns start and end and the segments: LSA-T writes two decimals
DURATION_TOLERANCE_S = 0.05
BEYOND_VIDEO_S = 0.25
"""How far a clip may reach past the end of its video: encoders end one some frames early or late."""

ID = Rule("meta.id", "error", "an id that can name a file")
VIDEO_ID = Rule("meta.video_id", "error", "the id of a video that can name a file")
TIMES = Rule("meta.times", "warning", "exact start and end, as plain numbers or as segments in 'split'")
DISAGREE = Rule("meta.times_agree", "warning", "start and end as in the segments of 'split'")
SPAN = Rule("meta.span", "error", "0 <= start < end")
SPLIT = Rule("meta.split", "error", f"{', '.join(SPLITS)}, or a list of (text, start, end) segments")
BOX = Rule("meta.box", "error", "x0 y0 x1 y1 in px, x0 < x1 and y0 < y1")
ROW_RULES = (ID, VIDEO_ID, TIMES, DISAGREE, SPAN, SPLIT, BOX)


@dataclass
class Row:
    """Result of reading one row."""

    row: int  # its number; the header is row 1
    clip_id: str  # as written, without blanks around it
    video_id: str = ""  # video that it names, also when it gives no clip; empty when it names none
    box: tuple[float, float, float, float] | None = None  # box of the signer, also when it gives no clip
    clip: Clip | None = None  # None when the row is wrong or its times cannot be known
    is_untimed: bool = False  # whether the times are missing
    has_span: bool = False  # whether it has times
    disputed_duration: float | None = None  # declared duration in s that is not the span's length
    issues: list[Finding] = field(default_factory=list)  # findings


@dataclass(frozen=True)
class RowReader:
    """Reads rows of one table."""

    name: str  # path in the findings
    grouped: Mapping[str, bool]  # number column to whether it holds mangled numbers
    lone_videos: set[str] | None  # video cells that occur in one row only; None when the table has no spans
    videos: Mapping[str, str]  # composed (NFC) form of each video id to the id; may be empty
    comma: bool = False  # whether numbers have a decimal comma
    units: Mapping[str, Unit] = field(default_factory=dict)  # unit of the columns of times that are not in seconds

    def read(self, row: int, texts: Mapping[str, str]) -> Row:
        """Read the fields of row number ``row``, by meaning."""
        result = Row(row, texts["clip_id"].strip())
        self._check_id(result, ID, "clip", result.clip_id)
        segments, split = self._split(result, texts.get("split", ""))
        span = self._span(result, texts, segments)
        result.has_span = span is not None
        result.video_id = self._video_id(result, texts, has_times=span is not None)
        result.box = self._box(result, texts.get("box", ""))
        if result.is_untimed or any(issue.severity == "error" for issue in result.issues):
            return result
        start_s, end_s = span or (None, None)
        duration_s = self._number(texts, "duration")
        if duration_s is not None and span is not None and abs(duration_s - (span[1] - span[0])) > DURATION_TOLERANCE_S:
            result.disputed_duration, duration_s = duration_s, None
        frame_count = self._number(texts, "frame_count")
        result.clip = Clip(
            clip_id=result.clip_id,
            video_id=result.video_id,
            text=texts.get("text", ""),
            start_s=start_s,
            end_s=end_s,
            signer=texts.get("signer", "").strip() or None,
            split=split,
            box=result.box,
            duration_s=duration_s,
            fps=self._number(texts, "fps"),
            frame_count=None if frame_count is None else round(frame_count),
            row=row,
        )
        return result

    def _number(self, texts: Mapping[str, str], column: str) -> float | None:
        text, grouped = texts.get(column, ""), self.grouped.get(column, False)
        if (unit := self.units.get(column, "s")) == "s":
            return NUMBER_PARSERS[column](text, grouped=grouped, comma=self.comma)
        fps = self._number(texts, "fps") if unit == "frames" else None
        return parse_time_s(text, grouped=grouped, comma=self.comma, unit=unit, fps=fps)

    def _report(self, result: Row, rule: Rule, found: str, fix: str) -> None:
        result.issues.append(rule.breach(self.name, found, fix, row=result.row))

    def _check_id(self, result: Row, rule: Rule, what: str, text: str) -> None:
        try:
            check_id(text)
        except ValueError as error:
            self._report(result, rule, f"the {what} id {shown(text)} {error}", f"give the {what} another id")

    def _video_id(self, result: Row, texts: Mapping[str, str], *, has_times: bool) -> str:
        if "video" not in texts:
            return self._known(result.clip_id)
        cell = texts["video"].strip()
        if PurePath(cell).suffix.lower() in VIDEO_SUFFIXES:
            cell = cell[: -len(PurePath(cell).suffix)]
        if cell:
            self._check_id(result, VIDEO_ID, "video", cell)
        elif has_times:
            self._report(result, VIDEO_ID, "names no video", "fill in the column 'video'")
        elif not result.is_untimed:
            self._no_times(result, "neither a video nor times")
        return self._known(cell)

    def _known(self, video_id: str) -> str:
        return self.videos.get(composed(video_id), video_id)

    def _split(self, result: Row, cell: str) -> tuple[tuple[float, float] | None, str | None]:
        """Start and end of LSA-T's segments, or the name of a data split."""
        cell = cell.strip()
        if cell.startswith("["):
            segments = parse_segments(cell)
            if segments is None:
                self._no_times(result, f"the segments {shown(cell[:60])} are damaged")
            return segments, None
        if not cell or cell.lower() in SPLIT_NAMES:
            return None, SPLIT_NAMES.get(cell.lower())
        self._report(result, SPLIT, f"the split {shown(cell[:60])}", "write one of these names")
        return None, None

    def _span(
        self, result: Row, texts: Mapping[str, str], segments: tuple[float, float] | None
    ) -> tuple[float, float] | None:
        cells = {column: texts.get(column, "").strip() for column in ("start", "end")}
        plain = {column: self._number(texts, column) for column in cells}
        if segments is not None:
            span = segments
            for column, moment in zip(cells, segments, strict=True):
                value = plain[column]
                if value is not None and abs(value - moment) > AGREE_S:
                    found = f"{column} {value:g}, but {moment:g} in the segments"
                    self._report(result, DISAGREE, found, "check which is right; the segments were used")
        elif plain["start"] is not None and plain["end"] is not None:
            span = (plain["start"], plain["end"])
        else:
            if any(cells.values()):
                found = ", ".join(f"{column} {shown(cell) if cell else 'empty'}" for column, cell in cells.items())
                is_other_form = any(is_clock_time(cell) or has_decimal_comma(cell) for cell in cells.values())
                fix = "write seconds with a point" if is_other_form else "fill them in"
                if "frames" in self.units.values() and self._number(texts, "fps") is None:
                    found, fix = f"{found} in frames, without frames per second", "add a column 'fps'"
                self._no_times(result, found, fix)
            elif self.lone_videos is not None and texts.get("video", texts["clip_id"]) not in self.lone_videos:
                is_nameless = "video" in texts and not texts["video"].strip()
                self._no_times(result, "start and end are empty" + (" and so is the video" if is_nameless else ""))
            return None
        if not 0 <= span[0] < span[1]:
            self._report(result, SPAN, f"start {span[0]:g} s and end {span[1]:g} s", "correct the times")
        return span

    def _no_times(self, result: Row, found: str, fix: str = "fill them in") -> None:
        if not result.is_untimed:
            result.is_untimed = True
            self._report(result, TIMES, f"clip {shown(result.clip_id)}: {found}", f"{fix}; the clip is left out")

    def _box(self, result: Row, cell: str) -> tuple[float, float, float, float] | None:
        if not cell.strip():
            return None
        values = [parse_number(part) for part in re.split(r"[\s,]+", cell.strip().strip("[]()").strip())]
        numbers = [value for value in values if value is not None]
        if len(values) == len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
            return numbers[0], numbers[1], numbers[2], numbers[3]
        self._report(result, BOX, f"the box {shown(cell[:60])}", "correct it")
        return None


def parse_segments(cell: str) -> tuple[float, float] | None:
    """Start of the first and end of the last of LSA-T's ``[(text, start, end), ...]``; None for anything else."""
    try:
        segments = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    if not isinstance(segments, list) or not segments:
        return None
    for segment in segments:
        if not (isinstance(segment, tuple) and len(segment) == 3 and isinstance(segment[0], str)):
            return None
        if not all(type(moment) in (int, float) and abs(moment) <= sys.float_info.max for moment in segment[1:]):
            return None  # NaN, infinite, or an integer that no float holds
        if segment[2] <= segment[1]:
            return None
    return float(segments[0][1]), float(segments[-1][2])
