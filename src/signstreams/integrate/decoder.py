"""Text models: a small T5 decoder of our own sizes; of a T5, mT5 or mBART of Hugging Face the decoder, or all of it.

`TextDecoder` writes from a memory: that of the fusion encoder, projected where the widths differ. `LanguageModel` keeps
its encoder too, which makes the memory from the steps that stand in place of the words of a sentence.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, MBartConfig, PretrainedConfig, T5Config
from transformers.modeling_outputs import BaseModelOutput

from signstreams.engine.checkpoint import short_reason
from signstreams.errors import UserError
from signstreams.integrate.model_files import absent_line
from signstreams.integrate.settings import DecoderConfig, DecodingConfig
from signstreams.integrate.tokenizer import SpecialTokens, Tokenizer, spell_out_special_tokens
from signstreams.integrate.vocabulary import pruned_weights

log = logging.getLogger(__name__)

KINDS = ("t5", "mt5", "umt5", "mbart")
_WORDS = "a T5, mT5 or mBART"
OWN_OUTPUT_LAYER = "has_own_output_layer"
"""Key in a decoder's config: its output layer is separate from its token embeddings, as in T5 v1.1 and mT5. Our
own key, since transformers 5 sets ``tie_word_embeddings`` of every T5 to true, even where its file says otherwise."""

# Sizes of the presets' models (their config.json), so that they can be built without their files.
_T5_BASE = {
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
_MBART_LARGE = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "max_position_embeddings": 1024,
    "vocab_size": 250027,
    "scale_embedding": True,
    "attention_dropout": 0.1,
    "activation_function": "gelu",
}
KNOWN_SIZES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "google/t5-v1_1-base": (T5Config, _T5_BASE),
    "facebook/mbart-large-cc25": (MBartConfig, _MBART_LARGE),
}


class TextDecoder(nn.Module):
    """Predicts the next token from the memory and the tokens so far; the model's encoder is built without layers."""

    has_encoder = False

    def __init__(self, config: PretrainedConfig, memory_dim: int, special: SpecialTokens) -> None:
        super().__init__()
        from transformers import AutoModelForSeq2SeqLM

        self.special = special
        # float32 weights, even where the config names another precision
        lean = copy.deepcopy(config)
        if not self.has_encoder:
            setattr(lean, "encoder_layers" if lean.model_type == "mbart" else "num_layers", 0)  # T5 counts both apart
        self.net = AutoModelForSeq2SeqLM.from_config(lean, dtype=torch.float32)
        if getattr(config, OWN_OUTPUT_LAYER, False):
            self.separate_output_layer()
        if self.net.generation_config.forced_eos_token_id is not None:  # mBART's, an id of its own tokenizer
            self.net.generation_config.forced_eos_token_id = special.eos
        self.net.generation_config.forced_bos_token_id = special.first
        width = config.d_model
        self.project = nn.Identity() if memory_dim == width else nn.Linear(memory_dim, width)
        used = {id(p) for p in self.net.get_decoder().parameters()} | {id(p) for p in self.net.lm_head.parameters()}
        for parameter in self.net.parameters():  # the rest of an encoder without layers never runs
            parameter.requires_grad_(self.has_encoder or id(parameter) in used)

    def separate_output_layer(self) -> None:
        """Give the output layer its own weights, initialised with the token embeddings."""
        head = self.net.lm_head
        head.weight = nn.Parameter(head.weight.detach().clone())
        setattr(self.net.config, OWN_OUTPUT_LAYER, True)

    def names_tied_to_output_layer(self) -> list[str]:
        """Names in ``net`` of token embeddings that share the output layer's weights; empty where it has its own."""
        weight = self.net.lm_head.weight
        names = [name for name, p in self.net.named_parameters(remove_duplicate=False) if p is weight]
        return [name for name in names if name != "lm_head.weight"]

    def forward(self, memory: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, L, vocabulary) of each token given those before it, from ``tokens`` (B, L), negative where padded.

        The memory is (B, S, M), its mask (B, S) bool, True on a clip's own steps.
        """
        return self.write(self.project(memory), mask, tokens)

    def write(self, memory: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """As `forward`, from a memory (B, S, W) of the text model's own width."""
        tokens = torch.where(tokens < 0, self.special.pad, tokens)  # padding comes after every token that counts
        start = torch.full_like(tokens[:, :1], self.special.start)
        logits: Tensor = self.net(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=mask,
            decoder_input_ids=torch.cat((start, tokens[:, :-1]), dim=1),
            use_cache=False,
        ).logits
        return logits

    @torch.no_grad()
    def generate(self, memory: Tensor, mask: Tensor, decoding: DecodingConfig, max_tokens: int) -> list[list[int]]:
        """Token ids of each clip by beam search (greedy with one beam), including the end token if it was generated."""
        special = self.special
        out = self.net.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.project(memory)),
            attention_mask=mask,
            generation_config=GenerationConfig(
                num_beams=decoding.num_beams,
                length_penalty=decoding.length_penalty if decoding.num_beams > 1 else None,
                do_sample=False,
                max_new_tokens=max_tokens,
                pad_token_id=special.pad,
                eos_token_id=special.eos,
                decoder_start_token_id=special.start,
                forced_bos_token_id=special.first,
                suppress_tokens=list(special.never),
            ),
        )
        return [row[1:] for row in out.tolist()]  # without the start token


def places_in_source(counts: Tensor, size: int, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """How an encoder reads rows of ``size`` steps or words, of which the first (B,) ``counts`` are a row's own.

    For each place of its input, (B, E) int64, which of the steps, the tokens before and those after them stands there,
    counted in this order; and (B, E) bool, False in padding.
    """
    num_before, num_after = len(special.source_prefix), len(special.source_suffix)
    counts = counts[:, None]  # (B, 1)
    place = torch.arange(size + num_before + num_after, device=counts.device) - num_before  # (E,), 0 at the first step
    chosen = torch.where(place < counts, place, size + num_before + place - counts)
    chosen = torch.where(place < 0, size + num_before + place, chosen)
    keep = place < counts + num_after  # (B, E)
    return torch.where(keep, chosen, 0), keep


class LanguageModel(TextDecoder):
    """A whole encoder-decoder: it reads steps in place of the words of a sentence, and writes what they say.

    As MSKA and TwoStream feed mBART (translation.py: prepare_feature_inputs): times the square root of the width where
    the model scales its word embeddings so, and followed by the special tokens that end a sentence of its pretraining:
    the end token for T5, the end token and the language for mBART; mBART-50 starts with the language.
    """

    has_encoder = True

    def __init__(self, config: PretrainedConfig, special: SpecialTokens) -> None:
        super().__init__(config, config.d_model, special)

    @property
    def width(self) -> int:
        """Width of a step."""
        return int(self.net.config.d_model)

    @property
    def max_steps(self) -> int | None:
        """Longest sentence of steps that has positions; None where positions are relative, as in T5."""
        most = getattr(self.net.config, "max_position_embeddings", None)
        return None if most is None else most - len(self.special.source_prefix) - len(self.special.source_suffix)

    @property
    def max_tokens(self) -> int | None:
        """Longest text, with its end token, that has positions; None where they are relative."""
        return getattr(self.net.config, "max_position_embeddings", None)

    def source(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads: ``inputs_embeds`` (B, E, W) and its mask (B, E) bool.

        From steps (B, S, W), of any origin, and their mask (B, S) bool, True on the first steps of each row; E is S and
        the number of special tokens.
        """
        embed = self.net.get_encoder().embed_tokens
        before, after = self.special.source_prefix, self.special.source_suffix
        around = embed(torch.tensor([*before, *after], device=steps.device, dtype=torch.long))  # scaled by itself
        steps = steps * getattr(embed, "embed_scale", 1.0)
        parts = torch.cat((steps, around.to(steps.dtype).expand(len(steps), -1, -1)), dim=1)  # (B, E, W)
        chosen, keep = places_in_source(mask.sum(dim=1), steps.shape[1], self.special)
        return parts.gather(1, chosen[..., None].expand(-1, -1, parts.shape[2])) * keep[..., None], keep

    def read(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, E, W), zero where masked, and its mask (B, E), of steps and mask as in `source`."""
        inputs, mask = self.source(steps, mask)
        memory: Tensor = self.net.get_encoder()(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        return memory * mask[..., None], mask


def own_t5_config(config: DecoderConfig, d_model: int, vocab_size: int) -> PretrainedConfig:
    """A T5 v1.1 of the sizes in ``[decoder]``."""
    return T5Config(
        vocab_size=vocab_size,
        d_model=d_model,
        d_kv=d_model // config.num_heads,
        d_ff=config.ff_dim,
        num_layers=0,
        num_decoder_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout_rate=config.dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )


def named_config(config: DecoderConfig, vocab_size: int | None) -> PretrainedConfig:
    """Config of a named model, with ``vocab_size`` tokens where the corpus has its own tokenizer.

    Raises:
        UserError: It cannot be loaded, or is no model that decodes from a memory.
    """
    from transformers import AutoConfig

    def load(source: str, **words: Any) -> tuple[PretrainedConfig, dict[str, Any]]:
        return AutoConfig.from_pretrained(source, **words), PretrainedConfig.get_config_dict(source, **words)[0]

    assert config.model is not None
    if config.weights == "random" and config.model in KNOWN_SIZES and not Path(config.model).is_dir():
        kind, sizes = KNOWN_SIZES[config.model]
        found = kind(**sizes)
    else:
        found, sizes = _from_hugging_face(config, config.model, "decoder.model", load)
    if found.model_type not in KINDS:
        raise UserError(
            f"decoder.model: {config.model} is a {found.model_type} model, expected {_WORDS}; name one of these"
        )
    # the second key is what transformers 5 leaves of the first when it saves a T5
    is_separate = False in (sizes.get("tie_word_embeddings"), sizes.get("scale_decoder_outputs"))
    if is_separate and config.weights == "random":  # pretrained weights show it themselves
        setattr(found, OWN_OUTPUT_LAYER, True)
    found.dropout_rate = found.dropout = config.dropout
    if vocab_size is not None:
        found.vocab_size = vocab_size
        found.pad_token_id, found.eos_token_id = 0, 1
    return found


def named_tokenizer(config: DecoderConfig) -> Tokenizer:
    """Tokenizer of a named model.

    Raises:
        UserError: It cannot be loaded, has no file of the tokenizers library, or lacks the target language.
    """
    from transformers import AutoTokenizer

    source = config.tokenizer or config.model
    assert source is not None
    key = "decoder.tokenizer" if config.tokenizer else "decoder.model"
    found = _from_hugging_face(config, source, key, AutoTokenizer.from_pretrained)
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{key}: the tokenizer of {source} is not one of the tokenizers library; name another one")
    backend.no_truncation()
    backend.no_padding()
    pad, eos, unknown = found.pad_token_id, found.eos_token_id, found.unk_token_id
    if pad is None or eos is None:
        raise UserError(f"{key}: the tokenizer of {source} has no padding or no end token, expected both; name another")
    never = tuple(token for token in (pad, unknown) if token is not None)
    language = None
    if config.target_language is not None:
        language = backend.token_to_id(config.target_language)
        if language is None:
            known = sorted(t for t in backend.get_vocab() if len(t) == 5 and t[2] == "_" and t[3:].isupper())
            raise UserError(
                f"decoder.target_language: {config.target_language} is not a token of {source}, expected one of"
                f" {', '.join(known) or 'none: leave it out'}"
            )
    name = type(found).__name__
    start, first = pad, language
    prefix: tuple[int, ...] = () if language is None else (language,)
    suffix: tuple[int, ...] = (eos,)
    if name.startswith("MBart"):
        if language is None:
            raise UserError(
                "decoder.target_language: none, but mBART needs the language of the texts; set it, such as es_XX"
            )
        # mBART-25 is started by the language, mBART-50 by the end token and then the language
        start, first = (eos, language) if name.startswith("MBart50") else (language, None)
        if first is None:
            prefix, suffix = (), (eos, language)
    spell_out_special_tokens(backend)
    return Tokenizer(backend, SpecialTokens(pad, eos, start, first, never, prefix, suffix))


def load_pretrained_weights(decoder: TextDecoder, config: DecoderConfig, rows: list[int] | None = None) -> None:
    """Load a named model's weights, without its encoder where ``decoder`` has none; of its vocabulary only ``rows``.

    Raises:
        UserError: They cannot be loaded.
    """
    own = copy.deepcopy(decoder.net.config)
    if rows is not None:
        own.vocab_size = named_config(config, None).vocab_size
    loaded = _pretrained(config, own)
    embeddings = loaded.get_decoder().get_input_embeddings().weight
    if decoder.names_tied_to_output_layer() and not torch.equal(loaded.lm_head.weight, embeddings):
        decoder.separate_output_layer()
    state = loaded.state_dict()
    decoder.net.load_state_dict(state if rows is None else pruned_weights(state, rows))


def _pretrained(config: DecoderConfig, sizes: PretrainedConfig) -> Any:
    """A named model with its weights, as far as ``sizes`` have its layers."""
    from transformers import AutoModelForSeq2SeqLM

    def load(source: str, **words: Any) -> nn.Module:
        found: nn.Module = AutoModelForSeq2SeqLM.from_pretrained(source, config=sizes, **words)
        return found

    assert config.model is not None
    return _from_hugging_face(config, config.model, "decoder.model", load)


def text_encoder(config: DecoderConfig, sizes: PretrainedConfig) -> nn.Module:
    """An encoder of sentences for a decoder without one, to be fed embeddings: the named model's own, or a random one.

    ``sizes`` are those of the decoder, of whose layers a model of our own gets as many.

    Raises:
        UserError: The weights of the named model cannot be loaded.
    """
    from transformers import AutoModelForSeq2SeqLM

    lean = copy.deepcopy(sizes)
    if config.model is None:
        lean.num_layers = sizes.num_decoder_layers
    setattr(lean, "decoder_layers" if lean.model_type == "mbart" else "num_decoder_layers", 0)
    if config.model is not None and config.weights == "pretrained":
        lean.vocab_size = named_config(config, None).vocab_size
        encoder: Any = _pretrained(config, lean).get_encoder()
    else:
        lean.vocab_size = lean.pad_token_id + 1  # its embeddings are those of the decoder
        encoder = AutoModelForSeq2SeqLM.from_config(lean, dtype=torch.float32).get_encoder()
    encoder.embed_tokens = None
    found: nn.Module = encoder
    return found


def decoder_config_from_json(text: str) -> PretrainedConfig:
    """Config of a decoder from the JSON in our checkpoints."""
    from transformers import AutoConfig

    tree = json.loads(text)
    config = AutoConfig.for_model(**tree)
    if "scale_decoder_outputs" in tree:  # T5Config derives it from another key, which it then overwrites
        config.scale_decoder_outputs = tree["scale_decoder_outputs"]
    return config


def _from_hugging_face(config: DecoderConfig, source: str, key: str, load: Any) -> Any:
    """Call ``load`` with a name or folder, without warnings and progress bars; missing or damaged is a `UserError`."""
    from transformers.utils import logging as transformers_logging

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    is_folder = Path(source).is_dir()
    try:
        return load(source, local_files_only=config.offline or is_folder)
    except Exception as error:  # the hub client and its parsers raise many kinds of errors, none of them a bug of ours
        reason = short_reason(error)
        if is_folder:
            raise UserError(f"{key}: {source}: cannot be read ({reason}); download it again") from None
        what = "is not on this machine" if config.offline else f"cannot be downloaded ({reason})"
        raise UserError(absent_line(key, source, what, is_offline=config.offline)) from None
