"""Weighted k-NN: its vote, and the score on labelled held-out crops that chooses the best checkpoint."""

from __future__ import annotations

import csv
import functools
import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Ints
from signstreams.errors import UserError
from signstreams.formats.crops import Crop
from signstreams.streams import BY_NAME, STREAMS, TRUE_LABELS

TEMPERATURE = 0.07
"""Neighbours vote with exp(cosine / temperature), as in Wu et al. 2018 and DINO's evaluation."""
NUM_NEIGHBOURS = 20  # k of the probe, as in DINO's evaluation
FOLDERS = "folders"
MIN_LABELLED = 8
COLUMNS = ("video_id", "frame", "label")
STREAM_COLUMN = "stream"


def cosines(queries: Tensor, bank: Tensor) -> Tensor:
    """Cosine (M, N) of each of M query features (M, D) with each of the bank (N, D)."""
    return F.normalize(queries.float(), dim=-1) @ F.normalize(bank.float(), dim=-1).T


def vote(similarity: Tensor, labels: Tensor, *, k: int, temperature: float = TEMPERATURE) -> Tensor:
    """Label (M,) of each query by the weighted vote of its ``k`` nearest crops of the bank, labelled (N,) int64.

    Of the cosines (M, N) of queries and bank; -inf where a crop must not vote, but not in a whole row.
    """
    nearest, indices = similarity.topk(min(k, len(labels)), dim=-1)  # (M, k)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: cannot overflow
    votes = torch.zeros(len(similarity), int(labels.max()) + 1, dtype=weights.dtype)
    return votes.scatter_add_(1, labels[indices], weights).argmax(dim=-1)


# -- True handshapes and mouths: only the demo corpus, which is rendered, has them


class TrueShapes(NamedTuple):
    """Handshapes of one hand, or mouths of the face, in one video."""

    frames: Ints  # (T,) int, index into ``names``; -1 between two shapes
    names: list[str]  # Names of all shapes
    clips: set[str]  # ids of the clips in the video
    signer: str  # signer of the video

    def at(self, frame: int) -> int:
        """Index of the frame's shape; -1 where there is none."""
        return int(self.frames[frame]) if frame < len(self.frames) else -1


def read_true_shapes(path: Path, stream: str) -> TrueShapes:
    """Handshapes of a hand stream, or mouths of the face, from ``ground_truth/<video>.npz``.

    Raises:
        UserError: The file is absent, or holds no ground truth.
    """
    shape = BY_NAME[stream].true_shape if stream in BY_NAME else None
    try:
        with np.load(path, allow_pickle=False) as truth:
            return TrueShapes(
                truth[f"{stream}_{shape}"],
                [str(name) for name in truth[f"{shape}_names"]],
                {str(clip) for clip in truth["clip_ids"]},
                str(truth["signer"]),
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: no ground truth of {shape or stream}s ({error}); only the demo corpus has it;"
            " render that again with signstreams demo"
        ) from None


# -- Probe: labels of held-out crops choose the best checkpoint, and take no part in training


@dataclass(frozen=True)
class ProbeLabels:
    """Labels of the held-out crops."""

    labels: Tensor  # (N,) int64, -1 where unknown
    videos: Tensor  # (N,) int64, one number per video


def read_probe_labels(setting: str, crops: Sequence[Crop]) -> ProbeLabels:
    """Labels of the crops: ``folders`` (a plain image's sub-folder), the demo corpus's ``handshapes`` or ``mouths``, or
    a CSV of ``video_id,frame,label``, in which a row without a frame labels the whole video. With a fourth column,
    ``stream``, a row can be of one hand, which a run of both hands tells apart; without a stream it is of both.

    Raises:
        UserError: The CSV is absent or lacks columns, or too few of the crops have labels.
    """
    if setting == FOLDERS:
        named = [crop.video_id.rpartition("/")[0] for crop in crops]
    elif setting in TRUE_LABELS:
        named = _by_true_shape(crops)
    else:
        named = _by_table(Path(setting), crops)
    names = sorted({name for name in named if name})
    labels = torch.tensor([names.index(name) if name else -1 for name in named])
    numbers = {video: number for number, video in enumerate(sorted({crop.video_id for crop in crops}))}
    num_labelled = int((labels >= 0).sum())
    num_videos = len({crop.video_id for crop, name in zip(crops, named, strict=True) if name})
    if num_labelled < MIN_LABELLED or len(names) < 2 or num_videos < 2:
        raise UserError(
            f"monitor.labels '{setting}': found labels of {num_labelled} of the {len(crops)} held-out crops"
            f" ({len(names)} different, {num_videos} videos), expected {MIN_LABELLED} of two at least; leave it out,"
            " or raise monitor.probe_crops"
        )
    return ProbeLabels(labels, torch.tensor([numbers[crop.video_id] for crop in crops]))


def knn_accuracy(features: Tensor, known: ProbeLabels) -> float:
    """Share of the labelled crops whose label the vote of their nearest ones of other videos predicts, by (N, D).

    Of other videos, since adjacent frames would answer for each other.
    """
    is_known = known.labels >= 0
    x, labels, videos = features[is_known], known.labels[is_known], known.videos[is_known]
    similarity = cosines(x, x).masked_fill(videos[:, None] == videos[None], -torch.inf)  # (M, M)
    return float((vote(similarity, labels, k=NUM_NEIGHBOURS) == labels).float().mean())


def _by_true_shape(crops: Sequence[Crop]) -> list[str]:
    """From the ground truth of each crop's corpus: <root>/ground_truth beside <root>/processed/<stream>/<video>.zip."""
    read = functools.cache(read_true_shapes)
    # resolved, as a folder may be given as `hand_r` from within `processed`; a link's own name says which stream it is
    corpus_of = functools.cache(lambda folder: folder.resolve().parent.parent)
    named = []
    for crop in crops:
        folder = crop.path.parent
        truth = read(corpus_of(folder) / "ground_truth" / f"{crop.video_id}.npz", folder.name)
        shape = truth.at(crop.frame)
        named.append(truth.names[shape] if shape >= 0 else "")
    return named


def _by_table(path: Path, crops: Sequence[Crop]) -> list[str]:
    labels: dict[tuple[str, str, str], str] = {}  # by video, frame and stream; "" for all frames, or both hands
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
                raise UserError(f"{path}: lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                video, frame, label, stream = (str(row.get(name) or "").strip() for name in (*COLUMNS, STREAM_COLUMN))
                if frame and not frame.isdecimal():
                    raise UserError(f"{path}:{number}: frame is '{frame}', expected a number, or nothing for all")
                if stream and stream not in STREAMS:
                    raise UserError(
                        f"{path}:{number}: stream is '{stream}', expected {', '.join(STREAMS)}, or nothing for all"
                    )
                labels[video, str(int(frame)) if frame else "", stream] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"monitor.labels {path}: cannot be read ({error}); expected 'folders', 'handshapes', 'mouths' or a CSV"
        ) from None
    named = []
    for crop in crops:
        places = itertools.product((str(crop.frame), ""), (crop.path.parent.name, ""))  # the most exact row counts
        named.append(next((labels[at] for place in places if (at := (crop.video_id, *place)) in labels), ""))
    return named
