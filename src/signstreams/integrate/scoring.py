"""Evaluation of a trained model: predictions, scores, and the score it reaches without seeing anything."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sacrebleu.metrics import CHRF

from signstreams.array_types import Floats
from signstreams.engine import distributed
from signstreams.engine.run_folder import check_writable
from signstreams.errors import UserError
from signstreams.files import sha256_file, write_json, write_text
from signstreams.formats.crops import CropReader, clip_strip, evenly_spread
from signstreams.formats.layout import EVALUATION_FILES, CorpusLayout
from signstreams.formats.video_sources import list_sources, search
from signstreams.integrate.clips import ClipEntry, gloss_ids, load_clips, tokenize_clips
from signstreams.integrate.dataset import ClipDataset, open_datasets
from signstreams.integrate.evaluate import Evaluation, Prediction, evaluate, word_errors
from signstreams.integrate.features import ImageReader, decoding_threads
from signstreams.integrate.gloss_text import GlossDataset, load_sentences, read_ids
from signstreams.integrate.protocols import published_figures
from signstreams.integrate.results import (
    CHECKPOINT_SHA256,
    beside,
    predictions_csv,
    scores_line,
    selection,
    split_scores,
)
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig, few_clips
from signstreams.integrate.trained_model import TrainedModel, load_trained_model
from signstreams.pages.render import ShownClip, relative_address, render
from signstreams.progress import Progress

# -- ``translations.html``: what the model says beside what was said, with frames of each clip; the worst first

MAX_CLIPS = 60


def write_page(
    path: Path,
    predictions: list[Prediction],
    content: Mapping[str, Any],
    layout: CorpusLayout,
    head: str | None,
    *,
    videos: Mapping[str, Path] | None = None,
    times_s: Mapping[str, Floats] | None = None,
) -> None:
    """Write the page: at most `MAX_CLIPS` clips by chrF, or gloss WER, spread evenly from the worst to the best.

    ``content`` is that of scores.json; frames come from the crops of the corpus, glosses from ``head``. A clip plays
    from the file of its video in ``videos``, with the ``times_s`` (T,) of the video's frames.
    """
    has_text = "bleu_4" in content
    rated = _rated(predictions, head, has_text=has_text)
    chosen = rated
    if len(rated) > MAX_CLIPS:
        chosen = [rated[i] for i in evenly_spread(MAX_CLIPS, len(rated), with_ends=True)]
    with closing(CropReader()) as reader:
        clips = [
            replace(
                _shown(rating, prediction, head, layout, reader, has_text=has_text),
                video=_address(prediction.entry, path, videos, times_s),
            )
            for rating, prediction in chosen
        ]
    write_text(path, render("translations.html", scores=content, num_clips=len(rated), clips=clips))


def _rated(predictions: list[Prediction], head: str | None, *, has_text: bool) -> list[tuple[str, Prediction]]:
    """Each clip with its score, the worst first: chrF, or the gloss WER of ``head`` of a model that learned no text."""
    if has_text:
        chrf = CHRF()
        scored = [(chrf.sentence_score(p.text, [p.entry.text]).score, p) for p in predictions]
        return [(f"chrF {score:.0f}", p) for score, p in sorted(scored, key=lambda pair: pair[0])]
    assert head is not None
    rates = [(word_errors(p.glosses[head], p.entry.gloss).rate, p) for p in predictions if p.entry.gloss is not None]
    return [(f"gloss WER {rate:.0f}", p) for rate, p in sorted(rates, key=lambda pair: -pair[0])]


def _shown(
    rating: str, prediction: Prediction, head: str | None, layout: CorpusLayout, reader: CropReader, *, has_text: bool
) -> ShownClip:
    entry = prediction.entry
    return ShownClip(
        title=f"{entry.clip_id}, {rating}",
        frames=clip_strip(layout, entry.video.video_id, entry.frames, reader) if entry.frames else None,
        reference=entry.text,
        hypothesis=prediction.text if has_text else None,
        gloss_reference=None if entry.gloss is None else " ".join(entry.gloss),
        gloss_hypothesis=" ".join(prediction.glosses[head]) if head in prediction.glosses else None,
    )


def _address(
    entry: ClipEntry, page: Path, videos: Mapping[str, Path] | None, times_s: Mapping[str, Floats] | None
) -> str | None:
    """Where the page finds the clip in its video; None where there is no file, as of a folder of frames."""
    video_id = entry.video.video_id
    if not videos or times_s is None or video_id not in videos or not entry.frames:
        return None
    moments = times_s[video_id]
    end = min(entry.frames[-1] + entry.frames.step, len(moments) - 1)
    return f"{relative_address(videos[video_id], page)}#t={moments[entry.frames[0]]:.3f},{moments[end]:.3f}"


def video_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Video id to its file, of those that a browser may play, in folders that are searched in order.

    A folder that is not there holds none.
    """
    listed = []
    for folder in folders:
        with suppress(OSError):
            listed.append(list_sources(folder))
    found, _ = search(listed)
    return {video_id: sources[0].path for video_id, sources in found.items() if not sources[0].is_folder}


# -- The evaluation

log = logging.getLogger(__name__)


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
    longest = max((len(bundle.tokenizer.encode(e.text)) for chosen in entries.values() for e in chosen), default=1)
    entries = tokenize_clips(entries, bundle.tokenizer, longest)
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
            results[split] = judge(splits[split], progress=progress)
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
        content["baselines"] = {"blank_video": {k: v for k, v in blank.items() if not k.endswith("signature")}}
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
    videos = video_files(given.videos_dir or [layout.videos])
    times_s = {video.video_id: clips.points.times_s[video.video_id] for video in clips.videos} if videos else {}
    write_page(paths["page"], results[last].predictions, content, layout, bundle.head, videos=videos, times_s=times_s)
    write_json(paths["scores"], content)
    for split in given.splits:
        log.info("%s", scores_line(split, scores[split]))
    if blank_video:
        log.info("%s", scores_line(f"{last} with blank video", content["baselines"]["blank_video"]))
    log.info("scores: %s", paths["scores"])
    return content


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
