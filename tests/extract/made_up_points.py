"""A made-up person in COCO-WholeBody's 133 points, for tests of points that other tools found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pose_format import Pose, PoseHeader
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeaderDimensions

from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.pipeline import extract_video
from signstreams.extract.points_file import BODY_NAMES, W_FACE, W_HAND_L, W_HAND_R, from_wholebody
from signstreams.extract.precomputed import PRECOMPUTED
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata
from signstreams.formats.video_sources import VideoSource

WIDTH, HEIGHT = 160, 120
BODY = {
    "nose": (80, 30), "left_eye": (86, 24), "right_eye": (74, 24), "left_ear": (93, 26), "right_ear": (67, 26),
    "left_shoulder": (102, 55), "right_shoulder": (58, 55), "left_elbow": (110, 80), "right_elbow": (50, 80),
    "left_hip": (96, 110), "right_hip": (64, 110),
}  # fmt: skip


def person(num_rows: int, *, moves: float = 2.0, x_px: float = 0.0) -> np.ndarray:
    """(T, 133, 3) px and confidence: hands in front of the body, the left one going ``moves`` px right in each row."""
    points = np.zeros((num_rows, 133, 3), np.float32)
    for name, place in BODY.items():
        points[:, BODY_NAMES.index(name)] = (*place, 0.9)
    angle = np.linspace(-np.pi, 0, 17)
    jaw = np.stack([80 + 12 * np.cos(angle), 28 - 15 * np.sin(angle)], -1)  # right ear, chin, left ear
    brows = np.stack([np.linspace(71, 89, 10), np.full(10, 20.0)], -1)
    nose = np.array([(80, y) for y in (24, 26, 28, 30)] + [(76 + 2 * i, 32) for i in range(5)], float)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    eyes = [np.stack([x - 3 * np.cos(turn), 24 - 1 * np.sin(turn)], -1) for x in (74, 86)]
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    mouth = np.stack([80 - 5 * np.cos(turn), 37 - 2 * np.sin(turn)], -1)
    points[:, W_FACE] = np.concatenate([np.concatenate([jaw, brows, nose, *eyes, mouth]), np.full((68, 1), 0.8)], -1)
    grid = np.array([(0.0, 8.0)] + [(-6 + 3 * f, 3.0 - 3 * j) for f in range(5) for j in range(4)])
    for part, name, start in ((W_HAND_L, "left_wrist", (105, 70)), (W_HAND_R, "right_wrist", (55, 70))):
        for row in range(num_rows):
            hand = grid + start + ((moves * row % 30, 0) if part is W_HAND_L else (0, 0))
            points[row, part, :2], points[row, part, 2] = hand, 0.7
            points[row, BODY_NAMES.index(name)] = (*hand[0], 0.9)
    points[..., 0] += x_px
    return points


def mediapipe(points: np.ndarray) -> np.ndarray:
    """(T, 543, 3) fractions of the same person, as a file of MediaPipe points."""
    points = points.copy()
    missing = points[..., 2] == 0
    points[..., :2] /= (WIDTH, HEIGHT)
    points[missing] = (-1, -1, 0)
    return from_wholebody(points)


def extracted(
    path: Path,
    tmp_path: Path,
    save: Callable[[Path], object],
    *,
    annotations: VideoAnnotations = NOT_ANNOTATED,
    **settings: object,
) -> tuple[VideoMetadata, CorpusLayout]:
    """Let ``save(folder)`` write the points of a video, and extract it with them."""
    folder = tmp_path / "points"
    folder.mkdir(exist_ok=True)
    save(folder)
    points = {"folder": folder, **settings.pop("precomputed", {})}
    config = ExtractConfig(
        videos=[path], root=tmp_path / "corpus", detector="precomputed", precomputed=points, **settings
    )
    job = VideoJob(VideoSource.at(path), config, PRECOMPUTED, annotations)
    return extract_video(job), job.layout


def write_pose(path: Path, components: list, points: np.ndarray) -> None:
    """A .pose file of (T, P, points, x y [z] confidence)."""
    header = PoseHeader(0.2, PoseHeaderDimensions(WIDTH, HEIGHT, 0), components)
    body = NumPyPoseBody(30.0, points[..., :-1].astype(np.float32), points[..., -1].astype(np.float32))
    with path.open("wb") as file:
        Pose(header, body).write(file)
