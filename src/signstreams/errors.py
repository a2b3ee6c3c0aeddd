"""Errors that users see, and how a command shows them: a line per problem, exit code 2. Bugs keep their traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn

from signstreams.ids import printable
from signstreams.language import translated

USER_ERROR_EXIT_CODE = 2
TRY_AGAIN_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED_EXIT_CODE = 130  # 128 and the number of SIGINT, as shells have it
GO_ON = "run again to go on: finished files are kept"

REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
"""What a disk or its owner refuses: no bug, so no traceback."""


OF_MACHINE = frozenset(
    {
        *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENODEV, errno.ENXIO),
        *(errno.ESTALE, errno.EREMOTEIO, errno.ENOLINK, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.ESHUTDOWN),
    }
)
"""What a failing disk, network or memory gives: it says nothing of the file, and may be gone at the next try."""
_PROBE_BYTES = 2**28
_CV2_NO_MEMORY = -4  # cv::Error::StsNoMem


def is_of_machine(error: BaseException) -> bool:
    """Whether an error comes from disk, network or memory and not from the file that was read.

    A damaged file may claim more memory than any machine has: lack of memory counts if there is none for 256 MiB. Some
    libraries, as MediaPipe and `threading`, say it by a `RuntimeError`.
    """
    if isinstance(error, MemoryError | RuntimeError) or getattr(error, "code", None) == _CV2_NO_MEMORY:
        return _is_memory_short()
    return getattr(error, "errno", None) in OF_MACHINE


def raise_if_of_machine(error: BaseException, path: str | Path) -> None:
    """Raise an `OSError` with the path for an error of the machine, or a permission; of a damaged file, nothing."""
    if isinstance(error, DamagedFile):
        return
    code = getattr(error, "errno", None)
    if is_of_machine(error):
        code = errno.ENOMEM if isinstance(error, MemoryError | RuntimeError) else code or errno.ENOMEM
    elif code not in REFUSED:
        return
    raise OSError(code, os.strerror(code), str(getattr(error, "filename", None) or path)) from error


def _is_memory_short() -> bool:
    try:
        bytearray(_PROBE_BYTES)
    except MemoryError:
        return True
    return False


class UserError(Exception):
    """Something the user can fix. Each problem is one line: place, found, expected, next step."""

    exit_code = USER_ERROR_EXIT_CODE  # of a command that it ends

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if not self.problems:
            raise ValueError("a UserError needs at least one problem")
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[object, ...]:  # worker processes hand it back
        return type(self), (self.problems,)


class TryAgainError(UserError):
    """The machine failed, not the user: the same command may succeed at another time."""

    exit_code = TRY_AGAIN_EXIT_CODE


def print_problems(problems: Iterable[str], *, kind: Literal["error", "warning", "note"] = "error") -> None:
    """One ``error: ...`` line per problem on stderr, in the reader's language after the first word, which programs may
    look for; control characters (a file name may hold them) are escaped.
    """
    for problem in problems:
        print(f"{kind}: {printable(translated(problem))}", file=sys.stderr)


@contextlib.contextmanager
def exit_on_user_error(after_stop: str = GO_ON, is_first: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Around the work of a command: a `UserError` ends it with code 2 and its lines.

    Of several processes that may meet it, the one for which ``is_first`` answers yes prints them. A full disk, or a
    file that may not be read or written, is treated alike; a failing disk or network ends it with code 75 ("try
    again"). Ctrl-C ends it with code 130 and one line,
    which ``after_stop`` (how to go on) completes.
    """
    is_interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        raise KeyboardInterrupt

    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a background job ignores it
    if is_ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except UserError as error:
        if is_first():
            print_problems(error.problems)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _stop(after_stop)
    except BrokenPipeError:  # `command | head`: the reader left, nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        if is_interrupted:  # during an import that swallowed it and stopped halfway
            _stop(after_stop)
        if not (isinstance(error, OSError) and error.errno in REFUSED | OF_MACHINE):
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        if is_first():
            print_problems([f"{what}; fix that and run again: finished files are kept"])
        raise SystemExit(TRY_AGAIN_EXIT_CODE if error.errno in OF_MACHINE else USER_ERROR_EXIT_CODE) from None
    finally:
        if is_ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(after_stop: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # pressed again: everything ends at once
    if os.environ.get("RANK", "0") == "0":
        print(translated(f"stopped; {after_stop}"), file=sys.stderr)
    raise SystemExit(INTERRUPTED_EXIT_CODE) from None


class DamagedFile(UserError, ValueError):
    """A processed file that cannot be used. Reads ``<path>: <found>, expected <expected>; extract the video again``.

    ``expected`` is empty where ``found`` says it; ``frame`` is that of a damaged crop, None for the whole file; ``fix``
    is another next step, for images that no extraction made.
    """

    AGAIN = "extract the video again"

    def __init__(
        self, path: str | Path, found: str, *, expected: str = "", frame: int | None = None, fix: str = AGAIN
    ) -> None:
        self.path, self.found, self.expected, self.frame, self.fix = Path(path), found, expected, frame, fix
        place = f"{path}" if frame is None else f"{path}, frame {frame}"
        super().__init__(f"{place}: {found}{f', expected {expected}' if expected else ''}; {fix}")

    @classmethod
    def of(cls, path: str | Path, error: BaseException, *, frame: int | None = None, fix: str = AGAIN) -> DamagedFile:
        """What reading ``path`` raised, as damage; an `OSError` may name another file, a `DamagedFile` stays.

        Raises:
            OSError: What was raised is an error of the machine, or a permission: the file itself may be whole.
        """
        raise_if_of_machine(error, path)
        if isinstance(error, DamagedFile):
            return error if fix == cls.AGAIN else cls(path, error.found, expected=error.expected, frame=frame, fix=fix)
        text = str(error)
        if isinstance(error, OSError):
            path, text = error.filename or path, error.strerror or text
        return cls(path, " ".join(text.split()) or type(error).__name__, frame=frame, fix=fix)

    def __reduce__(self) -> tuple[object, ...]:  # worker processes hand it back
        return partial(DamagedFile, expected=self.expected, frame=self.frame, fix=self.fix), (self.path, self.found)
