"""Frames through a detector (order, in flight, every k-th frame), and hands assigned to the person's wrists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signstreams.extract.detectors import WRISTS, DetectorKind, assign_hands, detections, missing_keypoints
from signstreams.extract.frame_source import Timed, sample_at_rate, within
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.landmarks import HAND_L, HAND_R, POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import BoxState

IMAGE = np.zeros((4, 4, 3), np.uint8)


def frames(num_frames: int, repeats: tuple[int, ...] = ()) -> list[Frame]:
    return [Frame(index / 10, IMAGE, index in repeats, index) for index in range(num_frames)]


class Clock:
    """Gives every point the time of the frame; the right hand is there in the first half second only."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def detect(self, frame: Frame) -> np.ndarray:
        self.asked.append(frame.source_index)
        keypoints = missing_keypoints()
        keypoints[:] = (frame.time_s, -frame.time_s, 1.0)
        if frame.time_s > 0.5:
            keypoints[HAND_R] = (-1, -1, 0)
        return keypoints


class Conveyor(Clock):
    """The same, several frames in flight."""

    def __init__(self, max_in_flight: int) -> None:
        super().__init__()
        self.max_in_flight = max_in_flight
        self.most = 0
        self._ready: deque[np.ndarray] = deque()

    def submit(self, frame: Frame) -> None:
        self._ready.append(self.detect(frame))
        self.most = max(self.most, len(self._ready))

    def collect(self) -> np.ndarray:
        return self._ready.popleft()


class Numbers(Conveyor):
    """Gives every point the number of the frame in the source."""

    def detect(self, frame: Frame) -> np.ndarray:
        self.asked.append(frame.source_index)
        return np.full((543, 3), (frame.source_index, 0.0, 1.0), np.float32)


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 10])
@pytest.mark.parametrize("num_frames", [0, 1, 2, 7, 12])
def test_every_frame_comes_once_in_order_with_its_points(num_frames: int, stride: int, depth: int) -> None:
    detector = Conveyor(depth) if depth else Clock()
    found = list(detections(detector, frames(num_frames), stride))
    assert [detection.frame.source_index for detection in found] == list(range(num_frames))
    for detection in found:
        assert np.allclose(detection.keypoints[POSE], (detection.frame.time_s, -detection.frame.time_s, 1))
        assert detection.is_interpolated == (detection.frame.source_index not in detector.asked)
    expected = sorted({*range(0, num_frames, stride), *([num_frames - 1] if num_frames else [])})
    assert detector.asked == expected
    if depth:
        assert detector.most == min(depth, len(expected))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_repeated_frame_is_not_looked_at_again(depth: int) -> None:
    detector = Conveyor(depth)
    found = list(detections(detector, frames(8, repeats=(1, 2, 5, 7))))
    assert detector.asked == [0, 3, 4, 6]
    assert [round(d.keypoints[0, 0] * 10) for d in found] == [0, 0, 0, 3, 4, 4, 6, 6]
    assert not any(d.is_interpolated for d in found)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("fps", [23, 24, 25, 30, 48, 50, 120])
def test_a_repeat_has_the_points_of_what_it_shows(fps: int, stride: int, depth: int) -> None:
    """A source of 24 Hz read in spans, with a still picture from 4 to 20 s: across a gap between two spans."""
    source = [Timed(start_s + index / 24, 1 / 24, (index, None)) for start_s in (0, 20) for index in range(97)]
    sampled = within(sample_at_rate(source, fps, 24.0), [(0.5, 5.0), (6.0, 6.3), (20.5, 24.0)])
    read = [Frame(item.time_s, IMAGE, item.is_repeat, item.payload[0]) for item in sampled]
    detector = Numbers(depth)
    found = list(detections(detector, read, stride))
    assert [detection.frame for detection in found] == read
    assert all(d.is_interpolated or d.keypoints[0, 0] == d.frame.source_index for d in found)
    assert all(abs(d.keypoints[0, 0] - d.frame.source_index) <= 1.01 for d in found)
    num_new = sum(not frame.is_repeat for frame in read)
    assert num_new / stride <= len(detector.asked) <= num_new / stride + 4


def test_a_part_that_is_there_on_one_side_only_is_not_made_up() -> None:
    found = list(detections(Clock(), frames(9), 4))  # asked at 0, 0.4, 0.8
    assert (found[2].keypoints[HAND_R, 2] == 1).all()
    assert (found[6].keypoints[HAND_R] == (-1, -1, 0)).all()
    assert (found[6].keypoints[HAND_L, 2] == 1).all()


def test_nothing_is_interpolated_across_a_jump_in_time() -> None:
    for jump_at, asked in ((6, [0, 4, 5, 6, 10]), (5, [0, 4, 5, 9, 10])):
        read = [Frame(index / 10 + 5 * (index >= jump_at), IMAGE, False, index) for index in range(11)]
        detector = Clock()
        found = list(detections(detector, read, 4))
        assert detector.asked == asked
        assert [detection.frame.source_index for detection in found] == list(range(11))
        assert all(np.allclose(d.keypoints[POSE, 0], d.frame.time_s) for d in found)


def test_frames_between_have_filled_boxes(make_video: Callable, tmp_path: Path, discs: DetectorKind) -> None:
    path = make_video("v.mp4", 13)
    config = ExtractConfig(videos=[path], root=tmp_path / "c", tracker={"stride": 3})
    layout = CorpusLayout(config.root)
    extract_video(VideoJob(VideoSource.at(path), config, discs))
    tracks = read_tracks(layout.tracks("v"))
    looked_at = [0, 3, 6, 9, 12]
    for track in tracks.streams.values():
        detected = np.flatnonzero(track.state == BoxState.DETECTED).tolist()
        assert detected == looked_at
        assert (np.delete(track.state, looked_at) == BoxState.FILLED).all()
    every = ExtractConfig(videos=[path], root=tmp_path / "every")
    extract_video(VideoJob(VideoSource.at(path), every, discs))
    exact = read_tracks(CorpusLayout(every.root).tracks("v"))
    for stream, track in tracks.streams.items():
        assert np.abs(track.box - exact.streams[stream].box).max() < 1.0  # px; the discs move evenly
    assert len(read_keypoints(layout.keypoints("v"))) == 13


# -- Hands

LEFT, RIGHT = (0.7, 0.6), (0.3, 0.6)  # the person's own wrists, as seen facing the camera


def person(left: tuple[float, float] | None, right: tuple[float, float] | None) -> np.ndarray:
    """A body with both wrists, and hands in the detector's slots with their wrists at the given places."""
    keypoints = missing_keypoints()
    keypoints[POSE] = (0.5, 0.3, 0.9)
    for wrist, place in zip(WRISTS, (LEFT, RIGHT), strict=True):
        keypoints[wrist, :2] = place
    for slot, place in ((HAND_L, left), (HAND_R, right)):
        if place is not None:
            keypoints[slot] = (*place, 1.0)
    return keypoints


def is_found(hand: np.ndarray) -> bool:
    return bool((hand[:, 2] > 0).any())


def test_hands_at_their_own_wrists_stay() -> None:
    keypoints = person((0.69, 0.6), (0.31, 0.6))
    assert assign_hands(keypoints, 1.0) is keypoints


def test_a_hand_at_the_other_wrist_moves_to_that_slot() -> None:
    result = assign_hands(person(left=(0.31, 0.6), right=None), 1.0)
    assert not is_found(result[HAND_L])
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_swapped_hands_are_swapped_back() -> None:
    result = assign_hands(person(left=(0.31, 0.6), right=(0.69, 0.6)), 1.0)
    assert result[HAND_L][0] == pytest.approx((0.69, 0.6, 1.0))
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_of_two_detections_on_one_hand_the_stray_one_is_dropped() -> None:
    result = assign_hands(person(left=(0.32, 0.6), right=(0.31, 0.6)), 1.0)
    assert not is_found(result[HAND_L])
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_a_hand_between_the_wrists_keeps_its_name() -> None:
    keypoints = person(left=(0.48, 0.6), right=None)
    assert assign_hands(keypoints, 1.0) is keypoints


def test_without_a_body_the_detectors_naming_stands() -> None:
    keypoints = person(left=(0.31, 0.6), right=None)
    keypoints[POSE] = (-1, -1, 0)
    assert assign_hands(keypoints, 1.0) is keypoints


def test_distances_honour_the_frames_shape() -> None:
    keypoints = person(left=None, right=None)
    keypoints[WRISTS[0], :2], keypoints[WRISTS[1], :2] = (0.5, 0.9), (0.6, 0.5)
    keypoints[HAND_L] = (0.5, 0.6, 1.0)  # in fractions nearer to the right wrist; in a wide frame far from it
    assert is_found(assign_hands(keypoints, 1.0)[HAND_R])
    assert is_found(assign_hands(keypoints, 4.0)[HAND_L])


def test_the_input_is_not_altered() -> None:
    keypoints = person(left=(0.31, 0.6), right=None)
    before = keypoints.copy()
    assign_hands(keypoints, 1.0)
    assert (keypoints == before).all()
