"""Tells a run that has failed from one that starts slowly, and names the setting to change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from signstreams.config.pretrain_run import MonitorConfig

MIN_STEPS = 100  # and the warm-up: nothing is judged before
MIN_STEPS_FLAT = 5_000  # every run starts flat; a long one that still is has failed
CONFIDENT = 0.5  # of ln K: below, a target names a prototype, so that counting winners means something
FALLEN = 4.0  # features that were this many limits apart, and are below the limit now, have collapsed


class CollapseWatch:
    """Judges lines of metrics.

    Args:
        num_prototypes: K.
        warmup_steps: Nothing is judged before; a phase in which the backbone rests is part of it.
        total_steps: Of the run.
        num_patch_prototypes: K of the patches' scores, which are then judged as well.
        monitor: The limits.
        rows: Targets between two lines, over all processes.
    """

    def __init__(
        self,
        num_prototypes: int,
        warmup_steps: int,
        total_steps: int,
        num_patch_prototypes: int | None = None,
        *,
        monitor: MonitorConfig | None = None,
        rows: int = 256,
    ) -> None:
        self.monitor, self.rows = monitor or MonitorConfig(), rows
        self.judged = [("teacher", "crop", "dino", num_prototypes)]
        if num_patch_prototypes is not None:
            self.judged.append(("patch", "masked patch", "ibot", num_patch_prototypes))
        self.first_step = max(warmup_steps, MIN_STEPS)
        self.first_flat_step = max(MIN_STEPS_FLAT, total_steps // 2)
        self.strikes: dict[str, int] = {}
        self.best_feature_std = 0.0

    def judge(self, record: dict[str, float], step: int) -> str | None:
        """A diagnosis, when the last ``collapse_patience`` lines that could show it all showed the same collapse."""
        for symptom, diagnosis in self._symptoms(record, step):
            self.strikes[symptom] = 0 if diagnosis is None else self.strikes.get(symptom, 0) + 1
            if diagnosis is not None and self.strikes[symptom] >= self.monitor.collapse_patience:
                return diagnosis
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"strikes": dict(self.strikes), "best_feature_std": self.best_feature_std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another process saw."""
        self.strikes = dict(state["strikes"])
        self.best_feature_std = float(state["best_feature_std"])

    def _symptoms(self, record: dict[str, float], step: int) -> Iterator[tuple[str, str | None]]:
        """(name, diagnosis or None) of each symptom that this line can show."""
        if step >= self.first_step and "teacher/entropy_batch" in record:
            for judged in self.judged:
                yield from self._of_targets(record, step, *judged)
        if "probe/feature_std" in record:
            yield "features", self._of_features(record["probe/feature_std"], step)

    def _of_targets(
        self, record: dict[str, float], step: int, name: str, thing: str, section: str, num_prototypes: int
    ) -> Iterator[tuple[str, str | None]]:
        limits, ln_k = self.monitor, math.log(num_prototypes)
        batch, sample = record[f"{name}/entropy_batch"], record[f"{name}/entropy_sample"]
        used = record.get(f"{name}/prototypes_used_ratio", 1.0) * num_prototypes
        one = few = flat = None
        if batch < limits.collapse_min_batch_entropy * ln_k:
            one = (
                f"collapsed by step {step}: one prototype takes every {thing} (entropy of the mean target"
                f" {batch:.3f}, ln K is {ln_k:.2f}); raise {section}.teacher_temp,"
                " lower dino.center_momentum or optim.learning_rate, or use --use-sinkhorn"
            )
        yield f"{name}/one", one
        if sample < CONFIDENT * ln_k and used < limits.collapse_min_prototypes * min(num_prototypes, self.rows):
            few = (
                f"collapsed by step {step}: only {used:.0f} of {num_prototypes} prototypes win any {thing};"
                f" raise {section}.teacher_temp, lower {section}.num_prototypes or optim.learning_rate,"
                " or use --use-sinkhorn"
            )
        yield f"{name}/few", few
        if step >= self.first_flat_step:
            if sample > limits.collapse_max_sample_entropy * ln_k:
                flat = (
                    f"no progress by step {step}: the teacher gives every {thing} the same flat answer (entropy"
                    f" {sample:.3f} of ln K = {ln_k:.3f}); lower {section}.teacher_temp or"
                    " dino.num_prototypes, lower dino.momentum, or use --use-sinkhorn"
                )
            yield f"{name}/flat", flat

    def _of_features(self, feature_std: float, step: int) -> str | None:
        limit = self.monitor.collapse_min_feature_std
        self.best_feature_std = max(self.best_feature_std, feature_std)
        has_fallen = step >= self.first_step and self.best_feature_std > FALLEN * limit
        if not (has_fallen or step >= self.first_flat_step) or not feature_std < limit:
            return None
        return (
            f"collapsed by step {step}: the features of all held-out crops are alike (deviation {feature_std:.4f},"
            " 1 is spread out); set --koleo-weight 0.1 or raise it, lower optim.learning_rate, or raise dino.momentum"
        )
