"""Weighted k-NN on true handshape: what a backbone knows, next to random weights and raw pixels.

Neighbours never come from the video of the query: adjacent frames would answer for each other. Twice: from the
videos of the train split for the others, and, where there are several signers, from all other signers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.backbones.load import Backbone, load_dinov2_backbone
from signstreams.backbones.vit import VisionTransformer
from signstreams.config.knn import KnnConfig
from signstreams.engine.seeding import torch_generator
from signstreams.errors import UserError
from signstreams.files import write_json
from signstreams.formats.crops import Crop, list_crops
from signstreams.pretrain.data import load_whole
from signstreams.pretrain.handshapes import read_handshapes
from signstreams.pretrain.probe import embed
from signstreams.streams import HAND_STREAMS


@dataclass(frozen=True)
class LabelledCrops:
    """Crops whose handshape is known.

    Attributes:
        crops: N crops.
        labels: (N,) int64, index into ``names``.
        is_train: (N,) bool, of a video of the train split.
        signers: (N,) int64, one number a signer.
        names: Handshapes.
        num_videos: Of the train split, and of the others.
    """

    crops: list[Crop]
    labels: Tensor
    is_train: Tensor
    signers: Tensor
    names: list[str]
    num_videos: tuple[int, int]


def evaluate_knn(config: KnnConfig) -> dict[str, Any]:
    """Write and return the report.

    Raises:
        UserError: Files absent, no crop with a known handshape, or nothing to split.
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
        features["random_weights"] = embed(_random(backbone, config.seed), images, backbone.normalize)
    features["raw_pixels"] = backbone.normalize(images).flatten(1)
    report: dict[str, Any] = {
        "stream": stream,
        "backbone": spec,
        "k": config.k,
        "temperature": config.temperature,
        "handshapes": data.names,
        "num_train_crops": int(data.is_train.sum()),
        "num_test_crops": int((~data.is_train).sum()),
        "num_train_videos": data.num_videos[0],
        "num_test_videos": data.num_videos[1],
        "accuracy": {name: _by_split(x, data, config) for name, x in features.items()},
        "most_frequent_handshape": _most_frequent(data),
    }
    if len(data.signers.unique()) > 1:
        report["accuracy_unseen_signer"] = {name: _by_signer(x, data, config) for name, x in features.items()}
    write_json(config.output, report)
    return report


def weighted_knn(bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float) -> Tensor:
    """Label of each query by the vote of its ``k`` nearest of the bank, weighted with exp(cosine / temperature).

    As in Wu et al. 2018 and DINO's evaluation.

    Args:
        bank: (N, D) features.
        labels: (N,) int64.
        queries: (M, D) features.

    Returns:
        (M,) int64.
    """
    similarity = F.normalize(queries, dim=-1) @ F.normalize(bank, dim=-1).T  # (M, N)
    nearest, indices = similarity.topk(min(k, len(bank)), dim=-1)  # (M, k)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: cannot overflow
    votes = torch.zeros(len(queries), int(labels.max()) + 1, dtype=weights.dtype)
    return votes.scatter_add_(1, labels[indices], weights).argmax(dim=-1)


def read_labels(config: KnnConfig, stream: str) -> LabelledCrops:
    """Crops with their true handshape; those in between two handshapes are left out.

    Raises:
        UserError: All problems of the folders.
    """
    try:
        found = list_crops(config.crops)
    except (OSError, ValueError) as error:
        raise UserError(f"{config.crops}: {error}; extract the corpus first") from None
    index = config.index or config.ground_truth.parent / "index"
    train_clips = _clip_ids(index / "train.csv")
    crops, labels, is_train, signers = [], [], [], []
    names: list[str] = []
    by_video: dict[str, list[Crop]] = {}
    for crop in found:
        by_video.setdefault(crop.video_id, []).append(crop)
    signer_numbers: dict[str, int] = {}
    num_videos = [0, 0]
    for video_id, of_video in by_video.items():
        truth = read_handshapes(config.ground_truth / f"{video_id}.npz", stream)
        names = truth.names
        in_train = bool(truth.clips & train_clips) or video_id in train_clips
        num_videos[0 if in_train else 1] += 1
        for crop in of_video:
            if (handshape := truth.at(crop.frame)) >= 0:
                crops.append(crop)
                labels.append(handshape)
                is_train.append(in_train)
                signers.append(signer_numbers.setdefault(truth.signer, len(signer_numbers)))
    if 0 in num_videos or not any(is_train) or all(is_train):
        raise UserError(
            f"{index}: found {num_videos[0]} videos of the train split and {num_videos[1]} others with crops in"
            f" {config.crops}, expected some of both"
        )
    return LabelledCrops(
        crops,
        torch.tensor(labels),
        torch.tensor(is_train),
        torch.tensor(signers),
        names,
        (num_videos[0], num_videos[1]),
    )


def _clip_ids(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row[0].strip() for row in csv.reader(file) if row}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected one clip id a line; run scripts/split_corpus.py") from None


def _random(backbone: Backbone, seed: int) -> VisionTransformer:
    assert isinstance(backbone.model, VisionTransformer)
    model = VisionTransformer(backbone.model.arch)
    model.init_weights(torch_generator(seed, "random backbone"))
    return model.eval()


def _by_split(features: Tensor, data: LabelledCrops, config: KnnConfig) -> float:
    return _accuracy(features, data.labels, data.is_train, ~data.is_train, config)


def _by_signer(features: Tensor, data: LabelledCrops, config: KnnConfig) -> float:
    """Mean over signers of the accuracy with neighbours from all other signers."""
    scores = []
    for signer in data.signers.unique():
        is_theirs = data.signers == signer
        scores.append(_accuracy(features, data.labels, ~is_theirs, is_theirs, config))
    return float(np.mean(scores))


def _accuracy(features: Tensor, labels: Tensor, is_bank: Tensor, is_query: Tensor, config: KnnConfig) -> float:
    answers = weighted_knn(
        features[is_bank], labels[is_bank], features[is_query], k=config.k, temperature=config.temperature
    )
    return float((answers == labels[is_query]).double().mean())


def _most_frequent(data: LabelledCrops) -> float:
    """Accuracy of always naming the handshape that is most frequent in the train split."""
    guess = data.labels[data.is_train].bincount().argmax()
    return float((data.labels[~data.is_train] == guess).double().mean())


def table(report: dict[str, Any]) -> str:
    """The figures as people read them."""
    unseen = report.get("accuracy_unseen_signer", {})
    lines = [f"{report['stream']}: k-NN on handshape{'':8}other videos   unseen signers"]
    for name, value in report["accuracy"].items():
        other = f"{100 * unseen[name]:8.1f} %" if name in unseen else "       -"
        lines.append(f"  {name.replace('_', ' '):<28}{100 * value:8.1f} %   {other}")
    return "\n".join([*lines, f"  most frequent handshape     {100 * report['most_frequent_handshape']:8.1f} %"])
