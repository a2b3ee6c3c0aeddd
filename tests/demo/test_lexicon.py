"""The signs differ, and the minimal pairs differ in one thing only."""

from __future__ import annotations

from itertools import combinations

import pytest

from signstreams.demo.language import CTC_LABELS, GLOSSES, HANDSHAPES, MOUTHS, MOVEMENTS, ORIENTATIONS, PLACES, SIGNS


def differing(one: str, other: str) -> list[int]:
    pairs = zip(SIGNS[one].parameters(), SIGNS[other].parameters(), strict=True)
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
