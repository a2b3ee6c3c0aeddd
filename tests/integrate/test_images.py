"""Crops as a backbone takes them: RGB at its side, which must divide into patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from signstreams.backbones.load import load_dinov2_backbone
from signstreams.config.integrate import IntegrateConfig
from signstreams.errors import UserError
from signstreams.integrate.clips import Clips
from signstreams.integrate.images import ImageReader, fitting_px

Build = Callable[..., IntegrateConfig]
Open = Callable[[IntegrateConfig], dict[str, Clips]]


def test_a_side_that_does_not_divide_into_patches_is_refused(backbone_specs: dict[str, str]) -> None:
    backbone = load_dinov2_backbone(backbone_specs["face_backbone"])
    assert fitting_px(backbone, 24, "face") == 24
    with pytest.raises(UserError, match=r"set data\.crop_px to 16 or 24"):
        fitting_px(backbone, 20, "face")


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
