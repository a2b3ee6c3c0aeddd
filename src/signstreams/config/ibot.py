"""Section of iBOT, the masked patches of a pretraining run. No torch here."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from signstreams.config.base import Section, refuse_without_effect
from signstreams.config.kinds import Count, NotNegative, Positive, Prob, Range, Ratio


class IbotConfig(Section):
    """Masked patches (iBOT, Zhou et al. 2022), beside all of ``dino``; needs algorithm = "ibot"."""

    cls_weight: NotNegative = 1.0
    """Weight of the class token's loss."""
    patch_weight: Positive = 1.0
    """Weight of the patch loss."""
    masked_views_ratio: Ratio = 0.5
    """Share of a step's global views that are masked; exact over all processes together."""
    mask_ratio: Range = [0.1, 0.5]
    """Share of a masked view's patches that is masked; a step's views are spread evenly over this range."""
    min_block_patches: Count | None = None
    """Area that blocks are drawn from, up to what is still to be masked. None: a third of the grid's side, squared."""
    min_block_aspect: Ratio = 0.3
    """Height over width of the flattest block; that of the steepest is its inverse."""
    max_block_tries: Count = 10
    """Draws in a row that may fail to fit before a mask is left below its share."""
    shared_head: bool = True
    """One head for class token and patches; false gives the patches their own."""
    num_prototypes: Count | None = None
    """Output dimension of the patches' own head; None: the class token's."""
    bottleneck_dim: Count | None = None
    """Width before the prototypes of the patches' own head; None: the class token's."""
    warmup_teacher_temp: Positive | None = None
    """Softmax temperature of the teacher's patches at the start; None: the class token's."""
    teacher_temp: Positive | None = None
    """Softmax temperature of the teacher's patches after the warm-up; None: the class token's."""
    teacher_temp_warmup_ratio: Prob | None = None
    """Share of the run over which the temperature of the patches moves; None: the class token's."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_ratio [{low:g}, {high:g}]: expected 0 < low <= high < 1")
        if self.shared_head:
            refuse_without_effect(self, ("num_prototypes", "bottleneck_dim"), "shared_head is true")
        return self
