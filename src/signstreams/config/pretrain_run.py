"""Sections of a pretraining run's start, optimiser, files and health. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag, Section, refuse_without_effect
from signstreams.config.kinds import Count, FileName, NotNegative, Positive, Prob, Ratio, Share


class InitConfig(Section):
    """Start from the weights of a trained backbone; the head is always new."""

    weights: Annotated[str | None, Flag("--init")] = None
    """`file::PATH[:ARCHITECTURE]` or `timm::NAME`. None: random weights."""
    download: bool = False
    """Let `timm::` fetch weights that are not in the local cache."""
    head_only_steps: Annotated[int, Field(ge=0)] | None = None
    """First steps in which only the new head learns. None: a twentieth of the run, at most 2,000."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        weights = self.weights or ""
        if self.weights is not None and not (weights.startswith(("file::", "timm::")) and weights[6:]):
            raise ValueError(f"weights '{weights}': expected file::PATH, file::PATH:ARCHITECTURE or timm::NAME")
        if self.weights is None and self.head_only_steps is not None:
            raise ValueError(
                "head_only_steps has no effect: there are no weights to protect; add --init or leave it out"
            )
        if self.download and not weights.startswith("timm::"):
            raise ValueError("download has no effect: --init names no timm:: model; leave it out")
        return self


class OptimConfig(Section):
    """Optimiser (AdamW) and its schedules, all by optimiser step."""

    learning_rate: Annotated[Positive, Flag("--learning-rate")] = 5e-4
    """Peak learning rate for a batch of 256; `learning_rate_scaling` adapts it to the batch of the run."""
    learning_rate_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the peak follows the batch: times batch / 256 (DINO), its root (DINOv2), or as given."""
    final_learning_rate: NotNegative = 1e-6
    """Learning rate at the end of the cosine."""
    warmup_ratio: Share = 0.1
    """Share of the run with linear warm-up."""
    layer_decay: Annotated[Ratio | None, Flag("--layer-decay")] = None
    """Learning rate of each block as a share of the next one's. None: 0.9 with --init, 1 without."""
    patch_embed_factor: Ratio | None = None
    """Further factor of the patch embedding's learning rate. None: 0.2 with --init, 1 without."""
    weight_decay: NotNegative = 0.04
    """At the start; norms, biases and tokens have none."""
    final_weight_decay: NotNegative = 0.4
    """At the end of the cosine."""
    clip_grad_norm: Positive | None = 3.0
    """Greatest norm of all gradients together; None: no clipping."""
    beta_2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay of AdamW's second moment."""
    accumulate: Annotated[Count, Flag("--accumulate")] = 1
    """Parts that a process's batch is cut into, one after the other through the networks: less memory, same step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16, losses and weights in float32."""
    checkpoint_activations: Annotated[bool, Flag("--checkpoint-activations")] = False
    """Keep the input of each block alone and compute the rest again backwards: less memory, a third more time."""
    compile: bool | Literal["auto"] = "auto"
    """Kernels made for the blocks by torch.compile, in the first minute of a run. auto: on CUDA."""

    def is_compiled(self, device_type: str) -> bool:
        """Whether the blocks are to be compiled for a device of this type."""
        return device_type == "cuda" if self.compile == "auto" else self.compile


class CheckpointingConfig(Section):
    """Files of the run and how often they are written."""

    last_name: FileName = "checkpoint_last.pt"
    """Checkpoint to resume from."""
    best_name: FileName = "checkpoint_best.pt"
    """Checkpoint with the best health score on held-out crops (docs/pretraining.md)."""
    history_file: FileName = "metrics.jsonl"
    """Metrics, one JSON object a line."""
    every_steps: Count = 500
    """Steps between two checkpoints."""
    every_s: Positive = 300.0
    """Seconds after which a checkpoint is due, however few steps were done."""
    export: Literal["last", "best"] = "last"
    """Which checkpoint's teacher becomes backbone.pt."""
    min_free_gb: NotNegative | None = None
    """Free disk (10^9 bytes) the run asks for before it starts. None: 5, or ten times its files where
    that is less, or 1.5 times where that is more."""


class MonitorConfig(Section):
    """What is measured on the way, and when it ends the run."""

    log_every_steps: Count = 20
    """Steps between two lines of metrics."""
    probe_every_steps: Count = 200
    """Steps between two looks at the held-out crops."""
    probe_crops: Annotated[int, Field(ge=8)] = 256
    """Held-out crops; at most an eighth of all."""
    pictures: bool = True
    """Draw at the end what the backbone sees: attention.png, patches_pca.png, neighbours.png. They show crops."""
    labels: str | None = None
    """Labels that choose the best checkpoint by k-NN on the held-out crops: `folders` (sub-folders of plain images),
    `handshapes` (the demo corpus's own truth) or a CSV of video_id, frame, label. They take no part in training. None:
    the label-free health score chooses."""
    max_bad_in_a_row: Count = 3
    """Losses in a row that are not finite and end the run; a single one changes no weight."""
    stop_on_collapse: bool = True
    """End the run with a diagnosis when the teacher gives every crop the same answer."""
    collapse_patience: Count = 3
    """Looks in a row that must show the same collapse."""
    collapse_min_batch_entropy: Prob = 0.05
    """Share of ln K; a mean target with less entropy is one prototype taking all."""
    collapse_max_sample_entropy: Prob = 0.999
    """Share of ln K; targets with more entropy say nothing. Judged from half of the run (5,000 steps at least) on."""
    collapse_min_prototypes: Prob = 0.01
    """Share of the prototypes (of the crops, where those are fewer) that must win some crop between two looks."""
    collapse_min_feature_std: Prob = 0.02
    """Deviation of the held-out crops' unit-length features, times sqrt(D): 1 spread out, 0 all crops alike."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.stop_on_collapse:
            limits = [name for name in type(self).model_fields if name.startswith("collapse_")]
            refuse_without_effect(self, limits, "stop_on_collapse is false")
        return self
