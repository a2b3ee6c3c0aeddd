"""What a run and its evaluation write: curves, predictions, scores, and the list of files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signstreams.engine.metrics import Panel, plot_curves, read_metrics
from signstreams.engine.run_folder import Experiment
from signstreams.engine.training_run import RunFiles
from signstreams.formats.layout import (
    CURVES,
    EVALUATION_FILES,
    EVALUATION_PARTS,
    GLOSSES,
    METRICS,
    STATE,
    TRAINING_FILES,
)
from signstreams.integrate.evaluate import Evaluation
from signstreams.integrate.losses import TRANSLATION
from signstreams.integrate.protocols import CLEANUPS, gloss_decoding

_RATES = ("encoder", "mska", "mapper", "decoder", "backbone")
_RETRIEVAL = ("recall_text_to_clip", "recall_clip_to_text", "retrieval_chance")
PANELS = (
    Panel("Translation loss (per token)", ("train/loss_translation", "val/loss_translation")),
    Panel("CTC loss (per clip, all heads)", ("train/loss_ctc", "val/loss_ctc")),
    Panel("Self-distillation (per step)", ("train/loss_distillation", "val/loss_distillation")),
    Panel("Alignment loss (per clip)", ("train/loss_alignment", "val/loss_alignment")),
    Panel("Restoration loss (per token)", ("train/loss_restoration", "val/loss_restoration")),
    Panel("Val: retrieval (%)", tuple(f"val/{name}" for name in _RETRIEVAL)),
    Panel("Val: BLEU-4, chrF", ("val/bleu_4", "val/chrf")),
    Panel("Val: gloss WER (%)", tuple(f"val/wer_{head}" for head in ("fuse", "left", "right", "body"))),
    Panel("Gradient norm", ("train/grad_norm",)),
    Panel("Learning rate", tuple(f"train/lr_{name}" for name in _RATES)),
    Panel("Clips per second", ("train/clips_per_s",)),
    Panel("Data wait (share of a step)", ("train/data_wait_share",)),
)
_CAPTION = (
    "Good: translation and CTC fall on val as on train, distillation levels off, BLEU-4 and chrF rise, the gloss WER "
    "falls far below 100. Bad: val rises while train falls (too little text: a smaller model, more dropout), a WER "
    "that stays at 100 (every head says blank), a data wait near 1 (the disk is the limit)."
)

CONFIG, TOKENIZER = TRAINING_FILES["config"], TRAINING_FILES["tokenizer"]
RUN_FILES = RunFiles(
    TRAINING_FILES["last"],
    TRAINING_FILES["best"],
    METRICS,
    [*TRAINING_FILES.values(), GLOSSES, *EVALUATION_FILES.values(), EVALUATION_PARTS],
)
"""Files of a training; those of an evaluation beside it are archived with it, since they are of its model."""
CHECKPOINT_SHA256 = "checkpoint_sha256"  # key of scores.json: digest of the best.pt that was scored
PREDICTION_COLUMNS = (
    "clip_id",
    "split",
    "reference",
    "hypothesis",
    "gloss_reference",
    "gloss_hypothesis",
    "video_id",
    "first_frame",
    "last_frame",
    "signer",
)


def write_training(experiment: Experiment) -> None:
    """Draw the curves and list the run's files."""
    metrics, folder = read_metrics(experiment.state / METRICS), experiment.folder
    plot_curves(metrics, folder / CURVES, PANELS, title=folder.name, caption=_CAPTION)
    names = {"metrics" if kind == "history" else kind: name for kind, name in TRAINING_FILES.items()}
    names["gloss_vocabulary"] = GLOSSES
    made = {kind: folder / name for kind, name in names.items() if kind != "artifacts"}
    experiment.write_artifacts({kind: path for kind, path in made.items() if path.exists()})


def split_scores(result: Evaluation, head: str | None) -> dict[str, Any]:
    """Scores of one split as plain values; gloss scores by the named head."""
    text = result.translation() if TRANSLATION in result.losses else {}  # else no text is learned
    scores: dict[str, Any] = {"num_clips": len(result.predictions), **text, "losses": result.losses}
    if head is not None and head in result.word_errors:
        errors = result.word_errors[head]
        scores["gloss"] = {
            "wer": errors.rate,
            "substitutions": errors.substitutions,
            "deletions": errors.deletions,
            "insertions": errors.insertions,
            "num_glosses": errors.num_words,
            "head": head,
            "decoding": gloss_decoding(result.scoring.gloss_beams),
            "cleanup": CLEANUPS[result.scoring.gloss_cleanup],
            "num_ctc_skipped": result.num_ctc_skipped,
        }
    return scores


def scores_line(split: str, content: Mapping[str, Any]) -> str:
    """``"test: BLEU-4 12.30, chrF 33.10, gloss WER 41.0 (fuse head)"``, as far as text and glosses are learned."""
    found = []
    if "bleu_4" in content:
        found.append(f"BLEU-4 {content['bleu_4']:.2f}, chrF {content['chrf']:.2f}")
    if gloss := content.get("gloss"):
        found.append(f"gloss WER {gloss['wer']:.1f} ({gloss['head']} head)")
    return f"{split}: {', '.join(found)}"


def predictions_csv(results: Mapping[str, Evaluation], head: str | None) -> str:
    """One row per clip, split by split, in the order of the index."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for split, result in results.items():
        for prediction in result.predictions:
            entry = prediction.entry
            writer.writerow(
                [
                    entry.clip_id,
                    split,
                    entry.text,
                    prediction.text,
                    " ".join(entry.gloss or ()),
                    " ".join(prediction.glosses.get(head, [])) if head else "",
                    entry.video.video_id,
                    *((entry.frames[0], entry.frames[-1]) if entry.frames else ("", "")),  # g2t reads no video
                    entry.signer or "",
                ]
            )
    return buffer.getvalue()


def beside(checkpoint_path: Path, name: str) -> Path:
    """Path of a file in the run that ``checkpoint_path`` belongs to; ``state/best.pt`` counts as ``best.pt``."""
    folder = checkpoint_path.parent
    return (folder.parent if folder.name == STATE else folder) / name
