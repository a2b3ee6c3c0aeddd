"""Rotary positions of DINOv3 (Siméoni et al. 2025): queries and keys of patches are turned by their place in the image.

Written from the paper and checked against timm's networks. There is no table of positions: coordinates run from -1 to 1
over any grid, so that images of every size are read without interpolation. Letters: P patches, d width of a head.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

LONGEST_PERIOD = 100.0
"""Period of the slowest rotation if the frequencies went on to it, as in DINOv3; the fastest has 1, half the image."""


def rotations(rows: int, columns: int, head_dim: int, device: torch.device) -> Tensor:
    """Sines and cosines of every patch's angles, (2, P, d) float32, row by row; ``head_dim`` divides by 4.

    The angles are those of the row in d / 4 frequencies, then those of the column, then both again: a pair of
    dimensions that are turned together lies d / 2 apart.
    """
    return _rotations(rows, columns, head_dim, str(device))


@functools.lru_cache(maxsize=64)
def _rotations(rows: int, columns: int, head_dim: int, device: str) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # what was made under inference could not be trained with later
        # computed on the CPU, so that all devices turn alike
        places = [2 * (torch.arange(count) + 0.5) / count - 1 for count in (rows, columns)]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).flatten(0, 1)  # (P, 2)
        periods = LONGEST_PERIOD ** (4 * torch.arange(head_dim // 4) / head_dim)  # (d / 4,)
        angles = (2 * math.pi * grid[:, :, None] / periods).flatten(1).tile(1, 2)  # (P, d)
        return torch.stack((angles.sin(), angles.cos())).to(device)


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys (B, H, N, d) with those of the last P tokens turned; class token and registers have no place."""
    num_patches = turns.shape[1]
    before, patches = x.split((x.shape[2] - num_patches, num_patches), dim=2)
    sine, cosine = turns  # (P, d) each, float32: products are as exact under bf16
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat((-second, first), dim=-1) * sine  # (B, H, P, d)
    return torch.cat((before, turned.to(x.dtype)), dim=2)
