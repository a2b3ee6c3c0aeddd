"""Crop archives: stored, read with one call, named when damaged; loose crops read alike."""

from __future__ import annotations

import os
import pickle
import resource
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from signstreams.errors import DamagedFile
from signstreams.formats.crops import CropReader, CropWriter, crop_name, crops_digest, list_crops, parse_crop_name

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
    with pytest.raises(DamagedFile, match=r"a\.zip"):
        list_crops(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_f000000.jpg", b"x" * 100)
    with pytest.raises(DamagedFile, match="compressed"):
        list_crops(tmp_path)


def test_an_archive_replaced_while_in_use_is_noticed(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", {0: b"x" * 10, 1: b"y"}, "a")
    crops = list_crops(tmp_path)
    write_archive(tmp_path / "a.zip", {0: b"x" * 33}, "a")
    with pytest.raises(DamagedFile, match=r"changed while in use|ends before"):
        CropReader().read(crops[1])


@pytest.mark.parametrize("name", ["a.jpg", "a_f1.jpg", "_f000000.jpg", "a_f000000.png", "a_f00000x.jpg"])
def test_foreign_names_are_no_crops(name: str) -> None:
    assert parse_crop_name(name) is None


def test_names_round_trip() -> None:
    assert parse_crop_name(crop_name("a_f000001", 1234567)) == ("a_f000001", 1234567)


def test_a_reader_keeps_within_the_limit_on_open_files(tmp_path: Path) -> None:
    for number in range(60):
        with CropWriter(tmp_path / f"v{number:02d}.zip", f"v{number:02d}") as writer:
            writer.add(0, bytes([number]) * 9)
    crops = list_crops(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(os.listdir("/proc/self/fd"))
    try:
        for reader in (None, 256):  # as it chooses, and where the limit is met all the same
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + 20, hard))
            with closing(CropReader(reader)) as opened:
                assert [opened.read(crop)[:1] for crop in crops] == [bytes([number]) for number in range(60)]
                assert opened.max_open < 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
