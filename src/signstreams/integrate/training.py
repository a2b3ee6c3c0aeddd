"""Training of the translation model: parameter groups, average of the weights, the step, evaluation, the best model."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.engine.schedules import warmup_cosine
from signstreams.engine.seeding import numpy_rng, seed_global
from signstreams.engine.training_run import Record, Stage, TrainingRun
from signstreams.errors import UserError
from signstreams.formats.layout import STATE, TRAINING_FILES
from signstreams.integrate.batches import Batch, BatchPlan, ReadImages, collate
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.evaluate import Evaluation, Sums, add_sum, joined_sums
from signstreams.integrate.losses import (
    ALIGNMENT,
    CLIPS,
    CTC,
    RESTORATION,
    TRANSLATION,
    Losses,
    LossTerm,
    compute_losses,
    divisors,
    joint_counts,
    loss_weights,
    total_loss,
)
from signstreams.integrate.mska import MaskedBatchNorm
from signstreams.integrate.selection import Candidate, Choice
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.text_model import TextModel
from signstreams.prefetch import prefetch

log = logging.getLogger(__name__)

BAD_LOSS_HINT = "lower optim.lr, or use --optim-precision fp32"
_NO_DECAY = (
    *("global_matrix", "alpha", "shared.weight", "relative_attention_bias.weight", "missing", "layer_weights"),
    "fusion.glosses.weight",
)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is for this parameter: norms, biases, embeddings and MSKA's matrices have none."""
    return parameter.ndim > 1 and not name.endswith(_NO_DECAY)


def make_optimizer(config: IntegrateConfig, model: TextModel) -> torch.optim.Optimizer:
    """The optimiser, with a learning rate per part; norms, biases, embeddings and MSKA's matrices do not decay."""
    optim = config.optim
    peaks = {
        "encoder": optim.lr_encoder or optim.lr,
        "mska": optim.lr_mska or optim.lr,
        "mapper": optim.lr_mapper or optim.lr,
        "decoder": optim.lr_decoder or optim.lr,
        "backbone": optim.lr_backbone or optim.lr / 10,
    }
    groups = [
        {"params": chosen, "name": name, "peak_lr": peaks[name], "lr": peaks[name], "weight_decay": decay}
        for name, parameters in model.groups().items()
        for has_decay, decay in ((True, optim.weight_decay), (False, 0.0))
        if (chosen := [p for key, p in parameters if decays(key, p) == has_decay])
    ]
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=optim.betas[0], nesterov=True)
    kind = torch.optim.Adam if optim.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, betas=(optim.betas[0], optim.betas[1]))


class WeightAverage:
    """Exponential moving average of the trainable weights (Polyak and Juditsky 1992), and of BatchNorm's statistics.

    The first steps forget faster, (1 + n) / (10 + n), so that the average does not remember the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._live: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, norm in model.named_modules():
            if isinstance(norm, MaskedBatchNorm):  # averaged weights give averaged activations
                self._live |= {f"{name}.{key}": value for key, value in norm.statistics().items()}
        self._kept = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(list(self._kept.values()), [p.detach() for p in self._live.values()], 1 - decay)

    @contextlib.contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights inside the block."""
        own = {name: p.detach().clone() for name, p in self._live.items()}
        for name, p in self._live.items():
            p.copy_(self._kept[name])
        try:
            yield
        finally:
            for name, p in self._live.items():
                p.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Average and number of updates."""
        return {"num_updates": self.num_updates, **{f"average.{name}": t for name, t in self._kept.items()}}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Continue from `state_dict`; a `KeyError` if it belongs to another model."""
        for name, kept in self._kept.items():
            kept.copy_(state[f"average.{name}"])  # type: ignore[arg-type]
        self.num_updates = int(state["num_updates"])


@dataclass
class State(Choice):
    """Progress of a run; saved with each checkpoint."""

    step: int = 0  # optimiser steps done
    num_worse: int = 0  # evaluations since best.pt
    is_over: bool = False  # whether the run ended before its last step because it no longer improved
    window: Sums = field(default_factory=dict)  # what was measured since the last line of metrics


class Trainer(Stage[list[Batch | None]]):
    """Trains one model, which is on its device, on the clips of train, as the stage of a run.

    Several processes share each batch; losses are divided by the counts of the joint batch and gradients are summed, so
    that any number of processes and of passes per step gives the gradients of one process with the whole batch.
    Every process calls ``evaluate``, on val; checkpoints hold ``describe``, plain values, besides weights and scores.
    """

    label = "train"

    def __init__(
        self,
        config: IntegrateConfig,
        model: TextModel,
        clips: ClipDataset,
        run: TrainingRun,
        *,
        evaluate: Callable[[], Evaluation],
        describe: dict[str, Any],
        read_images: ReadImages | None = None,
    ) -> None:
        self.config, self.model, self.clips, self.run, self.world = config, model, clips, run, run.world
        self.evaluate, self.describe, self.read_images = evaluate, describe, read_images
        passes = config.optim.accumulate_steps
        self.parts = [self.world.rank * passes + i for i in range(passes)]  # this process's parts of the joint batch
        self.plan = BatchPlan(clips.lengths, config.data.batch_size, self.world.size * passes, config.seed)
        self.most_frames = config.data.max_frames if config.data.long_clips == "sample" else None
        self.total_steps = config.train.epochs * self.plan.steps_per_epoch
        if config.train.max_train_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_train_steps)
        self.checkpoint_steps = config.train.checkpoint_steps
        self.shown = {}
        self.optimizer = make_optimizer(config, model)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        decay = config.train.ema_decay
        self.average = None if decay is None else WeightAverage(model, decay)
        self.state = State()
        self.num_bad = 0

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or evaluations have not improved for too long."""
        return self.state.is_over or super().is_over

    def state_dict(self) -> dict[str, Any]:
        """Content of ``last.pt``."""
        average = {} if self.average is None else {"average": self.average.state_dict()}
        return {
            **self.describe,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": vars(self.state),
            **average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the content of ``last.pt``; a `UserError` if it belongs to another architecture."""
        try:
            self.model.load_state_dict(self.model.own_weights(state["model"]))
            self.optimizer.load_state_dict(state["optimizer"])
            self.state = State(**state["state"])
            if not self.world.is_main:
                self.state.window = {}  # rank 0's
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.config.output_dir / STATE / TRAINING_FILES['last']}: does not fit this model ({reason}); start"
                " from scratch with --resume never --on-conflict archive"
            ) from None

    @staticmethod
    def step_of(state: dict[str, Any]) -> int:
        return int(state["state"]["step"])

    def start_average(self) -> None:
        """Begin the average from the weights as they are now."""
        if self.average is not None:
            self.average = WeightAverage(self.model, self.average.decay)

    def check_best(self) -> None:
        """Refuse to end without a best model: the loss was not finite in any evaluation."""
        if not self.state.has_best:
            raise UserError(
                f"{self.config.output_dir}: no evaluation had a finite loss, expected one to keep as best.pt;"
                f" {BAD_LOSS_HINT}, in a new --output-dir"
            )

    def batches(self) -> Generator[list[Batch | None], None, None]:
        """This process's parts of each step to come."""
        with prefetch((self._read(step) for step in range(self.step, self.total_steps)), 1) as ready:
            while not self.is_over:
                started_s = time.perf_counter()
                batches = next(ready)
                waited_s = time.perf_counter() - started_s
                self._note("step_s", waited_s, 0)
                self._note("wait_s", waited_s, 1)
                yield batches

    def train_step(self, batch: list[Batch | None]) -> None:
        """One optimiser step over this process's parts of the joint batch; waits for the device once."""
        started_s, step, optim = time.perf_counter(), self.step, self.config.optim
        factor = warmup_cosine(
            step,
            peak=1.0,
            final=optim.final_lr_ratio,
            warmup_steps=round(optim.warmup_ratio * self.total_steps),
            total_steps=self.total_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        distils = step >= self.config.mska.distillation_warmup_ratio * self.total_steps
        weights = loss_weights(self.config, distils=distils)
        counts = joint_counts([part for part in batch if part is not None], self.world.device)
        over = divisors(counts, self.config)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.world.device)
        seen: list[tuple[str, Tensor, int]] = []
        for number, part in zip(self.parts, batch, strict=True):
            if part is not None:
                seed_global(self.config.seed, "step", step, number)  # dropout: the same in a resumed run
                share, losses = self._backward(part.to(self.world.device), weights, over)
                value += share
                seen += [(f"loss_{name}", term.total.detach(), term.count) for name, term in losses.terms.items()]
                self._note("ctc_skipped", losses.num_ctc_skipped, 0)
            elif self.model.alignment is not None:  # the clips of the others are compared by all
                self.model.alignment.joint_loss(None, counts[CLIPS], self.world).backward()
        distributed.all_reduce_sum(value)
        distributed.sum_gradients(self.parameters)
        norm = self._clip()
        # the one wait for the device in a step
        numbers: list[float] = torch.stack([value, norm, *(total for _, total, _ in seen)]).tolist()
        loss, grad_norm, *totals = numbers
        if math.isfinite(loss):
            if math.isfinite(grad_norm):
                self.optimizer.step()
                if self.average is not None:
                    self.average.update()
            self._note("grad_norm", grad_norm, 1)
        for (name, _, count), total in zip(seen, totals, strict=True):
            self._note(name, total, count)
        self._note("loss", loss, 1)
        self._note("clips", sum(len(part.clip_ids) for part in batch if part is not None), 0)
        self.state.step += 1
        self._note("step_s", time.perf_counter() - started_s, 1)
        self.num_bad = 0 if math.isfinite(loss) else self.num_bad + 1
        self.run.check_losses(self.num_bad, self.step, BAD_LOSS_HINT)
        window, state = self.state.window, self.state
        self.shown = {"loss": loss, "epoch": self.plan.epoch(step) + 1}
        if state.has_best and self.model.alignment is not None:
            self.shown |= {"best retrieval": state.best_retrieval}
        elif state.has_best:
            best = {"best BLEU-4": state.best_bleu} if self.config.writes_text else {"best WER": state.best_wer}
            self.shown |= {"best loss": state.best_loss} if self.model.restores_text else best
        self.shown["data wait"] = f"{window['wait_s'][0] / max(window['step_s'][0], 1e-9):.0%}"

    def measure(self) -> Iterator[Record]:
        """The window of training metrics, and the evaluation on val, when they are due."""
        if self.step % self.config.train.log_every_steps == 0 or self.is_over:
            yield self._read_window()
        ends_epoch, epochs = self.step % self.plan.steps_per_epoch == 0, self.plan.epoch(self.step)
        if self.is_over or (ends_epoch and epochs % self.config.train.eval_every_epochs == 0):
            yield self._evaluate()
            self.run.save_last(self)

    def _read(self, step: int) -> list[Batch | None]:
        """This process's parts of a step."""
        epoch = self.plan.epoch(step)
        batches: list[Batch | None] = []
        for part in self.parts:
            rows = self.plan.rows(step, part)
            samples = [
                self.clips.drawn(
                    row,
                    self.config.augmentation,
                    numpy_rng(self.config.seed, "augment", epoch, row),
                    most_frames=self.most_frames,
                )
                for row in rows
            ]
            trained = list(self.model.backbones)
            batch = collate(samples, trained=trained, read_images=self.read_images) if samples else None
            # in the loader's thread, so that the copy to the device does not wait
            batches.append(batch.pinned() if batch is not None and self.world.device.type == "cuda" else batch)
        return batches

    def _backward(self, batch: Batch, weights: dict[str, float], over: dict[str, float]) -> tuple[Tensor, Losses]:
        """Add the gradients of one part; its share of the joint loss, and the terms of it."""
        with autocast(self.config.optim.precision, self.world.device):
            encoded = self.model.encode(batch)
            losses = compute_losses(self.model, batch, encoded, label_smoothing=self.config.optim.label_smoothing)
        if self.model.alignment is not None and losses.pairs is not None:
            total = self.model.alignment.joint_loss(losses.pairs, round(over[ALIGNMENT]), self.world)
            losses.terms[ALIGNMENT] = LossTerm(total, len(batch.clip_ids))
        loss = total_loss(losses.terms, weights, over)
        loss.backward()
        return loss.detach(), losses

    def _clip(self) -> Tensor:
        """Clip the gradients of each part of the model by their own norm; the norm of all together.

        CTC's gradients, which end in MSKA, are many times those of the translation loss: under one common norm they
        would decide from step to step how much the decoder learns.
        """
        parts: dict[str, list[nn.Parameter]] = {}
        for group in self.optimizer.param_groups:
            parts.setdefault(group["name"], []).extend(group["params"])
        bound = self.config.optim.clip_grad_norm or math.inf
        norms = [nn.utils.clip_grad_norm_(parameters, bound) for parameters in parts.values()]
        # the norm of a part without gradient (no crop of its stream in the batch) is on the CPU
        return torch.stack([norm.to(self.world.device) for norm in norms]).square().sum().sqrt()

    def _note(self, name: str, total: float, count: int) -> None:
        add_sum(self.state.window, name, total, count)

    def _read_window(self) -> Record:
        """Means over all processes since the last line; starts the next window."""
        window = joined_sums(distributed.gather(self.state.window))
        self.state.window = {}
        step_s, wait_s = window.pop("step_s")[0], window.pop("wait_s")[0]
        record: dict[str, float] = {"train/epoch": self.step / self.plan.steps_per_epoch}
        record["train/clips_per_s"] = window.pop("clips")[0] * self.world.size / max(step_s, 1e-9)
        record["train/data_wait_share"] = wait_s / max(step_s, 1e-9)
        for name, (total, count) in window.items():
            if name == "ctc_skipped":
                record[f"train/{name}"] = int(total)
            elif count:
                record[f"train/{name}"] = total / count
        for group in self.optimizer.param_groups:
            record[f"train/lr_{group['name']}"] = group["lr"]
        return record

    def _evaluate(self) -> Record:
        """Evaluate on val, save the model if it is the best so far, and end the run if it has stopped improving."""
        state, is_text = self.state, self.config.writes_text
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            result = self.evaluate()
            scores = result.translation() if is_text else {}
            recall = None if result.retrieval is None else result.retrieval.mean
            name = ALIGNMENT if recall is not None else TRANSLATION if is_text else CTC
            name = RESTORATION if self.model.restores_text else name
            new = Candidate(
                loss=result.losses[name],
                wer=result.best_wer,
                bleu=scores.get("bleu_4", -1.0),
                chrf=scores.get("chrf", -1.0),
                texts=[prediction.text for prediction in result.predictions] if is_text else None,
                retrieval=-1.0 if recall is None else recall,
            )
            references = [prediction.entry.text for prediction in result.predictions]
            is_best = state.take(new, references, self.config.scoring)
            if is_best:
                state.num_worse = 0
                score = {"bleu_4": new.bleu} if is_text else {"gloss_wer": new.wer}
                if self.model.restores_text:
                    score = {}
                if recall is not None:
                    score = {"retrieval": recall}
                by = score | {f"loss_{name}": new.loss}
                chosen = {"step": self.step, "gloss_head": result.best_head, "val": by}
                self.run.save_best(lambda: {**self.describe, **chosen, "model": self.model.state_dict()})
            else:
                state.num_worse += 1
        patience = self.config.train.patience_evals
        if patience is not None and state.num_worse >= patience and not self.is_over:
            state.is_over = True
            log.info("step %d: the last %d evaluations brought nothing better, the run ends", self.step, patience)
        record: dict[str, float | int | str | None] = {f"val/loss_{name}": v for name, v in result.losses.items()}
        record["val/loss"] = record.pop("val/loss_total")
        record |= {f"val/{name}": value for name, value in scores.items() if isinstance(value, float)}
        if (found := result.retrieval) is not None:
            record |= {"val/retrieval": found.mean, "val/retrieval_chance": found.chance}
            record |= {"val/recall_text_to_clip": found.text_to_clip, "val/recall_clip_to_text": found.clip_to_text}
        record |= {f"val/wer_{name}": errors.rate for name, errors in result.word_errors.items()}
        return {**record, "val/ctc_skipped": result.num_ctc_skipped, "val/is_best": int(is_best)}
