"""133 points of COCO-WholeBody as 543: every point where it belongs, boxes as from all points."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.extract.frame_boxes import Observation, corners, observe
from signstreams.extract.points_file import SOURCE_ROWS, TARGET_ROWS, W_FACE, W_HAND_L, W_HAND_R, from_wholebody
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.arrays import read_keypoints
from signstreams.formats.landmarks import (
    EYE_L,
    EYE_R,
    FACE,
    HAND_L,
    HAND_R,
    IBUG_68,
    JAW,
    KEYPOINT_NAMES,
    LIPS,
    MISSING,
    NUM_POSE,
    pose_index,
)
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import STREAMS

BOXES = ExtractConfig(videos=["v.mp4"], root="c").boxes


def subset(keypoints: np.ndarray) -> np.ndarray:
    """(..., 133, 3) of (..., 543, 3)."""
    points = np.zeros((*keypoints.shape[:-2], 133, 3), np.float32)
    points[..., SOURCE_ROWS, :] = keypoints[..., TARGET_ROWS, :]
    return points


@pytest.fixture(scope="module")
def detected(real_clips: CorpusLayout) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(T, 543, 3) and frame size on real clips, by name."""
    found = {}
    for name in ("lsat_one_signer_studio", "lsat_one_signer_outdoor"):
        metadata = read_metadata(real_clips.metadata(name))
        size = np.array([metadata.width_px, metadata.height_px])
        found[name] = read_keypoints(real_clips.keypoints(name)), size
    return found


def test_every_point_has_its_own_row_and_says_the_same_place() -> None:
    points = np.zeros((133, 3), np.float32)
    points[:, 0], points[:, 2] = np.arange(133), 1
    result = from_wholebody(points)
    at = {name: result[row, 0] for row, name in enumerate(KEYPOINT_NAMES) if result[row, 2] > 0}
    assert len(at) == 133 - 2  # the small toes
    # jin-s13/COCO-WholeBody, by eye
    for name, index in {
        "pose.nose": 0, "pose.left_eye": 1, "pose.right_eye": 2, "pose.left_ear": 3, "pose.right_ear": 4,
        "pose.left_shoulder": 5, "pose.right_shoulder": 6, "pose.left_elbow": 7, "pose.right_elbow": 8,
        "pose.left_wrist": 9, "pose.right_wrist": 10, "pose.left_hip": 11, "pose.right_hip": 12, "pose.left_knee": 13,
        "pose.right_knee": 14, "pose.left_ankle": 15, "pose.right_ankle": 16, "pose.left_foot_index": 17,
        "pose.left_heel": 19, "pose.right_foot_index": 20, "pose.right_heel": 22, "hand_l.wrist": 91,
        "hand_l.thumb_tip": 95, "hand_l.index_tip": 99, "hand_l.pinky_tip": 111, "hand_r.wrist": 112,
        "hand_r.middle_mcp": 121, "hand_r.pinky_tip": 132, "face.152": 23 + 8, "face.4": 23 + 30,
    }.items():  # fmt: skip
        assert at[name] == index
    assert (result[result[:, 2] == 0] == MISSING).all()
    assert result.dtype == np.float32


def test_the_68_face_points_are_68_rows_that_mirror_each_other() -> None:
    assert len(set(IBUG_68.tolist())) == 68
    mirrored = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
    mirrored += [39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert sorted(mirrored) == list(range(68)) and [mirrored[m] for m in mirrored] == list(range(68))
    # Mirror images in the mesh: the same side never twice, the middle its own image.
    middle = [point for point in range(68) if mirrored[point] == point]
    assert IBUG_68[middle].tolist() == [152, 168, 197, 5, 4, 2, 0, 17, 13, 14]


def test_the_68_points_of_real_faces_lie_as_ibug_numbers_them(detected: dict) -> None:
    """Sides are the person's: point 0 at the right ear, which is on the left of the picture."""
    for points, size in detected.values():
        face = points[:, FACE, :2][:, IBUG_68] * size
        x, y = np.median(face, axis=0).T
        # The jaw, from right to left over the chin; beside the ears it goes straight down.
        assert (np.diff(x[:17])[3:-3] > 0).all() and y[:17].argmax() == 8
        assert (np.diff(x[17:27]) > 0).all()  # brows
        assert (np.diff(y[27:31]) > 0).all() and (np.diff(x[31:36]) > 0).all()  # down the nose, and along it
        assert x[36] < x[39] < x[42] < x[45]  # corners of the eyes
        assert y[37] < y[41] and y[38] < y[40] and y[43] < y[47] and y[44] < y[46]  # lids
        assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all()  # lips, above and back below
        assert y[51] < y[62] < y[66] < y[57]
        right_eye, left_eye = (points[:, pose_index(f"{side}_eye"), :2] * size for side in ("right", "left"))
        for rows, own, other in ((EYE_R, right_eye, left_eye), (EYE_L, left_eye, right_eye)):
            centre = points[:, FACE, :2][:, list(rows)].mean(axis=1) * size
            assert (np.linalg.norm(centre - own, axis=-1) < np.linalg.norm(centre - other, axis=-1)).all()
    assert len(JAW) == 17 and len(LIPS) == 12


def test_boxes_from_133_points_equal_those_from_543(detected: dict) -> None:
    for points, size in detected.values():
        of_all = stacked([observe(frame, *size, BOXES) for frame in points])
        of_some = stacked([observe(frame, *size, BOXES) for frame in from_wholebody(subset(points))])
        for stream, least in zip(STREAMS, (0.93, 0.999, 0.999), strict=True):
            index = STREAMS.index(stream)
            known = ~np.isnan(of_all.detected[:, index, 0])
            assert known.sum() > 5
            assert np.median(iou(of_all.detected[known, index], of_some.detected[known, index])) >= least
        # Without forehead points the boxes would be a third too small: IoU .7.
        assert iou(of_all.detected[:, 0], of_some.detected[:, 0]).min() > 0.85


def test_boxes_by_the_body_need_no_more_than_the_17_points(detected: dict) -> None:
    for points, size in detected.values():
        bare = points.copy()
        bare[:, NUM_POSE:] = MISSING
        known = stacked([observe(frame, *size, BOXES) for frame in points])
        of_17 = stacked([observe(frame, *size, BOXES) for frame in from_wholebody(subset(bare))])
        assert np.isnan(of_17.detected).all()
        for index, least in enumerate((0.75, 0.5, 0.5)):
            both = ~np.isnan(known.detected[:, index, 0]) & ~np.isnan(of_17.anchored[:, index, 0])
            assert both.sum() > 5
            assert np.median(iou(known.detected[both, index], of_17.anchored[both, index])) > least
            assert (of_17.visibility[both, index] >= BOXES.min_visibility).all()


def test_a_faint_forearm_places_no_hand() -> None:
    points = np.zeros((133, 3), np.float32)
    points[[5, 6, 7, 9]] = [(0.6, 0.5, 0.9), (0.4, 0.5, 0.9), (0.65, 0.7, 0.6), (0.6, 0.6, 0.3)]
    seen = observe(from_wholebody(points), 100, 100, BOXES)
    assert np.isnan(seen.anchored).all() and (seen.visibility == 0).all()
    points[9, 2] = 0.8
    seen = observe(from_wholebody(points), 100, 100, BOXES)
    assert seen.visibility[STREAMS.index("hand_l")] == pytest.approx(0.7)
    x, y, side = seen.anchored[STREAMS.index("hand_l")]
    assert (x, y) == pytest.approx((60 - 0.35 * 5, 60 - 0.35 * 10)) and side > 0  # on from the elbow over the wrist


def test_hands_keep_their_sides() -> None:
    points = np.zeros((133, 3), np.float32)
    points[W_HAND_L], points[W_HAND_R], points[W_FACE] = (0.8, 0.5, 0.9), (0.2, 0.5, 0.8), (0.5, 0.2, 0.7)
    result = from_wholebody(points[None])[0]
    assert (result[HAND_L] == np.float32((0.8, 0.5, 0.9))).all() and (
        result[HAND_R] == np.float32((0.2, 0.5, 0.8))
    ).all()
    assert (result[FACE][:, 2] > 0).sum() == 68


def stacked(seen: list[Observation]) -> Observation:
    return Observation(*(np.array(part) for part in zip(*seen, strict=True)))


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = corners(one), corners(other)
    side = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    inter = side.prod(axis=-1)
    return inter / (one[:, 2] ** 2 + other[:, 2] ** 2 - inter)
