"""Health of a backbone on held-out crops, by hand and at its ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from signstreams.pretrain.health import PROBE_BATCH, assignment_information, embed, feature_std, rank_me


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rank_and_information_fall_when_features_collapse() -> None:
    spread, line = _draw(64, 8), _draw(64, 1) @ _draw(1, 8, seed=1)
    assert rank_me(spread) > 7
    assert rank_me(line) == pytest.approx(1.0, abs=1e-6)
    assert rank_me(spread + 100) == pytest.approx(rank_me(spread), rel=1e-3)  # a common mean says nothing
    assert assignment_information(torch.eye(8) * 100, 0.1) == pytest.approx(math.log(8))
    assert assignment_information(torch.ones(8, 8), 0.1) == pytest.approx(0.0, abs=1e-9)
    assert assignment_information(torch.eye(8)[:1].expand(8, 8) * 100, 0.1) == pytest.approx(0.0, abs=1e-9)
    assert feature_std(spread) > 0.9
    assert feature_std(torch.ones(64, 8)) == 0.0


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_features_along_so_many_equal_axes_have_that_rank(rank: int) -> None:
    axes = torch.cat((torch.eye(8)[:rank], -torch.eye(8)[:rank]))
    assert rank_me(1000 * axes + 5) == pytest.approx(rank, rel=1e-4)


def test_the_rank_is_the_entropy_of_the_singular_values() -> None:
    features = _draw(20, 6).numpy().astype(np.float64) * [1, 2, 3, 4, 5, 6]
    values = np.sqrt(np.linalg.eigvalsh(np.cov(features.T, bias=True)).clip(0))
    shares = values / values.sum()
    assert rank_me(torch.from_numpy(features)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_features_that_are_not_finite_or_all_equal_have_a_rank_all_the_same() -> None:
    assert math.isnan(rank_me(torch.tensor([[1.0, math.inf], [0.0, 1.0]])))
    assert rank_me(torch.ones(4, 3)) == 1.0


def test_information_is_that_of_crop_and_prototype() -> None:
    """Mutual information of a crop drawn at random and its prototype, summed up."""
    scores, temp = _draw(12, 5), 0.4
    q = torch.softmax(scores.double() / temp, dim=-1)
    total = 0.0
    for n in range(12):
        for k in range(5):
            joint = float(q[n, k]) / 12
            total += joint * math.log(joint / (1 / 12 * float(q[:, k].mean())))
    assert assignment_information(scores, temp) == pytest.approx(total, rel=1e-9)
    assert 0 < total < math.log(5)
    sharper = assignment_information(scores, temp / 4)
    assert total < sharper < math.log(5)


def test_the_deviation_is_that_of_directions() -> None:
    features = _draw(50, 7)
    directions = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    expected = directions.std(axis=0, ddof=1).mean() * 7**0.5
    assert feature_std(features) == pytest.approx(expected, rel=1e-5)
    assert feature_std(features * torch.arange(1, 51)[:, None]) == pytest.approx(expected, rel=1e-5)  # any length


@pytest.mark.parametrize("count", [1, PROBE_BATCH, 2 * PROBE_BATCH + 3])
def test_images_are_embedded_in_small_batches_in_their_order(count: int) -> None:
    images = torch.randint(0, 256, (count, 2, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []

    def model(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return (weight * batch.flatten(1)).bfloat16()

    weight = torch.ones((), requires_grad=True)
    found = embed(model, images, lambda batch: batch.float() / 255)
    assert (max(seen) <= PROBE_BATCH, sum(seen)) == (True, count)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(found, images.flatten(1) / 255, rtol=0, atol=0.004)
