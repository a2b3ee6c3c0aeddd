"""Writes meta.csv, annotations/gloss.csv and the index of a demo corpus, from its plan alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from signstreams.demo.lexicon import CTC_LABELS
from signstreams.demo.plan import FPS, DemoPlan
from signstreams.files import write_text
from signstreams.formats.layout import SPLITS, CorpusLayout

META_COLUMNS = ("id", "video", "text", "start", "end", "duration", "fps", "frame_count", "signer")
GLOSS_COLUMNS = ("video_id", "gloss", "ctc_labels")
UNSEEN_SIGNER_INDEX = "index_unseen_signer"


def write_annotations(layout: CorpusLayout, plan: DemoPlan) -> None:
    """Times are in seconds, frames in the clip's own; ``gloss.csv`` is keyed by the clip's id."""
    rows = [
        (
            clip.clip_id,
            video.video_id,
            clip.sentence.text,
            _seconds(clip.start),
            _seconds(clip.end),
            _seconds(clip.end - clip.start),
            FPS,
            clip.end - clip.start,
            video.signer,
        )
        for video in plan.videos
        for clip in video.clips
    ]
    _write_table(layout.meta, META_COLUMNS, rows)
    glosses = [
        (
            clip.clip_id,
            " ".join(clip.sentence.glosses),
            " ".join(str(CTC_LABELS[gloss]) for gloss in clip.sentence.glosses),
        )
        for clip in plan.clips()
    ]
    _write_table(layout.gloss, GLOSS_COLUMNS, glosses)
    for split in SPLITS:
        _write_ids(layout.index(split), plan.splits[split])
        if plan.unseen_signer_splits is not None:
            _write_ids(layout.root / UNSEEN_SIGNER_INDEX / f"{split}.csv", plan.unseen_signer_splits[split])


def _seconds(frames: int) -> str:
    return f"{frames / FPS:.2f}"


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    # No field of this corpus holds a semicolon, a quote or a line break, so nothing needs quoting.
    write_text(path, "".join(";".join(map(str, row)) + "\n" for row in (columns, *rows)))


def _write_ids(path: Path, clip_ids: Iterable[str]) -> None:
    write_text(path, "".join(f"{clip_id}\n" for clip_id in clip_ids))
