"""Crops as a backbone takes them: RGB at its side, which must divide into patches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.errors import UserError
from signstreams.formats.crops import list_crops
from signstreams.integrate import features as images_module
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.features import ImageReader, decoding_threads
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.stream_backbones import image_side_px

Build = Callable[..., IntegrateConfig]
Open = Callable[[IntegrateConfig], dict[str, ClipDataset]]


def test_a_side_that_does_not_divide_into_patches_is_refused(backbone_specs: dict[str, str]) -> None:
    backbone = load_dinov2_backbone(backbone_specs["face_backbone"])
    assert image_side_px(backbone, 24, "face") == 24
    with pytest.raises(UserError, match=r"set data\.crop_px to 16 or 24"):
        image_side_px(backbone, 20, "face")


def test_crops_are_read_as_rgb_at_the_backbones_side(tiny_config: Build, open_splits: Open) -> None:
    sample = open_splits(tiny_config(model={"freeze_face_backbone": False}))["val"][0]
    crops = [crop for crop in sample.crops["face"] if crop is not None]
    native = ImageReader({"face": 16})("face", crops)
    assert native.shape == (len(crops), 16, 16, 3) and native.dtype == np.uint8
    for side in (8, 32):
        resized = ImageReader({"face": side})("face", crops)
        assert resized.shape == (len(crops), side, side, 3)
        # the same picture: the same mean of each colour, in the same order of channels
        np.testing.assert_allclose(resized.mean(axis=(1, 2)), native.mean(axis=(1, 2)), atol=4)


def test_threads_share_the_crops_of_a_call(
    tiny_config: Build, open_splits: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = open_splits(tiny_config(model={"freeze_face_backbone": False}))["train"]
    crops = [crop for sample in clips for crop in sample.crops["face"] if crop is not None]
    alone, shared = ImageReader({"face": 16}), ImageReader({"face": 16}, num_threads=3)
    for count in (0, 1, 2, 5, len(crops)):
        np.testing.assert_array_equal(shared("face", crops[:count]), alone("face", crops[:count]))
    monkeypatch.setattr(
        images_module, "files_to_keep_open", lambda _: 8
    )  # archives come and go, each thread has its own
    few = ImageReader({"face": 16}, num_threads=3)
    with ThreadPoolExecutor(4) as callers:  # as a loader reads ahead while an evaluation reads
        for found in callers.map(lambda _: few("face", crops), range(8)):
            np.testing.assert_array_equal(found, alone("face", crops))


def test_a_crop_that_a_thread_cannot_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "v_f000000.jpg").write_bytes(b"no jpeg")
    crops = list_crops(tmp_path) * 4
    with pytest.raises(UserError, match=r"v_f000000\.jpg, frame 0: is not a readable JPEG"):
        ImageReader({"face": 16}, num_threads=2)("face", crops)


def test_only_a_gpu_has_crops_decoded_by_several_threads() -> None:
    assert decoding_threads(torch.device("cpu")) == 1
    assert decoding_threads(torch.device("cuda")) == torch.get_num_threads()
