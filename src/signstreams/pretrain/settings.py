"""Settings of pretraining and of the pictures of a backbone. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.section import (
    Count,
    FileName,
    Fixed,
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
from signstreams.formats.layout import PRETRAINING_FILES, PREVIOUS, STATE
from signstreams.streams import HAND_STREAMS, HANDS, STREAMS, PretrainedName, pretrain_script


class InitConfig(Section):
    """Start from the weights of a trained backbone; the head is always new."""

    weights: Annotated[str | None, Flag("--init")] = None
    """`file::PATH[:ARCHITECTURE][:num_heads=N]` or `timm::NAME`. None: random weights."""
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
    learning_rate_scaling: Literal["auto", "linear", "sqrt", "none"] = "auto"
    """How the peak depends on the joint batch: times batch / 256 (DINO), times the root of that (DINOv2), or not at
    all. auto: linear up to 1,024 crops, above by the root."""
    schedule: Literal["cosine", "constant_decay"] = "cosine"
    """cosine: rate, weight decay and momentum follow half a cosine over the run, as in DINO. constant_decay: they are
    constant after the warm-up, and the rate decays over the last fifth; a finished run can be made longer."""
    final_learning_rate: Annotated[float, Fixed()] = 1e-6
    """End of the cosine, as in DINO: almost zero for any peak."""
    warmup_ratio: Share = 0.1
    """Share of the run with linear warm-up."""
    layer_decay: Annotated[Ratio | None, Flag("--layer-decay")] = None
    """Learning rate of each block as a share of that of the next block. None: 0.9 with --init, 1 without."""
    patch_embed_factor: Annotated[None, Fixed()] = None
    """Derived: with --init the patch embedding learns at a fifth of the rate, as in DINOv2; without, at the full
    rate."""
    weight_decay: NotNegative = 0.04
    """Weight decay at the start; none on norms, biases and tokens."""
    final_weight_decay: NotNegative = 0.4
    """Weight decay at the end of its cosine; with constant_decay it stays at `weight_decay`."""
    clip_grad_norm: Annotated[float, Fixed()] = 3.0
    """Largest norm of all gradients together, as in DINO: only cuts rare spikes."""
    beta_2: Annotated[float, Fixed()] = 0.999
    """Decay of AdamW's second moment: its usual value, as in DINO and iBOT."""
    accumulate: Annotated[Count, Flag("--accumulate")] = 1
    """Parts into which a process's batch is divided; they pass through the networks in turn: less memory, same step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16, losses and weights in float32."""
    checkpoint_activations: Annotated[bool, Flag("--checkpoint-activations")] = False
    """Keep only the input of each block and recompute the rest in the backward pass: less memory, a third more time."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the blocks with torch.compile, in the first minute of a run. auto: on CUDA."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.schedule == "constant_decay":
            refuse_without_effect(self, ("final_weight_decay",), "schedule is 'constant_decay'")
        return self

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
    """Metrics, one JSON object per line."""
    every_steps: Count = 500
    """Steps between two checkpoints; one is also written every five minutes."""
    export: Literal["last", "best"] = "last"
    """Which checkpoint's teacher becomes backbone.pt."""
    min_free_gb: NotNegative | None = None
    """Free disk space (10^9 bytes) required before the run starts. None: 5, but at least 1.5 and at most ten times the
    size of its files."""


class MonitorConfig(Section):
    """What is measured during a run, and when it ends the run."""

    log_every_steps: Count = 20
    """Steps between two lines of metrics."""
    probe_every_steps: Count = 200
    """Steps between two evaluations on the held-out crops."""
    probe_crops: Annotated[int, Field(ge=8)] = 256
    """Held-out crops; at most an eighth of all."""
    pictures: bool = True
    """At the end, draw what the backbone sees: attention.png, patches_pca.png, neighbours.png. They show crops."""
    labels: str | None = None
    """Labels that choose the best checkpoint by k-NN on the held-out crops: `folders` (sub-folders of plain images),
    `handshapes` or `mouths` (the demo corpus's truth of a hand, of the face) or a CSV of video_id, frame, label and
    perhaps stream. They take no part in training. None: the label-free health score chooses."""
    stop_on_collapse: bool = True
    """End the run with a diagnosis when the teacher gives every crop the same answer."""


class IbotConfig(Section):
    """Masked patches (iBOT, Zhou et al. 2022), in addition to ``dino``; needs algorithm = "ibot"."""

    cls_weight: Annotated[float, Fixed()] = 1.0
    """Weight of the class token's loss; `patch_weight` sets the balance of the two terms."""
    patch_weight: Positive = 1.0
    """Weight of the patch loss."""
    masked_views_ratio: Annotated[float, Fixed()] = 0.5
    """Share of a step's global views that are masked, over all processes together: half, as in iBOT and DINOv2."""
    mask_ratio: Range = [0.1, 0.5]
    """Share of a masked view's patches that is masked; the views of a step are spread evenly over this range."""
    min_block_patches: Annotated[None, Fixed()] = None
    """Derived: a block's area lies between the square of a third of the grid's side, as in iBOT, and what is still
    missing."""
    min_block_aspect: Annotated[float, Fixed()] = 0.3
    """Height over width of the flattest block, as in BEiT; the steepest has its inverse."""
    max_block_tries: Annotated[int, Fixed()] = 10
    """Draws in a row that may fail to fit before a mask is left below its share, as in BEiT."""
    shared_head: bool = True
    """One head for class token and patches; false gives the patches their own, of the same size."""
    num_prototypes: Annotated[None, Fixed()] = None
    """Like all settings below, equal to the class token's: patches and class tokens have the same kind of targets."""
    bottleneck_dim: Annotated[None, Fixed()] = None
    warmup_teacher_temp: Annotated[None, Fixed()] = None
    teacher_temp: Annotated[None, Fixed()] = None
    teacher_temp_warmup_ratio: Annotated[None, Fixed()] = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_ratio [{low:g}, {high:g}]: expected 0 < low <= high < 1")
        return self


LINEAR_BATCH = 1024
"""Largest joint batch that the learning rate follows in proportion by default: beyond, DINO's rule gives rates that
nobody trained with, and DINOv2's and SignMusketeers' go by the root from here."""

Rgb = Annotated[list[float], Field(min_length=3, max_length=3)]
BLUR_VIEW_2_PROB, BLUR_LOCAL_PROB = 0.1, 0.5  # as in DINO; `gaussian_blur_prob` replaces both


class DatasetConfig(Section):
    """Crops and how they are read."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 64
    """Crops per step and process; the batch of a step is this times the number of processes."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes; they never change the result. None: this process's cores less one, at most 8; 0 with two
    cores."""
    pin_memory: bool = True
    """Page-locked batches for faster copies to a GPU."""
    persistent_workers: bool = True
    """Keep the loader processes from one epoch to the next instead of starting them again."""
    scratch_dir: str | None = None
    """A folder on the node's own disk, such as $TMPDIR; the crop files are copied to it and read from it."""
    max_crops: Count | None = None
    """Use at most this many crops, evenly spread over videos and frames. None: all."""
    min_confidence: Prob = 0.0
    """Least confidence of a crop's box, read from processed/tracks beside the stream's folder."""
    states: Annotated[list[Literal["detected", "tracked", "filled"]], Field(min_length=1)] = [
        "detected",
        "tracked",
        "filled",
    ]
    """Allowed sources of a crop's box: the stream's own detector, the body's pose, interpolation over a short gap."""
    min_sharpness: NotNegative = 0.0
    """Least variance of the Laplacian of the grey crop at 112 px; blurred crops have little. 0: no limit."""
    signer_balance: Prob = 0.0
    """0: every crop once per pass; 1: every signer of meta.csv (else every video) equally often; in between b: in
    proportion to (their crops) ^ (1 - b)."""
    cluster_balance: Prob = 0.0
    """0: every crop once per pass; 1: every cluster of similar crops (by hand points, else by picture) equally often,
    so that rest poses are seen less often; or in between. One cluster per 50 crops, at most 1,024; a crop is drawn at
    most 4 times per pass on average."""
    min_gap_frames: Annotated[int, Field(ge=0)] | None = None
    """Least distance between two frames of a video in one batch, guaranteed or refused. None: 10, where reordering
    achieves it."""
    measure_stats: bool = False
    """Measure augmentation.mean and augmentation.std on the crops."""
    epoch_steps: Count | None = None
    """Length of an epoch in optimiser steps, regardless of the number of crops. None: one pass over the crops."""


class ModelConfig(Section):
    """The vision transformer."""

    arch: Annotated[str, Flag("--arch")] = "dinov2_vits14"
    """vit_tiny, vit_small, vit_base; DINOv2's own dinov2_vits14, dinov2_vits14_reg, dinov2_vitb14(_reg); or DINOv3's,
    with rotary positions, dinov3_vits16, dinov3_vits16plus, dinov3_vitb16."""
    patch_px: Annotated[Count | None, Flag("--patch-size")] = None
    """Side of a patch; None: 16, or 14 for DINOv2's own architectures."""
    depth: Annotated[Count | None, Flag("--depth")] = None
    """Number of blocks; None: the architecture's 12."""
    num_heads: Count | None = None
    """Attention heads; None: the architecture's, each 64 wide."""
    num_registers: Annotated[int, Field(ge=0)] | None = None
    """Register tokens; None: the architecture's."""
    layer_scale_init: Annotated[Positive | None, Flag("--layer-scale-init")] = None
    """Initial value of LayerScale; None: the architecture's (DINOv2 and DINOv3 1e-5; vit_* have no LayerScale)."""
    drop_path_prob: Annotated[Prob, Flag("--drop-path")] = 0.0
    """Stochastic depth of the last block, rising linearly from 0 at the first one."""


class AugmentationConfig(Section):
    """Multi-crop views. View 1 and 2 are global (teacher and student), the others local (student only)."""

    global_px: Annotated[Count, Flag("--image-size")] = 112
    """Side of a global view."""
    local_px: Annotated[Count, Flag("--local-size")] = 48
    """Side of a local view. If not set, the next multiple of the patch: 56 for DINOv2's own architectures."""
    num_local: Annotated[int, Field(ge=0)] = 8
    """Local views per crop."""
    global_scale: Range = [0.4, 1.0]
    """Share of the crop's area that a global view shows; large, as a crop already shows only the hand or face."""
    local_scale: Range = [0.15, 0.5]
    """Share of the crop's area that a local view shows."""
    flip_prob: Prob = 0.0
    """Left-right flip. Refused for hand streams, as it turns a right hand into a left one."""
    turn_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Largest rotation of a view in degrees, to either side; beyond the crop's border its mirror image is shown."""
    motion_blur_prob: Prob = 0.0
    """Blur along a line of random direction, of 4 to 24 px at 224 px, as of a hand in motion, in any view; in addition
    to the Gaussian blur."""
    motion_blur_px: Annotated[tuple[float, float], Fixed()] = (4.0, 24.0)
    """Length of that line in pixels of a 224 px view, proportionally shorter in smaller ones. Where 224 px show
    25 cm, it is that of a hand at .3 to 1.6 m/s with a shutter open for 1/60 s."""
    recompress_prob: Prob = 0.0
    """Compress the view as a JPEG of quality 20 to 70 and decode it, like a video that was uploaded again; before
    colours change."""
    recompress_quality: Annotated[tuple[int, int], Fixed()] = (20, 70)
    """Quality of that JPEG: below 20 its blocks hide fingers, above 70 it hardly differs from the stored crop's."""
    jitter_prob: Annotated[float, Fixed()] = 0.8
    """Probability that a view's colours are jittered, as in DINO; the four settings below say how strongly."""
    brightness: NotNegative = 0.4
    """Largest relative change of brightness."""
    contrast: NotNegative = 0.4
    """Largest relative change of contrast."""
    saturation: NotNegative = 0.2
    """Largest relative change of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Largest rotation of hue, as a share of the full circle."""
    grayscale_prob: Prob = 0.2
    """Probability of a grey view."""
    blur_view_1_prob: Prob = 1.0
    """Probability of Gaussian blur of global view 1, as published (DINOv2's code inverts the argument and never blurs
    it)."""
    gaussian_blur_prob: Prob | None = None
    """One blur probability for every view. None: blur_view_1_prob, 0.1 for view 2 and 0.5 for local views."""
    blur_sigma_px: Annotated[tuple[float, float], Fixed()] = (0.1, 2.0)
    """Sigma of the blur in pixels of a 224 px view; smaller views get proportionally less (in DINO, the same)."""
    solarize_prob: Prob = 0.2
    """Solarisation of global view 2: values of 128 and above are inverted."""
    mean: Rgb = [0.485, 0.456, 0.406]
    """Mean of R, G, B in 0..1 to subtract; written into the exported file."""
    std: Rgb = [0.229, 0.224, 0.225]
    """Standard deviation of R, G, B in 0..1 to divide by; written into the exported file."""
    on_device: bool | Literal["auto"] = "auto"
    """Colour jitter, Gaussian blur and solarisation on the training device; the loader does the rest. auto: on CUDA."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} [{low:g}, {high:g}]: expected 0 < low <= high <= 1")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std}: expected values above 0")
        if self.gaussian_blur_prob is not None:
            refuse_without_effect(self, ("blur_view_1_prob",), "gaussian_blur_prob replaces it")
        if self.num_local == 0:
            refuse_without_effect(self, ("local_px", "local_scale"), "num_local is 0")
        return self

    @property
    def blur_probs(self) -> tuple[float, float, float]:
        """Probability for view 1, for view 2 and for a local view."""
        if self.gaussian_blur_prob is not None:
            return (self.gaussian_blur_prob,) * 3
        return self.blur_view_1_prob, BLUR_VIEW_2_PROB, BLUR_LOCAL_PROB

    @property
    def not_used(self) -> list[str]:
        """Turns, motion blur and recompression where they are off: runs of before had no such settings."""
        of_a_camera = {
            "turn_deg": ["turn_deg"],
            "motion_blur_prob": ["motion_blur_prob", "motion_blur_px"],
            "recompress_prob": ["recompress_prob", "recompress_quality"],
        }
        return [name for setting, names in of_a_camera.items() if not getattr(self, setting) for name in names]

    def is_on_device(self, device_type: str) -> bool:
        """Whether a device of this type does the photometric half of the views."""
        return device_type == "cuda" if self.on_device == "auto" else self.on_device


class DinoConfig(Section):
    """DINO (Caron et al. 2021). None: derived from the number of crops and steps, and logged."""

    num_prototypes: Count | None = None
    """Output dimension K of the head. None: 256 up to 5,000 crops, 1,024 up to 20,000, then rising to 65,536; halved
    until the run has 100 targets for each."""
    hidden_dim: Count | None = None
    """Width of the head's two hidden layers. None: 512, and 2,048 from 4,096 prototypes on."""
    bottleneck_dim: Count | None = None
    """Width before the prototypes. None: 64 up to 1,024 prototypes, 256 above."""
    batch_norm: bool | None = None
    """Batch normalisation in the head, over all processes: keeps the crops' scores apart. None: in runs of fewer than
    20,000 steps, which are too short to leave the flat phase without it."""
    student_temp: Annotated[float, Fixed()] = 0.1
    """Softmax temperature of the student, as in DINO; what matters is how much sharper the teacher is."""
    warmup_teacher_temp: Positive | None = None
    """Softmax temperature of the teacher at the start."""
    teacher_temp: Positive | None = None
    """Softmax temperature of the teacher after its warm-up. None: 0.025 up to 20,000 crops, 0.07 from 1.28 million on;
    0.025 up to 2,500 steps, 0.07 from 100,000 on; in between by the logarithm, and the lower of both counts."""
    teacher_temp_warmup_ratio: Annotated[float, Fixed()] = 0.3
    """Share of the run over which the teacher's temperature moves: 30 of 100 epochs, as in DINO."""
    momentum: Ratio | None = None
    """Momentum of the teacher's moving average at the start; a cosine raises it to 1, with constant_decay it is
    constant."""
    center_momentum: Annotated[float, Fixed()] = 0.9
    """Momentum of the centre's moving average, as in DINO; without effect with Sinkhorn-Knopp, which has no centre."""
    freeze_prototypes_ratio: Share = 0.01
    """Share of the run in which the prototypes keep their initial values (DINO: the first of 100 epochs)."""
    standardize_head: bool = True
    """Fit the head's first weights to some crops, so that the first targets differ (false: DINO's own initialisation);
    a head with batch_norm needs no fitting."""
    fix_prototype_norm: Annotated[bool, Fixed()] = True
    """Every prototype has length 1, DINO's norm_last_layer: learned lengths only make training less stable."""


class BudgetConfig(Section):
    """Length of a run without `epochs`."""

    views: Count | None = None
    """Crops seen in the whole run, each crop of each step counted once. None: 100 epochs, or 20 million if that is
    less."""


class KoleoConfig(Section):
    """KoLeo regulariser (Sablayrolles et al. 2019): pushes a batch's embeddings apart, per global view."""

    weight: NotNegative = 0.0
    """Weight in the loss; 0 leaves it out."""
    epsilon: Positive = 1e-4
    """Added to distances inside the logarithm, in float32."""


class SinkhornConfig(Section):
    """Sinkhorn-Knopp targets instead of centring."""

    use: Annotated[bool | None, Flag("--use-sinkhorn")] = None
    """Balance the teacher's targets over the whole batch. None: yes (runs begun by an earlier version keep theirs)."""
    eps: Positive | None = None
    """Temperature of the balanced targets; None: the teacher's scheduled temperature."""
    iters: Count = 3
    """Rounds of row and column normalisation."""


class PointsConfig(Section):
    """Points as a teacher, as in SignRep (arXiv 2503.08529): the class token predicts those of its hand or face."""

    weight: NotNegative = 0.0
    """Weight in the loss, such as 1 for hands and 5 for faces; 0 leaves it out. The points are those of the extraction
    (keypoints, tracks and metadata beside the crops' folder); crops without points add nothing."""


class PositivesConfig(Section):
    """Global view 2 from another crop that shows nearly the same, so that views differ by more than augmentation."""

    neighbour_s: Range | None = None
    """Take it from a frame of the same video between this many seconds away, such as `[0.1, 0.3]`. None: never.
    A crop without a partner is its own."""
    other_signer_prob: Prob = 0.0
    """Probability of taking it from one of the 4 crops of other signers with the nearest hand points (cosine at least
    0.95), if there are any; else as above. Searched for once among at most 65,536 crops."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.neighbour_s is not None and not 0 < self.neighbour_s[0] <= self.neighbour_s[1]:
            low, high = self.neighbour_s
            raise ValueError(f"neighbour_s [{low:g}, {high:g}]: expected 0 < low <= high")
        return self

    @property
    def is_used(self) -> bool:
        """Whether any view comes from another crop."""
        return self.neighbour_s is not None or self.other_signer_prob > 0


class PretrainConfig(Section):
    """Pretrain the vision backbone of one stream, or of both hands, on its crops, self-supervised."""

    train_dir: Annotated[list[Path], Field(min_length=1)]
    """Folders of crops: archives `<video>.zip`, or loose JPEGs `<video>_f000000.jpg`."""
    output_dir: Path
    """Folder of the run."""
    algorithm: Literal["dino", "ibot"] = "dino"
    """Self-supervised method."""
    epochs: Count | None = None
    """Training length; see dataset.epoch_steps. None: set by section budget, by default at most 100."""
    stream: PretrainedName | None = None
    """Stream of the crops; None: the name of the training folder. hands: the folders of both hands, with left ones
    mirrored."""
    export_backbone: Path | None = None
    """Where the exported weights go; None: backbone.pt in the output folder."""
    seed: int = 0
    """Seed of every random draw."""
    resume: Annotated[str, Flag("--resume", bare="must")] = "auto"
    """auto: continue an equal run where it stopped; never: start from scratch; must (or the flag alone): continue or
    fail; or a checkpoint's path."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: refuse, or move that one to previous/ and start."""
    distributed: bool = False
    """Several processes, started by torchrun."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: Count | None = None
    """CPU threads of a process; None: its share of the cores it may use."""
    budget: BudgetConfig = BudgetConfig()
    dataset: DatasetConfig = DatasetConfig()
    init: InitConfig = InitConfig()
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optim: OptimConfig = OptimConfig()
    dino: DinoConfig = DinoConfig()
    ibot: IbotConfig = IbotConfig()
    koleo: KoleoConfig = KoleoConfig()
    sinkhorn: SinkhornConfig = SinkhornConfig()
    points: PointsConfig = PointsConfig()
    positives: PositivesConfig = PositivesConfig()
    checkpointing: CheckpointingConfig = CheckpointingConfig()
    monitor: MonitorConfig = MonitorConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.epochs is not None:
            refuse_without_effect(self.budget, ("views",), "epochs is set", prefix="budget.")
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
        if self.sinkhorn.eps is not None:
            temps = ("warmup_teacher_temp", "teacher_temp")
            refuse_without_effect(self.dino, temps, "sinkhorn.eps is set", prefix="dino.")
        if self.algorithm == "dino":
            refuse_without_effect(self.ibot, tuple(IbotConfig.model_fields), "algorithm is 'dino'", prefix="ibot.")
        if self.export_backbone is not None and self.export_backbone.suffix == ".safetensors":
            raise ValueError(
                f"export_backbone '{self.export_backbone}': give a .pt, the .safetensors is written beside it"
            )
        names = [self.checkpointing.last_name, self.checkpointing.best_name, self.checkpointing.history_file]
        taken = [name for key, name in PRETRAINING_FILES.items() if key not in ("last", "best", "history")]
        taken += [STATE, PREVIOUS, "tensorboard", "wandb"]
        if doubled := [name for i, name in enumerate(names) if name in taken + names[:i]]:
            raise ValueError(f"checkpointing: '{doubled[0]}' names two files of the run; give each its own name")
        return self

    def named_stream(self, allowed: tuple[str, ...]) -> str:
        """The stream of this run, or `HANDS`: as set, else by the name of the training folder.

        Raises:
            UserError: Unknown, not one of ``allowed``, a hand that is to be flipped, or a folder named as another.
        """
        named = {path.name for path in self.train_dir if path.name in STREAMS}
        if self.stream is None and len(named) > 1:
            both = f"; --stream {HANDS} trains one backbone of both" if named == {*HAND_STREAMS} else ""
            found = " and ".join(sorted(named))
            raise UserError(f"train_dir: found folders of {found}, expected one stream per run{both}")
        stream: str | None = self.stream or next(iter(named), allowed[0] if len(allowed) == 1 else None)
        if stream is None:
            raise UserError(
                f"train_dir '{self.train_dir[0]}': the folder's name is not a stream, expected one of"
                f" {', '.join(allowed)}; add --stream"
            )
        if stream not in allowed:
            raise UserError(
                f"stream '{stream}': expected {' or '.join(allowed)} here; use scripts/{pretrain_script(stream)}"
            )
        # a folder of hands as "face", too
        sides = [name for name in HAND_STREAMS if name in (stream, *named)]
        if sides and self.augmentation.flip_prob:
            raise UserError(
                f"augmentation.flip_prob = {self.augmentation.flip_prob:g}: a flipped {sides[0]} is the other hand,"
                " and this backbone is of one side; expected 0"
            )
        if self.output_dir.name in {f"dino_{name}" for name in (*STREAMS, HANDS) if name != stream}:
            raise UserError(
                f"output_dir '{self.output_dir}': is named after another stream than '{stream}'; give --output-dir"
                f" {self.output_dir.with_name(f'dino_{stream}')}"
            )
        if stream == HANDS:
            self._check_folders_of_hands(named)
        elif self.stream is not None and (others := sorted(named - {self.stream})):
            raise UserError(
                f"train_dir: found a folder of {others[0]}, and the stream is '{self.stream}': the backbone would be"
                " called what it is not; leave --stream out, or give folders of that stream"
            )
        return stream

    def _check_folders_of_hands(self, named: set[str]) -> None:
        """The name of a folder alone says which hands are mirrored."""
        if unknown := [folder for folder in self.train_dir if folder.name not in HAND_STREAMS]:
            raise UserError(
                f"train_dir '{unknown[0]}': the folder's name does not say which hand it shows, expected"
                f" {' or '.join(HAND_STREAMS)} for stream '{HANDS}': left hands are mirrored; rename it"
            )
        if absent := [name for name in HAND_STREAMS if name not in named]:
            raise UserError(
                f"train_dir: found no folder of {absent[0]}, expected {' and '.join(HAND_STREAMS)} for stream"
                f" '{HANDS}'; name it, too, or leave --stream out"
            )

    def identity(self, num_processes: int = 1) -> dict[str, Any]:
        """The settings that alter the weights, as plain values, for the fingerprint of the run.

        Paths, names, loader and logging are not among them; fixed values are, as runs of before recorded them. Of the
        batch it is the joint one of all processes: how many share it, and in how many parts, leaves the crops, rates
        and schedules as they are (KoLeo's neighbours come from a part, and batch norm is over that of all processes).
        """
        no_effect = ("train_dir", "output_dir", "export_backbone", "resume", "on_conflict", "distributed", "device")
        tree = self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys((*no_effect, "threads", "checkpointing", "experiment", "tracking"), True),
                "dataset": {"batch_size", "num_workers", "pin_memory", "persistent_workers", "scratch_dir"},
                "optim": {"accumulate", "checkpoint_activations", "compile"},  # as device and threads
                "init": {"weights", "download"},  # the run adds the digest of their tensors
                "monitor": {"log_every_steps", "stop_on_collapse", "labels", "pictures"},
            },
        )
        if self.model.num_heads is None:  # runs of before had no such setting, nor the next
            del tree["model"]["num_heads"]
        if not self.dataset.cluster_balance:
            del tree["dataset"]["cluster_balance"]
        if not self.points.weight:
            del tree["points"]
        if not self.positives.is_used:
            del tree["positives"]
        if self.optim.schedule == "cosine":  # nor this
            del tree["optim"]["schedule"]
        else:  # another length goes on, and is no other experiment
            del tree["epochs"], tree["budget"]
        tree["dataset"]["joint_batch"] = joint_batch = self.dataset.batch_size * num_processes
        if self.optim.learning_rate_scaling == "auto" and joint_batch <= LINEAR_BATCH:  # which it is there
            tree["optim"]["learning_rate_scaling"] = "linear"
        tree["augmentation"]["blur_probs"] = list(self.augmentation.blur_probs)
        for name in ("gaussian_blur_prob", "blur_view_1_prob", *self.augmentation.not_used):
            del tree["augmentation"][name]
        return tree


def upgraded_identity(recorded: dict[str, Any]) -> dict[str, Any]:
    """An identity as `PretrainConfig.identity` makes it now, from one that an earlier version recorded.

    Until the joint batch was recorded, it was the batch of a process, its parts, and the number of processes.
    """
    if "world_size" not in recorded or "batch_size" not in recorded.get("dataset", {}):
        return recorded
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in recorded.items()}
    tree["dataset"]["joint_batch"] = tree["dataset"].pop("batch_size") * tree.pop("world_size")
    tree.get("optim", {}).pop("accumulate", None)
    return tree


def auto_workers(cores: int) -> int:
    """Loader processes for a training process that owns ``cores`` cores; on two the model needs both."""
    return 0 if cores <= 2 else min(8, cores - 1)


class ShowConfig(Section):
    """Draw what a backbone sees in crops: attention maps, main directions of the patches, nearest neighbours."""

    backbone: str
    """file::PATH[:ARCHITECTURE] or a plain path."""
    crops: Path
    """Folder of one stream's crops, or of plain images, or a ZIP of images."""
    output: Path
    """Folder to write into."""
    title: str | None = None
    """Title of each picture; None: the name of the crops' folder."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""
