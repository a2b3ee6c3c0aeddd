"""One run, from config to scores: read, encode, train, score the best model on test, write what was made."""

from __future__ import annotations

import csv
import io
import logging
import os
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from signstreams.backbones.load import Backbone, load_dinov2_backbone
from signstreams.config.integrate import IntegrateConfig
from signstreams.engine import checkpoint, distributed
from signstreams.engine.experiment import Experiment, Fingerprint
from signstreams.engine.seeding import seed_global
from signstreams.errors import UserError
from signstreams.files import sha256_file, write_json, write_text
from signstreams.formats.layout import SPLITS
from signstreams.ids import shown
from signstreams.integrate.batches import Sample
from signstreams.integrate.data import MAX_PROBLEMS, POSE_DIM, ClipSet, backbone_files, load_clips
from signstreams.integrate.evaluate import Evaluation, evaluate
from signstreams.integrate.features import ImageReader, encode_frozen, fitting_px
from signstreams.integrate.model import POSE_STREAM, MultistreamModel
from signstreams.integrate.nodes import stream_nodes_manifest
from signstreams.integrate.text import TextTokenizer
from signstreams.integrate.training import BEST, LAST, METRICS, Trainer

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"
TOKENIZER, GLOSSES, CONFIG = "tokenizer.json", "gloss_vocabulary.json", "config.json"
PREDICTIONS, SCORES, ARTIFACTS = "predictions.csv", "scores.json", "artifacts.json"
FILES = [BEST, LAST, METRICS, TOKENIZER, GLOSSES, CONFIG, PREDICTIONS, SCORES, ARTIFACTS]
SELECTION = "best.pt: highest BLEU-4 on val, of equals the lowest translation loss; gloss head: lowest WER on val"
PREDICTION_COLUMNS = ("clip_id", "split", "reference", "hypothesis", "gloss_reference", "gloss_hypothesis")


def run(config: IntegrateConfig) -> dict[str, Any]:
    """Train and score; the content of ``scores.json``.

    Raises:
        UserError: With everything that is wrong with config, data or folder, one line a problem.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("torchrun: found several processes, expected one: multistream v9 trains in a single process")
    device = distributed.start(device=config.device).device
    clips, backbones, digests = _inputs(config)
    fingerprint = Fingerprint(config.identity(digests), clips.digest)
    with Experiment.claim(
        config.output_dir,
        fingerprint,
        files=FILES,
        on_conflict=config.on_conflict,
        restart=config.resume == "never",
    ) as experiment:
        if config.resume == "must" and not (experiment.state / LAST).exists():
            raise UserError(f"{config.output_dir}: found no checkpoint to resume, expected one; use --resume auto")
        experiment.write_params(_params(config, digests), CONFIG)
        return _run(config, clips, backbones, experiment, device)


def _inputs(config: IntegrateConfig) -> tuple[ClipSet, dict[str, Backbone], dict[str, str]]:
    """Clips, backbones and digests of these, or all their problems at once."""
    problems: list[str] = []
    clips, backbones, digests = None, {}, {}
    try:
        clips = load_clips(config)
    except UserError as error:
        problems += error.problems
    for stream, spec in config.model.backbones.items():
        try:
            backbones[stream] = load_dinov2_backbone(spec)
            fitting_px(backbones[stream], config.data.crop_px, stream)
            files = backbone_files({stream: spec})
            digests[stream] = sha256_file(files[stream]) if files else spec
        except UserError as error:
            problems += error.problems
    if problems or clips is None:
        raise UserError(problems)
    return clips, backbones, digests


def _run(
    config: IntegrateConfig,
    clips: ClipSet,
    backbones: dict[str, Backbone],
    experiment: Experiment,
    device: torch.device,
) -> dict[str, Any]:
    tokenizer = _tokenizer(config, clips, experiment)
    vocabulary = clips.vocabulary
    if config.model.use_mska and (vocabulary is None or not config.mska.ctc_weight):
        reason = "mska.ctc_weight is 0" if vocabulary else f"{config.root} has no glosses for the clips of train"
        log.info("%s: CTC and self-distillation are off", reason)
        vocabulary = None
    if vocabulary is not None:
        vocabulary.save(experiment.state / GLOSSES)
        experiment.publish(GLOSSES)
    frozen = {stream: net for stream, net in backbones.items() if config.model.is_frozen(stream)}
    trained = {stream: net for stream, net in backbones.items() if stream not in frozen}
    reader = ImageReader({s: fitting_px(net, config.data.crop_px, s) for s, net in backbones.items()})
    samples = [sample for split in SPLITS for sample in clips.samples[split]]
    _report(clips)
    samples = encode_frozen(_with_tokens(samples, tokenizer, config), frozen, reader, device)
    by_split = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}

    dims = {stream: net.embed_dim for stream, net in backbones.items()}
    seed_global(config.seed, "weights")
    model = MultistreamModel(
        config,
        feature_dims=dims | ({POSE_STREAM: POSE_DIM} if config.model.use_pose else {}),
        backbones=trained,
        num_glosses=len(vocabulary) if vocabulary else None,
        vocab_size=len(tokenizer),
    ).to(device)
    judge = partial(
        evaluate,
        model,
        config=config,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        device=device,
        read_images=reader,
    )
    trainer = Trainer(
        config,
        model,
        by_split["train"],
        experiment,
        evaluate=lambda: judge(by_split["val"]),
        describe={
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "feature_dims": dims,
            "glosses": list(vocabulary.names) if vocabulary else None,
            "nodes": stream_nodes_manifest(),
        },
        device=device,
        read_images=reader,
    )
    if trainer.resume():
        log.info("going on from step %d of %d", trainer.state.step, trainer.total_steps)
    log.info("%s trainable parameters", f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}")
    trainer.train()
    head = _load_best(model, experiment)
    return _finish(experiment, judge(by_split["val"]), judge(by_split["test"]), head, by_split["train"], model)


def _tokenizer(config: IntegrateConfig, clips: ClipSet, experiment: Experiment) -> TextTokenizer:
    path = experiment.state / TOKENIZER
    if not path.exists():
        texts = [sample.text for sample in clips.samples["train"]]
        TextTokenizer.train(texts, config.decoder.vocab_size).save(path)
    experiment.publish(TOKENIZER)
    return TextTokenizer.load(path)


def _with_tokens(samples: list[Sample], tokenizer: TextTokenizer, config: IntegrateConfig) -> list[Sample]:
    """The clips with their texts as tokens.

    Raises:
        UserError: With every clip whose text is too long.
    """
    samples = [replace(sample, tokens=tokenizer.encode(sample.text)) for sample in samples]
    problems = [
        f"clip {shown(sample.clip_id)}: its text has {len(sample.tokens)} tokens, expected at most"
        f" {config.decoder.max_tokens}; raise decoder.max_tokens"
        for sample in samples
        if len(sample.tokens) > config.decoder.max_tokens
    ]
    if problems:
        raise UserError(problems[:MAX_PROBLEMS])
    return samples


def _report(clips: ClipSet) -> None:
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in clips.samples.items())
    glosses = f"; {len(clips.vocabulary) - 1} glosses" if clips.vocabulary else ""
    log.info("clips: %s%s", counts, glosses)


def _params(config: IntegrateConfig, digests: dict[str, str]) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), "backbone_sha256": digests}


def _load_best(model: nn.Module, experiment: Experiment) -> str | None:
    """Put the best weights into the model; the gloss head that was best on val."""
    content = checkpoint.load(experiment.state / BEST)
    model.load_state_dict(content["model"])
    return content["gloss_head"]


def _finish(
    experiment: Experiment,
    val: Evaluation,
    test: Evaluation,
    head: str | None,
    train: list[Sample],
    model: nn.Module,
) -> dict[str, Any]:
    """Write predictions, scores and the list of artifacts."""
    folder = experiment.folder
    write_text(folder / PREDICTIONS, _predictions_csv([val, test], head))
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


def _predictions_csv(results: list[Evaluation], head: str | None) -> str:
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
