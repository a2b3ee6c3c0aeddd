"""Labelled sets: images or clips whose class is known, and the signer where that is known as well.

Images lie in folders or a ZIP, clips in an extracted corpus. A class comes from a folder, a pattern of names, a CSV,
the texts of meta.csv or the demo corpus's truth.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signstreams.array_types import Flags, Floats, Ints
from signstreams.corpus.corpus import scan_corpus
from signstreams.corpus.findings import few_ids, raise_errors
from signstreams.corpus.table import scan_table
from signstreams.errors import DamagedFile, UserError
from signstreams.formats.arrays import read_tracks
from signstreams.formats.crops import Crop, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.integrate.clips import extracted_ids
from signstreams.integrate.features import present_crops
from signstreams.judge.settings import CLASS, FOLDERS, HANDSHAPES, MOUTHS, SIGNER, TEXTS, EvaluateBackboneConfig
from signstreams.pretrain.crop_index import build_index
from signstreams.pretrain.crop_points import points_of_video
from signstreams.pretrain.knn import TrueShapes, read_true_shapes
from signstreams.streams import HAND_STREAMS, TRUE_LABELS

log = logging.getLogger(__name__)

COLUMNS = ("file", "label", "signer")
MIN_SHARE = 0.02  # a corpus in which fewer clips share their text has sentences, not isolated signs


@dataclass(frozen=True)
class Part:
    """The crops of one stream; of plain images, all of them."""

    stream: str  # empty for plain images
    crops: list[Crop]  # M crops, those of an item one after the other in the order of their frames
    owner: Ints  # (M,) int64, the item of each crop, rising
    points: Floats | None  # (M, 21, 2) points of the hand in px, NaN where none was seen; None without tracks


@dataclass(frozen=True)
class LabelledSet:
    """N items with their classes."""

    names: list[str]  # N names, for messages
    labels: Ints  # (N,) int64, index into ``classes``
    classes: list[str]  # C classes
    signers: list[str] | None  # signer of each item; None where unknown
    videos: list[str] | None  # video of each item, where several items are of one; else None
    is_bank: Flags | None  # (N,) whether a given split has the item among the labelled ones; None: no given split
    parts: list[Part]
    has_clips: bool  # whether an item is a clip, of many crops, or one image
    labels_from: str  # in words


def read_set(config: EvaluateBackboneConfig) -> LabelledSet:
    """The labelled set that a config names.

    Raises:
        UserError: All problems of the set: files absent, names that the pattern does not fit, classes with one item.
    """
    layout = CorpusLayout(config.data)
    is_corpus = layout.processed.is_dir()
    labels = config.labels or (TEXTS if is_corpus else FOLDERS)
    if labels in (TEXTS, *TRUE_LABELS) and not is_corpus:
        raise UserError(f"{layout.processed}: no such folder, expected an extracted corpus for labels '{labels}'")
    if not is_corpus and config.streams is not None:
        raise UserError(f"streams has no effect: {config.data} is not an extracted corpus; leave it out")
    if labels == FOLDERS and is_corpus:
        raise UserError(f"{config.data}: is a corpus without a folder per class; give --labels texts or a CSV")
    if labels in TRUE_LABELS:
        found = _true_shapes(layout, config.streams or (["face"] if labels == MOUTHS else list(HAND_STREAMS)), labels)
    elif is_corpus:
        found = _clips(layout, config.streams or list(HAND_STREAMS), labels)
    else:
        found = _images(config.data, labels)
    counts = np.bincount(found.labels, minlength=len(found.classes))
    if len(found.classes) < 2 or counts.max() < 2:
        raise UserError(
            f"{config.data}: found {len(found.classes)} classes of at most {counts.max(initial=0)} items by"
            f" {found.labels_from}, expected two classes and two items of one; name the labels with --labels"
        )
    return found


@dataclass(frozen=True)
class Label:
    """What is known of one item."""

    label: str
    signer: str | None = None


# -- Images


def _images(data: Path, labels: str) -> LabelledSet:
    index, problems = build_index([data])
    for path, error in problems:
        if error is None or isinstance(error, FileNotFoundError):
            found = "no such folder or ZIP" if error is not None else "found no image"
            raise UserError(f"{path}: {found}, expected images of known class; name another with --data")
        raise UserError(DamagedFile.of(path, error).problems)
    crops = list(index)
    names = [_place(crop, data) for crop in crops]
    if labels == FOLDERS:
        known = {name: Label(Path(name).parent.name) for name in names}
        if outside := [name for name in names if not known[name].label]:
            raise UserError(f"{data}: {few_ids(outside)} are not in the folder of a class; move them, or give --labels")
    else:
        known = _known(names, labels)
    chosen = [i for i, name in enumerate(names) if name in known]
    part = Part("", [crops[i] for i in chosen], np.arange(len(chosen)), None)
    return _assembled([names[i] for i in chosen], [known[names[i]] for i in chosen], [part], labels, has_clips=False)


def _place(crop: Crop, data: Path) -> str:
    """Path of an image below the folder or in the ZIP."""
    if crop.offset is None and crop.path.is_relative_to(data):
        return crop.path.relative_to(data).as_posix()
    return crop.video_id if crop.frame == 0 else f"{crop.video_id}, frame {crop.frame}"


# -- Clips of a corpus


def _clips(layout: CorpusLayout, streams: Sequence[str], labels: str) -> LabelledSet:
    extracted = extracted_ids(layout)
    ids = [name for name in extracted if read_metadata(layout.metadata(name)).status == "ok"]
    if quarantined := sorted({*extracted} - {*ids}):
        log.warning("%d videos are left out: they are quarantined (%s)", len(quarantined), few_ids(quarantined))
    if labels == TEXTS:
        corpus = scan_corpus(layout, other_ids=ids)
        if not corpus.has_meta:
            raise UserError(f"{layout.meta}: no such file, expected one word per clip; add it, or give --labels")
        raise_errors(corpus.issues)
        usable = set(ids)
        clips = [clip for clip in corpus.clips if clip.video_id in usable and clip.text.strip()]
        known = {clip.clip_id: Label(clip.text.strip(), clip.signer) for clip in clips}
        spans = {clip.clip_id: (clip.video_id, clip.start_s, clip.end_s) for clip in clips}
        num_shared = sum(count for count in Counter(one.label for one in known.values()).values() if count > 1)
        if num_shared < MIN_SHARE * len(known):
            raise UserError(
                f"{layout.meta}: {num_shared} of {len(known)} texts occur twice, expected one word per clip; this is no"
                " corpus of isolated signs"
            )
        signers = [one.signer for one in known.values()]
        if any(signers) and not all(signers):
            raise UserError(
                f"{layout.meta}: {signers.count(None)} of {len(signers)} clips name no signer; fill them in"
            )
    else:
        known = _known(ids, labels)
        spans = {name: (name, None, None) for name in known}
    names = [name for name in spans if name in known]
    _require_files(layout, streams, {spans[name][0] for name in names})
    cut = {stream: _cut(layout, stream, [spans[name] for name in names]) for stream in streams}
    if empty := [name for i, name in enumerate(names) if not any(len(found[i][0]) for found in cut.values())]:
        log.warning("%d clips show none of %s and are left out: %s", len(empty), ", ".join(streams), few_ids(empty))
    kept = [i for i, name in enumerate(names) if name not in set(empty)]
    parts = []
    for stream, found in cut.items():
        crops = [found[i][0] for i in kept]
        points = [of_clip for i in kept if (of_clip := found[i][1]) is not None]
        owner = np.repeat(np.arange(len(kept)), [len(of_clip) for of_clip in crops])
        parts.append(
            Part(stream, list(itertools.chain.from_iterable(crops)), owner, np.concatenate(points) if points else None)
        )
    names = [names[i] for i in kept]
    return _assembled(names, [known[name] for name in names], parts, labels, has_clips=True)


def _require_files(layout: CorpusLayout, streams: Sequence[str], ids: Iterable[str]) -> None:
    paths = []
    for video_id in sorted(ids):
        paths += [layout.tracks(video_id), *(layout.crops(stream, video_id) for stream in streams)]
        paths += [layout.keypoints(video_id)] if {*streams} & {*HAND_STREAMS} else []
    if absent := [path for path in paths if not path.exists()]:
        raise UserError(
            [f"{path}: no such file, expected what extraction writes; extract the video" for path in absent]
        )


def _cut(
    layout: CorpusLayout, stream: str, spans: Sequence[tuple[str, float | None, float | None]]
) -> list[tuple[list[Crop], Floats | None]]:
    """Crops of each span of a video, and the points of the hand in each (None for a stream that is no hand)."""
    found = []
    last = ""
    crops: dict[int, Crop] = {}
    times: Floats = np.empty(0)
    points: Floats | None = None
    for video_id, start_s, end_s in spans:
        if video_id != last:
            _, crops = present_crops(layout, stream, video_id)
            times = read_tracks(layout.tracks(video_id)).times_s
            points = hand_points(layout, stream, video_id, len(times)) if stream in HAND_STREAMS else None
            last = video_id
        frames = [f for f in sorted(crops) if start_s is None or end_s is None or start_s <= times[f] < end_s]
        found.append(([crops[f] for f in frames], None if points is None else points[frames]))
    return found


def hand_points(layout: CorpusLayout, stream: str, video_id: str, num_frames: int) -> Floats:
    """`points_of_video` of a video of an extracted corpus.

    Raises:
        DamagedFile: There are points of fewer than ``num_frames`` frames, or the file cannot be read.
    """
    found = points_of_video(layout.processed, stream, video_id)
    if len(found) < num_frames:
        raise DamagedFile(layout.keypoints(video_id), f"has {len(found)} frames", expected=f"{num_frames}")
    return found


# -- The demo corpus's truth


def _true_shapes(layout: CorpusLayout, streams: Sequence[str], labels: str) -> LabelledSet:
    """Crops of one hand with their true handshapes, or of the face with its mouths; the split is the corpus's own.

    Those between two shapes are left out.
    """
    if labels == MOUTHS and list(streams) != ["face"]:
        raise UserError(f"streams: {', '.join(streams)}, expected the face for labels '{labels}'; give --streams face")
    if labels == HANDSHAPES and (len(streams) != 1 or streams[0] not in HAND_STREAMS):
        raise UserError(
            f"streams: {', '.join(streams)}, expected one hand for labels '{labels}'; give --streams hand_r"
        )
    (stream,) = streams
    folder = layout.processed / stream
    try:
        found = list_crops(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; extract the corpus first") from None
    ids = list(dict.fromkeys(crop.video_id for crop in found))
    truths = {video_id: read_true_shapes(layout.ground_truth(video_id), stream) for video_id in ids}
    train = _clip_ids(layout.index("train"))
    in_train = {video_id for video_id, truth in truths.items() if truth.clips & train or video_id in train}
    crops = [crop for crop in found if truths[crop.video_id].at(crop.frame) >= 0]
    is_bank = np.array([crop.video_id in in_train for crop in crops])
    if is_bank.all() or not is_bank.any():
        raise UserError(
            f"{layout.index('train').parent}: found {len(in_train)} videos of the train split and"
            f" {len(truths) - len(in_train)} others with crops in {folder}, expected some of both"
        )
    known = [_true_shape(truths[crop.video_id], crop.frame) for crop in crops]
    has_points = stream in HAND_STREAMS and all(
        layout.keypoints(video_id).is_file() and layout.metadata(video_id).is_file() for video_id in ids
    )
    points = None
    if has_points:
        lengths = {crop.video_id: crop.frame + 1 for crop in crops}  # frames rise
        tracks = {video_id: hand_points(layout, stream, video_id, n) for video_id, n in lengths.items()}
        points = np.stack([tracks[crop.video_id][crop.frame] for crop in crops])
    part = Part(stream, crops, np.arange(len(crops)), points)
    names = [f"{crop.video_id}, frame {crop.frame}" for crop in crops]
    videos = [crop.video_id for crop in crops]
    return _assembled(names, known, [part], labels, has_clips=False, videos=videos, is_bank=is_bank)


def _true_shape(truth: TrueShapes, frame: int) -> Label:
    return Label(truth.names[truth.at(frame)], truth.signer)


def _clip_ids(path: Path) -> set[str]:
    try:
        return {line.split(",")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected one clip id per line; run signstreams split") from None


# -- Labels of names


def _known(names: Sequence[str], labels: str) -> dict[str, Label]:
    """Labels of the names by a pattern or a CSV; a name that a CSV leaves out is no part of the set."""
    return _by_pattern(names, labels) if CLASS in labels else _by_table(names, Path(labels))


def _by_pattern(names: Sequence[str], pattern: str) -> dict[str, Label]:
    """Class and signer of each name: all of a path for a pattern with a slash, else its last part; without its ending.

    Raises:
        UserError: Names that the pattern does not fit, or one without ``<class>``.
    """
    form = compiled(pattern)
    known = {}
    for name in names:
        stem = str(Path(name).with_suffix("")) if Path(name).suffix else name
        if match := form.fullmatch(stem if "/" in pattern else Path(stem).name):
            known[name] = Label(match["label"], match["signer"] if SIGNER in pattern else None)
    if others := [name for name in names if name not in known]:
        raise UserError(
            f"labels '{pattern}': does not fit {len(others)} of {len(names)} names, such as {few_ids(others)}; correct"
            " the pattern, or give a CSV of file, label, signer"
        )
    return known


def compiled(pattern: str) -> re.Pattern[str]:
    """``<class>``: as few letters as fit; ``<signer>``: no ``_`` and no ``/``; ``<n>``: a number; ``*``: anything."""
    meaning = {CLASS: r"(?P<label>[^/]+?)", SIGNER: r"(?P<signer>[^_/]+)", "<n>": r"\d+", "*": ".*"}
    parts = re.split(r"(<[^>]*>|\*)", pattern)
    named = [part for part in parts if part.startswith("<")]
    unknown = [part for part in named if part not in meaning]
    if unknown or named.count(CLASS) != 1 or named.count(SIGNER) > 1:
        raise UserError(
            f"labels '{pattern}': found {', '.join(named)}, expected {CLASS} once, {SIGNER} at most once, and <n> or *"
            " for the rest"
        )
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts))


def _by_table(names: Sequence[str], path: Path) -> dict[str, Label]:
    """Labels by a table of file, label and perhaps signer; a file is a name of the set, with or without its ending.

    Raises:
        UserError: The table cannot be read or lacks columns; rows without label, or of files that are not there.
    """
    table = scan_table(
        path, COLUMNS, str(path), holds=f"{', '.join(COLUMNS)}, or else {FOLDERS}, {TEXTS}, {HANDSHAPES}, {MOUTHS}"
    )
    raise_errors(table.issues)
    if missing := [column for column in COLUMNS[:2] if column not in table.columns]:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    by_name: dict[str, str] = {}
    for name in names:
        by_name[name] = name
        by_name.setdefault(str(Path(name).with_suffix("")), name)
    known: dict[str, Label] = {}
    problems = []
    for row, cells in table.rows:
        file, label, signer = (cells.get(column, "").strip() for column in COLUMNS)
        place = by_name.get(file) or by_name.get(str(Path(file).with_suffix("")))
        if place is None:
            problems.append(f"{path} row {row}: no file '{file}' in the set; correct the name")
        elif place in known:
            problems.append(f"{path} row {row}: '{file}' is labelled twice; remove one of the rows")
        elif not label:
            problems.append(f"{path} row {row}: '{file}' has no label; fill it in or remove the row")
        elif "signer" in table.columns and not signer:
            problems.append(f"{path} row {row}: '{file}' has no signer; fill it in, or remove the column")
        else:
            known[place] = Label(label, signer or None)
    if problems:
        raise UserError(problems)
    if num_left := len(names) - len(known):
        log.warning("%s: %d of %d files have no row and are left out", path, num_left, len(names))
    return known


def _assembled(
    names: list[str],
    known: Iterable[Label],
    parts: list[Part],
    labels: str,
    *,
    has_clips: bool,
    videos: list[str] | None = None,
    is_bank: Flags | None = None,
) -> LabelledSet:
    found = list(known)
    classes = sorted({one.label for one in found})
    number: Mapping[str, int] = {name: place for place, name in enumerate(classes)}
    signers = [one.signer for one in found if one.signer is not None]
    return LabelledSet(
        names,
        np.array([number[one.label] for one in found], dtype=np.int64),
        classes,
        signers if len(set(signers)) > 1 and len(signers) == len(found) else None,
        videos,
        is_bank,
        parts,
        has_clips,
        labels,
    )
