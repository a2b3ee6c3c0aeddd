"""Read .pose files through sign-language-processing/pose (pose-format), whose import is light: NumPy and tqdm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pose_format import Pose

from signstreams.extract.points_file import PointsError, PointsFile
from signstreams.extract.wholebody import BODY_NAMES, FOOT_NAMES, NUM_WHOLEBODY, W_FACE, W_FEET, W_HAND_L, W_HAND_R
from signstreams.formats.landmarks import FACE, HAND_L, HAND_NAMES, HAND_R, NUM_FACE, NUM_KEYPOINTS, POSE_NAMES

MEDIAPIPE = ("POSE_LANDMARKS", "FACE_LANDMARKS", "LEFT_HAND_LANDMARKS", "RIGHT_HAND_LANDMARKS")
COCO = ("BODY", "FACE", "LEFT_HAND", "RIGHT_HAND")  # AlphaPose appends _133
OPENPOSE = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
FAMILIES = (MEDIAPIPE, COCO, OPENPOSE)


def read_pose_file(path: Path) -> PointsFile:
    """Points of all people; x and y in px of the header's frame, z dropped, confidence 0 where nothing was found.

    Raises:
        PointsError: When pose-format cannot read it, or it holds other components.
        OSError: When it cannot be opened.
    """
    data = path.read_bytes()
    try:
        pose = Pose.read(data)
    except Exception as error:  # struct, Unicode, Value, Zero: whatever random bytes bring about in its reader
        reason = f"{type(error).__name__}: {error}"
        raise PointsError(f"{path}: is no .pose file that pose-format can read ({reason})") from None
    family, targets = _targets(path, pose.header.components)
    num_frames, num_people = pose.body.confidence.shape[:2]
    if 0 in (num_frames, num_people):
        raise PointsError(f"{path}: holds {num_frames} frames of {num_people} people, expected some")
    columns = np.full(NUM_KEYPOINTS if family is MEDIAPIPE else NUM_WHOLEBODY, -1)
    for column, row in enumerate(targets):
        if row is not None:
            columns[row] = column
    size = pose.header.dimensions
    return PointsFile(
        path,
        pose.body.data.data,
        pose.body.confidence,
        columns,
        is_px=True,
        fps=float(pose.body.fps) if pose.body.fps and pose.body.fps > 0 else None,
        size_px=(size.width, size.height) if size.width and size.height else None,
    )


def _targets(path: Path, components: list[Any]) -> tuple[tuple[str, ...], list[int | None]]:
    """Family of the components, and for each point of the file its row among the 543 or 133; None for none."""
    names = [component.name.removesuffix("_133") for component in components]
    family = next((family for family in FAMILIES if family[0] in names), None)
    if family is None:
        known = " or ".join(known[0] for known in FAMILIES)
        raise PointsError(
            f"{path}: holds the components {names}, expected those of MediaPipe Holistic, COCO-WholeBody or OpenPose, "
            f"with a body: {known}"
        )
    targets: list[int | None] = []
    for name, component in zip(names, components, strict=True):
        part = family.index(name) if name in family else None  # POSE_WORLD_LANDMARKS has no place in the frame
        for index, point in enumerate(component.points):
            targets.append(None if part is None else _ROW_OF[family][part](index, str(point)))
    return family, targets


def _holistic_body(index: int, point: str) -> int | None:
    name = point.lower()
    return POSE_NAMES.index(name) if name in POSE_NAMES else None


def _holistic_face(index: int, point: str) -> int | None:
    """Points are named by their number, so that a face reduced to some of them can be told; irises come after 467."""
    return FACE.start + int(point) if point.isdigit() and int(point) < NUM_FACE else None


def _holistic_hand(start: int) -> Any:
    def row(index: int, point: str) -> int | None:
        name = point.lower().replace("_finger_", "_")
        return start + HAND_NAMES.index(name) if name in HAND_NAMES else None

    return row


_COCO_ROWS = {name: index for index, name in enumerate(BODY_NAMES)} | {
    name: index for index, name in enumerate(FOOT_NAMES, W_FEET.start)
}
_OPENPOSE_PARTS = {"BigToe": "big_toe", "SmallToe": "small_toe"}


def _coco_body(index: int, point: str) -> int | None:
    return _COCO_ROWS.get(point)


def _openpose_body(index: int, point: str) -> int | None:
    """LShoulder and the like; neck and the middle of the hips have no row."""
    side = {"L": "left_", "R": "right_"}.get(point[:1], "")
    part = point[1:] if side else point
    return _COCO_ROWS.get(side + _OPENPOSE_PARTS.get(part, part.lower()))


def _in_order(part: slice) -> Any:
    """The same points in the same order; what comes after them (OpenPose's pupils) has no row."""

    def row(index: int, point: str) -> int | None:
        return part.start + index if index < part.stop - part.start else None

    return row


_ROW_OF = {
    MEDIAPIPE: (_holistic_body, _holistic_face, _holistic_hand(HAND_L.start), _holistic_hand(HAND_R.start)),
    COCO: (_coco_body, _in_order(W_FACE), _in_order(W_HAND_L), _in_order(W_HAND_R)),
    OPENPOSE: (_openpose_body, _in_order(W_FACE), _in_order(W_HAND_L), _in_order(W_HAND_R)),
}
