"""From meta.csv to what extraction heeds of it: of each video the spans that are annotated, and the signer's box."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from signstreams.config.extract import ExtractConfig
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, errors, few, lines
from signstreams.corpus.meta import VIDEO_KNOWN, scan_meta
from signstreams.corpus.rows import BOX
from signstreams.errors import UserError
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.formats.layout import CorpusLayout
from signstreams.ids import shown

_TOUCH_S = 1e-6  # 0.7 + 0.1 is a little less than 0.9 - 0.1


def read_annotations(
    layout: CorpusLayout, video_ids: Collection[str], config: ExtractConfig
) -> dict[str, VideoAnnotations]:
    """Of each video what meta.csv says; with ``spans_only`` a video that no row names is not among them.

    The table is read only when something in it matters: with ``spans_only``, or when it has boxes. Without
    ``spans_only`` all that must be right of it are the boxes, so that videos can be extracted while texts are written.

    Raises:
        UserError: When spans are wanted and the table is absent or wrong, no row names a video, or a box is wrong.
    """
    if config.spans_only and not layout.meta.is_file():
        raise UserError(f"{layout.meta}: no such file, expected the annotated spans; write it or leave out spans_only")
    if not (config.spans_only or _names_boxes(layout.meta)):
        return dict.fromkeys(video_ids, NOT_ANNOTATED)
    table = scan_meta(layout.meta, video_ids, name=str(layout.meta))
    # A run may be given some videos of many: rows of the others are no error here.
    wrong = [issue for issue in errors(table.issues) if issue.rule != VIDEO_KNOWN.id]
    if not config.spans_only:
        wrong = [issue for issue in wrong if issue.rule == BOX.id]
    found, conflicts = annotations_of(table.clips, config, str(layout.meta))
    if wrong or conflicts:
        raise UserError(lines([*wrong, *conflicts]))
    if not config.spans_only:
        return {video_id: found.get(video_id, NOT_ANNOTATED) for video_id in video_ids}
    named = {video_id: found[video_id] for video_id in video_ids if video_id in found}
    if not named:
        raise UserError(
            f"{layout.meta}: none of its {table.num_rows:,} rows gives a span of one of the {len(video_ids):,} videos "
            f"(such as {shown(next(iter(video_ids)))}), expected some; correct its ids or leave out spans_only"
        )
    return named


def annotations_of(
    clips: Iterable[Clip], config: ExtractConfig, name: str
) -> tuple[dict[str, VideoAnnotations], list[Finding]]:
    """Of each video that a clip names, its annotations; and the videos whose clips have different boxes."""
    by_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_video[clip.video_id].append(clip)
    found, conflicts = {}, []
    for video_id, own in by_video.items():
        boxed = [clip for clip in own if clip.box is not None]
        if len({clip.box for clip in boxed}) > 1:
            rows = few(sorted(clip.row or 0 for clip in boxed))
            text = f"different boxes of the video {shown(video_id)} in the rows {rows}"
            fix = "give all its rows the same box: one person is followed through a video"
            conflicts.append(BOX.breach(name, text, fix, row=boxed[0].row, expects="one box for each video"))
        spans = None
        if config.spans_only and not any(clip.is_whole_video for clip in own):
            spans = merged([(clip.start_s or 0.0, clip.end_s or 0.0) for clip in own], config.span_padding_s)
        found[video_id] = VideoAnnotations(spans, boxed[0].box if boxed else None)
    return found, conflicts


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
    """Whether the header may have a column ``box``: of ten thousand jobs each would read the whole table otherwise."""
    try:
        with path.open("rb") as file:
            return b"box" in file.readline(100_000).lower()
    except OSError:
        return False
