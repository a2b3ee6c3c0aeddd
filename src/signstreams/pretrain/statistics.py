"""Mean and deviation of the crops' channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signstreams.config.pretrain import PretrainConfig
from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader
from signstreams.pretrain.views import decode

MAX_CROPS = 2048
"""Enough for three digits: the deviation between crops is far below 1."""
DECIMALS = 4


def with_measured_stats(config: PretrainConfig, crops: Sequence[Crop]) -> PretrainConfig:
    """The config as if mean and std had been given, where it asks to measure them."""
    if not config.dataset.measure_stats:
        return config
    mean, std = channel_stats(crops)
    changes = {
        "augmentation": config.augmentation.model_copy(update={"mean": mean, "std": std}),
        "dataset": config.dataset.model_copy(update={"measure_stats": False}),
    }
    return config.model_copy(update=changes)


def channel_stats(crops: Sequence[Crop]) -> tuple[list[float], list[float]]:
    """Mean and deviation of R, G, B in 0..1 over all pixels of up to `MAX_CROPS` crops, evenly spread; each crop alike.

    Raises:
        UserError: When a crop cannot be read.
    """
    count = min(MAX_CROPS, len(crops))
    moments = np.zeros((2, 3))
    reader = CropReader()
    for i in range(count):
        crop = crops[int((i + 0.5) * len(crops) / count)]
        try:
            pixels = decode(reader.read(crop)).reshape(-1, 3) / 255  # (P, 3)
        except (OSError, ValueError) as error:
            raise UserError(f"{crop.path}, frame {crop.frame}: {error}; extract the video again") from None
        moments += pixels.mean(axis=0), (pixels**2).mean(axis=0)
    reader.close()
    mean, square = moments / count
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), 10**-DECIMALS)  # crops of one colour
    return [round(float(value), DECIMALS) for value in mean], [round(float(value), DECIMALS) for value in std]
