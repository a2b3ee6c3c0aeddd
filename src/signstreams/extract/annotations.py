"""What extraction uses of meta.csv: the annotated spans of each video, and the signer's box."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from signstreams.corpus.clips import BOX, TIMES, Row
from signstreams.corpus.findings import Finding, errors, few, lines
from signstreams.corpus.meta_csv import ID_COLUMN, NUMBERS, VIDEO_KNOWN, MetaTable, scan_meta
from signstreams.corpus.table import RAGGED, READABLE
from signstreams.errors import UserError, print_problems
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.ids import shown


class VideoAnnotations(NamedTuple):
    """Annotations of one video."""

    spans_s: tuple[tuple[float, float], ...] | None = None
    """Spans to extract, padded, merged, in order of time, seconds from the start; None for the whole video."""
    box: tuple[float, float, float, float] | None = None
    """Where the signer is, x0, y0, x1, y1 in px of the upright frame; None without one."""

    def settings(self) -> dict[str, Any]:
        """What shapes the results, as plain data."""
        return {"spans_s": None if self.spans_s is None else [list(span) for span in self.spans_s], "box": self.box}


NOT_ANNOTATED = VideoAnnotations()


_TOUCH_S = 1e-6  # 0.7 + 0.1 is a little less than 0.9 - 0.1
_BOX_COLUMN = re.compile(rb'(^|[;,"\s]|\xef\xbb\xbf)box([;,"\s]|$)')
_OF_BOXES = {rule.id for rule in (BOX, READABLE, RAGGED, ID_COLUMN)}  # rules whose breach hides or spoils a box


def read_annotations(
    layout: CorpusLayout, video_ids: Collection[str], config: ExtractConfig
) -> dict[str, VideoAnnotations]:
    """Annotations by video id; with ``spans_only``, videos that no row names are left out.

    The table is read only for ``spans_only``, or if it has boxes. Without ``spans_only`` only the boxes have to be
    correct, so that videos can be extracted while texts are still being written: a box counts no matter what else is
    wrong in its row. With ``spans_only``, a warning names rows of these videos with unreadable times.

    Raises:
        UserError: With ``spans_only``, the table is absent or has errors, or no row gives a span of a video; a box is
            wrong or cannot be read.
    """
    if config.spans_only and not layout.meta.is_file():
        raise UserError(f"{layout.meta}: no such file, expected the annotated spans; write it or leave out spans_only")
    if not (config.spans_only or _names_boxes(layout.meta)):
        return dict.fromkeys(video_ids, NOT_ANNOTATED)
    table = scan_meta(layout.meta, video_ids, name=str(layout.meta))
    # A run may get some videos of many: rows of the others are no error here.
    wrong = [issue for issue in errors(table.issues) if issue.rule != VIDEO_KNOWN.id]
    if not config.spans_only:
        wrong = [issue for issue in wrong if issue.rule in _OF_BOXES]
    found, conflicts = annotations_of(table.rows, config, str(layout.meta))
    if wrong or conflicts:
        raise UserError(lines([*wrong, *conflicts]))
    if not config.spans_only:
        return {video_id: found.get(video_id, NOT_ANNOTATED) for video_id in video_ids}
    untimed = _untimed(table, set(video_ids))
    named = {video_id: found[video_id] for video_id in video_ids if video_id in found}
    if not named:
        fix = "correct their times" if untimed else "correct its ids"
        problem = (
            f"{layout.meta}: none of its {table.num_rows:,} rows gives a span of one of the {len(video_ids):,} videos "
            f"(such as {shown(next(iter(video_ids)))}), expected some; {fix} or leave out spans_only"
        )
        raise UserError([*lines(untimed), problem])
    print_problems(lines(untimed), kind="warning")
    return named


def annotations_of(
    rows: Iterable[Row], config: ExtractConfig, name: str
) -> tuple[dict[str, VideoAnnotations], list[Finding]]:
    """Annotations of each video that rows name, and a finding per video with different boxes.

    With ``spans_only``, videos without a clip are left out. A box also counts in a row that gives no clip.
    """
    by_video: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.video_id:
            by_video[row.video_id].append(row)
    found, conflicts = {}, []
    for video_id, own in by_video.items():
        boxed = [row for row in own if row.box is not None]
        if len({row.box for row in boxed}) > 1:
            numbers = few([row.row for row in boxed])
            text = f"different boxes of the video {shown(video_id)} in the rows {numbers}"
            fix = "give all its rows the same box: one person is followed through a video"
            conflicts.append(BOX.breach(name, text, fix, row=boxed[0].row, expects="one box for each video"))
        clips = [row.clip for row in own if row.clip is not None]
        if config.spans_only and not clips:
            continue
        spans = None
        if config.spans_only and not any(clip.is_whole_video for clip in clips):
            spans = merged([(clip.start_s or 0.0, clip.end_s or 0.0) for clip in clips], config.span_padding_s)
        found[video_id] = VideoAnnotations(spans, boxed[0].box if boxed else None)
    return found, conflicts


def _untimed(table: MetaTable, video_ids: Collection[str]) -> list[Finding]:
    """Findings on rows of these videos with unreadable times, and on the format of numbers.

    Rows of other videos do not concern this run, which may be one job of many.
    """
    own = (row for row in table.rows if row.is_untimed and row.video_id in video_ids)
    found = [issue for row in own for issue in row.issues if issue.rule == TIMES.id]
    return found + [issue for issue in table.issues if issue.rule == NUMBERS.id] if found else []


def merged(spans_s: Sequence[tuple[float, float]], padding_s: float) -> tuple[tuple[float, float], ...]:
    """Padded spans in order of time; those that overlap or touch become one."""
    result: list[tuple[float, float]] = []
    for start, end in sorted((max(0.0, start - padding_s), end + padding_s) for start, end in spans_s):
        if result and start <= result[-1][1] + _TOUCH_S:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def _names_boxes(path: Path) -> bool:
    """Whether the header has a column ``box``: otherwise each of ten thousand jobs would read the whole table."""
    try:
        with path.open("rb") as file:
            header = file.readline(100_000).lower().replace(b"\0", b"")  # of UTF-16, which the reader then refuses
    except OSError:
        return False
    return _BOX_COLUMN.search(header) is not None
