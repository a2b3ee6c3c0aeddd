"""Faces: the mesh as MediaPipe has it; people of any size in a picture, and nothing that is no face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.array_types import Pixels
from signstreams.extract.people import FaceFinder
from signstreams.extract.video import VideoReader
from signstreams.tracker.body import BodyTracker
from signstreams.tracker.engine import LiteRtEngine
from signstreams.tracker.faces import NUM_POINTS, FaceMesh, around_mesh, find_faces, tiles

MESH = {1: (202.3, 41.3), 33: (190.2, 30.6), 263: (212.4, 32.8), 152: (198.2, 62.9), 10: (203.9, 17.9)}
"""Tip of the nose, outer eye corners, chin and forehead in frame 36 of the studio clip, px, by MediaPipe Holistic."""


@pytest.fixture(scope="module")
def engine(models: Path) -> LiteRtEngine:
    return LiteRtEngine(models)


@pytest.fixture(scope="module")
def studio(shared_data: Path) -> list[np.ndarray]:
    with VideoReader(shared_data / "clips" / "lsat_one_signer_studio.gif") as reader:
        return [frame.image for frame in reader.frames()][24:48]


def test_the_mesh_is_where_mediapipe_has_it(engine: LiteRtEngine, studio: list[np.ndarray]) -> None:
    body = BodyTracker(engine).track(studio)
    mesh = FaceMesh(engine).find(studio, body)
    assert mesh.shape == (24, NUM_POINTS, 2)
    assert not np.isnan(mesh).any()
    off = np.linalg.norm(mesh[12, list(MESH)] - np.array(list(MESH.values())), axis=-1) / 45  # of the face's height
    assert off.max() < 0.06
    eyes = around_mesh(mesh)[:, :2]
    assert np.abs(np.diff(eyes, axis=0)).max() < 20  # no frame holds another face


def test_most_frames_need_one_look_at_the_face(models: Path, studio: list[np.ndarray]) -> None:
    engine = LiteRtEngine(models)
    body = BodyTracker(engine).track(studio)
    sizes = []
    run = engine.model("face_landmarks").run
    engine.model("face_landmarks").run = lambda images: (sizes.append(len(images)), run(images))[1]
    FaceMesh(engine).find(studio, body)
    assert sizes[:2] == [3, 24]
    assert sum(sizes) <= 1.6 * 24


def test_no_body_has_no_face(engine: LiteRtEngine, studio: list[np.ndarray]) -> None:
    body = BodyTracker(engine).track(studio[:3])
    body[1] = np.nan
    mesh = FaceMesh(engine).find(studio[:3], body)
    assert np.isnan(mesh[:, 0, 0]).tolist() == [False, True, False]
    assert np.isnan(FaceMesh(engine).find([np.zeros_like(studio[0])] * 3, body)).all()  # and black has none
    assert FaceMesh(engine).find([], body[:0]).shape == (0, NUM_POINTS, 2)


# -- People


@pytest.mark.parametrize("size_px", [(1280, 720), (1920, 1080), (720, 1280), (640, 480), (333, 2000), (500, 430)])
def test_tiles_cover_the_frame_and_overlap(size_px: tuple[int, int]) -> None:
    found = tiles(*size_px)
    assert 0 < len(found) <= 16
    covered = np.zeros(size_px[::-1], int)
    for x, y, side, _ in found:
        covered[
            max(0, int(y - side / 2)) : int(np.ceil(y + side / 2)), max(0, int(x - side / 2)) : int(x + side / 2)
        ] += 1
    assert covered[:, :-1].min() >= 1
    assert (covered > 1).any()


def test_a_small_frame_needs_no_tiles() -> None:
    assert tiles(320, 180).shape == (0, 4)


def inset(large: Pixels, small: Pixels, width_px: int, *, left: bool) -> tuple[Pixels, float, int, int]:
    """A 720p picture with another one in a lower corner: it, the scale of the inset, and where it starts."""
    image = cv2.resize(large, (1280, 720))
    scale = width_px / small.shape[1]
    small = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x0, y0 = 20 if left else 1260 - width_px, 700 - small.shape[0]
    image[y0 : y0 + small.shape[0], x0 : x0 + small.shape[1]] = small
    return image, scale, x0, y0


@pytest.mark.parametrize("width_px", [320, 400, 480])
@pytest.mark.parametrize("left", [True, False])
def test_somebody_inset_beside_a_large_person_is_found(
    engine: LiteRtEngine, frames: list[np.ndarray], width_px: int, left: bool
) -> None:
    large, small = frames[6][:405], frames[0]  # a webcam, and a studio of which the face is an eighth
    image, scale, x0, y0 = inset(large, small, width_px, left=left)
    (own,) = find_faces(engine, small).box[:, :3] * scale + [x0, y0, 0]
    faces = FaceFinder(engine).find(image)
    off = [face.distance(own[0], own[1]) for face in faces]
    assert min(off) < 0.3
    found = faces[int(np.argmin(off))]
    assert found.size_px == pytest.approx(own[2], rel=0.3)
    assert found.size_px / 1280 < 0.055
    assert len(faces) <= 2


def test_a_known_small_face_is_found_without_tiles(engine: LiteRtEngine, frames: list[np.ndarray]) -> None:
    image, *_ = inset(frames[6][:405], frames[0], 400, left=True)
    finder = FaceFinder(engine)
    faces = finder.find(image)
    again = finder.find(image, near=faces)
    assert [(face.x, face.y) for face in again] == [pytest.approx((face.x, face.y), abs=5) for face in faces]


@pytest.mark.parametrize("size_px", [(1280, 720), (1920, 1080)])
def test_hands_sleeves_and_letters_of_an_enlarged_picture_are_no_faces(
    engine: LiteRtEngine, studio: list[np.ndarray], size_px: tuple[int, int]
) -> None:
    for image in studio[::6]:
        found = find_faces(engine, cv2.resize(image, size_px))
        assert len(found.score) == 1
        assert found.box[0, 0] / size_px[0] == pytest.approx(201 / 320, abs=0.04)


def test_an_empty_picture_has_no_faces(engine: LiteRtEngine) -> None:
    assert FaceFinder(engine).find(np.full((720, 1280, 3), 90, np.uint8)) == []
