"""The image streams: one table with everything that the stages need to know of each, and the origins of a box.

To add a stream, add a row to `TABLE` at the end; docs/extending.md shows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Stream:
    """One stream of crops."""

    name: str  # in paths, flags, files and metrics
    region: str | tuple[int, ...]
    """Points that its boxes are drawn around: a key of `formats.landmarks.REGIONS`, or rows of the 543."""
    scale: str | float
    """Side of a box over the extent of its points: a field of `extract.settings.BoxConfig`, or a number."""
    min_extent: float  # least extent of the points, in half shoulder distances: a fist is a hand of the same size
    coverage: str  # field of `contract.settings.CoverageConfig` with the least share of frames that show it
    side: Literal["left", "right"] | None
    """The signer's own side. Such a stream is never flipped: it would become the other side."""
    backbone_key: str  # its backbone among the settings of multistream v9; ``--<backbone-key>`` is the flag
    pretrain_script: str  # script that pretrains it
    true_shape: str | None = None  # what the demo corpus's ground truth names of it in each frame, if anything

    @property
    def true_labels(self) -> str | None:
        """The setting of a judge, or of ``monitor.labels``, that asks for its true shapes."""
        return None if self.true_shape is None else f"{self.true_shape}s"

    @property
    def backbone_flag(self) -> str:
        return f"--{self.backbone_key.replace('_', '-')}"


TABLE = (
    Stream(
        "face",
        region="face",
        scale="face_scale",
        min_extent=0.0,
        coverage="min_face_ratio",
        side=None,
        backbone_key="face_backbone",
        pretrain_script="pretrain_dino_face.py",
        true_shape="mouth",
    ),
    Stream(
        "hand_l",
        region="hand_l",
        scale="hand_scale",
        min_extent=0.75,
        coverage="min_hand_ratio",
        side="left",
        backbone_key="hand_left_backbone",
        pretrain_script="pretrain_dino_hands.py",
        true_shape="handshape",
    ),
    Stream(
        "hand_r",
        region="hand_r",
        scale="hand_scale",
        min_extent=0.75,
        coverage="min_hand_ratio",
        side="right",
        backbone_key="hand_right_backbone",
        pretrain_script="pretrain_dino_hands.py",
        true_shape="handshape",
    ),
)
"""The order is an axis of the arrays of `tracks/<video>.npz`: a new stream goes to the end."""

BY_NAME = {stream.name: stream for stream in TABLE}
STREAMS = tuple(BY_NAME)
HAND_STREAMS = tuple(stream.name for stream in TABLE if stream.side)
BACKBONE_KEYS = {stream.name: stream.backbone_key for stream in TABLE}
SIDE_BY_SIDE = tuple(sorted(STREAMS, key=lambda name: {"right": 0, None: 1, "left": 2}[BY_NAME[name].side]))
"""As somebody who faces the signer sees them: the right hand on the left."""

TRUE_LABELS = tuple(sorted({stream.true_labels for stream in TABLE if stream.true_labels}))
"""What a judge, or ``monitor.labels``, can ask the demo corpus for."""

HANDS = "hands"
"""What one pretraining of both hands is called, where a stream is named: right ones as they are, left ones mirrored."""
MIRRORED_IN_HANDS = tuple(name for name in HAND_STREAMS if BY_NAME[name].side == "left")

if TYPE_CHECKING:
    StreamName = str
    PretrainedName = str
else:
    StreamName = Literal[STREAMS]
    """A setting that names a stream."""
    PretrainedName = Literal[(*STREAMS, HANDS)]
    """A setting that names what one run pretrains."""


def pretrain_script(name: str) -> str:
    """Script that pretrains a stream, or both hands."""
    return BY_NAME[HAND_STREAMS[0] if name == HANDS else name].pretrain_script


def pretrained_by(script: str) -> tuple[str, ...]:
    """Streams that a script pretrains, and both hands in one."""
    return tuple(name for name in (*STREAMS, HANDS) if pretrain_script(name) == script)


class BoxState(IntEnum):
    """Where the box of a stream in a frame comes from."""

    MISSING = 0  # no box, no crop
    DETECTED = 1  # around the landmarks of the stream's own detector
    TRACKED = 2  # around the body pose's wrist or face points, where the finer detector has nothing
    FILLED = 3  # interpolated over a short gap
