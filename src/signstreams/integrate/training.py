"""Parameter groups of multistream v9, and the average of its weights."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from signstreams.engine import checkpoint, distributed, schedules
from signstreams.engine.device import autocast
from signstreams.engine.distributed import World
from signstreams.engine.experiment import Experiment
from signstreams.engine.interrupt import StopRequest, stop_on_signal
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.seeding import numpy_rng, seed_global
from signstreams.engine.trackers import TrackedLog
from signstreams.errors import UserError
from signstreams.integrate.batches import Batch, BatchPlan, Loader, ReadImages, augment, collate
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.evaluate import Evaluation
from signstreams.integrate.losses import (
    CTC,
    TRANSLATION,
    Losses,
    compute_losses,
    joint_counts,
    loss_weights,
    total_loss,
)
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.settings import IntegrateConfig
from signstreams.progress import Progress

# Parameter groups of multistream v9, and the average of its weights.

_NO_DECAY = ("global_matrix", "alpha", "shared.weight", "relative_attention_bias.weight", "missing", "layer_weights")


def make_optimizer(config: IntegrateConfig, model: MultistreamModel) -> torch.optim.AdamW:
    """AdamW with the groups' own learning rates; norms, biases, embeddings and MSKA's matrices do not decay."""
    optim = config.optim
    peaks = {
        "encoder": optim.lr_encoder or optim.lr,
        "mska": optim.lr_mska or optim.lr,
        "decoder": optim.lr_decoder or optim.lr,
        "backbone": optim.lr_backbone or optim.lr / 10,
    }
    groups = []
    for name, parameters in model.groups().items():
        for decays in (True, False):
            chosen = [p for key, p in parameters if _decays(key, p) == decays]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "name": name,
                        "peak_lr": peaks[name],
                        "lr": peaks[name],
                        "weight_decay": optim.weight_decay if decays else 0.0,
                    }
                )
    return torch.optim.AdamW(groups)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(_NO_DECAY)


class WeightAverage:
    """Exponential moving average of the trainable weights (Polyak and Juditsky 1992).

    The first steps forget faster, (1 + n) / (10 + n), so that the average does not remember the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._kept = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(list(self._kept.values()), [p.detach() for p in self._live.values()], 1 - decay)

    @contextlib.contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
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
        """Go on from `state_dict`.

        Raises:
            KeyError: It is of another model.
        """
        for name, kept in self._kept.items():
            kept.copy_(state[f"average.{name}"])  # type: ignore[arg-type]
        self.num_updates = int(state["num_updates"])


# The training loop: steps, evaluations on val, checkpoints from which a run goes on exactly where it stopped.
#
# Several processes share each batch; losses are divided by the counts of the joint batch and gradients are summed, so
# that any number of processes and of passes before a step gives the gradients of one process with the whole batch.

log = logging.getLogger(__name__)

LAST, BEST, METRICS = "last.pt", "best.pt", "metrics.jsonl"
MAX_BAD_STEPS = 3
"""So many losses in a row that are not finite end the run."""


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: Optimiser steps done.
        best_bleu: BLEU-4 on val of best.pt; -1 before the first evaluation.
        best_loss: Its translation loss on val; where no translation is learned, its CTC loss.
        best_wer: Its lowest gloss WER on val.
        num_worse: Evaluations since then.
        is_over: Whether the run ended before its last step, for want of anything better.
        window: Name to sum and count of what was seen since the last line of metrics.
    """

    step: int = 0
    best_bleu: float = -1.0
    best_loss: float = math.inf
    best_wer: float = math.inf
    num_worse: int = 0
    is_over: bool = False
    window: dict[str, list[float]] = field(default_factory=dict)

    def is_improved_by(self, bleu: float, loss: float, wer: float | None = None) -> bool:
        """Higher BLEU-4, or where ``wer`` is given the lower WER; of equals the lower loss, which must be finite."""
        if wer is not None:
            return math.isfinite(loss) and (wer, loss) < (self.best_wer, self.best_loss)
        return math.isfinite(loss) and (bleu, -loss) > (self.best_bleu, -self.best_loss)


class Trainer:
    """Trains one model.

    Args:
        config: Of the run.
        model: On its device.
        clips: Of the train split.
        experiment: Folder of the run; None on processes that do not write.
        world: This process among those of the run.
        evaluate: Evaluates the model on val; called by every process.
        describe: What best.pt holds besides weights and scores; plain values.
        read_images: Reads crops of trained backbones.
    """

    def __init__(
        self,
        config: IntegrateConfig,
        model: MultistreamModel,
        clips: ClipDataset,
        experiment: Experiment | None,
        *,
        world: World,
        evaluate: Callable[[], Evaluation],
        describe: dict[str, Any],
        read_images: ReadImages | None = None,
    ) -> None:
        self.config, self.model, self.clips, self.experiment = config, model, clips, experiment
        self.world, self.evaluate, self.describe, self.read_images = world, evaluate, describe, read_images
        passes = config.optim.accumulate_steps
        self.parts = [world.rank * passes + i for i in range(passes)]  # of the joint batch, this process's
        self.plan = BatchPlan(clips.lengths, config.data.batch_size, world.size * passes, config.seed)
        self.total_steps = config.train.epochs * self.plan.steps_per_epoch
        if config.train.max_train_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_train_steps)
        self.optimizer = make_optimizer(config, model)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        decay = config.train.ema_decay
        self.average = None if decay is None else WeightAverage(model, decay)
        self.state = State()

    def resume(self, content: dict[str, Any], path: object) -> None:
        """Go on from the content of ``last.pt``.

        Raises:
            UserError: It is of another architecture.
        """
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.state = State(**content["state"])
            if not self.world.is_main:
                self.state.window = {}  # what it holds is rank 0's
            if self.average is not None:
                self.average.load_state_dict(content["average"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{path}: does not fit this model ({reason}); start anew with --resume never --on-conflict archive"
            ) from None

    def start_average(self) -> None:
        """Begin the average from the weights as they are now."""
        if self.average is not None:
            self.average = WeightAverage(self.model, self.average.decay)

    def train(self) -> None:
        """Train to the end.

        Raises:
            UserError: The loss was not finite for several steps in a row, or in every evaluation.
            SystemExit: The system asked the run to stop; a checkpoint was written.
        """
        num_bad = 0
        with contextlib.ExitStack() as stack:
            metrics = None
            if self.experiment is not None:
                settings = self.config.model_dump(mode="json")
                metrics = stack.enter_context(TrackedLog(self.experiment, METRICS, settings, self.state.step))
                self.experiment.publish(METRICS)
            progress = None
            if self.world.is_main:
                progress = stack.enter_context(Progress(self.total_steps, "steps", "train"))
                progress.skip(self.state.step)
            stop = stack.enter_context(stop_on_signal())
            loader = stack.enter_context(Loader(self._read))
            while not self._is_last():
                started_s, waited_s = time.perf_counter(), loader.waited_s
                loss = self._step(loader.get(self.state.step, is_last=self.state.step + 1 >= self.total_steps))
                self._note("step_s", time.perf_counter() - started_s, 1)
                self._note("wait_s", loader.waited_s - waited_s, 1)
                num_bad = 0 if math.isfinite(loss) else num_bad + 1
                if num_bad >= MAX_BAD_STEPS:
                    raise UserError(
                        f"{self.config.output_dir}: the loss was not finite in {num_bad} steps in a row, by step"
                        f" {self.state.step}; lower optim.lr, or use --optim-precision fp32, in a new --output-dir"
                    )
                self._show(progress, loss)
                self._after_step(metrics, stop)
        if self.state.best_bleu < 0:
            raise UserError(
                f"{self.config.output_dir}: no evaluation had a finite loss, expected one to keep as best.pt; lower"
                " optim.lr, or use --optim-precision fp32, in a new --output-dir"
            )

    def learning_rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step."""
        warmup_steps = round(self.config.optim.warmup_ratio * self.total_steps)
        return schedules.warmup_cosine(
            step,
            peak=1.0,
            final=self.config.optim.final_lr_ratio,
            warmup_steps=warmup_steps,
            total_steps=self.total_steps,
        )

    def _read(self, step: int) -> list[Batch | None]:
        """This process's parts of a step."""
        epoch = self.plan.epoch(step)
        batches: list[Batch | None] = []
        for part in self.parts:
            rows = self.plan.rows(step, part)
            samples = [
                augment(self.clips[row], self.config.augmentation, numpy_rng(self.config.seed, "augment", epoch, row))
                for row in rows
            ]
            trained = list(self.model.backbones)
            batch = collate(samples, trained=trained, read_images=self.read_images) if samples else None
            # in the loader's thread, so that the copy to the device waits for nothing
            batches.append(batch.pinned() if batch is not None and self.world.device.type == "cuda" else batch)
        return batches

    def _step(self, batches: list[Batch | None]) -> float:
        """One optimiser step; the loss of the joint batch."""
        step = self.state.step
        factor = self.learning_rate_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        distils = step >= self.config.mska.distillation_warmup_ratio * self.total_steps
        weights = loss_weights(self.config, distils=distils)
        counts = joint_counts([batch for batch in batches if batch is not None], self.world.device)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.world.device)
        seen: list[tuple[str, Tensor, int]] = []
        for part, batch in zip(self.parts, batches, strict=True):
            if batch is not None:
                seed_global(self.config.seed, "step", step, part)  # dropout: the same in a resumed run
                share, losses = self._backward(batch.to(self.world.device), weights, counts)
                value += share
                seen += [(f"loss_{name}", term.total.detach(), term.count) for name, term in losses.terms.items()]
                self._note("ctc_skipped", losses.num_ctc_skipped, 0)
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
        self._note("clips", sum(len(batch.clip_ids) for batch in batches if batch is not None), 0)
        self.state.step += 1
        return loss

    def _clip(self) -> Tensor:
        """Clip each part's gradients by their own norm; the norm of all together.

        CTC's gradients, which end in MSKA, are many times those of the translation loss: under one common norm they
        would decide from step to step how much the decoder learns.
        """
        parts: dict[str, list[nn.Parameter]] = {}
        for group in self.optimizer.param_groups:
            parts.setdefault(group["name"], []).extend(group["params"])
        bound = self.config.optim.clip_grad_norm
        norms = [nn.utils.clip_grad_norm_(parameters, bound) for parameters in parts.values()]
        # that of a part without gradient (no crop of its stream in the batch) is on the CPU
        return torch.stack([norm.to(self.world.device) for norm in norms]).square().sum().sqrt()

    def _backward(self, batch: Batch, weights: dict[str, float], counts: dict[str, int]) -> tuple[Tensor, Losses]:
        """Gradients of one part, added to those that are there; its share of the joint loss, and the terms of it."""
        with autocast(self.config.optim.precision, self.world.device):
            encoded = self.model.encode(batch)
            losses = compute_losses(self.model, batch, encoded, label_smoothing=self.config.optim.label_smoothing)
            loss = total_loss(losses.terms, weights, counts)
        loss.backward()
        return loss.detach(), losses

    def _after_step(self, metrics: MetricsLog | None, stop: StopRequest) -> None:
        """Metrics, evaluation, checkpoint, and leaving when asked to."""
        step = self.state.step
        if step % self.config.train.log_every_steps == 0 or self._is_last():
            self._log_window(metrics)
        is_evaluated = self._is_evaluation_due()
        if is_evaluated:
            self._evaluate(metrics)
        is_asked = self._agree(bool(stop))
        try:
            if is_evaluated or is_asked or step % self.config.train.checkpoint_steps == 0:
                self._save_last()
        finally:
            if is_asked:  # the first that ended would end the others, and rank 0's saving (srun --kill-on-bad-exit)
                distributed.barrier()
        if is_asked and not self._is_last():
            log.warning("asked to stop: step %d is saved; run again to go on", step)
            raise SystemExit(stop.exit_code)

    def _agree(self, is_asked: bool) -> bool:
        """Whether any process was asked to stop: all leave at the same step."""
        if self.world.size == 1:
            return is_asked
        asked = torch.tensor(float(is_asked), device=self.world.device)
        return bool(distributed.all_reduce_max(asked) > 0)

    def _is_last(self) -> bool:
        return self.state.is_over or self.state.step >= self.total_steps

    def _is_evaluation_due(self) -> bool:
        ends_epoch = self.state.step % self.plan.steps_per_epoch == 0
        epochs = self.plan.epoch(self.state.step)
        return self._is_last() or (ends_epoch and epochs % self.config.train.eval_every_epochs == 0)

    def _show(self, progress: Progress | None, loss: float) -> None:
        if progress is not None:
            step_s = self.state.window["step_s"][0]
            wait = round(100 * self.state.window["wait_s"][0] / max(step_s, 1e-9))
            shown: dict[str, float | int | str] = {"loss": loss, "epoch": self.plan.epoch(self.state.step - 1) + 1}
            if self.state.best_bleu >= 0:
                is_text = self.config.mska.learns_text
                shown |= {"best BLEU-4": self.state.best_bleu} if is_text else {"best WER": self.state.best_wer}
            shown["data wait"] = f"{wait}%"
            progress.advance(1, **shown)

    def _note(self, name: str, total: float, count: int) -> None:
        entry = self.state.window.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += count

    def _log_window(self, metrics: MetricsLog | None) -> None:
        windows = distributed.gather(self.state.window)
        self.state.window = {}
        window: dict[str, list[float]] = {}
        for other in windows:
            for name, (total, count) in other.items():
                entry = window.setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
        if metrics is None:
            return
        step_s, wait_s = window.pop("step_s")[0], window.pop("wait_s")[0]
        record: dict[str, float] = {"train/epoch": self.state.step / self.plan.steps_per_epoch}
        record["train/clips_per_s"] = window.pop("clips")[0] * self.world.size / max(step_s, 1e-9)
        record["train/data_wait_share"] = wait_s / max(step_s, 1e-9)
        for name, (total, count) in window.items():
            if name == "ctc_skipped":
                record[f"train/{name}"] = int(total)
            elif count:
                record[f"train/{name}"] = total / count
        for group in self.optimizer.param_groups:
            record[f"train/lr_{group['name']}"] = group["lr"]
        metrics.log(record, self.state.step)

    def _evaluate(self, metrics: MetricsLog | None) -> None:
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            result = self.evaluate()
            scores = result.translation()
            bleu, wer, is_text = scores["bleu_4"], result.best_wer(), self.config.mska.learns_text
            loss = result.losses[TRANSLATION if is_text else CTC]
            is_best = self.state.is_improved_by(bleu, loss, None if is_text else wer)
            if is_best:
                self.state.best_bleu, self.state.best_loss, self.state.best_wer = bleu, loss, wer
                self.state.num_worse = 0
                by = {"bleu_4": bleu, "loss_translation": loss} if is_text else {"gloss_wer": wer, "loss_ctc": loss}
                self._save_best(result.best_head(), by)
            else:
                self.state.num_worse += 1
        patience = self.config.train.patience_evals
        if patience is not None and self.state.num_worse >= patience and not self._is_last():
            self.state.is_over = True
            log.info("step %d: the last %d evaluations brought nothing better, the run ends", self.state.step, patience)
        if metrics is None:
            return
        record: dict[str, float | int | str | None] = {f"val/loss_{name}": v for name, v in result.losses.items()}
        record["val/loss"] = record.pop("val/loss_total")
        record |= {f"val/{name}": value for name, value in scores.items() if isinstance(value, float)}
        record |= {f"val/wer_{name}": errors.rate for name, errors in result.word_errors.items()}
        record["val/ctc_skipped"] = result.num_ctc_skipped
        metrics.log({**record, "val/is_best": int(is_best)}, self.state.step)

    def _save_best(self, head: str | None, chosen_by: dict[str, float]) -> None:
        if self.experiment is None:
            return
        content = {
            **self.describe,
            "step": self.state.step,
            "gloss_head": head,
            "val": chosen_by,
            "model": self.model.state_dict(),
        }
        checkpoint.save(self.experiment.state / BEST, content)
        self.experiment.publish(BEST)

    def _save_last(self) -> None:
        if self.experiment is None:
            return
        content = {
            **self.describe,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": vars(self.state),
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        checkpoint.save(self.experiment.state / LAST, content, keep_previous=True)
        self.experiment.publish(LAST)
