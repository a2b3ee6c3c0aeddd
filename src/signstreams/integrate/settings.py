"""Settings of multistream v9: training, embedding, evaluation. Imports no torch.

The sections of a training come first, in the order of the model; `IntegrateConfig` joins them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, create_model, model_validator

from signstreams.backbones.archs import Layers
from signstreams.config.load import flag_name
from signstreams.config.section import (
    Count,
    Fixed,
    Flag,
    NotNegative,
    Positive,
    Prob,
    Range,
    Section,
    Share,
    refuse_without_effect,
)
from signstreams.corpus.settings import Folders, listed
from signstreams.engine.settings import ExperimentConfig, TrackingConfig
from signstreams.integrate.mska_settings import MskaLayers, MskaNorm, check_norm
from signstreams.integrate.presets import Preset, Stage, with_preset, with_stage
from signstreams.integrate.scoring_settings import GivenScoring, ScoringConfig
from signstreams.integrate.stage_settings import check_stage, sees_video, without_effect
from signstreams.streams import BACKBONE_KEYS, STREAMS, TABLE

FEW_CLIPS = 1000  # published sign-language corpora begin at some thousands, and what they teach is modest


def few_clips(num_train_clips: int) -> str | None:
    """What to expect of a translation that so few clips taught; None where they may be enough."""
    if num_train_clips >= FEW_CLIPS:
        return None
    return f"{num_train_clips:,} clips cannot teach translation; some thousands do"


Device = Literal["auto", "cpu", "cuda"]
Split = Literal["train", "val", "test"]
if TYPE_CHECKING:
    FeatureSource = str
else:
    FeatureSource = Literal[(*STREAMS, "points")]


def _stream_fields(prefix: str, annotation: Any, default: Any, text: str) -> dict[str, Any]:
    """For `create_model`: a field per stream of crops, named and flagged after its ``backbone_key``, with its help."""
    fields: dict[str, Any] = {}
    for stream in TABLE:
        name = f"{prefix}{stream.backbone_key}"
        described = Field(default, description=text.format(stream=stream.name))
        fields[name] = (Annotated[annotation, Flag(f"--{flag_name(name)}")], described)
    return fields


# -- Training

_BACKBONE = (
    "Backbone of the {stream} crops: file::PATH, file::PATH:ARCHITECTURE or timm::NAME. None: the stream is left out."
)
_DOWNLOAD = "Let `timm::` backbones fetch weights that are not in the local cache."
_FREEZE = (
    "Keep the weights of the {stream} backbone: crops are encoded once, at the start. false: train it in the model."
)
_BackboneFields: Any = create_model(
    "_BackboneFields",
    __base__=Section,
    **_stream_fields("", str | None, None, _BACKBONE),
    download=(bool, Field(False, description=_DOWNLOAD)),
    **_stream_fields("freeze_", bool, True, _FREEZE),
)


class ModelConfig(_BackboneFields):
    """Streams and the encoder that fuses them over time."""

    if TYPE_CHECKING:  # fields of the base that mypy does not see
        download: bool = False

    trainable_blocks: Annotated[Count | None, Flag("--trainable-blocks")] = None
    """Train only this many last blocks and the final norm of a backbone that is not frozen. None: all of it."""
    backbone_layers: Annotated[Layers, Flag("--backbone-layers")] = "last"
    """Features of a backbone: the class token of its last block (last); a learned weighted sum over the class tokens of
    all blocks (weighted); or the last class token followed by the mean of the patches (last_and_patches), twice as
    wide."""
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
    """Attention heads per layer."""
    ff_dim: Count = 1024
    """Inner width of a layer's MLP."""
    dropout: Share = 0.1
    """Dropout of the projections and the fusion encoder."""
    stream_dropout: Share = 0.0
    """Probability of hiding a stream from a clip in training, drawn per stream, so that the model does not rely on a
    single one. MSKA counts as one stream, and is hidden wherever it enters the decoder's memory."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.num_heads or self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) is not an even multiple of num_heads ({self.num_heads})")
        if not self.backbones and not self.use_pose and not self.use_mska:
            raise ValueError("no stream is left: set a backbone, use_pose or use_mska")
        if self.download and not any(spec.startswith("timm::") for spec in self.backbones.values()):
            raise ValueError("download has no effect: no backbone is a timm:: model; leave it out")
        if self.trainable_blocks is not None and all(map(self.is_frozen, self.backbones)):
            raise ValueError(
                "trainable_blocks has no effect: every backbone is frozen; set freeze_..._backbone to false"
            )
        if self.backbone_layers != "last" and not self.backbones:
            raise ValueError("backbone_layers has no effect: there is no backbone; leave it out")
        for stream, key in BACKBONE_KEYS.items():
            if stream not in self.backbones and not self.is_frozen(stream):
                raise ValueError(f"freeze_{key} has no effect: {key} is not set; leave it out")
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
    """Multi-stream keypoint attention (MSKA, arXiv 2405.05672), and the weights of the losses."""

    translation_weight: NotNegative = 1.0
    """Weight of the translation loss. 0: learn glosses only; the best model is then chosen by gloss WER."""
    ctc_weight: NotNegative = 1.0
    """Weight of the CTC losses, summed over the heads; switched off where there is no annotations/gloss.csv."""
    distillation_weight: NotNegative = 1.0
    """Weight of the self-distillation of the heads; switched off where there is no annotations/gloss.csv."""
    distillation: Literal["step", "batch"] = "step"
    """Average the self-distillation over the steps of all clips; or sum it over steps and average over clips, as MSKA
    does, which is many times as large, and more for longer clips. Logged losses are per step."""
    distillation_warmup_ratio: Share = 0.3
    """Share of the run before self-distillation starts; starting earlier prolongs the phase in which CTC predicts
    blanks."""
    gloss_fusion: Literal["add", "concat", "none", "alone"] = "add"
    """How the fuse head's features enter the decoder's memory: added, concatenated and projected, or not at all. alone:
    they are the only input, as published; for a whole language model (decoder.use_encoder) without other streams."""
    channels: list[Count] = Field([64, 64, 128, 128, 256, 256, 256, 256], min_length=2)
    """Output channels of each block; the first and the middle block halve the frame rate."""
    num_heads: Count = 6
    """Attention heads per block."""
    dropout: Share = 0.1
    """Dropout of the attention weights and the heads."""
    head_dim: Count = 512
    """Width of the left, right, body and fuse heads."""
    head_ff_dim: Count = 2048
    """Inner width of a head's convolutions."""
    root_relative_hands: bool = True
    """Make hand points of the left and right streams relative to their wrist (the body stream keeps their place)."""
    norm: MskaNorm = "layer"
    """LayerNorm, with which a clip does not depend on others; or BatchNorm, for the authors' weights (--init-checkpoint
    mska::FILE): ignores padding, and needs one process and all clips of a step in one pass."""
    layers: MskaLayers = "published"
    """All layers of the authors' code; or without the norm after the embedding and three residual projections (reduced:
    25,472 parameters fewer per stream), as in models of earlier versions, which load and resume this way."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.norm == "batch" and self.layers == "reduced":
            raise ValueError("norm batch is that of the authors' layers, but layers is reduced; leave one of them out")
        if odd := [width for width in [*self.channels, self.head_dim] if width % 4]:
            raise ValueError(f"channels and head_dim: {odd[0]} is not a multiple of 4")
        if not (self.translation_weight or self.ctc_weight):  # without CTC there is no self-distillation either
            raise ValueError("translation_weight and ctc_weight are 0: no loss is left; expected one above 0")
        if not (self.distillation_weight and self.ctc_weight):
            refuse_without_effect(self, ("distillation",), "there is no self-distillation")
        return self

    @property
    def learns_text(self) -> bool:
        """Whether the translation loss counts; else glosses alone are learned."""
        return self.translation_weight > 0


class DecoderConfig(Section):
    """Text decoder: a small T5 of these sizes with a tokenizer trained on the train texts, or a model of Hugging
    Face."""

    preset: Annotated[Preset | None, Flag("--decoder-preset")] = None
    """Sizes and settings of a published model; explicit settings take precedence. signmusketeers: all of T5 v1.1 base,
    not pruned, without MSKA. mska_paper_mbart: keypoints and their fuse head alone, all of mBART-large-cc25, pruned,
    trained our way. mska_*: the stages of MSKA. gfslt*: those of GFSLT-VLP."""
    model: Annotated[str | None, Flag("--decoder-model")] = None
    """T5, mT5 or mBART of Hugging Face, by name or folder, with its tokenizer. None: a decoder built here."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Weights of a named model. random: use only its sizes, and the corpus's own tokenizer unless one is named."""
    tokenizer: str | None = None
    """Tokenizer of a named model, by name or folder. None: the model's own."""
    use_encoder: bool | None = None
    """Use the named model's encoder, too: it reads the mapped steps instead of words and replaces the fusion encoder
    (model.num_layers). false: only its decoder, behind the fusion encoder. None: true for pretrained weights."""
    prune_vocabulary: bool | None = None
    """Of the named model's tokens, keep only those that the training texts need, and letters to spell other words.
    None: true for a whole pretrained model."""
    offline: Annotated[bool, Flag("--decoder-offline")] = True
    """Use only files on this machine. false: download missing ones from huggingface.co."""
    target_language: str | None = None
    """Language code of the texts for mBART, such as es_XX."""
    num_layers: Count = 3
    """Layers of the decoder."""
    num_heads: Count = 4
    """Attention heads per layer."""
    ff_dim: Count = 512
    """Inner width of a layer's MLP."""
    dropout: Share = 0.1
    """Dropout of the decoder."""
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    """Maximum size of the vocabulary: 256 bytes, 3 special tokens, the rest learned."""
    max_tokens: Count = 128
    """Longest text in tokens, in training (longer ones are an error that names them) and in decoding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model is None:
            named = ("weights", "tokenizer", "offline", "target_language")
            refuse_without_effect(self, named, "no decoder.model is named", next_step="leave it out")
            if self.use_encoder or self.prune_vocabulary:
                name = "use_encoder" if self.use_encoder else "prune_vocabulary"
                raise ValueError(f"{name} has no effect: no decoder.model is named; leave it out")
            return self
        if self.prune_vocabulary and self.weights == "random":
            raise ValueError("prune_vocabulary has no effect: weights is random; leave one of them out")
        sizes = ["num_layers", "num_heads", "ff_dim", *([] if self.uses_own_tokenizer else ["vocab_size"])]
        refuse_without_effect(self, sizes, f"{self.model} has its own")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the text model is a named one with its encoder."""
        is_pretrained = self.model is not None and self.weights == "pretrained"
        return is_pretrained if self.use_encoder is None else self.use_encoder

    @property
    def is_pruned(self) -> bool:
        """Whether its vocabulary is pruned to that of the texts."""
        if self.prune_vocabulary is not None:
            return self.prune_vocabulary
        return self.is_whole and self.weights == "pretrained"

    @property
    def uses_own_tokenizer(self) -> bool:
        """Whether the tokenizer is trained on the corpus."""
        return self.model is None or (self.weights == "random" and self.tokenizer is None)


class DecodingConfig(Section):
    """Decoding of a trained model."""

    num_beams: Annotated[Count, Flag("--num-beams")] = 5
    """Hypotheses kept by beam search; 1 is greedy. Evaluations during training use scoring.num_beams."""
    length_penalty: Annotated[float, Flag("--length-penalty")] = 1.0
    """A hypothesis' score is divided by its length to this power: above 0 favours long texts, below 0 short ones."""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.num_beams == 1:
            refuse_without_effect(self, ("length_penalty",), "num_beams is 1")
        return self


class DataConfig(Section):
    """Clips and batches."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 16
    """Clips per batch."""
    frame_stride: Count = 2
    """Take every n-th frame of a clip, from the first on; the same frames for all streams."""
    max_frames: Count = 512
    """Longest clip, in frames after the stride."""
    long_clips: Literal["refuse", "stride", "sample", "centre"] = "refuse"
    """Clips longer than max_frames: refuse and name them, or read them with the smallest stride that makes them fit.
    sample, as in MSKA: in training at most max_frames from the whole clip, by augmentation.frame_sampling, otherwise
    the middle ones; centre: always the middle ones. The frames left out may have shown part of the text."""
    subset_size: Annotated[Count | None, Flag("--subset-size")] = None
    """Train on this many clips of the train split, drawn by the seed. None: all."""
    crop_px: Count | None = None
    """Side length to which crops are resized for the backbones. None: that of each backbone's training."""
    unknown_gloss: Literal["refuse", "count"] = "count"
    """A gloss of val or test that train lacks: refuse and name it, or count it (no CTC for the clip, an error in WER),
    as published corpora require: PHOENIX-2014T has 12 and 19 of them."""
    allow_absent_videos: bool = False
    """Leave out clips whose video was not extracted, as in a partly downloaded corpus; otherwise they are errors."""
    blank_video: bool = False
    """Hide every stream in training and evaluation, to measure what the text model reaches without seeing anything."""


class AugmentationConfig(Section):
    """Augmentation of the keypoints in training, drawn per clip. Never flipped."""

    scale: NotNegative = 0.1
    """Largest relative change of size."""
    rotate_deg: NotNegative = 10.0
    """Largest rotation in the image plane, in degrees."""
    rotate_prob: Prob = 1.0
    """Probability that a clip is rotated at all."""
    translate: NotNegative = 0.1
    """Largest shift, in units of three half shoulder widths (half the width of the signing space)."""
    noise: Annotated[float, Fixed()] = 0.0
    """Gaussian noise on the coordinates: none, as detections are noisy enough. Recorded because it is in
    fingerprints."""
    time_scale: Range = [0.8, 1.2]
    """Range of the factor on the number of frames; all streams are resampled together."""
    frame_sampling: Literal["even", "random"] = "even"
    """Frames of a resampled clip: evenly spaced; or random ones in order, as in MSKA: a subset if it gets shorter, or
    all with some repeated if it gets longer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.time_scale
        if not 0 < low <= high:
            raise ValueError(f"time_scale [{low:g}, {high:g}]: expected 0 < low <= high")
        if not self.rotate_deg:
            refuse_without_effect(self, ("rotate_prob",), "rotate_deg is 0")
        return self


class OptimConfig(Section):
    """AdamW, Adam or SGD, with linear warm-up and cosine decay by step."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw: decay of the weights apart from the gradients. adam: added to them (L2), as in MSKA. sgd: likewise, with
    Nesterov momentum, as in GFSLT-VLP."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Decay of the running means of the gradients (for sgd: the momentum) and of their squares (not used by sgd)."""
    lr: Positive = 5e-4
    """Peak learning rate of all parts without their own."""
    lr_encoder: Annotated[Positive | None, Flag("--lr-encoder")] = None
    """Peak learning rate of the projections and the fusion encoder. None: lr."""
    lr_mska: Annotated[Positive | None, Flag("--lr-mska")] = None
    """Peak learning rate of the MSKA branch. None: lr."""
    lr_decoder: Annotated[Positive | None, Flag("--lr-decoder")] = None
    """Peak learning rate of the text decoder, or of the whole language model. None: lr."""
    lr_mapper: Positive | None = None
    """Peak learning rate of the two layers that map steps to a whole language model. None: lr."""
    lr_backbone: Annotated[Positive | None, Flag("--lr-backbone")] = None
    """Peak learning rate of backbones that are trained. None: a tenth of lr."""
    final_lr_ratio: Share = 0.01
    """Final learning rate as a share of the peak: almost zero, so that the last steps still count. MSKA uses 0."""
    warmup_ratio: Share = 0.05
    """Share of the run with linear warm-up; it scales with the run, so it rarely needs changing. MSKA uses 0."""
    weight_decay: NotNegative = 0.01
    """Decay of weight matrices; norms, biases, embeddings, and MSKA's alpha and global matrices have none."""
    clip_grad_norm: Positive | None = 1.0
    """Largest norm of the gradients of each part (backbone, mska, encoder, mapper, decoder): guards against rare
    spikes, and keeps CTC's gradients, which are many times larger, from dominating the decoder's. None: no limit, as in
    MSKA."""
    label_smoothing: Share = 0.1
    """Label smoothing of the translation loss."""
    translation_loss: Literal["token", "sentence"] = "token"
    """Average the translation loss over tokens; or over sentences, each the sum of its tokens, as MSKA does, which is
    as many times larger as a sentence has tokens. Logged losses are per token."""
    accumulate_steps: Count = 1
    """Forward and backward passes per optimiser step, each over data.batch_size clips; together they are one batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in bfloat16; losses and weights stay float32."""
    checkpoint_activations: bool = False
    """Recompute the activations of MSKA and of trained backbones in the backward pass: less memory, more time."""


Files = Annotated[list[Path], BeforeValidator(lambda value: [] if value is None else listed(value))]
"""Files in their order; one alone need not be in a list."""


class TrainConfig(Section):
    """Length of the run, and how often it evaluates, logs and saves."""

    epochs: Annotated[Count, Flag("--epochs")] = 40
    """Passes over the train split."""
    max_train_steps: Annotated[Count | None, Flag("--max-train-steps")] = None
    """End after this many steps if that is earlier; the schedules end there too."""
    eval_every_epochs: Count = 1
    """Epochs between evaluations on val; the last epoch always has one."""
    patience_evals: Count | None = None
    """End after this many consecutive evaluations without improvement. None: train to the end."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Evaluate and keep an exponential moving average of the weights with this decay per step. None: no averaging."""
    init_checkpoint: Annotated[Files, Flag("--init-checkpoint")] = []
    """best.pt of other runs to start from, such as those of the stages s2g and g2t: weights that match by name and
    shape are used, the log lists the others; where several have a weight, the last one counts. Or mska::FILE, a
    checkpoint of MSKA's authors, for its recognition network."""
    text_files: Annotated[Files, Flag("--text-files")] = []
    """Of stage text: UTF-8 files of one sentence per line, beside the texts of train, without those of val and test."""
    sequence_checkpoint: Annotated[Path | None, Flag("--sequence-checkpoint")] = None
    """best.pt of a sequence pretraining (signstreams sequence) whose encoder this training starts from."""
    checkpoint_steps: Annotated[int, Fixed()] = 500
    """Largest number of steps between two last.pt; each evaluation writes one, too. A killed run loses at most the
    minutes in between, a run that is asked to stop loses nothing. Recorded because best.pt holds the config."""
    log_every_steps: Count = 10
    """Steps between lines of training metrics."""

    @model_validator(mode="after")
    def _starts_from_one(self) -> Self:
        if self.init_checkpoint and self.sequence_checkpoint is not None:
            raise ValueError("init_checkpoint and sequence_checkpoint both give the first weights; name one of them")
        return self


class IntegrateConfig(Section):
    """Train multistream v9: backbones, pose and keypoints to text; the best model is chosen on val."""

    stage: Annotated[Stage, Flag("--stage")] = "slt"
    """What is learned. slt: texts, and glosses where the corpus has them. s2g: glosses from keypoints alone, MSKA's
    first stage. g2t: texts from glosses, without video. vlp: alignment of clips and sentences, for a corpus without
    glosses, as in GFSLT-VLP. text: sentences with gaps restored, for a decoder from scratch. slt starts from these with
    train.init_checkpoint."""
    root: Path = Path("data/single_signer")
    """Root folder of the corpus: meta.csv, annotations/gloss.csv, index/ and processed/ are in it."""
    output_dir: Path = Path("work_dirs/multistream_v9")
    """Folder of the run."""
    features_dir: Annotated[Path | None, Flag("--features")] = None
    """Folder of the arrays computed once per video: features of frozen backbones, points. None: output_dir/features."""
    seed: int = 0
    """Seed of every random draw."""
    resume: Annotated[Literal["auto", "never", "must"], Flag("--resume", bare="must")] = "auto"
    """auto: continue an equal run; never: start from scratch; must (or the flag alone): continue or fail."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: stop, or move that to previous/ and start."""
    device: Device = "auto"
    """Where to compute."""
    distributed: Annotated[bool, Flag("--distributed")] = False
    """Several processes, started by torchrun."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    mska: MskaConfig = MskaConfig()
    decoder: DecoderConfig = DecoderConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    scoring: ScoringConfig = ScoringConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _above_the_preset(cls, tree: Any) -> Any:
        return with_stage(with_preset(tree))

    @model_validator(mode="after")
    def _is_of_its_stage(self) -> Self:
        check_stage(self)
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decoder.model is None and self.model.d_model % self.decoder.num_heads:
            raise ValueError(
                f"model.d_model ({self.model.d_model}) is not a multiple of decoder.num_heads"
                f" ({self.decoder.num_heads}); change one of them"
            )
        if not self.model.use_mska:
            needing = ["ctc_weight", "distillation_weight", "distillation_warmup_ratio", "gloss_fusion"]
            needing += ["distillation", "norm", "layers"]
            refuse_without_effect(self.mska, needing, "model.use_mska is false", prefix="mska.")
            if not self.mska.translation_weight:
                raise ValueError(
                    "mska.translation_weight is 0 and model.use_mska is false: no loss is left; set one of them"
                )
            refuse_without_effect(self.optim, ("lr_mska",), "model.use_mska is false", prefix="optim.")
            refuse_without_effect(
                self.augmentation, ("rotate_prob",), "model.use_mska is false", prefix="augmentation."
            )
        if not self.learns_glosses:
            names = ("gloss_cleanup", "gloss_beams")
            refuse_without_effect(self.scoring, names, "no glosses are learned", prefix="scoring.")
        if not self.mska.learns_text:
            reason = "mska.translation_weight is 0"
            refuse_without_effect(self.optim, ("translation_loss",), reason, prefix="optim.")
            refuse_without_effect(self.scoring, ("num_beams",), reason, prefix="scoring.")
        if self.augmentation.time_scale == [1, 1] and self.data.long_clips != "sample":
            reason = "augmentation.time_scale is 1, and data.long_clips is not sample"
            refuse_without_effect(self.augmentation, ("frame_sampling",), reason, prefix="augmentation.")
        self._check_text_model()
        is_all_frozen = all(map(self.model.is_frozen, self.model.backbones))
        if self.optim.checkpoint_activations and is_all_frozen and not self.model.use_mska:
            raise ValueError(
                "optim.checkpoint_activations has no effect: every backbone is frozen and model.use_mska is false;"
                " leave it out"
            )
        if self.optim.lr_backbone is not None and is_all_frozen:
            raise ValueError("optim.lr_backbone has no effect: every backbone is frozen; set model.freeze_..._backbone")
        check_norm(self)
        return self

    def _check_text_model(self) -> None:
        """Settings of the fusion encoder, and of the way to a whole language model."""
        if not self.decoder.is_whole:
            refuse_without_effect(
                self.optim, ["lr_mapper"], "decoder.use_encoder is false", prefix="optim.", next_step="set it to none"
            )
            if self.mska.gloss_fusion == "alone":
                raise ValueError(
                    "mska.gloss_fusion: alone needs a whole language model, but decoder.use_encoder is false; set it to"
                    " add"
                )
            return
        reason = "the encoder of decoder.model takes the place of the fusion encoder"
        sizes = ("num_layers", "num_heads", "ff_dim")
        next_step = "leave it out, or set decoder.use_encoder to false"
        refuse_without_effect(self.model, sizes, reason, prefix="model.", next_step=next_step)
        if self.mska.gloss_fusion != "alone":
            return
        if self.model.backbones or self.model.use_pose:
            raise ValueError(
                "mska.gloss_fusion: alone leaves nothing but the fuse head's features, expected no backbone and"
                " model.use_pose false; or set it to add"
            )
        reason = "mska.gloss_fusion is alone"
        widths = ("projection_dim", "d_model", "dropout", "stream_dropout")
        refuse_without_effect(self.model, widths, reason, prefix="model.")
        refuse_without_effect(self.optim, ["lr_encoder"], reason, prefix="optim.")

    @property
    def writes_text(self) -> bool:
        """Whether a translation is learned."""
        return self.stage not in ("vlp", "text") and self.mska.learns_text

    @property
    def learns_glosses(self) -> bool:
        """Whether glosses are learned where the corpus has them."""
        return self.stage not in ("vlp", "text") and self.model.use_mska and self.mska.ctc_weight > 0

    @property
    def features(self) -> Path:
        """Folder of features and points."""
        return self.features_dir or self.output_dir / "features"

    def identity(
        self, backbone_digests: dict[str, str], *, init_digests: Sequence[str] = (), sequence_digest: str | None = None
    ) -> dict[str, Any]:
        """The settings that alter the result, as plain values; files count by their content, not by their path."""
        no_effect = ("root", "output_dir", "features_dir", "resume", "on_conflict", "device", "distributed")
        tree = self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys((*no_effect, "experiment", "tracking"), True),
                "model": {*BACKBONE_KEYS.values(), "download"},
                "optim": {"checkpoint_activations"},
                "train": {"checkpoint_steps", "log_every_steps", *_FILES},
            },
        )
        is_given = "unknown_gloss" in self.data.model_fields_set  # "refuse", the default once, gives the same run
        tree["data"]["unknown_gloss"] = self.data.unknown_gloss if is_given else "refuse"
        tree["decoder"]["offline"] = True  # where weights come from, which a download needs once, alters nothing
        for name, value in (("use_encoder", self.decoder.is_whole), ("prune_vocabulary", self.decoder.is_pruned)):
            tree["decoder"].pop(name)
            if value:  # what came later, and runs of before did without, is named where it is used
                tree["decoder"][name] = value
        if self.optim.lr_mapper is None:
            tree["optim"].pop("lr_mapper")
        tree["model"]["backbones"] = dict(backbone_digests)
        # one alone stands by itself, as in runs of before, which had no others
        tree["train"]["init"] = list(init_digests) if len(init_digests) > 1 else next(iter(init_digests), None)
        if self.stage in ("slt", "s2g"):  # s2g is named by what it sets
            del tree["stage"]
        if self.mska.norm == "layer":  # runs of before had no such setting
            del tree["mska"]["norm"]
        if self.mska.layers == "reduced" or not self.model.use_mska:  # which those of before are
            del tree["mska"]["layers"]
        default = IntegrateConfig().model_dump(mode="json")
        for section, names in _NEWER.items():
            for name in names:
                if tree[section][name] == default[section][name]:
                    del tree[section][name]
        if not tree["scoring"]:
            del tree["scoring"]
        if sequence_digest is not None:
            tree["train"]["sequence"] = sequence_digest
        if not sees_video(self.stage):
            for section, name in without_effect(self):
                tree.get(section, {}).pop(name, None)
            tree = {section: value for section, value in tree.items() if value != {}}
        return tree


_FILES = ("init_checkpoint", "sequence_checkpoint", "text_files")  # count by their content
_NEWER: dict[str, Iterable[str]] = {
    "mska": ("distillation",),
    "augmentation": ("rotate_prob", "frame_sampling"),
    "optim": ("optimizer", "betas", "translation_loss"),
    "scoring": ScoringConfig.model_fields,
}
"""Settings that runs of before had not: by default they are no part of the identity, and those runs go on."""


# -- Embedding


class EmbedConfig(Section):
    """Encode all crops of a stream with a frozen backbone, or gather the points of all videos."""

    root: Path
    """Root folder of the corpus."""
    features_dir: Annotated[Path, Flag("--features")]
    """Folder of features; <stream>/<digest of the backbone>/<video>.npy and <stream>.json are written to it."""
    stream: FeatureSource
    """Stream of crops to encode; or points: times, pose and the nodes of MSKA, which need no backbone."""
    backbone: Annotated[str | None, Flag("--backbone")] = None
    """Backbone to encode with: file::PATH, file::PATH:ARCHITECTURE or timm::NAME."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` backbones fetch weights that are not in the local cache."""
    backbone_layers: Layers = "last"
    """As model.backbone_layers of the training; weighted keeps the class tokens of all blocks."""
    crop_px: Count | None = None
    """As data.crop_px of the training. None: that of the backbone's training."""
    device: Device = "auto"
    """Where to compute."""
    prune: bool = False
    """Remove this stream's features of other backbones."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream == "points":
            for name in ("backbone", "download", "crop_px", "prune"):
                if name in self.model_fields_set and getattr(self, name):
                    raise ValueError(f"{name} has no effect: points need no backbone; leave it out")
        elif self.backbone is None:
            example = f"file::work_dirs/dino_{self.stream}/backbone.pt"
            raise ValueError(f"stream {self.stream} needs a backbone; name it, such as {example}")
        elif self.download and not self.backbone.startswith("timm::"):
            raise ValueError("download has no effect: the backbone is not a timm:: model; leave it out")
        return self


# -- Trained models, and their evaluation


_CHECKPOINT = "Trained model, whose tokenizer is in the same folder; or the folder of a release or of a run."
_BACKBONE_NOW = (
    "Where the {stream} backbone is now, as file::PATH. None: where it was in training. The content must be the same."
)
_CheckpointFields: Any = create_model(
    "_CheckpointFields",
    __base__=Section,
    checkpoint=(Path, Field(Path("work_dirs/multistream_v9/best.pt"), description=_CHECKPOINT)),
    **_stream_fields("", str | None, None, _BACKBONE_NOW),
)


class TrainedModelSection(_CheckpointFields):
    """A trained model, and where its backbones are now."""

    if TYPE_CHECKING:
        checkpoint: Path

    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` backbones of the model fetch weights that are not in the local cache."""
    device: Device = "auto"
    """Where to compute."""
    decoding: DecodingConfig = DecodingConfig()


class EvaluateSltConfig(TrainedModelSection):
    """Score a trained model: predictions.csv and scores.json."""

    root: Path | None = None
    """Root folder of the corpus. None: that of the training."""
    features_dir: Annotated[Path | None, Flag("--features")] = None
    """Folder of features; missing ones are computed. None: as in training."""
    videos_dir: Folders | None = None
    """Folder of the videos that translations.html plays, or several, searched in order. None: `videos` in the corpus
    folder."""
    output_dir: Path | None = None
    """Folder of predictions.csv and scores.json. None: that of the checkpoint."""
    splits: list[Split] = Field(["val", "test"], min_length=1)
    """Splits to score; the last one is at the top level of scores.json."""
    batch_size: Annotated[Count | None, Flag("--batch-size")] = None
    """Clips per batch. None: as in training."""
    blank_video: bool = True
    """Score the last split a second time with every stream hidden: what the text model reaches on its own."""
    scoring: GivenScoring = GivenScoring()

    @model_validator(mode="after")
    def _splits_are_named_once(self) -> Self:
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits names one twice: {' '.join(self.splits)}; name each once")
        return self
