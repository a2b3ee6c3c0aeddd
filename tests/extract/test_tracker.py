"""The tracker as a detector: frames by the window, each once and in order; what it does with results of before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.extract import tracker
from signstreams.extract.batch import extract_videos, summary
from signstreams.extract.detectors import DetectorKind, VideoContext, detections
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.tracker import TrackerDetector, window_frames
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import HAND_L, HAND_R, INTERPOLATED, POSE
from signstreams.formats.video_metadata import DetectorInfo
from signstreams.tracker.hands import Hands, no_hands

WIDTH, HEIGHT = 64, 48


class Numbers:
    """Stands in for body, face and hands: a frame's first pixel is its number, and everything is found there."""

    most_held = 0

    def __init__(self, engine: object) -> None:
        self.starts: list[int] = []

    def track(self, frames: list[np.ndarray], heads: np.ndarray) -> np.ndarray:
        numbers = np.array([frame[0, 0, 0] for frame in frames], float)
        return np.tile(numbers[:, None, None], (1, 33, 4))

    def find(self, frames: list[np.ndarray], *rest: Any) -> Any:
        if len(rest) == 1:  # a face is missing throughout
            return np.full((len(frames), 468, 2), np.nan)
        times_s, body, known = rest
        type(self).most_held = max(type(self).most_held, len(frames))
        assert len(frames) == len(times_s) == len(body)
        hands = no_hands(len(frames))
        hands.points[:] = np.array([frame[0, 0, 0] for frame in frames], float)[:, None, None, None]
        hands.confidence[:] = 0.75
        if known is not None:  # what the window before knew of the frames that it held comes back
            assert np.array_equal(known.points[:, 0, 0, 0], hands.points[: len(known.points), 0, 0, 0])
            assert len(known.points) == 32 // tracker.OVERLAP
        return Hands(*hands)


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrackerDetector]:
    for name in ("BodyTracker", "HandTracker", "FaceMesh"):
        monkeypatch.setattr(tracker, name, Numbers)
    monkeypatch.setattr(tracker, "smoothed", lambda points, times_s: points)
    Numbers.most_held = 0

    def start(**settings: Any) -> TrackerDetector:
        video = VideoContext(Path("v.mp4"), "v", WIDTH, HEIGHT, 25.0)
        return TrackerDetector(None, ExtractConfig(videos=[video.path], root="c", **settings), video)

    return start


def frames(num_frames: int, gap_at: int | None = None) -> list[Frame]:
    images = [np.full((HEIGHT, WIDTH, 3), index, np.uint8) for index in range(num_frames)]
    late = [5.0 if gap_at is not None and index >= gap_at else 0.0 for index in range(num_frames)]
    return [Frame(index / 25 + late[index], image, False, index) for index, image in enumerate(images)]


@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 31, 32, 33, 57, 100])
@pytest.mark.parametrize("gap_at", [None, 20])
def test_every_frame_comes_once_in_order(
    numbered: Callable[..., TrackerDetector], num_frames: int, gap_at: int | None
) -> None:
    with numbered() as detector:
        found = list(detections(detector, frames(num_frames, gap_at)))
    assert [d.frame.source_index for d in found] == list(range(num_frames))
    for index, detection in enumerate(found):
        assert np.allclose(detection.keypoints[POSE, :2] * (WIDTH, HEIGHT), index, atol=1e-4)
        for hand in (HAND_L, HAND_R):
            assert np.allclose(detection.keypoints[hand, :2] * (WIDTH, HEIGHT), index, atol=1e-4)
            assert (detection.keypoints[hand, 2] == np.float32(0.75)).all()
    assert Numbers.most_held <= detector.max_in_flight == 32


def test_frames_held_follow_the_memory_for_them() -> None:
    def held(mib: int, *size_px: int) -> int:
        return window_frames(ExtractConfig(videos=["v.mp4"], root="c", max_buffer_mib=mib), *size_px)

    assert held(256, 640, 480) == 32
    assert held(256, 1920, 1080) == 14
    assert held(256, 3840, 2160) == 4 == held(16, 1920, 1080)
    assert held(512, 1920, 1080) == 28


def test_models_that_are_not_there_are_named_before_any_work(make_video: Callable, tmp_path: Path) -> None:
    config = ExtractConfig(
        videos=[make_video("v.mp4", 3)], root=tmp_path / "c", tracker={"models": tmp_path / "nowhere"}
    )
    with pytest.raises(UserError) as caught:
        extract_videos(config)
    assert len(caught.value.problems) == 7
    for problem in caught.value.problems:
        assert str(tmp_path / "nowhere") in problem and "run `signstreams models`" in problem
    assert not (tmp_path / "c" / "processed").exists()


def test_results_of_holistic_stay_until_they_are_asked_for(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    def named(name: str) -> DetectorKind:
        return discs._replace(info=lambda config, video_id: DetectorInfo(name=name, version="0.10.21"))

    videos = [make_video(f"{name}.mp4", 3) for name in ("a", "b")]
    settings: dict[str, Any] = {"videos": videos, "root": tmp_path / "c", "signer": {"choose": "none"}}
    before = ExtractConfig(**settings, detector="holistic")
    assert len(extract_videos(before, detector=named("mediapipe_holistic")).extracted) == 2
    now = ExtractConfig(**settings)
    outcome = extract_videos(now, detector=named("other"))
    assert (outcome.unchanged, outcome.of_holistic) == (["a", "b"], ["a", "b"])
    assert "2 of these were extracted by MediaPipe Holistic" in summary(outcome, now.root)
    assert "--force" in summary(outcome, now.root)
    # another setting, or the wish: extracted again
    outcome = extract_videos(ExtractConfig(**settings, crop_px=64), detector=named("other"))
    assert len(outcome.extracted) == 2 and not outcome.of_holistic
    extract_videos(before, detector=named("mediapipe_holistic"))
    assert len(extract_videos(now.model_copy(update={"force": True}), detector=named("other")).extracted) == 2
    assert extract_videos(now, detector=named("other")).of_holistic == []


def test_interpolated_points_place_no_box(discs: DetectorKind) -> None:
    from signstreams.extract.detectors import missing_keypoints
    from signstreams.extract.frame_boxes import observe
    from signstreams.streams import STREAMS

    boxes = ExtractConfig(videos=["v.mp4"], root="c").boxes
    keypoints = missing_keypoints()
    keypoints[HAND_L] = [(0.5 + 0.01 * k, 0.5, INTERPOLATED) for k in range(21)]
    keypoints[HAND_R] = [(0.2 + 0.01 * k, 0.5, 0.5) for k in range(21)]
    detected = dict(zip(STREAMS, observe(keypoints, WIDTH, HEIGHT, boxes).detected, strict=True))
    assert np.isnan(detected["hand_l"]).all() and np.isfinite(detected["hand_r"]).all()
