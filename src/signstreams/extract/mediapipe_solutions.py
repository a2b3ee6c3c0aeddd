"""MediaPipe's solutions, imported lean and run quietly."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import types
from typing import Any


def solution_class(module: str, name: str) -> Any:
    """A class of ``mediapipe.python.solutions``, such as ("holistic", "Holistic").

    The import pulls in matplotlib for helpers unused here: one second per video. An empty module replaces it meanwhile,
    unless matplotlib is imported already.
    """
    stand_ins = {name: types.ModuleType(name) for name in ("matplotlib", "matplotlib.pyplot")}
    used = "matplotlib" not in sys.modules and "mediapipe" not in sys.modules
    if used:
        stand_ins["matplotlib"].__path__ = []  # a package, so that its child is importable
        stand_ins["matplotlib"].pyplot = stand_ins["matplotlib.pyplot"]  # type: ignore[attr-defined]
        sys.modules.update(stand_ins)
    try:
        return getattr(importlib.import_module(f"mediapipe.python.solutions.{module}"), name)
    finally:
        if used:
            for stand_in in stand_ins:
                sys.modules.pop(stand_in, None)


class QuietStderr:
    """Holds back what native code (MediaPipe, TFLite, absl) writes to stderr within the block; shows it on failure.

    Cheap enough for every frame (0.01 ms). Not reentrant.
    """

    def __init__(self) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._held.seek(0)
        self._held.truncate()
        self._kept = os.dup(2)
        os.dup2(self._held.fileno(), 2)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        if kind is not None and issubclass(kind, Exception):  # Ctrl-C is no failure
            self._held.seek(0)
            os.write(2, self._held.read())

    def close(self) -> None:
        """Free the file."""
        self._held.close()
