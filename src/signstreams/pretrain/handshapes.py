"""True handshapes of the demo corpus, by frame: only rendered video comes with them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from signstreams.array_types import Ints
from signstreams.errors import UserError


class Handshapes(NamedTuple):
    """Of one hand in one video.

    Attributes:
        frames: (T,) int, index into ``names``; -1 between two handshapes.
        names: Of all handshapes.
        clips: Ids of the clips the video holds.
        signer: Who signs.
    """

    frames: Ints
    names: list[str]
    clips: set[str]
    signer: str

    def at(self, frame: int) -> int:
        """Index of the frame's handshape; -1 where there is none."""
        return int(self.frames[frame]) if frame < len(self.frames) else -1


def read_handshapes(path: Path, stream: str) -> Handshapes:
    """From ``ground_truth/<video>.npz``, for a hand stream.

    Raises:
        UserError: Absent, or no ground truth.
    """
    try:
        with np.load(path, allow_pickle=False) as truth:
            return Handshapes(
                truth[f"{stream}_handshape"],
                [str(name) for name in truth["handshape_names"]],
                {str(clip) for clip in truth["clip_ids"]},
                str(truth["signer"]),
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no ground truth of handshapes ({error}); only the demo corpus has it") from None
