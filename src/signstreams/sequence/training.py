"""Sequence pretraining as a stage of a run: batches of windows with something hidden, the step, scores on val."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.array_types import Flags, Ints
from signstreams.engine.device import autocast, to_device
from signstreams.engine.schedules import warmup_cosine
from signstreams.engine.seeding import numpy_rng, seed_global
from signstreams.engine.training_run import Record, Stage, TrainingRun
from signstreams.errors import UserError
from signstreams.formats.layout import SEQUENCE_FILES, STATE
from signstreams.integrate.batches import Batch, BatchPlan, batches_by_length, collate
from signstreams.integrate.corpus_rules import num_steps
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.evaluate import Sums, add_sum
from signstreams.integrate.training import decays
from signstreams.prefetch import prefetch
from signstreams.sequence.model import SequenceModel
from signstreams.sequence.settings import SequenceConfig
from signstreams.sequence.targets import NO_TARGET, Clusters, draw_mask, hidden_targets, hide, repeated

log = logging.getLogger(__name__)

EVALUATIONS = 20
"""Of a run, on val, spread evenly: enough to see a curve, and to keep the best of these models."""
BAD_LOSS_HINT = "lower optim.lr, or use --optim-precision fp32"


@dataclass(frozen=True)
class HiddenBatch:
    """Windows in which something is hidden, and what that is."""

    batch: Batch  # without what is hidden
    targets: dict[str, Tensor]  # stream to (B, S) int64, `NO_TARGET` where nothing is to be predicted
    repeats: dict[str, Ints] = field(default_factory=dict)
    """Stream to (B, S), the cluster of the nearest step that is seen; only where scores want it."""

    def to(self, device: torch.device) -> HiddenBatch:
        """On another device."""
        targets = {stream: to_device(tensor, device) for stream, tensor in self.targets.items()}
        return HiddenBatch(self.batch.to(device), targets, self.repeats)


@dataclass
class State:
    """Progress of a run; saved with each checkpoint."""

    step: int = 0  # optimiser steps done
    best_loss: float = math.inf  # loss of best.pt on val
    window: Sums = field(default_factory=dict)  # what was measured since the last line of metrics


class SequenceTrainer(Stage[HiddenBatch]):
    """Trains one network, which is on its device. Checkpoints hold ``describe``, plain values, besides weights."""

    label = "sequence"

    def __init__(
        self,
        config: SequenceConfig,
        model: SequenceModel,
        clusters: Clusters,
        splits: dict[str, ClipDataset],
        run: TrainingRun,
        describe: dict[str, Any],
    ) -> None:
        self.config, self.model, self.clusters, self.splits = config, model, clusters, splits
        self.run, self.device, self.describe = run, run.world.device, describe
        self.plan = BatchPlan(splits["train"].lengths, config.data.batch_size, 1, config.seed)
        self.total_steps = config.train.epochs * self.plan.steps_per_epoch
        if config.train.max_train_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_train_steps)
        self.checkpoint_steps = config.train.checkpoint_steps
        self.eval_steps = max(1, self.total_steps // EVALUATIONS)
        self.shown = {}
        named = list(model.named_parameters())
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for name, p in named if decays(name, p) == has_decay], "weight_decay": decay}
                for has_decay, decay in ((True, config.optim.weight_decay), (False, 0.0))
            ],
            lr=config.optim.lr,
        )
        self.state = State()
        self.num_bad = 0

    @property
    def step(self) -> int:
        return self.state.step

    def state_dict(self) -> dict[str, Any]:
        """Content of ``last.pt``."""
        trained = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**self.describe, **trained, "state": vars(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the content of ``last.pt``; a `UserError` if it belongs to another network."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.state = State(**state["state"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.config.output_dir / STATE / SEQUENCE_FILES['last']}: does not fit this network ({reason});"
                " start from scratch with --resume never --on-conflict archive"
            ) from None

    @staticmethod
    def step_of(state: dict[str, Any]) -> int:
        return int(state["state"]["step"])

    def check_best(self) -> None:
        """Refuse to end without a best network: the loss was not finite in any evaluation."""
        if not math.isfinite(self.state.best_loss):
            raise UserError(
                f"{self.config.output_dir}: no evaluation had a finite loss, expected one to keep as best.pt;"
                f" {BAD_LOSS_HINT}, in a new --output-dir"
            )

    def batches(self) -> Generator[HiddenBatch, None, None]:
        """The batches of all steps to come."""
        with prefetch((self._read(step) for step in range(self.step, self.total_steps)), 1) as ready:
            yield from ready

    def train_step(self, batch: HiddenBatch) -> None:
        """One optimiser step; waits for the device once."""
        started_s, step, optim = time.perf_counter(), self.step, self.config.optim
        lr = warmup_cosine(
            step,
            peak=optim.lr,
            final=optim.lr * optim.final_lr_ratio,
            warmup_steps=round(optim.warmup_ratio * self.total_steps),
            total_steps=self.total_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        seed_global(self.config.seed, "sequence step", step)  # dropout: the same in a resumed run
        self.optimizer.zero_grad(set_to_none=True)
        counts = {stream: int((targets != NO_TARGET).sum()) for stream, targets in batch.targets.items()}
        measured = self._measure(batch.to(self.device))
        total = torch.stack([loss for loss, _ in measured.values()]).sum()
        (total / max(1, sum(counts.values()))).backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, optim.clip_grad_norm)
        # the one wait for the device in a step
        stacked = [norm, *(value.detach() for pair in measured.values() for value in pair)]
        grad_norm, *numbers = torch.stack(stacked).tolist()
        losses = dict(zip(measured, numbers[::2], strict=True))
        loss = sum(losses.values()) / max(1, sum(counts.values()))
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.optimizer.step()
        for (stream, count), right in zip(counts.items(), numbers[1::2], strict=True):
            self._note(f"loss_{stream}", losses[stream], count)
            self._note("accuracy", right, count)
        self._note("loss", sum(losses.values()), sum(counts.values()))
        self._note("grad_norm", grad_norm, 1)
        self._note("windows", len(batch.batch.clip_ids), 0)
        self.state.step += 1
        self._note("step_s", time.perf_counter() - started_s, 1)
        self.num_bad = 0 if math.isfinite(loss) else self.num_bad + 1
        self.run.check_losses(self.num_bad, self.step, BAD_LOSS_HINT)
        self.shown = {"loss": loss, "epoch": self.plan.epoch(step) + 1}

    def measure(self) -> Iterator[Record]:
        """The window of training metrics, and the scores on val, when they are due."""
        if self.step % self.config.train.log_every_steps == 0 or self.is_over:
            window, self.state.window = self.state.window, {}
            step_s = window.pop("step_s")[0]
            record: dict[str, float] = {"train/epoch": self.step / self.plan.steps_per_epoch}
            record["train/windows_per_s"] = window.pop("windows")[0] / max(step_s, 1e-9)
            record |= {f"train/{name}": total / count for name, (total, count) in window.items() if count}
            record["train/lr"] = self.optimizer.param_groups[0]["lr"]
            yield record
        if self.step % self.eval_steps == 0 or self.is_over:
            yield self._evaluate()
            self.run.save_last(self)

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """Loss and accuracy on what is hidden of the windows of val, always the same, and what two guesses reach.

        ``majority``: the cluster that train has most often; ``repeat``: that of the nearest step which is seen.
        """
        self.model.eval()
        sums: Sums = {}
        clips = self.splits["val"]
        for rows in batches_by_length(clips.lengths, self.config.data.batch_size):
            hidden = self._hidden(clips, rows, "val")
            for stream, (loss, right) in self._measure(hidden.to(self.device)).items():
                targets = hidden.targets[stream].numpy()
                counted = targets != NO_TARGET
                found = {
                    "loss": float(loss),
                    "accuracy": float(right),
                    "majority": (targets[counted] == self.clusters.commonest[stream]).sum(),
                    "repeat": (targets[counted] == hidden.repeats[stream][counted]).sum(),
                }
                for name, total in found.items():
                    add_sum(sums, name, float(total), int(counted.sum()))
                    add_sum(sums, f"{name}_{stream}", float(total), int(counted.sum()))
        return {name: total / count for name, (total, count) in sums.items() if count}

    def _measure(self, hidden: HiddenBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Stream to the sum of the cross-entropy over its targets, and how many are the likeliest cluster."""
        with autocast(self.config.optim.precision, self.device):
            logits = self.model(hidden.batch)
        found = {}
        for stream, scores in logits.items():
            flat, targets = scores.float().flatten(0, 1), hidden.targets[stream].flatten()  # (B * S, C), (B * S,)
            loss = F.cross_entropy(flat, targets, ignore_index=NO_TARGET, reduction="sum")
            found[stream] = loss, (flat.argmax(dim=-1) == targets).sum().float()
        return found

    def _read(self, step: int) -> HiddenBatch:
        return self._hidden(self.splits["train"], self.plan.rows(step, 0), "train", self.plan.epoch(step))

    def _hidden(self, clips: ClipDataset, rows: Sequence[int], split: str, epoch: int = 0) -> HiddenBatch:
        """These windows; what is hidden is drawn again for each epoch, and the same in a resumed run."""
        samples, targets, repeats = [], [], []
        for row in rows:
            sample = clips[row]
            labels = self.clusters.labels(sample)
            rng = numpy_rng(self.config.seed, "sequence mask", split, epoch, row)
            steps = num_steps(sample.num_frames)
            masks: dict[str, Flags] = {stream: draw_mask(steps, self.config.prediction, rng) for stream in labels}
            samples.append(hide(sample, masks))
            targets.append(hidden_targets(labels, masks))
            if split == "val":
                repeats.append({stream: repeated(labels[stream], mask) for stream, mask in masks.items()})
        batch = collate(samples)
        streams = self.clusters.centres
        return HiddenBatch(
            batch,
            {stream: torch.from_numpy(_padded([one[stream] for one in targets])) for stream in streams},
            {stream: _padded([one[stream] for one in repeats]) for stream in streams if repeats},
        )

    def _evaluate(self) -> Record:
        scores = self.score()
        loss = scores.get("loss", math.inf)
        is_best = math.isfinite(loss) and loss < self.state.best_loss
        if is_best:
            self.state.best_loss = loss
            weights = {"model": self.model.state_dict()}
            self.run.save_best(lambda: {**self.describe, "step": self.step, "val": scores, **weights})
        record: dict[str, float | int | str | None] = {f"val/{name}": value for name, value in scores.items()}
        return {**record, "val/is_best": int(is_best)}

    def _note(self, name: str, total: float, count: int) -> None:
        add_sum(self.state.window, name, total, count)


def _padded(rows: Sequence[Ints]) -> Ints:
    """(B, S) of rows (S,), padded with `NO_TARGET`."""
    out = np.full((len(rows), max(map(len, rows))), NO_TARGET, np.int64)
    for row, values in enumerate(rows):
        out[row, : len(values)] = values
    return out
