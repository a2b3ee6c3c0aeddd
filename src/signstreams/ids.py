"""Ids become file names: which ids are allowed, so that none leaves its folder, and how odd names are shown.

macOS and some keyboards write é as e with an accent of its own (NFD), which looks the same and is another text. What is
read from tables, subtitles and annotations is `composed` where it is read; a name on disk stays as it is, and ids are
compared with it `by_composition`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_SHOWN = 300  # characters of a text in a message; file names have at most 255
MAX_ID_BYTES = 200  # leaves room for "_f000000.jpg" and a temporary suffix within the 255 of common file systems


def check_id(text: str) -> str:
    """Return ``text`` if it can safely name a file.

    Raises:
        ValueError: With the reason, if it could leave its folder, be hidden, or not be written.
    """
    if not text or text != text.strip():
        raise ValueError("is empty or has blanks around it")
    if "/" in text or "\\" in text:
        raise ValueError("holds a path separator")
    if text.startswith("."):
        raise ValueError("starts with a dot")
    # Control characters, surrogates (bytes that are not UTF-8) and line ends: files list one id per line.
    bad = next((char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise ValueError(f"holds the control character U+{ord(bad):04X}")
    if len(text.encode()) > MAX_ID_BYTES:
        raise ValueError(f"is {len(text.encode())} bytes long, at most {MAX_ID_BYTES} are allowed")
    return text


def composed(text: str) -> str:
    """``text`` in composed form (NFC), the one of all texts, glosses and ids that are read."""
    return unicodedata.normalize("NFC", text)


def by_composition(names: Iterable[str]) -> dict[str, str]:
    """Composed form of each name, such as that of a file, to the name as it is."""
    return {composed(name): name for name in names}


def printable(text: str) -> str:
    """``text`` with escapes for what controls a terminal or is invisible: line ends, ESC, marks of writing direction.

    Letters of any script, punctuation and spaces stay as they are.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shown(text: str) -> str:
    """``text`` quoted for a one-line message, control characters escaped; of a long one, which is no id, the start."""
    return f"'{printable(text)}'" if len(text) <= MAX_SHOWN else f"'{printable(text[:MAX_SHOWN])}...'"
