"""The body is found in every frame of a real clip, and faces and hands get boxes from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from signstreams.extract.batch import extract_videos
from signstreams.extract.body_only import BodyOnlyDetector
from signstreams.extract.detectors import VideoContext
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame


def test_hands_follow_from_the_body(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "clips" / "lsat_one_signer_studio.gif"
    config = ExtractConfig(videos=[clip], root=tmp_path, detector="body_only", fps=2)
    found = extract_videos(config).extracted[clip.stem]
    assert found.detector.name == "body_only"
    assert found.num_pose_frames == found.num_frames > 5
    assert found.states["hand_r"]["detected"] == 0 < found.states["hand_r"]["tracked"]


def test_an_empty_frame_is_missing_throughout() -> None:
    video = VideoContext(Path("none.mp4"), "none", 64, 48, 25.0)
    with BodyOnlyDetector(ExtractConfig(videos=[video.path], root=Path("x")), video) as detector:
        keypoints = detector.detect(Frame(0.0, np.zeros((48, 64, 3), np.uint8), False, 0))
    assert keypoints.shape == (543, 3) and not keypoints[:, 2].any()
