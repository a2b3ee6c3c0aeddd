"""The 79 nodes of MSKA among the 543 points, their four streams, and their coordinates for a model.

Subsets follow MSKA's COCO-WholeBody configuration (sutwangyan/MSKA: configs/phoenix-2014t_s2t.yaml); face points are
the iBUG-68 ones it takes, by their face-mesh number (PeizhiYan/Mediapipe_2_Dlib_Landmarks).
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Flags, Floats
from signstreams.formats.landmarks import HAND_NAMES, KEYPOINT_NAMES

Node = tuple[str, ...]  # name of a point, or the names of several whose mean is the node

_HEAD_ARM = ("nose", "{side}_eye", "{side}_ear", "{side}_shoulder", "{side}_elbow", "{side}_wrist")
_JAW: tuple[Node, ...] = (
    ("face.127",),
    ("face.132", "face.58"),
    ("face.150",),
    ("face.379",),
    ("face.361",),
    ("face.356",),
)
_BROWS, _NOSE, _EYES = (63, 66, 296, 293), (4, 2), (33, 133, 362, 263)
_MOUTH = (61, 39, 37, 0, 267, 269, 291, 314, 17, 84)  # upper lip from the right corner, then lower lip


def _side(side: str, hand: str) -> tuple[Node, ...]:
    arm = tuple((f"pose.{name.format(side=side)}",) for name in _HEAD_ARM)
    return arm + tuple((f"{hand}.{name}",) for name in HAND_NAMES)


LEFT_NODES = _side("left", "hand_l")
RIGHT_NODES = _side("right", "hand_r")
FACE_NODES = _JAW + tuple((f"face.{index}",) for index in (*_BROWS, *_NOSE, *_EYES, *_MOUTH))
BODY_NODES = tuple(dict.fromkeys(LEFT_NODES + RIGHT_NODES + FACE_NODES))
"""Union of the other three; the nose, which left and right share, occurs once."""

STREAM_NODES: dict[str, tuple[Node, ...]] = {
    "left": LEFT_NODES,
    "right": RIGHT_NODES,
    "face": FACE_NODES,
    "body": BODY_NODES,
}
NODE_STREAMS = tuple(STREAM_NODES)
NUM_NODES = len(BODY_NODES)
STREAM_INDICES: dict[str, tuple[int, ...]] = {
    stream: tuple(BODY_NODES.index(node) for node in nodes) for stream, nodes in STREAM_NODES.items()
}
"""Stream to the rows of its nodes among the 79."""
HAND_ROOTS = {"left": "hand_l.wrist", "right": "hand_r.wrist"}

_INDEX = {name: index for index, name in enumerate(KEYPOINT_NAMES)}
_FIRST = np.array([_INDEX[node[0]] for node in BODY_NODES])
_LAST = np.array([_INDEX[node[-1]] for node in BODY_NODES])  # equal to _FIRST but for a mean of two
_SHOULDERS = [BODY_NODES.index((f"pose.{side}_shoulder",)) for side in ("left", "right")]

UNITS = 3.0  # half shoulder widths in a coordinate of 1: half the width of the signing space
MIN_UNIT_PX = 1.0


def gather_nodes(keypoints: Floats) -> Floats:
    """Select the 79 nodes, (T, 79, 3) float32, from the points of a video, (T, 543, 3), in the same units.

    These are x and y as fractions of the frame, and confidence; missing points are (-1, -1, 0). A mean of two points is
    missing unless both are present.
    """
    first, last = keypoints[:, _FIRST], keypoints[:, _LAST]  # (T, 79, 3)
    nodes = (first + last) / 2
    nodes[..., 2] = np.minimum(first[..., 2], last[..., 2])
    return np.where(nodes[..., 2:] > 0, nodes, np.array((-1, -1, 0), nodes.dtype)).astype(np.float32, copy=False)


def place_nodes(gathered: Floats, width_px: int, height_px: int) -> Floats:
    """Centre the nodes of a clip between the shoulders and scale them by the shoulder width.

    Centre and scale are medians over the clip: a scale per frame would add jitter. Where no frame has both shoulders,
    the median and the spread of all points are used. Of (T, 79, 3) from `gather_nodes` it makes (T, 79, 3) float32: x
    right, y down, in units of three half shoulder widths; confidence. Missing: all zero.
    """
    nodes = gathered.astype(np.float64)
    points_px = nodes[..., :2] * np.array([width_px, height_px], dtype=np.float64)  # (T, 79, 2)
    present = nodes[..., 2] > 0  # (T, 79)
    centre_px, unit_px = _frame_of_reference(points_px, present, (width_px, height_px))
    nodes[..., :2] = (points_px - centre_px) / (UNITS * unit_px)
    return np.where(present[..., None], nodes, 0.0).astype(np.float32)


def _frame_of_reference(points_px: Floats, present: Flags, size_px: tuple[int, int]) -> tuple[Floats, float]:
    """Centre (2,) and half shoulder width, in px, of nodes (T, 79, 2) of which some are present (T, 79)."""
    both = present[:, _SHOULDERS].all(axis=1)
    if both.any():
        places_px = points_px[both][:, _SHOULDERS]  # (T', 2, 2)
        centre_px = np.median(places_px.mean(axis=1), axis=0)
        unit_px = float(np.median(np.linalg.norm(places_px[:, 0] - places_px[:, 1], axis=-1))) / 2
    elif present.any():
        present_px = points_px[present]
        centre_px = np.median(present_px, axis=0)
        unit_px = float(np.median(np.linalg.norm(present_px - centre_px, axis=-1)))
    else:
        return np.array(size_px, dtype=np.float64) / 2, float(size_px[0])
    return centre_px, max(unit_px, MIN_UNIT_PX)


def stream_node_names() -> dict[str, list[str]]:
    """Stream to the names of its nodes, in order; recorded with a run."""
    return {stream: ["+".join(node) for node in nodes] for stream, nodes in STREAM_NODES.items()}
