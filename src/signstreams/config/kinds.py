"""Kinds of numbers and names that the sections of all configs share; a range has one name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Prob = Annotated[float, Field(ge=0, le=1)]
"""0 to 1: a probability, a score, or a share that may be none or all."""
Ratio = Annotated[float, Field(gt=0, le=1)]
"""0 to 1, but not 0."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""0 to 1, but not 1."""
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
"""Low and high; the section checks their order."""
Count = Annotated[int, Field(ge=1)]
"""1, 2, 3, ..."""
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$")]
