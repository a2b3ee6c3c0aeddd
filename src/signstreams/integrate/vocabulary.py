"""Vocabulary pruning: of a named model's tokens, those that the corpus needs.

mBART-large-cc25 has 250,027 tokens, of which a corpus in one language uses some thousands: 253 of its 611 million
parameters are rows that nothing here can train. Kept are the special tokens with all language codes, what the training
texts are made of, and single letters, so that any other word can still be spelled. TwoStream, MSKA and GFSLT-VLP
prune mBART too (Tokenizer.py, trim_model.py); in the first two a piece that was not kept becomes the unknown token.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer as HfTokenizer
from torch import Tensor
from transformers import PretrainedConfig

from signstreams.errors import UserError
from signstreams.integrate.tokenizer import Tokenizer

TOKEN_ROWS = r"(.+\.)?(shared|embed_tokens|lm_head)\.weight|final_logits_bias"
"""Names of the tensors of a language model with a row per token; of the bias it is a column."""
_ASCII = {chr(number) for number in range(33, 127)}


def pruned(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer with the tokens that ``texts`` need; its ``rows`` are their ids in ``tokenizer``.

    It gives ``texts`` the same tokens as before. Other texts are spelled with what is left.

    Raises:
        UserError: It is neither a Unigram nor a BPE model.
    """
    content = json.loads(tokenizer._tokenizer.to_str())
    model, old = content["model"], tokenizer.ids
    keep = _needed(tokenizer, content, texts)
    if model["type"] == "Unigram":
        unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
        keep |= set() if unknown is None else {unknown}
        # the penalty of an unknown letter counts from the lowest score: that piece stays, and with it all segmentations
        lowest = min(model["vocab"], key=lambda piece: piece[1], default=None)
        pieces = [(piece, score) for piece, score in model["vocab"] if piece in keep or [piece, score] == lowest]
        names = [piece for piece, _ in pieces]
        model |= {"vocab": pieces, "unk_id": None if unknown is None else names.index(unknown)}
    elif model["type"] == "BPE" and not model.get("continuing_subword_prefix") and not model.get("end_of_word_suffix"):
        merges = [(left, right) for left, right in map(_pair, model["merges"])]
        keep |= _parts(keep, merges)
        names = sorted((token for token in model["vocab"] if token in keep), key=model["vocab"].__getitem__)
        kept_merges = [[left, right] for left, right in merges if {left, right, left + right} <= keep]
        model |= {"vocab": {token: number for number, token in enumerate(names)}, "merges": kept_merges}
    else:
        raise UserError(
            f"decoder.prune_vocabulary: the tokenizer is a {model['type']} model, expected Unigram or byte-pair"
            " encoding without prefixes; set it to false"
        )
    numbers = {token: number for number, token in enumerate(names)}
    for token in content["added_tokens"]:
        token["id"] = numbers.setdefault(token["content"], len(numbers))
    content["post_processor"] = None  # it names ids; `Tokenizer` adds the special tokens itself
    found = HfTokenizer.from_str(json.dumps(content))
    new = found.get_vocab()
    assert sorted(new.values()) == list(range(len(new))), "ids with holes"
    special = tokenizer.special.renumbered({old[token]: number for token, number in new.items()})
    result = Tokenizer(found, special)
    result.rows = [old[token] for token in sorted(new, key=new.__getitem__)]
    return result


def _needed(tokenizer: Tokenizer, content: Mapping[str, Any], texts: Iterable[str]) -> set[str]:
    """Special tokens, the tokens of the texts, and the letters to spell others with."""
    names = {number: token for token, number in tokenizer.ids.items()}
    used = {number for text in texts for number in tokenizer.encode(text)} | set(tokenizer.special.ids)
    keep = {names[number] for number in used} | {token["content"] for token in content["added_tokens"]}
    model = content["model"]
    if model["type"] == "BPE":
        letters = {token for token in tokenizer.ids if len(token) == 1}  # of byte-level BPE, the 256 bytes
    else:
        seen = {letter for token in keep for letter in token}
        letters = _ASCII | {other for letter in seen for other in (letter, letter.upper(), letter.lower())}
    if model.get("byte_fallback"):
        letters |= {f"<0x{byte:02X}>" for byte in range(256)}
    return keep | (letters & tokenizer.ids.keys())


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Both ways of writing a merge: "a b" and ["a", "b"]."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _parts(tokens: set[str], merges: Sequence[tuple[str, str]]) -> set[str]:
    """What merges make ``tokens`` from, down to letters: without it they would never be reached."""
    sources: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        sources.setdefault(left + right, []).append((left, right))
    found, waiting = set(tokens), list(tokens)
    while waiting:
        for pair in sources.get(waiting.pop(), ()):
            waiting += [part for part in set(pair) if part not in found]
            found.update(pair)
    return found


def pruned_config(config: PretrainedConfig, rows: Sequence[int]) -> PretrainedConfig:
    """The config of a model of which only these rows of the vocabulary are kept, its special ids renumbered."""
    new = {row: number for number, row in enumerate(rows)}
    config = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new.get(value))
    config.vocab_size = len(rows)
    return config


def pruned_weights(state: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The weights of such a model."""
    kept = torch.tensor(rows)
    out = dict(state)
    for name, tensor in state.items():
        if re.fullmatch(TOKEN_ROWS, name):
            out[name] = tensor.index_select(int(name.endswith("final_logits_bias")), kept)  # the bias is (1, tokens)
    return out
