"""iBOT's patch term (Zhou et al. 2022): its loss, schedule and meters. Letters: M masked patches, K prototypes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from signstreams.config.pretrain import PretrainConfig
from signstreams.engine import distributed
from signstreams.engine.schedules import linear
from signstreams.pretrain.choices import Choices
from signstreams.pretrain.cross_entropy import row_chunks, soft_cross_entropy
from signstreams.pretrain.meters import Meters, count_best

NUM_PATCH_SUMS = 5  # cross-entropy, entropy, masked views, masked patches, patches


def patch_loss(student: Tensor, targets: Tensor, weights: Tensor, *, student_temp: float, num_views: int) -> Tensor:
    """Cross-entropy of the student's masked patches against the teacher's same patches, which it sees unmasked.

    Args:
        student: (M, K) scores, with gradient; M may be 0.
        targets: (M, K) probabilities, without gradient.
        weights: (M,) one over the number of masked patches of the row's view.
        student_temp: Softmax temperature of the student, > 0.
        num_views: Global views of this process, masked or not.

    Returns:
        Mean over each view's masked patches, then over all global views; one without a mask counts as 0, as in iBOT and
        DINOv2. So it is the mean over processes of what each returns, however their masked patches are distributed.
    """
    return soft_cross_entropy(student, targets, student_temp).mul(weights).sum() / num_views


@dataclass(frozen=True)
class PatchChoices:
    """Numbers of the patch term, settled: the class token's, where the config leaves them open."""

    num_prototypes: int
    warmup_teacher_temp: float
    teacher_temp: float
    teacher_temp_warmup_steps: int

    @classmethod
    def of(cls, config: PretrainConfig, choices: Choices) -> PatchChoices:
        """From the run's config and choices."""
        ibot = config.ibot
        ratio = ibot.teacher_temp_warmup_ratio
        teacher_temp = ibot.teacher_temp or choices.teacher_temp
        return cls(
            num_prototypes=ibot.num_prototypes or choices.num_prototypes,
            warmup_teacher_temp=ibot.warmup_teacher_temp or min(choices.warmup_teacher_temp, teacher_temp),
            teacher_temp=teacher_temp,
            teacher_temp_warmup_steps=(
                choices.teacher_temp_warmup_steps if ratio is None else round(ratio * choices.total_steps)
            ),
        )

    def teacher_temp_at(self, step: int) -> float:
        """Softmax temperature of the teacher's patches."""
        return linear(step, self.warmup_teacher_temp, self.teacher_temp, self.teacher_temp_warmup_steps)


class PatchMeters(Meters):
    """`Meters` with those of the patch term.

    Args:
        num_prototypes: K of the class token's scores.
        num_patch_prototypes: K of the patches' scores.
        device: Where the sums live.
    """

    def __init__(self, num_prototypes: int, num_patch_prototypes: int, device: torch.device) -> None:
        super().__init__(num_prototypes, device)
        self.patch_sums = torch.zeros(NUM_PATCH_SUMS, dtype=torch.float64, device=device)
        self.patch_target_sum = torch.zeros(num_patch_prototypes, dtype=torch.float64, device=device)
        self.patch_assigned = torch.zeros(num_patch_prototypes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add_patches(
        self, *, loss: Tensor, targets: Tensor, weights: Tensor, num_views: int, num_patches: int, is_bad: Tensor
    ) -> None:
        """Take in one step: loss and rows as of `patch_loss`, ``num_patches`` of all global views together."""
        entropies = [torch.special.entr(rows).sum(dim=-1) for (rows,) in row_chunks(targets)]
        entropy = torch.cat(entropies) @ weights
        counts = (weights.new_full((), len(weights)), weights.new_full((), num_patches))
        step = torch.stack([value.double() for value in (loss * num_views, entropy, weights.sum(), *counts)])
        self.patch_sums += torch.where(is_bad, torch.zeros_like(step), step)
        self.patch_target_sum += torch.where(is_bad, 0.0, (weights @ targets).double())
        count_best(self.patch_assigned, targets, is_bad)

    def read(self) -> dict[str, float]:
        """As `Meters.read`, and of the masked patches the like; every mean is over masked views, each with weight 1.

        So ``train/loss_patch`` and ln K compare, and ``train/kl_patch`` is never below 0. In ``train/loss`` the term
        weighs ``ibot.patch_weight`` times the share of masked views.
        """
        record = super().read()
        sums = distributed.all_reduce_sum(self.patch_sums.clone())
        target_sum = distributed.all_reduce_sum(self.patch_target_sum.clone())
        assigned = distributed.all_reduce_sum(self.patch_assigned.clone())
        total, entropy, views, masked, patches = sums.tolist()
        mean_target = target_sum / target_sum.sum().clamp_min(1e-12)
        patch_record = {
            "train/loss_patch": total / max(views, 1),
            "train/kl_patch": (total - entropy) / max(views, 1),
            "patch/entropy_sample": entropy / max(views, 1),
            "patch/entropy_batch": float(torch.special.entr(mean_target).sum()),
            "patch/prototypes_used_ratio": float((assigned > 0).double().mean()),
            "patch/masked_ratio": masked / max(patches, 1),
        }
        if not views:  # every step was bad
            patch_record = dict.fromkeys(patch_record, math.nan)
        self.patch_sums.zero_()
        self.patch_target_sum.zero_()
        self.patch_assigned.zero_()
        return record | patch_record
