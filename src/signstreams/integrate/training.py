"""The training loop: steps, evaluations on val, checkpoints from which a run goes on exactly where it stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from signstreams.config.integrate import IntegrateConfig
from signstreams.engine import checkpoint, schedules
from signstreams.engine.experiment import Experiment
from signstreams.engine.interrupt import TRY_AGAIN_EXIT_CODE, stop_on_signal
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.seeding import numpy_rng, seed_global
from signstreams.errors import UserError
from signstreams.integrate.batches import Batch, ReadImages, Sample, augment, bucketed, collate
from signstreams.integrate.evaluate import Evaluation, compute_losses, loss_weights, total_loss
from signstreams.integrate.model import MultistreamModel
from signstreams.progress import Progress

log = logging.getLogger(__name__)

LAST, BEST, METRICS = "last.pt", "best.pt", "metrics.jsonl"
MAX_BAD_STEPS = 3
"""So many losses in a row that are not finite end the run."""
_NO_DECAY = ("global_matrix", "alpha", "shared.weight", "relative_attention_bias.weight", "missing")


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: Optimiser steps done.
        best_bleu: BLEU-4 on val of best.pt; -1 before the first evaluation.
        best_loss: Its translation loss on val.
        window: Name to sum and count of what was seen since the last line of metrics.
    """

    step: int = 0
    best_bleu: float = -1.0
    best_loss: float = math.inf
    window: dict[str, list[float]] = field(default_factory=dict)

    def is_improved_by(self, bleu: float, loss: float) -> bool:
        """Higher BLEU-4; of equals (such as zero) the lower translation loss."""
        return (bleu, -loss) > (self.best_bleu, -self.best_loss)


class Trainer:
    """Trains one model.

    Args:
        config: Of the run.
        model: On its device.
        samples: Of the train split.
        experiment: Folder of the run.
        evaluate: Evaluates the model on val.
        describe: What best.pt holds besides weights and scores; plain values.
        read_images: Reads crops of trained backbones.
    """

    def __init__(
        self,
        config: IntegrateConfig,
        model: MultistreamModel,
        samples: list[Sample],
        experiment: Experiment,
        *,
        evaluate: Callable[[], Evaluation],
        describe: dict[str, Any],
        device: torch.device,
        read_images: ReadImages | None = None,
    ) -> None:
        self.config, self.model, self.samples, self.experiment = config, model, samples, experiment
        self.evaluate, self.describe, self.device, self.read_images = evaluate, describe, device, read_images
        self.steps_per_epoch = math.ceil(len(samples) / config.data.batch_size)
        self.total_steps = config.train.epochs * self.steps_per_epoch
        if config.train.max_train_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_train_steps)
        self.optimizer = make_optimizer(config, model)
        self.state = State()
        self._epoch_batches: tuple[int, list[list[int]]] = (-1, [])

    def resume(self) -> bool:
        """Go on from ``state/last.pt`` when it is there; says whether it was.

        Raises:
            UserError: The checkpoint is damaged or of another architecture.
        """
        path = self.experiment.state / LAST
        if not path.exists():
            return False
        try:
            content = checkpoint.load(path)
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.state = State(**content["state"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{path}: does not fit this model ({reason}); start anew with --resume never --on-conflict archive"
            ) from None
        return True

    def train(self) -> None:
        """Train to the end.

        Raises:
            UserError: The loss was not finite for several steps in a row.
            SystemExit: The system asked the run to stop; a checkpoint was written.
        """
        resumed = self.state.step > 0
        after = self.state.step if resumed else None
        num_bad = 0
        with (
            MetricsLog(self.experiment.state / METRICS, after_step=after) as metrics,
            Progress(self.total_steps, "steps", "train") as progress,
            stop_on_signal() as stop,
        ):
            self.experiment.publish(METRICS)
            progress.skip(self.state.step)
            while self.state.step < self.total_steps:
                loss = self._step()
                num_bad = 0 if math.isfinite(loss) else num_bad + 1
                if num_bad >= MAX_BAD_STEPS:
                    raise UserError(
                        f"training: the loss was not finite in {num_bad} steps in a row (step {self.state.step});"
                        " lower optim.lr"
                    )
                progress.advance(loss=loss, epoch=self._epoch(self.state.step - 1) + 1)
                if self.state.step % self.config.train.log_every_steps == 0 or self._is_last():
                    self._log_window(metrics)
                is_evaluated = self._is_evaluation_due()
                if is_evaluated:
                    self._evaluate(metrics)
                if is_evaluated or stop or self.state.step % self.config.train.checkpoint_steps == 0:
                    self._save_last()
                if stop and not self._is_last():
                    log.warning("asked to stop: step %d is saved; start again to go on", self.state.step)
                    raise SystemExit(TRY_AGAIN_EXIT_CODE)

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

    def _step(self) -> float:
        step = self.state.step
        batch = self._batch(step)
        factor = self.learning_rate_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        seed_global(self.config.seed, "step", step)  # dropout: the same in a resumed run
        self.model.train()
        encoded = self.model.encode(batch)
        losses = compute_losses(self.model, batch, encoded, label_smoothing=self.config.optim.label_smoothing)
        distils = step >= self.config.mska.distillation_warmup_ratio * self.total_steps
        loss = total_loss(losses, loss_weights(self.config, distils=distils))
        self.optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
            limit = self.config.optim.clip_grad_norm
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
            if math.isfinite(norm):
                self.optimizer.step()
            self._note("grad_norm", float(norm), 1)
        for name, term in losses.terms.items():
            self._note(f"loss_{name}", float(term.total.detach()), term.count)
        self._note("loss", value, 1)
        self._note("ctc_skipped", float(losses.num_ctc_skipped), 0)
        self.state.step += 1
        return value

    def _batch(self, step: int) -> Batch:
        epoch = self._epoch(step)
        if self._epoch_batches[0] != epoch:
            lengths = [sample.num_frames for sample in self.samples]
            rng = numpy_rng(self.config.seed, "epoch", epoch)
            self._epoch_batches = (epoch, bucketed(lengths, self.config.data.batch_size, rng))
        rows = self._epoch_batches[1][step % self.steps_per_epoch]
        samples = [
            augment(self.samples[row], self.config.augmentation, numpy_rng(self.config.seed, "augment", epoch, row))
            for row in rows
        ]
        trained = list(self.model.backbones)
        return collate(samples, trained=trained, read_images=self.read_images).to(self.device)

    def _epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def _is_last(self) -> bool:
        return self.state.step >= self.total_steps

    def _is_evaluation_due(self) -> bool:
        ends_epoch = self.state.step % self.steps_per_epoch == 0
        return self._is_last() or (
            ends_epoch and self._epoch(self.state.step) % self.config.train.eval_every_epochs == 0
        )

    def _note(self, name: str, total: float, count: int) -> None:
        entry = self.state.window.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += count

    def _log_window(self, metrics: MetricsLog) -> None:
        record: dict[str, float] = {"train/epoch": self.state.step / self.steps_per_epoch}
        for name, (total, count) in self.state.window.items():
            if name == "ctc_skipped":
                record[f"train/{name}"] = int(total)
            elif count:
                record[f"train/{name}"] = total / count
        for group in self.optimizer.param_groups:
            record[f"train/lr_{group['name']}"] = group["lr"]
        metrics.log(record, self.state.step)
        self.state.window = {}

    def _evaluate(self, metrics: MetricsLog) -> None:
        result = self.evaluate()
        scores = result.translation()
        head = result.best_head()
        record: dict[str, float | int | str | None] = {f"val/loss_{name}": v for name, v in result.losses.items()}
        record["val/loss"] = record.pop("val/loss_total")
        record |= {f"val/{name}": value for name, value in scores.items() if isinstance(value, float)}
        record |= {f"val/wer_{name}": errors.rate for name, errors in result.word_errors.items()}
        record["val/ctc_skipped"] = result.num_ctc_skipped
        bleu, loss = scores["bleu_4"], result.losses["translation"]
        is_best = self.state.is_improved_by(bleu, loss)
        metrics.log({**record, "val/is_best": int(is_best)}, self.state.step)
        if is_best:
            self.state.best_bleu, self.state.best_loss = bleu, loss
            content = {
                **self.describe,
                "step": self.state.step,
                "gloss_head": head,
                "val": {"bleu_4": bleu, "loss_translation": loss},
                "model": self.model.state_dict(),
            }
            checkpoint.save(self.experiment.state / BEST, content)
            self.experiment.publish(BEST)

    def _save_last(self) -> None:
        content = {
            **self.describe,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": vars(self.state),
        }
        checkpoint.save(self.experiment.state / LAST, content)
        self.experiment.publish(LAST)


def make_optimizer(config: IntegrateConfig, model: MultistreamModel) -> torch.optim.AdamW:
    """AdamW with a learning rate for each part of the model; every trainable parameter is in exactly one group."""
    optim = config.optim
    peaks = {
        "backbone": optim.lr_backbone or optim.lr / 10,
        "mska": optim.lr_mska or optim.lr,
        "encoder": optim.lr_encoder or optim.lr,
        "decoder": optim.lr_decoder or optim.lr,
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
