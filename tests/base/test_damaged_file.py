"""One error for damaged processed files: what it says, and that worker processes hand it back."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from signstreams.errors import DamagedFile, UserError


def test_damage_is_one_line_with_place_found_expected_and_next_step() -> None:
    error = DamagedFile("a.npz", "no array 'pose'", expected="pose (T, 99)")
    assert error.problems == ["a.npz: no array 'pose', expected pose (T, 99); extract the video again"]
    assert str(DamagedFile("a.zip", "is no JPEG", frame=0)) == "a.zip, frame 0: is no JPEG; extract the video again"
    assert isinstance(error, UserError) and isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\nlines"), "a: two lines"),
        (EOFError(), "a: EOFError"),
        (OSError(errno.EIO, "Input/output error"), "a: Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), "b: Permission denied"),
        (DamagedFile("c", "is cut off"), "c: is cut off"),
    ],
)
def test_what_a_reader_raised_becomes_damage(error: Exception, said: str) -> None:
    assert str(DamagedFile.of("a", error)) == f"{said}; extract the video again"


def test_damage_comes_back_whole_from_another_process() -> None:
    error = DamagedFile("a.zip", "is cut off", expected="a JPEG", frame=3)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own object, made on this line
    assert (copy.path, copy.found, copy.expected, copy.frame) == (Path("a.zip"), "is cut off", "a JPEG", 3)
    assert copy.problems == error.problems
