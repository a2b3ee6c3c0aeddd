"""Weighted k-NN on labelled crops: evaluation of a backbone, and the score that chooses the best checkpoint.

Neighbours never come from the video of the query, whose adjacent frames would answer for each other.
"""

from __future__ import annotations

import csv
import functools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Ints
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.engine.seeding import torch_generator
from signstreams.errors import UserError
from signstreams.files import write_json
from signstreams.formats.crops import Crop, list_crops
from signstreams.pretrain.data import load_whole
from signstreams.pretrain.health import embed
from signstreams.pretrain.settings import KnnConfig
from signstreams.streams import HAND_STREAMS

TEMPERATURE = 0.07
"""Neighbours vote with exp(cosine / temperature), as in Wu et al. 2018 and DINO's evaluation."""
NUM_NEIGHBOURS = 20  # k of the probe, as in DINO's evaluation
FOLDERS, HANDSHAPES = "folders", "handshapes"
MIN_LABELLED = 8
COLUMNS = ("video_id", "frame", "label")


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


# -- Evaluation on the true handshapes of the demo corpus: only rendered video has them


class Handshapes(NamedTuple):
    """Handshapes of one hand in one video."""

    frames: Ints  # (T,) int, index into ``names``; -1 between two handshapes
    names: list[str]  # Names of all handshapes
    clips: set[str]  # ids of the clips in the video
    signer: str  # signer of the video

    def at(self, frame: int) -> int:
        """Index of the frame's handshape; -1 where there is none."""
        return int(self.frames[frame]) if frame < len(self.frames) else -1


def read_handshapes(path: Path, stream: str) -> Handshapes:
    """Handshapes of a hand stream from ``ground_truth/<video>.npz``.

    Raises:
        UserError: The file is absent, or holds no ground truth.
    """
    try:
        with np.load(path, allow_pickle=False) as truth:
            return Handshapes(
                truth[f"{stream}_handshape"],
                [str(name) for name in truth["handshape_names"]],
                {str(clip) for clip in truth["clip_ids"]},
                str(truth["signer"]),
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no ground truth of handshapes ({error}); only the demo corpus has it") from None


@dataclass(frozen=True)
class LabelledCrops:
    """Crops with known handshape."""

    crops: list[Crop]  # N crops
    labels: Tensor  # (N,) int64, index into ``names``
    is_train: Tensor  # (N,) bool, whether the crop is of a video of the train split
    signers: Tensor  # (N,) int64, one number per signer
    names: list[str]  # handshapes
    num_videos: tuple[int, int]  # videos of the train split, and others


def evaluate_knn(config: KnnConfig) -> dict[str, Any]:
    """Evaluate a backbone beside random weights and raw pixels; writes and returns the report.

    Neighbours come from the videos of the train split and, where there are several signers, once more from all other
    signers.

    Raises:
        UserError: Files are absent, no crop has a known handshape, or there is nothing to split.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    stream = config.stream or config.crops.name
    if stream not in HAND_STREAMS:
        raise UserError(f"{config.crops}: the folder's name is no hand stream; add --stream hand_l or hand_r")
    spec = config.backbone if "::" in config.backbone else f"file::{config.backbone}"
    backbone = load_dinov2_backbone(spec, download=config.download)
    data = read_labels(config, stream)
    images = load_whole(data.crops, backbone.image_px)  # (N, side, side, 3) uint8
    features = {"pretrained": embed(backbone, images, backbone.normalize)}
    if isinstance(backbone.model, VisionTransformer):
        untrained = VisionTransformer(backbone.model.arch).eval()
        untrained.init_weights(torch_generator(config.seed, "random backbone"))
        features["random_weights"] = embed(untrained, images, backbone.normalize)
    features["raw_pixels"] = backbone.normalize(images).flatten(1)
    report: dict[str, Any] = {
        "stream": stream,
        "backbone": spec,
        "k": config.k,
        "temperature": TEMPERATURE,
        "handshapes": data.names,
        "num_train_crops": int(data.is_train.sum()),
        "num_test_crops": int((~data.is_train).sum()),
        "num_train_videos": data.num_videos[0],
        "num_test_videos": data.num_videos[1],
        "accuracy": {name: _accuracy(x, data, data.is_train, config.k) for name, x in features.items()},
        "most_frequent_handshape": _most_frequent(data),
    }
    if len(data.signers.unique()) > 1:
        report["accuracy_unseen_signer"] = {name: _by_signer(x, data, config.k) for name, x in features.items()}
    write_json(config.output, report)
    return report


def read_labels(config: KnnConfig, stream: str) -> LabelledCrops:
    """Crops with their true handshapes; those between two handshapes are left out.

    Raises:
        UserError: Crops or ground truth are absent, or the split has no crops on one side.
    """
    try:
        found = list_crops(config.crops)
    except OSError as error:
        raise UserError(f"{config.crops}: {error}; extract the corpus first") from None
    index = config.index or config.ground_truth.parent / "index"
    train_clips = _clip_ids(index / "train.csv")
    truths = {
        video_id: read_handshapes(config.ground_truth / f"{video_id}.npz", stream)
        for video_id in dict.fromkeys(crop.video_id for crop in found)
    }
    train_videos = {name for name, truth in truths.items() if truth.clips & train_clips or name in train_clips}
    crops = [crop for crop in found if truths[crop.video_id].at(crop.frame) >= 0]
    is_train = [crop.video_id in train_videos for crop in crops]
    num_videos = (len(train_videos), len(truths) - len(train_videos))
    if not any(is_train) or all(is_train):
        raise UserError(
            f"{index}: found {num_videos[0]} videos of the train split and {num_videos[1]} others with crops in"
            f" {config.crops}, expected some of both"
        )
    signers = [truths[crop.video_id].signer for crop in crops]
    numbers = {signer: number for number, signer in enumerate(dict.fromkeys(signers))}
    return LabelledCrops(
        crops,
        torch.tensor([truths[crop.video_id].at(crop.frame) for crop in crops]),
        torch.tensor(is_train),
        torch.tensor([numbers[signer] for signer in signers]),
        truths[found[-1].video_id].names,
        num_videos,
    )


def _clip_ids(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row[0].strip() for row in csv.reader(file) if row}
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}, expected one clip id per line; run scripts/split_corpus.py"
        ) from None


def _by_signer(features: Tensor, data: LabelledCrops, k: int) -> float:
    """Mean over signers of the accuracy with neighbours from all other signers."""
    scores = [_accuracy(features, data, data.signers != signer, k) for signer in data.signers.unique()]
    return float(np.mean(scores))


def _accuracy(features: Tensor, data: LabelledCrops, is_bank: Tensor, k: int) -> float:
    """Share of the other crops whose handshape the crops of the bank, (N,) bool, predict."""
    similarity = cosines(features[~is_bank], features[is_bank])  # (M, N)
    return float((vote(similarity, data.labels[is_bank], k=k) == data.labels[~is_bank]).double().mean())


def _most_frequent(data: LabelledCrops) -> float:
    """Accuracy of always answering with the most frequent handshape of the train split."""
    guess = data.labels[data.is_train].bincount().argmax()
    return float((data.labels[~data.is_train] == guess).double().mean())


def table(report: dict[str, Any]) -> str:
    """The accuracies of a report as a table for people."""
    unseen = report.get("accuracy_unseen_signer", {})
    lines = [f"{report['stream']}: k-NN on handshape{'':8}other videos   unseen signers"]
    for name, value in report["accuracy"].items():
        other = f"{100 * unseen[name]:8.1f} %" if name in unseen else "       -"
        lines.append(f"  {name.replace('_', ' '):<28}{100 * value:8.1f} %   {other}")
    return "\n".join([*lines, f"  most frequent handshape     {100 * report['most_frequent_handshape']:8.1f} %"])


# -- Probe: labels of held-out crops choose the best checkpoint, and take no part in training


@dataclass(frozen=True)
class ProbeLabels:
    """Labels of the held-out crops."""

    labels: Tensor  # (N,) int64, -1 where unknown
    videos: Tensor  # (N,) int64, one number per video


def read_probe_labels(setting: str, crops: Sequence[Crop]) -> ProbeLabels:
    """Labels of the crops from ``folders`` (a plain image's sub-folder), from the demo corpus's own ``handshapes``, or
    from a CSV of ``video_id,frame,label``, in which a row without a frame labels the whole video.

    Raises:
        UserError: The CSV is absent or lacks columns, or too few of the crops have labels.
    """
    if setting == FOLDERS:
        named = [crop.video_id.rpartition("/")[0] for crop in crops]
    elif setting == HANDSHAPES:
        named = _by_handshape(crops)
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
    """Share of the labelled crops whose label the vote of their nearest ones of other videos predicts, by (N, D)."""
    is_known = known.labels >= 0
    x, labels, videos = features[is_known], known.labels[is_known], known.videos[is_known]
    similarity = cosines(x, x).masked_fill(videos[:, None] == videos[None], -torch.inf)  # (M, M)
    return float((vote(similarity, labels, k=NUM_NEIGHBOURS) == labels).float().mean())


def _by_handshape(crops: Sequence[Crop]) -> list[str]:
    """From the ground truth of each crop's corpus: <root>/ground_truth beside <root>/processed/<stream>/<video>.zip."""
    read = functools.cache(read_handshapes)
    named = []
    for crop in crops:
        folder = crop.path.parent
        truth = read(folder.parents[1] / "ground_truth" / f"{crop.video_id}.npz", folder.name)
        handshape = truth.at(crop.frame)
        named.append(truth.names[handshape] if handshape >= 0 else "")
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
