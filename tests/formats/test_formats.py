"""What one stage writes, another reads: crop archives, arrays, metadata, layout."""

from __future__ import annotations

import pickle
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from signstreams.files import read_json
from signstreams.formats import landmarks
from signstreams.formats.arrays import (
    PIECE_FRAMES,
    Keypoints,
    Pose,
    StreamTrack,
    Tracks,
    keypoint_pieces,
    read_keypoints,
    read_pose,
    read_tracks,
    write_keypoint_pieces,
    write_keypoints,
    write_pose,
    write_tracks,
)
from signstreams.formats.crops import CropReader, CropWriter, crop_name, crops_digest, list_crops, parse_crop_name
from signstreams.formats.layout import find_videos, passed_over_videos
from signstreams.formats.metadata import VideoMetadata, read_metadata
from signstreams.streams import STREAMS

VIDEO = "Ñandú d'ayer"


def write_archive(path: Path, frames: dict[int, bytes], video_id: str = VIDEO) -> None:
    with CropWriter(path, video_id) as writer:
        for frame, jpeg in frames.items():
            writer.add(frame, jpeg)


def test_an_archive_gives_back_each_crop_with_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / f"{VIDEO}.zip", {0: b"zero", 7: b"seven" * 100})
    crops = list_crops(tmp_path)
    assert [(crop.video_id, crop.frame) for crop in crops] == [(VIDEO, 0), (VIDEO, 7)]
    reads = []
    import os

    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    reader = CropReader()
    assert [reader.read(crop) for crop in crops] == [b"zero", b"seven" * 100]
    assert len(reads) == 2
    reader.close()


def test_an_archive_is_stored_and_opens_with_any_tool(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", {3: b"x" * 50}, "a")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert [(m.filename, m.compress_type) for m in archive.infolist()] == [("a_f000003.jpg", zipfile.ZIP_STORED)]


def test_an_archive_has_the_bytes_that_zipfile_gives_it_and_keeps_no_member_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 500)  # from there on the directory is ZIP64
    frames = range(0, 2000, 2)
    plain = zipfile.ZipFile(tmp_path / "plain.zip", "w", zipfile.ZIP_STORED)
    with CropWriter(tmp_path / "a.zip", VIDEO) as writer, plain:
        tracemalloc.start()
        for frame in frames:
            writer.add(frame, b"%d" % frame)
        num_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for frame in frames:
            plain.writestr(zipfile.ZipInfo(crop_name(VIDEO, frame), (1980, 1, 1, 0, 0, 0)), b"%d" % frame)
    assert num_bytes < 60 * len(frames)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "plain.zip").read_bytes()
    assert [crop.frame for crop in list_crops(tmp_path / "a.zip")] == list(frames)


def test_an_archive_of_another_tool_with_extra_fields_is_read(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a_f000001.jpg")
    info.extra = b"\x99\x99\x04\x00abcd"
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(info, b"body")
        archive.writestr("notes.txt", b"passed over")
    (crop,) = list_crops(tmp_path / "a.zip")
    assert CropReader().read(crop) == b"body"


def test_loose_jpegs_and_archives_read_alike(tmp_path: Path) -> None:
    write_archive(tmp_path / "zip" / "a.zip", {1: b"one", 2: b"two"}, "a")
    (tmp_path / "loose").mkdir()
    for frame, body in ((2, b"two"), (1, b"one")):
        (tmp_path / "loose" / crop_name("a", frame)).write_bytes(body)
    (tmp_path / "loose" / "README.txt").write_text("no crop")
    reader = CropReader()
    pairs = [[(c.video_id, c.frame, reader.read(c)) for c in list_crops(tmp_path / kind)] for kind in ("zip", "loose")]
    assert pairs[0] == pairs[1] == [("a", 1, b"one"), ("a", 2, b"two")]


def test_the_digest_follows_content_and_not_the_place(tmp_path: Path) -> None:
    for folder, body in (("x", b"same"), ("y", b"same"), ("z", b"else")):
        write_archive(tmp_path / folder / "a.zip", {0: body}, "a")
    digests = [crops_digest(list_crops(tmp_path / folder)) for folder in "xyz"]
    assert digests[0] == digests[1] != digests[2]


def test_a_reader_survives_pickling_and_many_archives(tmp_path: Path) -> None:
    for number in range(300):
        write_archive(tmp_path / f"v{number:03d}.zip", {0: str(number).encode()}, f"v{number:03d}")
    reader = pickle.loads(pickle.dumps(CropReader()))  # noqa: S301  our own object, made on this line
    assert [int(reader.read(crop)) for crop in list_crops(tmp_path)] == list(range(300))


def test_a_failed_archive_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), CropWriter(tmp_path / "a.zip", "a") as writer:
        writer.add(0, b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_broken_and_compressed_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no")
    with pytest.raises(ValueError, match=r"a\.zip"):
        list_crops(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_f000000.jpg", b"x" * 100)
    with pytest.raises(ValueError, match="compressed"):
        list_crops(tmp_path)


def test_an_archive_replaced_while_in_use_is_noticed(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", {0: b"x" * 10, 1: b"y"}, "a")
    crops = list_crops(tmp_path)
    write_archive(tmp_path / "a.zip", {0: b"x" * 33}, "a")
    with pytest.raises(ValueError, match=r"changed while in use|ends before"):
        CropReader().read(crops[1])


@pytest.mark.parametrize("name", ["a.jpg", "a_f1.jpg", "_f000000.jpg", "a_f000000.png", "a_f00000x.jpg"])
def test_foreign_names_are_no_crops(name: str) -> None:
    assert parse_crop_name(name) is None


def test_names_round_trip() -> None:
    assert parse_crop_name(crop_name("a_f000001", 1234567)) == ("a_f000001", 1234567)


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
        write_keypoints(tmp_path / f"{name}.npz", Keypoints(points))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(read_keypoints(tmp_path / "a.npz").keypoints, points.astype(np.float32))
    write_pose(tmp_path / "p.npz", Pose(np.zeros((4, 99))))
    assert read_pose(tmp_path / "p.npz").pose.dtype == np.float32
    write_tracks(tmp_path / "t.npz", tracks(4))
    assert read_tracks(tmp_path / "t.npz").streams["hand_l"].state.dtype == np.uint8


def test_arrays_of_another_shape_type_or_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_keypoints(path, Keypoints(np.zeros((4, 79, 3))))
    with pytest.raises(ValueError, match=r"\(4, 79, 3\), expected \(T, 543, 3\)"):
        read_keypoints(path)
    np.savez(path, keypoints=np.zeros((4, 543, 3)))
    with pytest.raises(ValueError, match="float64, expected float32"):
        read_keypoints(path)
    np.savez(path, other=np.zeros(1))
    with pytest.raises(ValueError, match="no array 'keypoints'"):
        read_keypoints(path)
    np.savez(path, keypoints=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_keypoints(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError):
        read_keypoints(path)
    np.savez(path, pose=np.zeros((1, 99), np.float32))
    with pytest.raises(ValueError, match="pose_norm is 'absent'"):
        read_pose(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(ValueError, match="single array"):
        read_keypoints(tmp_path / "b.npy")


def test_a_damaged_array_file_is_refused_wherever_the_damage_lies(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_keypoints(path, Keypoints(np.random.default_rng(0).random((4, 543, 3))))
    whole = path.read_bytes()
    for place in range(40, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 8]) + whole[place + 8 :])
        with pytest.raises((ValueError, OSError)):
            read_keypoints(path)


def test_metadata_with_a_foreign_field_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"video": 1}')
    with pytest.raises(ValueError, match="'video_id': ") as caught:
        read_metadata(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_metadata_holds_finite_numbers_only(number: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(f'{{"source_fps": {number}, "signer": {{"hand_motion": [{number}]}}}}')
    with pytest.raises(ValidationError) as caught:
        VideoMetadata.model_validate(read_json(tmp_path / "m.json"))
    found = {error["loc"] for error in caught.value.errors() if error["type"] == "finite_number"}
    assert found == {("source_fps",), ("signer", "hand_motion", 0)}


def test_videos_are_found_by_ending_and_twins_are_refused(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.gif", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    assert list(find_videos(tmp_path)) == ["a", "b"]
    (tmp_path / "a.mov").touch()
    with pytest.raises(ValueError, match=r"a\.gif.*a\.mov"):
        find_videos(tmp_path)


def test_foreign_endings_and_sub_folders_of_videos_are_named_as_passed_over(tmp_path: Path) -> None:
    files = (
        *("a.mp4", "b.MTS", "c.wmv", "notes.txt", ".hidden.mts", "folder.mp4/x.mp4"),
        *("converted.mts", "converted.mp4"),
        *("session1/d.mp4", "session2/cam/e.vob", "texts/f.txt", ".trash/g.mp4", "frames/0001.png"),
    )
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert [path.name for path in passed_over_videos(tmp_path)] == ["b.MTS", "c.wmv", "session1", "session2"]
    assert list(find_videos(tmp_path)) == ["a", "converted", "folder.mp4", "frames"]
    with pytest.raises(FileNotFoundError):
        passed_over_videos(tmp_path / "absent")


@pytest.mark.parametrize("num_frames", [0, 1, PIECE_FRAMES, 2 * PIECE_FRAMES + 3])
def test_keypoints_pass_through_files_in_pieces(num_frames: int, tmp_path: Path) -> None:
    keypoints = np.random.default_rng(0).random((num_frames, 543, 3), np.float32)
    cuts = [0, num_frames // 3, num_frames]
    write_keypoint_pieces(tmp_path / "a.npz", num_frames, (keypoints[a:b] for a, b in pairwise(cuts)))
    write_keypoints(tmp_path / "b.npz", Keypoints(keypoints))
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
    with pytest.raises(ValueError, match=said):
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
    with pytest.raises(ValueError, match=said):
        list(keypoint_pieces(tmp_path / "a.npz"))
