"""Health of a run: measures on held-out crops, meters of the steps, and a watch for collapse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.engine import distributed

# -- Measures on held-out crops
#
# They choose `checkpoint_best.pt` without labels; the training loss cannot, as its target moves. The score is
# `assignment_information`: 0 when all crops look alike, and 0 when every assignment is flat, so no kind of collapse
# scores. RankMe (Garrido et al. 2023) is logged beside it: it falls when dimensions are lost, but does not see all
# features shrink together.

PROBE_BATCH = 64


@torch.no_grad()
def embed(model: Callable[[Tensor], Tensor], images: Tensor, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Features of uint8 images (N, side, side, 3) in small batches: (N, D) float32, on the CPU."""
    return torch.cat([model(normalize(batch)).float().cpu() for batch in images.split(PROBE_BATCH)])


def rank_me(features: Tensor) -> float:
    """Effective rank of centred features (N, D): exp of the entropy of their normalised singular values.

    Centred, unlike the paper's: a class token's large mean says nothing about the crops. Between 1 and min(N, D).
    """
    if not torch.isfinite(features).all():
        return math.nan  # the decomposition would not end
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(shares).sum().exp())


def assignment_information(scores: Tensor, temp: float) -> float:
    """Nats that a crop's prototype tells about the crop, from scores (N, K) at a softmax temperature.

    It is the entropy of the mean assignment less the mean entropy.
    """
    q = F.softmax(scores.double() / temp, dim=-1)
    return float(torch.special.entr(q.mean(dim=0)).sum() - torch.special.entr(q).sum(dim=-1).mean())


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the deviation of unit-length features, times sqrt(D): near 1 spread out, 0 collapsed."""
    x = F.normalize(features.double(), dim=-1)
    return float(x.std(dim=0).mean() * x.shape[1] ** 0.5)


# -- Meters: gathered on the device, read only on logging steps

NUM_SUMS = 6  # loss, dino, koleo, entropy, gradient norm, steps


def count_best(counts: Tensor, rows: Tensor, is_bad: Tensor) -> None:
    """Add to counts (K,) how many of the rows (N, K) have their maximum there; a bad step adds nothing.

    `bincount`, or skipping the call for a bad step, would wait for a CUDA device.
    """
    best = rows.argmax(dim=-1)  # (N,)
    counts.index_add_(0, best, (~is_bad).to(counts.dtype).expand(len(best)))


def read_and_reset(sums: Tensor, target_sum: Tensor, assigned: Tensor) -> tuple[list[float], float, float]:
    """Sums over all processes, entropy of the mean target, share of prototypes that won a row; all become 0 again.

    The share is of those that could: fewer rows than prototypes cannot win them all.
    """
    totals, targets, winners = (distributed.all_reduce_sum(x.clone()) for x in (sums, target_sum, assigned))
    for x in (sums, target_sum, assigned):
        x.zero_()
    mean_target = targets / targets.sum().clamp_min(1e-12)
    entropy = float(torch.special.entr(mean_target).sum())
    possible = winners.sum().clamp(1, len(winners))
    return totals.tolist(), entropy, float((winners > 0).sum().double() / possible)


class Meters:
    """Sums since the last reading, over K prototypes, on the device."""

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
        """Add one step; ``targets`` (T, B, K), the rest scalars. Sums exclude a bad step, which is counted."""
        rows = targets.flatten(0, 1)  # (T * B, K)
        entropy = torch.special.entr(rows).sum(dim=-1).mean()
        step = torch.stack([value.double() for value in (loss, dino, koleo, entropy, grad_norm, torch.ones_like(loss))])
        self.sums += torch.where(is_bad, torch.zeros_like(step), step)
        self.target_sum += torch.where(is_bad, 0.0, rows.mean(dim=0).double())
        count_best(self.assigned, rows, is_bad)
        self.bad_in_a_row = torch.where(is_bad, self.bad_in_a_row + 1, 0)
        self.worst_in_a_row = torch.maximum(self.worst_in_a_row, self.bad_in_a_row)

    def read(self) -> dict[str, float]:
        """Means since the last reading, over all processes; then start again.

        Entropies are in nats, of the teacher's targets: ``entropy_sample`` is the mean over crops, ``entropy_batch``
        that of the mean target. Healthy: the first well below the second. Both near ln K: nothing learned yet; both
        near 0: collapse onto one prototype. ``kl`` is the cross-entropy less ``entropy_sample``.
        """
        sums, entropy_batch, used = read_and_reset(self.sums, self.target_sum, self.assigned)
        loss, dino, koleo, entropy, grad_norm = (total / max(sums[-1], 1) for total in sums[:-1])
        record = {
            "train/loss": loss,
            "train/loss_dino": dino,
            "train/loss_koleo": koleo,
            "teacher/entropy_sample": entropy,
            "teacher/entropy_batch": entropy_batch,
            "teacher/prototypes_used_ratio": used,
            "train/kl": dino - entropy,
            "train/grad_norm": grad_norm,
        }
        return record if sums[-1] else dict.fromkeys(record, math.nan)  # every step was bad

    def num_bad_in_a_row(self) -> int:
        """Length of the longest run of losses that were not finite."""
        return int(self.worst_in_a_row)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all sums."""
        return {name: value.detach().cpu().clone() for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums."""
        for name, value in vars(self).items():
            setattr(self, name, state[name].to(value.device))


# -- Collapse: tell a run that has failed from one that starts slowly, and name the setting to change

MIN_STEPS = 100  # and the warm-up: nothing is judged before
MIN_STEPS_FLAT = 5_000  # every run starts flat; a long one that still is has failed
CONFIDENT = 0.5  # of ln K: below, a target names a prototype, so that counting winners means something
FALLEN = 4.0  # features that were this many limits apart, and are below the limit now, have collapsed
PATIENCE = 3  # lines in a row: a healthy run may show a symptom once, between two phases
MIN_BATCH_ENTROPY = 0.05  # of ln K: a mean target with less is one prototype taking all
MAX_SAMPLE_ENTROPY = 0.999  # of ln K: targets with more entropy are uninformative
MIN_PROTOTYPES = 0.01  # of the prototypes that could win a target: so many must
MIN_FEATURE_STD = 0.02  # `feature_std`: 1 spread out, 0 all crops alike


class CollapseWatch:
    """Judges lines of metrics, with ``has_patches`` the masked patches' targets as well.

    Nothing is judged before ``warmup_steps``, which include the phase in which only the head learns.
    """

    def __init__(self, num_prototypes: int, warmup_steps: int, total_steps: int, *, has_patches: bool = False) -> None:
        self.num_prototypes = num_prototypes
        self.judged = [("teacher", "crop"), ("patch", "masked patch")][: 1 + has_patches]
        self.first_step = max(warmup_steps, MIN_STEPS)
        self.first_flat_step = max(MIN_STEPS_FLAT, total_steps // 2)
        self.strikes: dict[str, int] = {}
        self.best_feature_std = 0.0

    def judge(self, record: dict[str, float], step: int) -> str | None:
        """A diagnosis, if the last `PATIENCE` lines that can show a symptom all showed it."""
        for symptom, is_shown, diagnosis in self._symptoms(record, step):
            self.strikes[symptom] = self.strikes.get(symptom, 0) + 1 if is_shown else 0
            if self.strikes[symptom] >= PATIENCE:
                return diagnosis
        return None

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs."""
        return {"strikes": dict(self.strikes), "best_feature_std": self.best_feature_std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of another process."""
        self.strikes = dict(state["strikes"])
        self.best_feature_std = float(state["best_feature_std"])

    def _symptoms(self, record: dict[str, float], step: int) -> Iterator[tuple[str, bool, str]]:
        """(name, whether it is shown, diagnosis) of each symptom that this line can show."""
        if step >= self.first_step and "teacher/entropy_batch" in record:
            for judged in self.judged:
                yield from self._symptoms_of_targets(record, step, *judged)
        if "probe/feature_std" in record:
            feature_std = record["probe/feature_std"]
            self.best_feature_std = max(self.best_feature_std, feature_std)
            has_fallen = step >= self.first_step and self.best_feature_std > FALLEN * MIN_FEATURE_STD
            yield (
                "features",
                (has_fallen or step >= self.first_flat_step) and feature_std < MIN_FEATURE_STD,
                f"collapsed by step {step}: the features of all held-out crops are alike (deviation {feature_std:.4f},"
                " 1 is spread out); set --koleo-weight 0.1 or raise it, lower optim.learning_rate, or raise"
                " dino.momentum",
            )

    def _symptoms_of_targets(
        self, record: dict[str, float], step: int, name: str, thing: str
    ) -> Iterator[tuple[str, bool, str]]:
        ln_k = math.log(self.num_prototypes)
        batch, sample = record[f"{name}/entropy_batch"], record[f"{name}/entropy_sample"]
        used = record.get(f"{name}/prototypes_used_ratio", 1.0)
        yield (
            f"{name}/one",
            batch < MIN_BATCH_ENTROPY * ln_k,
            f"collapsed by step {step}: one prototype takes every {thing} (entropy of the mean target {batch:.3f}, ln K"
            f" is {ln_k:.2f}); raise dino.teacher_temp, lower optim.learning_rate, or use --use-sinkhorn",
        )
        yield (
            f"{name}/few",
            sample < CONFIDENT * ln_k and used < MIN_PROTOTYPES,
            f"collapsed by step {step}: only {used:.1%} of the prototypes that could win a {thing} win one;"
            f" raise dino.teacher_temp, lower dino.num_prototypes or optim.learning_rate, or use --use-sinkhorn",
        )
        if step >= self.first_flat_step:
            yield (
                f"{name}/flat",
                sample > MAX_SAMPLE_ENTROPY * ln_k,
                f"no progress by step {step}: the teacher gives every {thing} the same flat answer (entropy"
                f" {sample:.3f} of ln K = {ln_k:.3f}); lower dino.teacher_temp or dino.num_prototypes, lower"
                " dino.momentum, or use --use-sinkhorn",
            )


FLAT_END = 0.99  # of ln K: a run that ends with more has hardly left its start; it is told, not stopped


def flat_end(records: Sequence[Mapping[str, Any]], num_prototypes: int) -> str | None:
    """What the last line of a run's metrics says of one that has learned next to nothing, however short it was.

    Every run starts at ln K: the teacher gives each crop the same flat target, or the student predicts a sharp one no
    better than chance.
    """
    ln_k = math.log(num_prototypes)
    last = next((record for record in reversed(records) if record.get("teacher/entropy_sample") is not None), None)
    if last is None:
        return None
    for key, what in (
        ("teacher/entropy_sample", "the teacher gives every crop the same flat answer: entropy"),
        ("patch/entropy_sample", "the teacher gives every masked patch the same flat answer: entropy"),
        ("train/loss_dino", "the student predicts the teacher no better than chance: loss"),
        ("train/loss_patch", "the student predicts masked patches no better than chance: loss"),
    ):
        value = last.get(key)
        if value is not None and value > FLAT_END * ln_k:
            return (
                f"learned next to nothing by step {last['step']} ({what} {value:.3f}, ln K = {ln_k:.3f}): these"
                " features are hardly better than those of its first weights; train longer, start from weights"
                " (--init), or lower dino.teacher_temp or dino.num_prototypes"
            )
    return None
