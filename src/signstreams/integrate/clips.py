"""The clips of a corpus as a model sees them: their texts, glosses and frame indices. No frame is read here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from signstreams.array_types import Floats
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import few_ids, raise_errors
from signstreams.corpus.gloss import Gloss, GlossVocabulary, ctc_steps_needed, read_gloss
from signstreams.corpus.meta_csv import VIDEO_KNOWN, MetaTable, scan_meta
from signstreams.corpus.splits import read_index
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.files import digest
from signstreams.formats.arrays import frames_of_span
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.ids import shown
from signstreams.integrate.corpus_rules import (
    TIME_STRIDE,
    all_quarantined,
    clips_with_text,
    frames_at_stride,
    no_clip,
    num_steps,
    too_long,
    too_many_tokens,
    train_vocabulary,
    unknown_glosses,
)
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.videos import (
    Points,
    ProcessedVideo,
    check_lengths,
    embed_points,
    log_quarantined_clips,
    open_points,
    read_videos,
)

log = logging.getLogger(__name__)

MAX_PROBLEMS = 20  # problems that an error lists; it counts the others


@dataclass(frozen=True)
class ClipEntry:
    """What is known of one clip without reading its frames."""

    clip_id: str  # id of the clip
    split: str  # train, val or test
    text: str  # text as in meta.csv, unchanged
    gloss: tuple[str, ...] | None  # glosses; None without annotation
    video: ProcessedVideo  # video that holds the clip
    frames: range  # frame indices in the video, at the clip's stride
    tokens: tuple[int, ...] = ()  # text tokens with the end token
    gloss_ids: tuple[int, ...] | None = None  # target of CTC; None without annotation, or where a gloss is unknown
    signer: str | None = None  # who signs, when known

    @property
    def num_frames(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class ClipSet:
    """The clips of all splits."""

    entries: dict[str, list[ClipEntry]]  # split to its clips, in the order of the index
    videos: list[ProcessedVideo]  # videos that hold them
    points: Points  # times, pose and nodes of these videos
    vocabulary: GlossVocabulary | None  # glosses of the train split; None without annotations
    digest: str  # digest of everything that the clips are made from


def load_clips(config: IntegrateConfig, splits: Sequence[str] = SPLITS) -> ClipSet:
    """Read clips and glosses; gather the points of videos that lack them. Without train there is no vocabulary.

    Clips of quarantined videos and clips without a text are left out, and the log says how many.

    Raises:
        UserError: All problems, one per line.
    """
    layout = CorpusLayout(config.root)
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected a corpus; name its root with --root")
    table = _read_clips(layout, config.data.allow_absent_videos)
    clips = {clip.clip_id: clip for clip in table.clips}
    absent = [clip.clip_id for clip in table.absent]
    index = _with_text(read_index(layout, table.clips, absent), clips)
    glosses = read_gloss(layout.gloss, [*clips, *absent]) if layout.gloss.is_file() else {}
    problems = [no_clip(split).line(f"index/{split}.csv") for split in splits if not index[split]]
    vocabulary = train_vocabulary(glosses, index["train"], config) if "train" in splits else None
    if vocabulary is not None:
        for split in ("val", "test"):
            if unknown := unknown_glosses(index[split], split, glosses, vocabulary):
                if config.data.unknown_gloss == "refuse":
                    problems.append(unknown.line("annotations/gloss.csv"))
                else:
                    log.warning("%s: they count as errors, and CTC leaves their clips out", unknown.found)
    train = drawn_subset(config, index["train"])
    chosen = [(split, clips[clip_id]) for split in splits for clip_id in (train if split == "train" else index[split])]

    videos, quarantined, points, video_problems = read_points(config, layout, {clip.video_id for _, clip in chosen})
    problems += video_problems
    log_quarantined_clips(sum(clip.video_id in quarantined for _, clip in chosen), quarantined)
    entries, entry_problems = _make_entries(config, chosen, videos, points, glosses, vocabulary)
    problems += entry_problems
    if not problems:
        problems += [all_quarantined(split).line(str(config.root)) for split in splits if not entries[split]]
    raise_problems(problems)
    parts = [
        [e.split, e.clip_id, e.text, e.gloss, [e.frames.start, e.frames.stop, e.frames.step], e.video.video_id]
        for split in splits
        for e in entries[split]
    ]
    used = [[v.video_id, v.size_px, v.sources] for v in sorted(videos.values(), key=lambda v: v.video_id)]
    return ClipSet(entries, list(videos.values()), points, vocabulary, digest([parts, used]))


def drawn_subset(config: IntegrateConfig, train: Sequence[str]) -> list[str]:
    """The clips of train, or ``data.subset_size`` of them, drawn by the seed."""
    most = config.data.subset_size
    if most is None or most >= len(train):
        return list(train)
    rows = numpy_rng(config.seed, "subset").choice(len(train), most, replace=False)
    return [train[row] for row in sorted(rows)]


def tokenize_clips(
    entries: dict[str, list[ClipEntry]], tokenizer: Tokenizer, max_tokens: int | None = None
) -> dict[str, list[ClipEntry]]:
    """The entries of each split with their texts as tokens; a `UserError` if some have more than ``max_tokens``.

    None: of any length, where no text is learned or a reference has any length.
    """
    out = {
        split: [replace(entry, tokens=tuple(tokenizer.encode(entry.text))) for entry in chosen]
        for split, chosen in entries.items()
    }
    problems = [
        refusal.line(f"clip {shown(entry.clip_id)}")
        for chosen in out.values()
        for entry in chosen
        if max_tokens is not None and (refusal := too_many_tokens(len(entry.tokens), max_tokens))
    ]
    raise_problems(problems)
    return out


def clip_frames(
    config: IntegrateConfig,
    times_s: Floats,
    start_s: float | None,
    end_s: float | None,
    *,
    is_sampled: bool = False,
) -> range:
    """Frames of a video from ``start_s`` to before ``end_s`` (None: start, end of the video), at the config's stride.

    A clip that is too long gets a larger stride, or is cut to its middle, where the config allows it; one that
    ``is_sampled``, from which training draws frames later, keeps all.

    Raises:
        ValueError: There are no frames, or too many.
    """
    span = frames_of_span(times_s, start_s, end_s)
    frames = frames_at_stride(span.start, span.stop, config.data, is_sampled=is_sampled)
    if not len(frames):
        raise ValueError(f"covers none of the video's {len(times_s)} frames; check its start and end")
    if refusal := too_long(frames, config.data):
        raise ValueError(f"{refusal.found}, expected {refusal.expected}; {refusal.fix}")
    return frames


def gloss_ids(vocabulary: GlossVocabulary | None, labels: tuple[str, ...] | None) -> tuple[int, ...] | None:
    """Target of CTC; None without vocabulary or annotation, or where a gloss is unknown."""
    if vocabulary is None or labels is None or vocabulary.unknown(labels):
        return None
    return tuple(vocabulary.encode(labels))


def raise_problems(problems: list[str]) -> None:
    """Raise the first `MAX_PROBLEMS`, if there are any, and the number of the others."""
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise UserError([*problems[:MAX_PROBLEMS], *([f"and {more:,} more problems"] if more > 0 else [])])


def extracted_ids(layout: CorpusLayout) -> list[str]:
    """Ids of all extracted videos, sorted; a folder that may not be listed is an `OSError`, and not an empty one."""
    try:
        names = os.listdir(layout.metadata("x").parent)
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _read_clips(layout: CorpusLayout, allow_absent_videos: bool) -> MetaTable:
    processed = extracted_ids(layout)
    table = scan_meta(layout.meta, processed or None, allow_absent_videos=allow_absent_videos)
    # clips that are in no split may lack their video; `_make_entries` reports those that are in one
    raise_errors(issue for issue in table.issues if issue.rule != VIDEO_KNOWN.id)
    if table.absent:
        log.warning("%d clips are left out: their videos were not extracted", len(table.absent))
    return table


def _with_text(index: dict[str, list[str]], clips: dict[str, Clip]) -> dict[str, list[str]]:
    """The clips of each split that have a text."""
    kept = clips_with_text(index, clips)
    kept_ids = {clip_id for ids in kept.values() for clip_id in ids}
    without = [clip_id for ids in index.values() for clip_id in ids if clip_id not in kept_ids]
    if without:
        log.warning("%d clips are left out: they have no text (%s)", len(without), few_ids(without))
    return kept


def read_points(
    config: IntegrateConfig, layout: CorpusLayout, video_ids: Iterable[str]
) -> tuple[dict[str, ProcessedVideo], list[str], Points, list[str]]:
    """Videos, ids of quarantined ones, points, and problems."""
    kinds = ["tracks", "pose", *(["keypoints"] if config.model.use_mska else []), *config.model.backbones]
    videos, quarantined, problems = read_videos(layout, sorted(video_ids), kinds)
    points = open_points(config.features, uses_nodes=config.model.use_mska)
    problems += embed_points(layout, videos.values(), points)
    problems += check_lengths(layout, videos.values(), points.stores)
    return videos, quarantined, points, problems


def _make_entries(
    config: IntegrateConfig,
    chosen: list[tuple[str, Clip]],
    videos: dict[str, ProcessedVideo],
    points: Points,
    glosses: dict[str, Gloss],
    vocabulary: GlossVocabulary | None,
) -> tuple[dict[str, list[ClipEntry]], list[str]]:
    """Entries of each split, and problems of clips whose videos have none."""
    entries: dict[str, list[ClipEntry]] = {split: [] for split in SPLITS}
    problems = []
    num_thinned = num_cut = 0
    samples = config.data.long_clips == "sample"
    for split, clip in chosen:
        video = videos.get(clip.video_id)
        if video is None or clip.video_id not in points.times_s.records:
            continue  # quarantined, or reported already
        try:
            times_s = points.times_s[clip.video_id]
            is_sampled = samples and split == "train"
            frames = clip_frames(config, times_s, clip.start_s, clip.end_s, is_sampled=is_sampled)
        except ValueError as error:
            problems.append(f"clip {shown(clip.clip_id)}: {error}")
            continue
        num_thinned += frames.step != config.data.frame_stride
        if len(frames) == config.data.max_frames and not is_sampled:  # perhaps of more
            num_cut += len(clip_frames(config, times_s, clip.start_s, clip.end_s, is_sampled=True)) > len(frames)
        gloss = glosses.get(clip.clip_id)
        labels = (gloss.labels or None) if gloss is not None else None  # a blank cell: not glossed yet, not "no signs"
        ids = gloss_ids(vocabulary, labels)
        entry = ClipEntry(clip.clip_id, split, clip.text, labels, video, frames, gloss_ids=ids, signer=clip.signer)
        entries[split].append(entry)
    short = [
        entry.clip_id
        for chosen_entries in entries.values()
        for entry in chosen_entries
        if entry.gloss_ids and num_steps(entry.num_frames) < ctc_steps_needed(entry.gloss_ids)
    ]
    if short:
        text = "%d clips have fewer steps of %d frames than CTC needs for their glosses, and are left out of it: %s"
        log.warning(text, len(short), TIME_STRIDE * config.data.frame_stride, few_ids(short))
    if num_thinned:
        text = "%d clips are longer than data.max_frames (%d): they are read with a larger stride"
        log.info(text, num_thinned, config.data.max_frames)
    if num_cut:
        text = "%d clips are longer than data.max_frames (%d): only the frames in their middle are read"
        log.warning(text, num_cut, config.data.max_frames)
    return entries, problems
