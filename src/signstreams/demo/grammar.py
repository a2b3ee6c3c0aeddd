"""Sentences: glosses in signing order (time, subject, object, verb, negation or question) and their Spanish text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TIMES = ("HOY", "AYER", "MAÑANA")
SUBJECTS = ("YO", "TÚ", "MAMÁ", "AMIGO", "HERMANO")
OBJECTS = ("AGUA", "CAFÉ", "PAN", "LIBRO")
SITES = ("CASA", "ESCUELA")
VERBS = ("QUERER", "VER", "COMPRAR")

_FIRST, _SECOND, _THIRD = range(3)
_PERSON = {"YO": _FIRST, "TÚ": _SECOND}
_PRESENT, _PAST, _FUTURE = range(3)
_TENSE = {None: _PRESENT, "HOY": _PRESENT, "AYER": _PAST, "MAÑANA": _FUTURE}
_VERB_FORMS: dict[str, tuple[tuple[str, str, str], ...]] = {  # by tense, then person
    "QUERER": (("quiero", "quieres", "quiere"), ("quería", "querías", "quería"), ("querré", "querrás", "querrá")),
    "VER": (("veo", "ves", "ve"), ("vi", "viste", "vio"), ("veré", "verás", "verá")),
    "COMPRAR": (
        ("compro", "compras", "compra"),
        ("compré", "compraste", "compró"),
        ("compraré", "comprarás", "comprará"),
    ),
    "IR": (("voy", "vas", "va"), ("fui", "fuiste", "fue"), ("iré", "irás", "irá")),
    "ESTAR": (("estoy", "estás", "está"), ("estuve", "estuviste", "estuvo"), ("estaré", "estarás", "estará")),
}
_SUBJECT_WORDS = {"YO": "", "TÚ": "tú", "MAMÁ": "mamá", "AMIGO": "mi amigo", "HERMANO": "mi hermano"}
_THING_WORDS = {  # with the article that the noun takes after a verb of seeing or as subject
    "AGUA": "el agua",
    "CAFÉ": "el café",
    "PAN": "el pan",
    "LIBRO": "el libro",
    "CASA": "la casa",
    "ESCUELA": "la escuela",
}
_OBJECT_WORDS = {"AGUA": "agua", "CAFÉ": "café", "PAN": "pan", "LIBRO": "un libro"}
_GOAL_WORDS = {"CASA": "a casa", "ESCUELA": "a la escuela"}


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        glosses: In signing order.
        text: Spanish.
    """

    glosses: tuple[str, ...]
    text: str


def sentences() -> list[Sentence]:
    """Every sentence of the grammar, each gloss sequence once, always in the same order."""
    return [*_transitive(), *_going(), *_being(), *_asking()]


def _transitive() -> Iterator[Sentence]:
    for time in (None, *TIMES):
        for subject in SUBJECTS:
            for thing in OBJECTS:
                for verb in VERBS:
                    words = _THING_WORDS if verb == "VER" else _OBJECT_WORDS
                    for negated in (False, True):
                        yield _statement(time, subject, verb, words[thing], (thing, verb), negated)


def _going() -> Iterator[Sentence]:
    for time in (None, *TIMES):
        for subject in SUBJECTS:
            for site in SITES:
                for negated in (False, True):
                    yield _statement(time, subject, "IR", _GOAL_WORDS[site], (site, "IR"), negated)


def _being() -> Iterator[Sentence]:
    for time in (None, *TIMES):
        for subject in SUBJECTS:
            for negated in (False, True):
                yield _statement(time, subject, "ESTAR", "bien", ("BIEN",), negated)
    for thing, words in _THING_WORDS.items():
        yield Sentence((thing, "BIEN"), f"{_capital(words)} está bien.")


def _asking() -> Iterator[Sentence]:
    for time in (None, *TIMES):
        for subject in SUBJECTS[1:]:
            form = _VERB_FORMS["ESTAR"][_TENSE[time]][_PERSON.get(subject, _THIRD)]
            words = ["¿Dónde", form, "" if subject == "TÚ" else _SUBJECT_WORDS[subject], time.lower() if time else ""]
            glosses = (*((time,) if time else ()), subject, "DÓNDE")
            yield Sentence(glosses, " ".join(word for word in words if word) + "?")
    for thing, name in _THING_WORDS.items():
        yield Sentence((thing, "DÓNDE"), f"¿Dónde está {name}?")


def _statement(
    time: str | None, subject: str, verb: str, complement: str, predicate: tuple[str, ...], negated: bool
) -> Sentence:
    """Signed time, subject, object, verb, NO; written time, subject, no, verb, object."""
    glosses = (*((time,) if time else ()), subject, *predicate, *(("NO",) if negated else ()))
    form = _VERB_FORMS[verb][_TENSE[time]][_PERSON.get(subject, _THIRD)]
    words = [time.lower() if time else "", _SUBJECT_WORDS[subject], "no" if negated else "", form, complement]
    return Sentence(glosses, _capital(" ".join(word for word in words if word)) + ".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
