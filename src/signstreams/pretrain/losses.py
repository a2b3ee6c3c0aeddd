"""DINO loss (Caron et al. 2021), its targets by centring or Sinkhorn-Knopp, and KoLeo (Sablayrolles et al. 2019).

Letters: T teacher views (the 2 global ones), V student views (the same 2 first, then the local ones), B crops of a
process, N rows, K prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from signstreams.engine import distributed
from signstreams.pretrain.settings import SinkhornConfig

CHUNK = 2**19  # numbers in a chunk on a CPU: 2 MB, which stay in its cache from one operation to the next


def row_chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (N, ...) in chunks of rows, by the first one's size; whole on a GPU, which prefers large kernels."""
    first = tensors[0]
    if first.device.type != "cpu" or first.numel() <= CHUNK:
        yield tensors
        return
    rows = max(1, CHUNK // (first.numel() // len(first)))
    yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def soft_cross_entropy(scores: Tensor, targets: Tensor, temp: float) -> Tensor:
    """Cross-entropy (N,) of softmax(scores / temp), in float32; reads the scores twice and copies none.

    Of scores (N, K), with gradient, and targets (N, K), without: weights, usually probabilities. By autograd,
    log-softmax and product of (N, K) cost six tensors of that size, forward and backward; with K = 65,536 and the
    masked patches of a batch that is most of what iBOT adds to a step (docs/experiments.md).
    """
    losses: Tensor = _SoftCrossEntropy.apply(scores, targets, temp)
    return losses


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor, temp: float) -> Tensor:
        logs, totals, values = (scores.new_empty(len(scores), dtype=torch.float32) for _ in range(3))
        for s, q, log, total, value in row_chunks(scores, targets, logs, totals, values):
            z = s.float() / temp  # (n, K)
            torch.logsumexp(z, dim=-1, out=log)
            torch.sum(q, dim=-1, out=total)
            torch.sub(total * log, torch.linalg.vecdot(q, z), out=value)
        ctx.save_for_backward(scores, targets, logs, totals)
        ctx.temp = temp
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, targets, logs, totals = ctx.saved_tensors
        out = torch.empty_like(scores)
        factors = gradient / ctx.temp  # (N,)
        for s, q, log, total, factor, piece in row_chunks(scores, targets, logs, totals, factors, out):
            p = (s.float() / ctx.temp).sub_(log[:, None]).exp_()  # (n, K)
            piece.copy_(p.mul_(total[:, None]).sub_(q).mul_(factor[:, None]))
        return out, None, None


def dino_loss(student: Tensor, targets: Tensor, *, student_temp: float) -> Tensor:
    """Cross-entropy of every student view against every other teacher view of the same crop.

    Of scores (V, B, K), with gradient, and probabilities (T, B, K), without; teacher view t is student view t. The mean
    over the T * V - T pairs of views and over the crops. Cross-entropy is linear in the target, so each student view
    meets the sum of the other views' targets once. There is no matrix product, which a GPU might round to TF32.
    """
    num_teacher, (num_student, batch, _) = len(targets), student.shape
    assert num_teacher == 2
    both = targets.sum(dim=0).expand(num_student - num_teacher, -1, -1)  # (V - T, B, K)
    wanted = torch.cat((targets.flip(0), both))  # (V, B, K)
    values = soft_cross_entropy(student.flatten(0, 1), wanted.flatten(0, 1), student_temp)  # (V * B,)
    return values.sum() / (batch * (num_teacher * num_student - num_teacher))


class Centre(nn.Module):
    """Moving average of the teacher's scores, subtracted before its softmax.

    The targets of a step use the centre of the steps before; one update a step, over both views and all processes.
    """

    value: Tensor

    def __init__(self, num_prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_prototypes))

    @torch.no_grad()
    def targets(self, teacher: Tensor, temp: float) -> Tensor:
        """Softmax of (scores (..., K) - centre) / temp."""
        rows = teacher.flatten(0, -2)  # (N, K)
        targets = torch.empty_like(rows, dtype=torch.float32)
        for scores, target in row_chunks(rows, targets):
            torch.softmax((scores.float() - self.value).div_(temp), dim=-1, out=target)
        return targets.view(teacher.shape)

    @torch.no_grad()
    def update(self, teacher: Tensor) -> None:
        """Add the scores (..., K) of a step, over the rows of all processes, which may differ in number.

        A batch that is not finite, or has no row at all, leaves the centre unchanged.
        """
        rows = teacher.float().flatten(0, -2)  # (N, K)
        sums = distributed.all_reduce_sum(torch.cat((rows.sum(dim=0), rows.new_full((1,), float(len(rows))))))
        updated = torch.lerp(sums[:-1] / sums[-1], self.value, self.momentum)  # (K,)
        self.value.copy_(torch.where(torch.isfinite(updated).all(), updated, self.value))


@torch.no_grad()
def sinkhorn_targets(teacher: Tensor, *, temp: float, num_iters: int) -> Tensor:
    """Targets in which every prototype gets the same total over the whole batch of all processes.

    Scores (N, K) to distributions (N, K); N may differ between processes, and be 0 in some. Sinkhorn-Knopp as in SwAV
    and DINOv2, in float32, with the factors of the prototypes kept as logarithms (K,): exp of a score by itself would
    underflow for a whole row at a low temperature. A row's factor is its softmax's, so that it always sums to 1. After
    the first round no sum over the rows is below 1 / (N K), since every prototype had a row with 1 / N of it.
    """
    scores = teacher.float()  # (N, K)
    num_rows, num_prototypes = scores.shape
    greatest = scores.amax(dim=0) if num_rows else scores.new_full((num_prototypes,), -torch.inf)
    greatest = distributed.all_reduce_max(greatest / temp)  # (K,)
    total = scores.new_zeros(num_prototypes)
    for (rows,) in row_chunks(scores):
        total += torch.sub(rows / temp, greatest).exp_().sum(dim=0)
    factors = -(greatest + distributed.all_reduce_sum(total).log())  # (K,)
    targets = torch.empty_like(scores)
    for i in range(num_iters):
        if i:
            factors -= distributed.all_reduce_sum(targets.sum(dim=0)).log()
        for rows, target in row_chunks(scores, targets):
            torch.softmax((rows / temp).add_(factors), dim=-1, out=target)
    return targets


def teacher_targets(scores: Tensor, centre: Centre, sinkhorn: SinkhornConfig | None, temp: float) -> Tensor:
    """Targets (..., K) from the teacher's scores (..., K): by Sinkhorn-Knopp, or by centring where that is None."""
    if sinkhorn is None:
        return centre.targets(scores, temp)
    rows = sinkhorn_targets(scores.flatten(0, -2), temp=sinkhorn.eps or temp, num_iters=sinkhorn.iters)
    return rows.view(scores.shape)


def koleo_loss(tokens: Tensor, *, epsilon: float) -> Tensor:
    """-mean log of each embedding's distance to its nearest neighbour in this process's batch, in float32.

    Of the class tokens (B, D) of one view, before the head; B >= 2. ``epsilon`` is added to the distance; 1e-4 keeps
    the gradient of two duplicates finite (1e-8 does not).
    """
    with torch.autocast(tokens.device.type, enabled=False):
        x = F.normalize(tokens.float(), dim=-1)
        with torch.no_grad():
            # in float64, which no GPU rounds to TF32: near a collapse, few bits cannot tell who is nearest
            exact = F.normalize(tokens.double(), dim=-1)
            similarity = exact @ exact.T  # (B, B)
            similarity.fill_diagonal_(-1.0)
            nearest = similarity.argmax(dim=1)
        distance = F.pairwise_distance(x, x[nearest], eps=1e-8)
        return -(distance + epsilon).log().mean()
