"""What shows whether training goes well, gathered on the device and read only on logging steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from signstreams.engine import distributed

NUM_SUMS = 6  # loss, dino, koleo, entropy, gradient norm, steps


class Meters:
    """Sums since the last reading.

    Args:
        num_prototypes: K.
        device: Where the sums live.
    """

    def __init__(self, num_prototypes: int, device: torch.device) -> None:
        self.sums = torch.zeros(NUM_SUMS, dtype=torch.float64, device=device)
        self.target_sum = torch.zeros(num_prototypes, dtype=torch.float64, device=device)
        self.assigned = torch.zeros(num_prototypes, dtype=torch.int64, device=device)
        self.bad_in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self.worst_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(
        self, *, loss: Tensor, dino: Tensor, koleo: Tensor, targets: Tensor, grad_norm: Tensor, is_bad: Tensor
    ) -> None:
        """Take in one step; ``targets`` (T, B, K), the rest scalars. A bad step counts as bad and enters no sum."""
        rows = targets.flatten(0, 1)  # (T * B, K)
        entropy = torch.special.entr(rows).sum(dim=-1).mean()
        step = torch.stack([value.double() for value in (loss, dino, koleo, entropy, grad_norm, torch.ones_like(loss))])
        self.sums += torch.where(is_bad, torch.zeros_like(step), step)
        self.target_sum += torch.where(is_bad, 0.0, rows.mean(dim=0).double())
        self.assigned += torch.bincount(rows.argmax(dim=-1), minlength=rows.shape[1])
        self.bad_in_a_row = torch.where(is_bad, self.bad_in_a_row + 1, 0)
        self.worst_in_a_row = torch.maximum(self.worst_in_a_row, self.bad_in_a_row)

    def read(self) -> dict[str, float]:
        """Means since the last reading over all processes, and start again.

        Entropies are in nats, of the teacher's targets: ``entropy_sample`` the mean of each crop's, ``entropy_batch``
        of the mean target. Healthy: the first well below the second. Both near ln K: nothing learned yet; both near 0:
        collapse onto one prototype. ``kl`` is cross-entropy less ``entropy_sample``.
        """
        sums = distributed.all_reduce_sum(self.sums.clone())
        target_sum = distributed.all_reduce_sum(self.target_sum.clone())
        assigned = distributed.all_reduce_sum(self.assigned.clone())
        loss, dino, koleo, entropy, grad_norm, _ = (sums / sums[-1].clamp_min(1)).tolist()
        mean_target = target_sum / target_sum.sum().clamp_min(1e-12)
        record = {
            "train/loss": loss,
            "train/loss_dino": dino,
            "train/loss_koleo": koleo,
            "teacher/entropy_sample": entropy,
            "teacher/entropy_batch": float(torch.special.entr(mean_target).sum()),
            "teacher/prototypes_used_ratio": float((assigned > 0).double().mean()),
            "train/kl": dino - entropy,
            "train/grad_norm": grad_norm,
        }
        if not float(sums[-1]):  # every step was bad
            record = dict.fromkeys(record, math.nan)
        self.sums.zero_()
        self.target_sum.zero_()
        self.assigned.zero_()
        return record

    def num_bad_in_a_row(self) -> int:
        """The longest run of losses that were not finite."""
        return int(self.worst_in_a_row)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all sums."""
        return {name: value.detach().cpu().clone() for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the sums back."""
        for name, value in vars(self).items():
            setattr(self, name, state[name].to(value.device))


class CollapseWatch:
    """Tells collapse from a slow start, by what `Meters.read` returns.

    Args:
        num_prototypes: K.
        warmup_steps: Nothing is judged before.
        total_steps: Of the run.
        num_patch_prototypes: K of the patches' scores, which are then judged as well.
    """

    PATIENCE = 3  # logged lines in a row
    MIN_BATCH_ENTROPY = 0.05  # of ln K: below, one prototype takes all
    MAX_SAMPLE_ENTROPY = 0.999  # of ln K: above, the targets say nothing
    MIN_STEPS_UNIFORM = 5_000  # every run starts uniform; a long one that still is has failed

    def __init__(
        self, num_prototypes: int, warmup_steps: int, total_steps: int, num_patch_prototypes: int | None = None
    ) -> None:
        self.judged = [("teacher", "crop", "dino", math.log(num_prototypes))]
        if num_patch_prototypes is not None:
            self.judged.append(("patch", "masked patch", "ibot", math.log(num_patch_prototypes)))
        self.first_step = max(warmup_steps, 100)
        self.first_uniform_step = max(self.MIN_STEPS_UNIFORM, total_steps // 2)
        self.strikes = 0

    def judge(self, record: dict[str, float], step: int) -> str | None:
        """A diagnosis, when the last lines all showed collapse."""
        found = [text for one in self.judged if (text := self._diagnosis(record, step, *one))]
        self.strikes = self.strikes + 1 if found else 0
        return found[0] if self.strikes >= self.PATIENCE else None

    def _diagnosis(
        self, record: dict[str, float], step: int, name: str, thing: str, section: str, ln_k: float
    ) -> str | None:
        batch, sample = record[f"{name}/entropy_batch"], record[f"{name}/entropy_sample"]
        if step >= self.first_step and batch < self.MIN_BATCH_ENTROPY * ln_k:
            return (
                f"collapsed by step {step}: one prototype takes every {thing} (entropy of the mean target"
                f" {batch:.3f}, ln K is {ln_k:.2f}); raise {section}.teacher_temp,"
                " lower dino.center_momentum or optim.learning_rate, or use --use-sinkhorn"
            )
        if step >= self.first_uniform_step and sample > self.MAX_SAMPLE_ENTROPY * ln_k:
            return (
                f"no progress by step {step}: the teacher gives every {thing} the same flat answer (entropy"
                f" {sample:.3f} of ln K = {ln_k:.3f}); lower {section}.teacher_temp or"
                " dino.num_prototypes, lower dino.momentum, or use --use-sinkhorn"
            )
        return None
