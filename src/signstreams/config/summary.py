"""What `scripts/summarize_run.py` looks at."""

from __future__ import annotations

from pathlib import Path

from signstreams.config.base import Section


class SummaryConfig(Section):
    """Folders of a run."""

    root: Path = Path("data/demo")
    """Folder of the corpus."""
    work_dir: Path = Path("work_dirs")
    """Folder of the trained models."""
