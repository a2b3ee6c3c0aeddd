"""What shows whether training goes well, gathered on the device and read only on logging steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from signstreams.engine import distributed

NUM_SUMS = 6  # loss, dino, koleo, entropy, gradient norm, steps


def count_best(counts: Tensor, rows: Tensor, is_bad: Tensor) -> None:
    """Add to counts (K,) how many rows (N, K) are greatest there, none of a bad step.

    `bincount`, or leaving the call out, would wait for a CUDA device.
    """
    best = rows.argmax(dim=-1)  # (N,)
    counts.index_add_(0, best, (~is_bad).to(counts.dtype).expand(len(best)))


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
        count_best(self.assigned, rows, is_bad)
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
