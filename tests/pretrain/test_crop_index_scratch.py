"""Crops copied to the node's own disk: the same training, read from there, copied once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.crops import CropReader
from signstreams.pretrain import crop_index as scratch
from signstreams.pretrain.crop_index import build_index, copy_to_scratch
from signstreams.pretrain.data import find_crops
from signstreams.pretrain.run import pretrain


def test_a_training_reads_from_scratch_and_gives_the_same_weights(
    make: Callable[..., Any], crops_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "local disk"))
    calm = pretrain(make(output_dir=str(tmp_path / "calm")), "hand_r")
    read: set[Path] = set()
    plain = CropReader.read
    monkeypatch.setattr(CropReader, "read", lambda self, crop: (read.add(crop.path), plain(self, crop))[1])
    config = make(output_dir=str(tmp_path / "staged"), dataset={"scratch_dir": "$NODE_DISK", "num_workers": 0})
    assert sha256_file(pretrain(config, "hand_r")) == sha256_file(calm)
    staged = {path for path in read if path.is_relative_to(tmp_path / "local disk")}
    assert {path.name for path in staged} == {"video_0.zip", "video_1.zip", "video_2.zip"}
    assert len(read - staged) <= 3  # the held-out crops, looked at where they are


def test_files_are_copied_once_and_again_when_the_source_changed(crops_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hand_r"
    shutil.copytree(crops_dir, folder)
    index, _ = build_index([folder])
    first = copy_to_scratch(index, str(tmp_path / "disk"))
    copies = [Path(name) for name in first.files]
    assert [crop.frame for crop in first] == [crop.frame for crop in index] and first.digest == index.digest
    copies[0].chmod(0o444)
    inodes = [copy.stat().st_ino for copy in copies]
    assert [copy.stat().st_ino for copy in map(Path, copy_to_scratch(index, str(tmp_path / "disk")).files)] == inodes
    os.utime(folder / "video_1.zip", ns=(1, 10**18))
    copy_to_scratch(index, str(tmp_path / "disk"))
    changed = [copy.stat().st_ino != inode for copy, inode in zip(copies, inodes, strict=True)]
    assert changed == [False, True, False]
    reader = CropReader()
    assert [reader.read(crop) for crop in first[::5]] == [reader.read(crop) for crop in index[::5]]


def test_only_files_that_are_needed_are_copied(crops_dir: Path, tmp_path: Path) -> None:
    index, _ = build_index([crops_dir])
    one = index.take(index.video == 1)
    copy_to_scratch(one, str(tmp_path / "disk"))
    assert [path.name for path in (tmp_path / "disk").rglob("*.zip")] == ["video_1.zip"]


def test_loose_images_are_copied_too(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    (tmp_path / "face").mkdir()
    for frame in range(9):
        (tmp_path / "face" / f"v_f{frame:06d}.jpg").write_bytes(picture(0, frame))
    crops = find_crops([tmp_path / "face"], probe_crops=2).train
    staged = copy_to_scratch(crops, str(tmp_path / "disk"))
    reader = CropReader()
    assert all(crop.path.is_relative_to(tmp_path / "disk") for crop in staged)
    assert [reader.read(crop) for crop in staged] == [reader.read(crop) for crop in crops]


@pytest.mark.parametrize("folder", ["$NO_SUCH_NAME/crops", "{tmp}/a file"])
def test_a_folder_that_cannot_be_is_one_line(folder: str, crops_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    index, _ = build_index([crops_dir])
    with pytest.raises(UserError, match=r"dataset\.scratch_dir") as caught:
        copy_to_scratch(index, folder.replace("{tmp}", str(tmp_path)))
    assert len(caught.value.problems) == 1


def test_each_user_of_a_node_has_a_folder_of_their_own(
    crops_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _ = build_index([crops_dir])
    copy_to_scratch(index, str(tmp_path / "disk"))
    (folder,) = (tmp_path / "disk").iterdir()
    assert (folder.name, folder.stat().st_mode & 0o777) == (f"signstreams_{os.getuid()}", 0o700)
    other = os.getuid() + 1
    (tmp_path / "disk" / f"signstreams_{other}").mkdir()
    monkeypatch.setattr(scratch.os, "getuid", lambda: other)
    with pytest.raises(UserError, match=r"dataset\.scratch_dir .* is another user's"):
        copy_to_scratch(index, str(tmp_path / "disk"))


def test_a_disk_that_is_too_small_is_refused_before_a_copy(
    crops_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _ = build_index([crops_dir])
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"0\.00 GB free"):
        copy_to_scratch(index, str(tmp_path / "disk"))
    assert not list((tmp_path / "disk").rglob("*.zip"))
