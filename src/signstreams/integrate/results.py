"""What a run leaves at its end: predictions, scores, and the list of its files."""

from __future__ import annotations

import csv
import io
import logging
from typing import Any

from torch import nn

from signstreams.engine import checkpoint
from signstreams.engine.experiment import Experiment
from signstreams.files import write_json, write_text
from signstreams.integrate.batches import Sample
from signstreams.integrate.evaluate import Evaluation
from signstreams.integrate.training import BEST, LAST, METRICS

log = logging.getLogger(__name__)

TOKENIZER, GLOSSES, CONFIG = "tokenizer.json", "gloss_vocabulary.json", "config.json"
PREDICTIONS, SCORES, ARTIFACTS = "predictions.csv", "scores.json", "artifacts.json"
FILES = [BEST, LAST, METRICS, TOKENIZER, GLOSSES, CONFIG, PREDICTIONS, SCORES, ARTIFACTS]
SELECTION = "best.pt: highest BLEU-4 on val, of equals the lowest translation loss; gloss head: lowest WER on val"
PREDICTION_COLUMNS = ("clip_id", "split", "reference", "hypothesis", "gloss_reference", "gloss_hypothesis")


def finish(
    experiment: Experiment,
    val: Evaluation,
    test: Evaluation,
    head: str | None,
    train: list[Sample],
    model: nn.Module,
) -> dict[str, Any]:
    """Write predictions, scores and the list of artifacts."""
    folder = experiment.folder
    write_text(folder / PREDICTIONS, predictions_csv([val, test], head))
    best = checkpoint.load(experiment.state / BEST)
    content = {
        "split": "test",
        "num_clips": len(test.predictions),
        **split_scores(test, head),
        "val": {"num_clips": len(val.predictions), **split_scores(val, head)},
        "decoding": "greedy",
        "selection": SELECTION,
        "best_step": best["step"],
        "num_train_clips": len(train),
        "num_trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    for name in (BEST, LAST, METRICS):
        experiment.publish(name)
    artifacts = {
        "best": BEST,
        "last": LAST,
        "metrics": METRICS,
        "tokenizer": TOKENIZER,
        "config": CONFIG,
        "predictions": PREDICTIONS,
    }
    if (experiment.state / GLOSSES).exists():
        artifacts["gloss_vocabulary"] = GLOSSES
    write_json(folder / SCORES, content)
    experiment.write_artifacts(
        {kind: folder / name for kind, name in {**artifacts, "scores": SCORES}.items()}, ARTIFACTS
    )
    log.info("test: BLEU-4 %.2f, chrF %.2f%s", content["bleu_4"], content["chrf"], _wer_text(content))
    log.info("scores: %s", folder / SCORES)
    return content


def split_scores(result: Evaluation, head: str | None) -> dict[str, Any]:
    """Scores of one split as plain values; gloss scores by the named head."""
    scores: dict[str, Any] = {**result.translation(), "losses": result.losses}
    if head is not None and head in result.word_errors:
        errors = result.word_errors[head]
        scores["gloss"] = {
            "wer": errors.rate,
            "substitutions": errors.substitutions,
            "deletions": errors.deletions,
            "insertions": errors.insertions,
            "num_glosses": errors.num_words,
            "head": head,
            "decoding": "greedy CTC (beam 1)",
            "num_ctc_skipped": result.num_ctc_skipped,
        }
    return scores


def _wer_text(content: dict[str, Any]) -> str:
    gloss = content.get("gloss")
    return f", gloss WER {gloss['wer']:.1f} ({gloss['head']} head)" if gloss else ""


def predictions_csv(results: list[Evaluation], head: str | None) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for result in results:
        for prediction in result.predictions:
            sample = prediction.sample
            writer.writerow(
                [
                    sample.clip_id,
                    sample.split,
                    sample.text,
                    prediction.text,
                    " ".join(sample.gloss or ()),
                    " ".join(prediction.glosses.get(head, [])) if head else "",
                ]
            )
    return buffer.getvalue()
