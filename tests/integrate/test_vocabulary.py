"""A pruned vocabulary: the same tokens, logits and texts as before, as far as the kept tokens go."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models
from transformers import AutoModelForSeq2SeqLM

from signstreams.errors import UserError
from signstreams.integrate.decoder import LanguageModel, load_pretrained_weights, named_config, named_tokenizer
from signstreams.integrate.settings import DecoderConfig, DecodingConfig
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.vocabulary import pruned, pruned_config

from .language_models import LANGUAGES, SAVE, TEXTS, WIDTH

Whole = tuple[LanguageModel, Tokenizer]


@pytest.fixture(scope="module", params=SAVE)
def models_of_both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Whole, Whole, Path]:
    """The model with all tokens and with those of the texts, each with its tokenizer, and its folder."""
    folder = SAVE[request.param](tmp_path_factory.mktemp("pruned") / request.param)
    language = {"target_language": "es_XX"} if request.param == "mbart" else {}
    config = DecoderConfig(model=str(folder), **language)
    found = []
    for prune in (False, True):
        tokenizer, sizes = named_tokenizer(config), named_config(config, None)
        if prune:
            tokenizer = pruned(tokenizer, TEXTS)
            assert tokenizer.rows is not None
            sizes = pruned_config(sizes, tokenizer.rows)
        model = LanguageModel(sizes, tokenizer.special)
        load_pretrained_weights(model, config, tokenizer.rows)
        found.append((model.eval(), tokenizer))
    return found[0], found[1], folder


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    of = {number: token for token, number in tokenizer.ids.items()}
    return [of[number] for number in ids]


def test_texts_and_special_tokens_keep_their_tokens_and_other_words_are_spelled(
    models_of_both: tuple[Whole, Whole, Path],
) -> None:
    (_, full), (_, small), _ = models_of_both
    assert len(small) < 0.8 * len(full) and small.rows is not None and len(small.rows) == len(small)
    assert all(full.ids[token] == small.rows[number] for token, number in small.ids.items())
    for text in TEXTS:
        assert names(small, small.encode(text)) == names(full, full.encode(text))
        assert small.decode(small.encode(text)) == text
    reserved = {token.content for token in full._tokenizer.get_added_tokens_decoder().values()}
    assert reserved <= small.ids.keys()
    assert [small.rows[number] for number in small.special.ids] == full.special.ids
    # words that the training texts lack are spelled by their letters, in upper and lower case
    assert small.lost("MAÑANA Perra comea") == full.lost("MAÑANA Perra comea")
    assert "日" in full.ids and "日" not in small.ids and small.lost("日") == "日"


def test_logits_of_the_kept_tokens_are_the_same(models_of_both: tuple[Whole, Whole, Path]) -> None:
    (whole, _), (lean, small), _ = models_of_both
    torch.manual_seed(0)
    steps, mask = torch.randn(2, 5, WIDTH), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    own = torch.tensor([small.encode(TEXTS[0])[:6], small.encode(TEXTS[1])[:6]])
    rows = torch.tensor(small.rows)
    with torch.no_grad():
        expected = whole(*whole.read(steps, mask), rows[own])[..., rows]
        torch.testing.assert_close(lean(*lean.read(steps, mask), own), expected)
    assert lean.names_tied_to_output_layer() == whole.names_tied_to_output_layer()


def test_texts_are_those_of_the_whole_model_where_it_chooses_kept_tokens(
    models_of_both: tuple[Whole, Whole, Path],
) -> None:
    (whole, full), (lean, small), folder = models_of_both
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    torch.manual_seed(1)
    steps, mask = torch.randn(4, 6, WIDTH), torch.ones(4, 6, dtype=torch.bool)
    inputs, read = whole.source(steps, mask)
    assert small.rows is not None
    dropped = torch.tensor(sorted(set(range(theirs.config.vocab_size)) - set(small.rows)))
    theirs.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, dropped, -1e9))
    expected = theirs.generate(
        inputs_embeds=inputs,
        attention_mask=read,
        num_beams=4,
        max_new_tokens=10,
        decoder_start_token_id=full.special.start,
        suppress_tokens=list(full.special.never),
        forced_eos_token_id=full.special.eos if folder.name == "mbart" else None,
    )
    found = lean.generate(*lean.read(steps, mask), DecodingConfig(num_beams=4), 10)
    for ours, row in zip(found, expected.tolist(), strict=True):
        assert small.decode(ours) == full.decode(row[1:]) and [small.rows[i] for i in ours] == row[1 : len(ours) + 1]


def test_a_saved_tokenizer_is_the_pruned_one(models_of_both: tuple[Whole, Whole, Path], tmp_path: Path) -> None:
    _, (_, small), _ = models_of_both
    small.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json", small.special)
    assert again.ids == small.ids
    for text in (*TEXTS, *LANGUAGES, "</s> Perra"):
        assert again.encode(text) == small.encode(text)


def test_byte_pairs_are_still_merged_in_their_order_and_every_byte_is_left() -> None:
    rng = random.Random(3)
    syllables = ["ca", "sa", "ni", "ño", "per", "ro", "ma", "ña", "na", "come"]
    sentences = [" ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6)) for _ in range(200)]
    full = Tokenizer.train(sentences, 900)
    small = pruned(full, sentences[:20])
    assert len(small) < 0.8 * len(full)
    for text in sentences[:20]:
        assert names(small, small.encode(text)) == names(full, full.encode(text))
    for text in (*sentences[20:40], "日本 😀 </s>"):
        assert small.decode(small.encode(text)) == text


def test_another_kind_of_tokenizer_is_refused() -> None:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "casa": 3}
    tokenizer = Tokenizer(HfTokenizer(models.WordLevel(words, unk_token="<unk>")))
    with pytest.raises(UserError, match=r"decoder\.prune_vocabulary: the tokenizer is a WordLevel model, expected"):
        pruned(tokenizer, ["casa"])
