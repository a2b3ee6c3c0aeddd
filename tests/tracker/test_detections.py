"""Detectors: anchors and decoding by the formulas, and what MediaPipe itself finds with the same models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from signstreams.tracker.detections import GRIDS, Detections, anchors, decode, detect, overlap, suppress
from signstreams.tracker.engine import LiteRtEngine
from signstreams.tracker.hands import hand_size
from signstreams.tracker.regions import cut, moved_along, project

AS_MEDIAPIPE = 0.6  # its graph of the full-range model keeps faces from this score on, whatever it is told


@pytest.mark.parametrize(
    ("model", "number"), [("pose_detection", 2254), ("palm_detection", 2016), ("face_detection", 2304)]
)
def test_anchors_are_the_middles_of_the_cells(model: str, number: int) -> None:
    found = anchors(model)
    assert found.shape == (number, 2)
    stride, per_cell = GRIDS[model].cells[0]
    half = stride / 2 / GRIDS[model].side_px
    assert found[0].tolist() == [half, half]
    assert found[per_cell] == pytest.approx([3 * half, half])  # row by row
    assert found.min() > 0
    assert found.max() < 1


def test_a_detection_is_its_anchor_and_what_it_is_off() -> None:
    boxes, scores = np.zeros((2304, 16), np.float32), np.full((2304, 1), -200, np.float32)
    boxes[48 * 10 + 20] = [19.2, -9.6, 38.4, 48, *[0] * 10, 1.92, 3.84]
    scores[48 * 10 + 20] = 2
    found = decode("face_detection", boxes, scores)
    assert found.score == pytest.approx([1 / (1 + np.exp(-2))])
    x, y = 20.5 / 48, 10.5 / 48
    assert found.box[0] == pytest.approx([x + 0.1, y - 0.05, 0.2, 0.25])
    assert found.points[0, 0] == pytest.approx([x, y])
    assert found.points[0, 5] == pytest.approx([x + 0.01, y + 0.02])


def test_what_overlaps_is_one_detection_weighted_by_the_scores() -> None:
    box = np.array([[10.0, 10, 8, 8], [12, 10, 8, 8], [40, 10, 8, 8]])
    found = suppress(Detections(np.array([0.9, 0.6, 0.5]), box, box[:, None, :2]))
    assert found.score.tolist() == [0.9, 0.5]
    assert found.box[:, 0] == pytest.approx([10.8, 40])
    assert found.points[0, 0] == pytest.approx([10.8, 10])


def test_nothing_sure_is_nothing() -> None:
    found = decode("pose_detection", np.zeros((2254, 12), np.float32), np.full((2254, 1), -1, np.float32))
    assert (found.score.shape, found.box.shape, found.points.shape) == ((0,), (0, 4), (0, 4, 2))


def test_overlap_is_the_intersection_over_the_union() -> None:
    others = np.array([[0.0, 0, 2, 2], [1, 0, 2, 2], [5, 0, 2, 2], [0, 0, 0, 0]])
    assert overlap(others[0], others) == pytest.approx([1, 1 / 3, 0, 0])


@pytest.fixture(scope="module")
def engine(models: Path) -> LiteRtEngine:
    return LiteRtEngine(models)


def test_faces_of_two_people_are_where_mediapipe_finds_them(engine: LiteRtEngine, frames: list[np.ndarray]) -> None:
    (found,) = detect(engine, "face_detection", [frames[3]], min_score=AS_MEDIAPIPE)
    assert found.box[:, :3] == pytest.approx(np.array([[100.45, 51.31, 38.74], [213.88, 54.96, 36.16]]), abs=0.05)
    assert found.score == pytest.approx([0.946, 0.874], abs=2e-3)
    assert found.points[0, :2] == pytest.approx(np.array([[94.1, 44.0], [108.3, 46.1]]), abs=0.1)  # right eye, left eye


def test_regions_of_a_frame_say_the_same_as_the_frame(engine: LiteRtEngine, frames: list[np.ndarray]) -> None:
    wide = np.zeros((180, 900, 3), np.uint8)
    wide[:, 400:720] = frames[3]
    (alone,), (part,) = (
        detect(engine, "face_detection", [image], np.array([region]))
        for image, region in ((frames[3], [160.0, 90, 320, 0]), (wide, [560.0, 90, 320, 0]))
    )
    assert part.box - [400, 0, 0, 0] == pytest.approx(alone.box)


def test_faces_are_those_of_mediapipe_itself(engine: LiteRtEngine, frames: list[np.ndarray]) -> None:
    solution = pytest.importorskip("mediapipe.python.solutions.face_detection").FaceDetection(model_selection=1)
    with solution:
        for frame in frames[:6]:  # of 320 px: larger ones are averaged before they are shrunk
            size = np.array([frame.shape[1], frame.shape[0]])
            theirs = [
                (np.array([box.xmin, box.ymin]) + np.array([box.width, box.height]) / 2) * size
                for box in (d.location_data.relative_bounding_box for d in solution.process(frame).detections or [])
            ]
            (ours,) = detect(engine, "face_detection", [frame], min_score=AS_MEDIAPIPE)
            assert ours.box[:, :2] == pytest.approx(np.array(theirs).reshape(-1, 2), abs=0.05)


def test_palms_lead_to_the_hands_of_mediapipe_itself(engine: LiteRtEngine, frames: list[np.ndarray]) -> None:
    solution = pytest.importorskip("mediapipe.python.solutions.hands").Hands(static_image_mode=True)
    model = engine.model("hand_landmarks")
    compared = 0
    with solution:
        for frame in frames[:6]:
            size = [frame.shape[1], frame.shape[0]]
            theirs = [
                np.array([[p.x, p.y] for p in hand.landmark]) * size
                for hand in solution.process(frame).multi_hand_landmarks or []
            ]
            (palms,) = detect(engine, "palm_detection", [frame])
            along = palms.points[:, 2] - palms.points[:, 0]
            regions = np.column_stack(
                [palms.box[:, :2], palms.box[:, 2:].max(-1), np.arctan2(along[:, 0], -along[:, 1])]
            )
            regions = moved_along(regions, 0.5) * [1, 1, 2.6, 1]
            places, _, _ = model.run(cut([frame] * len(regions), np.arange(len(regions)), regions, model.side_px))
            ours = project(places.reshape(-1, 21, 3)[..., :2] / model.side_px, regions)
            for hand in theirs:
                off = np.linalg.norm(ours - hand, axis=-1).mean(-1) / hand_size(hand[None])
                assert off.min() < 0.01
                compared += 1
    assert compared >= 4
