"""Signing space against a slow readable version, and what it should not depend on."""

from __future__ import annotations

import statistics
import tracemalloc

import numpy as np
import pytest

from signstreams.extract.signing_space import head_unit_px, signing_space
from signstreams.formats.landmarks import NUM_POSE, POSE_NAMES

WIDTH, HEIGHT = 640, 360


def random_pose(seed: int, num_frames: int = 12) -> np.ndarray:
    """(T, 33, 3) people of about one size, with frames and single points missing."""
    rng = np.random.default_rng(seed)
    pose = rng.uniform(0.1, 0.9, (num_frames, NUM_POSE, 3)).astype(np.float32)
    pose[:, POSE_NAMES.index("left_shoulder"), :2] = rng.normal((0.6, 0.5), 0.01, (num_frames, 2))
    pose[:, POSE_NAMES.index("right_shoulder"), :2] = rng.normal((0.4, 0.5), 0.01, (num_frames, 2))
    pose[rng.random((num_frames, NUM_POSE)) < 0.05] = (-1, -1, 0)
    pose[3] = (-1, -1, 0)
    return pose


def slow(pose: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Frame by frame, point by point, by name."""
    frames = [dict(zip(POSE_NAMES, frame, strict=True)) for frame in pose.astype(float)]

    def px(point: np.ndarray) -> tuple[float, float]:
        return point[0] * width_px, point[1] * height_px

    halves = []
    for frame in frames:
        left, right = frame["left_shoulder"], frame["right_shoulder"]
        if left[2] >= 0.5 and right[2] >= 0.5:
            (x0, y0), (x1, y1) = px(left), px(right)
            halves.append(((x0 - x1) ** 2 + (y0 - y1) ** 2) ** 0.5 / 2)
    unit = statistics.median(halves)
    rows = []
    for frame in frames:
        row = []
        has_face = all(frame[name][2] > 0 for name in ("nose", "left_eye", "right_eye"))
        for name in POSE_NAMES:
            if not has_face or frame[name][2] == 0:
                row += [-1.0, -1.0, 0.0]
                continue
            x, y = px(frame[name])
            centre_x = px(frame["nose"])[0]
            top = (px(frame["left_eye"])[1] + px(frame["right_eye"])[1]) / 2 - unit / 2
            row += [
                min(1.0, max(0.0, (x - centre_x) / (6 * unit) + 0.5)),
                min(1.0, max(0.0, (y - top) / (7 * unit))),
                frame[name][2],
            ]
        rows.append(row)
    return np.array(rows, np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_slow_version(seed: int) -> None:
    pose = random_pose(seed)
    result = signing_space(pose, WIDTH, HEIGHT)
    assert result.shape == (12, 99) and result.dtype == np.float32
    np.testing.assert_allclose(result, slow(pose, WIDTH, HEIGHT), atol=1e-5)


def test_camera_distance_and_place_do_not_matter() -> None:
    pose = random_pose(0)
    moved = pose.copy()
    found = pose[..., 2] > 0
    moved[found, :2] = pose[found, :2] * 0.5 + (0.3, 0.1)
    np.testing.assert_allclose(signing_space(moved, WIDTH, HEIGHT), signing_space(pose, WIDTH, HEIGHT), atol=1e-5)


def test_the_frames_shape_does_not_matter() -> None:
    pose = random_pose(0)
    padded = pose.copy()
    found = pose[..., 2] > 0
    padded[found, 0] = pose[found, 0] / 2  # the same pixels, in a frame twice as wide
    np.testing.assert_allclose(signing_space(padded, 2 * WIDTH, HEIGHT), signing_space(pose, WIDTH, HEIGHT), atol=1e-5)


def test_the_nose_is_in_the_middle_and_shoulders_are_a_third_of_the_width_apart() -> None:
    pose = np.full((5, NUM_POSE, 3), 0.9, np.float32)
    for name, place in {
        "nose": (0.5, 0.3),
        "left_eye": (0.52, 0.26),
        "right_eye": (0.48, 0.26),
        "left_shoulder": (0.6, 0.5),
        "right_shoulder": (0.4, 0.5),
    }.items():
        pose[:, POSE_NAMES.index(name), :2] = place
    points = signing_space(pose, WIDTH, HEIGHT).reshape(5, NUM_POSE, 3)
    assert points[:, 0, 0] == pytest.approx(0.5)
    left, right = points[0, 11], points[0, 12]
    assert left[0] - right[0] == pytest.approx(1 / 3, abs=1e-5)
    assert points[0, POSE_NAMES.index("left_eye"), 1] == pytest.approx(0.5 / 7, abs=1e-5)


def test_guessed_shoulders_count_only_when_none_is_visible() -> None:
    pose = np.full((3, NUM_POSE, 3), 0.1, np.float32)
    pose[:, 11, :2], pose[:, 12, :2] = (0.6, 0.5), (0.4, 0.5)
    assert head_unit_px(pose, 100, 100) == pytest.approx(10)
    pose[0, [11, 12], 2] = 0.9
    pose[0, 11, 0] = 0.8
    assert head_unit_px(pose, 100, 100) == pytest.approx(20)


def test_without_shoulders_or_face_everything_is_missing() -> None:
    pose = random_pose(1)
    pose[:, [11, 12]] = (-1, -1, 0)
    assert (signing_space(pose, WIDTH, HEIGHT).reshape(-1, 3) == (-1, -1, 0)).all()
    assert signing_space(np.empty((0, NUM_POSE, 3), np.float32), 1, 1).shape == (0, 99)


def test_blocks_and_a_place_for_the_result_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pose = random_pose(1, 50)
    whole = signing_space(pose, WIDTH, HEIGHT)
    monkeypatch.setattr("signstreams.extract.signing_space._BLOCK_FRAMES", 7)
    assert signing_space(pose, WIDTH, HEIGHT).tobytes() == whole.tobytes()
    result = signing_space(pose, WIDTH, HEIGHT, out=pose)
    assert np.shares_memory(result, pose) and result.tobytes() == whole.tobytes()


def test_a_long_video_takes_little_memory_beyond_its_points() -> None:
    pose = np.tile(random_pose(2, 100), (300, 1, 1))
    tracemalloc.start()
    signing_space(pose, WIDTH, HEIGHT, out=pose)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * pose.nbytes
