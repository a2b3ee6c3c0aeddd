"""First values of the position table, and what they make of a class token of random weights."""

from __future__ import annotations

import pytest
import torch

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer, sine_positions


@pytest.mark.parametrize("grid", [2, 4, 14, 37])
def test_positions_are_all_different_and_near_ones_alike(grid: int) -> None:
    table = sine_positions(grid, 192)
    assert table.shape == (grid * grid, 192)
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(192), rtol=0, atol=1e-5)
    assert float(table.std(correction=0)) == pytest.approx(1, abs=1e-4)
    near = torch.cdist(table, table) + torch.eye(grid * grid) * 1e3
    assert float(near.min()) > 1e-2
    if grid > 2:  # the nearest of the middle patch is one beside it
        middle = (grid // 2) * grid + grid // 2
        assert int(near[middle].argmin()) - middle in (-1, 1, -grid, grid)
    rows = table.unflatten(0, (grid, grid))
    torch.testing.assert_close(rows[0, :, :96] - rows[1, :, :96], torch.zeros(grid, 96))  # columns alone
    torch.testing.assert_close(rows[:, 0, 96:] - rows[:, 1, 96:], torch.zeros(grid, 96))


def test_a_class_token_of_first_weights_tells_where() -> None:
    """The same bright patch in two places: the features of first weights differ as much as by what is there."""
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=2)
    model = VisionTransformer(arch).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    images = torch.zeros(3, 3, 32, 32)
    images[0, :, :8, :8] = images[1, :, 24:, 24:] = 2.0
    images[2, :, :8, :8] = -2.0
    with torch.no_grad():
        first, elsewhere, other = model(images)
    assert (first - elsewhere).norm() > 0.3 * (first - other).norm()
