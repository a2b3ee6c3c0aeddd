"""Training of the boundary model on the clip times of a corpus with continuous annotation, and its report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from signstreams.array_types import Flags, Floats
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import few_ids, raise_errors
from signstreams.corpus.meta_csv import VIDEO_KNOWN, scan_meta
from signstreams.corpus.splits import read_index
from signstreams.engine import distributed
from signstreams.engine.run_folder import check_writable
from signstreams.engine.seeding import numpy_rng, seed_global
from signstreams.errors import UserError
from signstreams.files import sha256_file, write_json
from signstreams.formats.layout import BOUNDARY_FILES, SPLITS, CorpusLayout
from signstreams.integrate.clips import ClipEntry, extracted_ids, raise_problems
from signstreams.integrate.dataset import ClipReader
from signstreams.integrate.features import embed_stream, open_features
from signstreams.integrate.trained_model import TrainedModel, load_trained_model
from signstreams.integrate.videos import POINT_KINDS, Points, ProcessedVideo, embed_points, open_points, read_videos
from signstreams.progress import Progress
from signstreams.segment.activity import RestPlaces, hand_activity, sentences_of
from signstreams.segment.boundary import (
    BoundaryFinder,
    BoundaryModel,
    Stretch,
    save_boundary_model,
    stream_widths,
    stretch_of,
)
from signstreams.segment.scores import SegmentScores, Span
from signstreams.segment.settings import BoundaryConfig

log = logging.getLogger(__name__)

EDGE_S = 1.0  # before the first and after the last sentence of a video, and into gaps that may hold unknown signing
LONGEST_GAP_S = 10.0
"""A longer stretch between two sentences may hold signing that nobody annotated: its middle teaches nothing."""
BEGIN_S = 0.2  # of a sentence counts as its begin: as exact as annotators are, and some steps long
STRETCH_S, BATCH = 16.0, 16
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01
BEGIN_WEIGHT = 5.0  # of the few steps in which a sentence begins, against the many in which none does
EVALUATIONS = 10  # on val during the training; the best of these models is kept
MIN_CLIPS = 2  # with times, for a video to count as annotated continuously


@dataclass(frozen=True)
class TimedVideo:
    """A video with the times of its sentences."""

    video: ProcessedVideo
    times_s: Floats  # (T,) of its frames
    sentences: list[Span]  # in order of time

    def known(self, times_s: Floats) -> Flags:
        """(T,) at which moments the annotation says what is signed: near sentences, and in short gaps."""
        known = np.zeros(len(times_s), bool)
        first, last = self.sentences[0], self.sentences[-1]
        reaches = [(first[0] - EDGE_S, first[0]), (last[1], last[1] + EDGE_S), *self.sentences]
        for one, other in pairwise(self.sentences):
            gap_s = other[0] - one[1]
            whole = [(one[1], other[0])]
            reaches += whole if gap_s <= LONGEST_GAP_S else [(one[1], one[1] + EDGE_S), (other[0] - EDGE_S, other[0])]
        for start_s, end_s in reaches:
            known |= (start_s <= times_s) & (times_s < end_s)
        return known

    def labels(self, times_s: Floats) -> Floats:
        """(T, 2) whether each moment is inside a sentence, and whether one begins there."""
        out = np.zeros((len(times_s), 2), np.float32)
        for start_s, end_s in self.sentences:
            out[(start_s <= times_s) & (times_s < end_s), 0] = 1
            out[(start_s <= times_s) & (times_s < min(start_s + BEGIN_S, end_s)), 1] = 1
        return out


def train_boundaries(given: BoundaryConfig) -> dict[str, Any]:
    """Train, write ``boundary.pt`` and ``boundaries.json``; returns the content of the latter.

    Raises:
        UserError: The corpus has no continuous annotation, no held-out videos, or problems of its files.
    """
    world = distributed.start(device=given.device)
    check_writable(given.output_dir)
    trained = load_trained_model(given)
    root = given.root or trained.config.root
    features = given.features_dir or trained.config.features
    config = trained.config.model_copy(update={"root": root, "features_dir": features})
    trained = replace(trained, config=config)
    if trained.about["extraction"].get("spans_only"):
        raise UserError(
            f"{trained.path}: its corpus was extracted with spans_only: what is between the sentences was never seen;"
            " extract whole videos, or find sentences by the hands' rests"
        )
    timed, reader = _read_corpus(trained, world.device)
    seed_global(given.seed, "boundary weights")
    model = BoundaryModel(stream_widths(trained))
    finder = BoundaryFinder(model.to(world.device), config.data.frame_stride)
    _train(given, finder, timed, reader, world.device)
    scores = {split: _score(finder, timed[split], reader, world.device) for split in ("val", "test") if timed[split]}
    report: dict[str, Any] = {
        "scores": {split: found.as_dict() for split, found in scores.items()},
        "by_rests_of_the_hands": {split: _score_untrained(timed[split], reader).as_dict() for split in scores},
        "num_videos": {split: len(videos) for split, videos in timed.items()},
        "num_sentences": {split: sum(len(one.sentences) for one in videos) for split, videos in timed.items()},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": given.steps,
        "seed": given.seed,
        "checkpoint": str(trained.path),
        "checkpoint_sha256": sha256_file(trained.path),
    }
    save_boundary_model(given.output_dir / BOUNDARY_FILES["model"], model, trained, report["scores"])
    write_json(given.output_dir / BOUNDARY_FILES["report"], report)
    return report


# -- The corpus


def _read_corpus(trained: TrainedModel, device: torch.device) -> tuple[dict[str, list[TimedVideo]], ClipReader]:
    """Videos of each split with their sentences, and the reader of their arrays, whose features are made."""
    config = trained.config
    layout = CorpusLayout(config.root)
    ids = extracted_ids(layout)
    table = scan_meta(layout.meta, ids or None, allow_absent_videos=config.data.allow_absent_videos)
    raise_errors(issue for issue in table.issues if issue.rule != VIDEO_KNOWN.id)
    by_video = _sentences(table.clips)
    if not by_video:
        raise UserError(
            f"{layout.meta}: no video has {MIN_CLIPS} clips with times, expected continuous annotation to learn from;"
            " without it, sentences are found by the hands' rests"
        )
    splits = _splits(layout, table.clips, list(by_video), [clip.clip_id for clip in table.absent])
    kinds = [*POINT_KINDS.values(), *trained.backbones.frozen]
    videos, quarantined, problems = read_videos(layout, sorted(splits), kinds)
    if quarantined:
        log.warning("%d videos are left out: they are quarantined (%s)", len(quarantined), few_ids(quarantined))
    found = list(videos.values())
    points = open_points(config.features, uses_nodes=config.model.use_mska)
    problems += embed_points(layout, found, points)
    stores = {name: open_features(config.features, frozen) for name, frozen in trained.backbones.frozen.items()}
    for name, frozen in trained.backbones.frozen.items():
        problems += embed_stream(layout, found, frozen, stores[name], device)
    raise_problems(problems)
    timed: dict[str, list[TimedVideo]] = {split: [] for split in SPLITS}
    for video_id, video in videos.items():
        timed[splits[video_id]].append(TimedVideo(video, points.times_s[video_id], by_video[video_id]))
    _check_splits(layout, timed)
    return timed, ClipReader(layout, points, stores, uses_pose=config.model.use_pose)


def _sentences(clips: Sequence[Clip]) -> dict[str, list[Span]]:
    """Video to the times of its clips, of videos with several."""
    spans: dict[str, list[Span]] = {}
    for clip in clips:
        if clip.start_s is not None and clip.end_s is not None:
            spans.setdefault(clip.video_id, []).append((clip.start_s, clip.end_s))
    return {video_id: sorted(set(own)) for video_id, own in spans.items() if len(set(own)) >= MIN_CLIPS}


def _splits(
    layout: CorpusLayout, clips: Sequence[Clip], video_ids: Sequence[str], absent: Sequence[str]
) -> dict[str, str]:
    """Video to the split of its clips; a video has clips of one alone, and of none if they are in no index."""
    split_of = {clip_id: split for split, ids in read_index(layout, clips, absent).items() for clip_id in ids}
    wanted = set(video_ids)
    return {
        clip.video_id: split_of[clip.clip_id] for clip in clips if clip.video_id in wanted and clip.clip_id in split_of
    }


def _check_splits(layout: CorpusLayout, timed: dict[str, list[TimedVideo]]) -> None:
    folder = layout.index("train").parent
    if not timed["train"]:
        raise UserError(f"{folder}: train has no video with continuous annotation, expected some to learn from")
    if not timed["val"] and not timed["test"]:
        raise UserError(
            f"{folder}: val and test have no video with continuous annotation, expected some to score boundaries on;"
            " split the corpus so that they do"
        )


# -- The training


def _train(
    given: BoundaryConfig,
    finder: BoundaryFinder,
    timed: dict[str, list[TimedVideo]],
    reader: ClipReader,
    device: torch.device,
) -> None:
    """Train the model of ``finder``, and leave it with the weights that were best on val, or on test without val."""
    model = finder.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=given.steps + 1)
    held_out = timed["val"] or timed["test"]
    best_f1, best = -1.0, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    every = max(1, given.steps // EVALUATIONS)
    with Progress(given.steps, "steps", "train boundaries") as progress:
        for step in range(1, given.steps + 1):
            model.train()
            seed_global(given.seed, "boundary step", step)
            rng = numpy_rng(given.seed, "boundary batch", step)
            loss = _loss(model, [_draw(timed["train"], finder, reader, rng) for _ in range(BATCH)], device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(1, loss=float(loss.detach()), val_f1=max(best_f1, 0.0))
            if step % every == 0 or step == given.steps:
                f1 = _score(finder, held_out, reader, device).boundaries[-1].f1
                if f1 > best_f1:
                    best_f1, best = f1, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best)


def _draw(
    videos: Sequence[TimedVideo], finder: BoundaryFinder, reader: ClipReader, rng: np.random.Generator
) -> tuple[Stretch, Floats, Flags]:
    """A random stretch of a random video (the longer, the likelier): inputs, labels (T, 2), and which count (T,)."""
    lengths = np.array([len(one.times_s) for one in videos], float)
    one = videos[int(rng.choice(len(videos), p=lengths / lengths.sum()))]
    stride = finder.frame_stride
    span_s = float(one.times_s[-1] - one.times_s[0]) or 1.0
    num_steps = max(2, round(STRETCH_S * len(one.times_s) / span_s / stride))
    low, high = np.searchsorted(one.times_s, (one.sentences[0][0] - EDGE_S, one.sentences[-1][1] + EDGE_S))
    start = int(rng.integers(low, max(low + 1, high - num_steps * stride + 1)))
    frames = range(start, min(start + num_steps * stride, len(one.times_s)), stride)
    times_s = one.times_s[frames.start : frames.stop : frames.step]
    sample = reader.load(ClipEntry(one.video.video_id, "train", "", None, one.video, frames))
    return stretch_of(sample, finder.model.streams), one.labels(times_s), one.known(times_s)


def _loss(model: BoundaryModel, drawn: Sequence[tuple[Stretch, Floats, Flags]], device: torch.device) -> Tensor:
    """Binary cross-entropy of both outputs, mean over the steps that count."""
    size = max(len(labels) for _, labels, _ in drawn)

    def padded(arrays: Sequence[Any]) -> Tensor:
        out = np.zeros((len(arrays), size, *arrays[0].shape[1:]), arrays[0].dtype)
        for row, array in enumerate(arrays):
            out[row, : len(array)] = array
        return torch.from_numpy(out).to(device)

    stretches = [stretch for stretch, _, _ in drawn]
    logits = model(
        padded([one.points for one in stretches]),
        {name: padded([one.features[name] for one in stretches]) for name in model.streams},
        {name: padded([one.present[name] for one in stretches]) for name in model.streams},
    )
    weight = padded([known for _, _, known in drawn]).float()[..., None]  # (B, T, 1)
    labels = padded([labels for _, labels, _ in drawn])
    scale = torch.tensor([1.0, BEGIN_WEIGHT], device=device)
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=scale, reduction="none")  # (B, T, 2)
    return (losses * weight).sum() / weight.sum().clamp(min=1)


# -- Scores


def _score(
    finder: BoundaryFinder, videos: Sequence[TimedVideo], reader: ClipReader, device: torch.device
) -> SegmentScores:
    scores = SegmentScores()
    for one in videos:
        found = finder.sentences(reader, one.video, one.times_s, device)
        scores = scores.adding(_annotated(found, one), one.sentences)
    return scores


def _score_untrained(videos: Sequence[TimedVideo], reader: ClipReader) -> SegmentScores:
    """The same of the hands' rests, which need no training."""
    scores = SegmentScores()
    points: Points = reader.points
    for one in videos:
        activity = hand_activity(points.pose[one.video.video_id], one.times_s, RestPlaces())
        scores = scores.adding(_annotated(sentences_of(activity, one.times_s), one), one.sentences)
    return scores


def _annotated(found: Sequence[Span], one: TimedVideo) -> list[Span]:
    """Found sentences whose middle is at a moment of which the annotation says something."""
    middles = np.array([(start_s + end_s) / 2 for start_s, end_s in found])
    return [span for span, counts in zip(found, one.known(middles), strict=True) if counts]
