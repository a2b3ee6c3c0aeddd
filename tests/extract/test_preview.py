"""The preview picture that is drawn while a video is extracted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.extract import preview as redraw
from signstreams.extract.batch import extract_videos
from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.detectors import DetectorKind, missing_keypoints
from signstreams.extract.preview import (
    FRAME_PX,
    NUM_COLUMNS,
    NUM_TILES,
    STATE_COLOURS,
    Preview,
    draw_skeleton,
)
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import VideoReader
from signstreams.formats.landmarks import HAND_L, HAND_R
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.skeleton import LEFT, RIGHT
from signstreams.streams import BoxState


def grey_frame(index: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    return np.full((size[1], size[0], 3), index % 200 + 20, np.uint8)


def boxes(state: BoxState) -> FrameBoxes:
    place = np.array([[320.0, 100.0, 80.0], [450.0, 300.0, 80.0], [200.0, 300.0, 80.0]])
    return FrameBoxes(place, np.full(3, state, np.uint8), np.ones(3))


def offered(preview: Preview, num_frames: int, state: BoxState = BoxState.DETECTED) -> Preview:
    crops = [None if state == BoxState.MISSING else np.full((112, 112, 3), 200, np.uint8)] * 3
    for index in range(num_frames):
        preview.offer(index / 25, grey_frame(index), missing_keypoints(), boxes(state), crops)
    return preview


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("expected", [None, 5, 100, 1000, 100_000])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 100, 1000])
def test_tiles_spread_over_the_video_for_any_expected_length(num_frames: int, expected: int | None) -> None:
    preview = offered(Preview(expected), num_frames)
    times_s = [kept.time_s for kept in preview._kept]
    assert 1 <= len(times_s) <= 2 * NUM_TILES + 1
    assert times_s[0] == 0 and times_s == sorted(times_s)
    if expected is None or expected <= num_frames:
        assert len(times_s) >= min(NUM_TILES, num_frames)
        assert times_s[-1] >= (num_frames - 1) / 25 * (1 - 1 / NUM_TILES) - 0.05


@pytest.mark.parametrize(("num_frames", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (100, NUM_COLUMNS, 2)])
def test_the_picture_is_a_grid_of_tiles(num_frames: int, columns: int, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "processed" / "preview" / "v.jpg"
    offered(Preview(num_frames), num_frames).write(path)
    height, width = read(path).shape[:2]
    assert columns * FRAME_PX[0] < width < columns * (FRAME_PX[0] + 10) + 10
    assert rows * (FRAME_PX[1] + 100) < height < rows * (FRAME_PX[1] + 120) + 10
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("state", list(BoxState))
def test_boxes_and_crops_wear_the_colour_of_their_state(state: BoxState, tmp_path: Path) -> None:
    offered(Preview(1), 1, state).write(tmp_path / "v.jpg")
    picture = read(tmp_path / "v.jpg").astype(int)
    near = np.abs(picture - STATE_COLOURS[state]).max(axis=-1) < 40
    frame, crops = near[: FRAME_PX[1] + 8], near[FRAME_PX[1] + 8 :]
    assert crops.sum() > 800
    assert (frame.sum() > 150) == (state != BoxState.MISSING)


def test_each_side_has_its_colour() -> None:
    for rows, own, other in ((HAND_L, LEFT, RIGHT), (HAND_R, RIGHT, LEFT)):
        image = grey_frame(0)
        keypoints = missing_keypoints()
        keypoints[rows] = np.column_stack([np.linspace(0.3, 0.6, 21), np.linspace(0.3, 0.7, 21), np.ones(21)])
        draw_skeleton(image, keypoints)
        assert (image == own).all(axis=-1).sum() > 50
        assert not (image == other).all(axis=-1).any()


def test_points_far_outside_the_frame_do_no_harm() -> None:
    keypoints = missing_keypoints()
    keypoints[:] = (0.5, 1e9, 1.0)
    keypoints[::2, 0] = -1e9
    draw_skeleton(grey_frame(0), keypoints)


def test_every_video_gets_one_also_a_quarantined_one(make_video: Callable, extract_discs: Callable) -> None:
    path = make_video("v.mp4", 20)
    _, layout = extract_discs(path)
    first = layout.preview("v").read_bytes()
    assert read(layout.preview("v")).shape[1] > NUM_COLUMNS * FRAME_PX[0]
    extract_discs(path)
    assert layout.preview("v").read_bytes() == first
    path.write_bytes(b"")
    metadata, _ = extract_discs(path)
    assert metadata.status == "quarantined"
    assert read(layout.preview("v")).shape[1] == FRAME_PX[0]


def test_a_hidden_face_is_hidden_in_the_picture(make_video: Callable, extract_discs: Callable) -> None:
    path = make_video("v.mp4", 2)
    shown = []
    for mode in ("none", "blur"):
        _, layout = extract_discs(path, face_privacy=mode)
        shown.append(read(layout.preview("v")).astype(int))
    assert np.abs(shown[0] - shown[1]).max() > 60


@pytest.mark.parametrize("settings", [{}, {"fps": 50.0}, {"face_privacy": "blur"}])
def test_a_deleted_picture_comes_back_without_extracting_again(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, settings: dict[str, object]
) -> None:
    for name, num_frames in (("v.mp4", 90), ("one.mp4", 1)):
        make_video(name, num_frames)
    (tmp_path / "videos" / "empty.mp4").touch()
    config = ExtractConfig(videos=[tmp_path / "videos"], root=tmp_path / "c", max_failed_fraction=1, **settings)
    layout = CorpusLayout(config.root)
    extract_videos(config, detector=discs)
    first = {path.name: read(path).astype(int) for path in layout.preview("v").parent.iterdir()}
    assert sorted(first) == ["empty.jpg", "one.jpg", "v.jpg"]
    shutil.rmtree(layout.preview("v").parent)
    again = extract_videos(config, detector=discs)
    assert sorted(again.unchanged) == ["empty", "one", "v"] and not again.extracted
    for name, picture in first.items():
        restored = read(layout.preview("v").with_name(name)).astype(int)
        assert restored.shape == picture.shape
        if name != "v.jpg":  # which frames it shows may differ a little
            assert np.abs(restored - picture).mean() < 3  # crops are stored as JPEG, boxes as float32


def test_a_deleted_picture_whose_frames_do_not_come_again_is_extracted_again(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExtractConfig(videos=[make_video("v.mp4", 20)], root=tmp_path / "c")
    layout = CorpusLayout(config.root)
    extract_videos(config, detector=discs)
    layout.preview("v").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(redraw, "VideoReader", lambda path, **how: VideoReader(path, spans_s=[(0, 0.1)]))
        assert list(extract_videos(config, detector=discs).extracted) == ["v"]
    assert layout.preview("v").is_file()
