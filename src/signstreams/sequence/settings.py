"""Settings of sequence pretraining. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.section import Count, Fixed, Flag, NotNegative, Positive, Section, refuse_without_effect
from signstreams.engine.settings import ExperimentConfig, TrackingConfig
from signstreams.integrate.settings import Device, IntegrateConfig, ModelConfig, MskaConfig
from signstreams.streams import BACKBONE_KEYS

LOSS_KEYS = (
    "translation_weight",
    "ctc_weight",
    "distillation_weight",
    "distillation",
    "distillation_warmup_ratio",
    "gloss_fusion",
    "head_dim",
    "head_ff_dim",
)
"""Settings of MSKA's losses and heads, which no text and no gloss needs here."""
FROZEN_KEYS = ("trainable_blocks", *(f"freeze_{key}" for key in BACKBONE_KEYS.values()))
"""Settings of backbones that are trained along; here they are read from their features."""


class SequenceDataConfig(Section):
    """Windows of the videos, and batches of them."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 16
    """Windows per batch."""
    frame_stride: Count = 2
    """As data.frame_stride of the training that starts from this."""
    window_frames: Annotated[int, Field(ge=16)] = 256
    """Longest window, in frames after the stride. Videos are cut where clips of meta.csv begin and end, and longer
    parts into equal windows."""
    crop_px: Count | None = None
    """As data.crop_px of the training. None: that of the backbone's training."""


class PredictionConfig(Section):
    """What is hidden, and what is to be predicted (SHuBERT, arXiv 2411.16765)."""

    num_clusters: Annotated[int, Field(ge=2, le=4096)] = 256
    """Clusters per stream, by k-means; fewer if the corpus is too small: 64 steps each, so 256 need an hour and a half
    of video."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the steps hidden in each stream, independently: what one stream hides may be visible in another."""
    span_steps: Count = 2
    """Consecutive steps that are hidden; a step is four frames after the stride, so two last about as long as a
    sign."""


class SequenceOptimConfig(Section):
    """AdamW with linear warm-up and cosine decay by step."""

    lr: Annotated[Positive, Flag("--lr")] = 5e-4
    """Peak learning rate."""
    weight_decay: NotNegative = 0.01
    """Decay of weight matrices; norms, biases, and MSKA's alpha and global matrices have none."""
    warmup_ratio: Annotated[float, Fixed()] = 0.08
    """Share of the run with linear warm-up, as in SHuBERT (32,000 of 400,000 steps)."""
    final_lr_ratio: Annotated[float, Fixed()] = 0.01
    """Learning rate at the end, as a share of the peak."""
    clip_grad_norm: Annotated[float, Fixed()] = 1.0
    """Largest norm of the gradients: guards against rare spikes."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in bfloat16; losses and weights stay float32."""


class SequenceTrainConfig(Section):
    """Length of the run, and how often it logs and saves."""

    epochs: Annotated[Count, Flag("--epochs")] = 60
    """Passes over the windows."""
    max_train_steps: Annotated[Count | None, Flag("--max-train-steps")] = None
    """End after this many steps if that is earlier; the schedule ends there too."""
    checkpoint_steps: Annotated[int, Fixed()] = 500
    """Largest number of steps between two last.pt."""
    log_every_steps: Count = 10
    """Steps between lines of training metrics."""


class SequenceConfig(Section):
    """Pretrain the fusion encoder on unlabelled hours: predict clusters of hidden face, hand and pose features.

    Reads the features of `embed`, and no text. Sections model and mska, frame_stride and crop_px are those of the
    training that starts from it with --sequence-checkpoint; in the workflow they are taken from there.
    """

    root: Path = Path("data/single_signer")
    """Root folder of the corpus: processed/ is in it; meta.csv and index/ may be."""
    output_dir: Path = Path("work_dirs/sequence")
    """Folder of the run."""
    features_dir: Annotated[Path, Flag("--features")] = Path("work_dirs/features")
    """Folder of features and points; missing ones are computed."""
    seed: int = 0
    """Seed of every random draw."""
    resume: Annotated[Literal["auto", "never", "must"], Flag("--resume", bare="must")] = "auto"
    """auto: continue an equal run where it stopped; never: start from scratch; must (or the flag alone): continue or
    fail."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: stop, or move that to previous/ and start."""
    device: Device = "auto"
    """Where to compute."""
    data: SequenceDataConfig = SequenceDataConfig()
    model: ModelConfig = ModelConfig()
    mska: MskaConfig = MskaConfig()
    prediction: PredictionConfig = PredictionConfig()
    optim: SequenceOptimConfig = SequenceOptimConfig()
    train: SequenceTrainConfig = SequenceTrainConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        reason, leave_out = "sequence pretraining has no text and no gloss", "leave it out"
        refuse_without_effect(self.mska, LOSS_KEYS, reason, prefix="mska.", next_step=leave_out)
        frozen = "sequence pretraining reads features of frozen backbones"
        refuse_without_effect(self.model, FROZEN_KEYS, frozen, prefix="model.", next_step=leave_out)
        if not self.model.use_mska:
            others = [name for name in MskaConfig.model_fields if name not in LOSS_KEYS]
            refuse_without_effect(self.mska, others, "model.use_mska is false", prefix="mska.", next_step=leave_out)
        return self

    def as_training(self) -> IntegrateConfig:
        """The config of a training with this encoder, as what reads a corpus and its backbones takes it."""
        return IntegrateConfig.model_validate(
            {
                "root": self.root,
                "output_dir": self.output_dir,
                "features_dir": self.features_dir,
                "seed": self.seed,
                "data": {
                    "frame_stride": self.data.frame_stride,
                    "max_frames": self.data.window_frames,
                    "crop_px": self.data.crop_px,
                },
                "model": self.model.model_dump(),
                # without the sizes of heads and losses, which have no effect where MSKA is off
                "mska": self.mska.model_dump() | {"gloss_fusion": "none" if self.model.use_mska else "add"},
                "decoder": {"num_heads": self.model.num_heads},  # any that divides the width: none is built
            }
        )

    def identity(self, backbone_digests: dict[str, str]) -> dict[str, Any]:
        """The settings that alter the result, as plain values; files count by their content, not by their path."""
        no_effect = ("root", "output_dir", "features_dir", "resume", "on_conflict", "device", "experiment", "tracking")
        tree = self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys(no_effect, True),
                "model": {*BACKBONE_KEYS.values(), "download"},
                "train": {"checkpoint_steps", "log_every_steps"},
            },
        )
        tree["model"]["backbones"] = dict(backbone_digests)
        return tree


def settings_of_training(training: IntegrateConfig) -> dict[str, Any]:
    """Keys of `SequenceConfig` that must be those of the training which starts from it, where they are no defaults."""
    found = {}
    for section, without in (("model", {*FROZEN_KEYS, *BACKBONE_KEYS.values()}), ("mska", set(LOSS_KEYS))):
        values, fields = getattr(training, section), type(getattr(training, section)).model_fields
        for name, field in fields.items():
            value = getattr(values, name)
            if name not in without and value != field.get_default(call_default_factory=True):
                found[f"{section}.{name}"] = ",".join(map(str, value)) if isinstance(value, list) else value
    if not training.model.use_mska:
        found = {key: value for key, value in found.items() if not key.startswith("mska.")}
    for name in ("frame_stride", "crop_px"):
        value = getattr(training.data, name)
        if value != getattr(SequenceDataConfig(), name):
            found[f"data.{name}"] = value
    return found
