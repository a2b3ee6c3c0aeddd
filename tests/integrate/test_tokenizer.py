"""The tokenizer: every text survives, the same texts give the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

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
