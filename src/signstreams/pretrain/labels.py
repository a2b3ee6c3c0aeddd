"""k-NN on the held-out crops where labels are known: they choose the best checkpoint, and take no part in training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.errors import UserError
from signstreams.formats.crops import Crop
from signstreams.pretrain.handshapes import Handshapes, read_handshapes

FOLDERS, HANDSHAPES = "folders", "handshapes"
K, TEMPERATURE = 20, 0.07  # as DINO's evaluation
MIN_LABELLED = 8
COLUMNS = ("video_id", "frame", "label")


@dataclass(frozen=True)
class ProbeLabels:
    """Labels of the held-out crops.

    Attributes:
        labels: (N,) int64, -1 where unknown.
        videos: (N,) int64, one number a video.
    """

    labels: Tensor
    videos: Tensor


def read_probe_labels(setting: str, crops: Sequence[Crop]) -> ProbeLabels:
    """Labels of the crops by ``folders`` (a plain image's sub-folder), by the demo corpus's own ``handshapes``, or
    from a CSV of ``video_id,frame,label``.

    A line without a frame labels all of the video.

    Raises:
        UserError: Absent, without the columns, or with too few of the crops in it.
    """
    if setting == FOLDERS:
        named = [_by_folder(crop) for crop in crops]
    elif setting == HANDSHAPES:
        named = _by_handshape(crops)
    else:
        named = _by_table(Path(setting), crops)
    names = sorted({name for name in named if name})
    labels = torch.tensor([names.index(name) if name else -1 for name in named])
    videos = sorted({crop.video_id for crop in crops})
    numbers = {video: number for number, video in enumerate(videos)}
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
    """Share of the labelled crops that the weighted vote of their nearest crops of other videos names.

    Args:
        features: (N, D).
    """
    is_known = known.labels >= 0
    x, labels, videos = F.normalize(features.float(), dim=-1)[is_known], known.labels[is_known], known.videos[is_known]
    similarity = (x @ x.T).masked_fill(videos[:, None] == videos[None], -torch.inf)  # (M, M)
    nearest, indices = similarity.topk(min(K, len(x)), dim=-1)  # (M, k)
    weights = ((nearest - 1) / TEMPERATURE).exp()  # 0 for crops of the own video
    votes = torch.zeros(len(x), int(labels.max()) + 1).scatter_add_(1, labels[indices], weights)
    return float((votes.argmax(dim=-1) == labels).float().mean())


def _by_folder(crop: Crop) -> str:
    return crop.video_id.rpartition("/")[0]


def _by_handshape(crops: Sequence[Crop]) -> list[str]:
    """From the ground truth of each crop's corpus: <root>/ground_truth beside <root>/processed/<stream>/<video>.zip."""
    truths: dict[tuple[Path, str], Handshapes] = {}
    named = []
    for crop in crops:
        key = crop.path.parent, crop.video_id
        if key not in truths:
            folder, video_id = key
            truths[key] = read_handshapes(folder.parents[1] / "ground_truth" / f"{video_id}.npz", folder.name)
        handshape = truths[key].at(crop.frame)
        named.append(truths[key].names[handshape] if handshape >= 0 else "")
    return named


def _by_table(path: Path, crops: Sequence[Crop]) -> list[str]:
    by_frame: dict[tuple[str, int], str] = {}
    by_video: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
                raise UserError(f"{path}: lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                video, frame, label = (str(row[name] or "").strip() for name in COLUMNS)
                if frame and not frame.isdecimal():
                    raise UserError(f"{path}:{number}: frame is '{frame}', expected a number, or nothing for all")
                if frame:
                    by_frame[video, int(frame)] = label
                else:
                    by_video[video] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"monitor.labels {path}: cannot be read ({error}); expected 'folders', 'handshapes' or a CSV"
        ) from None
    return [by_frame.get((crop.video_id, crop.frame), by_video.get(crop.video_id, "")) for crop in crops]
