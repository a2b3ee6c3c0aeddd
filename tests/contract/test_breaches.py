"""A good corpus passes; broken in any of these ways it is reported by file, rule and fix, and does not pass."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.contract.rules import RULES
from signstreams.formats.arrays import Keypoints, write_keypoints
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


# Arrays


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
    break_it(corpus)
    validation = corpus.validate()
    assert validation.report["verdict"] == "fail"
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
