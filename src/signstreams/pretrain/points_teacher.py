"""Points as a teacher: the class token of a global view predicts the shape of its hand or face, where that was seen.

As in SignRep (arXiv 2503.08529), which reconstructs the signer's pose from images. On unseen signers the 21 points of
MediaPipe are the best feature of a hand that is known (docs/evaluate_backbone.md), and crops without points, of which
motion blur makes many, have images all the same. Without such a teacher a face backbone learns whose face it sees,
which tells the crops of a corpus apart, and nothing else (docs/experiments.md). The shape of a face is mostly its
owner's too: it is taken less the mean of its video, which leaves what the face does.

The target is the shape in the whole crop, without place and size, and so the same for every view of it, but for the
view's turn (`augmentation.turn_deg`), which turns the target too: the view does not show what was upright. Only global
views predict it: a local one shows a finger or two, and would teach what is likely of the rest. With iBOT half of them
have masked patches, which leaves the target as it is. Letters: N crops, B of a process, V global views, D width.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.array_types import Floats
from signstreams.engine import distributed
from signstreams.engine.device import to_device
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.pretrain.crop_index import CropIndex
from signstreams.pretrain.crop_points import NUM_POINTS, ROWS, SHAPE_DIM, crop_points, point_shapes
from signstreams.pretrain.selection import by_video

NEEDED_BY = "points.weight"
FACE = "face"
MIN_SEEN = 2  # crops with points, of which a deviation can be taken
_MIN_DEVIATION = 1e-3  # of shapes of length 1: what never moves but turns with its view stays within float16


class ShapeScale(NamedTuple):
    """Mean and deviation of each value of the shapes of the training crops: units of the targets."""

    mean: Floats  # (SHAPE_DIM,) float64
    std: Floats  # (SHAPE_DIM,) float64

    def standardized(self, shapes: Floats) -> Floats:
        """(..., SHAPE_DIM) shapes to float16 targets."""
        return ((shapes - self.mean) / self.std).astype(np.float16)

    def turned(self, targets: Floats, turn_deg: Floats) -> Floats:
        """Targets (..., SHAPE_DIM) of views that show the crop turned clockwise by ``turn_deg`` (...)."""
        points = (targets * self.std + self.mean).reshape(*turn_deg.shape, NUM_POINTS, 2)
        turn = np.radians(turn_deg)[..., None]
        cos, sin, x, y = np.cos(turn), np.sin(turn), points[..., 0], points[..., 1]
        shown = np.stack((cos * x - sin * y, sin * x + cos * y), axis=-1)  # clockwise, as y goes down
        return self.standardized(shown.reshape(targets.shape))


@dataclass(frozen=True)
class PointTargets:
    """What the crops of a run teach: shapes of hands or faces, each value less its mean, over its deviation, in crops
    as they are, not turned.

    Both are of the training crops in which it was seen, so that predicting 0 is to know nothing. NaN rows have no
    points. 168 MB for two million crops; they stay in the training process, and a batch's targets travel with its keys.
    """

    train: Floats  # (N, SHAPE_DIM) float16 of the training crops
    probe: Floats  # (N', SHAPE_DIM) float16 of the held-out crops
    scale: ShapeScale
    digest: str  # of the training crops' points, which alter the weights of a run

    @classmethod
    def of(cls, points: Floats, train: CropIndex, probe: CropIndex, stream: str) -> PointTargets:
        """From the points (N, 21, 2) of the training crops, as `crop_points` has them; those of the others are read.

        Raises:
            UserError: It was seen in next to no crop, or files are absent.
        """
        digest = hashlib.sha256(points.data).hexdigest()  # of these, as other processors round sums differently
        shapes = point_shapes(points)  # (N, SHAPE_DIM)
        means = means_of_videos(shapes, train) if stream == FACE else None
        if means is not None:
            shapes -= means[train.video]
        seen = shapes[~np.isnan(shapes).any(axis=1)]
        if len(seen) < MIN_SEEN:
            raise UserError(
                f"{', '.join(map(str, train.folders))}: {len(seen)} of {len(train):,} crops have points,"
                f" expected {MIN_SEEN} at least for {NEEDED_BY}; leave it out"
            )
        deviation = seen.std(axis=0, dtype=np.float64).clip(_MIN_DEVIATION)
        scale = ShapeScale(seen.mean(axis=0, dtype=np.float64), deviation)
        del seen
        held_out = point_shapes(crop_points(probe, stream, needed_by=NEEDED_BY, streams=tuple(ROWS)))
        if means is not None:
            held_out -= means[probe.video]
        return cls(scale.standardized(shapes), scale.standardized(held_out), scale, digest)

    @property
    def num_seen(self) -> int:
        """Training crops with points."""
        return int((~np.isnan(self.train[:, 0])).sum())


def means_of_videos(shapes: Floats, crops: CropIndex) -> Floats:
    """(V, SHAPE_DIM) float32 mean of the shapes (N, SHAPE_DIM) of each video's crops; NaN where none has points."""
    means = np.full((len(crops.videos), SHAPE_DIM), np.nan, np.float32)
    for video, at in by_video(crops):
        if len(seen := shapes[at][~np.isnan(shapes[at]).any(axis=1)]):
            means[video] = seen.mean(axis=0)
    return means


class PointsHead(nn.Module):
    """Class tokens to the standardised shapes, in float32, under autocast too.

    One layer: what deeper ones can read out of a feature, its neighbours by cosine need not show.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, SHAPE_DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., SHAPE_DIM)."""
        with torch.autocast(tokens.device.type, enabled=False):
            shapes: Tensor = self.linear(tokens.float())
        return shapes

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal of deviation .02, and zero biases: the first predictions are near the mean shape."""
        nn.init.trunc_normal_(self.linear.weight, std=0.02, a=-0.06, b=0.06, generator=generator)
        self.linear.bias.zero_()


def points_losses(predicted: Tensor, targets: Tensor) -> Tensor:
    """Smooth L1 (V, B) of predictions against targets, both (V, B, SHAPE_DIM), mean over values.

    Linear beyond one deviation, since a detector's few errors are large. 0 for NaN targets, and no gradient.
    """
    is_seen = ~targets.isnan().any(dim=-1)  # (V, B)
    each = F.smooth_l1_loss(predicted, targets.nan_to_num(), reduction="none").mean(dim=-1)  # (V, B)
    return each * is_seen


def r_squared(predicted: Tensor, targets: Tensor) -> float:
    """Share of the variance of targets (N, SHAPE_DIM) that predictions explain; NaN where no target was seen.

    About the mean shape of the training crops, which is 0: 1 is perfect, 0 no better than that mean.
    """
    is_seen = ~targets.isnan().any(dim=-1)
    wanted = targets[is_seen].double()
    if not len(wanted):
        return math.nan
    return float(1 - (predicted[is_seen].double() - wanted).square().sum() / wanted.square().sum().clamp_min(1e-12))


class PointsTerm:
    """What the points add to a step beside the head: targets by part of the batch, the loss, its meters.

    The loss is the mean over the views with points of all processes, so that several equal one; 0 where none has any.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.sums = torch.zeros(2, dtype=torch.float64, device=world.device)  # losses of views, views with points
        self._parts: list[Tensor] = []
        self._step = torch.zeros(2, dtype=torch.float64, device=world.device)
        self._views_of_part = torch.ones((), device=world.device)

    def begin(self, targets: Tensor, num_parts: int) -> None:
        """Take over a step's targets (V, B, SHAPE_DIM) of this process; its batch passes the networks in parts."""
        targets = to_device(targets, self.world.device).float()
        seen = (~targets.isnan().any(dim=-1)).sum().double()
        self._step = torch.stack((torch.zeros_like(seen), seen))
        joint = distributed.all_reduce_sum(seen.clone()).clamp_min(1)
        self._views_of_part = (joint / (self.world.size * num_parts)).float()  # gradients are means over processes
        self._parts = list(targets.chunk(num_parts, dim=1))

    def loss(self, part: int, predicted: Tensor) -> Tensor:
        """Loss of a part from the predictions (V, b, SHAPE_DIM) of its global views; to be averaged over the parts."""
        total = points_losses(predicted, self._parts[part]).sum()
        self._step[0] += total.detach()
        return total / self._views_of_part

    def after_step(self, is_bad: Tensor) -> None:
        """Add a step to the meters, unless it was bad."""
        self.sums += torch.where(is_bad, torch.zeros_like(self._step), self._step)

    def read(self) -> dict[str, float]:
        """Mean over the views with points since the last reading, over all processes; then start again."""
        total, count = distributed.all_reduce_sum(self.sums.clone()).tolist()
        self.sums.zero_()
        return {"train/loss_points": total / count if count else math.nan}

    def state_dict(self) -> dict[str, Any]:
        """A copy of the meters."""
        return {"sums": self.sums.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the meters."""
        self.sums = state["sums"].to(self.world.device)
