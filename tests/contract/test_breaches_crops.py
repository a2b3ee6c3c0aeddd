"""Crops, broken in any of these ways, are reported by file, rule and fix, and do not pass."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable

import pytest

from .breaches import ONE, VIDEO, Breaches, BreakIt, crops, image
from .corpora import NUM_FRAMES, BrokenCorpus

breaks = Breaches()


@breaks("crops.readable", ONE.format("face") + ".zip", "signstreams extract")
def truncated_archive(corpus: BrokenCorpus) -> None:
    path = corpus.layout.crops("face", VIDEO)
    path.write_bytes(path.read_bytes()[:-40])
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("face") + ".zip", "--force")
def foreign_member(corpus: BrokenCorpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.writestr("Thumbs.db", b"x")
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("hand_l") + ".zip", "--force")
def crops_of_another_video(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "hand_l", name="two")


@breaks("crops.index_range", ONE.format("face") + ".zip", "--force")
def frame_beyond_the_end(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 16), NUM_FRAMES + 3))


@breaks("crops.stored", ONE.format("face") + ".zip", "--force")
def compressed_member(corpus: BrokenCorpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "w", zipfile.ZIP_DEFLATED) as archive:
        for frame in range(NUM_FRAMES):
            archive.writestr(f"{VIDEO}_f{frame:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.order", ONE.format("face") + ".zip", "--force")
def frame_twice(corpus: BrokenCorpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.writestr(f"{VIDEO}_f{NUM_FRAMES - 1:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def no_jpeg(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(b"GIF89a"))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def cut_off_jpeg(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 16)[:-20]))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_of_nothing(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(b"\xff\xd8" + b"\x00" * 30 + b"\xff\xd9"))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def flipped_bit(corpus: BrokenCorpus) -> None:
    path = corpus.layout.crops("face", VIDEO)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    corpus.seal(VIDEO)


@breaks("crops.size", ONE.format("face") + ".zip", "--force")
def crop_of_another_size(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(24, 24)))


@breaks("crops.size", ONE.format("face") + ".zip", "--force")
def oblong_crop(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", crops(image(16, 15)))


@breaks("tracks.agree", ONE.format("face") + ".zip", "--force")
def crop_that_is_not_there(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "face", {number: image(16, 16) for number in range(NUM_FRAMES - 1)})


@breaks("tracks.agree", ONE.format("hand_l") + ".zip", "--force")
def made_up_crop(corpus: BrokenCorpus) -> None:
    corpus.write_crops(VIDEO, "hand_l", crops(image(16, 16)))


@breaks("streams.empty", "processed/face", "without crops it cannot be pretrained")
def stream_without_a_crop(corpus: BrokenCorpus) -> None:
    for path in (corpus.layout.processed / "face").iterdir():
        with zipfile.ZipFile(path, "w"):
            pass


def rewrite(corpus: BrokenCorpus, change: Callable[[bytes], bytes], stream: str = "face") -> None:
    path = corpus.layout.crops(stream, VIDEO)
    path.write_bytes(change(path.read_bytes()))
    corpus.seal(VIDEO)


def claim(data: bytes, num_bytes: int) -> bytes:
    """The first member's size, in the archive's directory and in its local header."""
    size, place = struct.pack("<I", num_bytes), data.index(b"PK\x01\x02")
    data = data[: place + 20] + size * 2 + data[place + 28 :]
    return data[:18] + size * 2 + data[26:]


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def bytes_after_the_archive(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: data + b"\0" * 5)


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def program_before_the_archive(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: b"#!/bin/sh\n" + data)


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def archive_with_a_comment(corpus: BrokenCorpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "a") as archive:
        archive.comment = b"mine"
    corpus.seal(VIDEO)


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def member_that_claims_four_gigabytes(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: claim(data, 2**32 - 2))


@breaks("crops.layout", ONE.format("face") + ".zip", "--force")
def member_that_reaches_into_the_next(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: claim(data, 5000))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def directory_that_names_another_member(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: data.replace(b"one_f000002.jpg", b"one_f000020.jpg", 1))


@breaks("crops.order", ONE.format("face") + ".zip", "--force")
def names_in_another_order(corpus: BrokenCorpus) -> None:
    with zipfile.ZipFile(corpus.layout.crops("face", VIDEO), "w") as archive:
        for frame in reversed(range(NUM_FRAMES)):
            archive.writestr(f"{VIDEO}_f{frame:06d}.jpg", image(16, 16))
    corpus.seal(VIDEO)


@breaks("crops.name", ONE.format("face") + ".zip", "--force")
def member_that_climbs_out(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: data.replace(b"one_f000002.jpg", b"../f000002.jpg."))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_of_a_billion_pixels(corpus: BrokenCorpus) -> None:
    jpeg = image(16, 16)
    place = jpeg.index(b"\xff\xc0") + 5
    corpus.write_crops(VIDEO, "face", crops(jpeg[:place] + b"\xff\xff\xff\xff" + jpeg[place + 4 :]))


@breaks("crops.decodes", ONE.format("face") + ".zip", "--force")
def jpeg_without_a_scan(corpus: BrokenCorpus) -> None:
    jpeg = image(16, 16)
    corpus.write_crops(VIDEO, "face", crops(jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9"))


@breaks("crops.readable", ONE.format("face") + ".zip", "--force")
def empty_file_in_place_of_an_archive(corpus: BrokenCorpus) -> None:
    rewrite(corpus, lambda data: b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)
