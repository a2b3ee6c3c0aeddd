"""``translations.html``: what the model says beside what was said, with frames of each clip; worst first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF

from signstreams.array_types import Pixels
from signstreams.files import write_text
from signstreams.formats.crops import CropReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.strip import clip_strip
from signstreams.integrate.evaluate import Prediction
from signstreams.markup import article, cards, document, embedded, fitting, marked, section

PAGE = "translations.html"
MAX_CLIPS = 60

_HINT = (
    "By chrF, from the worst clip to the best. Frames: right hand, face, left hand, evenly over the clip; grey where "
    "nothing was found. Words that were said are green. Good: errors that a learner would make, a wrong word in a "
    "sentence about the same thing. Bad: the same fluent sentence under different clips, which the text model alone "
    "could have written, or nothing recognised."
)


def write_page(
    path: Path, predictions: list[Prediction], content: Mapping[str, Any], layout: CorpusLayout, head: str | None
) -> None:
    """Write the page: at most `MAX_CLIPS` clips by chrF, spread evenly from the worst to the best.

    Args:
        path: File to write.
        predictions: Of one split.
        content: Of scores.json.
        layout: Of the corpus; frames come from the crops.
        head: Whose glosses are shown.
    """
    chrf = CHRF()
    rated = [(chrf.sentence_score(p.text, [p.entry.text]).score, p) for p in predictions]
    rated.sort(key=lambda pair: pair[0])
    chosen = rated
    if len(rated) > MAX_CLIPS:
        chosen = [rated[i] for i in np.linspace(0, len(rated) - 1, MAX_CLIPS).round().astype(int)]
    reader = CropReader()
    try:
        strips = [clip_strip(layout, p.entry.video.video_id, p.entry.frames, reader) for _, p in chosen]
    finally:
        reader.close()
    shown = f"{len(chosen)} of {len(rated)}" if len(chosen) < len(rated) else f"All {len(rated)}"

    def render(quality: int) -> str:
        articles = [_article(*one, strip, quality, head) for one, strip in zip(chosen, strips, strict=True)]
        parts = [
            f"<h1>Translations of the {escape(str(content['split']))} split</h1>",
            cards(_scores(content)),
            section(f"{shown} clips", "\n".join(articles), hint=_HINT),
        ]
        return document("Translations", parts)

    write_text(path, fitting(render))


def _scores(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Value and name of each score."""
    shown = [(f"{content[key]:.1f}", name) for key, name in (("bleu_4", "BLEU-4"), ("chrf", "chrF"))]
    shown.append((f"{content['rouge_l']:.1f}", "ROUGE-L"))
    if "gloss" in content:
        shown.append((f"{content['gloss']['wer']:.1f} %", f"gloss WER ({content['gloss']['head']} head)"))
    if "baselines" in content:
        shown.append((f"{content['baselines']['blank_video']['bleu_4']:.1f}", "BLEU-4 with blank video"))
    return shown


def _article(score: float, prediction: Prediction, strip: Pixels, quality: int, head: str | None) -> str:
    entry = prediction.entry
    said = {"said": escape(entry.text), "model": marked(prediction.text, entry.text)}
    if entry.gloss is not None:
        said["glosses"] = escape(" ".join(entry.gloss))
    if head is not None and head in prediction.glosses:
        said["recognised"] = marked(" ".join(prediction.glosses[head]), " ".join(entry.gloss or ()))
    return article(embedded(strip, quality, "frames of the clip"), f"{entry.clip_id}, chrF {score:.0f}", said)
