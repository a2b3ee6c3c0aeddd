"""The boundary model: for each frame, whether it is inside a sentence and whether one begins there.

Frozen features, pose and nodes pass through a small temporal convolutional network. Labels follow the tagging of
"Linguistically Motivated Sign Language Segmentation" (Moryossef et al. 2023, arXiv 2310.13960): inside alone cannot
part two sentences without a rest between them, so that beginnings have an output of their own. Letters: B stretches, T
steps (every ``frame_stride``-th frame), D features, H width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from signstreams.array_types import Flags, Floats
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.batches import Sample
from signstreams.integrate.clips import ClipEntry
from signstreams.integrate.dataset import ClipReader
from signstreams.integrate.nodes import NUM_NODES
from signstreams.integrate.trained_model import TrainedModel
from signstreams.integrate.videos import POSE_DIM, ProcessedVideo
from signstreams.segment.activity import MIN_SENTENCE_S, cut_at_stillest, joined, runs
from signstreams.segment.scores import Span

FORMAT = "signstreams_boundary_1"
WIDTH, PROJECTED, KERNEL = 96, 32, 5
DILATIONS = (1, 2, 4, 8, 16)
"""Together they see 62 steps to each side: 5 s at 12.5 steps per second, more than a sentence's surroundings tell."""
POINT_DIM = 2 * (3 * NUM_NODES + POSE_DIM)  # nodes and pose, and their change since the step before
STRETCH_STEPS = 4096  # read at once: five minutes at 12.5 steps per second, some ten MB


class BoundaryModel(nn.Module):
    """Outputs of (B, T, 2): logits of inside and of begin. ``streams`` are those with features, and their widths."""

    def __init__(self, streams: Mapping[str, int]) -> None:
        super().__init__()
        self.streams = dict(streams)
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, PROJECTED))
                for name, width in self.streams.items()
            }
        )
        self.points = nn.Linear(POINT_DIM, 2 * PROJECTED)
        self.join = nn.Linear(2 * PROJECTED + PROJECTED * len(self.streams), WIDTH)
        self.blocks = nn.ModuleList(_Block(dilation) for dilation in DILATIONS)
        self.classify = nn.Linear(WIDTH, 2)

    def forward(self, points: Tensor, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Points (B, T, `POINT_DIM`), features (B, T, D) and presence (B, T) bool of each stream to (B, T, 2)."""
        parts = [self.points(points)]
        for name, project in self.project.items():
            parts.append(project(features[name].float()) * present[name][..., None])  # missing: zero
        x = self.join(torch.cat(parts, dim=-1)).transpose(1, 2)  # (B, H, T)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classify(x.transpose(1, 2))
        return logits


class _Block(nn.Module):
    """A residual convolution over time."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, WIDTH)
        self.convolve = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2 * dilation, dilation=dilation)
        self.mix = nn.Conv1d(WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, T) to the same."""
        inner: Tensor = self.mix(nn.functional.gelu(self.convolve(self.norm(x))))
        out: Tensor = x + self.dropout(inner)
        return out


@dataclass(frozen=True)
class Stretch:
    """Steps of one video as the model sees them."""

    points: Floats  # (T, POINT_DIM) float32
    features: dict[str, Floats]  # stream to (T, D)
    present: dict[str, Flags]  # stream to (T,)


def stretch_of(sample: Sample, streams: Mapping[str, int]) -> Stretch:
    """The inputs of a clip; of backbones with features of all blocks the last one's."""
    points = np.concatenate((sample.nodes.reshape(sample.num_frames, -1), sample.pose), axis=1)  # (T, 258)
    change = np.diff(points, axis=0, prepend=points[:1])
    features = {}
    for name in streams:
        values = sample.features[name]
        features[name] = values if values.ndim == 2 else values[:, -1]
    present = {name: sample.present[name] for name in streams}
    return Stretch(np.concatenate((points, change), axis=1), features, present)


def predict(model: BoundaryModel, stretch: Stretch, device: torch.device) -> Floats:
    """(T, 2) probabilities of inside and begin."""
    model.eval()
    with torch.inference_mode():
        logits = model(
            torch.from_numpy(stretch.points)[None].to(device),
            {name: torch.from_numpy(values)[None].to(device) for name, values in stretch.features.items()},
            {name: torch.from_numpy(values)[None].to(device) for name, values in stretch.present.items()},
        )
    probabilities: Floats = logits[0].sigmoid().cpu().numpy()
    return probabilities


def decode_sentences(probabilities: Floats, times_s: Floats, pause_s: float = 0.0) -> list[Span]:
    """Start and end in s of sentences, from (T, 2) probabilities of inside and begin at ``times_s`` (T,).

    A sentence is a run of inside above a half, and it is parted where a begin peaks above a half. Runs with less than
    ``pause_s`` between them are joined unless the later one has such a begin; what is shorter than `MIN_SENTENCE_S`
    is none.
    """
    inside, begin = probabilities[:, 0], probabilities[:, 1]
    peaks = [(a + b) / 2 for a, b in runs(begin > 0.5, times_s)]
    starts = [a for a, _ in runs(begin > 0.5, times_s)]
    spans: list[Span] = []
    for start_s, end_s in joined(runs(inside > 0.5, times_s), pause_s):
        edges = [start_s]
        for moment, peak in zip(starts, peaks, strict=True):
            if edges[-1] + MIN_SENTENCE_S <= moment and peak < end_s:
                edges.append(moment)
        spans += list(zip(edges, [*edges[1:], end_s], strict=True))
    spans = [(start_s, end_s) for start_s, end_s in spans if end_s - start_s >= MIN_SENTENCE_S]
    return [part for span in spans for part in cut_at_stillest(span, inside, times_s)]


@dataclass(frozen=True)
class BoundaryFinder:
    """A trained boundary model that finds the sentences of a video."""

    model: BoundaryModel
    frame_stride: int

    def to(self, device: torch.device) -> BoundaryFinder:
        """The same on another device."""
        self.model.to(device)
        return self

    def sentences(
        self, reader: ClipReader, video: ProcessedVideo, times_s: Floats, device: torch.device, pause_s: float = 0.0
    ) -> list[Span]:
        """Start and end in s of the sentences in all frames of a video that the reader has."""
        frames = range(0, len(times_s), self.frame_stride)
        probabilities = self.probabilities(reader, video, frames, device)
        return decode_sentences(probabilities, times_s[frames.start : frames.stop : frames.step], pause_s)

    def probabilities(self, reader: ClipReader, video: ProcessedVideo, frames: range, device: torch.device) -> Floats:
        """(T, 2) probabilities of inside and begin, over stretches that overlap by what the model sees."""
        margin = sum(DILATIONS) * (KERNEL // 2)
        parts = []
        for start in range(0, len(frames), STRETCH_STEPS):
            first, last = max(0, start - margin), min(len(frames), start + STRETCH_STEPS + margin)
            sample = reader.load(ClipEntry(video.video_id, "test", "", None, video, frames[first:last]))
            found = predict(self.model, stretch_of(sample, self.model.streams), device)
            parts.append(found[start - first : start - first + STRETCH_STEPS])
        return np.concatenate(parts) if parts else np.zeros((0, 2))


def save_boundary_model(path: Path, model: BoundaryModel, trained: TrainedModel, about: dict[str, Any]) -> None:
    """Write the model with what it was trained on, whole or not at all."""
    checkpoint.save(
        path,
        {
            "format": FORMAT,
            "model": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
            "streams": model.streams,
            "backbone_sha256": {name: trained.backbones.digests[name] for name in model.streams},
            "frame_stride": trained.config.data.frame_stride,
            "uses_nodes": trained.config.model.use_mska,
            "about": about,
        },
    )


def load_boundary_model(path: Path, trained: TrainedModel) -> BoundaryFinder:
    """Read a boundary model for use beside a translation model.

    Raises:
        UserError: It is absent, damaged, or was trained on other backbones or frames than the translation model.
    """
    advice = "train one for this model (signstreams boundaries)"
    try:
        content = checkpoint.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected a boundary model; {advice}") from None
    except ValueError as error:
        raise UserError(f"{error}; {advice}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: is not a boundary model, expected a boundary.pt; {advice}")
    ours = {name: trained.backbones.digests[name] for name in trained.backbones.frozen}
    expected = {
        "backbone_sha256": ours,
        "frame_stride": trained.config.data.frame_stride,
        "uses_nodes": trained.config.model.use_mska,
    }
    if other := [name for name, value in expected.items() if content.get(name) != value]:
        raise UserError(f"{path}: was trained beside another model than {trained.path} ({', '.join(other)}); {advice}")
    model = BoundaryModel(stream_widths(trained))
    try:
        checkpoint.check_tensors(content["model"])
        if found := checkpoint.differences(content["model"], model.state_dict()):
            raise ValueError(found[0])
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error}); {advice}") from None
    return BoundaryFinder(model.eval(), int(content["frame_stride"]))


def stream_widths(trained: TrainedModel) -> dict[str, int]:
    """Streams with a frozen backbone, and the widths of their features."""
    return {name: frozen.shape[-1] for name, frozen in trained.backbones.frozen.items()}
