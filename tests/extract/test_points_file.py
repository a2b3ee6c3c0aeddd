"""Points from .pose files: Holistic, COCO-WholeBody, OpenPose; nothing heavy comes with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pose_format.pose_header import PoseHeaderComponent
from pose_format.utils.cocowholebody133_header import cocowholebody_components
from pose_format.utils.openpose import OpenPose_Components

from signstreams.formats.arrays import read_keypoints
from signstreams.formats.landmarks import FACE, HAND_L, HAND_NAMES, POSE_NAMES
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata

from .made_up_points import HEIGHT, WIDTH, extracted, mediapipe, person, write_pose

T = 12
PX = person(T)


@pytest.fixture
def extract(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[..., tuple[VideoMetadata, CorpusLayout]]:
    """``extract(save)`` makes a video, lets ``save(folder)`` write its points, and extracts it."""
    return partial(extracted, make_video(num_frames=T), tmp_path)


def holistic_components(face: list[int]) -> list[PoseHeaderComponent]:
    hand = [name.upper().replace("_", "_FINGER_").replace("THUMB_FINGER", "THUMB") for name in HAND_NAMES]
    return [
        PoseHeaderComponent(name, points, [], [], "XYZC")
        for name, points in (
            ("POSE_LANDMARKS", [name.upper() for name in POSE_NAMES]),
            ("FACE_LANDMARKS", [str(row) for row in face]),
            ("LEFT_HAND_LANDMARKS", hand),
            ("RIGHT_HAND_LANDMARKS", hand),
            ("POSE_WORLD_LANDMARKS", [name.upper() for name in POSE_NAMES]),
        )
    ]


def holistic_points(face: list[int]) -> np.ndarray:
    """(T, 1, points, 4) as pose-format's estimator writes them: px, zeros where missing, world landmarks last."""
    points = mediapipe(PX)
    rows = [*range(33), *(FACE.start + row for row in face if row < 468)]
    parts = [points[:, rows], np.zeros((T, len([r for r in face if r >= 468]), 3)), points[:, HAND_L.start :]]
    parts.append(np.full((T, 33, 3), 0.5))
    joined = np.concatenate(parts, axis=1)
    joined[joined[..., 2] == 0] = 0
    xyzc = np.concatenate(
        [joined[..., :2] * (WIDTH, HEIGHT), np.full((*joined.shape[:2], 1), -0.3), joined[..., 2:]], -1
    )
    return xyzc[:, None]


@pytest.mark.parametrize("num_face", [468, 478])
def test_pose_files_of_holistic(extract: Callable, num_face: int) -> None:
    face = list(range(num_face))
    metadata, layout = extract(lambda f: write_pose(f / "video.pose", holistic_components(face), holistic_points(face)))
    assert (metadata.status, metadata.reason, metadata.note) == ("ok", None, None)
    points = read_keypoints(layout.keypoints("video"))
    assert np.allclose(points, mediapipe(PX), atol=1e-4)


def test_pose_files_with_a_reduced_face_keep_the_rows_by_name(extract: Callable) -> None:
    face = [4, 10, 33, 61, 127, 152, 263, 291, 356]
    metadata, layout = extract(lambda f: write_pose(f / "video.pose", holistic_components(face), holistic_points(face)))
    assert metadata.status == "ok"
    points = read_keypoints(layout.keypoints("video"))
    present = np.flatnonzero(points[0, FACE, 2] > 0).tolist()
    assert present == [row for row in face if row != 10]  # the made-up person has no forehead
    assert np.allclose(points[:, FACE][:, present], mediapipe(PX)[:, FACE][:, present], atol=1e-4)


def test_pose_files_of_wholebody_and_openpose(extract: Callable) -> None:
    metadata, layout = extract(lambda f: write_pose(f / "video.pose", cocowholebody_components(), PX[:, None]))
    assert metadata.status == "ok"
    assert np.allclose(read_keypoints(layout.keypoints("video")), mediapipe(PX), atol=1e-4)
    body = np.zeros((T, 25, 3))
    names = OpenPose_Components[0].points
    order = "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip"
    for index, name in enumerate(order.split()):
        body[:, names.index(name)] = PX[:, index]
    pupils = np.full((T, 2, 3), 0.5)
    points = np.concatenate([body, PX[:, 23:91], pupils, PX[:, 91:]], axis=1)[:, None]
    metadata, layout = extract(lambda f: write_pose(f / "video.pose", OpenPose_Components, points))
    assert metadata.status == "ok"
    assert np.allclose(read_keypoints(layout.keypoints("video")), mediapipe(PX), atol=1e-4)


def test_pose_format_is_imported_for_its_files_only_and_brings_nothing_heavy(tmp_path: Path) -> None:
    write_pose(tmp_path / "video.pose", cocowholebody_components(), PX[:, None])
    np.save(tmp_path / "video.npy", PX)
    code = (
        "import sys\nfrom pathlib import Path\nimport signstreams.extract.batch\n"
        "from signstreams.extract.points_file import read_points\n"
        "folder = Path(sys.argv[1])\nread_points(folder / 'video.npy')\nprint('pose_format' in sys.modules)\n"
        "print(read_points(folder / 'video.pose').take(slice(None))[0].shape, 'pose_format' in sys.modules)\n"
        "print({'torch', 'tensorflow', 'mediapipe', 'matplotlib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n(12, 1, 133, 2) True\nset()\n", "")
