"""Glosses and the vocabulary that CTC learns."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from signstreams.corpus.gloss import BLANK, Gloss, GlossVocabulary, read_gloss
from signstreams.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "gloss.csv"
    path.write_text(text, encoding="utf-8")
    return path


def glosses_of(**labels: str) -> dict[str, Gloss]:
    return {name: Gloss(name, text, tuple(text.split()), 2) for name, text in labels.items()}


def test_labels_are_the_ctc_labels_or_the_glosses_where_those_are_numbers_or_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "video_id;gloss;ctc_labels\na;CASA MI;HOUSE MY\nb;CASA MI;7 3\nc;MI CASA;\n")
    assert {name: gloss.labels for name, gloss in read_gloss(path).items()} == {
        "a": ("HOUSE", "MY"),
        "b": ("CASA", "MI"),
        "c": ("MI", "CASA"),
    }


def test_one_of_the_two_columns_is_enough(tmp_path: Path) -> None:
    assert read_gloss(write(tmp_path, "id,gloss\na,CASA\n"))["a"].labels == ("CASA",)
    assert read_gloss(write(tmp_path, "clip_id;ctc_labels\na;1 2\n"))["a"].labels == ("1", "2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("id;text\na;b\n", "'id', 'text'"),
        ("name;gloss\na;b\n", "'name', 'gloss'"),
        ("id;gloss\na;b\na;c\n", "row 3: the id 'a' again, first in row 2"),
        ("id;gloss;ctc_labels\na;B C;1\n", "1 ctc_labels for 2 glosses"),
        ("id;gloss;ctc_labels\na;B C;1 1\n", "the number 1 for 'C', elsewhere for 'B'"),
        ("id;gloss\nx;B\n", "1 id names no clip: 'x' (row 2)"),
        ('id;ctc_labels;gloss\na;1;"B\nb;1;C\nc;1;D"\n', "row 2: the double quote before 'B' is not closed"),
        ('id,gloss,ctc_labels\na,"B,1\nb,C",1\n', "row 2: the double quote before 'B' is not closed"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(UserError) as caught:
        read_gloss(write(tmp_path, text), ["a"])
    assert found in str(caught.value)


def test_ids_and_glosses_are_composed(tmp_path: Path) -> None:
    """macOS writes decomposed names: both forms look equal."""
    rows = "id;gloss\nseñal;SEÑA MAÑANA\n"
    glosses = read_gloss(write(tmp_path, unicodedata.normalize("NFD", rows) + "b;SEÑA\n"), ["señal", "b"])
    assert glosses["señal"].labels == ("SEÑA", "MAÑANA")
    assert GlossVocabulary.build(glosses, ["señal", "b"]).names == (BLANK, "MAÑANA", "SEÑA")


def test_an_absent_gloss_table_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_gloss(tmp_path / "gloss.csv")


def test_the_vocabulary_is_that_of_train_sorted_with_blank_first() -> None:
    glosses = glosses_of(a="B A", b="C Ñ A", c="D")
    vocabulary = GlossVocabulary.build(glosses, ["b", "a", "absent"])
    assert vocabulary.names == (BLANK, "A", "B", "C", "Ñ")
    assert GlossVocabulary.build(glosses, ["a", "b"]) == vocabulary
    assert len(vocabulary) == 5
    assert "D" not in vocabulary.ids


def test_known_glosses_round_trip_and_unknown_ones_are_told() -> None:
    vocabulary = GlossVocabulary.build(glosses_of(a="B A"), ["a"])
    assert vocabulary.encode(["A", "X", "B", "A"]) == [1, 2, 1]
    assert vocabulary.unknown(["A", "X", "B", "Y"]) == ["X", "Y"]
    assert vocabulary.decode([0, 1, 0, 2]) == ["A", "B"]


def test_a_gloss_named_like_the_blank_does_not_become_a_second_one() -> None:
    assert GlossVocabulary.build(glosses_of(a=f"{BLANK} A"), ["a"]).names == (BLANK, "A")


def test_a_saved_vocabulary_is_a_list_of_names(tmp_path: Path) -> None:
    GlossVocabulary.build(glosses_of(a="Ñ A"), ["a"]).save(tmp_path / "glosses.json")
    assert json.loads((tmp_path / "glosses.json").read_text(encoding="utf-8")) == {"glosses": [BLANK, "A", "Ñ"]}


@pytest.mark.parametrize("names", [(), ("A",), (BLANK, "A", "A")])
def test_a_vocabulary_starts_with_the_blank_and_holds_each_gloss_once(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="starts with '<blank>' and holds each gloss once"):
        GlossVocabulary(names)
