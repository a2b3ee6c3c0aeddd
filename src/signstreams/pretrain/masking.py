"""Block-wise masks for iBOT: rectangles as in BEiT (Bao et al. 2022), ratios stratified over the batch as in DINOv2.

A view's mask is a pure function of seed, step and its place in the joint batch of all processes. So there is no state
to save, and several processes mask what one process with all of the batch would. Letters: V global views, B crops of
this process, P patches of a view, M masked patches of this process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstreams.array_types import Flags, Ints
from signstreams.config.ibot import IbotConfig
from signstreams.engine.seeding import numpy_rng
from signstreams.engine.transfer import sent

DRAWS = 4  # area, aspect, top, left of one try


@dataclass(frozen=True)
class Masked:
    """What of a batch is masked.

    Attributes:
        masks: (V * B, P) bool.
        rows: (M,) int64, the masked patches as rows of (V * B * P).
        weights: (M,) float32, one over the number of masked patches of the row's view: each view weighs 1.
    """

    masks: Tensor
    rows: Tensor
    weights: Tensor

    @classmethod
    def of(cls, masks: Tensor) -> Masked:
        """From masks (V * B, P)."""
        rows = masks.flatten().nonzero().squeeze(1)  # (M,)
        weights = (1 / masks.sum(dim=1).clamp(min=1).double())[rows // masks.shape[1]].float()
        return cls(masks, rows, weights)

    def parts(self, num_views: int, count: int) -> list[Masked]:
        """Of ``count`` equal parts of the crops, one after the other; before `to`."""
        if count == 1:
            return [self]
        whole = self.masks.unflatten(0, (num_views, -1))  # (V, B, P)
        return [Masked.of(masks.flatten(0, 1)) for masks in whole.chunk(count, dim=1)]

    def to(self, device: torch.device) -> Masked:
        """The same on a device, without waiting for it."""
        return Masked(*(sent(x, device) for x in (self.masks, self.rows, self.weights)))


class BlockMasker:
    """Draws the masks of every step.

    Args:
        config: Shares and sizes.
        grid: Patches along a side of a global view.
        seed: Of the run.
    """

    def __init__(self, config: IbotConfig, grid: int, seed: int) -> None:
        self.config, self.grid, self.seed = config, grid, seed
        self.min_block = config.min_block_patches or max(1, (grid // 3) ** 2)  # iBOT's rule
        self.log_aspect = -math.log(config.min_block_aspect)

    def draw(self, step: int, *, num_views: int, batch: int, rank: int = 0, world_size: int = 1) -> Masked:
        """The masks of this process's global views (V, B) at a step."""
        rng = numpy_rng(self.seed, "masks", step)
        joint = batch * world_size
        targets = self._targets(num_views * joint, rng)  # (V * joint,)
        places = np.arange(num_views * joint).reshape(num_views, joint)
        own = places[:, rank * batch : (rank + 1) * batch].reshape(-1)  # (V * B,)
        masks = self._blocks(targets, own, rng).reshape(len(own), -1)  # (V * B, P)
        rows = np.flatnonzero(masks)
        weights = (1 / masks.sum(axis=1).clip(min=1))[rows // masks.shape[1]]
        return Masked(torch.from_numpy(masks), torch.from_numpy(rows), torch.from_numpy(weights.astype(np.float32)))

    def _targets(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Patches to mask in each of ``count`` views, (count,): 0 in those that stay whole, else at least 1.

        One ratio from each of evenly spaced strata, so that the total hardly differs from step to step.
        """
        low, high = self.config.mask_ratio
        num_masked = max(1, round(self.config.masked_views_ratio * count))
        ratios = low + (high - low) * (np.arange(num_masked) + rng.random(num_masked)) / num_masked
        targets = np.zeros(count, np.int64)
        targets[rng.permutation(count)[:num_masked]] = np.maximum(1, ratios * self.grid**2)  # cut, as DINOv2 does
        return targets

    def _blocks(self, targets: NDArray[np.int64], own: Ints, rng: np.random.Generator) -> Flags:
        """Masks (len(own), grid, grid) of the views ``own``, all of them at once.

        Blocks are added until the target is met; a block that masks nothing new or too much is drawn again, and after
        `max_block_tries` in a row the mask stays as it is, below its target. Every round draws for the views of all
        processes, whoever is done, so that the n-th draw of a view is the same for any number of processes.
        """
        grid = self.grid
        spare = rng.integers(grid**2, size=len(targets))
        masks = np.zeros((len(own), grid, grid), bool)
        missing = targets[own].copy()
        tries = np.zeros(len(own), np.int64)
        at = np.arange(grid)
        while len(open_ := np.flatnonzero((missing > 0) & (tries < self.config.max_block_tries))):
            draws = rng.random((DRAWS, len(targets)))[:, own[open_]]  # (DRAWS, A)
            area = self.min_block + draws[0] * (missing[open_] - self.min_block)
            aspect = np.exp((2 * draws[1] - 1) * self.log_aspect)
            height, width = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
            top, left = (np.floor(u * (grid - side + 1)) for u, side in ((draws[2], height), (draws[3], width)))
            in_rows = (at >= top[:, None]) & (at < (top + height)[:, None])  # (A, grid)
            in_columns = (at >= left[:, None]) & (at < (left + width)[:, None])
            new = in_rows[:, :, None] & in_columns[:, None, :] & ~masks[open_]  # (A, grid, grid)
            gain = new.sum(axis=(1, 2))
            is_good = (height < grid) & (width < grid) & (gain > 0) & (gain <= missing[open_])
            masks[open_[is_good]] |= new[is_good]
            missing[open_] -= np.where(is_good, gain, 0)
            tries[open_] = np.where(is_good, 0, tries[open_] + 1)
        bare = np.flatnonzero((targets[own] > 0) & ~masks.any(axis=(1, 2)))
        masks.reshape(len(own), -1)[bare, spare[own[bare]]] = True  # a view that is to be masked is
        return masks
