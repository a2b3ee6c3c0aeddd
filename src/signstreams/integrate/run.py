"""One run, from config to scores: read, encode, train, score the best model on test, write what was made."""

from __future__ import annotations

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
from signstreams.files import sha256_file
from signstreams.formats.layout import SPLITS
from signstreams.ids import shown
from signstreams.integrate.batches import Sample
from signstreams.integrate.data import MAX_PROBLEMS, POSE_DIM, ClipSet, backbone_files, load_clips
from signstreams.integrate.evaluate import evaluate
from signstreams.integrate.features import ImageReader, encode_frozen, fitting_px
from signstreams.integrate.model import POSE_STREAM, MultistreamModel
from signstreams.integrate.nodes import stream_nodes_manifest
from signstreams.integrate.results import CONFIG, FILES, GLOSSES, TOKENIZER, finish
from signstreams.integrate.text import TextTokenizer
from signstreams.integrate.training import BEST, LAST, Trainer

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"


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
    return finish(experiment, judge(by_split["val"]), judge(by_split["test"]), head, by_split["train"], model)


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
