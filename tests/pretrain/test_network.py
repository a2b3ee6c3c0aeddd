"""Student and teacher networks: projection head, prototypes, and batch normalisation over processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.pretrain.network import EPS, BatchNorm, DinoHead, Prototypes


def test_prototypes_have_length_one() -> None:
    head = DinoHead(4, 6, hidden_dim=8, bottleneck_dim=3)
    head.init_weights(torch.Generator().manual_seed(0))
    tokens = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    scores = head(tokens)
    assert scores.abs().max() <= 1.0 + 1e-6
    with torch.no_grad():
        head.prototypes.weight_v.mul_(5.0)  # the direction alone counts
    assert torch.allclose(head(tokens), scores, atol=1e-6)


def _scores(tokens: Tensor, *, batch_norm: bool) -> Tensor:
    head = DinoHead(12, 32, hidden_dim=24, bottleneck_dim=8, batch_norm=batch_norm)
    head.init_weights(torch.Generator().manual_seed(0))
    return head(tokens).detach()


def test_rows_that_are_nearly_equal_score_apart_with_batch_norm_alone() -> None:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 12, generator=rng) + 0.01 * torch.randn(64, 12, generator=rng)
    apart = {norm: float(_scores(tokens, batch_norm=norm).std(dim=0).mean()) for norm in (True, False)}
    assert apart[True] > 0.2
    assert apart[False] < 0.01


def test_the_first_scores_differ_from_crop_to_crop() -> None:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randn(64, 192, generator=rng) * 0.01 + torch.randn(192, generator=rng)  # as of random weights
    head = DinoHead(192, 16, hidden_dim=32, bottleneck_dim=16)
    head.init_weights(torch.Generator().manual_seed(0))
    before = head(tokens).std(dim=0).mean()
    prototypes = head.prototypes.weight_v.clone()
    head.standardize(tokens)
    assert head(tokens).std(dim=0).mean() > 20 * before
    x = tokens
    for layer in head.mlp:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            torch.testing.assert_close(x.mean(dim=0), torch.zeros(x.shape[1]), rtol=0, atol=1e-4)
            torch.testing.assert_close(x.std(dim=0), torch.ones(x.shape[1]), rtol=0, atol=1e-3)
    assert torch.equal(head.prototypes.weight_v, prototypes)


def test_scores_are_cosines_with_the_prototypes() -> None:
    head = DinoHead(4, 6, hidden_dim=8, bottleneck_dim=3)
    head.init_weights(torch.Generator().manual_seed(0))
    tokens = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    found, directions = head(tokens), head.mlp(tokens)
    for n in range(5):
        for k in range(6):
            expected = F.cosine_similarity(directions[n], head.prototypes.weight_v[k], dim=0)
            torch.testing.assert_close(found[n, k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_first_weights_follow_the_generator_and_the_kind_of_head(batch_norm: bool) -> None:
    states = []
    for seed in (3, 3, 4):
        head = DinoHead(256, 32, hidden_dim=256, bottleneck_dim=64, batch_norm=batch_norm)
        head.init_weights(torch.Generator().manual_seed(seed))
        states.append(head.state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["prototypes.weight_v"], other["prototypes.weight_v"])
    # 1 / sqrt(256) or .02; a normal cut off at three deviations is 1.3 % narrower
    assert float(first["mlp.0.weight"].std()) == pytest.approx(1 / 16 if batch_norm else 0.02, rel=0.03)
    assert all(not first[name].any() for name in first if name.endswith("bias"))
    # a bias before a norm, or a scale before the unit length, would have no effect
    assert ("mlp.0.bias" in first) != batch_norm
    norms = [name for name in first if name.startswith("mlp.") and first[name].ndim == 1 and "weight" in name]
    assert norms == (["mlp.1.weight", "mlp.4.weight"] if batch_norm else [])


def test_a_token_of_any_length_has_the_same_prototypes() -> None:
    layer = Prototypes(3, 4)
    torch.nn.init.normal_(layer.weight_v, generator=torch.Generator().manual_seed(0))
    head = DinoHead(3, 4, hidden_dim=2, bottleneck_dim=3)
    head.mlp, head.prototypes = nn.Sequential(nn.Identity()), layer
    tokens = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(7 * tokens), head(tokens))
    assert torch.isfinite(head(torch.zeros(1, 3))).all()


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


def test_batch_norm_of_processes_is_that_of_their_joint_rows(tmp_path: Path, run_two: Callable[..., None]) -> None:
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
    run_two(tmp_path, tmp_path / "rank.py", str(tmp_path))
    rng = torch.Generator().manual_seed(0)
    x, seen = (torch.randn(7, 5, generator=rng) for _ in range(2))
    x = (3 * x + 100).requires_grad_()
    y = BatchNorm(5)(x)
    (y * seen).sum().backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for joint, shares in zip((y.detach(), x.grad), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(shares), joint, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spread", [0.03, 0.003])
def test_scores_of_nearly_equal_rows_are_right_under_autocast(spread: float) -> None:
    """In bfloat16 their error was 8 % of the differences at .03, and 79 % at .003."""
    rng = torch.Generator().manual_seed(0)
    layer = Prototypes(256, 1024)
    nn.init.normal_(layer.weight_v, generator=rng)
    apart = F.normalize(torch.randn(512, 256, generator=rng), dim=-1)
    x = F.normalize(F.normalize(torch.randn(256, generator=rng), dim=-1) + spread * apart, dim=-1)
    head = DinoHead(256, 1024, hidden_dim=64, bottleneck_dim=256)
    head.mlp, head.prototypes = nn.Sequential(), layer  # the product alone, as the head calls it
    exact = x.double() @ F.normalize(layer.weight_v.double(), dim=-1).T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(x).double()
    signal = (exact - exact.mean(dim=0)).std()
    error = (scores - scores.mean(dim=0)) - (exact - exact.mean(dim=0))
    assert scores.shape == exact.shape and error.std() < 1e-3 * signal
    torch.testing.assert_close(scores, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_autocast_changes_neither_scores_nor_gradients_of_a_head(batch_norm: bool) -> None:
    tokens = 1 + 0.01 * torch.randn(32, 12, generator=torch.Generator().manual_seed(1))
    results = []
    for enabled in (False, True):
        head = DinoHead(12, 32, hidden_dim=24, bottleneck_dim=8, batch_norm=batch_norm)
        head.init_weights(torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            scores = head(tokens)
        scores.square().sum().backward()
        results.append([scores.detach(), *(parameter.grad for parameter in head.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_no_rows_score_nothing_and_leave_finite_gradients() -> None:
    layer = Prototypes(4, 6)
    nn.init.normal_(layer.weight_v)
    scores = layer(torch.zeros(0, 4))
    scores.sum().backward()
    assert scores.shape == (0, 6) and torch.isfinite(layer.weight_v.grad).all()
