"""What val and test share with train under another name is found: videos by content, signers by spelling, texts."""

from __future__ import annotations

import unicodedata

import pytest

from signstreams.corpus.findings import Finding
from signstreams.corpus.leakage import spelling_key
from signstreams.files import sha256_file

from .corpora import BrokenCorpus


def found(corpus: BrokenCorpus, rule: str) -> list[Finding]:
    return [finding for finding in corpus.validate().findings if finding.rule == rule]


def copy_video(corpus: BrokenCorpus, video_id: str, of: str) -> None:
    """The file of a video becomes that of another one, and was extracted as such."""
    source = corpus.layout.videos / f"{video_id}.mp4"
    source.write_bytes((corpus.layout.videos / f"{of}.mp4").read_bytes())
    corpus.change_metadata(video_id, source_sha256=sha256_file(source), source_bytes=source.stat().st_size)


def test_a_video_in_train_and_val_under_two_names_is_an_error(corpus: BrokenCorpus) -> None:
    copy_video(corpus, "two", of="one")
    (finding,) = found(corpus, "split.same_video")
    assert finding.severity == "error"
    assert (
        finding.found == "1 videos are in several splits under several names, byte for byte: 'one' = 'two' (train, val)"
    )


def test_a_copy_within_a_split_is_a_warning(corpus: BrokenCorpus) -> None:
    copy_video(corpus, "four", of="one")
    (finding,) = found(corpus, "split.same_video")
    assert (finding.severity, finding.found) == (
        "warning",
        "1 videos have several names, byte for byte: 'four' = 'one'",
    )


@pytest.mark.parametrize("name", ["Ana", "A n a", "Aná", "ANÁ", unicodedata.normalize("NFD", "aná")])
def test_a_signer_of_train_in_another_spelling_in_val_is_named(corpus: BrokenCorpus, name: str) -> None:
    corpus.edit(corpus.layout.meta, "10;10;bea", f"10;10;{name}")
    (finding,) = found(corpus, "split.signer_spelling")
    shown = unicodedata.normalize("NFC", name)
    assert finding.severity == "warning"
    assert finding.found == f"signers in several splits who may be one: 'ana' (train) = '{shown}' (val)"


def test_spellings_within_one_split_leak_nothing(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;10;5;ana", "0.5;10;5;Ana")
    assert found(corpus, "split.signer_spelling") == []


def test_different_names_stay_different() -> None:
    names = ["ana", "anna", "ann", "signer 1", "signer 11", "Ñandú", "ß"]
    assert len({spelling_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(("text", "is_repeated"), [("hola", True), (" HOLA ", True), ("hola.", False), ("ola", False)])
def test_texts_of_val_that_train_has_are_counted(corpus: BrokenCorpus, text: str, is_repeated: bool) -> None:
    corpus.edit(corpus.layout.meta, "c3;two;casa", f"c3;two;{text}")
    findings = found(corpus, "split.repeated_text")
    assert [f.found for f in findings] == ["1 of 1 texts of val (100%) are in train: 'c3'"] * is_repeated
    assert all((f.severity, f.file) == ("warning", "index/val.csv") for f in findings)
    assert not corpus.validate().has_errors


@pytest.mark.parametrize(("num_repeated", "severity"), [(1, "info"), (2, "warning")])
def test_some_repeated_texts_are_no_more_than_a_note(corpus: BrokenCorpus, num_repeated: int, severity: str) -> None:
    """As in PHOENIX-2014T, where a twentieth of dev and test are greetings that train has."""
    rows = [
        f"v{number};two;{'hola' if number < num_repeated else f'casa {number}'};0;1;;;;bea\n" for number in range(10)
    ]
    corpus.edit(corpus.layout.meta, "c3;two;casa;0.0;1.0;1.0;10;10;bea\n", "".join(rows))
    corpus.layout.index("val").write_text("".join(f"v{number}\n" for number in range(10)), encoding="utf-8")
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2\n", "")
    (finding,) = found(corpus, "split.repeated_text")
    assert (finding.severity, finding.found.partition(" are")[0]) == (
        severity,
        f"{num_repeated} of 10 texts of val ({num_repeated}0%)",
    )
