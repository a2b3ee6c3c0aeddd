"""What every model that writes texts has, and the models of the stages that see no video: g2t reads glosses, text reads
words.

Letters: B clips, S steps, N glosses or words, M model width, W width of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.integrate.alignment import Alignment
from signstreams.integrate.batches import Batch
from signstreams.integrate.corpus_rules import gloss_words
from signstreams.integrate.decoder import LanguageModel, TextDecoder
from signstreams.integrate.mska import sinusoid
from signstreams.integrate.settings import DecodingConfig, IntegrateConfig, ModelConfig
from signstreams.integrate.tokenizer import Tokenizer

GLOSS_STREAM = "gloss"
"""What a batch calls the glosses that a model reads: their ids are its ``features``, and it has no frames."""
WORD_STREAM = "word"
"""The same of the tokens that a model reads, the padding token where one is hidden."""
UNKNOWN_GLOSS = 0  # CTC's blank, which no annotation holds: a gloss that train lacks is read as nothing


@dataclass(frozen=True)
class Encoded:
    """Output of the encoder."""

    memory: Tensor | None  # (B, S, M), zero where masked; None of a model that learns no text
    mask: Tensor  # (B, S) bool, True on the clip's own steps, and on the special tokens that a language model adds
    gloss_logits: dict[str, Tensor]  # head to (B, S, G); empty without glosses


class TextModel(nn.Module):
    """What training, evaluation and scores ask of a model, whichever stage it is of."""

    decoder: TextDecoder | None
    """None where glosses alone are learned."""
    backbones: nn.ModuleDict
    """Streams whose backbone is trained along, or whose images it needs."""
    mapper: nn.Module | None
    """Layers that map steps to a whole language model; None where there is none."""
    alignment: Alignment | None
    """What stage vlp adds; None in other stages."""
    learns_text: bool
    restores_text = False
    """Whether it writes the sentence that it reads with gaps, as in stage text, and so translates nothing."""
    max_tokens: int

    def encode(self, batch: Batch) -> Encoded:
        """Batch of clips to memory and gloss logits."""
        raise NotImplementedError

    def text_logits(self, encoded: Encoded, tokens: Tensor) -> Tensor:
        """Logits (B, L, vocabulary) of each token given those before it; ``tokens`` are (B, L) as in `Batch`."""
        assert encoded.memory is not None and self.decoder is not None
        logits: Tensor = self.decoder(encoded.memory, encoded.mask, tokens)
        return logits

    def translate(self, encoded: Encoded, decoding: DecodingConfig) -> list[list[int]]:
        """Beam search (greedy with one beam): token ids of each clip, the end token included where it came.

        None at all from a model that learned no translation.
        """
        if encoded.memory is None or self.alignment is not None or self.restores_text:
            return [[] for _ in encoded.mask]
        assert self.decoder is not None
        return self.decoder.generate(encoded.memory, encoded.mask, decoding, self.max_tokens)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of ``state`` that this model has: where glosses alone are learned, earlier versions had more than MSKA,
        which they did not train."""
        return {name: tensor for name, tensor in state.items() if self.learns_text or name.startswith("mska.")}

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Learning-rate group (backbone, mska, encoder, mapper, decoder) to its trainable parameters by name."""
        owner = {"backbones": "backbone", "mska": "mska", "mapper": "mapper", "decoder": "decoder"}
        owner |= {"alignment": "encoder" if self.mapper is None else "mapper", "text_encoder": "decoder"}
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = name.removeprefix("alignment.") if ".text_encoder." in name else name
                groups.setdefault(owner.get(part.partition(".")[0], "encoder"), []).append((name, parameter))
        return groups


# -- Transformer over time


def step_transformer(config: ModelConfig) -> nn.TransformerEncoder:
    """The Transformer of the fusion encoder."""
    layer = nn.TransformerEncoderLayer(
        config.d_model,
        config.num_heads,
        config.ff_dim,
        config.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(
        layer, config.num_layers, norm=nn.LayerNorm(config.d_model), enable_nested_tensor=False
    )


def over_time(steps: Tensor, mask: Tensor, dropout: nn.Module, encoder: nn.TransformerEncoder | None) -> Tensor:
    """Steps (B, S, M) that know their place and each other, zero where ``mask`` (B, S) is False.

    Without a Transformer, which the encoder of a whole language model replaces, they know neither.
    """
    if encoder is None:
        out: Tensor = dropout(steps)
    else:
        steps = dropout(steps + sinusoid(steps.shape[1], steps.shape[2], steps.device).to(steps.dtype))
        out = encoder(steps, src_key_padding_mask=~mask)
    return out * mask[..., None]


# -- Glosses to text


class GlossSteps(nn.Module):
    """A step per gloss, in place of those of the fusion encoder, whose Transformer it has under the same names."""

    def __init__(self, num_glosses: int, width: int, config: ModelConfig, *, has_transformer: bool) -> None:
        super().__init__()
        self.glosses = nn.Embedding(num_glosses, width, padding_idx=UNKNOWN_GLOSS)
        self.dropout = nn.Dropout(config.dropout if has_transformer else 0.0)  # a language model has its own
        self.encoder = step_transformer(config) if has_transformer else None

    def forward(self, glosses: Tensor, mask: Tensor) -> Tensor:
        """(B, N, W), zero where masked, of gloss ids (B, N) and their mask (B, N) bool."""
        return over_time(self.glosses(glosses), mask, self.dropout, self.encoder)


class GlossModel(TextModel):
    """Stage g2t: glosses to text, by the parts of `MultistreamModel` that read steps and write.

    A whole language model reads a step per gloss in place of words, as in TwoStream (SLRT: translation.py), whose gloss
    embeddings begin as those of the gloss's words, and stay so. ``num_glosses`` counts the blank.
    """

    decoder: TextDecoder

    def __init__(self, config: IntegrateConfig, *, num_glosses: int, decoder: TextDecoder) -> None:
        super().__init__()
        self.learns_text, self.max_tokens = True, config.decoder.max_tokens
        self.backbones, self.mapper, self.alignment = nn.ModuleDict(), None, None
        is_whole = isinstance(decoder, LanguageModel)
        width = decoder.width if isinstance(decoder, LanguageModel) else config.model.d_model
        self.fusion = GlossSteps(num_glosses, width, config.model, has_transformer=not is_whole)
        self.decoder = decoder
        self.starts_from_words = is_whole and config.decoder.weights == "pretrained"
        self.fusion.glosses.weight.requires_grad_(not self.starts_from_words)

    def encode(self, batch: Batch) -> Encoded:
        """Batch of glosses to memory."""
        mask = batch.present[GLOSS_STREAM]  # (B, N)
        memory = self.fusion(batch.features[GLOSS_STREAM], mask)  # (B, N, W)
        if isinstance(self.decoder, LanguageModel):
            memory, mask = self.decoder.read(memory, mask)
        return Encoded(memory, mask, {})

    @torch.no_grad()
    def start_from_words(self, names: Sequence[str], tokenizer: Tokenizer) -> None:
        """Where the language model is pretrained, embed each gloss as the mean of the tokens of its `gloss_words`."""
        if not self.starts_from_words:
            return
        words: Tensor = self.decoder.net.get_encoder().embed_tokens.weight
        special = set(tokenizer.special.ids)
        for number, name in enumerate(names):
            tokens = [token for token in tokenizer.encode(gloss_words(name)) if token not in special]
            if number != UNKNOWN_GLOSS and tokens:
                self.fusion.glosses.weight[number] = words[torch.tensor(tokens)].mean(dim=0)


# -- Text to text


class WordSteps(nn.Module):
    """A step per token, in place of those of the fusion encoder, whose Transformer it has under the same names.

    ``word_width`` is that of the text decoder's token embeddings.
    """

    def __init__(self, word_width: int, config: ModelConfig) -> None:
        super().__init__()
        self.enter = nn.Identity() if word_width == config.d_model else nn.Linear(word_width, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = step_transformer(config)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """(B, N, M), zero where masked, of embedded tokens (B, N, W) and their mask (B, N) bool."""
        return over_time(self.enter(words), mask, self.dropout, self.encoder)


class SentenceModel(TextModel):
    """Stage text: a sentence from what is left of it, by the parts of `MultistreamModel` that read steps and write.

    Words are read by the decoder's own token embeddings; of a hidden one nothing is seen but that something is missing.
    """

    decoder: TextDecoder
    restores_text = True

    def __init__(self, config: IntegrateConfig, *, decoder: TextDecoder) -> None:
        super().__init__()
        self.learns_text, self.max_tokens = True, config.decoder.max_tokens
        self.backbones, self.mapper, self.alignment = nn.ModuleDict(), None, None
        self.decoder = decoder
        self.fusion = None
        if not isinstance(decoder, LanguageModel):
            self.fusion = WordSteps(decoder.net.config.d_model, config.model)

    def encode(self, batch: Batch) -> Encoded:
        """Batch of sentences with gaps to memory."""
        ids, mask = batch.features[WORD_STREAM], batch.present[WORD_STREAM]  # (B, N)
        embed = self.decoder.net.get_decoder().embed_tokens
        seen = (ids != self.decoder.special.pad)[..., None]  # (B, N, 1)
        if isinstance(self.decoder, LanguageModel):  # which scales what it reads itself
            memory, mask = self.decoder.read(F.embedding(ids, embed.weight) * seen, mask)  # (B, E, W)
        else:
            assert self.fusion is not None
            memory = self.fusion(embed(ids) * seen, mask)  # (B, N, M)
        return Encoded(memory, mask, {})
