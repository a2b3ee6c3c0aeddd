"""What few crops ask for: batch norm in a narrow head, balanced and sharper targets, positions from the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from signstreams.config.pretrain import PretrainConfig
from signstreams.errors import UserError
from signstreams.pretrain.batch_norm import EPS, BatchNorm
from signstreams.pretrain.choices import SMALL_CROPS, choose
from signstreams.pretrain.head import DinoHead

Make = Callable[..., PretrainConfig]
OPEN = {"dino": {"batch_norm": None, "bottleneck_dim": None}, "sinkhorn": {"use": None}}


@pytest.mark.parametrize(("num_crops", "is_small"), [(500, True), (SMALL_CROPS, True), (SMALL_CROPS + 1, False)])
def test_the_number_of_crops_chooses(make: Make, num_crops: int, is_small: bool) -> None:
    choices = choose(make(**OPEN), num_crops=num_crops, global_batch=8)
    assert (choices.batch_norm, choices.use_sinkhorn) == (is_small, is_small)
    assert choices.bottleneck_dim == (64 if is_small else 256)
    assert choices.teacher_temp == (0.025 if is_small else pytest.approx(0.04, abs=1e-3))


@pytest.mark.parametrize("is_set", [True, False])
def test_a_setting_wins_over_the_number_of_crops(make: Make, is_set: bool) -> None:
    config = make(dino={"batch_norm": is_set, "bottleneck_dim": 32, "teacher_temp": 0.06}, sinkhorn={"use": is_set})
    for num_crops in (100, 10 * SMALL_CROPS):
        choices = choose(config, num_crops=num_crops, global_batch=8)
        assert (choices.batch_norm, choices.use_sinkhorn) == (is_set, is_set)
        assert (choices.bottleneck_dim, choices.teacher_temp) == (32, 0.06)


def test_the_centre_cannot_be_set_where_there_may_be_none(make: Make) -> None:
    make(sinkhorn={"use": False}, dino={"center_momentum": 0.5})
    with pytest.raises((UserError, ValueError), match="center_momentum has no effect"):
        make(sinkhorn={"use": None}, dino={"center_momentum": 0.5})


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
        "from signstreams.pretrain.batch_norm import BatchNorm\n"
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


def _scores(tokens: Tensor, *, batch_norm: bool) -> Tensor:
    head = DinoHead(12, 32, hidden_dim=24, bottleneck_dim=8, fix_prototype_norm=True, batch_norm=batch_norm)
    head.init_weights(torch.Generator().manual_seed(0))
    return head(tokens).detach()


def test_rows_that_are_nearly_equal_score_apart_with_batch_norm_alone() -> None:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 12, generator=rng) + 0.01 * torch.randn(64, 12, generator=rng)
    apart = {norm: float(_scores(tokens, batch_norm=norm).std(dim=0).mean()) for norm in (True, False)}
    assert apart[True] > 0.2
    assert apart[False] < 0.01
