"""Crops on disk to batches: found, split, read by any number of workers alike."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstreams.engine.distributed import World
from signstreams.errors import TRY_AGAIN_EXIT_CODE, DamagedFile, UserError, exit_on_user_error
from signstreams.formats.crops import CropReader, CropWriter, list_crops
from signstreams.pretrain import data
from signstreams.pretrain.crop_index import build_index, read_directory
from signstreams.pretrain.data import Key, ViewDataset, ViewLoader, find_crops, load_whole, normalize, plan_batches
from signstreams.pretrain.sampler import BatchPlan, CropGroups
from signstreams.pretrain.views import ViewMaker


def test_workers_do_not_change_the_views(crops_dir: Path, make: Callable[..., Any]) -> None:
    crops = find_crops([crops_dir], max_crops=None, probe_crops=8).train
    plan = BatchPlan(CropGroups.of(crops.video, crops.frame), batch_size=8, world_size=1, seed=0)
    world = World(0, 1, torch.device("cpu"))
    batches = []
    for workers in (0, 2):
        loader = ViewLoader(make(dataset={"num_workers": workers}), crops, plan, world)
        batches.append([*loader.steps(0, 3), *loader.steps(3, 5)])
    for (globals_a, locals_a), (globals_b, locals_b) in zip(*batches, strict=True):
        assert globals_a.shape == (2, 8, 16, 16, 3)
        assert locals_a.shape == (2, 8, 8, 8, 3)
        assert torch.equal(globals_a, globals_b)
        assert torch.equal(locals_a, locals_b)


def test_archives_and_loose_jpegs_are_found_together(
    crops_dir: Path, tmp_path: Path, picture: Callable[[int, int], bytes]
) -> None:
    (tmp_path / "otra carpeta").mkdir()
    for frame in range(8):
        (tmp_path / "otra carpeta" / f"suelto_f{frame:06d}.jpg").write_bytes(picture(0, frame))
    found = find_crops([crops_dir, tmp_path / "otra carpeta"], max_crops=None, probe_crops=16)
    assert (len(found.train), len(found.probe)) == (49, 7)
    assert not {(c.video_id, c.frame) for c in found.train} & {(c.video_id, c.frame) for c in found.probe}
    few = find_crops([crops_dir], max_crops=24, probe_crops=8)
    assert (len(few.train), len(few.probe)) == (21, 3)
    assert {crop.video_id for crop in few.train} == {"video_0", "video_1", "video_2"}
    assert few.digest != found.digest


def test_folders_without_crops_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "v.zip").write_bytes(b"no archive")
    with pytest.raises(UserError) as caught:
        find_crops([tmp_path / n for n in ("empty", "absent", "bad")], max_crops=None, probe_crops=8)
    text = caught.value.problems
    assert len(text) == 3
    assert "found no crop" in text[0]
    assert "no such folder" in text[1]
    assert "v.zip" in text[2]


def test_a_broken_crop_is_named(crops_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "v_f000003.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match="frame 3: is not a readable image"):
        load_whole(list_crops(tmp_path), 16)


def test_normalising_ends_channels_first() -> None:
    pixel = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    out = normalize(pixel, torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0.5, 0.25, 0.1]))
    assert out.shape == (1, 3, 1, 1)
    assert out.flatten().tolist() == pytest.approx([1.0, -2.0, 1.0])


def test_the_index_says_what_the_list_says(crops_dir: Path) -> None:
    index, problems = build_index([crops_dir])
    assert problems == []
    assert list(index) == list_crops(crops_dir)
    some = index.take(np.array([3, 20, 40]))
    assert list(some) == [index[3], index[20], index[40]]
    assert some.digest != index.digest


def test_any_archive_is_read_alike(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    """Ours at once, those of another make member by member: other names, an extra field, a comment, an odd member."""
    expected = [("ñ_f1", 7, picture(0, 7)), ("ñ_f1", 123456, picture(0, 8))]
    makes = {"ours": True, "comment": False, "foreign": False, "long": False, "empty": False}
    for make, is_fast in makes.items():
        path = tmp_path / make / "ñ_f1.zip"
        if make in ("ours", "empty"):
            with CropWriter(path, "ñ_f1") as writer:
                for _, frame, body in expected if make == "ours" else []:
                    writer.add(frame, body)
        else:
            path.parent.mkdir()
            with zipfile.ZipFile(path, "w") as archive:
                for _, frame, body in expected:
                    archive.writestr(f"ñ_f1_f{frame:0{9 if make == 'long' and frame > 9 else 6}d}.jpg", body)
                if make == "comment":
                    archive.comment = b"by another tool"
                if make == "foreign":
                    archive.writestr("notes.txt", b"")
        assert (read_directory(path) is not None) == is_fast
        index, _ = build_index([path.parent])
        reader = CropReader()
        found = [(crop.video_id, crop.frame, reader.read(crop)) for crop in index]
        assert found == ([] if make == "empty" else expected)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    for name in ("v_f000000.jpg", "IMG 1.jpg"):
        with zipfile.ZipFile(tmp_path / "v.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, b"x" * 99)
        with pytest.raises(UserError, match=f"'{name}' is compressed"):
            find_crops([tmp_path], probe_crops=8)


def test_images_of_any_names_are_crops_too(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    """In sub-folders and in a ZIP of them: the same crops, each a video of its own, so that no label is used."""
    names = [f"Dataset/{digit}/IMG_{i}.JPG" for digit in range(3) for i in range(4)]
    with zipfile.ZipFile(tmp_path / "fotos.zip", "w") as archive:
        for i, name in enumerate(names):
            (tmp_path / "fotos" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fotos" / name).write_bytes(picture(0, i))
            archive.write(tmp_path / "fotos" / name, name)
    (tmp_path / "fotos" / "Dataset" / "readme.txt").write_text("no image")
    (tmp_path / "fotos" / ".hidden.jpg").write_bytes(b"")
    reader, found = CropReader(), []
    for source in ("fotos", "fotos.zip"):
        crops, _ = build_index([tmp_path / source])
        assert [crop.video_id for crop in crops] == names
        found.append([reader.read(crop) for crop in crops])
    assert found[0] == found[1] == [picture(0, i) for i in range(12)]


@pytest.mark.parametrize("place", ["a.jpg", "sub/b.PNG", "video_f000003.jpg"])
def test_an_empty_image_is_named_at_the_listing(
    place: str, tmp_path: Path, picture: Callable[[int, int], bytes]
) -> None:
    """An interrupted copy leaves them, and a training would meet them hours later."""
    names = [f"photo {i}.jpg" for i in range(4)] if place == "a.jpg" or "/" in place else ["video_f000001.jpg"]
    for i, name in enumerate([*names, place]):
        (tmp_path / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "crops" / name).write_bytes(b"" if name == place else picture(0, i))
    with pytest.raises(UserError) as caught:
        find_crops([tmp_path / "crops"], probe_crops=0)
    fix = "extract the video again" if place.startswith("video") else "replace or remove this image"
    (line,) = caught.value.problems
    assert line == f"{tmp_path / 'crops'}: 1 images hold nothing (0 bytes): '{Path(place).name}'; {fix}"


def test_an_empty_member_of_an_archive_is_named_at_the_listing(tmp_path: Path) -> None:
    with CropWriter(tmp_path / "crops/v.zip", "v") as writer:
        writer.add(0, b"x")
        writer.add(1, b"")
    with pytest.raises(UserError, match=r"crops: 1 images hold nothing \(0 bytes\): 'v.zip, frame 1'; extract the"):
        find_crops([tmp_path / "crops"], probe_crops=0)


def test_a_damaged_image_of_a_user_is_to_be_replaced_and_not_extracted(
    make: Callable[..., Any], tmp_path: Path, picture: Callable[[int, int], bytes]
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(8):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(b"no image" if i == 3 else picture(0, i))
    crops = find_crops([tmp_path / "photos"], probe_crops=0)
    said = f"{tmp_path / 'photos/3.jpg'}: .*; replace or remove this image"
    with pytest.raises(UserError, match=said):
        load_whole(crops.train, 16)
    config = make(train_dir=[str(tmp_path / "photos")], dataset={"batch_size": 8})
    loader = ViewLoader(config, crops.train, plan_batches(config, crops, 1), World(0, 1, torch.device("cpu")))
    with pytest.raises(UserError, match=said):
        list(loader.steps(0, 1))


def test_several_folders_keep_their_videos_apart(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    for corpus in ("a", "b"):
        with CropWriter(tmp_path / corpus / "v.zip", "v") as writer:
            for frame in range(4):
                writer.add(frame, picture(corpus == "b", frame))
    both, _ = build_index([tmp_path / "a", tmp_path / "b"])
    assert len(both) == 8
    assert both.video.tolist() == [0] * 4 + [1] * 4
    assert {str(crop.path.parent.name) for crop in both} == {"a", "b"}
    with pytest.raises(UserError, match="is given twice"):
        find_crops([tmp_path / "a", tmp_path / "b", tmp_path / "b/../a"], probe_crops=0)


def test_the_digest_follows_the_crops_and_not_their_place(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    for folder, shift in (("x", 0), ("y", 0), ("z", 1)):
        with CropWriter(tmp_path / folder / "v.zip", "v") as writer:
            for frame in range(4):
                writer.add(frame, picture(0, frame + shift))
    digests = [build_index([tmp_path / folder])[0].digest for folder in "xyz"]
    assert digests[0] == digests[1] != digests[2]


OF_MACHINE = [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE]
REFUSED = [errno.EACCES, errno.EPERM]


@pytest.mark.parametrize("code", [*OF_MACHINE, *REFUSED], ids=errno.errorcode.get)
def test_a_crop_that_the_machine_does_not_give_is_no_damaged_one(
    crops_dir: Path,
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    """Listed, read whole, read for a batch, and read so in a loader process: the file is named, not to be extracted."""
    crops = list_crops(crops_dir)
    views = ViewDataset(ViewMaker(make().augmentation, is_photometric=True), 0)

    def in_loader() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(data, "get_worker_info", lambda: "a loader process")
            failure = views.__getitems__([Key(0, 0, crops[0])])
        assert isinstance(failure, OSError)
        raise pickle.loads(pickle.dumps(failure))  # noqa: S301  our own object

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("signstreams.pretrain.crop_index.read_directory", fail)
    monkeypatch.setattr(os, "pread", fail)
    for read in (
        lambda: find_crops([crops_dir], probe_crops=0),
        lambda: load_whole(crops, 16),
        lambda: views.__getitems__([Key(0, 0, crops[0])]),
        in_loader,
    ):
        with pytest.raises(SystemExit) as left, exit_on_user_error():
            read()
        assert left.value.code == (TRY_AGAIN_EXIT_CODE if code in OF_MACHINE else 2)
        said = capsys.readouterr().err
        assert said.startswith(f"error: {crops_dir}") and said.count("\n") == 1
        assert f": {os.strerror(code)}; fix that and run again" in said and "extract" not in said


def test_an_image_that_claims_too_many_pixels_is_damage(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(body)
    index, _ = build_index([tmp_path])
    with pytest.raises(DamagedFile, match=r"a\.png: .*; replace or remove this image"):
        load_whole(index, 16)
