"""One error for a processed file that is damaged, incomplete or stale: only extracting its video again helps."""

from __future__ import annotations

from pathlib import Path

from signstreams.errors import UserError


class DamagedFile(UserError, ValueError):
    """A processed file that cannot be used. Reads ``<path>: <found>, expected <expected>; extract the video again``.

    Attributes:
        path: The file.
        found: What is wrong with it, without the path.
        expected: What it should be; empty when ``found`` says it.
        frame: Frame of the crop that is damaged; None for the whole file.
    """

    def __init__(self, path: str | Path, found: str, *, expected: str = "", frame: int | None = None) -> None:
        self.path, self.found, self.expected, self.frame = Path(path), found, expected, frame
        place = f"{path}" if frame is None else f"{path}, frame {frame}"
        super().__init__(f"{place}: {found}{f', expected {expected}' if expected else ''}; extract the video again")

    @classmethod
    def of(cls, path: str | Path, error: BaseException, *, frame: int | None = None) -> DamagedFile:
        """What reading ``path`` raised, as damage; an `OSError` may name another file, a `DamagedFile` stays."""
        if isinstance(error, DamagedFile):
            return error
        text = str(error)
        if isinstance(error, OSError):
            path, text = error.filename or path, error.strerror or text
        return cls(path, " ".join(text.split()) or type(error).__name__, frame=frame)

    def __reduce__(self) -> tuple[object, ...]:  # worker processes hand it back
        return _make, (self.path, self.found, self.expected, self.frame)


def _make(path: Path, found: str, expected: str, frame: int | None) -> DamagedFile:
    return DamagedFile(path, found, expected=expected, frame=frame)
