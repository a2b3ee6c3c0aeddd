"""Damaged files of an extraction: every reader says so in one line; no traceback, no hang, no claimed gigabytes."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from signstreams.errors import DamagedFile
from signstreams.formats.arrays import (
    StreamTrack,
    Tracks,
    keypoint_pieces,
    read_keypoints,
    read_pose,
    read_times,
    read_tracks,
    write_keypoints,
    write_pose,
    write_tracks,
)
from signstreams.formats.crops import CropReader, CropWriter, list_crops
from signstreams.pretrain.crop_index import build_index
from signstreams.streams import STREAMS

T = 12
SEED, CASES = 16, 1000


def read_crops(path: Path) -> None:
    reader = CropReader()
    try:
        for crop in list_crops(path):
            reader.read(crop)
    finally:
        reader.close()


def list_for_training(path: Path) -> None:
    index, problems = build_index([path])
    assert all(crop.size >= 0 for crop in index)
    for _, error in problems:
        if error is not None:
            raise error


READERS: dict[str, list[Callable[[Path], Any]]] = {
    "keypoints.npz": [read_keypoints, lambda path: list(keypoint_pieces(path))],
    "pose.npz": [read_pose],
    "tracks.npz": [read_tracks, read_times],
    "crops.zip": [read_crops, list_for_training],
}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    write_keypoints(tmp_path / "keypoints.npz", rng.random((T, 543, 3), np.float32))
    write_pose(tmp_path / "pose.npz", rng.random((T, 99), np.float32))
    track = StreamTrack(np.ones((T, 4), np.float32), np.ones(T, np.float32), np.zeros(T, np.uint8))
    write_tracks(tmp_path / "tracks.npz", Tracks(dict.fromkeys(STREAMS, track), np.arange(T) / 25))
    with CropWriter(tmp_path / "crops.zip", "a") as writer:
        for frame in range(T):
            writer.add(frame, rng.bytes(200))
    return {name: (tmp_path / name).read_bytes() for name in READERS}


def damaged_inside(data: bytes, rng: random.Random, damage: ModuleType) -> bytes:
    """One array of an npz, mostly its header; the archive's own checksums find nothing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    members[name] = damage.mutated(members[name][:130], rng) + members[name][130:]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_no_damage_ends_in_a_traceback_a_hang_or_2_gb(
    tmp_path: Path, whole: dict[str, bytes], damage: ModuleType
) -> None:
    rng = random.Random(SEED)
    refused = 0
    for number in range(CASES):
        name = rng.choice(list(READERS))
        is_inside = name.endswith(".npz") and rng.random() < 0.4
        change = damaged_inside if is_inside else lambda data, rng, damage: damage.mutated(data, rng)
        path = tmp_path / name
        path.write_bytes(change(whole[name], rng, damage))
        for read in READERS[name]:
            try:
                with damage.bounded():
                    read(path)
            except DamagedFile as error:
                refused += 1
                assert "\n" not in str(error) and str(path) in str(error)
            except BaseException as error:
                error.add_note(f"case {number}, {name}, {read}")
                raise
    assert refused > CASES / 2
