"""Views of videos: what the page draws is what extraction wrote; how large they get, and when they are written."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.contract import views
from signstreams.contract.run_checks import check_after_extraction
from signstreams.contract.validate import write_validation
from signstreams.contract.views import STEPS, TILE_PX, read_summary, write_view
from signstreams.formats.arrays import Tracks, write_keypoints, write_tracks
from signstreams.formats.landmarks import HAND_L, HAND_R, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.skeleton import DRAWN
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import SIDE_BY_SIDE, STREAMS, BoxState

from .corpora import NUM_FRAMES, BrokenCorpus, good_keypoints, good_tracks, jpeg

LEFT_WRIST, RIGHT_WRIST = pose_index("left_wrist"), pose_index("right_wrist")
LEFT_SHOULDER, RIGHT_SHOULDER = pose_index("left_shoulder"), pose_index("right_shoulder")


def content_of(path: Path) -> dict[str, Any]:
    """The second argument of the call in a view."""
    text = path.read_text(encoding="ascii")
    found: dict[str, Any] = json.loads(text[text.index(", {") + 2 : text.rindex(");")])
    return found


def places_of(content: dict[str, Any]) -> np.ndarray:
    """(N, R) fractions, NaN where missing, as the page reads them."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(content["places"])), np.uint8).reshape(2, -1)
    steps = planes[0].astype(np.uint16) + (planes[1].astype(np.uint16) << 8)
    values = np.cumsum(steps.reshape(-1, len(content["times_ms"])), axis=1, dtype=np.uint16).T
    return np.where(values, (values.astype(float) - 1) / STEPS - 1, np.nan)


def sprite_of(content: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(content["sprite"].removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def still(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """A signer who faces the camera, both hands at their own arms."""
    points = np.zeros((num_frames, 543, 3), np.float32)
    points[..., 2] = 1
    for rows, x in (((LEFT_WRIST, HAND_L.start), 0.7), ((RIGHT_WRIST, HAND_R.start), 0.3)):
        points[:, list(rows), :2] = (x, 0.6)
        points[:, rows[1] + 9, :2] = (x, 0.55)  # a palm of a twentieth
    points[:, LEFT_SHOULDER, :2], points[:, RIGHT_SHOULDER, :2] = (0.65, 0.3), (0.35, 0.3)
    return points


def summary_of(corpus: BrokenCorpus, points: np.ndarray, tracks: Tracks | None = None) -> views.ViewSummary:
    write_keypoints(corpus.layout.keypoints("one"), points)
    if tracks is not None:
        write_tracks(corpus.layout.tracks("one"), tracks)
    write_view(corpus.layout, "one")
    summary = read_summary(corpus.layout.view("one"))
    assert summary is not None
    return summary


def test_a_view_has_the_points_boxes_states_and_times_of_the_video(corpus: BrokenCorpus) -> None:
    write_view(corpus.layout, "one")
    content = content_of(corpus.layout.view("one"))
    points, tracks = good_keypoints()[:, DRAWN], good_tracks()
    places, num_points = places_of(content), len(DRAWN)
    assert np.cumsum(content["times_ms"]).tolist() == [100 * frame for frame in range(NUM_FRAMES)]
    for axis in (0, 1):
        wanted = np.where(points[..., 2] > 0, points[..., axis], np.nan)
        np.testing.assert_allclose(places[:, axis * num_points : (axis + 1) * num_points], wanted, atol=0.51 / STEPS)
    states = np.array(list(content["states"]), int).reshape(NUM_FRAMES, len(STREAMS))
    for place, stream in enumerate(SIDE_BY_SIDE):
        track = tracks.streams[stream]
        assert states[:, place].tolist() == track.state.tolist()
        box = np.where((track.state > 0)[:, None], track.box / (64, 80, 64, 80), np.nan)
        start = 2 * num_points + 4 * place
        np.testing.assert_allclose(places[:, start : start + 4], box, atol=0.51 / STEPS)


def test_its_crops_are_those_of_the_archives_side_by_side(corpus: BrokenCorpus) -> None:
    for place, stream in enumerate(SIDE_BY_SIDE):
        plain = np.full((64, 64, 3), 60 * (place + 1), np.uint8)
        data = cv2.imencode(".jpg", plain)[1].tobytes()
        corpus.write_crops("one", stream, {0: data, 2: data, 4: jpeg()[:40], 6: data, 8: data})
    write_view(corpus.layout, "one")
    content = content_of(corpus.layout.view("one"))
    assert content["crops"] == [0, 2, 4, 6, 8]  # five a second, of ten
    sprite = sprite_of(content)
    for cell, frame in enumerate(content["crops"]):
        top = cell // content["columns"] * TILE_PX
        for place in range(len(SIDE_BY_SIDE)):
            left = (cell % content["columns"] * len(SIDE_BY_SIDE) + place) * TILE_PX
            grey = sprite[top + 20 : top + 70, left + 20 : left + 70].mean()
            assert grey == pytest.approx(0 if frame == 4 else 60 * (place + 1), abs=4), (frame, place)


def test_a_view_stays_small_however_long_the_video(corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_POINT_FRAMES", 5)
    monkeypatch.setattr(views, "MAX_CROP_FRAMES", 2)
    write_view(corpus.layout, "one")
    content = content_of(corpus.layout.view("one"))
    assert np.cumsum(content["times_ms"]).tolist() == [0, 200, 400, 600, 800]
    assert content["crops"] == [0, 3]
    assert places_of(content).shape[0] == 5


def test_an_upright_signer_is_neither_mirrored_nor_swapped(corpus: BrokenCorpus) -> None:
    tracks = good_tracks()
    tracks.streams["hand_r"].state[3] = BoxState.MISSING  # as the left one is in this frame
    points = still()
    points[5, HAND_L, 2] = 0.6
    summary = summary_of(corpus, points, tracks)
    assert (summary.num_swaps, summary.mirrored_ratio) == (0, 0)
    assert (summary.no_hands_ratio, summary.estimated_ratio, summary.unsure_ratio) == (0.1, 0.1, 0.1)
    assert (summary.num_people, summary.face_privacy, summary.is_drawn) == (1, "none", True)


def test_hands_that_change_places_within_a_frame_are_counted(corpus: BrokenCorpus) -> None:
    points = still()
    points[4:7, HAND_L], points[4:7, HAND_R] = points[4:7, HAND_R].copy(), points[4:7, HAND_L].copy()
    summary = summary_of(corpus, points)
    assert summary.num_swaps == 2  # there and back
    assert summary.mirrored_ratio == 0.3  # each hand is on the other arm meanwhile


def test_hands_that_move_or_cross_slowly_are_no_swap(corpus: BrokenCorpus) -> None:
    points = still()
    for frame, x in enumerate(np.linspace(0.7, 0.3, NUM_FRAMES)):
        for hand, arm, at in ((HAND_L, LEFT_WRIST, x), (HAND_R, RIGHT_WRIST, 1 - x)):
            points[frame, [hand.start, hand.start + 9, arm], 0] = at
    summary = summary_of(corpus, points)
    assert (summary.num_swaps, summary.mirrored_ratio) == (0, 0)


def test_a_body_whose_left_is_on_the_left_of_the_picture_is_mirrored(corpus: BrokenCorpus) -> None:
    points = still()
    points[:5, :, 0] = 1 - points[:5, :, 0]
    assert summary_of(corpus, points).mirrored_ratio == 0.5


def test_files_that_cannot_be_read_give_an_empty_view_and_no_frames_give_none(corpus: BrokenCorpus) -> None:
    corpus.layout.tracks("one").write_bytes(b"no tracks")
    write_view(corpus.layout, "one")
    summary = read_summary(corpus.layout.view("one"))
    assert summary is not None and not summary.is_drawn
    assert corpus.layout.view("one").read_text().endswith('showView("one", null);\n')
    corpus.quarantine("one")
    write_view(corpus.layout, "one")
    assert not corpus.layout.view("one").exists() and read_summary(corpus.layout.view("one")) is None


def test_views_are_written_with_the_check_and_where_they_lack(corpus: BrokenCorpus) -> None:
    layout = corpus.layout
    corpus.validate()
    drawn = {path.stem for path in layout.view("x").parent.glob("*.js")}
    assert drawn == {path.stem for path in layout.videos.glob("*.mp4")}
    first = layout.view("one").read_bytes()
    layout.view("two").write_text("// signstreams view 0 {}\n")  # of another format
    layout.view("four").unlink()
    assert corpus.validate().num_from_records == 4  # nothing is checked again
    assert read_summary(layout.view("two")) is not None and read_summary(layout.view("four")) is not None
    corpus.write_keypoints("one", still())
    corpus.validate()
    assert layout.view("one").read_bytes() != first
    layout.view("two").unlink()
    check_after_extraction(layout, "two", layout.videos / "two.mp4", read_metadata(layout.metadata("two")))
    assert read_summary(layout.view("two")) is not None


def test_the_view_of_a_video_that_is_gone_goes_too(corpus: BrokenCorpus) -> None:
    write_validation(corpus.layout, corpus.validate())
    for path in (corpus.layout.videos / "four.mp4", *corpus.layout.processed.glob("*/four.*")):
        path.unlink()
    write_validation(corpus.layout, corpus.validate())
    assert {path.stem for path in corpus.layout.view("x").parent.glob("*.js")} == {"one", "two", "Ñandú d'ayer"}


def test_a_corpus_that_was_moved_keeps_its_views(corpus: BrokenCorpus, tmp_path: Path) -> None:
    corpus.validate()
    shutil.copytree(corpus.root, tmp_path / "copy")
    written = CorpusLayout(tmp_path / "copy").view("one").stat().st_mtime_ns
    BrokenCorpus(tmp_path / "copy").validate()
    assert CorpusLayout(tmp_path / "copy").view("one").stat().st_mtime_ns == written
