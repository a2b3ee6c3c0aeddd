"""The demo's language: signs differ, minimal pairs in one parameter only; glosses have their Spanish sentences."""

from __future__ import annotations

from dataclasses import astuple
from itertools import combinations

import pytest

from signstreams.demo.language import (
    CTC_LABELS,
    GLOSSES,
    HANDSHAPES,
    MOUTHS,
    MOVEMENTS,
    ORIENTATIONS,
    PLACES,
    SIGNS,
    sentences,
)

TEXTS = {sentence.glosses: sentence.text for sentence in sentences()}


def differing(one: str, other: str) -> list[int]:
    pairs = zip(astuple(SIGNS[one]), astuple(SIGNS[other]), strict=True)
    return [position for position, (a, b) in enumerate(pairs) if a != b]


def test_no_two_signs_are_alike() -> None:
    assert len(GLOSSES) >= 20
    for one, other in combinations(GLOSSES, 2):
        assert differing(one, other), (one, other)


@pytest.mark.parametrize(
    ("one", "other", "parameter"),
    [("CASA", "ESCUELA", 0), ("AGUA", "PAN", 1), ("MAÑANA", "AYER", 3), ("AMIGO", "HERMANO", 4)],
)
def test_a_minimal_pair_differs_in_one_parameter(one: str, other: str, parameter: int) -> None:
    assert differing(one, other) == [parameter]


def test_every_name_is_known_and_every_handshape_is_used() -> None:
    for sign in SIGNS.values():
        assert sign.place in PLACES
        assert sign.orientation in ORIENTATIONS
        assert sign.movement in MOVEMENTS
        assert sign.mouth in MOUTHS
    assert {sign.handshape for sign in SIGNS.values()} | {"rest"} == set(HANDSHAPES)
    assert {sign.movement for sign in SIGNS.values()} == set(MOVEMENTS)
    assert {sign.hands for sign in SIGNS.values()} == {"one", "two", "base"}


def test_labels_leave_zero_to_the_blank() -> None:
    assert sorted(GLOSSES) == sorted(CTC_LABELS)
    assert sorted(CTC_LABELS.values()) == list(range(1, len(GLOSSES) + 1))


@pytest.mark.parametrize(
    ("glosses", "text"),
    [
        ("YO AGUA QUERER", "Quiero agua."),
        ("AYER MAMÁ LIBRO COMPRAR", "Ayer mamá compró un libro."),
        ("MAÑANA TÚ CAFÉ VER NO", "Mañana tú no verás el café."),
        ("HOY HERMANO ESCUELA IR", "Hoy mi hermano va a la escuela."),
        ("AYER YO BIEN NO", "Ayer no estuve bien."),
        ("CASA DÓNDE", "¿Dónde está la casa?"),
        ("AYER TÚ DÓNDE", "¿Dónde estuviste ayer?"),
        ("PAN BIEN", "El pan está bien."),
    ],
)
def test_a_gloss_sequence_has_its_spanish_sentence(glosses: str, text: str) -> None:
    assert TEXTS[tuple(glosses.split())] == text


def test_every_sentence_is_there_once_and_every_gloss_is_used() -> None:
    assert len(TEXTS) == len(sentences()) == len(set(TEXTS.values())) > 500
    assert {gloss for glosses in TEXTS for gloss in glosses} == set(GLOSSES)


def test_texts_can_stand_in_a_semicolon_table() -> None:
    for text in TEXTS.values():
        assert not set(text) & set(';"\r\n')
        assert text[0] in "¿" or text[0].isupper()
        assert text[-1] in ".?"
        assert "  " not in text
