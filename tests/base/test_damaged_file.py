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
        (OSError(errno.EINVAL, "Invalid argument"), "a: Invalid argument"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "b"), "b: No such file or directory"),
        (DamagedFile("c", "is cut off"), "c: is cut off"),
    ],
)
def test_what_a_reader_raised_becomes_damage(error: Exception, said: str) -> None:
    assert str(DamagedFile.of("a", error)) == f"{said}; extract the video again"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "b"),
        PermissionError(errno.EACCES, "Permission denied", "b"),
        OSError(errno.EMFILE, "Too many open files", "b"),
    ],
)
def test_what_is_no_fault_of_the_file_is_no_reason_to_extract_it_again(error: OSError) -> None:
    expected = f"b: {error.strerror}; see to that and run again: the file itself may be whole"
    assert str(DamagedFile.of("a", error)) == expected


def test_damage_comes_back_whole_from_another_process() -> None:
    error = DamagedFile("a.zip", "is cut off", expected="a JPEG", frame=3)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own object, made on this line
    assert (copy.path, copy.found, copy.expected, copy.frame) == (Path("a.zip"), "is cut off", "a JPEG", 3)
    assert copy.problems == error.problems
