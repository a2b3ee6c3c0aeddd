"""Files and metadata, broken in any of these ways, are reported by file, rule and fix, and do not pass."""

from __future__ import annotations

from signstreams.formats.video_metadata import SignerInfo
from signstreams.streams import STREAMS

from .breaches import ONE, VIDEO, Breaches, BreakIt, image
from .corpora import NUM_FRAMES, BrokenCorpus

breaks = Breaches()


@breaks("video.extracted", ONE.format("metadata") + ".json", "videos/one.mp4")
def video_not_extracted(corpus: BrokenCorpus) -> None:
    for path in corpus.layout.processed.glob("*/one.*"):
        path.unlink()


@breaks("file.present", ONE.format("pose") + ".npz", "--force")
def absent_pose(corpus: BrokenCorpus) -> None:
    corpus.layout.pose(VIDEO).unlink()


@breaks("file.unexpected", "processed/face", "remove them")
def archive_of_a_removed_video(corpus: BrokenCorpus) -> None:
    corpus.layout.crops("face", "gone").write_bytes(corpus.layout.crops("face", VIDEO).read_bytes())


@breaks("file.unexpected", "processed/hand_r", "archives hold all crops")
def loose_crop_beside_archives(corpus: BrokenCorpus) -> None:
    (corpus.layout.processed / "hand_r" / "one_f000001.jpg").write_bytes(image(16, 16))


@breaks("metadata.checksum", ONE.format("pose") + ".npz", "--force")
def file_changed_afterwards(corpus: BrokenCorpus) -> None:
    path = corpus.layout.pose(VIDEO)
    path.write_bytes(corpus.layout.pose("two").read_bytes() + b"\0")


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_that_is_no_json(corpus: BrokenCorpus) -> None:
    corpus.layout.metadata(VIDEO).write_text("{'a': 1}")


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_with_a_foreign_field(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"video_id"', '"colour": 1, "video_id"')


@breaks("metadata.video", ONE.format("metadata") + ".json", "--force")
def metadata_of_another_video(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, video_id="two")


@breaks("metadata.source", ONE.format("metadata") + ".json", "--force")
def video_replaced_after_extraction(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "one.mp4").write_bytes(b"a longer video than before, surely longer")


@breaks("metadata.states", ONE.format("metadata") + ".json", "--force")
def states_counted_wrongly(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, states={stream: dict.fromkeys(("missing",), 0) for stream in STREAMS})


@breaks("metadata.states", ONE.format("metadata") + ".json", "--force")
def pose_frames_counted_wrongly(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, num_pose_frames=3)


@breaks("settings.crop_size", "processed/metadata", "one --crop-px")
def two_crop_sizes(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, crop_px=24)
    for stream in STREAMS:
        state = [frame for frame in range(NUM_FRAMES) if not (stream == "hand_l" and frame == 3)]
        corpus.write_crops(VIDEO, stream, {frame: image(24, 24) for frame in state})


@breaks("quarantine.fraction", "processed", "--max-failed-fraction")
def too_many_quarantined(corpus: BrokenCorpus) -> None:
    corpus.quarantine(VIDEO)


@breaks("video.damaged", "processed", "raise --max-damaged-fraction")
def many_damaged_frames(corpus: BrokenCorpus) -> None:
    for video_id in corpus.layout.metadata("x").parent.glob("*.json"):
        corpus.change_metadata(video_id.stem, num_damaged_frames=2)


@breaks("metadata.numbers", ONE.format("metadata") + ".json", "--force")
def more_damaged_frames_than_there_are(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, num_damaged_frames=999)


@breaks("video.frames", ONE.format("metadata") + ".json", "--force")
def video_without_frames(corpus: BrokenCorpus) -> None:
    corpus.quarantine(VIDEO)
    corpus.change_metadata(VIDEO, status="ok")


@breaks("metadata.checksum", ONE.format("metadata") + ".json", "--force")
def metadata_without_a_checksum(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, checksums={})


@breaks("metadata.source", ONE.format("metadata") + ".json", "--force")
def video_replaced_by_one_of_the_same_size(corpus: BrokenCorpus) -> None:
    path = corpus.layout.videos / "one.mp4"
    path.write_bytes(path.read_bytes()[::-1])


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_of_an_earlier_format(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"format_version": 2', '"format_version": 1')


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def face_privacy_that_nobody_knows(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"face_privacy": "none"', '"face_privacy": "some"')


@breaks("settings.privacy", "processed/metadata", "--face-privacy")
def faces_hidden_in_some_videos_only(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, face_privacy="blur")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def good_video_with_a_reason(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, reason="cannot be read")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def quarantine_without_a_reason(corpus: BrokenCorpus) -> None:
    corpus.quarantine(VIDEO)
    corpus.change_metadata(VIDEO, reason=" ")


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def quarantine_with_frames(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, status="quarantined", reason="cannot be read")


@breaks("metadata.numbers", ONE.format("metadata") + ".json", "--force")
def frames_without_a_width(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, width_px=0)


@breaks("metadata.numbers", ONE.format("metadata") + ".json", "--force")
def negative_length(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, duration_s=-1.0)


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def length_that_is_no_number(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.metadata(VIDEO), '"duration_s": 1.0', '"duration_s": NaN')


@breaks("metadata.readable", ONE.format("metadata") + ".json", "--force")
def metadata_nested_without_end(corpus: BrokenCorpus) -> None:
    corpus.layout.metadata(VIDEO).write_text("[" * 100_000)


@breaks("metadata.status", ONE.format("metadata") + ".json", "--force")
def reason_that_is_no_utf8(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, status="quarantined", reason="cannot be decoded: im\udce1gen.png")


@breaks("metadata.signer", ONE.format("metadata") + ".json", "--force")
def signer_outside_the_frame(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, signer=SignerInfo(chosen_by="box", region_px=(0, 0, 65, 80)))


@breaks("metadata.signer", ONE.format("metadata") + ".json", "--force")
def hand_motion_of_more_people_than_there_are(corpus: BrokenCorpus) -> None:
    signer = SignerInfo(chosen_by="hand_motion", num_people=2, hand_motion=[0.1, 0.2, 0.3])
    corpus.change_metadata(VIDEO, signer=signer)


@breaks("metadata.spans", ONE.format("metadata") + ".json", "--force")
def spans_that_overlap(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.6), (0.5, 1.0)])


@breaks("metadata.spans", ONE.format("tracks") + ".npz", "--force")
def frames_outside_the_spans(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.4)])


@breaks("clip.extracted", "meta.csv", "extract its video again")
def clip_outside_the_spans(corpus: BrokenCorpus) -> None:
    corpus.change_metadata(VIDEO, spans_s=[(0.0, 0.7)])


@breaks("file.link", ONE.format("pose") + ".npz", "put the file itself there")
def link_out_of_the_corpus(corpus: BrokenCorpus) -> None:
    path = corpus.layout.pose(VIDEO)
    path.symlink_to(path.rename(corpus.root.parent / "elsewhere.npz"))


@breaks("file.unexpected", "processed/face", "remove them")
def loose_crops_of_a_removed_video(corpus: BrokenCorpus) -> None:
    (corpus.layout.processed / "face" / "gone_f000001.jpg").write_bytes(image(16, 16))


@breaks("file.present", ONE.format("face") + ".zip", "--force")
def folder_in_place_of_an_archive(corpus: BrokenCorpus) -> None:
    corpus.layout.crops("face", VIDEO).unlink()
    corpus.layout.crops("face", VIDEO).mkdir()


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)
