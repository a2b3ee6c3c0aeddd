"""Settings of multistream v9: the text decoder, presets of published models, and how a trained model writes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag, Section, refuse_without_effect
from signstreams.config.kinds import Count, Share

Preset = Literal["signmusketeers", "mska_paper_mbart"]

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # SignMusketeers (arXiv 2406.06907): frozen ViT-S crops to 256 each, seven body points, T5 v1.1 base. Its T5 encoder
    # is the fusion encoder here, of the same sizes.
    "signmusketeers": {
        "data": {"frame_stride": 2},
        "model": {
            "use_mska": False,
            "projection_dim": 256,
            "d_model": 768,
            "num_layers": 12,
            "num_heads": 12,
            "ff_dim": 2048,
        },
        "decoder": {"model": "google/t5-v1_1-base"},
        "optim": {"lr": 1e-3, "weight_decay": 0.1, "label_smoothing": 0.2, "clip_grad_norm": 1.0},
    },
    # MSKA (arXiv 2405.05672): keypoints alone, four encoders of 8 blocks, a two-layer map to mBART-large-cc25.
    "mska_paper_mbart": {
        "model": {
            "use_pose": False,
            "d_model": 1024,
            "num_layers": 12,
            "num_heads": 16,
            "ff_dim": 4096,
            "dropout": 0.3,
        },
        "mska": {"gloss_fusion": "add"},
        "decoder": {"model": "facebook/mbart-large-cc25", "dropout": 0.3},
        "optim": {"lr": 1e-5, "label_smoothing": 0.2},
        "data": {"frame_stride": 1, "batch_size": 8, "max_frames": 400},
    },
}
"""What a preset sets where the user sets nothing; the sizes of MSKA are its paper's anyway."""


def with_preset(tree: Any) -> Any:
    """Settings of a whole training with those of its preset below them."""
    if not isinstance(tree, dict):
        return tree
    decoder = tree.get("decoder")
    name = decoder.get("preset") if isinstance(decoder, dict) else getattr(decoder, "preset", None)
    if not isinstance(decoder, dict) or name not in PRESETS:
        return tree
    merged = dict(tree)
    for section, keys in PRESETS[name].items():
        given = tree.get(section, {})
        if isinstance(given, dict):
            merged[section] = keys | given
    return merged


class DecoderConfig(Section):
    """Text decoder: a small T5 built from these sizes, with a tokenizer trained on the texts of the train split; or one
    of Hugging Face."""

    preset: Annotated[Preset | None, Flag("--decoder-preset")] = None
    """Sizes and settings of a published model, below everything that is set otherwise."""
    model: Annotated[str | None, Flag("--decoder-model")] = None
    """T5, mT5 or mBART of Hugging Face, by name or folder: its decoder, embeddings and tokenizer. None: built here."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Of a named model. random: its sizes alone, with the corpus's own tokenizer unless one is named."""
    tokenizer: str | None = None
    """Tokenizer of a named model, by name or folder. None: the model's own."""
    offline: Annotated[bool, Flag("--decoder-offline")] = True
    """Use only what is on this machine. false: fetch from huggingface.co what is not."""
    target_language: str | None = None
    """Code of the texts' language for mBART, such as es_XX."""
    num_layers: Count = 3
    """Layers."""
    num_heads: Count = 4
    """Attention heads of a layer."""
    ff_dim: Count = 512
    """Inner width of a layer's MLP."""
    dropout: Share = 0.1
    """Dropout of the decoder."""
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    """Greatest number of text tokens: 256 bytes, 3 special ones, the rest learned."""
    max_tokens: Count = 128
    """Longest text in tokens, in training (a longer one is refused by name) and in decoding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model is None:
            named = ("weights", "tokenizer", "offline", "target_language")
            refuse_without_effect(self, named, "no decoder.model is named", next_step="leave it out")
            return self
        sizes = ["num_layers", "num_heads", "ff_dim", *([] if self.uses_own_tokenizer else ["vocab_size"])]
        refuse_without_effect(self, sizes, f"{self.model} has its own")
        return self

    @property
    def uses_own_tokenizer(self) -> bool:
        """Whether the tokenizer is trained on the corpus."""
        return self.model is None or (self.weights == "random" and self.tokenizer is None)


class DecodingConfig(Section):
    """How a trained model writes."""

    num_beams: Annotated[Count, Flag("--num-beams")] = 5
    """Hypotheses kept in beam search; 1 is greedy. Evaluations during training are greedy."""
    length_penalty: Annotated[float, Flag("--length-penalty")] = 1.0
    """Exponent of the length by which a hypothesis' score is divided: above 0 favours long texts."""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.num_beams == 1:
            refuse_without_effect(self, ("length_penalty",), "num_beams is 1")
        return self
