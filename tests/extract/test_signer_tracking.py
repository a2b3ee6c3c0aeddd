"""The signer among several people is chosen by hand motion and followed: parts alone, and videos with ground truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from signstreams.extract import signer_tracking
from signstreams.extract.detectors import DetectorKind, VideoContext, missing_keypoints
from signstreams.extract.people import Face, FaceFinder, Person, blank_others, link, signing_box
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.signer_tracking import (
    BoxLocator,
    Candidate,
    RegionDetector,
    SignerTracker,
    _moments,
    _runs,
    choose_candidate,
)
from signstreams.extract.tracker import TRACKER
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.formats.arrays import read_keypoints
from signstreams.formats.landmarks import HAND_L, HAND_R, POSE, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import DetectorInfo, SignerInfo, VideoMetadata
from signstreams.formats.video_sources import VideoSource
from signstreams.tracker.engine import shared_engine

RED, BLUE = np.eye(80, dtype=np.float32)[:2]


def face(x: float, y: float = 100.0, size_px: float = 40.0, looks: np.ndarray = RED) -> Face:
    return Face(x, y, size_px, looks)


def frame(image: np.ndarray, time_s: float = 0.0) -> Frame:
    return Frame(time_s, image, False, 0)


# Who is who


def test_people_are_told_by_place_and_by_looks() -> None:
    crossing = [(t / 2, [face(100 + 20 * t, looks=RED), face(300 - 20 * t, looks=BLUE)]) for t in range(11)]
    people = link(crossing)
    assert [len(person.faces) for person in people] == [11, 11]
    assert [person.faces[-1].x for person in people] == [300, 100]
    assert (people[0].looks == RED).all()


def test_somebody_who_looks_alike_elsewhere_in_the_same_picture_is_another_person() -> None:
    people = link([(0.0, [face(100)]), (1.0, [face(101), face(300)]), (2.0, [face(301), face(99)])])
    assert [[f.x for f in person.faces] for person in people] == [[100, 101, 99], [300, 301]]


def test_another_person_in_the_same_place_after_a_cut_is_another_person() -> None:
    assert len(link([(0.0, [face(100, looks=RED)]), (1.0, [face(100, looks=BLUE)])])) == 2


def candidate(x: float, size_px: float, motion: float) -> Candidate:
    return Candidate(Person([face(x, size_px=size_px)], [0.0], RED, 1), motion)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([candidate(80, 30, 0.5), candidate(240, 90, 2.0)], (1, True)),
        ([candidate(80, 30, 2.0), candidate(240, 90, 0.5)], (0, True)),
        ([candidate(80, 30, 0.1), candidate(240, 60, 0.02)], (1, False)),  # nobody moves: the larger one
        ([candidate(10, 30, 2.0), candidate(150, 30, 1.95)], (1, False)),  # a tie: the central one
    ],
)
def test_the_hands_decide_and_size_only_where_they_do_not(candidates: list[Candidate], chosen: tuple) -> None:
    assert choose_candidate(candidates, 320) == chosen


def test_moments_are_spread_over_the_whole_video_and_lie_in_the_spans() -> None:
    assert _moments([(0.0, 600.0)])[0] < 15 and _moments([(0.0, 600.0)])[-1] > 585
    assert _moments([(0.0, 0.3)]) == [0.0]
    spans = [(10.0, 14.0), (100.0, 104.0)]
    moments = _moments(spans)
    assert len(moments) == 6 and all(any(a <= m <= b for a, b in spans) for m in moments)
    assert min(np.diff(_moments([(0.0, 3.01)]))) >= 0.5


def test_runs_of_frames_are_read_at_every_moment_of_a_file_and_of_a_folder(make_video: Callable[..., Path]) -> None:
    path = make_video(num_frames=90, fps=15)
    folder = path.parent / "frames"
    folder.mkdir()
    for index in range(60):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.zeros((8, 8, 3), np.uint8))
    for video, frames_fps, duration_s in ((path, 25.0, 6.0), (folder, 10.0, 6.0), (folder, 30.0, 2.0)):
        runs = list(_runs(video, None, frames_fps))
        assert [len(run) for run in runs] == [4] * (6 if duration_s == 6 else 4)
        assert runs[-1][-1][0] > duration_s - 0.6
        assert all(run[-1][0] - run[0][0] == pytest.approx(0.375) for run in runs)


def test_a_length_declared_as_nothing_is_measured(
    make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Declared(signer_tracking.VideoReader):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.duration_s = 0.0

    path = make_video(num_frames=30, fps=15)
    expected = [[time_s for time_s, _ in run] for run in _runs(path, None, 25.0)]
    monkeypatch.setattr(signer_tracking, "VideoReader", Declared)
    assert [[time_s for time_s, _ in run] for run in _runs(path, None, 25.0)] == expected != []


# The region


def test_the_region_holds_the_signing_space_but_not_the_neighbour() -> None:
    box = signing_box(face(400), [face(200)], 800, 600)
    assert box == (276, 12, 560, 360)  # 0.65 of the gap of 160 px, from the edge of the face at 380
    assert signing_box(face(400), [face(200, size_px=20)], 800, 600)[0] == 240  # small: behind, not beside


def test_others_are_blanked_and_the_signer_is_not() -> None:
    image = np.full((400, 800, 3), 200, np.uint8)
    blank_others(image[:, 100:], (100, 0), face(400), [face(200), face(420, 20, 20)])
    assert (image[:, 100:276] == 112).all() and (image[200:, 276:] == 200).all()
    assert (image[20, 420] == 112).all()  # the head of somebody behind
    assert (image[:, :100] == 200).all() and (image[60:136, 370:430] == 200).all()


class Scripted:
    """A detector with frames in flight whose nose is where the image's brightest pixel is."""

    max_in_flight = 3
    starts = 0

    def __init__(self) -> None:
        type(self).starts += 1
        self.waiting: list[Frame] = []

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def submit(self, frame: Frame) -> None:
        self.waiting.append(frame)

    def collect(self) -> np.ndarray:
        image = self.waiting.pop(0).image[..., 0]
        keypoints = missing_keypoints()
        if image.max() > 100:
            y, x = np.unravel_index(image.argmax(), image.shape)
            keypoints[POSE] = ((x + 0.5) / image.shape[1], (y + 0.5) / image.shape[0], 0.9)
        return keypoints


def dot(x: int, y: int) -> np.ndarray:
    image = np.zeros((100, 200, 3), np.uint8)
    image[y, x] = 255
    return image


def test_points_of_a_region_are_fractions_of_the_whole_frame() -> None:
    with RegionDetector(Scripted, (50, 20, 150, 90), BoxLocator((60, 30, 140, 80))) as detector:
        keypoints = detector.detect(frame(dot(100, 40)))
        assert keypoints[0] == pytest.approx((100.5 / 200, 40.5 / 100, 0.9))
        assert (keypoints[33:] == (-1, -1, 0)).all()
        assert (detector.detect(frame(dot(10, 40))) == (-1, -1, 0)).all()  # outside the region: not seen


def test_a_detector_that_stays_with_somebody_else_restarts_and_no_frame_is_lost() -> None:
    Scripted.starts = 0
    with RegionDetector(Scripted, (50, 20, 150, 90), BoxLocator((60, 30, 140, 80))) as detector:
        xs = [100, 55, 55, 55, 55, 100, 101]  # 55 lies in the margin: somebody else
        found = []
        for index, x in enumerate(xs):
            detector.submit(frame(dot(x, 50)))
            if index >= 2:
                found.append(detector.collect())
        found += [detector.collect(), detector.collect()]
    assert [k[0, 2] > 0 for k in found] == [x >= 100 for x in xs]
    assert found[-1][0, 0] == pytest.approx(101.5 / 200)
    assert Scripted.starts == 2


# The choice


def kind(sees_pixels: bool = True) -> DetectorKind:
    return DetectorKind(
        lambda config, video_id: DetectorInfo(name="s", version="1"), lambda *_: Scripted(), sees_pixels
    )


def video(box: tuple[float, float, float, float] | None = None) -> VideoContext:
    return VideoContext(Path("v.mp4"), "v", 200, 100, 25.0, box)


def config(**settings: object) -> ExtractConfig:
    return ExtractConfig(videos=["v.mp4"], root="c", **settings)


def test_choose_none_and_detectors_without_pixels_leave_the_detector_alone() -> None:
    for settings, sees_pixels in ((config(signer={"choose": "none"}), True), (config(), False)):
        choice = SignerTracker(kind(sees_pixels), settings, None)
        assert type(choice.start(video())) is Scripted
        assert choice.info == SignerInfo(chosen_by="detector")


def test_a_box_of_the_annotations_goes_before_everything() -> None:
    box = (50.0, 20.0, 150.0, 80.0)
    choice = SignerTracker(kind(), config(signer={"choose": "none"}), None)
    detector = choice.start(video(box))
    assert choice.info == SignerInfo(chosen_by="box", region_px=(35, 11, 165, 89))
    assert detector.detect(frame(dot(100, 50)))[0, 0] == pytest.approx(100.5 / 200)
    assert detector.detect(frame(dot(40, 50)))[0, 2] == 0  # in the margin, where hands may be but no signer's nose


def test_a_box_beside_the_frame_is_a_fault_of_the_annotations() -> None:
    choice = SignerTracker(kind(), config(), None)
    with pytest.raises(UnreadableVideoError, match=r"box 300 0 400 100 lies outside the frame of 200x100"):
        choice.start(video((300, 0, 400, 100)))


# Composed videos: somebody who signs and somebody who stands by, each with ground truth

Place = Callable[[int], tuple[float, float, float]]
"""Frame to x, y of the panel's corner, px, and its scale."""
PANEL = slice(110, 530)
NUM_FRAMES = 50


class Composed(NamedTuple):
    """What was found in a composed video, against where the signer is.

    Attributes:
        metadata: Metadata of the extraction.
        found: (T,) whether the body was found.
        nose_error: (T,) distance from the signer's true nose, in half shoulder distances.
        hand_error, other_hand_error: (T, 2) distance of left and right hand's wrist from the signer's own, and from
            the wrist of the signer's other hand; NaN where the hand was not found.
    """

    metadata: VideoMetadata
    found: np.ndarray
    nose_error: np.ndarray
    hand_error: np.ndarray
    other_hand_error: np.ndarray


@pytest.fixture(scope="module")
def compose(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Composed]:
    """Extract a video in which demo_000 signs and demo_001 rests; ``hidden`` frames show no resting person."""
    import av

    folder = tmp_path_factory.mktemp("composed")

    @cache
    def panels(name: str) -> list[np.ndarray]:
        with VideoReader(tiny_corpus / "videos" / f"{name}.mp4") as reader:
            return [f.image[:, PANEL] for f in reader.frames()]

    def paste(picture: np.ndarray, panel: np.ndarray, place: tuple[float, float, float]) -> None:
        x, y, scale = int(place[0]), int(place[1]), place[2]
        panel = cv2.resize(panel, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x0, y0, x1, y1 = max(0, x), max(0, y), x + panel.shape[1], y + panel.shape[0]
        target = picture[y0 : max(0, y1), x0 : max(0, x1)]
        target[:] = panel[y0 - y : y0 - y + target.shape[0], x0 - x : x0 - x + target.shape[1]]

    def make(name: str, signs: Place, rests: Place, *, width_px: int = 640, hidden: range = range(0)) -> Composed:
        path = folder / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width_px, 360, "yuv420p"
            for index in range(NUM_FRAMES):
                picture = np.full((360, width_px, 3), 120, np.uint8)
                if index not in hidden:
                    paste(picture, panels("demo_001")[(0, 1, 2, 1)[index % 4]], rests(index))
                paste(picture, panels("demo_000")[index], signs(index))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        settings = ExtractConfig(videos=[path], root=folder / name)
        layout = CorpusLayout(settings.root)
        metadata = extract_video(VideoJob(VideoSource.at(path), settings, TRACKER))
        points = read_keypoints(layout.keypoints(name))
        with np.load(tiny_corpus / "ground_truth" / "demo_000.npz") as file:
            nose = file["body"][:NUM_FRAMES, file["body_names"].tolist().index("nose")]
            wrists = [file[hand][:NUM_FRAMES, 0] for hand in ("hand_l", "hand_r")]
        corner, scale = np.array([signs(i)[:2] for i in range(NUM_FRAMES)]), signs(0)[2]

        def error(row: int, truth: np.ndarray) -> np.ndarray:
            true_px = (truth - (PANEL.start, 0)) * scale + corner
            distance = np.linalg.norm(points[:, row, :2] * (width_px, 360) - true_px, axis=-1) / (84 * scale)
            return np.where(points[:, row, 2] > 0, distance, np.nan)

        rows = (HAND_L.start, HAND_R.start)
        return Composed(
            metadata,
            points[:, pose_index("nose"), 2] > 0,
            error(pose_index("nose"), nose),
            np.stack([error(row, wrist) for row, wrist in zip(rows, wrists, strict=True)], -1),
            np.stack([error(row, wrist) for row, wrist in zip(rows, wrists[::-1], strict=True)], -1),
        )

    return make


def at(x: float, y: float = 0.0, scale: float = 0.75) -> Place:
    return lambda index: (x, y, scale)


def assert_all_is_the_signers(result: Composed, min_found: float = 1.0) -> None:
    assert result.found.mean() >= min_found
    assert np.nanmax(result.nose_error) < 0.4
    present = np.isfinite(result.hand_error)
    assert present.mean() > 0.9 * min_found
    assert (result.hand_error[present] < 1.0).all()
    assert not (result.other_hand_error[present] < 0.5 * result.hand_error[present]).any()  # left is left


@pytest.mark.parametrize(
    ("name", "signs", "rests", "number"),
    [("left", at(0), at(325), 0), ("right_and_smaller", at(430, 120, 0.5), at(0, -60, 1.0), 1)],
)
def test_the_one_whose_hands_move_is_the_signer(
    name: str, signs: Place, rests: Place, number: int, compose: Callable[..., Composed]
) -> None:
    result = compose(name, signs, rests)
    signer = result.metadata.signer
    assert (signer.chosen_by, signer.num_people) == ("hand_motion", 2)
    assert signer.hand_motion[number] > 2 * signer.hand_motion[1 - number]
    assert_all_is_the_signers(result)


def test_a_signer_who_changes_sides_in_front_of_the_other_is_followed(compose: Callable[..., Composed]) -> None:
    step = 325 / (NUM_FRAMES - 1)
    result = compose("crossing", lambda i: (step * i, 0, 0.75), lambda i: (325 - step * i, 0, 0.75))
    assert result.metadata.signer.num_people == 2
    assert_all_is_the_signers(result, 0.95)


def test_a_second_person_who_comes_late_makes_the_extraction_start_over(compose: Callable[..., Composed]) -> None:
    result = compose("late", at(325), at(0), hidden=range(20))
    signer = result.metadata.signer
    assert (signer.chosen_by, signer.num_people) == ("hand_motion", 2)
    assert signer.region_px is not None and signer.region_px[0] > 185  # where the other's face ends
    assert result.metadata.num_frames == NUM_FRAMES
    assert_all_is_the_signers(result)


def test_somebody_else_is_never_taken_for_a_signer_who_left(compose: Callable[..., Composed]) -> None:
    result = compose("leaves", lambda i: (325 if i < 30 else 1000, 0, 0.75), at(0))
    assert result.metadata.signer.chosen_by == "hand_motion"
    assert result.found[:30].all() and np.max(result.nose_error[:30]) < 0.4
    assert not result.found[30:].any()


# Real footage


def test_both_faces_of_the_two_people_are_found_in_every_frame(shared_data: Path) -> None:
    with VideoReader(shared_data / "clips" / "lsat_two_people.gif") as reader:
        finder = FaceFinder(shared_engine(None))
        people = link((f.time_s, finder.find(f.image)) for f in reader.frames())
    assert [len(person.faces) for person in people] == [24, 24]
