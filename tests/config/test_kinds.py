"""A kind takes its limits, or leaves them out, as its name says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from signstreams.config import section as kinds


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (kinds.Prob, [0, 0.5, 1], [-0.1, 1.1]),
        (kinds.Ratio, [0.1, 1], [0, 1.1]),
        (kinds.Share, [0, 0.9], [-0.1, 1]),
        (kinds.Positive, [1e-9, 5], [0, -1]),
        (kinds.NotNegative, [0, 5], [-1e-9]),
        (kinds.Range, [[0, 1], [3, 2]], [[1], [1, 2, 3]]),
        (kinds.Count, [1, 7], [0, 1.5]),
        (kinds.FileName, ["a.mp4", "ñ b", "-x"], ["", ".hidden", "..", "a/b", "a\\b", "a\nb", "a\x00"]),
    ],
)
def test_limits(kind: Any, taken: list[Any], refused: list[Any]) -> None:
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(value) for value in taken] == taken
    for value in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
