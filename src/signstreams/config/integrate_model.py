"""Settings of multistream v9: streams, fusion encoder, MSKA."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count, NotNegative, Share
from signstreams.streams import FACE, HAND_L, HAND_R

BACKBONE_KEYS = {FACE: "face_backbone", HAND_L: "hand_left_backbone", HAND_R: "hand_right_backbone"}


class ModelConfig(Section):
    """Streams and the encoder that fuses them over time."""

    face_backbone: Annotated[str | None, Flag("--face-backbone")] = None
    """Backbone of the face crops: file::PATH, file::PATH:ARCHITECTURE or timm::NAME. None: the stream is left out."""
    hand_left_backbone: Annotated[str | None, Flag("--hand-left-backbone")] = None
    """Backbone of the crops of the signer's left hand. None: the stream is left out."""
    hand_right_backbone: Annotated[str | None, Flag("--hand-right-backbone")] = None
    """Backbone of the crops of the signer's right hand. None: the stream is left out."""
    download: bool = False
    """Let `timm::` backbones fetch weights that are not in the local cache."""
    freeze_face_backbone: Annotated[bool, Flag("--freeze-face-backbone")] = True
    """Keep its weights: the crops are encoded once, at the start. false: train it inside the model."""
    freeze_hand_left_backbone: Annotated[bool, Flag("--freeze-hand-left-backbone")] = True
    """As freeze_face_backbone."""
    freeze_hand_right_backbone: Annotated[bool, Flag("--freeze-hand-right-backbone")] = True
    """As freeze_face_backbone."""
    trainable_blocks: Annotated[Count | None, Flag("--trainable-blocks")] = None
    """Of backbones that are not frozen, train only so many last blocks and the last norm. None: everything."""
    backbone_layers: Annotated[Literal["last", "weighted"], Flag("--backbone-layers")] = "last"
    """What a backbone gives: the class token of its last block, or a learned weighted sum over those of all blocks."""
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
    dropout: Share = 0.1
    """Share of projections and fusion encoder."""
    stream_dropout: Share = 0.0
    """Share of clips from which a stream is hidden in training, each stream by itself: none is leaned on alone."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.num_heads or self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) is no even multiple of num_heads ({self.num_heads})")
        if not self.backbones and not self.use_pose and not self.use_mska:
            raise ValueError("no stream is left: set a backbone, use_pose or use_mska")
        if self.download and not any(spec.startswith("timm::") for spec in self.backbones.values()):
            raise ValueError("download has no effect: no backbone is a timm:: model; leave it out")
        if self.trainable_blocks is not None and all(map(self.is_frozen, self.backbones)):
            raise ValueError(
                "trainable_blocks has no effect: every backbone is frozen; set freeze_..._backbone to false"
            )
        if self.backbone_layers == "weighted" and not self.backbones:
            raise ValueError("backbone_layers has no effect: there is no backbone; leave it out")
        for stream, key in BACKBONE_KEYS.items():
            if stream not in self.backbones and not self.is_frozen(stream):
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
    """Weight of the translation loss. 0: learn glosses alone; the best model is then chosen by their WER."""
    ctc_weight: NotNegative = 1.0
    """Weight of the CTC losses, summed over the heads; off by itself without annotations/gloss.csv."""
    distillation_weight: NotNegative = 1.0
    """Weight of the self-distillation of the heads; off by itself without annotations/gloss.csv."""
    distillation_warmup_ratio: Share = 0.3
    """Share of the run after which self-distillation starts: earlier it would feed CTC's blank plateau."""
    gloss_fusion: Literal["add", "concat", "none"] = "add"
    """How the fuse head's features meet the decoder's memory: added, concatenated and projected, or not at all."""
    channels: list[Count] = Field([64, 64, 128, 128, 256, 256, 256, 256], min_length=2)
    """Output channels of each block; the first and the middle block halve the frame rate."""
    num_heads: Count = 6
    """Attention heads of a block."""
    dropout: Share = 0.1
    """Share of attention weights and heads."""
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
        if not (self.translation_weight or self.ctc_weight):  # without CTC there is no self-distillation either
            raise ValueError("translation_weight and ctc_weight are 0: no loss is left; expected one above 0")
        return self

    @property
    def learns_text(self) -> bool:
        """Whether the translation loss counts; else glosses alone are learned."""
        return self.translation_weight > 0
