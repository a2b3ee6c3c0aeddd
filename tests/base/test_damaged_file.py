"""One error for damaged processed files: what it says, and that worker processes hand it back."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from signstreams.errors import DamagedFile, TryAgainError, UserError


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
def test_what_is_no_fault_of_the_file_is_no_damage(error: OSError) -> None:
    with pytest.raises(OSError, match="'b'") as caught:
        DamagedFile.of("a", error)
    assert caught.value.errno == error.errno


def test_an_error_that_names_no_file_gets_its_name() -> None:
    with pytest.raises(OSError, match=r"Stale file handle: 'a'"):
        DamagedFile.of("a", OSError(errno.ESTALE, "Stale file handle"))


def test_damage_comes_back_whole_from_another_process() -> None:
    error = DamagedFile("a.zip", "is cut off", expected="a JPEG", frame=3)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own object, made on this line
    assert (copy.path, copy.found, copy.expected, copy.frame) == (Path("a.zip"), "is cut off", "a JPEG", 3)
    assert copy.problems == error.problems


@pytest.mark.parametrize("kind", [UserError, TryAgainError])
def test_problems_come_back_one_by_one_from_another_process(kind: type[UserError]) -> None:
    copy = pickle.loads(pickle.dumps(kind(["a", "b"])))  # noqa: S301  our own object, made on this line
    assert type(copy) is kind and copy.problems == ["a", "b"]
