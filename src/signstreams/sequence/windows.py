"""Windows of all extracted videos, with a text or without: what sequence pretraining learns from and is judged on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from signstreams.array_types import Floats
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import few_ids, raise_errors
from signstreams.corpus.meta_csv import VIDEO_KNOWN, scan_meta
from signstreams.corpus.settings import SplitConfig
from signstreams.corpus.splits import assign_groups, read_index
from signstreams.errors import UserError
from signstreams.files import digest
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.integrate.clips import ClipEntry, ClipSet, extracted_ids, raise_problems, read_points
from signstreams.integrate.corpus_rules import TIME_STRIDE
from signstreams.integrate.settings import IntegrateConfig
from signstreams.sequence.settings import SequenceConfig

log = logging.getLogger(__name__)

MIN_STEPS = 4
"""Steps of the shortest window: a rest of a few frames between two clips holds nothing that its surroundings tell."""
HELD_OUT_SHARE = 0.1  # of the videos, for the scores, where the corpus has no val split


def load_windows(config: SequenceConfig, training: IntegrateConfig) -> ClipSet:
    """Windows of the splits train and val, as clips without texts; gathers the points of videos that lack them.

    Every extracted video counts, whether meta.csv names it or not, except those of the test split. ``training`` is
    ``config`` as a training's.

    Raises:
        UserError: All problems, one per line.
    """
    layout = CorpusLayout(config.root)
    ids = extracted_ids(layout)
    if not ids:
        raise UserError(
            f"{layout.processed / 'metadata'}: holds no extracted video, expected some; name the corpus with --root, or"
            " run signstreams extract"
        )
    clips, split_of = _read_splits(layout, ids, config.seed)
    chosen = [video_id for video_id in ids if split_of[video_id] != "test"]
    videos, quarantined, points, problems = read_points(training, layout, chosen)
    raise_problems(problems)
    if quarantined:
        log.warning("%d videos are left out: they are quarantined (%s)", len(quarantined), few_ids(quarantined))
    spans: dict[str, list[Clip]] = {}
    for clip in clips:
        spans.setdefault(clip.video_id, []).append(clip)
    entries: dict[str, list[ClipEntry]] = {"train": [], "val": []}
    for video_id, video in videos.items():
        split = split_of[video_id]
        for frames in cut(points.times_s[video_id], spans.get(video_id, []), config):
            name = f"{video_id}:{frames.start}"
            entries[split].append(ClipEntry(name, split, "", None, video, frames))
    for split, windows in entries.items():
        if not windows:
            raise UserError(
                f"{config.root}: no video of {split} has {MIN_STEPS * TIME_STRIDE * config.data.frame_stride} frames,"
                " expected some to learn from and others to score on; extract more videos"
            )
    parts = [
        [split, e.video.video_id, [e.frames.start, e.frames.stop, e.frames.step]]
        for split in entries
        for e in entries[split]
    ]
    used = [[v.video_id, v.size_px, v.sources] for v in sorted(videos.values(), key=lambda v: v.video_id)]
    return ClipSet(entries, list(videos.values()), points, None, digest([parts, used]))


def cut(times_s: Floats, clips: Sequence[Clip], config: SequenceConfig) -> list[range]:
    """Frames of each window of a video (T,), at the stride.

    Windows end where a clip begins or ends, so that those of clips are as a training will see them; between clips, and
    in a video without any, all is taken too. What is longer than a window is cut into equal ones.
    """
    edges = {0, len(times_s)}
    for clip in clips:
        if clip.start_s is not None and clip.end_s is not None:
            edges |= {int(place) for place in np.searchsorted(times_s, (clip.start_s, clip.end_s))}
    stride = config.data.frame_stride
    places = sorted(edges)
    windows = []
    for start, stop in pairwise(places):
        count = math.ceil(len(range(start, stop, stride)) / config.data.window_frames)
        ends = [start + (stop - start) * part // count for part in range(count + 1)] if count else []
        windows += [range(first, last, stride) for first, last in pairwise(ends)]
    return [frames for frames in windows if len(frames) >= MIN_STEPS * TIME_STRIDE]


def _read_splits(layout: CorpusLayout, ids: Sequence[str], seed: int) -> tuple[list[Clip], dict[str, str]]:
    """The clips of meta.csv, if there is one, and the split of every extracted video.

    As the index says, and train for videos that it does not name. Without a val split some videos are held out.
    """
    clips: list[Clip] = []
    split_of = dict.fromkeys(ids, "train")
    if layout.meta.is_file():
        table = scan_meta(layout.meta, ids, allow_absent_videos=True)
        raise_errors(issue for issue in table.issues if issue.rule != VIDEO_KNOWN.id)
        clips = table.clips
        if all(layout.index(split).is_file() for split in SPLITS):
            of_video = {clip.clip_id: clip.video_id for clip in clips}
            index = read_index(layout, clips, [clip.clip_id for clip in table.absent])
            split_of |= {of_video[clip_id]: split for split, names in index.items() for clip_id in names}
    if "val" not in split_of.values():
        sizes = {video_id: 1 for video_id, split in split_of.items() if split == "train"}
        held_out = SplitConfig(seed=seed, val_fraction=HELD_OUT_SHARE, test_fraction=0)
        split_of |= assign_groups(sizes, held_out)
        if "val" not in split_of.values():
            raise UserError(
                f"{layout.root}: holds one video to learn from, expected two: one is held out to score on; cut it in"
                " two, or extract more"
            )
        log.info("the corpus has no val split: 1 of %d videos is held out to score on", round(1 / HELD_OUT_SHARE))
    return clips, split_of
