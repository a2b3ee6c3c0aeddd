"""Settings of multistream v9: the text decoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count, Share


class DecoderConfig(Section):
    """Text decoder: a T5 built from these sizes, with a tokenizer trained on the texts of the train split."""

    num_layers: Count = 3
    """Layers."""
    num_heads: Count = 4
    """Attention heads of a layer."""
    ff_dim: Count = 512
    """Inner width of a layer's MLP."""
    dropout: Share = 0.1
    """Share of the decoder."""
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    """Greatest number of text tokens: 256 bytes, 3 special ones, the rest learned."""
    max_tokens: Count = 128
    """Longest text in tokens, in training (a longer one is refused by name) and in decoding."""


class DecodingConfig(Section):
    """How a trained model writes."""

    num_beams: Annotated[Count, Flag("--num-beams")] = 5
    """Hypotheses kept in beam search; 1 is greedy. Evaluations during training are greedy."""
    length_penalty: Annotated[float, Flag("--length-penalty")] = 1.0
    """Exponent of the length by which a hypothesis' score is divided: above 0 favours long texts."""
