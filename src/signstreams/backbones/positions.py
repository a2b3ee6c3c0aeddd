"""First values of a position table: where a patch lies, said by sines and cosines of its row and column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SPAN = 16.0
"""Distance of the image's edges in the sines' unit, whatever the grid: small grids are told apart as well as large."""
MAX_STEP = 2.0
"""But no wave is shorter than three patches, which a table resized for local views could not hold."""
LONGEST = 100.0
"""Ratio of the longest to the shortest wavelength, which is 2 pi units."""


def sine_positions(grid: int, dim: int) -> Tensor:
    """(grid * grid, dim) with mean 0 over the grid and deviation 1, row by row; dim divides by 4.

    The sines of Vaswani et al. 2017 in two dimensions, as MoCo v3 and MAE fix them. There they are small beside the
    patches; here they weigh as much, so that a class token of random weights tells of the place of what it sees: k-NN
    on hand photos 43 % in place of 29 %, and pretraining starts from there (docs/experiments.md).
    """
    at = torch.arange(grid, dtype=torch.float64) * min(MAX_STEP, SPAN / grid)  # (G,)
    frequencies = torch.exp(-math.log(LONGEST) * torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = at[:, None] * frequencies  # (G, dim / 4)
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # (G, dim / 2)
    columns = waves[None].expand(grid, -1, -1)  # (G, G, dim / 2)
    rows = waves[:, None].expand(-1, grid, -1)
    table = torch.cat((columns, rows), dim=2).flatten(0, 1)  # (G * G, dim)
    table = table - table.mean(dim=0)
    return (table / table.std(correction=0).clamp_min(1e-6)).float()
