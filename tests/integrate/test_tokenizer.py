"""The tokenizer: every text survives, the same texts give the same tokens."""

from __future__ import annotations

import json
import random
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


def test_control_characters_that_a_model_of_bytes_spells_are_left_out() -> None:
    tokenizer = Tokenizer.train(["a b"], 300)
    assert tokenizer.decode(tokenizer.encode("a\x1ab\x85 c")) == "ab c"


def test_a_file_that_is_no_tokenizer_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in ("tokenizer.json", "absent.json"):
        with pytest.raises(UserError, match="train the model again"):
            Tokenizer.load(tmp_path / name)


LENGTHS = {"strategy": {"Fixed": 10**15}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("padding", {**LENGTHS, "pad_to_multiple_of": None}),  # ends the process
        ("truncation", {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 5}),  # a panic
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # a panic
        ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000}),  # a panic
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
        ("model.continuing_subword_prefix", "é" * 3000),  # a panic
        ("model.vocab.a", 2**32 - 1),  # beyond any embedding
        ("model.vocab.a", 5),  # of another token
        ("model.vocab.a", -1),
        ("model.dropout", 1.0),  # other tokens in every run
        ("model.vocab", {}),  # nothing is left of a text
        ("model", {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}),
        ("model", []),
        ("version", "9.9"),
    ],
)
def test_a_broken_tokenizer_is_one_line(
    path: str, value: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Tokenizer.train(TEXTS, 300).save(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    place = content
    *folders, key = path.split(".")
    for name in folders:
        place = place[name]
    place[key] = value
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"t\.json: is not a tokenizer \(.*\); copy it again, or train") as caught:
        Tokenizer.load(tmp_path / "t.json")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_random_damage_to_a_tokenizer_never_ends_the_process(tmp_path: Path) -> None:
    """A changed letter of a token cannot be seen; what loads gives tokens with ids of their own."""
    Tokenizer.train(TEXTS, 300).save(tmp_path / "t.json")
    data = (tmp_path / "t.json").read_bytes()
    rng = random.Random(16)
    refused = 0
    for _ in range(250):
        place = rng.randrange(len(data))
        some = rng.choice(
            (b"", b"{", b"]", b"9999999999", b"null", b"-1", b"\xff\xfe", b'"', b"[[[[", bytes([rng.randrange(256)]))
        )
        (tmp_path / "t.json").write_bytes(data[:place] + some + data[place + rng.choice((0, 1, 40)) :])
        try:
            tokenizer = Tokenizer.load(tmp_path / "t.json")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        assert min(tokenizer.encode("casa")) >= 0 and len(set(tokenizer.ids.values())) == len(tokenizer.ids)
    assert refused > 100


@pytest.mark.parametrize("text", ["dijo </s> y se fue", "un <pad> y <unk>", "</s>"])
def test_a_text_that_looks_like_a_special_token_is_kept(text: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["dijo que se fue", text], 400)
    tokenizer.save(tmp_path / "tokenizer.json")
    for own in (tokenizer, Tokenizer.load(tmp_path / "tokenizer.json")):
        assert own.decode(own.encode(text)) == text
        assert own.lost(text) == ""


def test_a_special_token_is_never_learned_from_texts_that_spell_it_often() -> None:
    text = "a</s></s> <pad><unk>"
    tokenizer = Tokenizer.train([text] * 50, 400)
    ids = tokenizer.encode(text)
    assert not {0, EOS, 2} & set(ids[:-1]) and tokenizer.decode(ids) == text


def test_letters_that_a_tokenizer_lacks_are_known() -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in "▁aelmnopr")]
    backend = HfTokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer = Tokenizer(backend)
    assert tokenizer.lost("mala pera") == ""
    assert set(tokenizer.lost("mañana, mamá")) == {"ñ", ",", "á"}
