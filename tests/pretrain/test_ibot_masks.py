"""Masks of iBOT: how many, how evenly, in blocks, and the same for any number of processes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from signstreams.engine.seeding import numpy_rng
from signstreams.pretrain.ibot import DRAWS, BlockMasker, Masked
from signstreams.pretrain.settings import IbotConfig


def _masker(grid: int, seed: int, *, min_block: int | None = None, **changes: Any) -> BlockMasker:
    masker = BlockMasker(IbotConfig().model_copy(update=changes), grid, seed)  # fixed values as well
    masker.min_block = min_block or masker.min_block
    return masker


def _draw(grid: int, step: int = 0, views: int = 2, batch: int = 32, seed: int = 0, **changes: Any) -> Masked:
    return _masker(grid, seed, **changes).draw(step, num_views=views, batch=batch)


def _counts(masked: Masked) -> torch.Tensor:
    """Masked patches of each view, (V * B,)."""
    return masked.masks.sum(dim=1)


def _slow_block_masks(masker: BlockMasker, step: int, num_views: int) -> list[np.ndarray]:
    """BEiT's loops, one view after another; a view's n-th try takes its column of the n-th draw."""
    config, grid, min_block = masker.config, masker.grid, masker.min_block
    rng = numpy_rng(masker.seed, "masks", step)
    num_masked = max(1, round(config.masked_views_ratio * num_views))
    low, high = config.mask_ratio
    ratios = [low + (high - low) * (i + u) / num_masked for i, u in enumerate(rng.random(num_masked))]
    targets = [0] * num_views
    for ratio, view in zip(ratios, rng.permutation(num_views)[:num_masked], strict=True):
        targets[view] = max(1, int(ratio * grid * grid))
    spare = rng.integers(grid * grid, size=num_views)
    rounds = [rng.random((DRAWS, num_views)) for _ in range(500)]
    masks = []
    for view, target in enumerate(targets):
        mask = np.zeros((grid, grid), bool)
        tries, number = 0, 0
        while mask.sum() < target and tries < config.max_block_tries:
            u = rounds[number][:, view]
            number += 1
            tries += 1
            missing = target - mask.sum()
            area = min_block + u[0] * (missing - min_block)
            low_log, high_log = math.log(config.min_block_aspect), -math.log(config.min_block_aspect)
            aspect = math.exp(low_log + u[1] * (high_log - low_log))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= grid or width >= grid:
                continue
            top, left = int(u[2] * (grid - height + 1)), int(u[3] * (grid - width + 1))
            block = np.zeros_like(mask)
            block[top : top + height, left : left + width] = True
            if 0 < (block & ~mask).sum() <= missing:
                mask |= block
                tries = 0
        if target and not mask.any():
            mask.reshape(-1)[spare[view]] = True
        masks.append(mask)
    return masks


@pytest.mark.parametrize(("grid", "changes"), [(14, {}), (6, {"min_block": 2}), (3, {"max_block_tries": 2})])
def test_masks_are_those_of_the_slow_loops(grid: int, changes: dict[str, Any]) -> None:
    for step in range(4):
        masks = _draw(grid, step, batch=16, seed=7, **changes).masks
        slow = _slow_block_masks(_masker(grid, 7, **changes), step, 32)
        assert torch.equal(masks, torch.from_numpy(np.stack(slow).reshape(32, -1)))


def test_blocks_are_drawn_from_a_third_of_the_side_squared() -> None:
    assert [BlockMasker(IbotConfig(), grid, 0).min_block for grid in (2, 6, 14)] == [1, 4, 16]


@pytest.mark.parametrize("grid", [1, 2, 4, 7, 14])
def test_half_of_the_views_are_masked_and_each_of_those_somewhere(grid: int) -> None:
    for step in range(20):
        assert int((_counts(_draw(grid, step)) > 0).sum()) == 32  # of 2 x 32


@pytest.mark.parametrize(("share", "expected"), [(0.25, 16), (1.0, 64), (0.001, 1)])
def test_the_share_of_masked_views_is_as_set(share: float, expected: int) -> None:
    assert int((_counts(_draw(8, masked_views_ratio=share)) > 0).sum()) == expected


def test_ratios_are_spread_evenly_and_shuffled() -> None:
    """The i-th least masked view lies in or below the i-th stratum: a mask may miss its target, never exceed it."""
    tops = [0.1 + 0.4 * (i + 1) / 32 for i in range(32)]
    missed, firsts = [], []
    for step in range(10):
        counts = _counts(_draw(14, step))
        ordered = counts[counts > 0].sort().values
        assert all(count <= top * 196 for count, top in zip(ordered.tolist(), tops, strict=True))
        missed.append(1 - float(ordered.sum()) / (0.3 * 196 * 32))
        firsts.append(float(counts[:32].sum()) / float(counts.sum()))
    assert max(missed) < 0.05  # so the total is nearly the same at every step
    assert 0.35 < np.mean(firsts) < 0.65  # both views alike
    assert len({round(first, 4) for first in firsts}) > 5


def test_the_range_of_ratios_is_as_set() -> None:
    counts = _counts(_draw(14, mask_ratio=[0.6, 0.7], masked_views_ratio=1.0)) / 196
    assert counts.max() <= 0.7
    assert counts.mean() > 0.6


def test_a_mask_is_made_of_rectangles_of_the_least_size() -> None:
    """With one try for a mask, what is masked is one rectangle inside the grid, its sides and area as drawn from."""
    areas, aspects = [], []
    for step in range(40):
        masks = _draw(12, step, masked_views_ratio=1.0, mask_ratio=[0.4, 0.4], min_block=30).masks
        for mask in masks.view(-1, 12, 12).numpy():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
            if mask.sum() == height * width:  # a single block
                areas.append(mask.sum())
                aspects.append(height / width)
    assert len(areas) > 20
    assert min(areas) >= 30 - 6  # sides are rounded
    assert min(aspects) > 0.2
    assert max(aspects) < 5
    assert max(aspects) > 2 > 0.5 > min(aspects)


def test_flat_blocks_come_only_when_allowed() -> None:
    def widest(aspect: float) -> float:
        ratios = []
        for step in range(30):
            changes: dict[str, Any] = {"min_block_aspect": aspect, "min_block": 16}
            for mask in _draw(12, step, mask_ratio=[0.12, 0.12], **changes).masks.view(-1, 12, 12).numpy():
                if mask.any():
                    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                    if mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) >= 15:
                        ratios.append((np.ptp(columns) + 1) / (np.ptp(rows) + 1))
        return max(ratios)

    assert widest(1.0) == 1.0
    assert widest(0.2) > 2.5


def test_rows_and_weights_say_what_the_masks_say() -> None:
    masked = _draw(8, batch=4)
    assert torch.equal(masked.rows, masked.masks.flatten().nonzero()[:, 0])
    views = masked.rows // 64
    sums = torch.zeros(8).index_add_(0, views, masked.weights)
    assert torch.allclose(sums, (_counts(masked) > 0).float())
    assert all(masked.weights[views == view].unique().numel() <= 1 for view in range(8))


def test_processes_mask_what_one_would() -> None:
    masker = BlockMasker(IbotConfig(), 8, 3)
    for step in range(5):
        joint = masker.draw(step, num_views=2, batch=6).masks.view(2, 6, -1)
        parts = [masker.draw(step, num_views=2, batch=2, rank=rank, world_size=3).masks for rank in range(3)]
        assert torch.equal(joint, torch.cat([part.view(2, 2, -1) for part in parts], dim=1))


def test_masks_depend_on_seed_and_step_alone() -> None:
    assert torch.equal(_draw(8, 3).masks, _draw(8, 3).masks)
    assert not torch.equal(_draw(8, 3).masks, _draw(8, 4).masks)
    assert not torch.equal(_draw(8, 3).masks, _draw(8, 3, seed=1).masks)
