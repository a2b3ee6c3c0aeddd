"""Patch embeddings of another patch size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_patch_embed(weight: Tensor, patch_px: int) -> Tensor:
    """Kernel (D, C, p, p) for patches of ``patch_px``: the pseudo-inverse resize of FlexiViT (Beyer et al. 2023).

    A patch enlarged by bicubic interpolation gives the same token under the new kernel as the small one under the old;
    a smaller kernel is the best fit of that in the least-squares sense.
    """
    old_px = weight.shape[-1]
    if old_px == patch_px:
        return weight
    basis = torch.eye(old_px**2, dtype=torch.float64).reshape(old_px**2, 1, old_px, old_px)
    resized = F.interpolate(basis, size=(patch_px, patch_px), mode="bicubic", antialias=True, align_corners=False)
    matrix = resized.reshape(old_px**2, patch_px**2)  # row: where one old pixel goes
    kernel = weight.double().flatten(2) @ torch.linalg.pinv(matrix).T  # (D, C, q * q)
    found: Tensor = kernel.unflatten(2, (patch_px, patch_px))
    return found.to(weight.dtype)
