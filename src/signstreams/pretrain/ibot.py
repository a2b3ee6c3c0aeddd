"""iBOT (Zhou et al. 2022): block-wise masks, the patches' targets, loss and meters.

Letters: V global views, B crops of this process, P patches of a view, M masked patches of this process, K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstreams.array_types import Flags, Ints
from signstreams.backbones.archs import ViTArch
from signstreams.engine.device import to_device
from signstreams.engine.distributed import World
from signstreams.engine.seeding import numpy_rng
from signstreams.pretrain.derived_settings import DerivedSettings
from signstreams.pretrain.health import Meters, count_best, read_and_reset
from signstreams.pretrain.losses import Centre, row_chunks, soft_cross_entropy, teacher_targets
from signstreams.pretrain.settings import IbotConfig, PretrainConfig

# -- Masks: rectangles as in BEiT (Bao et al. 2022), ratios stratified over the batch as in DINOv2

DRAWS = 4  # area, aspect, top, left of one try


@dataclass(frozen=True)
class Masked:
    """The masked patches of a batch."""

    masks: Tensor  # (V * B, P) bool
    rows: Tensor  # (M,) int64, the masked patches as rows of (V * B * P)
    weights: Tensor  # (M,) float32, one over the number of masked patches of the row's view, so that each view weighs 1

    @classmethod
    def of(cls, masks: Tensor) -> Masked:
        """From masks (V * B, P)."""
        rows = masks.flatten().nonzero().squeeze(1)  # (M,)
        weights = (1 / masks.sum(dim=1).clamp(min=1).double())[rows // masks.shape[1]].float()
        return cls(masks, rows, weights)

    def parts(self, num_views: int, count: int) -> list[Masked]:
        """The masks of ``count`` equal parts of the crops, one after the other; to be called before `to`."""
        if count == 1:
            return [self]
        whole = self.masks.unflatten(0, (num_views, -1))  # (V, B, P)
        return [Masked.of(masks.flatten(0, 1)) for masks in whole.chunk(count, dim=1)]

    def to(self, device: torch.device) -> Masked:
        """The same on a device, without waiting for it."""
        return Masked(*(to_device(x, device) for x in (self.masks, self.rows, self.weights)))


class BlockMasker:
    """Draws the masks of every step, over ``grid`` x ``grid`` patches of a global view.

    A view's mask is a pure function of seed, step and the view's place in the joint batch of all processes. So there is
    no state to save, and several processes mask what one process with the whole batch would.
    """

    def __init__(self, config: IbotConfig, grid: int, seed: int) -> None:
        self.config, self.grid, self.seed = config, grid, seed
        self.min_block = max(1, (grid // 3) ** 2)  # patches, iBOT's rule
        self.log_aspect = -math.log(config.min_block_aspect)

    def draw(self, step: int, *, num_views: int, batch: int, rank: int = 0, world_size: int = 1) -> Masked:
        """The masks of this process's global views (V, B) at a step."""
        rng = numpy_rng(self.seed, "masks", step)
        joint = batch * world_size
        targets = self._targets(num_views * joint, rng)  # (V * joint,)
        places = np.arange(num_views * joint).reshape(num_views, joint)
        own = places[:, rank * batch : (rank + 1) * batch].reshape(-1)  # (V * B,)
        return Masked.of(torch.from_numpy(self._blocks(targets, own, rng).reshape(len(own), -1)))  # (V * B, P)

    def _targets(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Number of patches to mask in each of ``count`` views, (count,): 0 in those that stay whole, else at least 1.

        One ratio is drawn from each of evenly spaced strata, so that the total hardly differs from step to step.
        """
        low, high = self.config.mask_ratio
        num_masked = max(1, round(self.config.masked_views_ratio * count))
        ratios = low + (high - low) * (np.arange(num_masked) + rng.random(num_masked)) / num_masked
        targets = np.zeros(count, np.int64)
        targets[rng.permutation(count)[:num_masked]] = np.maximum(1, ratios * self.grid**2)  # cut, as DINOv2 does
        return targets

    def _blocks(self, targets: NDArray[np.int64], own: Ints, rng: np.random.Generator) -> Flags:
        """Masks (len(own), grid, grid) of the views ``own``, all at once.

        Blocks are added until the target is met; a block that masks nothing new or too much is drawn again, and after
        `max_block_tries` failures in a row the mask stays below its target. Every round draws for the views of all
        processes, finished or not, so that the n-th draw of a view is the same for any number of processes.
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
        masks.reshape(len(own), -1)[bare, spare[own[bare]]] = True  # no view of a target stays whole
        return masks


# -- Loss and meters

NUM_PATCH_SUMS = 5  # cross-entropy, entropy, masked views, masked patches, patches


def patch_loss(student: Tensor, targets: Tensor, weights: Tensor, *, student_temp: float, num_views: int) -> Tensor:
    """Cross-entropy of the student's masked patches against the teacher's same patches, which it sees unmasked.

    Of scores (M, K), with gradient, and probabilities (M, K), without; M may be 0. The mean over each view's masked
    patches, by ``weights`` as in `Masked`, then over all global views of this process; one without a mask counts as 0,
    as in iBOT and DINOv2. So the loss is the mean over processes, however their masked patches are distributed.
    """
    return soft_cross_entropy(student, targets, student_temp).mul(weights).sum() / num_views


class PatchMeters(Meters):
    """`Meters` with those of the patch term; K is the same for class tokens and patches."""

    def __init__(self, num_prototypes: int, device: torch.device) -> None:
        super().__init__(num_prototypes, device)
        self.patch_sums = torch.zeros(NUM_PATCH_SUMS, dtype=torch.float64, device=device)
        self.patch_target_sum = torch.zeros(num_prototypes, dtype=torch.float64, device=device)
        self.patch_assigned = torch.zeros(num_prototypes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add_patches(
        self, *, loss: Tensor, targets: Tensor, weights: Tensor, num_views: int, num_patches: int, is_bad: Tensor
    ) -> None:
        """Add one step: loss and rows as in `patch_loss`, ``num_patches`` of all global views together."""
        entropies = [torch.special.entr(rows).sum(dim=-1) for (rows,) in row_chunks(targets)]
        entropy = torch.cat(entropies) @ weights
        counts = (weights.new_full((), len(weights)), weights.new_full((), num_patches))
        step = torch.stack([value.double() for value in (loss * num_views, entropy, weights.sum(), *counts)])
        self.patch_sums += torch.where(is_bad, torch.zeros_like(step), step)
        self.patch_target_sum += torch.where(is_bad, 0.0, (weights @ targets).double())
        count_best(self.patch_assigned, targets, is_bad)

    def read(self) -> dict[str, float]:
        """As `Meters.read`, and the same of the masked patches, as means over masked views, each with weight 1.

        So ``train/loss_patch`` compares with ln K, and ``train/kl_patch`` is never below 0. In ``train/loss`` the term
        weighs ``ibot.patch_weight`` times the share of masked views.
        """
        record = super().read()
        sums, entropy_batch, used = read_and_reset(self.patch_sums, self.patch_target_sum, self.patch_assigned)
        total, entropy, views, masked, patches = sums
        patch_record = {
            "train/loss_patch": total / max(views, 1),
            "train/kl_patch": (total - entropy) / max(views, 1),
            "patch/entropy_sample": entropy / max(views, 1),
            "patch/entropy_batch": entropy_batch,
            "patch/prototypes_used_ratio": used,
            "patch/masked_ratio": masked / max(patches, 1),
        }
        return record | (patch_record if views else dict.fromkeys(patch_record, math.nan))  # every step was bad


class PatchTerm:
    """What iBOT adds to a DINO step beside `patch_loss`: masks and targets of the patches, their centre and meters."""

    def __init__(self, config: PretrainConfig, derived: DerivedSettings, arch: ViTArch, world: World) -> None:
        self.world = world
        self.masker = BlockMasker(config.ibot, config.augmentation.global_px // arch.patch_px, config.seed)
        self.sinkhorn = config.sinkhorn if derived.use_sinkhorn else None
        self.centre = Centre(derived.num_prototypes, config.dino.center_momentum).to(world.device)
        self.meters = PatchMeters(derived.num_prototypes, world.device)

    def draw(self, step: int, num_views: int, batch: int, num_parts: int = 1) -> list[Masked]:
        """The masks of this process's global views (V, B) at a step, on the device, by parts of the batch."""
        world = self.world
        masked = self.masker.draw(step, num_views=num_views, batch=batch, rank=world.rank, world_size=world.size)
        return [part.to(world.device) for part in masked.parts(num_views, num_parts)]

    def targets(self, teacher: Tensor, temp: float) -> Tensor:
        """Targets (M, K) of the teacher's scores, balanced over the masked patches of all processes."""
        return teacher_targets(teacher, self.centre, self.sinkhorn, temp)

    @torch.no_grad()
    def after_step(self, loss: Tensor, teacher: Tensor, targets: Tensor, masked: list[Masked], is_bad: Tensor) -> None:
        """Update centre and meters with the scores and targets (M, K) of a step's parts, one after the other."""
        if self.sinkhorn is None:
            self.centre.update(teacher)
        self.meters.add_patches(
            loss=loss.detach(),
            targets=targets,
            weights=torch.cat([part.weights for part in masked]),
            num_views=sum(len(part.masks) for part in masked),
            num_patches=sum(part.masks.numel() for part in masked),
            is_bad=is_bad,
        )
