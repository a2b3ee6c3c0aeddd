"""``translations.html``: what the model says beside what was said, with frames of each clip; worst first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sacrebleu.metrics import CHRF

from signstreams.files import write_text
from signstreams.formats.crops import CropReader, clip_strip
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.evaluate import Prediction
from signstreams.pages.render import ShownClip, render
from signstreams.spread import evenly_spread

MAX_CLIPS = 60


def write_page(
    path: Path, predictions: list[Prediction], content: Mapping[str, Any], layout: CorpusLayout, head: str | None
) -> None:
    """Write the page: at most `MAX_CLIPS` clips by chrF, spread evenly from the worst to the best.

    Args:
        path: File to write.
        predictions: Of one split.
        content: Content of scores.json.
        layout: The corpus; frames come from its crops.
        head: Head whose glosses are shown.
    """
    chrf = CHRF()
    rated = [(chrf.sentence_score(p.text, [p.entry.text]).score, p) for p in predictions]
    rated.sort(key=lambda pair: pair[0])
    chosen = rated
    if len(rated) > MAX_CLIPS:
        chosen = [rated[i] for i in evenly_spread(MAX_CLIPS, len(rated), with_ends=True)]
    reader = CropReader()
    try:
        clips = [_shown(score, prediction, head, layout, reader) for score, prediction in chosen]
    finally:
        reader.close()
    write_text(path, render("translations.html", scores=content, num_clips=len(rated), clips=clips))


def _shown(
    score: float, prediction: Prediction, head: str | None, layout: CorpusLayout, reader: CropReader
) -> ShownClip:
    entry = prediction.entry
    return ShownClip(
        title=f"{entry.clip_id}, chrF {score:.0f}",
        frames=clip_strip(layout, entry.video.video_id, entry.frames, reader),
        reference=entry.text,
        hypothesis=prediction.text,
        gloss_reference=None if entry.gloss is None else " ".join(entry.gloss),
        gloss_hypothesis=" ".join(prediction.glosses[head])
        if head is not None and head in prediction.glosses
        else None,
    )
