"""Faces hidden in crops: the face loses its detail, eyes and mouth and hands keep theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.crops import BoxedFrame, store_crops
from signstreams.extract.frame_boxes import observe
from signstreams.extract.pipeline import extract_video
from signstreams.extract.privacy import GREY, protect
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.tracker import TRACKER
from signstreams.extract.video import VideoReader
from signstreams.formats.arrays import read_keypoints
from signstreams.formats.landmarks import (
    BROW_L,
    BROW_R,
    EYE_L,
    EYE_R,
    FACE,
    HAND_L,
    HAND_R,
    IBUG_68,
    INNER_LIPS,
    LIPS,
    MISSING,
    NOSE,
    pose_index,
)
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import STREAMS, BoxState

SIDE = 240
FACE_CENTRE, FACE_RADIUS = np.array([120.0, 90.0]), 40.0
NOWHERE = FrameBoxes(np.full((3, 3), np.nan), np.zeros(3, np.uint8), np.zeros(3))
FACE_BOX = FrameBoxes(
    np.array([[*FACE_CENTRE, 104.0], [np.nan] * 3, [np.nan] * 3]),
    np.array([BoxState.FILLED, 0, 0], np.uint8),
    np.ones(3),
)


def noise() -> np.ndarray:
    """(240, 240, 3) detail everywhere, so that any hidden part visibly loses it."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def face_points(num_points: int = 468) -> np.ndarray:
    """A disc of points with eyes, nose and mouth where a face has them; missing elsewhere."""
    keypoints = np.tile(np.array(MISSING, np.float32), (543, 1))
    angle = np.linspace(0, 2 * np.pi, 468, endpoint=False)
    face = FACE_CENTRE + FACE_RADIUS * np.stack([np.sin(angle), np.cos(angle)], -1)
    for rows, (x, y), size in (
        (EYE_R, (104, 80), 7),
        (EYE_L, (136, 80), 7),
        (BROW_R, (104, 72), 8),
        (BROW_L, (136, 72), 8),
        (LIPS, (120, 112), 10),
        (INNER_LIPS, (120, 112), 7),
        (NOSE, (120, 95), 4),
    ):
        turn = np.linspace(0, 2 * np.pi, len(rows), endpoint=False)
        face[list(rows)] = np.array([x, y]) + size * np.stack([np.cos(turn), 0.5 * np.sin(turn)], -1)
    keypoints[FACE, :2], keypoints[FACE, 2] = face / SIDE, 1
    if num_points == 68:
        keypoints[FACE][np.setdiff1d(np.arange(468), IBUG_68)] = MISSING
    return keypoints


def body_points() -> np.ndarray:
    """Only a body: head and shoulders, faint."""
    keypoints = np.tile(np.array(MISSING, np.float32), (543, 1))
    places = {"nose": (120, 95), "left_shoulder": (160, 170), "right_shoulder": (80, 170)}
    for side, sign in (("left", 1), ("right", -1)):
        places |= {f"{side}_eye{part}": (120 + 15 * sign, 80) for part in ("", "_inner", "_outer")}
        places |= {f"{side}_ear": (120 + 35 * sign, 85), f"mouth_{side}": (120 + 10 * sign, 112)}
    for name, place in places.items():
        keypoints[pose_index(name)] = (*(np.array(place) / SIDE), 0.1)
    return keypoints


def add_hand(keypoints: np.ndarray, rows: slice, centre: tuple[float, float]) -> np.ndarray:
    """An open hand with its fingers upwards; gives its (21, 2) points in px."""
    hand = [(0.0, 30.0), (-14, 20), (-22, 10), (-28, 2), (-33, -5)]
    for finger in range(4):
        hand += [(-12 + 8 * finger, -12.0 * joint) for joint in range(4)]
    points = np.array(hand) + centre
    keypoints[rows, :2], keypoints[rows, 2] = points / SIDE, 1
    return points


def detail(image: np.ndarray, place: tuple[slice, slice]) -> float:
    """Energy of what a small blur takes away."""
    part = image[place].astype(np.float32)
    return float(((part - cv2.GaussianBlur(part, (0, 0), 2)) ** 2).mean())


DISC = np.hypot(*(np.indices((SIDE, SIDE))[::-1] + 0.5 - FACE_CENTRE[:, None, None])) <= FACE_RADIUS
CHEEKS = np.s_[90:100, 90:150]


def test_none_gives_the_very_image() -> None:
    image = noise()
    assert protect(image, face_points(), FACE_BOX, "none") is image


@pytest.mark.parametrize("num_points", [468, 68])
def test_blur_leaves_no_detail_in_the_face_and_every_pixel_outside_the_head(num_points: int) -> None:
    image = noise()
    before = image.copy()
    shown = protect(image, face_points(num_points), NOWHERE, "blur")
    assert (image == before).all()
    inside = np.s_[65:120, 95:145]
    assert detail(shown, inside) < 0.005 * detail(image, inside)
    assert (shown[DISC] != image[DISC]).any(axis=-1).mean() > 0.98
    far = np.hypot(*(np.indices((SIDE, SIDE))[::-1] - FACE_CENTRE[:, None, None])) > 1.6 * FACE_RADIUS
    assert (shown[far] == image[far]).all()


@pytest.mark.parametrize("num_points", [468, 68])
def test_eyes_and_mouth_keep_every_pixel_and_the_rest_is_grey(num_points: int) -> None:
    image = noise()
    shown = protect(image, face_points(num_points), NOWHERE, "eyes-mouth")
    for part in (np.s_[78:83, 99:110], np.s_[70:75, 100:108], np.s_[78:83, 131:142], np.s_[109:115, 113:128]):
        assert (shown[part] == image[part]).all()
    for part in (CHEEKS, np.s_[75:95, 117:123], np.s_[55:64, 110:130], np.s_[120:128, 110:130]):
        assert (shown[part] == GREY).all()


@pytest.mark.parametrize("mode", ["blur", "eyes-mouth"])
@pytest.mark.parametrize("rows", [HAND_L, HAND_R])
def test_a_hand_in_front_of_the_face_stays_and_the_face_beside_it_does_not(mode: str, rows: slice) -> None:
    image, keypoints = noise(), face_points()
    hand = add_hand(keypoints, rows, (120, 95))
    shown = protect(image, keypoints, NOWHERE, mode)
    for x, y in hand.round().astype(int):
        assert (shown[y - 2 : y + 3, x - 2 : x + 3] == image[y - 2 : y + 3, x - 2 : x + 3]).all()
    assert (shown[92:120, 140:150] != image[92:120, 140:150]).any(axis=-1).mean() > 0.9


def test_what_shows_between_spread_fingers_stays_hidden() -> None:
    image, keypoints = noise(), face_points()
    hand = add_hand(keypoints, HAND_R, (120, 95))
    shown = protect(image, keypoints, NOWHERE, "blur")
    thumb, finger = hand[4], hand[8]
    x, y = np.round((thumb + finger) / 2).astype(int)  # within the hull of the hand, on neither finger
    assert (shown[y, x] != image[y, x]).any()


@pytest.mark.parametrize("mode", ["blur", "eyes-mouth"])
def test_without_a_mesh_the_whole_box_is_hidden(mode: str) -> None:
    image = noise()
    shown = protect(image, np.tile(np.array(MISSING, np.float32), (543, 1)), FACE_BOX, mode)
    box = np.s_[39:141, 69:171]
    assert (shown[box] != image[box]).any(axis=-1).mean() > 0.98
    assert (shown[145:] == image[145:]).all()


@pytest.mark.parametrize("mode", ["blur", "eyes-mouth"])
def test_a_faint_body_is_enough_to_hide_the_head(mode: str) -> None:
    image = noise()
    shown = protect(image, body_points(), NOWHERE, mode)
    assert (shown[DISC] != image[DISC]).any(axis=-1).mean() > 0.98
    assert (shown[160:] == image[160:]).all()


def test_a_nose_alone_hides_what_a_head_of_that_body_would_fill() -> None:
    image, keypoints = noise(), body_points()
    keypoints[1:11] = MISSING
    shown = protect(image, keypoints, NOWHERE, "blur")
    assert (shown[75:115, 100:140] != image[75:115, 100:140]).any(axis=-1).mean() > 0.98


def test_nothing_known_of_a_face_leaves_the_frame() -> None:
    image, keypoints = noise(), np.tile(np.array(MISSING, np.float32), (543, 1))
    add_hand(keypoints, HAND_R, (120, 95))
    assert protect(image, keypoints, NOWHERE, "blur") is image


def test_a_face_beyond_the_frame_leaves_it() -> None:
    image, keypoints = noise(), face_points()
    keypoints[FACE, 0] += 3
    assert protect(image, keypoints, NOWHERE, "blur") is image


def test_the_blur_scales_with_the_face() -> None:
    """A face four times as large keeps no more of its features."""
    small = noise()
    large = cv2.resize(small, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    shown = protect(large, face_points(), NOWHERE, "blur")
    place = np.s_[260:480, 380:580]
    assert detail(cv2.resize(shown[place], (50, 55), interpolation=cv2.INTER_AREA), np.s_[:, :]) < 0.005 * detail(
        small, np.s_[65:120, 95:145]
    )


class Collected:
    """An archive that keeps what it is given."""

    def __init__(self) -> None:
        self.crops: list[np.ndarray] = []

    def add(self, frame: int, data: bytes) -> None:
        self.crops.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_a_hand_crop_that_shows_the_face_is_cut_from_the_protected_frame() -> None:
    boxes = FrameBoxes(np.array([[*FACE_CENTRE, 104.0]] * 3), np.full(3, BoxState.DETECTED, np.uint8), np.ones(3))
    kept = {}
    for mode in ("none", "blur"):
        archives = [Collected(), Collected(), Collected()]
        config = ExtractConfig(videos=["v.mp4"], root="c", face_privacy=mode)
        store_crops(BoxedFrame(0, 0.0, noise(), face_points(), boxes), archives, config)
        kept[mode] = [archive.crops[0] for archive in archives]
    middle = np.s_[80:150, 80:150]
    for plain, hidden in zip(kept["none"], kept["blur"], strict=True):
        assert detail(hidden, middle) < 0.01 * detail(plain, middle)


def test_the_metadata_says_what_was_hidden(make_video: Callable[..., Path], extract_discs: Callable) -> None:
    path = make_video(num_frames=4)
    kept = {}
    for mode in ("none", "blur"):
        metadata, layout = extract_discs(path, face_privacy=mode)
        assert metadata.face_privacy == mode
        kept[mode] = [layout.crops(stream, path.stem).read_bytes() for stream in STREAMS]
    assert kept["none"][0] != kept["blur"][0]
    assert kept["none"][1:] == kept["blur"][1:]  # the hands are far from the face here


def test_real_faces_lose_their_detail_and_eyes_and_hands_stay(shared_data: Path, real_clips: CorpusLayout) -> None:
    """Outside eyes and mouth a blurred face keeps under a twentieth of the detail that it had."""
    config = ExtractConfig(videos=["v.mp4"], root="c").boxes
    found = read_keypoints(real_clips.keypoints("webcam_one_hand"))
    ratios = []
    with VideoReader(shared_data / "clips" / "webcam_one_hand.mp4") as reader:
        size = np.array([reader.width_px, reader.height_px])
        for frame, keypoints in list(zip(reader.frames(), found, strict=True))[5::4]:
            boxes = observe(keypoints, *size, config).detected
            known = FrameBoxes(boxes, (~np.isnan(boxes[:, 0])).astype(np.uint8), np.ones(3))
            px = keypoints[:, :2] * size
            is_head = np.zeros(frame.image.shape[:2], np.uint8)
            cv2.fillConvexPoly(is_head, cv2.convexHull(px[FACE].astype(np.int32)), 1)
            hands = [px[rows] for rows in (HAND_L, HAND_R) if keypoints[rows.start, 2] > 0]
            for hand in hands:
                cv2.circle(is_head, hand.mean(axis=0).astype(int).tolist(), int(2 * np.ptp(hand, axis=0).max()), 0, -1)
            blurred = protect(frame.image, keypoints, known, "blur")
            high = [
                (image.astype(np.float32) - cv2.GaussianBlur(image.astype(np.float32), (0, 0), 3)) ** 2
                for image in (blurred, frame.image)
            ]
            inner = cv2.erode(is_head, np.ones((9, 9), np.uint8)) > 0
            if inner.any():
                ratios.append(high[0][inner].mean() / high[1][inner].mean())
                sparse = keypoints.copy()
                sparse[FACE][np.setdiff1d(np.arange(468), IBUG_68)] = MISSING
                of_68 = protect(frame.image, sparse, NOWHERE, "blur")
                assert (of_68[inner] != frame.image[inner]).any(axis=-1).mean() > 0.99  # forehead and temples too
            shown = protect(frame.image, keypoints, known, "eyes-mouth")
            for eye in (EYE_R, EYE_L):
                x, y = px[FACE][list(eye)].mean(axis=0).astype(int)
                assert (shown[y - 2 : y + 3, x - 2 : x + 3] == frame.image[y - 2 : y + 3, x - 2 : x + 3]).all()
            for hand in hands:
                for x, y in hand.astype(int):
                    near = np.s_[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
                    assert (shown[near] == frame.image[near]).all() and (blurred[near] == frame.image[near]).all()
    assert len(ratios) > 5 and max(ratios) < 0.05


def test_nothing_of_the_body_moves_under_protection(shared_data: Path, tmp_path: Path) -> None:
    """Keypoints are the detector's on the frame as it is: hiding comes after detection."""
    path = shared_data / "clips" / "lsat_two_people.gif"
    kept = []
    for mode in ("none", "blur"):
        config = ExtractConfig(videos=[path], root=tmp_path / mode, face_privacy=mode, signer={"choose": "none"})
        layout = CorpusLayout(config.root)
        extract_video(VideoJob(VideoSource.at(path), config, TRACKER))
        kept.append(layout.keypoints(path.stem).read_bytes())
    assert kept[0] == kept[1]
