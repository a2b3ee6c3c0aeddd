"""Points that another tool found: every way they are written gives the same crops, and what is wrong is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pose_format.pose_header import PoseHeaderComponent

from signstreams.errors import UserError
from signstreams.extract.annotations import VideoAnnotations
from signstreams.extract.batch import extract_videos
from signstreams.extract.precomputed import PrecomputedDetector, precomputed_info
from signstreams.extract.settings import ExtractConfig, missing_points
from signstreams.extract.video import Frame
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata
from signstreams.streams import STREAMS, BoxState

from .made_up_points import HEIGHT, WIDTH, extracted, mediapipe, person, write_pose

T = 12


@pytest.fixture
def extract(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[..., tuple[VideoMetadata, CorpusLayout]]:
    """``extract(save, ...)`` makes a video, lets ``save(folder)`` write its points, and extracts it."""
    return partial(extracted, make_video(num_frames=T), tmp_path)


def saved(**arrays: object) -> Callable[[Path], object]:
    return lambda folder: np.savez(folder / "video.npz", **arrays)


def as_npy(array: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / "video.npy", array, allow_pickle=True)


PX = person(T)
FRACTION = np.concatenate([PX[..., :2] / np.float32((WIDTH, HEIGHT)), PX[..., 2:]], -1)
DEPTH = np.random.default_rng(0).normal(0, 0.1, (T, 543, 1)).astype(np.float32)
WAYS = {
    "px, confidence": saved(keypoints=PX),
    "px, doubles": saved(keypoints=PX.astype(np.float64)),
    "px of a larger frame": saved(keypoints=PX * np.float32((2, 2, 1)), width_px=2 * WIDTH, height_px=2 * HEIGHT),
    "fractions": saved(keypoints=FRACTION),
    "the only array, by any name": saved(poses=PX, fps=30),
    "RTMPose": saved(keypoints=PX[:, None, :, :2], scores=PX[:, None, :, 2]),
    "RTMPose, scores by row": saved(keypoints=PX[:, None, :, :2], scores=PX[..., 2]),
    "three coordinates": saved(keypoints=np.concatenate([PX[..., :2], PX[..., :1], PX[..., 2:]], -1)),
    "npy": as_npy(PX),
    "NaN for missing": as_npy(np.where(PX[..., 2:] > 0, PX, np.nan)),
    "MediaPipe": as_npy(mediapipe(PX)),
    "MediaPipe, px": as_npy(mediapipe(PX) * np.float32((WIDTH, HEIGHT, 1)) * (mediapipe(PX)[..., 2:] > 0)),
    "MediaPipe, x, y, z": as_npy(
        np.where(mediapipe(PX)[..., 2:] > 0, np.concatenate([mediapipe(PX)[..., :2], DEPTH], -1), np.nan)
    ),
    "x, y": as_npy(PX[..., :2]),
    "times": saved(keypoints=PX, times_s=np.arange(T) / 30),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_points_gives_the_same_boxes(extract: Callable, way: str) -> None:
    metadata, layout = extract(WAYS[way])
    assert (metadata.status, metadata.reason, metadata.note) == ("ok", None, None)
    assert metadata.detector.name == "precomputed"
    points = read_keypoints(layout.keypoints("video"))
    expected = mediapipe(PX)
    assert np.allclose(points[..., :2], expected[..., :2], atol=1e-4)
    assert ((points[..., 2] > 0) == (expected[..., 2] > 0)).all()
    tracks = read_tracks(layout.tracks("video"))
    for stream in STREAMS:
        assert (tracks.streams[stream].state == BoxState.DETECTED).all()
    left = tracks.streams["hand_l"].box
    assert left[-1, 0] - left[0, 0] == pytest.approx(2 * (T - 1), abs=1.5)
    assert (read_pose(layout.pose("video"))[:, :2] != -1).all()  # nose, eyes and shoulders make a signing space


def in_order(*parts: slice) -> np.ndarray:
    """A whole mesh with its parts in another order."""
    points = mediapipe(PX)
    face = points[:, FACE]
    spread = np.random.default_rng(0).uniform(-0.02, 0.02, face.shape).astype(np.float32) + np.float32((0.5, 0.25, 0.9))
    points[:, FACE] = np.where(face[..., 2:] > 0, face, spread)
    points[:, FACE.start + 11 : FACE.start + 13] = (0.5, 0.3, 1)  # lips
    return np.concatenate([points[:, part] for part in parts], axis=1)


def cut_off(folder: Path) -> None:
    np.save(folder / "video.npy", PX)
    (folder / "video.npy").write_bytes((folder / "video.npy").read_bytes()[:900])


HEAD = [PoseHeaderComponent("head", ["a"], [], [], "XYC")]
WRONG = {
    "layout": (as_npy(np.zeros((T, 25, 3))), "the points are (12, 25, 3), expected (rows, points, values)"),
    "dimensions": (as_npy(np.zeros((T, 133 * 3))), "expected (rows, points, values)"),
    "no rows": (as_npy(np.zeros((0, 133, 3))), "expected (rows, points, values)"),
    "objects": (as_npy(np.array([{"a": 1}], dtype=object)), "holds Python objects, expected numbers"),
    "pickled npz": (saved(keypoints=np.array([None], dtype=object)), "holds Python objects, expected numbers"),
    "text": (as_npy(np.array([["a"]])), "expected numbers"),
    "no array": (lambda f: (f / "video.npy").write_bytes(b"keypoints"), "expected numbers"),
    "cut off": (cut_off, "that NumPy can read"),
    "empty": (lambda f: (f / "video.npz").write_bytes(b""), "that NumPy can read"),
    "two arrays": (saved(body=PX, hands=PX), "expected 'keypoints' or a single array"),
    "two scores": (saved(keypoints=PX, scores=PX[..., 2], confidence=PX[..., 2]), "expected one of them"),
    "scores": (saved(keypoints=PX[..., :2], scores=PX[:-1, :, 2]), "scores are (11, 1, 133), expected (12, 1, 133)"),
    "times": (saved(keypoints=PX, times_s=np.zeros(T)), "expected 12 rising times"),
    "fps": (saved(keypoints=PX, fps=0), "'fps' is 0, expected one number above 0, at most 1000"),
    "half a size": (saved(keypoints=PX, width_px=160), "expected both or neither"),
    "nothing found": (as_npy(PX * np.float32((1, 1, 0.1))), "every point is missing, or below a confidence of 0.3"),
    "another size": (as_npy(PX * np.float32((6, 6, 1))), "lie outside the frame of 160x120 px"),
    "turned": (saved(keypoints=PX, width_px=120, height_px=160), "120x160 px, but the upright video is 160x120"),
    "face first": (as_npy(in_order(FACE, HAND_L, POSE, HAND_R)), "another order"),
    "hands first": (as_npy(in_order(POSE, HAND_L, HAND_R, FACE)), "another order"),
    "no .pose": (lambda f: (f / "video.pose").write_bytes(bytes(range(256))), "that pose-format can read"),
    "components": (lambda f: write_pose(f / "video.pose", HEAD, np.ones((T, 1, 1, 3))), "components 'head', expected"),
    "too few": (as_npy(PX[:9]), "found 9 rows, expected about 12 as the video has frames"),
    "too many": (as_npy(person(20)), "found 20 rows, expected about 12"),
    "times elsewhere": (saved(keypoints=PX, times_s=np.arange(T) + 100.0), "no row is at the time of a frame"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_points_that_cannot_be_used_quarantine_their_video_in_one_line(extract: Callable, fault: str) -> None:
    save, expected = WRONG[fault]
    metadata, layout = extract(save)
    assert metadata.status == "quarantined" and metadata.num_frames == 0
    assert "video.np" in metadata.reason or "video.pose" in metadata.reason
    assert expected in metadata.reason and "\n" not in metadata.reason
    assert read_keypoints(layout.keypoints("video")).shape == (0, 543, 3)


def test_a_row_too_few_is_noted_and_the_frame_has_no_points(extract: Callable) -> None:
    metadata, layout = extract(as_npy(PX[:-1]))
    assert metadata.status == "ok" and metadata.note == "video.npy has no row for 1 of 12 frames"
    points = read_keypoints(layout.keypoints("video"))
    assert (points[-1] == (-1, -1, 0)).all() and (points[-2, 0] != -1).all()


def wrist_px(layout: CorpusLayout) -> np.ndarray:
    return read_keypoints(layout.keypoints("video"))[:, pose_index("left_wrist"), 0] * WIDTH


def test_rows_follow_frames_when_frames_are_taken_at_another_rate(extract: Callable) -> None:
    metadata, layout = extract(as_npy(PX), fps=15)
    assert metadata.num_frames == 6 and metadata.note is None
    assert np.diff(wrist_px(layout)) == pytest.approx([4.0] * 5, abs=1e-3)


def test_rows_of_another_rate_go_by_time(extract: Callable) -> None:
    metadata, layout = extract(saved(keypoints=person(T // 2, moves=4), fps=15))
    assert metadata.status == "ok"
    assert wrist_px(layout) == pytest.approx(105 + 4 * np.repeat(np.arange(6), 2), abs=2.1)
    assert metadata.note is None


def test_as_many_rows_as_frames_are_frames_at_any_stated_rate(extract: Callable) -> None:
    _, layout = extract(saved(keypoints=PX, fps=24))
    assert np.diff(wrist_px(layout)) == pytest.approx([2.0] * (T - 1), abs=1e-3)


def test_rows_with_times_go_by_the_nearest_and_gaps_are_missing(extract: Callable) -> None:
    kept = [0, 1, 2, 3, 8, 9, 10, 11]
    metadata, layout = extract(saved(keypoints=PX[kept], times_s=np.array(kept) / 30 + 0.004))
    assert metadata.note == "video.npz has no row for 4 of 12 frames"
    points = read_keypoints(layout.keypoints("video"))
    assert np.flatnonzero(points[:, 0, 2] > 0).tolist() == kept
    assert wrist_px(layout)[kept] == pytest.approx(105 + 2.0 * np.array(kept), abs=1e-3)


@pytest.mark.parametrize("way", [saved(keypoints=PX), saved(keypoints=PX, times_s=np.arange(T) / 30)])
def test_a_span_of_the_video_takes_its_own_rows(extract: Callable, way: Callable[[Path], object]) -> None:
    metadata, layout = extract(way, annotations=VideoAnnotations(spans_s=((0.19, 0.31),)), spans_only=True)
    assert (metadata.status, metadata.note, metadata.num_frames) == ("ok", None, 4)
    assert wrist_px(layout) == pytest.approx([105 + 2.0 * row for row in (6, 7, 8, 9)], abs=1e-3)


def test_points_below_the_confidence_are_missing_and_a_hand_guessed_by_half_is_none(extract: Callable) -> None:
    points = PX.copy()
    points[:, 0, 2] = 0.2  # the nose
    points[:, 91:103, 2] = 0.1  # 12 of the left hand's 21
    points[:, 112:120, 2] = 0.1  # 8 of the right hand's
    metadata, layout = extract(as_npy(points))
    found = read_keypoints(layout.keypoints("video"))[0, :, 2] > 0
    assert not found[0] and not found[HAND_L].any() and found[HAND_R].sum() == 13
    assert metadata.states["hand_l"] == {"missing": 0, "detected": 0, "tracked": T, "filled": 0}
    metadata, layout = extract(as_npy(points), precomputed={"min_confidence": 0.05})
    assert (read_keypoints(layout.keypoints("video"))[0, :, 2] > 0)[HAND_L].all()


def test_mediapipe_points_are_not_dropped_by_a_confidence_they_do_not_have(extract: Callable) -> None:
    """Faint body points stay, as from Holistic; hands and face, whose visibility is 0 in MediaPipe, are there."""
    points = mediapipe(PX)
    present = points[..., 2] > 0
    points[:, POSE, 2] = np.where(present[:, POSE], 0.05, 0)
    points[:, FACE.start :, 2] = 0
    metadata, layout = extract(as_npy(points))
    assert metadata.status == "ok"
    found = read_keypoints(layout.keypoints("video"))
    assert ((found[..., 2] > 0) == present).all()
    assert (found[:, FACE.start :, 2][present[:, FACE.start :]] == 1).all()
    assert found[0, 0, 2] == np.float32(0.05)


def test_the_signer_of_several_people_is_followed_through_changing_slots(extract: Callable) -> None:
    still, signing = person(T, moves=0, x_px=-40), person(T, moves=3, x_px=25)
    both = np.stack([still, signing], axis=1)
    both[1::2] = both[1::2, ::-1]
    metadata, layout = extract(as_npy(both))
    assert metadata.status == "ok"
    nose = read_keypoints(layout.keypoints("video"))[:, 0, 0] * WIDTH
    assert nose == pytest.approx([105.0] * T, abs=1e-3)
    assert metadata.signer.chosen_by == "hand_motion" and metadata.signer.num_people == 2
    left, right = metadata.signer.hand_motion
    assert left == 0 < right
    metadata, layout = extract(as_npy(both), annotations=VideoAnnotations(box=(0, 0, 80, 120)))
    nose = read_keypoints(layout.keypoints("video"))[:, 0, 0] * WIDTH
    assert nose == pytest.approx([40.0] * T, abs=1e-3) and metadata.signer.chosen_by == "box"
    metadata, layout = extract(as_npy(both), signer={"choose": "none"})
    nose = read_keypoints(layout.keypoints("video"))[:, 0, 0] * WIDTH
    assert nose == pytest.approx([40.0, 105.0] * (T // 2), abs=1e-3) and metadata.signer.chosen_by == "detector"


def test_a_signer_who_is_lost_for_a_while_is_found_again(extract: Callable) -> None:
    still, signing = person(T, moves=0, x_px=-40), person(T, moves=3, x_px=25)
    both = np.stack([still, signing], axis=1)
    both[4:7, 1] = 0
    both[7:] = both[7:, ::-1]
    _, layout = extract(as_npy(both))
    points = read_keypoints(layout.keypoints("video"))[:, 0]
    assert (points[4:7] == (-1, -1, 0)).all()
    assert np.delete(points[:, 0], [4, 5, 6]) * WIDTH == pytest.approx([105.0] * 9, abs=1e-3)


def test_swapped_hands_go_to_their_own_wrists(extract: Callable) -> None:
    points = PX.copy()
    points[:, 91:112], points[:, 112:] = PX[:, 112:], PX[:, 91:112]
    _, layout = extract(as_npy(points))
    assert np.allclose(read_keypoints(layout.keypoints("video")), mediapipe(PX), atol=1e-4)


def test_absent_points_are_said_of_all_videos_before_any_work(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    paths = [make_video(name) for name in ("a.mp4", "b.mp4", "c.mp4", "ñandú 1.mp4")]
    folder = tmp_path / "points"
    folder.mkdir()
    np.save(folder / "c.npy", PX)
    np.save(folder / "ñandú 1.npy", PX)
    np.savez(folder / "ñandú 1.npz", PX)
    config = ExtractConfig(
        videos=paths, root=tmp_path / "corpus", detector="precomputed", precomputed={"folder": folder}
    )
    with pytest.raises(UserError) as caught:
        extract_videos(config)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(
        str(folder / name) in line and "expected a file ending in" in line
        for name, line in zip("ab", lines[:2], strict=True)
    )
    assert "also in ñandú 1.npy" in lines[2]
    assert not (tmp_path / "corpus").exists()
    gone = config.model_copy(update={"precomputed": config.precomputed.model_copy(update={"folder": tmp_path / "no"})})
    assert missing_points(gone, ["a", "b"]) == [
        f"{tmp_path / 'no'}: no such folder; expected the points of the videos (precomputed.folder)"
    ]
    assert missing_points(ExtractConfig(videos=paths, root=tmp_path), ["a"]) == []


def test_only_changed_points_are_extracted_again(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path, folder = make_video(num_frames=T), tmp_path / "points"
    folder.mkdir()
    np.save(folder / "video.npy", PX)
    config = ExtractConfig(
        videos=[path], root=tmp_path / "corpus", detector="precomputed", precomputed={"folder": folder}
    )
    assert list(extract_videos(config).extracted) == ["video"]
    assert extract_videos(config).unchanged == ["video"]
    moved = tmp_path / "moved"
    folder.rename(moved)
    config = config.model_copy(update={"precomputed": config.precomputed.model_copy(update={"folder": moved})})
    assert extract_videos(config).unchanged == ["video"]  # the content counts, not the place
    np.save(moved / "video.npy", person(T, moves=1))
    assert list(extract_videos(config).extracted) == ["video"]
    assert len(precomputed_info(config, "video").settings["sha256"]) == 64


@pytest.mark.parametrize("kind", ["points", "video"])
def test_a_file_that_is_replaced_while_it_is_read_leaves_no_record(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its digest would vouch for frames or points that were never read."""
    video, folder = make_video(num_frames=T), tmp_path / "points"
    folder.mkdir()
    np.savez(folder / "video.npz", keypoints=PX)
    config = ExtractConfig(
        videos=[video], root=tmp_path / "corpus", detector="precomputed", precomputed={"folder": folder}
    )
    detect, seen = PrecomputedDetector.detect, []

    def replacing(self: PrecomputedDetector, frame: Frame) -> np.ndarray:
        seen.append(frame.time_s)
        if len(seen) == 5 and kind == "points":
            np.savez(folder / "video.npz", keypoints=person(T, x_px=3))
        elif len(seen) == 5:
            video.write_bytes(video.read_bytes() + bytes(100))
        return detect(self, frame)

    monkeypatch.setattr(PrecomputedDetector, "detect", replacing)
    with pytest.raises(UserError, match="changed while it was read, expected a whole"):
        extract_videos(config)
    assert not CorpusLayout(config.root).metadata("video").exists()
    assert list(extract_videos(config).extracted) == ["video"]


def test_points_of_our_own_give_the_same_files_again(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "clips" / "lsat_one_signer_studio.gif"
    first, again = CorpusLayout(tmp_path / "first"), CorpusLayout(tmp_path / "again")
    extract_videos(ExtractConfig(videos=[path], root=first.root))
    config = ExtractConfig(
        videos=[path],
        root=again.root,
        detector="precomputed",
        precomputed={"folder": first.keypoints(path.stem).parent},
    )
    found = extract_videos(config).extracted[path.stem]
    assert found.note is None and found.signer.chosen_by == "detector"
    for place in (CorpusLayout.keypoints, CorpusLayout.pose, CorpusLayout.tracks):
        assert place(first, path.stem).read_bytes() == place(again, path.stem).read_bytes()
    for stream in STREAMS:
        assert first.crops(stream, path.stem).read_bytes() == again.crops(stream, path.stem).read_bytes()
