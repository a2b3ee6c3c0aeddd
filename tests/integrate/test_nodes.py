"""Nodes: counts, anatomy, and coordinates that do not depend on where and how large the signer is in the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from signstreams.extract.pipeline import extract_video
from signstreams.extract.points_file import from_wholebody
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.tracker import TRACKER
from signstreams.formats.arrays import read_keypoints
from signstreams.formats.landmarks import HAND_L, KEYPOINT_NAMES, MISSING, NUM_KEYPOINTS
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import VideoSource
from signstreams.integrate.nodes import (
    BODY_NODES,
    FACE_NODES,
    LEFT_NODES,
    NUM_NODES,
    RIGHT_NODES,
    STREAM_INDICES,
    STREAM_NODES,
    gather_nodes,
    place_nodes,
    stream_node_names,
)

LEFT_SHOULDER, RIGHT_SHOULDER = (KEYPOINT_NAMES.index(f"pose.{side}_shoulder") for side in ("left", "right"))


def to_nodes(points: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    return place_nodes(gather_nodes(points), width_px, height_px)


def keypoints(num_frames: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.3, 0.7, (num_frames, NUM_KEYPOINTS, 3)).astype(np.float32)
    points[..., 2] = rng.uniform(0.5, 1, points.shape[:2])
    return points


def test_the_four_streams_have_the_papers_counts() -> None:
    assert [len(nodes) for nodes in STREAM_NODES.values()] == [27, 27, 26, 79]
    assert len(set(BODY_NODES)) == NUM_NODES == 79
    assert set(BODY_NODES) == set(LEFT_NODES) | set(RIGHT_NODES) | set(FACE_NODES)


def test_each_side_has_its_own_arm_and_hand_and_no_leg() -> None:
    left, right = (" ".join(name for node in nodes for name in node) for nodes in (LEFT_NODES, RIGHT_NODES))
    assert "right" not in left and "hand_r" not in left and "pose.left_wrist" in left and "hand_l.pinky_tip" in left
    assert "left" not in right and "hand_l" not in right and "pose.right_elbow" in right and "hand_r.thumb_tip" in right
    assert not any(word in f"{left} {right}" for word in ("hip", "knee", "ankle", "foot", "heel"))
    assert set(LEFT_NODES) & set(RIGHT_NODES) == {("pose.nose",)}


def test_every_node_names_points_that_there_are() -> None:
    for nodes in STREAM_NODES.values():
        assert all(name in KEYPOINT_NAMES for node in nodes for name in node)
    assert stream_node_names()["face"][1] == "face.132+face.58"


def test_the_rows_of_a_stream_lead_back_to_its_nodes() -> None:
    for stream, rows in STREAM_INDICES.items():
        assert tuple(BODY_NODES[row] for row in rows) == STREAM_NODES[stream]


# of the 133 points, as sutwangyan/MSKA takes them (configs/phoenix-2014t_s2g.yaml)
WHOLEBODY = {
    "left": [0, 1, 3, 5, 7, 9, *range(91, 112)],
    "right": [0, 2, 4, 6, 8, 10, *range(112, 133)],
    "face": [23, 26, 29, 33, 36, 39, 41, 43, 46, 48, 53, 56, 59, 62, 65, 68, *range(71, 78), 79, 80, 81],
}


def test_nodes_of_wholebody_points_are_those_of_the_authors_and_none_is_missing() -> None:
    points = np.ones((1, 133, 3), np.float32)
    points[0, :, 0] = np.arange(133)
    nodes = gather_nodes(from_wholebody(points))[0]
    assert (nodes[:, 2] == 1).all()
    between = {26.5: 26}  # the jaw has no landmark of its own there: the mean of the points beside it
    for stream, expected in WHOLEBODY.items():
        found = nodes[list(STREAM_INDICES[stream]), 0].tolist()
        assert sorted(between.get(number, number) for number in found) == expected
    # hands come in their order, from the wrist to the tip of the little finger
    assert nodes[list(STREAM_INDICES["left"][6:]), 0].tolist() == list(range(91, 112))
    assert nodes[list(STREAM_INDICES["right"][6:]), 0].tolist() == list(range(112, 133))


def place(nodes: np.ndarray, name: str) -> np.ndarray:
    """Median place of a node over the frames that have it."""
    found = nodes[:, BODY_NODES.index((name,))]
    return np.median(found[found[:, 2] > 0][:, :2], axis=0)


def test_anatomy_of_a_real_person(shared_data: Path, tmp_path: Path) -> None:
    """Left is at the viewer's right; brows, eyes, nose, mouth and jaw follow from above to below."""
    video = shared_data / "clips" / "lsat_one_signer_studio.gif"
    layout = CorpusLayout(tmp_path)
    found = extract_video(VideoJob(VideoSource.at(video), ExtractConfig(videos=[video], root=tmp_path, fps=5), TRACKER))
    nodes = to_nodes(read_keypoints(layout.keypoints(found.video_id)), found.width_px, found.height_px)
    for part in ("eye", "ear", "shoulder", "elbow"):
        assert place(nodes, f"pose.left_{part}")[0] > place(nodes, f"pose.right_{part}")[0]
    assert place(nodes, "face.263")[0] > place(nodes, "face.33")[0]  # outer corners of the eyes
    assert place(nodes, "face.293")[0] > place(nodes, "face.63")[0]  # brows
    assert place(nodes, "face.291")[0] > place(nodes, "face.61")[0]  # corners of the mouth
    heights = [place(nodes, f"face.{number}")[1] for number in (66, 33, 4, 2, 0, 17, 150)]
    assert heights == sorted(heights)
    assert place(nodes, "pose.nose")[1] < place(nodes, "pose.left_shoulder")[1] < place(nodes, "pose.left_elbow")[1]


def test_shoulders_lie_one_unit_from_the_centre() -> None:
    points = keypoints()
    points[:, LEFT_SHOULDER], points[:, RIGHT_SHOULDER] = (0.7, 0.5, 1), (0.3, 0.5, 1)
    nodes = to_nodes(points, 320, 240)
    left, right = (BODY_NODES.index((f"pose.{side}_shoulder",)) for side in ("left", "right"))
    np.testing.assert_allclose(nodes[:, left, :2], [[1 / 3, 0]] * len(nodes), atol=1e-6)
    np.testing.assert_allclose(nodes[:, right, :2], [[-1 / 3, 0]] * len(nodes), atol=1e-6)


def test_place_size_and_frame_shape_do_not_matter() -> None:
    points = keypoints()
    wider = points.copy()
    wider[..., 0] = (points[..., 0] * 320 * 0.5 + 70) / 640  # the same signer, half as large, in a wider frame
    wider[..., 1] = (points[..., 1] * 240 * 0.5 + 20) / 240
    np.testing.assert_allclose(to_nodes(points, 320, 240), to_nodes(wider, 640, 240), atol=1e-4)


def test_a_missing_point_is_all_zero_and_moves_no_other() -> None:
    points = keypoints()
    lost = points.copy()
    lost[2, HAND_L] = MISSING
    before, after = to_nodes(points, 320, 240), to_nodes(lost, 320, 240)
    hand = [row for row, node in enumerate(BODY_NODES) if node[0].startswith("hand_l.")]
    assert not after[2, hand].any() and before[2, hand].all(axis=-1).any()
    others = [row for row in range(NUM_NODES) if row not in hand]
    np.testing.assert_array_equal(after[:, others], before[:, others])


def test_a_mean_of_two_is_missing_when_one_is() -> None:
    points = keypoints()
    points[:, KEYPOINT_NAMES.index("face.58")] = MISSING
    assert not to_nodes(points, 320, 240)[:, BODY_NODES.index(("face.132", "face.58"))].any()


@pytest.mark.parametrize("everything", [False, True])
def test_a_clip_without_shoulders_still_gives_finite_nodes(everything: bool) -> None:
    points = keypoints()
    points[:, :33] = MISSING
    if everything:
        points[:] = MISSING
    nodes = to_nodes(points, 320, 240)
    assert np.isfinite(nodes).all() and np.abs(nodes).max() < 10
    assert nodes.any() != everything
