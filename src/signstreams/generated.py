"""Files of the checkout that a script writes from something else, and the check that they are in step with it."""

from __future__ import annotations

import sys
from pathlib import Path

from signstreams.errors import USER_ERROR_EXIT_CODE


def write_or_check(texts: dict[Path, str], words: list[str], *, source: str, script: str, doc: str) -> None:
    """Write each text to its file; with ``--check`` leave with code 2 when a file says something else.

    Args:
        texts: What each file should hold.
        words: The script's arguments.
        source: What the files are written from, for the message.
        script: Name of the script, for the message.
        doc: The script's own docstring, for ``--help``.
    """
    if words not in ([], ["--check"]):
        print(doc.strip())
        sys.exit(0 if words[0] in ("-h", "--help") else USER_ERROR_EXIT_CODE)
    if not words:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        return
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"error: {path} is not in step with {source}; run scripts/{script}", file=sys.stderr)
    sys.exit(USER_ERROR_EXIT_CODE if stale else 0)
