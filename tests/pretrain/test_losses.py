"""DINO loss, targets by centring and Sinkhorn-Knopp, KoLeo, and the cross-entropy that copies no scores."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.pretrain import losses as cross_entropy
from signstreams.pretrain.losses import Centre, dino_loss, koleo_loss, row_chunks, sinkhorn_targets, soft_cross_entropy


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _slow_dino(student: Tensor, targets: Tensor, temp: float) -> float:
    """Nested loops over views, as in facebookresearch/dino."""
    total, pairs = 0.0, 0
    for t in range(len(targets)):
        for v in range(len(student)):
            if t == v:
                continue
            for b in range(student.shape[1]):
                p = torch.softmax(student[v, b] / temp, dim=0)
                total -= float((targets[t, b] * p.log()).sum()) / student.shape[1]
            pairs += 1
    return total / pairs


@pytest.mark.parametrize("num_views", [2, 5, 10])
def test_the_dino_loss_is_the_mean_over_all_pairs_but_the_same_view(num_views: int) -> None:
    student, targets = _scores(num_views, 3, 7), _scores(2, 3, 7, seed=1).softmax(dim=-1)
    expected = _slow_dino(student, targets, 0.1)
    assert float(dino_loss(student, targets, student_temp=0.1)) == pytest.approx(expected, rel=1e-5)


def test_a_view_does_not_learn_from_itself() -> None:
    targets = _scores(2, 3, 7, seed=1).softmax(dim=-1)
    student = _scores(2, 3, 7).requires_grad_()
    changed = targets.clone()
    changed[0] = changed[0].roll(1, dims=-1)
    first = torch.autograd.grad(dino_loss(student, targets, student_temp=0.1), student)[0]
    second = torch.autograd.grad(dino_loss(student, changed, student_temp=0.1), student)[0]
    assert torch.equal(first[0], second[0])  # view 0 is taught by view 1 alone
    assert not torch.equal(first[1], second[1])


def test_a_permuted_batch_keeps_its_loss() -> None:
    student, targets = _scores(4, 6, 5), _scores(2, 6, 5, seed=1).softmax(dim=-1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    assert float(dino_loss(student[:, order], targets[:, order], student_temp=0.1)) == pytest.approx(
        float(dino_loss(student, targets, student_temp=0.1)), rel=1e-5
    )


def test_knowing_nothing_costs_the_logarithm_of_the_prototypes() -> None:
    student, targets = torch.zeros(4, 3, 32), torch.full((2, 3, 32), 1 / 32)
    assert float(dino_loss(student, targets, student_temp=0.1)) == pytest.approx(math.log(32))


def test_the_centre_of_a_step_is_used_from_the_next_one_on() -> None:
    centre, scores = Centre(5, momentum=0.9), _scores(2, 4, 5)
    assert torch.allclose(centre.targets(scores, 0.04), F.softmax(scores / 0.04, dim=-1))
    centre.update(scores)
    expected = 0.1 * scores.flatten(0, 1).mean(dim=0)
    assert torch.allclose(centre.value, expected)
    assert torch.allclose(centre.targets(scores, 0.04), F.softmax((scores - expected) / 0.04, dim=-1))
    centre.update(scores)
    assert torch.allclose(centre.value, 0.9 * expected + expected)


def test_a_batch_that_is_not_finite_leaves_the_centre_alone() -> None:
    centre = Centre(3, momentum=0.5)
    centre.update(torch.ones(2, 4, 3))
    centre.update(torch.full((2, 4, 3), float("nan")))
    assert torch.equal(centre.value, torch.full((3,), 0.5))


def _slow_sinkhorn(scores: Tensor, temp: float, num_iters: int) -> Tensor:
    """DINOv2's notation: Q is (K, B)."""
    q = torch.exp(scores.double() / temp).T
    prototypes, rows = q.shape
    q = q / q.sum()
    for _ in range(num_iters):
        q = q / q.sum(dim=1, keepdim=True) / prototypes
        q = q / q.sum(dim=0, keepdim=True) / rows
    return (q * rows).T


def test_sinkhorn_follows_its_formula() -> None:
    scores = _scores(12, 5)
    result = sinkhorn_targets(scores, temp=0.5, num_iters=3)
    torch.testing.assert_close(result.double(), _slow_sinkhorn(scores, 0.5, 3), rtol=1e-4, atol=1e-6)
    assert torch.allclose(result.sum(dim=1), torch.ones(12))


def test_sinkhorn_gives_every_prototype_the_same_share() -> None:
    lopsided = _scores(200, 4) + torch.tensor([3.0, 0.0, 0.0, 0.0])
    shares = sinkhorn_targets(lopsided, temp=0.5, num_iters=50).mean(dim=0)
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=1e-3)


@pytest.mark.parametrize("temp", [1.0, 0.1, 0.04, 0.025, 0.01, 0.003, 1e-4])
def test_sinkhorn_targets_sum_to_one_at_any_temperature(temp: float) -> None:
    """By a float64 sum of logarithms, row by row; rows far below the greatest score had targets of 0 before."""
    scores = F.normalize(_scores(48, 8), dim=-1) @ F.normalize(_scores(8, 32, seed=1), dim=0)  # cosines
    scores[:8] -= 0.9  # rows without any great score
    log_q = scores.double() / temp
    for _ in range(3):
        log_q = log_q - log_q.logsumexp(dim=0, keepdim=True)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    result = sinkhorn_targets(scores, temp=temp, num_iters=3)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(48), rtol=0, atol=1e-6)
    # float32 scores over the temperature are known to 6e-8 / temp
    torch.testing.assert_close(result.double(), log_q.exp(), rtol=0, atol=max(1e-6, 1e-6 * 0.04 / temp))


def test_sinkhorn_survives_great_scores() -> None:
    result = sinkhorn_targets(_scores(6, 4) * 1e4, temp=0.04, num_iters=3)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result.sum(dim=1), torch.ones(6))


def test_sinkhorn_in_pieces_of_rows_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _scores(33, 16)
    whole = sinkhorn_targets(scores, temp=0.1, num_iters=3)
    monkeypatch.setattr(cross_entropy, "CHUNK", 64)
    torch.testing.assert_close(sinkhorn_targets(scores, temp=0.1, num_iters=3), whole, rtol=1e-5, atol=1e-7)


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbour() -> None:
    tokens = _scores(6, 4)
    x = F.normalize(tokens, dim=-1)
    total = 0.0
    for i in range(6):
        nearest = min(float((x[i] - x[j]).norm()) for j in range(6) if j != i)
        total -= math.log(nearest + 1e-4)
    assert float(koleo_loss(tokens, epsilon=1e-4)) == pytest.approx(total / 6, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_duplicates_leave_koleo_and_its_gradient_finite(dtype: torch.dtype) -> None:
    tokens = _scores(4, 8).to(dtype)
    tokens[1] = tokens[0]
    tokens.requires_grad_()
    loss = koleo_loss(tokens, epsilon=1e-4)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, tokens)[0]).all()


def test_koleo_finds_the_nearest_near_a_collapse() -> None:
    tokens = torch.ones(128, 384) + 1e-3 * torch.randn(128, 384, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.normalize(tokens, dim=-1).double()
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(9).amin(dim=1)
    expected = -(distance + 1e-4).log().mean()
    assert float(koleo_loss(tokens, epsilon=1e-4)) == pytest.approx(float(expected), rel=1e-5)


def test_koleo_pushes_neighbours_apart() -> None:
    tokens = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]], requires_grad=True)
    gradient = torch.autograd.grad(koleo_loss(tokens, epsilon=1e-4), tokens)[0]
    moved = tokens.detach() - 0.001 * gradient
    assert F.cosine_similarity(moved[0], moved[1], dim=0) < F.cosine_similarity(tokens[0], tokens[1], dim=0)


def _slow(scores: Tensor, targets: Tensor, temp: float) -> Tensor:
    return -(targets * torch.log_softmax(scores.double() / temp, dim=-1)).sum(dim=-1)


@pytest.mark.parametrize("num_rows", [0, 1, 7, 64])
@pytest.mark.parametrize("chunk", [10, 2**19])
def test_values_and_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, num_rows: int, chunk: int
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    scores = (5 * torch.randn(num_rows, 31)).requires_grad_()
    targets = 1.3 * torch.rand(num_rows, 31).softmax(dim=-1)  # need not sum to 1
    weights = torch.rand(num_rows)
    results = []
    for function in (_slow, soft_cross_entropy):
        values = function(scores, targets, 0.1)
        (gradient,) = torch.autograd.grad((values * weights).sum(), scores)
        results.append((values.detach().float(), gradient))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_scores_in_bfloat16_get_a_float32_loss_and_a_gradient_of_their_own_type() -> None:
    scores = torch.randn(6, 31).bfloat16().requires_grad_()
    targets = torch.rand(6, 31).softmax(dim=-1)
    values = soft_cross_entropy(scores, targets, 0.1)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, _slow(scores, targets, 0.1).float(), rtol=1e-5, atol=1e-5)
    values.sum().backward()
    assert scores.grad.dtype == torch.bfloat16


def test_great_scores_do_not_overflow() -> None:
    scores = torch.tensor([[1e4, 0.0], [-1e4, 1e4]], requires_grad=True)
    values = soft_cross_entropy(scores, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), 0.1)
    values.sum().backward()
    assert values.tolist() == [1e5, 0.0]
    assert torch.isfinite(scores.grad).all()


def test_nothing_but_the_inputs_and_two_numbers_a_row_is_kept() -> None:
    kept: list[int] = []
    scores, targets = torch.randn(6, 31, requires_grad=True), torch.rand(6, 31)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        soft_cross_entropy(scores, targets, 0.1).sum()
    assert sum(kept) == 2 * 6 * 31 + 2 * 6


def test_pieces_are_of_rows_and_cover_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 20)
    x = torch.arange(56.0).view(7, 8)
    pieces = list(row_chunks(x, torch.arange(7)))
    assert [len(piece) for piece, _ in pieces] == [2, 2, 2, 1]
    assert torch.equal(torch.cat([piece for piece, _ in pieces]), x)
    assert torch.cat([rows for _, rows in pieces]).tolist() == list(range(7))
    assert [len(piece) for (piece,) in row_chunks(torch.zeros(3, 50))] == [1, 1, 1]  # a row is not cut
