"""Settings of one multistream training. No torch here: ``--help`` and typos answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.experiment import ExperimentConfig
from signstreams.streams import FACE, HAND_L, HAND_R

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]

BACKBONE_KEYS = {FACE: "face_backbone", HAND_L: "hand_left_backbone", HAND_R: "hand_right_backbone"}


class DataConfig(Section):
    """Clips and batches."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 16
    """Clips a step."""
    frame_stride: Count = 2
    """Take every so many frames of a clip, from its first; all streams take the same ones."""
    max_frames: Count = 512
    """Longest clip, in frames after the stride; a longer one is refused by name, never cut."""
    subset_size: Annotated[Count | None, Flag("--subset-size")] = None
    """Train on so many clips of the train split, drawn by the seed. None: on all."""
    crop_px: Count | None = None
    """Side to which crops are resized for the backbones. None: the side each backbone was trained on."""
    unknown_gloss: Literal["refuse", "count"] = "refuse"
    """A gloss of val or test that train lacks: stop and name it, or go on (no CTC for the clip, an error in WER)."""
    allow_absent_videos: bool = False
    """Leave out clips whose video was not extracted, as in a corpus fetched in part; otherwise they are errors."""


class AugmentationConfig(Section):
    """Changes of the keypoints in training, drawn anew for each clip; none in validation. Never flipped."""

    scale: NotNegative = 0.1
    """Greatest relative change of size."""
    rotate_deg: NotNegative = 10.0
    """Greatest turn in the image plane, in degrees."""
    translate: NotNegative = 0.1
    """Greatest shift, in units of three half shoulder widths (half the signing space's width)."""
    noise: NotNegative = 0.0
    """Deviation of normal noise on each coordinate, in the same units."""
    time_scale: Range = [0.8, 1.2]
    """Range of the factor on the number of frames; streams are resampled together."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.time_scale
        if not 0 < low <= high:
            raise ValueError(f"time_scale [{low:g}, {high:g}]: expected 0 < low <= high")
        return self


class ModelConfig(Section):
    """Streams and the encoder that fuses them over time."""

    face_backbone: Annotated[str | None, Flag("--face-backbone")] = None
    """Backbone of the face crops: file::PATH, file::PATH:ARCHITECTURE or timm::NAME. None: the stream is left out."""
    hand_left_backbone: Annotated[str | None, Flag("--hand-left-backbone")] = None
    """Backbone of the crops of the signer's left hand. None: the stream is left out."""
    hand_right_backbone: Annotated[str | None, Flag("--hand-right-backbone")] = None
    """Backbone of the crops of the signer's right hand. None: the stream is left out."""
    freeze_face_backbone: Annotated[bool, Flag("--freeze-face-backbone")] = True
    """Keep its weights: the crops are encoded once, at the start. false: train it inside the model."""
    freeze_hand_left_backbone: Annotated[bool, Flag("--freeze-hand-left-backbone")] = True
    """As freeze_face_backbone."""
    freeze_hand_right_backbone: Annotated[bool, Flag("--freeze-hand-right-backbone")] = True
    """As freeze_face_backbone."""
    use_pose: Annotated[bool, Flag("--use-pose")] = True
    """Use the body pose in signing space (nose, shoulders, elbows, wrists) as a stream."""
    use_mska: Annotated[bool, Flag("--use-mska")] = True
    """Use the multi-stream keypoint attention branch, with its CTC and self-distillation losses."""
    projection_dim: Count = 256
    """Width of each stream before the fusion."""
    d_model: Count = 256
    """Width of the fusion encoder and of the text decoder."""
    num_layers: Count = 3
    """Layers of the fusion encoder."""
    num_heads: Count = 4
    """Attention heads of a layer."""
    ff_dim: Count = 1024
    """Inner width of a layer's MLP."""
    dropout: Dropout = 0.1
    """Dropout of projections and fusion encoder."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.num_heads or self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) is no even multiple of num_heads ({self.num_heads})")
        if not self.backbones and not self.use_pose and not self.use_mska:
            raise ValueError("no stream is left: set a backbone, use_pose or use_mska")
        for stream, key in BACKBONE_KEYS.items():
            if f"freeze_{key}" in self.model_fields_set and stream not in self.backbones:
                raise ValueError(f"freeze_{key} has no effect: {key} is none; leave it out")
        return self

    @property
    def backbones(self) -> dict[str, str]:
        """Stream to backbone spec, of the streams in use."""
        specs = {stream: getattr(self, key) for stream, key in BACKBONE_KEYS.items()}
        return {stream: spec for stream, spec in specs.items() if spec is not None}

    def is_frozen(self, stream: str) -> bool:
        """Whether the stream's backbone keeps its weights."""
        return bool(getattr(self, f"freeze_{BACKBONE_KEYS[stream]}"))


class MskaConfig(Section):
    """Multi-stream keypoint attention (arXiv 2405.05672), and the weights of the losses."""

    translation_weight: NotNegative = 1.0
    """Weight of the translation loss."""
    ctc_weight: NotNegative = 1.0
    """Weight of the CTC losses, summed over the heads; off by itself without annotations/gloss.csv."""
    distillation_weight: NotNegative = 1.0
    """Weight of the self-distillation of the heads; off by itself without annotations/gloss.csv."""
    distillation_warmup_ratio: Ratio = 0.3
    """Share of the run after which self-distillation starts: earlier it would feed CTC's blank plateau."""
    gloss_fusion: Literal["add", "concat", "none"] = "add"
    """How the fuse head's features meet the decoder's memory: added, concatenated and projected, or not at all."""
    channels: list[Count] = Field([64, 64, 128, 128, 256, 256, 256, 256], min_length=2)
    """Output channels of each block; the first and the middle block halve the frame rate."""
    num_heads: Count = 6
    """Attention heads of a block."""
    dropout: Dropout = 0.1
    """Dropout of attention weights and heads."""
    head_dim: Count = 512
    """Width of the left, right, body and fuse heads."""
    head_ff_dim: Count = 2048
    """Inner width of a head's convolutions."""
    root_relative_hands: bool = True
    """Give hand points of the left and right stream relative to the hand's own wrist (body keeps their place)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if odd := [width for width in [*self.channels, self.head_dim] if width % 4]:
            raise ValueError(f"channels and head_dim: {odd[0]} is no multiple of 4")
        if not (self.translation_weight or self.ctc_weight or self.distillation_weight):
            raise ValueError("all loss weights are 0; expected one above 0")
        return self


class DecoderConfig(Section):
    """Text decoder: a T5 built from these sizes, with a tokenizer trained on the texts of the train split."""

    num_layers: Count = 3
    """Layers."""
    num_heads: Count = 4
    """Attention heads of a layer."""
    ff_dim: Count = 512
    """Inner width of a layer's MLP."""
    dropout: Dropout = 0.1
    """Dropout of the decoder."""
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    """Greatest number of text tokens: 256 bytes, 3 special ones, the rest learned."""
    max_tokens: Count = 128
    """Longest text in tokens, in training (a longer one is refused by name) and in decoding."""


class OptimConfig(Section):
    """AdamW, linear warm-up and cosine by step."""

    lr: Positive = 5e-4
    """Peak learning rate of everything without one of its own."""
    lr_encoder: Annotated[Positive | None, Flag("--lr-encoder")] = None
    """Of projections and fusion encoder. None: lr."""
    lr_mska: Annotated[Positive | None, Flag("--lr-mska")] = None
    """Of the MSKA branch. None: lr."""
    lr_decoder: Annotated[Positive | None, Flag("--lr-decoder")] = None
    """Of the text decoder. None: lr."""
    lr_backbone: Annotated[Positive | None, Flag("--lr-backbone")] = None
    """Of backbones that are trained. None: a tenth of lr."""
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Learning rate at the end, as a share of the peak."""
    warmup_ratio: Ratio = 0.05
    """Share of the run with linear warm-up."""
    weight_decay: NotNegative = 0.01
    """Of weight matrices; norms, biases, embeddings, alpha and global matrices of MSKA have none."""
    clip_grad_norm: Positive | None = 1.0
    """Greatest norm of all gradients together; None: no clipping."""
    label_smoothing: Ratio = 0.1
    """Of the translation loss."""


class TrainConfig(Section):
    """Length and rhythm of the run."""

    epochs: Annotated[Count, Flag("--epochs")] = 40
    """Passes over the train split."""
    max_train_steps: Annotated[Count | None, Flag("--max-train-steps")] = None
    """End after so many steps, when that is earlier; the schedules end there too."""
    eval_every_epochs: Count = 1
    """Epochs between two evaluations on val; the last epoch always has one."""
    checkpoint_steps: Count = 500
    """Greatest number of steps between two writings of last.pt; each evaluation writes it too."""
    log_every_steps: Count = 10
    """Steps between two lines of training metrics."""


class IntegrateConfig(Section):
    """Train multistream v9: backbones, pose and keypoints into text; choose by val, score on test."""

    root: Path = Path("data/single_signer")
    """Corpus: meta.csv, annotations/gloss.csv, index/ and processed/ below it."""
    output_dir: Path = Path("work_dirs/multistream_v9")
    """Folder of the run."""
    seed: int = 0
    """Of every random draw."""
    resume: Literal["auto", "never", "must"] = "auto"
    """auto: go on where an equal run stopped; never: start anew; must: only go on."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: stop, or move that to previous/ and start."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    mska: MskaConfig = MskaConfig()
    decoder: DecoderConfig = DecoderConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    experiment: ExperimentConfig = ExperimentConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model.d_model % self.decoder.num_heads:
            raise ValueError(
                f"model.d_model ({self.model.d_model}) is no multiple of decoder.num_heads ({self.decoder.num_heads})"
            )
        if not self.model.use_mska:
            needing = {"ctc_weight", "distillation_weight", "distillation_warmup_ratio", "gloss_fusion"}
            if found := sorted(needing & self.mska.model_fields_set):
                raise ValueError(f"mska.{found[0]} has no effect: model.use_mska is false; leave one of them out")
            if not self.mska.translation_weight:
                raise ValueError("mska.translation_weight is 0 and model.use_mska is false: no loss is left")
            if "optim" in self.model_fields_set and self.optim.lr_mska is not None:
                raise ValueError("optim.lr_mska has no effect: model.use_mska is false; leave one of them out")
        if self.optim.lr_backbone is not None and all(map(self.model.is_frozen, self.model.backbones)):
            raise ValueError("optim.lr_backbone has no effect: every backbone is frozen; set model.freeze_..._backbone")
        return self

    def identity(self, backbone_digests: dict[str, str]) -> dict[str, Any]:
        """The settings that alter the result, as plain values; a backbone counts by its content, not by its path."""
        tree = self.model_dump(
            mode="json",
            exclude={
                "root": True,
                "output_dir": True,
                "resume": True,
                "on_conflict": True,
                "device": True,
                "experiment": True,
                "model": set(BACKBONE_KEYS.values()),
                "train": {"checkpoint_steps", "log_every_steps"},
            },
        )
        tree["model"]["backbones"] = dict(backbone_digests)
        return tree
