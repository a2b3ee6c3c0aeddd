"""Mean and deviation of the crops' channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader, CropWriter, list_crops
from signstreams.pretrain import selection as statistics
from signstreams.pretrain.selection import channel_stats, with_measured_stats


@pytest.fixture
def crops(crops_dir: Path) -> list[Crop]:
    """48 crops of three videos."""
    return [crop for path in sorted(crops_dir.glob("*.zip")) for crop in list_crops(path)]


def _pixels(crops: Sequence[Crop]) -> np.ndarray:
    """RGB in 0..1 of all of them, (N * side * side, 3)."""
    reader = CropReader()
    images = [cv2.imdecode(np.frombuffer(reader.read(crop), np.uint8), cv2.IMREAD_COLOR) for crop in crops]
    reader.close()
    return np.stack(images)[..., ::-1].reshape(-1, 3) / 255


def _write(path: Path, images: list[np.ndarray]) -> list[Crop]:
    with CropWriter(path, "v") as writer:
        for frame, image in enumerate(images):
            writer.add(frame, cv2.imencode(".jpg", image)[1].tobytes())
    return list_crops(path)


def test_mean_and_deviation_are_those_of_the_pixels(crops: list[Crop]) -> None:
    mean, std = channel_stats(crops)
    pixels = _pixels(crops)
    assert mean == pytest.approx(pixels.mean(axis=0), abs=1e-4)
    assert std == pytest.approx(pixels.std(axis=0), abs=1e-4)


def test_measured_is_as_if_it_had_been_given(crops: list[Crop], make: Callable[..., Any]) -> None:
    mean, std = channel_stats(crops)
    given = make()
    assert with_measured_stats(given, crops) is given
    measured = with_measured_stats(make(dataset={"measure_stats": True}), crops)
    assert (measured.augmentation.mean, measured.augmentation.std) == (mean, std)
    assert measured.identity() != given.identity()
    as_given = make(augmentation={"mean": mean, "std": std})
    assert measured.identity() == as_given.identity()
    with pytest.raises(ValueError, match=r"augmentation.mean has no effect: dataset.measure_stats"):
        make(dataset={"measure_stats": True}, augmentation={"mean": mean})


def test_of_many_crops_some_are_measured_evenly_spread(crops: list[Crop], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "STATS_CROPS", 4)
    mean, std = channel_stats(crops)
    pixels = _pixels([crops[i] for i in (6, 18, 30, 42)])  # the middles of four equal parts
    assert mean == pytest.approx(pixels.mean(axis=0), abs=1e-4)
    assert std == pytest.approx(pixels.std(axis=0), abs=1e-4)


def test_a_small_crop_counts_as_much_as_a_large_one(tmp_path: Path) -> None:
    images = [np.full((8, 8, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)]
    assert channel_stats(_write(tmp_path / "v.zip", images)) == ([0.5] * 3, [0.5] * 3)


def test_crops_of_one_colour_can_still_be_divided_by_their_deviation(tmp_path: Path) -> None:
    crops = _write(tmp_path / "v.zip", [np.full((8, 8, 3), 255, np.uint8)] * 2)
    assert channel_stats(crops) == ([1.0] * 3, [1e-4] * 3)


def test_a_crop_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with CropWriter(tmp_path / "v.zip", "v") as writer:
        writer.add(3, b"no picture")
    with pytest.raises(UserError, match=r"v\.zip, frame 3: is not a readable image; extract the video again"):
        channel_stats(list_crops(tmp_path / "v.zip"))
