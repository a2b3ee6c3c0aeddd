"""The corpus as the model sees it: every clip of the three splits, its streams aligned by frame index."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signstreams.config.integrate import IntegrateConfig
from signstreams.corpus import Clip, Gloss, GlossVocabulary, read_gloss, read_index
from signstreams.corpus.findings import few, raise_errors
from signstreams.corpus.meta import VIDEO_KNOWN, MetaTable, scan_meta
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.files import digest, sha256_file
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import Crop, crops_digest, list_crops
from signstreams.formats.landmarks import pose_index
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.formats.metadata import read_metadata
from signstreams.ids import shown
from signstreams.integrate.batches import Sample
from signstreams.integrate.nodes import NUM_NODES, to_nodes
from signstreams.streams import BoxState

log = logging.getLogger(__name__)

POSE_POINTS = (
    "nose",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
)
"""The seven body points of SignMusketeers."""
POSE_DIM = 3 * len(POSE_POINTS)
_POSE_COLUMNS = np.array([3 * pose_index(name) + channel for name in POSE_POINTS for channel in range(3)])

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Video:
    """Arrays of one processed video.

    Attributes:
        times_s: (T,) of its frames.
        size_px: Width and height of the frame.
        keypoints: (T, 543, 3); empty without MSKA.
        pose: (T, 99).
        states: Stream to (T,) of BoxState.
        crops: Stream to frame index to crop.
    """

    times_s: np.ndarray
    size_px: tuple[int, int]
    keypoints: np.ndarray
    pose: np.ndarray
    states: dict[str, np.ndarray]
    crops: dict[str, dict[int, Crop]]


@dataclass(frozen=True)
class ClipSet:
    """What a run learns from and is measured on.

    Attributes:
        samples: Split to its clips, in the order of the index.
        vocabulary: Glosses of the train split; None without annotations.
        digest: Of everything the samples were made from.
    """

    samples: dict[str, list[Sample]]
    vocabulary: GlossVocabulary | None
    digest: str


def load_clips(config: IntegrateConfig) -> ClipSet:
    """Read clips, glosses and processed files of the three splits.

    Clips of quarantined videos are left out, and the log says how many.

    Raises:
        UserError: With everything that is wrong, one line a problem.
    """
    layout = CorpusLayout(config.root)
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected a corpus; name its root with --root")
    table = _read_clips(layout, config.data.allow_absent_videos)
    clips = {clip.clip_id: clip for clip in table.clips}
    absent = [clip.clip_id for clip in table.absent]
    index = read_index(layout, table.clips, absent)
    glosses = _read_glosses(layout, [*clips, *absent])
    problems = [
        f"index/{split}.csv: no clip, expected at least one; divide the corpus anew (scripts/split_corpus.py)"
        for split in SPLITS
        if not index[split]
    ]
    uses_glosses = glosses is not None and config.model.use_mska
    vocabulary = GlossVocabulary.build(glosses, index["train"]) if glosses and uses_glosses else None
    if vocabulary is not None and len(vocabulary) == 1:  # no clip of train has glosses: nothing but the blank
        vocabulary = None
    if vocabulary is not None and config.data.unknown_gloss == "refuse":
        problems += _unknown_glosses(index, glosses or {}, vocabulary)
    train = index["train"]
    if config.data.subset_size is not None and config.data.subset_size < len(train):
        rows = numpy_rng(config.seed, "subset").choice(len(train), config.data.subset_size, replace=False)
        train = [train[row] for row in sorted(rows)]
    chosen = [(split, clips[clip_id]) for split in SPLITS for clip_id in (train if split == "train" else index[split])]
    samples, parts, data_problems = _make_samples(config, layout, chosen, glosses or {}, vocabulary)
    problems += data_problems
    if not problems:
        problems += [
            f"{config.root}: every clip of {split} lies in a quarantined video, expected one that could be read;"
            " see the contract's report"
            for split in SPLITS
            if not samples[split]
        ]
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise UserError([*problems[:MAX_PROBLEMS], *([f"and {more:,} more problems"] if more > 0 else [])])
    return ClipSet(samples, vocabulary, digest(parts))


def _read_clips(layout: CorpusLayout, allow_absent_videos: bool) -> MetaTable:
    processed = {path.stem for path in (layout.processed / "metadata").glob("*.json")}
    table = scan_meta(layout.meta, processed or None, allow_absent_videos=allow_absent_videos)
    # clips that are in no split may lack their video; of the others `_make_samples` says what is absent
    raise_errors(issue for issue in table.issues if issue.rule != VIDEO_KNOWN.id)
    if table.absent:
        log.warning("%d clips lie in videos that are not there and are left out", len(table.absent))
    return table


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


def _make_samples(
    config: IntegrateConfig,
    layout: CorpusLayout,
    chosen: list[tuple[str, Clip]],
    glosses: dict[str, Gloss],
    vocabulary: GlossVocabulary | None,
) -> tuple[dict[str, list[Sample]], list[object], list[str]]:
    """Samples of each split, what they were made from (plain values), and problems."""
    by_video: dict[str, list[int]] = {}
    for row, (_, clip) in enumerate(chosen):
        by_video.setdefault(clip.video_id, []).append(row)
    made: dict[int, Sample] = {}
    parts: list[object] = []
    problems: list[str] = []
    num_left_out = 0
    for video_id, rows in sorted(by_video.items()):
        try:
            video, video_digest = _read_video(config, layout, video_id)
        except UserError as error:
            problems += error.problems
            continue
        if video is None:
            num_left_out += len(rows)
            continue
        for row in rows:
            split, clip = chosen[row]
            try:
                made[row] = _sample(config, split, clip, video, glosses.get(clip.clip_id), vocabulary)
            except ValueError as error:
                problems.append(f"clip {shown(clip.clip_id)}: {error}")
                continue
            gloss = made[row].gloss
            span = [clip.start_s, clip.end_s]
            parts.append([split, clip.clip_id, clip.text, None if gloss is None else list(gloss), span, video_digest])
    if num_left_out:
        log.warning("%d clips lie in quarantined videos and are left out", num_left_out)
    samples = {split: [made[row] for row in sorted(made) if chosen[row][0] == split] for split in SPLITS}
    return samples, sorted(parts, key=str), problems


def _read_video(config: IntegrateConfig, layout: CorpusLayout, video_id: str) -> tuple[Video | None, str]:
    """Arrays and digest of a video; None when it is quarantined.

    Raises:
        UserError: With every file that is absent or wrong.
    """
    path = layout.metadata(video_id)
    try:
        metadata = read_metadata(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected a processed video; run scripts/extract_rois_v2.py") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; extract the video again") from None
    if metadata.status == "quarantined":
        return None, ""
    streams = list(config.model.backbones)
    readers = {
        "tracks": (layout.tracks(video_id), read_tracks),
        "pose": (layout.pose(video_id), read_pose),
        "keypoints": (layout.keypoints(video_id), read_keypoints),
        **{stream: (layout.crops(stream, video_id), list_crops) for stream in streams},
    }
    if not config.model.use_mska:
        del readers["keypoints"]
    found, problems = {}, []
    for name, (file, read) in readers.items():
        try:
            found[name] = read(file)
        except FileNotFoundError:
            problems.append(f"{file}: no such file, expected the video's {name}; extract the video again")
        except ValueError as error:
            text = str(error).removeprefix(f"{file}: ")
            problems.append(f"{file}: {text}; extract the video again")
    if problems:
        raise UserError(problems)
    tracks, pose = found["tracks"], found["pose"].pose
    keypoints = found["keypoints"].keypoints if "keypoints" in found else np.zeros((len(pose), 0, 3), np.float32)
    for name, size in (("pose", len(pose)), ("keypoints", len(keypoints))):
        if size != len(tracks.times_s):
            problems.append(
                f"{layout.processed / name / video_id}.npz: {size} frames, but tracks has {len(tracks.times_s)};"
                " extract the video again"
            )
    if not np.isfinite(pose).all() or not np.isfinite(keypoints).all():
        problems.append(f"{video_id}: pose or keypoints hold values that are not finite; extract the video again")
    if problems:
        raise UserError(problems)
    files = [file for name, (file, _) in readers.items() if name not in streams]
    digests = [*map(sha256_file, files), *(crops_digest(found[stream]) for stream in streams)]
    video = Video(
        tracks.times_s,
        (metadata.width_px, metadata.height_px),
        keypoints,
        pose,
        {stream: tracks.streams[stream].state for stream in streams},
        {stream: {crop.frame: crop for crop in found[stream]} for stream in streams},
    )
    return video, digest([metadata.width_px, metadata.height_px, *digests])


def _sample(
    config: IntegrateConfig,
    split: str,
    clip: Clip,
    video: Video,
    gloss: Gloss | None,
    vocabulary: GlossVocabulary | None,
) -> Sample:
    """One clip.

    Raises:
        ValueError: When it has no text, no frame, or too many.
    """
    if not clip.text.strip():
        raise ValueError("has no text, expected one to translate into; fill in meta.csv, or take it out of the index")
    times_s = video.times_s
    inside = np.ones(len(times_s), dtype=bool)
    if clip.start_s is not None and clip.end_s is not None:
        inside = (times_s >= clip.start_s) & (times_s < clip.end_s)
    frames = np.flatnonzero(inside)[:: config.data.frame_stride]
    if not len(frames):
        raise ValueError(
            f"covers no frame of video {shown(clip.video_id)} ({len(times_s)} frames); check its start and end"
        )
    if len(frames) > config.data.max_frames:
        raise ValueError(
            f"has {len(frames)} frames, expected at most {config.data.max_frames}; raise data.max_frames or"
            " data.frame_stride, or cut the clip"
        )
    present, crops = {}, {}
    for stream, states in video.states.items():
        has_box = states[frames] != BoxState.MISSING
        crops[stream] = [
            video.crops[stream].get(int(f)) if there else None for f, there in zip(frames, has_box, strict=True)
        ]
        present[stream] = np.array([crop is not None for crop in crops[stream]])
    pose = video.pose[frames][:, _POSE_COLUMNS].reshape(len(frames), -1, 3)  # (T, 7, 3)
    visible = pose[..., 2] > 0
    if config.model.use_pose:
        present["pose"] = visible.any(axis=1)
    if config.model.use_mska:
        nodes = to_nodes(video.keypoints[frames], *video.size_px)
    else:
        nodes = np.zeros((len(frames), NUM_NODES, 3), np.float32)
    labels = None if gloss is None else gloss.labels
    is_known = vocabulary is not None and labels is not None and not vocabulary.unknown(labels)
    return Sample(
        clip.clip_id,
        split,
        clip.text,
        labels,
        nodes,
        np.where(visible[..., None], pose, 0.0).reshape(len(frames), POSE_DIM).astype(np.float32),
        present,
        crops,
        gloss_ids=vocabulary.encode(labels) if is_known and vocabulary is not None and labels is not None else None,
    )


def backbone_files(specs: dict[str, str]) -> dict[str, Path]:
    """Stream to the checkpoint file of its spec, of those that name one."""
    from signstreams.backbones.spec import parse_spec

    parsed = {stream: parse_spec(spec) for stream, spec in specs.items()}
    return {stream: Path(spec.location) for stream, spec in parsed.items() if spec.kind == "file"}
