"""Loose crops of other tools, broken in any of these ways, are reported by file, rule and fix, and do not pass."""

from __future__ import annotations

import numpy as np

from signstreams.streams import STREAMS

from .breaches import ONE, VIDEO, Breaches, BreakIt, image
from .corpora import NUM_FRAMES, BrokenCorpus

breaks = Breaches()


@breaks("loose.size", "processed", "one size")
def loose_crops_of_another_size(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    for stream in STREAMS:
        for path in (corpus.layout.processed / stream).glob("one_f*.jpg"):
            path.write_bytes(image(24, 24))


@breaks("crops.size", "processed/*/one_f*.jpg", "the tool that made them")
def loose_crops_of_two_sizes(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpg").write_bytes(image(24, 24))


@breaks("crops.decodes", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_that_is_cut_off(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpg").write_bytes(image(16, 16)[:-9])


@breaks("crops.index_range", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_beyond_the_end(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000010.jpg").write_bytes(image(16, 16))


@breaks("crops.order", "processed/face/one_f*.jpg", "the tool that made them")
def loose_crop_twice(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "face" / "one_f000001.jpeg").write_bytes(image(16, 16))


@breaks("loose.crops", "processed/face", "the tool that made them")
def loose_video_without_a_crop(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    for path in corpus.layout.processed.glob("*/one_f*.jpg"):
        path.unlink()


@breaks("streams.length", ONE.format("keypoints") + ".npy", "the tool that made them")
def loose_keypoints_of_fewer_frames(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    corpus.layout.keypoints(VIDEO).unlink()
    np.save(corpus.layout.keypoints(VIDEO).with_suffix(".npy"), np.zeros((NUM_FRAMES - 1, 79, 3), np.float32))


@breaks("keypoints.readable", ONE.format("keypoints") + ".npz", "the tool that made them")
def loose_keypoints_of_an_unknown_layout(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.zeros((NUM_FRAMES, 21, 3), np.float32))


@breaks("keypoints.finite", ONE.format("keypoints") + ".npz", "the tool that made them")
def loose_keypoints_without_numbers(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 79, 3), np.nan, np.float32))


@breaks("keypoints.range", ONE.format("keypoints") + ".npz", "not pixels")
def loose_keypoints_in_pixels(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    np.savez(corpus.layout.keypoints(VIDEO), keypoints=np.full((NUM_FRAMES, 79, 3), 320, np.float32))


@breaks("loose.metadata", "processed/metadata.jsonl", "remove the file")
def line_that_is_no_json(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    (corpus.layout.processed / "metadata.jsonl").write_text('{"video_id": "one"}\n{"video_id"\n')


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)
