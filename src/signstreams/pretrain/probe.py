"""Health of a backbone on held-out crops, without labels: what `checkpoint_best.pt` is chosen by.

The training loss cannot choose: its target moves. The score is the information that a crop's prototype holds about the
crop: 0 when all crops look alike, and 0 when every assignment is flat, so no kind of collapse scores. RankMe (Garrido
et al. 2023) is logged beside it and falls when dimensions are lost; it does not see all features shrink together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PROBE_BATCH = 64


@torch.no_grad()
def embed(model: Callable[[Tensor], Tensor], images: Tensor, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Features of uint8 images (N, side, side, 3) in small batches: (N, D) float32, on the CPU."""
    return torch.cat([model(normalize(batch)).float().cpu() for batch in images.split(PROBE_BATCH)])


def rank_me(features: Tensor) -> float:
    """Effective rank of centred features (N, D): exp of the entropy of their normalised singular values.

    Centred, unlike the paper's: a class token's large mean says nothing about the crops. Between 1 and min(N, D).
    """
    if not torch.isfinite(features).all():
        return math.nan  # the decomposition would not end
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(shares).sum().exp())


def assignment_information(scores: Tensor, temp: float) -> float:
    """Nats that a crop's prototype tells about the crop: entropy of the mean assignment less the mean entropy.

    Args:
        scores: (N, K) of the head.
        temp: Softmax temperature.
    """
    q = F.softmax(scores.double() / temp, dim=-1)
    return float(torch.special.entr(q.mean(dim=0)).sum() - torch.special.entr(q).sum(dim=-1).mean())


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the deviation of unit-length features, times sqrt(D): near 1 spread out, 0 collapsed."""
    x = F.normalize(features.double(), dim=-1)
    return float(x.std(dim=0).mean() * x.shape[1] ** 0.5)
