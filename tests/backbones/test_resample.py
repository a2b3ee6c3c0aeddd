"""Patch embeddings of another patch size keep what they say of a picture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.backbones.vit import resize_patch_embed


def _kernel(side_px: int) -> Tensor:
    return torch.randn(5, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))


def _resized(images: Tensor, side_px: int) -> Tensor:
    return F.interpolate(images, size=(side_px, side_px), mode="bicubic", antialias=True)


@pytest.mark.parametrize(("old_px", "new_px"), [(4, 8), (4, 7), (14, 16)])
def test_an_enlarged_patch_gives_the_token_of_the_small_one(old_px: int, new_px: int) -> None:
    images = torch.rand(6, 3, old_px, old_px, generator=torch.Generator().manual_seed(1))
    kernel = _kernel(old_px)
    found = resize_patch_embed(kernel, new_px)
    assert found.shape == (5, 3, new_px, new_px)
    torch.testing.assert_close(F.conv2d(_resized(images, new_px), found), F.conv2d(images, kernel), rtol=0, atol=1e-4)


def test_a_smaller_kernel_is_the_best_there_is() -> None:
    """No other small kernel comes nearer to the tokens of the large one, over all pictures."""
    kernel, basis = _kernel(8).double(), torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    small = _resized(basis, 4).flatten(1)  # (64, 16): the large pictures that span all others, made small
    expected = torch.linalg.lstsq(small, kernel.flatten(0, 1).flatten(1).T).solution.T  # (15, 16)
    torch.testing.assert_close(resize_patch_embed(kernel, 4).flatten(0, 1).flatten(1), expected)


def test_the_same_size_changes_nothing_and_the_precision_stays() -> None:
    kernel = _kernel(8)
    assert resize_patch_embed(kernel, 8) is kernel
    assert resize_patch_embed(kernel.bfloat16(), 4).dtype == torch.bfloat16
