"""Keypoints, pose and tracks, broken in any of these ways, are reported by file, rule and fix, and do not pass."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from signstreams.formats.arrays import write_keypoints

from .breaches import ONE, VIDEO, Breaches, BreakIt
from .corpora import NUM_FRAMES, BrokenCorpus

breaks = Breaches()


def points(change: Callable[[np.ndarray], Any]) -> np.ndarray:
    values = np.full((NUM_FRAMES, 543, 3), 0.5, np.float32)
    change(values)
    return values


def pose(change: Callable[[np.ndarray], Any]) -> np.ndarray:
    values = np.full((NUM_FRAMES, 33, 3), 0.5, np.float32)
    change(values)
    return values.reshape(NUM_FRAMES, 99)


def put(index: Any, value: Any) -> Callable[[np.ndarray], None]:
    return lambda array: array.__setitem__(index, value)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def npz_that_unpacks_to_ten_gigabytes(corpus: BrokenCorpus) -> None:
    path = corpus.layout.keypoints(VIDEO)
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02")
    # ZIP64: the size stands in the extra field of the directory
    end = data.rindex(b"PK\x05\x06")
    name_size = struct.unpack_from("<H", data, place + 28)[0]
    extra = struct.pack("<HHQ", 1, 8, 10 * 2**30)
    entry = bytearray(data[place : place + 46 + name_size])
    entry[24:28], entry[30:32] = b"\xff" * 4, struct.pack("<H", len(extra))
    tail = bytearray(data[end:])
    tail[12:16] = struct.pack("<I", len(entry) + len(extra))
    path.write_bytes(data[:place] + bytes(entry) + extra + bytes(tail))
    corpus.seal(VIDEO)


@breaks("pose.readable", ONE.format("pose") + ".npz", "--force")
def npz_of_far_more_than_its_frames(corpus: BrokenCorpus) -> None:
    corpus.write_pose(VIDEO, np.zeros((NUM_FRAMES * 1000, 99)))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def header_that_claims_a_trillion_frames(corpus: BrokenCorpus) -> None:
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 543, 3), }"
    text += b" " * (117 - len(text)) + b"\n"
    with zipfile.ZipFile(corpus.layout.keypoints(VIDEO), "w") as archive:
        archive.writestr("keypoints.npy", header + struct.pack("<H", len(text)) + text)
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def keypoints_in_doubles(corpus: BrokenCorpus) -> None:
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 543, 3), 0.5))
    corpus.seal(VIDEO)


@breaks("tracks.rate", ONE.format("tracks") + ".npz", "--force")
def times_at_another_rate(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__imul__(0.5))


@breaks("tracks.rate", ONE.format("tracks") + ".npz", "--force")
def frames_after_the_end_of_the_video(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__iadd__(7))


@breaks("keypoints.finite", ONE.format("keypoints") + ".npz", "--force")
def nan_keypoints(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7, 1), np.nan)))


@breaks("keypoints.sentinel", ONE.format("keypoints") + ".npz", "--force")
def missing_point_with_a_confidence(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7), (-1, -1, 0.5))))


@breaks("keypoints.sentinel", ONE.format("keypoints") + ".npz", "--force")
def made_up_position_without_confidence(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7), (0.5, 0.5, 0))))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "--force")
def keypoints_in_pixels(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((slice(None), slice(None), slice(0, 2)), 320.0)))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "--force")
def confidence_above_one(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((0, 0, 2), 1.5)))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def pickled_npz(corpus: BrokenCorpus) -> None:
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.array([{"x": 1}], dtype=object))
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def keypoints_of_another_layout(corpus: BrokenCorpus) -> None:
    write_keypoints(corpus.layout.keypoints(VIDEO), np.zeros((NUM_FRAMES, 133, 3)))
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def garbled_npz(corpus: BrokenCorpus) -> None:
    path = corpus.layout.keypoints(VIDEO)
    data = bytearray(path.read_bytes())
    data[60:4000] = b"\xaa" * 3940
    path.write_bytes(data)
    corpus.seal(VIDEO)


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def keypoints_of_fewer_frames(corpus: BrokenCorpus) -> None:
    corpus.write_keypoints(VIDEO, points(lambda array: None)[:-1])


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def pose_of_more_frames(corpus: BrokenCorpus) -> None:
    corpus.write_pose(VIDEO, np.concatenate([pose(lambda array: None)] * 2))


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def metadata_of_more_frames(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, num_frames=NUM_FRAMES + 1)


@breaks("pose.range", ONE.format("pose") + ".npz", "--force")
def pose_outside_signing_space(corpus: BrokenCorpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2, 0), 1.25)))


@breaks("pose.finite", ONE.format("pose") + ".npz", "--force")
def infinite_pose(corpus: BrokenCorpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2, 0), np.inf)))


@breaks("pose.sentinel", ONE.format("pose") + ".npz", "--force")
def half_missing_pose(corpus: BrokenCorpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2), (-1, 0.5, 0))))


@breaks("pose.readable", ONE.format("pose") + ".npz", "--force")
def pose_normalised_otherwise(corpus: BrokenCorpus) -> None:
    path = corpus.layout.pose(VIDEO)
    np.savez(path, pose=np.zeros((NUM_FRAMES, 99), np.float32), pose_norm=np.array("shoulders"))
    corpus.seal(VIDEO)


@breaks("tracks.readable", ONE.format("tracks") + ".npz", "--force")
def tracks_without_a_stream(corpus: BrokenCorpus) -> None:
    np.savez(corpus.layout.tracks(VIDEO), times_s=np.arange(NUM_FRAMES) / 10)
    corpus.seal(VIDEO)


@breaks("tracks.readable", ONE.format("tracks") + ".npz", "--force")
def times_in_a_column(corpus: BrokenCorpus) -> None:
    path = corpus.layout.tracks(VIDEO)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"times_s": arrays["times_s"][:, None]})
    corpus.seal(VIDEO)


@breaks("tracks.times", ONE.format("tracks") + ".npz", "--force")
def times_that_stand_still(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__setitem__(5, tracks.times_s[4]))


@breaks("tracks.times", ONE.format("tracks") + ".npz", "--force")
def time_that_is_no_number(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__setitem__(9, np.nan))


@breaks("tracks.state", ONE.format("tracks") + ".npz", "--force")
def unknown_state(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].state.__setitem__(0, 9))


@breaks("tracks.sentinel", ONE.format("tracks") + ".npz", "--force")
def box_where_missing(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["hand_l"].box.__setitem__(3, (1, 1, 9, 9)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def oblong_box(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, (1, 1, 9, 30)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def box_outside_the_frame(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, (64, 1, 72, 9)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def box_without_numbers(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, np.nan))


@breaks("tracks.confidence", ONE.format("tracks") + ".npz", "--force")
def track_confidence_above_one(corpus: BrokenCorpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].confidence.__setitem__(3, 2))


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)
