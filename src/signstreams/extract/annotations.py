"""What extraction reads of meta.csv: the annotated spans of each video, and the signer's box."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from signstreams.corpus.clips import BOX, TIMES, Row
from signstreams.corpus.findings import Finding, errors, few, lines
from signstreams.corpus.meta import ID_COLUMN, NUMBERS, VIDEO_KNOWN, MetaTable, scan_meta
from signstreams.corpus.table import RAGGED, READABLE
from signstreams.errors import UserError, print_problems
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.ids import shown

# What meta.csv says about a video that extraction heeds: where the signer is, and which spans are annotated.


class VideoAnnotations(NamedTuple):
    """Of one video.

    Attributes:
        spans_s: Spans to extract, padded, merged, in order of time, seconds from the start; None for the whole video.
        box: Where the signer is, x0, y0, x1, y1 in px of the upright frame; None when nothing says so.
    """

    spans_s: tuple[tuple[float, float], ...] | None = None
    box: tuple[float, float, float, float] | None = None

    def settings(self) -> dict[str, Any]:
        """What shapes the results, as plain data."""
        return {"spans_s": None if self.spans_s is None else [list(span) for span in self.spans_s], "box": self.box}


NOT_ANNOTATED = VideoAnnotations()


# From meta.csv to what extraction heeds of it: of each video the spans that are annotated, and the signer's box.

_TOUCH_S = 1e-6  # 0.7 + 0.1 is a little less than 0.9 - 0.1
_BOX_COLUMN = re.compile(rb'(^|[;,"\s]|\xef\xbb\xbf)box([;,"\s]|$)')
_OF_BOXES = {rule.id for rule in (BOX, READABLE, RAGGED, ID_COLUMN)}
"""What hides or spoils a box."""


def read_annotations(
    layout: CorpusLayout, video_ids: Collection[str], config: ExtractConfig
) -> dict[str, VideoAnnotations]:
    """Of each video what meta.csv says; with ``spans_only`` a video that no row names is not among them.

    The table is read only when something in it matters: with ``spans_only``, or when it has boxes. Without
    ``spans_only`` all that must be right of it are the boxes, so that videos can be extracted while texts are written:
    a box counts whatever else is wrong in its row. With ``spans_only``, rows of these videos whose times cannot be read
    are warned of.

    Raises:
        UserError: When spans are wanted and the table is absent or wrong, no row gives a span of a video, or a box is
            wrong or cannot be read.
    """
    if config.spans_only and not layout.meta.is_file():
        raise UserError(f"{layout.meta}: no such file, expected the annotated spans; write it or leave out spans_only")
    if not (config.spans_only or _names_boxes(layout.meta)):
        return dict.fromkeys(video_ids, NOT_ANNOTATED)
    table = scan_meta(layout.meta, video_ids, name=str(layout.meta))
    # A run may be given some videos of many: rows of the others are no error here.
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
        fix = "mend their times" if untimed else "correct its ids"
        said = (
            f"{layout.meta}: none of its {table.num_rows:,} rows gives a span of one of the {len(video_ids):,} videos "
            f"(such as {shown(next(iter(video_ids)))}), expected some; {fix} or leave out spans_only"
        )
        raise UserError([*lines(untimed), said])
    print_problems(lines(untimed), kind="warning")
    return named


def annotations_of(
    rows: Iterable[Row], config: ExtractConfig, name: str
) -> tuple[dict[str, VideoAnnotations], list[Finding]]:
    """Of each video that a row names, its annotations; and the videos whose rows have different boxes.

    With ``spans_only`` a video whose rows give no clip is not among them. A box counts where its row gives none too.
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
    """Of rows of these videos that give no span since their times cannot be read; and what is wrong with the numbers.

    Rows of other videos are no matter of this run, which may be one job of many.
    """
    own = (row for row in table.rows if row.is_untimed and row.video_id in video_ids)
    found = [issue for row in own for issue in row.issues if issue.rule == TIMES.id]
    return found + [issue for issue in table.issues if issue.rule == NUMBERS.id] if found else []


def merged(spans_s: Sequence[tuple[float, float]], padding_s: float) -> tuple[tuple[float, float], ...]:
    """Spans with so much before and after them, in order of time; those that overlap or touch are one."""
    result: list[tuple[float, float]] = []
    for start, end in sorted((max(0.0, start - padding_s), end + padding_s) for start, end in spans_s):
        if result and start <= result[-1][1] + _TOUCH_S:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def _names_boxes(path: Path) -> bool:
    """Whether the header has a column ``box``: of ten thousand jobs each would read the whole table otherwise."""
    try:
        with path.open("rb") as file:
            header = file.readline(100_000).lower().replace(b"\0", b"")  # of UTF-16, which the reader then refuses
    except OSError:
        return False
    return _BOX_COLUMN.search(header) is not None
