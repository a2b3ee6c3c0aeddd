"""Evaluation of a trained model: predictions, scores, and the score it reaches without seeing anything."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from signstreams.engine import distributed
from signstreams.engine.run_folder import check_writable
from signstreams.errors import UserError
from signstreams.files import sha256_file, write_json, write_text
from signstreams.formats.layout import EVALUATION_FILES, CorpusLayout
from signstreams.integrate.clips import ClipEntry, gloss_ids, load_clips, tokenize_clips
from signstreams.integrate.dataset import ClipDataset, open_datasets
from signstreams.integrate.evaluate import Evaluation, evaluate
from signstreams.integrate.features import ImageReader, decoding_threads
from signstreams.integrate.gloss_text import GlossDataset, load_sentences, read_ids
from signstreams.integrate.protocols import published_figures
from signstreams.integrate.results import (
    CHECKPOINT_SHA256,
    beside,
    predictions_csv,
    scores_line,
    split_scores,
)
from signstreams.integrate.selection import selection
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig, few_clips
from signstreams.integrate.text_scores import Difference, Metric, paired_bootstrap
from signstreams.integrate.trained_model import TrainedModel, load_trained_model
from signstreams.integrate.translations_page import Sources, video_files, write_page
from signstreams.progress import Progress

log = logging.getLogger(__name__)

TEXT_METRICS: tuple[Metric, ...] = ("bleu_4", "chrf")  # whose difference from blank video is tested


def score(given: EvaluateSltConfig) -> dict[str, Any]:
    """Score a model; returns the content of ``scores.json``. A `UserError` has all faults of model and corpus."""
    world = distributed.start(device=given.device)
    bundle = load_trained_model(given, reads_video=False)
    check_writable(given.output_dir or beside(bundle.path, EVALUATION_FILES["scores"]).parent)
    checkpoint_digest = sha256_file(bundle.path)  # now: a training that still runs may replace it
    config = _config(bundle, given)
    if bundle.vocabulary is None:
        names = ("gloss_cleanup", "gloss_beams")
        if unused := [f"scoring.{name}" for name in names if getattr(given.scoring, name) is not None]:
            raise UserError(f"{unused[0]} has no effect: {bundle.path} has learned no glosses; leave it out")
    reads_glosses = config.stage == "g2t"
    if reads_glosses and given.scoring.gloss_beams is not None:
        raise UserError(f"scoring.gloss_beams has no effect: {bundle.path} reads glosses; leave it out")
    clips = load_sentences(config, given.splits) if reads_glosses else load_clips(config, given.splits)
    # ids of the model's own vocabulary: with train among the splits, clips come with those of their corpus
    ids_of = read_ids if reads_glosses else gloss_ids
    entries: dict[str, list[ClipEntry]] = {
        split: [replace(e, gloss_ids=ids_of(bundle.vocabulary, e.gloss)) for e in clips.entries[split]]
        for split in given.splits
    }
    # a reference may be longer than all texts in training: its loss is still defined, only memory grows
    entries = tokenize_clips(entries, bundle.tokenizer)
    splits: Mapping[str, ClipDataset]
    if reads_glosses:
        splits = {split: GlossDataset(chosen) for split, chosen in entries.items()}
    else:
        splits = open_datasets(config, clips, bundle.backbones, world, entries)
    bundle.model.to(world.device)
    judge = partial(
        evaluate,
        bundle.model,
        config=config,
        tokenizer=bundle.tokenizer,
        vocabulary=bundle.vocabulary,
        world=world,
        decoding=given.decoding,
        read_images=ImageReader(bundle.backbones.sides_px, num_threads=decoding_threads(world.device)),
    )
    results: dict[str, Evaluation] = {}
    blind: Evaluation | None = None
    last = given.splits[-1]
    # it is the text model that is measured there
    blank_video = given.blank_video and bundle.config.mska.learns_text and not reads_glosses
    num_clips = sum(map(len, splits.values())) + (len(splits[last]) if blank_video else 0)
    with Progress(num_clips, "clips", "evaluate") as progress:
        for split in given.splits:
            results[split] = judge(splits[split], progress=progress, timed_head=bundle.head)
        if blank_video:
            splits[last].reader.is_blank = True  # one reader for all splits
            blind = judge(splits[last], progress=progress)
    if not all(
        math.isfinite(value) for found in (*results.values(), blind) if found for value in found.losses.values()
    ):
        raise UserError(
            f"{bundle.path}: its losses are not finite, the training diverged; train again with a lower optim.lr, or"
            " with --optim-precision fp32"
        )
    scores = {split: split_scores(result, bundle.head) for split, result in results.items()}
    content: dict[str, Any] = {"split": last, **scores[last], **{split: scores[split] for split in given.splits[:-1]}}
    if blind is not None:
        blank = split_scores(blind, bundle.head)
        content["baselines"] = {
            "blank_video": {k: v for k, v in blank.items() if not k.endswith("signature")}
            | {"difference": _differences(results[last], blind, bundle.head)}
        }
    content |= {
        "decoding": given.decoding.model_dump(mode="json"),
        "scoring": config.scoring.model_dump(mode="json", exclude={"num_beams"}),
        "selection": selection(bundle.config),
        "checkpoint": str(bundle.path),
        CHECKPOINT_SHA256: checkpoint_digest,
        "best_step": bundle.about["step"],
        "num_train_clips": bundle.about["num_train_clips"],
        "num_trained_parameters": sum(p.numel() for p in bundle.model.parameters() if p.requires_grad),
    }
    published = published_figures(config.root, given.scoring.corpus, config.scoring, last)
    if published is not None and not reads_glosses:  # both pages show it, beside ours
        content["published"] = published
        log.info("figures of papers on %s (known by %s) stand beside ours", published["corpus"], published["known_by"])
    if bundle.config.mska.learns_text and (note := few_clips(bundle.about["num_train_clips"])) is not None:
        content["few_clips"] = note  # both pages show it
    paths = {
        kind: given.output_dir / name if given.output_dir else beside(bundle.path, name)
        for kind, name in EVALUATION_FILES.items()
    }
    write_text(paths["predictions"], predictions_csv(results, bundle.head))
    layout = CorpusLayout(config.root)
    times_s = {video.video_id: clips.points.times_s[video.video_id] for video in clips.videos}
    sources = Sources(layout, video_files(given.videos_dir or [layout.videos]), times_s)
    predictions = [prediction for result in results.values() for prediction in result.predictions]
    write_page(paths["page"], predictions, content, sources, bundle.head, config.scoring)
    write_json(paths["scores"], content)
    for split in given.splits:
        log.info("%s", scores_line(split, scores[split]))
    if blank_video:
        log.info("%s", scores_line(f"{last} with blank video", content["baselines"]["blank_video"]))
    log.info("scores: %s", paths["scores"])
    return content


def _differences(result: Evaluation, blind: Evaluation, head: str | None) -> dict[str, Any]:
    """What seeing is worth: scores of a split less those with blank video, each with its 95 % interval."""
    references = [p.entry.text for p in result.predictions]
    without, seeing = ([p.text for p in side.predictions] for side in (blind, result))
    found: dict[Metric, Difference] = {}
    for name in TEXT_METRICS:
        found[name] = paired_bootstrap(name, without, seeing, references, result.scoring)
    if head is not None and head in result.word_errors:
        known = [place for place, p in enumerate(result.predictions) if p.entry.gloss is not None]
        signed = [result.predictions[place].entry.gloss for place in known]
        guessed, seen = ([side.predictions[place].glosses[head] for place in known] for side in (blind, result))
        found["wer"] = paired_bootstrap("wer", guessed, seen, signed, result.scoring)
    return {name: {"value": d.value, "low": d.low, "high": d.high} for name, d in found.items()}


def _config(bundle: TrainedModel, given: EvaluateSltConfig) -> IntegrateConfig:
    """The config of the training, with the corpus and folders of the evaluation."""
    batch_size = given.batch_size or bundle.config.data.batch_size
    data = {"subset_size": None, "unknown_gloss": "count", "batch_size": batch_size}
    if bundle.config.data.long_clips == "sample":  # drawn in training alone
        data["long_clips"] = "centre"
    return bundle.config.model_copy(
        update={
            "data": bundle.config.data.model_copy(update=data),
            "scoring": given.scoring.over(bundle.config.scoring),
            "root": given.root or bundle.config.root,
            "features_dir": given.features_dir or bundle.config.features,
        }
    )
