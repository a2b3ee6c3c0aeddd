"""``translations.html``: what the model says beside what was said, with frames of each clip; worst first."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF

from signstreams.errors import UserError
from signstreams.files import write_text
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.data import ClipEntry
from signstreams.integrate.evaluate import Prediction
from signstreams.streams import STREAMS

PAGE = "translations.html"
MAX_CLIPS = 60
FRAMES = 6
TILE_PX = 72

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.3rem; } .scores { color: #444; }
article { border-top: 1px solid #d8d8d8; padding: .8rem 0; }
img { max-width: 100%; height: auto; display: block; background: #eee; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; margin: .5rem 0 0; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
.right { color: #11602f; } .clip { color: #666; font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 480px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .3rem; } }
"""


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
    articles = [_article(score, prediction, layout, reader, head) for score, prediction in chosen]
    reader.close()
    shown = f"{len(chosen)} of {len(rated)}" if len(chosen) < len(rated) else f"All {len(rated)}"
    page = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Translations</title><style>{_STYLE}</style></head><body>",
        f"<h1>Translations of the {escape(str(content['split']))} split</h1>",
        f"<p class=scores>{_scores(content)}. {shown} clips, by chrF from the worst to the best. Frames: right hand,"
        " face, left hand, evenly over the clip.</p>",
        *articles,
        "</body></html>",
    ]
    write_text(path, "\n".join(page) + "\n")


def _scores(content: Mapping[str, Any]) -> str:
    parts = [f"BLEU-4 {content['bleu_4']:.1f}", f"chrF {content['chrf']:.1f}", f"ROUGE-L {content['rouge_l']:.1f}"]
    if "gloss" in content:
        parts.append(f"gloss WER {content['gloss']['wer']:.1f} % ({escape(content['gloss']['head'])} head)")
    if "baselines" in content:
        parts.append(f"with blank video: BLEU-4 {content['baselines']['blank_video']['bleu_4']:.1f}")
    return ", ".join(parts)


def _article(score: float, prediction: Prediction, layout: CorpusLayout, reader: CropReader, head: str | None) -> str:
    entry = prediction.entry
    rows = [("said", escape(entry.text)), ("model", _marked(prediction.text, entry.text))]
    if entry.gloss is not None:
        rows.append(("glosses", escape(" ".join(entry.gloss))))
    if head is not None and head in prediction.glosses:
        rows.append(("recognised", escape(" ".join(prediction.glosses[head]))))
    terms = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)
    return (
        f"<article><div class=clip>{escape(entry.clip_id)}, chrF {score:.0f}</div>{_frames(entry, layout, reader)}"
        f"<dl>{terms}</dl></article>"
    )


def _marked(hypothesis: str, reference: str) -> str:
    """Words that the reference has too are marked."""
    known = {word.strip(".,;:!?¡¿").casefold() for word in reference.split()}
    words = [
        f"<span class=right>{escape(word)}</span>" if word.strip(".,;:!?¡¿").casefold() in known else escape(word)
        for word in hypothesis.split()
    ]
    return " ".join(words) or "<i>nothing</i>"


def _frames(entry: ClipEntry, layout: CorpusLayout, reader: CropReader) -> str:
    """Crops of some frames as one JPEG inside the page; a stream without crops leaves its row grey."""
    import cv2

    rows = []
    for stream in (STREAMS[2], STREAMS[0], STREAMS[1]):
        try:
            crops = {crop.frame: crop for crop in list_crops(layout.crops(stream, entry.video.video_id))}
        except (OSError, ValueError):
            crops = {}
        tiles: list[Any] = []
        for place in np.linspace(0, entry.num_frames - 1, FRAMES).round().astype(int):
            crop = crops.get(entry.frames[int(place)])
            image = None
            if crop is not None:
                image = cv2.imdecode(np.frombuffer(reader.read(crop), np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                tiles.append(np.full((TILE_PX, TILE_PX, 3), 230, np.uint8))
            else:
                tiles.append(cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(tiles))
    is_ok, jpeg = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not is_ok:
        raise UserError(f"clip {entry.clip_id}: its frames cannot be drawn; extract the video again")
    data = base64.b64encode(jpeg.tobytes()).decode()
    size = f"width={FRAMES * TILE_PX} height={3 * TILE_PX}"
    return f"<img {size} alt='frames of the clip' src='data:image/jpeg;base64,{data}'>"
