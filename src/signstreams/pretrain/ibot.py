"""What iBOT (Zhou et al. 2022) adds to a DINO step: masks, the patches' targets and loss, their centre and meters."""

from __future__ import annotations

import torch
from torch import Tensor

from signstreams.backbones.archs import ViTArch
from signstreams.config.pretrain import PretrainConfig
from signstreams.engine.distributed import World
from signstreams.pretrain.choices import Choices
from signstreams.pretrain.losses import Centre, teacher_targets
from signstreams.pretrain.masking import BlockMasker, Masked
from signstreams.pretrain.patch_losses import PatchChoices, PatchMeters, patch_loss


class PatchTerm:
    """The patch term of a run.

    Args:
        config: As the user gave it.
        choices: What it left open, settled.
        arch: Shape of the backbone.
        world: This process among the others.
    """

    def __init__(self, config: PretrainConfig, choices: Choices, arch: ViTArch, world: World) -> None:
        self.config, self.world = config, world
        self.choices = PatchChoices.of(config, choices)
        self.masker = BlockMasker(config.ibot, config.augmentation.global_px // arch.patch_px, config.seed)
        self.sinkhorn = config.sinkhorn if choices.use_sinkhorn else None
        self.centre = Centre(self.choices.num_prototypes, config.dino.center_momentum).to(world.device)
        self.meters = PatchMeters(choices.num_prototypes, self.choices.num_prototypes, world.device)

    def draw(self, step: int, num_views: int, batch: int, num_parts: int = 1) -> list[Masked]:
        """The masks of this process's global views (V, B) at a step, on the device, by parts of the batch."""
        world = self.world
        masked = self.masker.draw(step, num_views=num_views, batch=batch, rank=world.rank, world_size=world.size)
        return [part.to(world.device) for part in masked.parts(num_views, num_parts)]

    def loss(self, student: Tensor, targets: Tensor, masked: Masked) -> Tensor:
        """`patch_loss` of the masked patches' scores (M, K)."""
        return patch_loss(
            student,
            targets,
            masked.weights,
            student_temp=self.config.dino.student_temp,
            num_views=len(masked.masks),
        )

    def targets(self, teacher: Tensor, temp: float) -> Tensor:
        """Targets (M, K) of the teacher's scores, balanced over the masked patches of all processes."""
        return teacher_targets(teacher, self.centre, self.sinkhorn, temp)

    @torch.no_grad()
    def after_step(self, loss: Tensor, teacher: Tensor, targets: Tensor, masked: list[Masked], is_bad: Tensor) -> None:
        """Centre and meters take in a step: scores and targets (M, K) of its parts, one after the other."""
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
