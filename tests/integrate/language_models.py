"""A mBART and a T5 of true architecture, with their own kinds of tokenizers, tiny and with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, pre_tokenizers, trainers
from transformers import (
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

WIDTH = 24
TEXTS = ["Casa niño comer.", "Agua mañana perro.", "El perro come mañana.", "Niño agua casa!"] * 3
# what the models know and the corpus does not need: another language, signs, and the letters of special tokens
OTHERS = ["Guten Morgen, liebe Katze 12", "zwei Hunde und </s> de_DE <pad> <unk> <extra_id_0>", "日本語 × ÷"] * 3
OTHERS += ["собака идёт домой, кошка спит", "ο σκύλος πηγαίνει σπίτι", "الكلب يمشي", "हिन्दी कुत्ता घर"] * 3
LANGUAGES = ["de_DE", "es_XX"]


def pieces(texts: list[str] = [*TEXTS, *OTHERS]) -> list[tuple[str, float]]:  # noqa: B006
    """A Unigram vocabulary as SentencePiece learns it, without special tokens."""
    tokenizer = HfTokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"] if piece != "<unk>"]


def save_mbart(folder: Path) -> Path:
    """As `save_pretrained` leaves it, with a bias of the output that is not zero."""
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    codes = MBartTokenizer().lang_code_to_id
    vocab = [*special, *pieces(), *((code, 0.0) for code in codes), ("<mask>", 0.0)]
    MBartTokenizer(vocab=vocab).save_pretrained(folder)
    torch.manual_seed(2)
    each = {"layers": 2, "ffn_dim": 16, "attention_heads": 3}
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in each.items()}
    config = MBartConfig(
        vocab_size=len(vocab),
        d_model=WIDTH,
        max_position_embeddings=256,
        scale_embedding=True,
        init_std=0.5,
        **sizes,
    )
    net = MBartForConditionalGeneration(config)
    net.final_logits_bias.normal_()
    net.save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """T5 v1.1: its output layer is not its token embeddings, and there are more rows than tokens."""
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    vocab = [*special, *pieces(), *((f"<extra_id_{n}>", 0.0) for n in range(99, -1, -1))]
    T5Tokenizer(vocab=vocab).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3}
    config = T5Config(
        vocab_size=len(vocab) + 28,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        initializer_factor=3.0,
        **sizes,
    )
    net = T5ForConditionalGeneration(config)
    net.lm_head.weight = torch.nn.Parameter(torch.randn_like(net.lm_head.weight))
    net.save_pretrained(folder)
    return folder


SAVE = {"mbart": save_mbart, "t5": save_t5}
