"""Cross-entropy of soft targets, piece by piece: against the readable formula, in value, gradient and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from signstreams.pretrain import losses as cross_entropy
from signstreams.pretrain.losses import row_chunks, soft_cross_entropy


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
