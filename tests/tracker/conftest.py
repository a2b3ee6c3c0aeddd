"""What tests of the tracker share: its models, and real frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from signstreams.extract.video import VideoReader
from signstreams.tracker.models import GET_THEM, missing_models, models_folder


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the models, where they are kept."""
    if missing_models():
        pytest.skip(f"the tracker's models are absent; {GET_THEM}")
    return models_folder()


@pytest.fixture(scope="session")
def frames(shared_data: Path) -> list[np.ndarray]:
    """Frames of three clips, (H, W, 3) uint8 RGB each: one signer, two people, a hand before a webcam."""
    found = []
    for name in ("lsat_one_signer_studio.gif", "lsat_two_people.gif", "webcam_one_hand.mp4"):
        with VideoReader(shared_data / "clips" / name) as reader:
            found += [frame.image for number, frame in enumerate(reader.frames()) if number % 10 == 0][:3]
    return found
