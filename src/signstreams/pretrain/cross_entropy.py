"""Cross-entropy of soft targets that reads large scores twice and copies none. Letters: N rows, K prototypes.

By autograd, log-softmax and product of (N, K) cost six tensors of that size, forwards and backwards; with K = 65,536
and the masked patches of a batch that is most of what iBOT adds to a step (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**19
"""Numbers of a piece on a CPU: 2 MB, which stay in its cache from one operation to the next."""


def row_chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (N, ...) in equal pieces of rows, for the first one's size; whole on a GPU, which likes large kernels."""
    first = tensors[0]
    if first.device.type != "cpu" or first.numel() <= CHUNK:
        yield tensors
        return
    rows = max(1, CHUNK // (first.numel() // len(first)))
    yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def soft_cross_entropy(scores: Tensor, targets: Tensor, temp: float) -> Tensor:
    """Cross-entropy (N,) of softmax(scores / temp), in float32.

    Args:
        scores: (N, K), with gradient.
        targets: (N, K) weights, most often probabilities; without gradient.
        temp: Softmax temperature, > 0.
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
