"""The tokenizer: every text survives, the same texts give the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers

from signstreams.errors import UserError
from signstreams.integrate.tokenizer import EOS, Tokenizer

TEXTS = ["El niño come pan.", "La niña come mañana.", "Mañana el niño no come."] * 3


def test_accents_case_and_unseen_letters_survive() -> None:
    tokenizer = Tokenizer.train(TEXTS, 400)
    for text in (*TEXTS, "¿QUÉ Ñandú, pingüino?", "日本 😀", "x" * 50):
        ids = tokenizer.encode(text)
        assert ids[-1] == EOS and EOS not in ids[:-1]
        assert tokenizer.decode(ids) == text
        assert max(ids) < len(tokenizer)


def test_words_of_the_corpus_become_short() -> None:
    tokenizer = Tokenizer.train(TEXTS, 400)
    assert len(tokenizer.encode(TEXTS[0])) < 10 < len(tokenizer.encode("Zyxwv utsrq ponml"))


def test_the_size_is_kept_and_training_is_reproducible(tmp_path: Path) -> None:
    first, again = (Tokenizer.train(TEXTS, 300) for _ in range(2))
    assert len(first) <= 300
    for name, tokenizer in (("a", first), ("b", again)):
        tokenizer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Tokenizer.load(tmp_path / "a").encode(TEXTS[1]) == first.encode(TEXTS[1])


def test_decoding_stops_at_the_first_end_and_drops_special_tokens() -> None:
    tokenizer = Tokenizer.train(TEXTS, 300)
    ids = tokenizer.encode("come")
    assert tokenizer.decode([0, *ids, *ids]) == "come"
    assert tokenizer.decode([]) == ""


def test_a_file_that_is_no_tokenizer_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in ("tokenizer.json", "absent.json"):
        with pytest.raises(UserError, match="train the model again"):
            Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize("text", ["dijo </s> y se fue", "un <pad> y <unk>", "</s>"])
def test_a_text_that_looks_like_a_special_token_is_kept(text: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["dijo que se fue", text], 400)
    tokenizer.save(tmp_path / "tokenizer.json")
    for own in (tokenizer, Tokenizer.load(tmp_path / "tokenizer.json")):
        assert own.decode(own.encode(text)) == text
        assert own.lost(text) == ""


def test_letters_that_a_tokenizer_lacks_are_known() -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in "▁aelmnopr")]
    backend = HfTokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer = Tokenizer(backend)
    assert tokenizer.lost("mala pera") == ""
    assert set(tokenizer.lost("mañana, mamá")) == {"ñ", ",", "á"}
