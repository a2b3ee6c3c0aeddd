"""Keypoints, pose and tracks: reproducible bytes, pieces of long videos, damage that is named."""

from __future__ import annotations

import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import DamagedFile
from signstreams.formats import landmarks
from signstreams.formats.arrays import (
    PIECE_FRAMES,
    StreamTrack,
    Tracks,
    keypoint_pieces,
    read_keypoints,
    read_pose,
    read_times,
    read_tracks,
    write_keypoint_pieces,
    write_keypoints,
    write_pose,
    write_tracks,
)
from signstreams.streams import STREAMS


def test_there_are_543_named_points_with_anatomical_sides() -> None:
    assert len(landmarks.KEYPOINT_NAMES) == len(set(landmarks.KEYPOINT_NAMES)) == 543
    assert landmarks.KEYPOINT_NAMES[landmarks.HAND_L][0] == "hand_l.wrist"
    assert landmarks.KEYPOINT_NAMES[landmarks.HAND_R][20] == "hand_r.pinky_tip"
    assert landmarks.pose_index("left_wrist") == 15
    assert landmarks.HAND_NAMES[8] == "index_tip"


def tracks(num_frames: int) -> Tracks:
    track = StreamTrack(np.zeros((num_frames, 4)), np.ones(num_frames), np.ones(num_frames))
    return Tracks(dict.fromkeys(STREAMS, track), np.arange(num_frames) / 25)


def test_arrays_round_trip_with_reproducible_bytes(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((4, 543, 3))
    for name in "ab":
        write_keypoints(tmp_path / f"{name}.npz", points)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(read_keypoints(tmp_path / "a.npz"), points.astype(np.float32))
    write_pose(tmp_path / "p.npz", np.zeros((4, 99)))
    assert read_pose(tmp_path / "p.npz").dtype == np.float32
    write_tracks(tmp_path / "t.npz", tracks(4))
    assert read_tracks(tmp_path / "t.npz").streams["hand_l"].state.dtype == np.uint8


def test_arrays_of_another_shape_type_or_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_keypoints(path, np.zeros((4, 79, 3)))
    with pytest.raises(DamagedFile, match=r"\(4, 79, 3\), expected \(T, 543, 3\)"):
        read_keypoints(path)
    np.savez(path, keypoints=np.zeros((4, 543, 3)))
    with pytest.raises(DamagedFile, match="float64, expected float32"):
        read_keypoints(path)
    np.savez(path, other=np.zeros(1))
    with pytest.raises(DamagedFile, match="no array 'keypoints'"):
        read_keypoints(path)
    np.savez(path, keypoints=np.array([{}], dtype=object))
    with pytest.raises(DamagedFile, match="allow_pickle"):
        read_keypoints(path)
    path.write_bytes(b"junk")
    with pytest.raises(DamagedFile):
        read_keypoints(path)
    np.savez(path, pose=np.zeros((1, 99), np.float32))
    with pytest.raises(DamagedFile, match="pose_norm is 'absent'"):
        read_pose(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DamagedFile, match="single array"):
        read_keypoints(tmp_path / "b.npy")


def test_a_damaged_array_file_is_refused_wherever_the_damage_lies(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_keypoints(path, np.random.default_rng(0).random((4, 543, 3)))
    whole = path.read_bytes()
    for place in range(40, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 8]) + whole[place + 8 :])
        with pytest.raises((DamagedFile, OSError)):
            read_keypoints(path)


@pytest.mark.parametrize("header", [b"junk", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4\n    "])
def test_a_member_without_a_readable_header_is_damage(header: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("keypoints.npy", header)
    with pytest.raises(DamagedFile, match=r"a\.npz: .*; extract the video again"):
        read_keypoints(tmp_path / "a.npz")
    with pytest.raises(DamagedFile):
        list(keypoint_pieces(tmp_path / "a.npz"))


def test_times_are_read_without_the_boxes(tmp_path: Path) -> None:
    write_tracks(tmp_path / "t.npz", tracks(4))
    assert read_times(tmp_path / "t.npz").tolist() == [0, 0.04, 0.08, 0.12]
    np.savez(tmp_path / "t.npz", other=np.zeros(1))
    with pytest.raises(DamagedFile, match="no array 'times_s'"):
        read_times(tmp_path / "t.npz")


@pytest.mark.parametrize("num_frames", [0, 1, PIECE_FRAMES, 2 * PIECE_FRAMES + 3])
def test_keypoints_pass_through_files_in_pieces(num_frames: int, tmp_path: Path) -> None:
    keypoints = np.random.default_rng(0).random((num_frames, 543, 3), np.float32)
    cuts = [0, num_frames // 3, num_frames]
    write_keypoint_pieces(tmp_path / "a.npz", num_frames, (keypoints[a:b] for a, b in pairwise(cuts)))
    write_keypoints(tmp_path / "b.npz", keypoints)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    pieces = list(keypoint_pieces(tmp_path / "a.npz"))
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_FRAMES] * (len(pieces) - 1)
    assert np.array_equal(np.concatenate([np.empty((0, 543, 3), np.float32), *pieces]), keypoints)


def test_pieces_of_an_array_in_another_order_of_axes_are_the_same(tmp_path: Path) -> None:
    keypoints = np.random.default_rng(0).random((5, 543, 3), np.float32)
    np.savez(tmp_path / "a.npz", keypoints=np.asfortranarray(keypoints))
    assert np.array_equal(np.concatenate(list(keypoint_pieces(tmp_path / "a.npz"))), keypoints)


@pytest.mark.parametrize(
    ("num_frames", "written", "said"), [(4, 3, "ends in frame 3 of 4"), (4, 5, "goes on after its 4 frames")]
)
def test_pieces_of_a_wrong_length_are_refused(num_frames: int, written: int, said: str, tmp_path: Path) -> None:
    write_keypoint_pieces(tmp_path / "a.npz", num_frames, [np.zeros((written, 543, 3), np.float32)])
    with pytest.raises(DamagedFile, match=said):
        list(keypoint_pieces(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": np.zeros(3)}, "keypoints"),
        ({"keypoints": np.zeros((2, 543, 3))}, "float64, expected float32"),
        ({"keypoints": np.zeros((2, 79, 3), np.float32)}, r"expected \(T, 543, 3\)"),
        ({"keypoints": np.array([None])}, "object"),
    ],
)
def test_pieces_of_something_else_are_refused(arrays: dict, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DamagedFile, match=said):
        list(keypoint_pieces(tmp_path / "a.npz"))
