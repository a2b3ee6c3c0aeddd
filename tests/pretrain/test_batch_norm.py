"""Batch norm over the rows of all processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from signstreams.pretrain.network import EPS, BatchNorm


def test_batch_norm_is_pytorchs_and_so_is_its_gradient() -> None:
    rng = torch.Generator().manual_seed(0)
    x, weight, bias, seen = (torch.randn(shape, generator=rng) for shape in ((7, 5), (5,), (5,), (7, 5)))
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5, eps=EPS, track_running_stats=False)
    rows = []
    for norm in (ours, theirs):
        norm.weight.data, norm.bias.data = weight.clone(), bias.clone()
        inputs = (3 * x + 100).requires_grad_()
        (norm(inputs) * seen).sum().backward()
        rows.append((norm(inputs), inputs.grad, norm.weight.grad, norm.bias.grad))
    for a, b in zip(*rows, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_batch_norm_of_processes_is_that_of_their_joint_rows(tmp_path: Path) -> None:
    """Uneven rows: outputs and gradients of 2 and of 5 rows are those of all 7."""
    (tmp_path / "rank.py").write_text(
        "import sys, torch\n"
        "from signstreams.engine import distributed\n"
        "from signstreams.pretrain.network import BatchNorm\n"
        "world = distributed.start(distributed=True, device='cpu')\n"
        "rng = torch.Generator().manual_seed(0)\n"
        "x, seen = (torch.randn(7, 5, generator=rng).split((2, 5))[world.rank] for _ in range(2))\n"
        "x = (3 * x + 100).requires_grad_()\n"
        "y = BatchNorm(5)(x)\n"
        "(y * seen).sum().backward()\n"
        "torch.save((y.detach(), x.grad), f'{sys.argv[1]}/{world.rank}.pt')\n"
        "distributed.close()\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launcher, str(tmp_path / "rank.py"), str(tmp_path)], check=True, capture_output=True, timeout=120)
    rng = torch.Generator().manual_seed(0)
    x, seen = (torch.randn(7, 5, generator=rng) for _ in range(2))
    x = (3 * x + 100).requires_grad_()
    y = BatchNorm(5)(x)
    (y * seen).sum().backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for joint, shares in zip((y.detach(), x.grad), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(shares), joint, rtol=1e-4, atol=1e-5)
