"""What the tests of breaches share: a list of ways to break the good corpus, and what they break it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from .corpora import CROP_PX, NUM_FRAMES, BrokenCorpus

ONE = "processed/{}/one"
VIDEO = "one"
BreakIt = Callable[[BrokenCorpus], Any]


class Breaches:
    """Ways to break the corpus, each with the rule, the file and the fix (a part of it) that must be reported."""

    def __init__(self) -> None:
        self.cases: list[tuple[str, str, str, BreakIt]] = []

    def __call__(self, rule: str, file: str, fix: str) -> Callable[[BreakIt], BreakIt]:
        """Register the decorated way."""

        def register(break_it: BreakIt) -> BreakIt:
            self.cases.append((rule, file, fix, break_it))
            return break_it

        return register

    def each(self, test: Callable[..., None]) -> Callable[..., None]:
        """Run the decorated test once a way, under the way's name."""
        names = [break_it.__name__ for _, _, _, break_it in self.cases]
        return pytest.mark.parametrize(("rule", "file", "fix", "break_it"), self.cases, ids=names)(test)


def image(width: int, height: int) -> bytes:
    """JPEG of one grey."""
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def crops(bad: bytes, frame: int = 2) -> dict[int, bytes]:
    """A crop a frame, one of them bad."""
    return {number: image(CROP_PX, CROP_PX) for number in range(NUM_FRAMES)} | {frame: bad}
