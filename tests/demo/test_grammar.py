"""Glosses in signing order, text in Spanish: agreement, tense, accents, order."""

from __future__ import annotations

import pytest

from signstreams.demo.language import GLOSSES, sentences

TEXTS = {sentence.glosses: sentence.text for sentence in sentences()}


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
