"""Batch normalisation over the rows of all processes, with nothing to save: always by the batch at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from signstreams.engine import distributed

EPS = 1e-5


class BatchNorm(nn.Module):
    """Each column of the joint batch to mean 0 and deviation 1, then scaled and shifted by what is learned.

    Without running means: in the teacher as in the student, in training as in evaluation, a row is seen among others
    (DINO's ``use_bn_in_head`` keeps its teacher in training mode). So two processes equal one with the joint batch, and
    a checkpoint holds no state of it. PyTorch's SyncBatchNorm needs a GPU.

    Args:
        dim: Columns.
        affine: Learn scale and shift.
    """

    def __init__(self, dim: int, *, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim) in float32; N may differ between processes."""
        x = x.float()
        count = distributed.all_reduce_sum(x.new_full((), float(len(x)))).clamp_min(1)
        x = x - distributed.joint_sum(x.sum(dim=0)) / count  # (N, dim)
        variance = distributed.joint_sum(x.square().sum(dim=0)) / count  # (dim,)
        x = x * (variance + EPS).rsqrt()
        return x if self.weight is None or self.bias is None else torch.addcmul(self.bias, x, self.weight)
