"""Settings of the pictures of a backbone. No torch here."""

from __future__ import annotations

from pathlib import Path

from signstreams.config.base import Section
from signstreams.config.kinds import Count


class ShowConfig(Section):
    """Draw what a backbone sees in crops: attention.png, patches_pca.png, neighbours.png."""

    backbone: str
    """file::PATH[:ARCHITECTURE] or a plain path."""
    crops: Path
    """Folder of one stream's crops, or of plain images, or a ZIP of images."""
    output: Path
    """Folder to write into."""
    title: str | None = None
    """Above each picture; None: the name of the crops' folder."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""
