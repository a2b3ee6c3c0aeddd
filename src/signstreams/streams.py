"""The image streams, and how a box of one came about."""

from __future__ import annotations

from enum import IntEnum

FACE = "face"
HAND_L = "hand_l"
HAND_R = "hand_r"
HAND_STREAMS = (HAND_L, HAND_R)
"""Anatomical sides: ``hand_l`` is the signer's own left hand. Side-specific, so never flipped in augmentation."""
STREAMS = (FACE, *HAND_STREAMS)

BACKBONE_KEYS = {FACE: "face_backbone", HAND_L: "hand_left_backbone", HAND_R: "hand_right_backbone"}


class BoxState(IntEnum):
    """Where the box of a stream in a frame comes from."""

    MISSING = 0
    """No box, no crop."""
    DETECTED = 1
    """Around the landmarks of the stream's own detector."""
    TRACKED = 2
    """Around the body pose's wrist or face points, where the finer detector has nothing."""
    FILLED = 3
    """Interpolated over a short gap."""
