"""Settings of pretraining, of the k-NN evaluation and of the pictures of a backbone. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.section import (
    Count,
    FileName,
    Flag,
    NotNegative,
    Positive,
    Prob,
    Range,
    Ratio,
    Section,
    Share,
    refuse_without_effect,
)
from signstreams.engine.settings import ExperimentConfig, TrackingConfig
from signstreams.errors import UserError
from signstreams.streams import BY_NAME, HAND_STREAMS, STREAMS, StreamName

# Sections of a pretraining run's start, optimiser, files and health. No torch here.


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


# Section of iBOT, the masked patches of a pretraining run. No torch here.


class IbotConfig(Section):
    """Masked patches (iBOT, Zhou et al. 2022), beside all of ``dino``; needs algorithm = "ibot"."""

    cls_weight: NotNegative = 1.0
    """Weight of the class token's loss."""
    patch_weight: Positive = 1.0
    """Weight of the patch loss."""
    masked_views_ratio: Ratio = 0.5
    """Share of a step's global views that are masked; exact over all processes together."""
    mask_ratio: Range = [0.1, 0.5]
    """Share of a masked view's patches that is masked; a step's views are spread evenly over this range."""
    min_block_patches: Count | None = None
    """Area that blocks are drawn from, up to what is still to be masked. None: a third of the grid's side, squared."""
    min_block_aspect: Ratio = 0.3
    """Height over width of the flattest block; that of the steepest is its inverse."""
    max_block_tries: Count = 10
    """Draws in a row that may fail to fit before a mask is left below its share."""
    shared_head: bool = True
    """One head for class token and patches; false gives the patches their own."""
    num_prototypes: Count | None = None
    """Output dimension of the patches' own head; None: the class token's."""
    bottleneck_dim: Count | None = None
    """Width before the prototypes of the patches' own head; None: the class token's."""
    warmup_teacher_temp: Positive | None = None
    """Softmax temperature of the teacher's patches at the start; None: the class token's."""
    teacher_temp: Positive | None = None
    """Softmax temperature of the teacher's patches after the warm-up; None: the class token's."""
    teacher_temp_warmup_ratio: Prob | None = None
    """Share of the run over which the temperature of the patches moves; None: the class token's."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_ratio [{low:g}, {high:g}]: expected 0 < low <= high < 1")
        if self.shared_head:
            refuse_without_effect(self, ("num_prototypes", "bottleneck_dim"), "shared_head is true")
        return self


# Settings of one pretraining run. No torch here: ``--help`` and typos answer at once.

Rgb = Annotated[list[float], Field(min_length=3, max_length=3)]


class DatasetConfig(Section):
    """Crops and how they are read."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 64
    """Crops a step and process; the batch of a step is this times the number of processes."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes; they never change the result. None: this process's cores less one, at most 8; 0 on two."""
    pin_memory: bool = True
    """Page-locked batches for faster copies to a GPU."""
    persistent_workers: bool = True
    """Keep loader processes from one epoch to the next in place of starting them again."""
    scratch_dir: str | None = None
    """A folder on the node's own disk, such as $TMPDIR: the files of the crops are copied there and read from there."""
    max_crops: Count | None = None
    """Use at most so many crops, spread evenly over videos and frames. None: all."""
    min_confidence: Prob = 0.0
    """Least confidence of a crop's box, from processed/tracks beside the stream's folder."""
    states: Annotated[list[Literal["detected", "tracked", "filled"]], Field(min_length=1)] = [
        "detected",
        "tracked",
        "filled",
    ]
    """Where a crop's box may come from: the stream's own detector, the body's pose, interpolation over a short gap."""
    min_sharpness: NotNegative = 0.0
    """Least variance of the Laplacian of the grey crop at 112 px; motion blur has little. 0: any."""
    signer_balance: Prob = 0.0
    """0: every crop once a pass; 1: every signer of meta.csv (else every video) equally often; between: in between."""
    min_gap_frames: Annotated[int, Field(ge=0)] | None = None
    """Least distance of two frames of a video in one batch, kept or refused. None: 10 wherever an exchange can."""
    measure_stats: bool = False
    """Measure augmentation.mean and augmentation.std on the crops."""
    epoch_steps: Count | None = None
    """Length of an epoch in optimiser steps, however many crops there are. None: one pass over the crops."""


class ModelConfig(Section):
    """The vision transformer."""

    arch: Annotated[str, Flag("--arch")] = "vit_small"
    """vit_tiny, vit_small, vit_base, or DINOv2's own: dinov2_vits14, dinov2_vits14_reg, dinov2_vitb14(_reg)."""
    patch_px: Annotated[Count | None, Flag("--patch-size")] = None
    """Side of a patch; None: 16, and DINOv2's own architectures have 14."""
    depth: Annotated[Count | None, Flag("--depth")] = None
    """Number of blocks; None: the architecture's 12."""
    num_registers: Annotated[int, Field(ge=0)] | None = None
    """Register tokens; None: the architecture's."""
    layer_scale_init: Annotated[Positive | None, Flag("--layer-scale-init")] = None
    """First value of LayerScale; None: the architecture's (DINOv2 1e-5; vit_* have no LayerScale)."""
    drop_path_prob: Annotated[Prob, Flag("--drop-path")] = 0.0
    """Stochastic depth of the last block, rising linearly from 0 at the first."""


class AugmentationConfig(Section):
    """Multi-crop views. View 1 and 2 are global (teacher and student), the others local (student only)."""

    global_px: Annotated[Count, Flag("--image-size")] = 112
    """Side of a global view."""
    local_px: Annotated[Count, Flag("--local-size")] = 48
    """Side of a local view."""
    num_local: Annotated[int, Field(ge=0)] = 8
    """Local views of a crop."""
    global_scale: Range = [0.4, 1.0]
    """Share of the crop's area that a global view shows. A hand's box is the object already."""
    local_scale: Range = [0.15, 0.5]
    """Share of the crop's area that a local view shows."""
    flip_prob: Prob = 0.0
    """Left-right flip. Refused for hand streams: it makes a left hand out of a right one."""
    jitter_prob: Prob = 0.8
    """Whether a view's colours are jittered at all."""
    brightness: NotNegative = 0.4
    """Greatest relative change of brightness."""
    contrast: NotNegative = 0.4
    """Greatest relative change of contrast."""
    saturation: NotNegative = 0.2
    """Greatest relative change of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Greatest turn of hue, as a share of the full circle."""
    grayscale_prob: Prob = 0.2
    """Grey in place of colour."""
    blur_view_1_prob: Prob = 1.0
    """Gaussian blur of global view 1; literally so (DINOv2's code inverts the argument and never blurs it)."""
    blur_view_2_prob: Prob = 0.1
    """Gaussian blur of global view 2."""
    blur_local_prob: Prob = 0.5
    """Gaussian blur of a local view."""
    gaussian_blur_prob: Prob | None = None
    """One probability for every view, in place of the three above. None: the three above."""
    blur_sigma_px: Range = [0.1, 2.0]
    """Blur radius (sigma) in pixels of a 224 px view; smaller views get proportionally less."""
    solarize_prob: Prob = 0.2
    """Solarisation of global view 2: values from 128 on are inverted."""
    mean: Rgb = [0.485, 0.456, 0.406]
    """Mean of R, G, B in 0..1 that is taken off; written into the exported file."""
    std: Rgb = [0.229, 0.224, 0.225]
    """Deviation of R, G, B in 0..1 to divide by; written into the exported file."""
    on_device: bool | Literal["auto"] = "auto"
    """Change colour, blur and solarise on the training device; the loader then only cuts. auto: on CUDA."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} [{low:g}, {high:g}]: expected 0 < low <= high <= 1")
        if not 0 < self.blur_sigma_px[0] <= self.blur_sigma_px[1]:
            raise ValueError(f"blur_sigma_px {self.blur_sigma_px}: expected 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std}: expected values above 0")
        if self.gaussian_blur_prob is not None:
            refuse_without_effect(
                self, ("blur_view_1_prob", "blur_view_2_prob", "blur_local_prob"), "gaussian_blur_prob replaces it"
            )
        if self.num_local == 0:
            refuse_without_effect(self, ("local_px", "local_scale", "blur_local_prob"), "num_local is 0")
        return self

    @property
    def blur_probs(self) -> tuple[float, float, float]:
        """Of view 1, of view 2, of a local view."""
        if self.gaussian_blur_prob is not None:
            return (self.gaussian_blur_prob,) * 3
        return self.blur_view_1_prob, self.blur_view_2_prob, self.blur_local_prob

    def is_on_device(self, device_type: str) -> bool:
        """Whether a device of this type does the photometric half of the views."""
        return device_type == "cuda" if self.on_device == "auto" else self.on_device


class DinoConfig(Section):
    """DINO (Caron et al. 2021). None: chosen from the number of crops and steps, and logged."""

    num_prototypes: Count | None = None
    """Output dimension K of the head."""
    hidden_dim: Count | None = None
    """Width of the head's two hidden layers."""
    bottleneck_dim: Count | None = None
    """Width before the prototypes."""
    batch_norm: bool | None = None
    """Batch normalisation in the head, over all processes: keeps the crops' scores apart."""
    student_temp: Positive = 0.1
    """Softmax temperature of the student."""
    warmup_teacher_temp: Positive | None = None
    """Softmax temperature of the teacher at the start."""
    teacher_temp: Positive | None = None
    """Softmax temperature of the teacher after its warm-up."""
    teacher_temp_warmup_ratio: Prob = 0.3
    """Share of the run over which the teacher's temperature moves."""
    momentum: Ratio | None = None
    """Of the teacher's moving average at the start; a cosine takes it to 1."""
    center_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of the centre's moving average."""
    freeze_prototypes_ratio: Share = 0.01
    """Share of the run in which the prototypes stay as they began (DINO: the first of 100 epochs)."""
    standardize_head: bool = True
    """Fit the head's first weights to some crops, so that the first targets differ (false: DINO's own start); a head
    with batch_norm needs no fitting."""
    fix_prototype_norm: bool = True
    """Keep every prototype at length 1 (DINO's norm_last_layer); false lets the lengths be learned."""


class KoleoConfig(Section):
    """KoLeo regulariser (Sablayrolles et al. 2019): pushes a batch's embeddings apart, per global view."""

    weight: NotNegative = 0.0
    """Weight in the loss; 0 leaves it out."""
    epsilon: Positive = 1e-4
    """Added to distances inside the logarithm, in float32."""


class SinkhornConfig(Section):
    """Sinkhorn-Knopp targets in place of centring."""

    use: Annotated[bool | None, Flag("--use-sinkhorn")] = None
    """Balance the teacher's targets over the whole batch. None: chosen from the number of crops, and logged."""
    eps: Positive | None = None
    """Temperature of the balanced targets; None: the teacher's scheduled temperature."""
    iters: Count = 3
    """Rounds of row and column normalisation."""


_LIMITS = {name for name in MonitorConfig.model_fields if name.startswith(("collapse_", "max_bad"))}


class PretrainConfig(Section):
    """Pretrain the vision backbone of one stream on its crops, self-supervised."""

    train_dir: Annotated[list[Path], Field(min_length=1)]
    """Folders of crops: archives `<video>.zip`, or loose JPEGs `<video>_f000000.jpg`."""
    output_dir: Path
    """Folder of the run."""
    algorithm: Literal["dino", "ibot"] = "dino"
    """Self-supervised method."""
    epochs: Count = 100
    """Training length; see dataset.epoch_steps."""
    stream: StreamName | None = None
    """Which stream the crops are of; None: the name of the training folder."""
    export_backbone: Path | None = None
    """Where the exported weights go; None: backbone.pt in the output folder."""
    seed: int = 0
    """Of every random draw."""
    resume: str = "auto"
    """auto: go on where an equal run stopped; never: start anew; must: only go on; or a checkpoint's path."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: stop, or move that to previous/ and start."""
    distributed: bool = False
    """Several processes, started by torchrun."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: Count | None = None
    """CPU threads of a process; None: its share of the cores it may use."""
    dataset: DatasetConfig = DatasetConfig()
    init: InitConfig = InitConfig()
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optim: OptimConfig = OptimConfig()
    dino: DinoConfig = DinoConfig()
    ibot: IbotConfig = IbotConfig()
    koleo: KoleoConfig = KoleoConfig()
    sinkhorn: SinkhornConfig = SinkhornConfig()
    checkpointing: CheckpointingConfig = CheckpointingConfig()
    monitor: MonitorConfig = MonitorConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.koleo.weight > 0 and self.dataset.batch_size < 2:
            raise ValueError("koleo.weight: a batch_size of 1 has no neighbour, expected at least 2")
        if self.dataset.measure_stats:
            refuse_without_effect(
                self.augmentation, ("mean", "std"), "dataset.measure_stats replaces it", prefix="augmentation."
            )
        batch_size, parts = self.dataset.batch_size, self.optim.accumulate
        if batch_size % parts:
            near = max(size for size in range(1, parts + 1) if batch_size % size == 0)
            raise ValueError(f"optim.accumulate {parts}: does not divide a batch_size of {batch_size}; next is {near}")
        if self.koleo.weight > 0 and batch_size // parts < 2:
            raise ValueError("optim.accumulate: parts of one crop have no neighbour for koleo.weight; expected fewer")
        if not self.koleo.weight:
            refuse_without_effect(self.koleo, ("epsilon",), "koleo.weight is 0", prefix="koleo.")
        if not self.sinkhorn.use:
            refuse_without_effect(self.sinkhorn, ("eps", "iters"), "sinkhorn.use is not true", prefix="sinkhorn.")
        has_centre = self.sinkhorn.use is False
        if not has_centre:
            step = "set it to false, or leave this out"
            refuse_without_effect(
                self.dino, ("center_momentum",), "sinkhorn.use is not false", prefix="dino.", next_step=step
            )
        if self.sinkhorn.eps is not None:
            temps = ("warmup_teacher_temp", "teacher_temp", "teacher_temp_warmup_ratio")
            refuse_without_effect(self.dino, temps, "sinkhorn.eps is set", prefix="dino.")
            refuse_without_effect(self.ibot, temps, "sinkhorn.eps is set", prefix="ibot.")
        if self.algorithm == "dino":
            refuse_without_effect(self.ibot, tuple(IbotConfig.model_fields), "algorithm is 'dino'", prefix="ibot.")
        if self.export_backbone is not None and self.export_backbone.suffix == ".safetensors":
            raise ValueError(
                f"export_backbone '{self.export_backbone}': give a .pt, the .safetensors is written beside it"
            )
        names = [self.checkpointing.last_name, self.checkpointing.best_name, self.checkpointing.history_file]
        fixed = ["backbone.pt", "backbone.safetensors", "README.md", "params.json", "artifacts.json", "curves.png"]
        fixed += ["attention.png", "patches_pca.png", "neighbours.png", "state", "previous", "tensorboard", "wandb"]
        if doubled := [name for i, name in enumerate(names) if name in fixed + names[:i]]:
            raise ValueError(f"checkpointing: '{doubled[0]}' names two files of the run; give each its own name")
        return self

    def named_stream(self, allowed: tuple[str, ...]) -> str:
        """The stream of this run: as set, else by the name of the training folder.

        Raises:
            UserError: Unknown, not one of ``allowed``, a hand that is to be flipped, or a folder named as another.
        """
        named = {path.name for path in self.train_dir if path.name in STREAMS}
        if self.stream is None and len(named) > 1:
            raise UserError(f"train_dir: found folders of {' and '.join(sorted(named))}, expected one stream a run")
        stream: str | None = self.stream or next(iter(named), allowed[0] if len(allowed) == 1 else None)
        if stream is None:
            raise UserError(
                f"train_dir '{self.train_dir[0]}': the folder's name is no stream, expected one of"
                f" {', '.join(allowed)}; add --stream"
            )
        if stream not in allowed:
            raise UserError(
                f"stream '{stream}': expected {' or '.join(allowed)} here;"
                f" use scripts/{BY_NAME[stream].pretrain_script}"
            )
        sides = [name for name in HAND_STREAMS if name == stream or name in named]  # a folder of hands as "face", too
        if sides and self.augmentation.flip_prob:
            raise UserError(
                f"augmentation.flip_prob = {self.augmentation.flip_prob:g}: a flipped {sides[0]} is the other hand,"
                " and this backbone is of one side; expected 0"
            )
        if self.output_dir.name in {f"dino_{name}" for name in STREAMS if name != stream}:
            raise UserError(
                f"output_dir '{self.output_dir}': is named after another stream than '{stream}'; give --output-dir"
                f" {self.output_dir.with_name(f'dino_{stream}')}"
            )
        if self.stream is not None and (others := sorted(named - {self.stream})):
            raise UserError(
                f"train_dir: found a folder of {others[0]}, and the stream is '{self.stream}': the backbone would be"
                " called what it is not; leave --stream out, or give folders of that stream"
            )
        return stream

    def identity(self) -> dict[str, Any]:
        """The settings that alter the weights, as plain values; paths, names, loader and logging are not among them."""
        tree = self.model_dump(
            mode="json",
            exclude={
                "train_dir": True,
                "output_dir": True,
                "export_backbone": True,
                "resume": True,
                "on_conflict": True,
                "distributed": True,
                "device": True,
                "threads": True,
                "dataset": {"num_workers", "pin_memory", "persistent_workers", "scratch_dir"},
                "optim": {"checkpoint_activations", "compile"},  # rounding at most, like device and threads
                "checkpointing": True,
                "init": {"weights", "download"},  # the run adds the digest of their tensors
                "monitor": {"log_every_steps", "stop_on_collapse", "labels", "pictures", *_LIMITS},
                "experiment": True,
                "tracking": True,
            },
        )
        tree["augmentation"]["blur_probs"] = list(self.augmentation.blur_probs)
        for name in ("gaussian_blur_prob", "blur_view_1_prob", "blur_view_2_prob", "blur_local_prob"):
            del tree["augmentation"][name]
        return tree


def auto_workers(cores: int) -> int:
    """Loader processes for a training process that owns ``cores`` cores; on two the model needs both."""
    return 0 if cores <= 2 else min(8, cores - 1)


# Settings of the k-NN evaluation. No torch here.


class KnnConfig(Section):
    """Weighted k-NN on true handshape: a pretrained backbone, the same with random weights, raw pixels."""

    backbone: str
    """file::PATH[:ARCHITECTURE], timm::NAME or a plain path."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` fetch weights that are not in the local cache."""
    crops: Path
    """Folder of one hand stream's crops."""
    ground_truth: Path
    """Folder of the demo corpus's ground truth, one npz a video."""
    output: Path
    """JSON file to write."""
    index: Path | None = None
    """Folder of train.csv, val.csv and test.csv; None: index beside the ground truth."""
    stream: Literal["hand_l", "hand_r"] | None = None
    """Which hand; None: the name of the crops' folder."""
    k: Count = 20
    """Neighbours."""
    temperature: Positive = 0.07
    """Neighbours vote with exp(cosine / temperature)."""
    seed: int = 0
    """Of the random weights."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.download and not self.backbone.startswith("timm::"):
            raise ValueError("download has no effect: the backbone is no timm:: model; leave it out")
        return self


# Settings of the pictures of a backbone. No torch here.


class ShowConfig(Section):
    """Draw what a backbone sees in crops: attention.png, patches_pca.png, neighbours.png."""

    backbone: str
    """file::PATH[:ARCHITECTURE] or a plain path."""
    crops: Path
    """Folder of one stream's crops, or of plain images, or a ZIP of images."""
    output: Path
    """Folder to write into."""
    title: str | None = None
    """Above each picture; None: the name of the crops' folder."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""
