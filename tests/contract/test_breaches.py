"""A good corpus passes; broken in any of these ways it is reported by file, rule and fix, and does not pass."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.contract.rules import RULES
from signstreams.formats.arrays import Keypoints, write_keypoints
from signstreams.formats.metadata import SignerInfo
from signstreams.streams import STREAMS

ONE = "processed/{}/one"
VIDEO = "one"
NUM_FRAMES = 10
Corpus = Any  # BrokenCorpus of conftest.py, which no test module can import

CASES: list[tuple[str, str, str, Callable[[Corpus], Any]]] = []


def breaks(rule: str, file: str, fix: str) -> Callable[[Callable[[Corpus], Any]], Callable[[Corpus], Any]]:
    """Register a way to break the corpus, with the rule, file and fix (a part of it) that must be reported."""

    def register(function: Callable[[Corpus], Any]) -> Callable[[Corpus], Any]:
        CASES.append((rule, file, fix, function))
        return function

    return register


def image(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def crops(bad: bytes, frame: int = 2) -> dict[int, bytes]:
    return {number: image(16, 16) for number in range(NUM_FRAMES)} | {frame: bad}


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


# Crops


@breaks("crops.readable", ONE.format("face") + ".zip", "extract_rois_v2.py")
def truncated_archive(corpus: Corpus) -> None:
    path = corpus.layout.crops("face", VIDEO)
    path.write_bytes(path.read_bytes()[:-40])
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("face") + ".zip", "--force")
def foreign_member(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.writestr("Thumbs.db", b"x")
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("hand_l") + ".zip", "--force")
def crops_of_another_video(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "hand_l", name="two")


@breaks("crops.index_range", ONE.format("face") + ".zip", "--force")
def frame_beyond_the_end(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 16), NUM_FRAMES + 3))


@breaks("crops.stored", ONE.format("face") + ".zip", "--force")
def compressed_member(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "w", zipfile.ZIP_DEFLATED) as archive:
        for frame in range(NUM_FRAMES):
            archive.writestr(f"{VIDEO}_f{frame:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.order", ONE.format("face") + ".zip", "--force")
def frame_twice(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.writestr(f"{VIDEO}_f{NUM_FRAMES - 1:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def no_jpeg(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(b"GIF89a"))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def cut_off_jpeg(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 16)[:-20]))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_of_nothing(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(b"\xff\xd8" + b"\x00" * 30 + b"\xff\xd9"))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def flipped_bit(corpus: Corpus) -> None:
    path = corpus.layout.crops("face", VIDEO)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    corpus.seal(VIDEO)


@breaks("crops.size", ONE.format("face") + ".zip", "--force")
def crop_of_another_size(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(24, 24)))


@breaks("crops.size", ONE.format("face") + ".zip", "--force")
def oblong_crop(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 15)))


@breaks("tracks.agree", ONE.format("face") + ".zip", "--force")
def crop_that_is_not_there(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "face", {number: image(16, 16) for number in range(NUM_FRAMES - 1)})


@breaks("tracks.agree", ONE.format("hand_l") + ".zip", "--force")
def made_up_crop(corpus: Corpus) -> None:
    corpus.write_crops(VIDEO, "hand_l", crops(image(16, 16)))


@breaks("streams.empty", "processed/face", "without crops it cannot be pretrained")
def stream_without_a_crop(corpus: Corpus) -> None:
    for path in (corpus.layout.processed / "face").iterdir():
        with zipfile.ZipFile(path, "w"):
            pass


def rewrite(corpus: Corpus, change: Callable[[bytes], bytes], stream: str = "face") -> None:
    path = corpus.layout.crops(stream, VIDEO)
    path.write_bytes(change(path.read_bytes()))
    corpus.seal(VIDEO)


def claim(data: bytes, num_bytes: int) -> bytes:
    """The first member's size, in the archive's directory and in its local header."""
    size, place = struct.pack("<I", num_bytes), data.index(b"PK\x01\x02")
    data = data[: place + 20] + size * 2 + data[place + 28 :]
    return data[:18] + size * 2 + data[26:]


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def bytes_after_the_archive(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: data + b"\0" * 5)


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def program_before_the_archive(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: b"#!/bin/sh\n" + data)


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def archive_with_a_comment(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.comment = b"mine"
    corpus.seal(VIDEO)


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def member_that_claims_four_gigabytes(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: claim(data, 2**32 - 2))


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def member_that_reaches_into_the_next(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: claim(data, 5000))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def directory_that_names_another_member(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: data.replace(b"one_f000002.jpg", b"one_f000020.jpg", 1))


@breaks("crops.order", ONE.format("face") + ".zip", "--force")
def names_in_another_order(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "w") as archive:
        for frame in reversed(range(NUM_FRAMES)):
            archive.writestr(f"{VIDEO}_f{frame:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("face") + ".zip", "--force")
def member_that_climbs_out(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: data.replace(b"one_f000002.jpg", b"../f000002.jpg."))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_of_a_billion_pixels(corpus: Corpus) -> None:
    jpeg = image(16, 16)
    place = jpeg.index(b"\xff\xc0") + 5
    corpus.write_crops(VIDEO, "face", crops(jpeg[:place] + b"\xff\xff\xff\xff" + jpeg[place + 4 :]))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_without_a_scan(corpus: Corpus) -> None:
    jpeg = image(16, 16)
    corpus.write_crops(VIDEO, "face", crops(jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9"))


@breaks("crops.readable", ONE.format("face") + ".zip", "--force")
def empty_file_in_place_of_an_archive(corpus: Corpus) -> None:
    rewrite(corpus, lambda data: b"")


# Arrays


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def npz_that_unpacks_to_ten_gigabytes(corpus: Corpus) -> None:
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
def npz_of_far_more_than_its_frames(corpus: Corpus) -> None:
    corpus.write_pose(VIDEO, np.zeros((NUM_FRAMES * 1000, 99)))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def header_that_claims_a_trillion_frames(corpus: Corpus) -> None:
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 543, 3), }"
    text += b" " * (117 - len(text)) + b"\n"
    with zipfile.ZipFile(corpus.layout.keypoints(VIDEO), "w") as archive:
        archive.writestr("keypoints.npy", header + struct.pack("<H", len(text)) + text)
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def keypoints_in_doubles(corpus: Corpus) -> None:
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 543, 3), 0.5))
    corpus.seal(VIDEO)


@breaks("tracks.rate", ONE.format("tracks") + ".npz", "--force")
def times_at_another_rate(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__imul__(0.5))


@breaks("tracks.rate", ONE.format("tracks") + ".npz", "--force")
def frames_after_the_end_of_the_video(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__iadd__(7))


@breaks("keypoints.finite", ONE.format("keypoints") + ".npz", "--force")
def nan_keypoints(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7, 1), np.nan)))


@breaks("keypoints.sentinel", ONE.format("keypoints") + ".npz", "--force")
def missing_point_with_a_confidence(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7), (-1, -1, 0.5))))


@breaks("keypoints.sentinel", ONE.format("keypoints") + ".npz", "--force")
def made_up_position_without_confidence(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((4, 7), (0.5, 0.5, 0))))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "--force")
def keypoints_in_pixels(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((slice(None), slice(None), slice(0, 2)), 320.0)))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "--force")
def confidence_above_one(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(put((0, 0, 2), 1.5)))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def pickled_npz(corpus: Corpus) -> None:
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.array([{"x": 1}], dtype=object))
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def keypoints_of_another_layout(corpus: Corpus) -> None:
    write_keypoints(corpus.layout.keypoints(VIDEO), Keypoints(np.zeros((NUM_FRAMES, 133, 3))))
    corpus.seal(VIDEO)


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "--force")
def garbled_npz(corpus: Corpus) -> None:
    path = corpus.layout.keypoints(VIDEO)
    data = bytearray(path.read_bytes())
    data[60:4000] = b"\xaa" * 3940
    path.write_bytes(data)
    corpus.seal(VIDEO)


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def keypoints_of_fewer_frames(corpus: Corpus) -> None:
    corpus.write_keypoints(VIDEO, points(lambda array: None)[:-1])


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def pose_of_more_frames(corpus: Corpus) -> None:
    corpus.write_pose(VIDEO, np.concatenate([pose(lambda array: None)] * 2))


@breaks("streams.length", ONE.format("tracks") + ".npz", "--force")
def metadata_of_more_frames(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, num_frames=NUM_FRAMES + 1)


@breaks("pose.range", ONE.format("pose") + ".npz", "--force")
def pose_outside_signing_space(corpus: Corpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2, 0), 1.25)))


@breaks("pose.finite", ONE.format("pose") + ".npz", "--force")
def infinite_pose(corpus: Corpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2, 0), np.inf)))


@breaks("pose.sentinel", ONE.format("pose") + ".npz", "--force")
def half_missing_pose(corpus: Corpus) -> None:
    corpus.write_pose(VIDEO, pose(put((1, 2), (-1, 0.5, 0))))


@breaks("pose.readable", ONE.format("pose") + ".npz", "--force")
def pose_normalised_otherwise(corpus: Corpus) -> None:
    path = corpus.layout.pose(VIDEO)
    np.savez(path, pose=np.zeros((NUM_FRAMES, 99), np.float32), pose_norm=np.array("shoulders"))
    corpus.seal(VIDEO)


@breaks("tracks.readable", ONE.format("tracks") + ".npz", "--force")
def tracks_without_a_stream(corpus: Corpus) -> None:
    np.savez(corpus.layout.tracks(VIDEO), times_s=np.arange(NUM_FRAMES) / 10)
    corpus.seal(VIDEO)


@breaks("tracks.times", ONE.format("tracks") + ".npz", "--force")
def times_that_stand_still(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__setitem__(5, tracks.times_s[4]))


@breaks("tracks.times", ONE.format("tracks") + ".npz", "--force")
def time_that_is_no_number(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.times_s.__setitem__(9, np.nan))


@breaks("tracks.state", ONE.format("tracks") + ".npz", "--force")
def unknown_state(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].state.__setitem__(0, 9))


@breaks("tracks.sentinel", ONE.format("tracks") + ".npz", "--force")
def box_where_missing(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["hand_l"].box.__setitem__(3, (1, 1, 9, 9)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def oblong_box(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, (1, 1, 9, 30)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def box_outside_the_frame(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, (64, 1, 72, 9)))


@breaks("tracks.box", ONE.format("tracks") + ".npz", "--force")
def box_without_numbers(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].box.__setitem__(3, np.nan))


@breaks("tracks.confidence", ONE.format("tracks") + ".npz", "--force")
def track_confidence_above_one(corpus: Corpus) -> None:
    corpus.change_tracks(VIDEO, lambda tracks: tracks.streams["face"].confidence.__setitem__(3, 2))


# Files and metadata


@breaks("video.extracted", ONE.format("metadata") + ".json", "videos/one.mp4")
def video_not_extracted(corpus: Corpus) -> None:
    for path in corpus.layout.processed.glob("*/one.*"):
        path.unlink()


@breaks("file.present", ONE.format("pose") + ".npz", "--force")
def absent_pose(corpus: Corpus) -> None:
    corpus.layout.pose(VIDEO).unlink()


@breaks("file.unexpected", "processed/face", "remove them")
def archive_of_a_removed_video(corpus: Corpus) -> None:
    corpus.layout.crops("face", "gone").write_bytes(corpus.layout.crops("face", VIDEO).read_bytes())


@breaks("file.unexpected", "processed/hand_r", "archives hold all crops")
def loose_crop_beside_archives(corpus: Corpus) -> None:
    (corpus.layout.processed / "hand_r" / "one_f000001.jpg").write_bytes(image(16, 16))


@breaks("metadata.checksum", ONE.format("pose") + ".npz", "--force")
def file_changed_afterwards(corpus: Corpus) -> None:
    path = corpus.layout.pose(VIDEO)
    path.write_bytes(corpus.layout.pose("two").read_bytes() + b"\0")


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_that_is_no_json(corpus: Corpus) -> None:
    corpus.layout.metadata(VIDEO).write_text("{'a': 1}")


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_with_a_foreign_field(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"video_id"', '"colour": 1, "video_id"')


@breaks("metadata.video", ONE.format("metadata") + ".json", "--force")
def metadata_of_another_video(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, video_id="two")


@breaks("metadata.source", ONE.format("metadata") + ".json", "--force")
def video_replaced_after_extraction(corpus: Corpus) -> None:
    (corpus.layout.videos / "one.mp4").write_bytes(b"a longer video than before, surely longer")


@breaks("metadata.states", ONE.format("metadata") + ".json", "--force")
def states_counted_wrongly(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, states={stream: dict.fromkeys(("missing",), 0) for stream in STREAMS})


@breaks("metadata.states", ONE.format("metadata") + ".json", "--force")
def pose_frames_counted_wrongly(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, num_pose_frames=3)


@breaks("settings.crop_size", "processed/metadata", "one --crop-px")
def two_crop_sizes(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, crop_px=24)
    for stream in STREAMS:
        state = [frame for frame in range(NUM_FRAMES) if not (stream == "hand_l" and frame == 3)]
        corpus.write_crops(VIDEO, stream, {frame: image(24, 24) for frame in state})


@breaks("quarantine.fraction", "processed", "--max-failed-fraction")
def too_many_quarantined(corpus: Corpus) -> None:
    corpus.quarantine(VIDEO)


@breaks("video.frames", ONE.format("metadata") + ".json", "--force")
def video_without_frames(corpus: Corpus) -> None:
    corpus.quarantine(VIDEO)
    corpus.change_metadata(VIDEO, status="ok")


@breaks("metadata.checksum", ONE.format("metadata") + ".json", "--force")
def metadata_without_a_checksum(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, checksums={})


@breaks("metadata.source", ONE.format("metadata") + ".json", "--force")
def video_replaced_by_one_of_the_same_size(corpus: Corpus) -> None:
    path = corpus.layout.videos / "one.mp4"
    path.write_bytes(path.read_bytes()[::-1])


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_of_an_earlier_format(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"format_version": 2', '"format_version": 1')


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def face_privacy_that_nobody_knows(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"face_privacy": "none"', '"face_privacy": "some"')


@breaks("settings.privacy", "processed/metadata", "--face-privacy")
def faces_hidden_in_some_videos_only(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, face_privacy="blur")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def good_video_with_a_reason(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, reason="cannot be read")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def quarantine_without_a_reason(corpus: Corpus) -> None:
    corpus.quarantine(VIDEO)
    corpus.change_metadata(VIDEO, reason=" ")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def quarantine_with_frames(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, status="quarantined", reason="cannot be read")


@breaks("metadata.numbers", ONE.format("metadata") + ".json", "--force")
def frames_without_a_width(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, width_px=0)


@breaks("metadata.numbers", ONE.format("metadata") + ".json", "--force")
def negative_length(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, duration_s=-1.0)


@breaks("metadata.signer", ONE.format("metadata") + ".json", "--force")
def signer_outside_the_frame(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, signer=SignerInfo(chosen_by="box", region_px=(0, 0, 65, 80)))


@breaks("metadata.signer", ONE.format("metadata") + ".json", "--force")
def hand_motion_of_more_people_than_there_are(corpus: Corpus) -> None:
    signer = SignerInfo(chosen_by="hand_motion", num_people=2, hand_motion=[0.1, 0.2, 0.3])
    corpus.change_metadata(VIDEO, signer=signer)


@breaks("metadata.spans", ONE.format("metadata") + ".json", "--force")
def spans_that_overlap(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.6), (0.5, 1.0)])


@breaks("metadata.spans", ONE.format("tracks") + ".npz", "--force")
def frames_outside_the_spans(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.4)])


@breaks("clip.extracted", "meta.csv", "extract its video again")
def clip_outside_the_spans(corpus: Corpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.7)])


@breaks("file.link", ONE.format("pose") + ".npz", "put the file itself there")
def link_out_of_the_corpus(corpus: Corpus) -> None:
    path = corpus.layout.pose(VIDEO)
    path.symlink_to(path.rename(corpus.root.parent / "elsewhere.npz"))


@breaks("file.unexpected", "processed/face", "remove them")
def loose_crops_of_a_removed_video(corpus: Corpus) -> None:
    (corpus.layout.processed / "face" / "gone_f000001.jpg").write_bytes(image(16, 16))


@breaks("file.present", ONE.format("face") + ".zip", "--force")
def folder_in_place_of_an_archive(corpus: Corpus) -> None:
    corpus.layout.crops("face", VIDEO).unlink()
    corpus.layout.crops("face", VIDEO).mkdir()


# Loose crops, in the layout of other tools


@breaks("loose.size", "processed", "one size")
def loose_crops_of_another_size(corpus: Corpus) -> None:
    corpus.loosen()
    for stream in STREAMS:
        for path in (corpus.layout.processed / stream).glob("one_f*.jpg"):
            path.write_bytes(image(24, 24))


@breaks("crops.size", "processed/*/one_f*.jpg", "the tool that made them")
def loose_crops_of_two_sizes(corpus: Corpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpg").write_bytes(image(24, 24))


@breaks("crops.decodes", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_that_is_cut_off(corpus: Corpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpg").write_bytes(image(16, 16)[:-9])


@breaks("crops.index_range", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_beyond_the_end(corpus: Corpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000010.jpg").write_bytes(image(16, 16))


@breaks("crops.order", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_twice(corpus: Corpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpeg").write_bytes(image(16, 16))


@breaks("loose.crops", "processed/face", "the tool that made them")
def loose_video_without_a_crop(corpus: Corpus) -> None:
    corpus.loosen()
    for path in corpus.layout.processed.glob("*/one_f*.jpg"):
        path.unlink()


@breaks("streams.length", ONE.format("keypoints") + ".npy", "the tool that made them")
def loose_keypoints_of_fewer_frames(corpus: Corpus) -> None:
    corpus.loosen()
    corpus.layout.keypoints(VIDEO).unlink()
    np.save(corpus.layout.keypoints(VIDEO).with_suffix(".npy"), np.zeros((NUM_FRAMES - 1, 79, 3), np.float32))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "the tool that made them")
def loose_keypoints_of_an_unknown_layout(corpus: Corpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.zeros((NUM_FRAMES, 21, 3), np.float32))


@breaks("keypoints.finite", ONE.format("keypoints") + ".npz", "the tool that made them")
def loose_keypoints_without_numbers(corpus: Corpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 79, 3), np.nan, np.float32))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "not pixels")
def loose_keypoints_in_pixels(corpus: Corpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 79, 3), 320, np.float32))


@breaks("loose.metadata", "processed/metadata.jsonl", "remove the file")
def line_that_is_no_json(corpus: Corpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "metadata.jsonl").write_text('{"video_id": "one"}\n{"video_id"\n')


# Tables


@breaks("clip.inside_video", "meta.csv", "correct the times")
def clip_past_the_end(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "0.5;1.9;1.4")


@breaks("clip.frames", "meta.csv", "correct start and end")
def clip_between_two_frames(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5;10;5", "0.51;0.52;;;")


@breaks("fps.declared", "meta.csv", "remove it")
def declared_fps_is_wrong(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;10;5;ana", "0.5;25;5;ana")


@breaks("meta.span", "meta.csv", "correct the times")
def clip_ends_before_it_starts(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "0.5;0.4;0.1")


@breaks("clip.times", "meta.csv", "--max-untimed-fraction")
def mangled_times(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "4.999.999.999.999.990;1.0;0.5")


@breaks("meta.unique_id", "meta.csv", "an id of its own")
def id_twice(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "c2;", "c1;")


@breaks("meta.id", "meta.csv", "another id")
def id_that_leaves_its_folder(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "c2;", "../c2;")


@breaks("clip.video_known", "meta.csv", "add the videos")
def clip_of_an_absent_video(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "c3;two", "c3;too")


@breaks("meta.id_column", "meta.csv", "rename the column")
def no_id_column(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, "id;video", "name;video")


@breaks("table.columns", "meta.csv", "rename or remove")
def column_twice(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, ";signer\n", ";text\n")


@breaks("table.encoding", "meta.csv", "UTF-8")
def latin_1_table(corpus: Corpus) -> None:
    corpus.layout.meta.write_bytes(corpus.layout.meta.read_text(encoding="utf-8").encode("latin-1"))


@breaks("table.ragged", "meta.csv", "double quotes")
def text_with_the_delimiter(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, '"adiós; adiós"', "adiós; adiós")


@breaks("meta.split", "meta.csv", "one of these names")
def unknown_split(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.meta, ";signer\n", ";split\n")


@breaks("split.disjoint", "index/val.csv", "in one of them")
def id_in_two_splits(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "c3\nc1")


@breaks("split.video_disjoint", "index/test.csv", "in one of them")
def video_in_two_splits(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.index("train"), "c2\n", "")
    corpus.edit(corpus.layout.index("test"), "c4", "c4\nc2")


@breaks("split.known", "index/val.csv", "remove these lines")
def unknown_id_in_a_split(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "clip_id\nc3")


@breaks("split.once", "index/val.csv", "remove the further lines")
def id_twice_in_a_split(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "c3\nc3")


@breaks("split.present", "index/test.csv", "split_corpus.py")
def absent_split(corpus: Corpus) -> None:
    corpus.layout.index("test").unlink()


@breaks("split.train", "index/train.csv", "divide the corpus anew")
def nothing_to_train_on(corpus: Corpus) -> None:
    corpus.layout.index("train").write_text("")


@breaks("gloss.vocabulary", "annotations/gloss.csv", "misspelt")
def gloss_that_train_lacks(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "c4;ADIÓS;2", "c4;ADIOS;3")


@breaks("gloss.clip_known", "annotations/gloss.csv", "correct the ids")
def gloss_of_an_unknown_clip(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "c5;", "c9;")


@breaks("gloss.unique_id", "annotations/gloss.csv", "keep one of them")
def gloss_twice(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "c5;", "c4;")


@breaks("gloss.labels", "annotations/gloss.csv", "one number")
def number_of_two_glosses(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "c4;ADIÓS;2", "c4;ADIÓS;1")


@breaks("gloss.columns", "annotations/gloss.csv", "rename the columns")
def gloss_table_without_ids(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "video_id;", "name;")


@breaks("gloss.ctc_length", "annotations/gloss.csv", "gloss or the span")
def more_glosses_than_frames(corpus: Corpus) -> None:
    corpus.edit(corpus.layout.gloss, "c2;ADIÓS ADIÓS;2 2", "c2;ADIÓS ADIÓS ADIÓS ADIÓS;2 2 2 2")


@breaks("videos.unique", "videos", "rename or remove")
def two_files_of_one_id(corpus: Corpus) -> None:
    (corpus.layout.videos / "one.webm").write_bytes(b"x")


@breaks("videos.name", "videos", "rename the file")
def video_name_that_is_no_id(corpus: Corpus) -> None:
    (corpus.layout.videos / "a\nb.mp4").write_bytes(b"x")


@breaks("videos.file", "videos", "remove it")
def folder_named_like_a_video(corpus: Corpus) -> None:
    (corpus.layout.videos / "folder.mp4").mkdir()


@breaks("videos.file", "videos", "remove it")
def link_to_nothing(corpus: Corpus) -> None:
    (corpus.layout.videos / "link.mp4").symlink_to("gone.mp4")


@breaks("videos.folder", "videos", "--videos-dir")
def no_videos(corpus: Corpus) -> None:
    for path in corpus.layout.videos.iterdir():
        path.unlink()


def test_the_good_corpus_passes_without_a_word(corpus: Corpus) -> None:
    validation = corpus.validate()
    assert [finding.line() for finding in validation.findings] == []
    assert validation.report["verdict"] == "pass"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("rule", "file", "fix", "break_it"), CASES, ids=[case[3].__name__ for case in CASES])
def test_a_broken_corpus_is_reported_by_file_rule_and_fix(
    corpus: Corpus, rule: str, file: str, fix: str, break_it: Callable[[Corpus], Any]
) -> None:
    corpus.validate()  # leaves a record of every video, none of which may hide what is broken now
    break_it(corpus)
    validation = corpus.validate()
    assert validation.report["verdict"] == "fail"
    assert corpus.validate().report == validation.report  # from the records of the broken corpus
    assert corpus.validate(recheck=True).report == validation.report
    places = {str(corpus.root / file), file}  # the videos folder may lie elsewhere and is named in full
    same = [finding for finding in validation.findings if finding.rule == rule and finding.file in places]
    assert [finding for finding in same if finding.severity == "error"], [f.line() for f in validation.findings]
    assert any(fix in finding.fix for finding in same), [finding.fix for finding in same]
    assert all("\n" not in finding.line() for finding in validation.findings if not rule.startswith("videos."))


def test_the_broken_corpora_cover_every_rule_that_is_an_error() -> None:
    tried = {case[0] for case in CASES}
    # Those of single rows and columns are tried one by one in tests/corpus.
    elsewhere = {"meta.video_id", "meta.box", "clip.any"}
    assert {name for name, rule in RULES.items() if rule.severity == "error"} - tried == elsewhere
