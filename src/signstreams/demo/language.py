"""The demo's sign language: its signs, and sentences in signing order with their Spanish text. No heavy imports.

Body coordinates, from the side of the signing hand: x grows to the outside (its own side of the body), y grows down, z
grows to the camera; the origin is between the shoulders, the unit is half the shoulder distance. A left-handed signer
mirrors x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

# -- Signs: handshape, place, orientation, movement and mouth of each

Vector = tuple[float, float, float]

HANDSHAPES = ("rest", "flat", "spread", "fist", "index", "vee", "ell", "wye", "three", "pinky", "cee", "oh", "claw")
"""Names, by id. ``rest`` is the relaxed hand between sentences."""

MOUTHS: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "a": (1.0, 0.15),
    "e": (0.4, 0.8),
    "o": (0.7, -0.9),
    "u": (0.2, -1.0),
}
"""Mouth to (how far it opens 0..1, how wide it is -1..1)."""

PLACES: dict[str, Vector] = {
    "temple": (0.98, -1.05, 0.5),
    "chin": (0.46, -0.08, 0.75),
    "shoulder": (1.15, -0.15, 0.7),
    "chest": (0.45, 0.75, 0.75),
    "neutral": (0.72, 0.95, 1.15),
    "low": (0.75, 1.75, 1.0),
}
"""Place to the position of the middle of the palm."""

ORIENTATIONS: dict[str, tuple[Vector, Vector]] = {
    "up_out": ((-0.1, -1.0, 0.15), (0.0, 0.15, 1.0)),
    "up_in": ((-0.15, -1.0, 0.1), (-0.75, 0.1, 0.65)),
    "up_back": ((-0.25, -1.0, 0.1), (-0.15, -0.05, -1.0)),
    "tilted_out": ((-0.55, -0.85, 0.2), (-0.1, 0.25, 1.0)),
    "across_back": ((-0.85, -0.5, 0.1), (-0.1, 0.1, -1.0)),
    "across_down": ((-0.75, -0.45, 0.45), (-0.15, 0.75, 0.65)),
    "forward_up": ((-0.35, -0.75, 0.5), (-0.1, -0.5, -0.85)),
}
"""Orientation to (direction of the fingers, direction the palm faces)."""

MOVEMENTS = ("tap", "push", "circle", "wave", "arc_forward", "arc_back", "down", "open")


@dataclass(frozen=True)
class Sign:
    """How one gloss is signed."""

    handshape: str  # one of `HANDSHAPES`; in a symmetric sign both hands have it
    place: str  # key of `PLACES`
    orientation: str  # key of `ORIENTATIONS`
    movement: str  # one of `MOVEMENTS`
    mouth: str  # key of `MOUTHS`
    hands: str = "one"  # ``one``; ``two``: both mirror each other; ``base``: the other hand holds still, flat, below


SIGNS: dict[str, Sign] = {
    "AGUA": Sign("three", "chin", "up_in", "tap", "a"),
    "AMIGO": Sign("claw", "chest", "across_back", "circle", "o"),
    "AYER": Sign("wye", "shoulder", "up_in", "arc_back", "e"),
    "BIEN": Sign("ell", "neutral", "up_back", "push", "e"),
    "CAFÉ": Sign("cee", "neutral", "up_in", "circle", "e"),
    "CASA": Sign("flat", "neutral", "tilted_out", "down", "a", "two"),
    "COMPRAR": Sign("oh", "neutral", "across_down", "push", "a", "base"),
    "DÓNDE": Sign("spread", "low", "forward_up", "wave", "o", "two"),
    "ESCUELA": Sign("spread", "neutral", "tilted_out", "down", "a", "two"),
    "HERMANO": Sign("claw", "chest", "across_back", "circle", "e"),
    "HOY": Sign("wye", "low", "up_back", "down", "o", "two"),
    "IR": Sign("flat", "neutral", "up_in", "arc_forward", "u"),
    "LIBRO": Sign("flat", "neutral", "up_back", "open", "o", "two"),
    "MAMÁ": Sign("spread", "temple", "up_out", "tap", "a"),
    "MAÑANA": Sign("wye", "shoulder", "up_in", "arc_forward", "e"),
    "NO": Sign("index", "shoulder", "up_out", "wave", "o"),
    "PAN": Sign("three", "chest", "up_in", "tap", "a"),
    "QUERER": Sign("fist", "chest", "up_in", "down", "e"),
    "TÚ": Sign("index", "neutral", "tilted_out", "push", "u"),
    "VER": Sign("vee", "temple", "up_out", "push", "e"),
    "YO": Sign("pinky", "chest", "across_back", "tap", "o"),
}
"""Gloss to its sign, in sorted order.

Minimal pairs: CASA and ESCUELA (handshape), AGUA and PAN (place), MAÑANA and AYER (movement), AMIGO and HERMANO
(mouth).
"""

GLOSSES = tuple(SIGNS)
CTC_LABELS = {gloss: number for number, gloss in enumerate(GLOSSES, 1)}  # gloss to its number; 0 is the blank


# -- Sentences: glosses in signing order (time, subject, object, verb, negation or question) and their Spanish text

SUBJECTS = ("YO", "TÚ", "MAMÁ", "AMIGO", "HERMANO")
OBJECTS = ("AGUA", "CAFÉ", "PAN", "LIBRO")
SITES = ("CASA", "ESCUELA")
VERBS = ("QUERER", "VER", "COMPRAR")

_FIRST, _SECOND, _THIRD = range(3)
_PERSON = {"YO": _FIRST, "TÚ": _SECOND}
_PRESENT, _PAST, _FUTURE = range(3)
_TENSE = {None: _PRESENT, "HOY": _PRESENT, "AYER": _PAST, "MAÑANA": _FUTURE}  # time, also None, to the verb's tense
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
_THING_WORDS = {  # with the article of a subject, or of the object of VER
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
    """One sentence."""

    glosses: tuple[str, ...]  # in signing order
    text: str  # spanish


def sentences() -> list[Sentence]:
    """Every sentence of the grammar, in a fixed order, each gloss sequence once."""
    return [*_transitive(), *_going(), *_being(), *_asking()]


def _transitive() -> Iterator[Sentence]:
    for time, subject, thing, verb, negated in product(_TENSE, SUBJECTS, OBJECTS, VERBS, (False, True)):
        words = _THING_WORDS if verb == "VER" else _OBJECT_WORDS
        yield _statement(time, subject, verb, words[thing], (thing, verb), negated)


def _going() -> Iterator[Sentence]:
    for time, subject, site, negated in product(_TENSE, SUBJECTS, SITES, (False, True)):
        yield _statement(time, subject, "IR", _GOAL_WORDS[site], (site, "IR"), negated)


def _being() -> Iterator[Sentence]:
    for time, subject, negated in product(_TENSE, SUBJECTS, (False, True)):
        yield _statement(time, subject, "ESTAR", "bien", ("BIEN",), negated)
    for thing, words in _THING_WORDS.items():
        yield Sentence((thing, "BIEN"), f"{_capital(words)} está bien.")


def _asking() -> Iterator[Sentence]:
    for time, subject in product(_TENSE, SUBJECTS[1:]):
        form = _VERB_FORMS["ESTAR"][_TENSE[time]][_PERSON.get(subject, _THIRD)]
        words = ["¿Dónde", form, "" if subject == "TÚ" else _SUBJECT_WORDS[subject], time.lower() if time else ""]
        glosses = (*((time,) if time else ()), subject, "DÓNDE")
        yield Sentence(glosses, " ".join(word for word in words if word) + "?")
    for thing, name in _THING_WORDS.items():
        yield Sentence((thing, "DÓNDE"), f"¿Dónde está {name}?")


def _statement(
    time: str | None, subject: str, verb: str, complement: str, predicate: tuple[str, ...], negated: bool
) -> Sentence:
    """Signed as time, subject, object, verb, NO; written as time, subject, no, verb, object."""
    glosses = (*((time,) if time else ()), subject, *predicate, *(("NO",) if negated else ()))
    form = _VERB_FORMS[verb][_TENSE[time]][_PERSON.get(subject, _THIRD)]
    words = [time.lower() if time else "", _SUBJECT_WORDS[subject], "no" if negated else "", form, complement]
    return Sentence(glosses, _capital(" ".join(word for word in words if word)) + ".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
