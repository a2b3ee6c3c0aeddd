"""The photometric half on the device equals that of the loader."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstreams.engine.distributed import World
from signstreams.engine.seeding import numpy_rng
from signstreams.formats.crops import CropReader, list_crops
from signstreams.pretrain.data import ViewLoader, find_crops, normalize
from signstreams.pretrain.sampler import BatchPlan, CropGroups
from signstreams.pretrain.settings import AugmentationConfig
from signstreams.pretrain.views import NUM_GLOBAL, DeviceViews, ViewMaker, gaussian_kernel, gaussian_kernels

CPU = torch.device("cpu")
STRONG = {"gaussian_blur_prob": 1.0, "solarize_prob": 0.5}
MOVED = {"turn_deg": 20.0, "motion_blur_prob": 0.5, "recompress_prob": 0.5}  # the loader's work, whoever does the rest


def _config(num_local: int, changes: dict[str, float]) -> AugmentationConfig:
    """Small views; where something changes, all are jittered."""
    config = AugmentationConfig(global_px=64, local_px=32, num_local=num_local, **changes)
    return config.model_copy(update={"jitter_prob": 1.0}) if changes else config


def _grey_levels(images: torch.Tensor, config: AugmentationConfig) -> torch.Tensor:
    """Normalised (..., 3, H, W) back to 0..255."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (config.mean, config.std))
    return (images.float() * std + mean) * 255


def test_finishing_on_a_gpu_waits_for_nothing(
    crops_dir: Path, pretend_cuda: Callable[[], AbstractContextManager[Any]]
) -> None:
    config = _config(2, STRONG)
    maker, reader = ViewMaker(config, is_photometric=False), CropReader()
    rows, params = [], []
    for i, crop in enumerate(list_crops(crops_dir)):
        rows.append([np.empty((side, side, 3), np.uint8) for side in maker.sides_px])
        params.append(maker.fill(reader.read(crop), numpy_rng(7, i), rows[-1], is_mirrored=False).params)
    views = torch.from_numpy(np.stack([np.stack(row[:NUM_GLOBAL]) for row in rows], axis=1))
    shipped = torch.from_numpy(np.stack(params, axis=1)[:NUM_GLOBAL]).float()
    expected = DeviceViews(config, CPU)(views, shipped)
    with pretend_cuda() as gpu:
        finish = DeviceViews(config, torch.device("cuda"))
        gpu.waits.clear()
        made = finish(views.pin_memory(), shipped)
        assert dict(gpu.waits) == {}
        assert torch.equal(made.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, STRONG, MOVED])
def test_device_and_loader_make_the_same_views(crops_dir: Path, dtype: torch.dtype, changes: dict[str, float]) -> None:
    config = _config(3, changes)
    whole, half = ViewMaker(config), ViewMaker(config, is_photometric=False)
    reader, finish = CropReader(), DeviceViews(config, CPU, dtype)
    expected, given, params = [], [], []
    for i, crop in enumerate(list_crops(crops_dir)):
        jpeg = reader.read(crop)
        expected.append(whole(jpeg, numpy_rng(7, i)))
        views = [np.empty((side, side, 3), np.uint8) for side in half.sides_px]
        params.append(half.fill(jpeg, numpy_rng(7, i), views, is_mirrored=False).params)
        given.append(views)
    shipped = torch.from_numpy(np.stack(params, axis=1)).float()  # (V, B, PARAMS)
    for part in (slice(NUM_GLOBAL), slice(NUM_GLOBAL, None)):
        views, exact = (
            torch.from_numpy(np.stack([np.stack(one[part]) for one in rows], axis=1)) for rows in (given, expected)
        )
        made = finish(views, shipped[part])
        assert made.dtype == dtype
        made = _grey_levels(made, config)
        rounding = 2.0 if dtype == torch.float32 else 4.0  # bfloat16 tells 256 levels of a normalised value apart
        difference = (made - exact.movedim(-1, -3)).abs()
        assert difference.max() <= rounding
        assert difference.mean() < rounding / 4
        assert (views != exact).any(), "nothing was left to do: the test shows nothing"


def test_the_kernels_are_those_of_the_loader() -> None:
    sigmas = torch.tensor([0.3, 0.8, 2.0])
    for sigma, taps in zip(sigmas.tolist(), gaussian_kernels(sigmas), strict=True):
        exact = gaussian_kernel(sigma)
        rim = (len(taps) - len(exact)) // 2
        assert np.allclose(taps[rim : len(taps) - rim], exact, atol=1e-6)
        assert taps[:rim].abs().sum() == 0


@pytest.mark.parametrize("num_local", [0, 2])
def test_the_loader_gives_finished_views(crops_dir: Path, make: Callable[..., Any], num_local: int) -> None:
    crops = find_crops([crops_dir], max_crops=None, probe_crops=8).train
    plan = BatchPlan(CropGroups.of(crops.video, crops.frame), batch_size=8, world_size=1, seed=0)
    sizes = {"num_local": num_local} if num_local else {"num_local": 0, "local_px": 48}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    made = []
    for on_device in (True, False):
        config = make(augmentation={**sizes, "on_device": on_device})
        ((views, small),) = ViewLoader(config, crops, plan, World(0, 1, CPU)).steps(0, 1)
        made.append([normalize(part, mean, std) for part in (views, small) if part.numel()])
        assert views.is_floating_point() == on_device
    assert len(made[0]) == (2 if num_local else 1)
    for on_device, in_loader in zip(*made, strict=True):
        assert on_device.shape == in_loader.shape
        assert (on_device - in_loader).abs().max() < 2 / 255 / 0.22


def test_automatic_means_on_cuda() -> None:
    automatic = AugmentationConfig()
    assert [automatic.is_on_device(device) for device in ("cpu", "cuda")] == [False, True]
    assert AugmentationConfig(on_device=True).is_on_device("cpu")
    assert not AugmentationConfig(on_device=False).is_on_device("cuda")
