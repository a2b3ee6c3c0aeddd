"""The corpus as the model sees it: every clip of the splits, by name and place; no frame is in memory yet."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signstreams.array_types import Floats
from signstreams.corpus import Clip, Gloss, GlossVocabulary, read_gloss, read_index
from signstreams.corpus.findings import few, raise_errors
from signstreams.corpus.meta import VIDEO_KNOWN, MetaTable, scan_meta
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.files import digest
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.ids import shown
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.videos import (
    Points,
    ProcessedVideo,
    check_lengths,
    embed_points,
    open_points,
    read_videos,
    say_left_out,
)

log = logging.getLogger(__name__)

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class ClipEntry:
    """One clip: what is known of it without reading its frames.

    Attributes:
        clip_id: Its id.
        split: train, val or test.
        text: As in meta.csv, untouched.
        gloss: Its glosses; None without annotation.
        video: It lies in.
        frames: Of the video, at the clip's stride.
        tokens: Text tokens with the end token.
        gloss_ids: What CTC learns; None without annotation, or where a gloss is unknown.
    """

    clip_id: str
    split: str
    text: str
    gloss: tuple[str, ...] | None
    video: ProcessedVideo
    frames: range
    tokens: tuple[int, ...] = ()
    gloss_ids: tuple[int, ...] | None = None

    @property
    def num_frames(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class ClipSet:
    """What a run learns from and is measured on.

    Attributes:
        entries: Split to its clips, in the order of the index.
        videos: All videos they lie in.
        points: Arrays of these that need no backbone.
        vocabulary: Glosses of the train split; None without annotations.
        digest: Of everything the clips are made from.
    """

    entries: dict[str, list[ClipEntry]]
    videos: list[ProcessedVideo]
    points: Points
    vocabulary: GlossVocabulary | None
    digest: str


def load_clips(config: IntegrateConfig, splits: Sequence[str] = SPLITS) -> ClipSet:
    """Read clips and glosses; gather the points of videos that lack them.

    Clips of quarantined videos and clips without a text are left out, and the log says how many.

    Args:
        config: Of the run.
        splits: Only clips of these; without train there is no vocabulary.

    Raises:
        UserError: With everything that is wrong, one line a problem.
    """
    layout = CorpusLayout(config.root)
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected a corpus; name its root with --root")
    table = _read_clips(layout, config.data.allow_absent_videos)
    clips = {clip.clip_id: clip for clip in table.clips}
    absent = [clip.clip_id for clip in table.absent]
    index = _with_text(read_index(layout, table.clips, absent), clips)
    glosses = _read_glosses(layout, [*clips, *absent])
    problems = [
        f"index/{split}.csv: no clip with a text, expected one at least; divide the corpus anew (split_corpus.py)"
        for split in splits
        if not index[split]
    ]
    uses_glosses = glosses is not None and config.model.use_mska
    vocabulary = (
        GlossVocabulary.build(glosses, index["train"]) if glosses and uses_glosses and "train" in splits else None
    )
    if vocabulary is not None and len(vocabulary) == 1:  # no clip of train has glosses: nothing but the blank
        vocabulary = None
    if vocabulary is not None and config.data.unknown_gloss == "refuse":
        problems += _unknown_glosses(index, glosses or {}, vocabulary)
    train = index["train"]
    if config.data.subset_size is not None and config.data.subset_size < len(train):
        rows = numpy_rng(config.seed, "subset").choice(len(train), config.data.subset_size, replace=False)
        train = [train[row] for row in sorted(rows)]
    chosen = [(split, clips[clip_id]) for split in splits for clip_id in (train if split == "train" else index[split])]

    videos, quarantined, points, video_problems = _read_points(config, layout, {clip.video_id for _, clip in chosen})
    problems += video_problems
    say_left_out(sum(clip.video_id in quarantined for _, clip in chosen), quarantined)
    entries, entry_problems = _make_entries(config, chosen, videos, points, glosses or {}, vocabulary)
    problems += entry_problems
    if not problems:
        problems += [
            f"{config.root}: every clip of {split} lies in a quarantined video, expected one that could be read;"
            " see the contract's report"
            for split in splits
            if not entries[split]
        ]
    if problems:
        raise_few(problems)
    parts = [
        [e.split, e.clip_id, e.text, e.gloss, [e.frames.start, e.frames.stop, e.frames.step], e.video.video_id]
        for split in splits
        for e in entries[split]
    ]
    used = [[v.video_id, v.size_px, v.sources] for v in sorted(videos.values(), key=lambda v: v.video_id)]
    return ClipSet(entries, list(videos.values()), points, vocabulary, digest([parts, used]))


def raise_few(problems: list[str]) -> None:
    """Raise the first `MAX_PROBLEMS`, and say how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    raise UserError([*problems[:MAX_PROBLEMS], *([f"and {more:,} more problems"] if more > 0 else [])])


def _read_clips(layout: CorpusLayout, allow_absent_videos: bool) -> MetaTable:
    processed = {path.stem for path in (layout.processed / "metadata").glob("*.json")}
    table = scan_meta(layout.meta, processed or None, allow_absent_videos=allow_absent_videos)
    # clips that are in no split may lack their video; of the others `_make_entries` says what is absent
    raise_errors(issue for issue in table.issues if issue.rule != VIDEO_KNOWN.id)
    if table.absent:
        log.warning("%d clips lie in videos that are not there and are left out", len(table.absent))
    return table


def _with_text(index: dict[str, list[str]], clips: dict[str, Clip]) -> dict[str, list[str]]:
    """The clips of each split that have something to translate into."""
    mute = [clip_id for ids in index.values() for clip_id in ids if not clips[clip_id].text.strip()]
    if mute:
        log.warning("%d clips have no text and are left out (%s)", len(mute), few([shown(clip_id) for clip_id in mute]))
    silent = set(mute)
    return {split: [clip_id for clip_id in ids if clip_id not in silent] for split, ids in index.items()}


def _read_glosses(layout: CorpusLayout, clips: Iterable[str]) -> dict[str, Gloss] | None:
    return read_gloss(layout.gloss, clips) if layout.gloss.is_file() else None


def _unknown_glosses(index: dict[str, list[str]], glosses: dict[str, Gloss], vocabulary: GlossVocabulary) -> list[str]:
    problems = []
    for split in ("val", "test"):
        found: dict[str, list[str]] = {}
        for clip_id in index[split]:
            if clip_id in glosses:
                for name in vocabulary.unknown(glosses[clip_id].labels):
                    found.setdefault(name, []).append(clip_id)
        if found:
            examples = few([f"{shown(name)} (clip {shown(ids[0])})" for name, ids in found.items()])
            problems.append(
                f"annotations/gloss.csv: {len(found):,} glosses of {split} are in no clip of train: {examples},"
                " expected only known ones; correct them, or set data.unknown_gloss to count"
            )
    return problems


def _read_points(
    config: IntegrateConfig, layout: CorpusLayout, video_ids: Iterable[str]
) -> tuple[dict[str, ProcessedVideo], list[str], Points, list[str]]:
    """Videos, ids of quarantined ones, points, problems."""
    kinds = ["tracks", "pose", *(["keypoints"] if config.model.use_mska else []), *config.model.backbones]
    videos, quarantined, problems = read_videos(layout, sorted(video_ids), kinds)
    points = open_points(config.features, uses_nodes=config.model.use_mska)
    problems += embed_points(layout, videos.values(), points)
    stores = {"times": points.times_s, "pose": points.pose} | ({"nodes": points.nodes} if points.nodes else {})
    problems += check_lengths(layout, videos.values(), stores)
    return videos, quarantined, points, problems


def _make_entries(
    config: IntegrateConfig,
    chosen: list[tuple[str, Clip]],
    videos: dict[str, ProcessedVideo],
    points: Points,
    glosses: dict[str, Gloss],
    vocabulary: GlossVocabulary | None,
) -> tuple[dict[str, list[ClipEntry]], list[str]]:
    """Entries of each split, and problems of clips whose videos are in order."""
    entries: dict[str, list[ClipEntry]] = {split: [] for split in SPLITS}
    problems = []
    num_thinned = 0
    for split, clip in chosen:
        video = videos.get(clip.video_id)
        if video is None or clip.video_id not in points.times_s.records:
            continue  # quarantined, or its problem is told already
        try:
            frames = _frames(config, clip, points.times_s[clip.video_id])
        except ValueError as error:
            problems.append(f"clip {shown(clip.clip_id)}: {error}")
            continue
        num_thinned += frames.step != config.data.frame_stride
        gloss = glosses.get(clip.clip_id)
        labels = None if gloss is None else gloss.labels
        is_known = vocabulary is not None and labels is not None and not vocabulary.unknown(labels)
        ids = tuple(vocabulary.encode(labels)) if is_known and vocabulary is not None and labels is not None else None
        entries[split].append(ClipEntry(clip.clip_id, split, clip.text, labels, video, frames, gloss_ids=ids))
    if num_thinned:
        log.info(
            "%d clips are longer than data.max_frames (%d): taken with a greater stride",
            num_thinned,
            config.data.max_frames,
        )
    return entries, problems


def _frames(config: IntegrateConfig, clip: Clip, times_s: Floats) -> range:
    """Frames of a clip at its stride.

    Raises:
        ValueError: When it has no frame, or too many.
    """
    if clip.start_s is None or clip.end_s is None:
        return clip_frames(config, times_s)
    return clip_frames(config, times_s, clip.start_s, clip.end_s)


def clip_frames(config: IntegrateConfig, times_s: Floats, start_s: float = -math.inf, end_s: float = math.inf) -> range:
    """Frames of a video from ``start_s`` to before ``end_s``, at the stride of the config, or a greater one.

    Raises:
        ValueError: When there is none, or too many.
    """
    start, stop = (int(place) for place in np.searchsorted(times_s, (start_s, end_s)))
    stride, most = config.data.frame_stride, config.data.max_frames
    frames = range(start, stop, stride)
    if not len(frames):
        raise ValueError(f"covers none of the video's {len(times_s)} frames; check its start and end")
    if len(frames) > most:
        if config.data.long_clips == "refuse":
            raise ValueError(
                f"has {len(frames)} frames, expected at most {most}; raise data.max_frames or data.frame_stride, set"
                " data.long_clips to stride, or cut the clip"
            )
        frames = range(start, stop, -(-(stop - start) // most))
    return frames


def backbone_files(specs: dict[str, str]) -> dict[str, Path]:
    """Stream to the checkpoint file of its spec, of those that name one."""
    from signstreams.backbones.archs import parse_spec

    parsed = {stream: parse_spec(spec) for stream, spec in specs.items()}
    return {stream: Path(spec.location) for stream, spec in parsed.items() if spec.kind == "file"}
