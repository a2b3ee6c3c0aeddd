"""``curves.png`` of a translation run."""

from __future__ import annotations

from pathlib import Path

from signstreams.engine.curves import Panel, plot_curves
from signstreams.engine.metrics import read_metrics

_RATES = ("encoder", "mska", "decoder", "backbone")
PANELS = (
    Panel("Translation loss (a token)", ("train/loss_translation", "val/loss_translation")),
    Panel("CTC loss (a clip, all heads)", ("train/loss_ctc", "val/loss_ctc")),
    Panel("Self-distillation (a step)", ("train/loss_distillation", "val/loss_distillation")),
    Panel("Val: BLEU-4, chrF", ("val/bleu_4", "val/chrf")),
    Panel("Val: gloss WER (%)", tuple(f"val/wer_{head}" for head in ("fuse", "left", "right", "body"))),
    Panel("Gradient norm", ("train/grad_norm",)),
    Panel("Learning rate", tuple(f"train/lr_{name}" for name in _RATES)),
    Panel("Clips a second", ("train/clips_per_s",)),
    Panel("Data wait (share of a step)", ("train/data_wait_share",)),
)
_CAPTION = (
    "Good: translation and CTC fall on val as on train, distillation levels off, BLEU-4 and chrF rise, the gloss WER "
    "falls far below 100. Bad: val rises while train falls (too little text: a smaller model, more dropout), a WER "
    "that stays at 100 (every head says blank), a data wait near 1 (the disk is the limit)."
)


def draw(metrics: Path, path: Path, *, title: str) -> None:
    """Draw what ``metrics.jsonl`` holds."""
    plot_curves(read_metrics(metrics), path, PANELS, title=title, caption=_CAPTION)
