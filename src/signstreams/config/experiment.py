"""What both trainings note about a run for the people who read it later."""

from __future__ import annotations

from typing import Annotated

from signstreams.config.base import Flag, Section


class ExperimentConfig(Section):
    """What people want to remember about the run; no effect on the result."""

    name: str = ""
    """Short name."""
    tags: Annotated[list[str], Flag("--experiment-tag")] = []
    """Labels."""
    notes: str = ""
    """Free text."""
