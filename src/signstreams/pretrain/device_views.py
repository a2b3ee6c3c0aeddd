"""The photometric half of the views on the training device: colour, blur, solarise, normalise, a batch at a time.

The loader decodes, cuts and flips, and ships uint8 views with each view's parameters (`ViewMaker.draw`), so that the
draws are those of the CPU path. The pixels differ from it by rounding: the CPU rounds after each operation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.engine.device import to_device
from signstreams.pretrain.settings import AugmentationConfig
from signstreams.pretrain.views import LUMA, MAP_SIZE


class DeviceViews:
    """Finish views on ``device``.

    Args:
        config: The recipe: mean and std.
        device: Where to compute, in float32.
        dtype: Of the result; bfloat16 halves its memory where the first layer would round to it anyway.
    """

    def __init__(self, config: AugmentationConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self._luma = torch.tensor(LUMA, dtype=torch.float32, device=device)
        std = torch.tensor(config.std, device=device)[:, None, None]  # (3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = -torch.tensor(config.mean, device=device)[:, None, None] / std

    @torch.no_grad()
    def __call__(self, views: Tensor, params: Tensor) -> Tensor:
        """Views of one size, normalised.

        Nothing here waits for the device: what depends on the draws is decided from ``params``, which stay on the CPU.

        Args:
            views: (V, B, side, side, 3) uint8, anywhere.
            params: (V, B, PARAMS) float32 on the CPU.

        Returns:
            (V, B, 3, side, side) of ``dtype``.
        """
        flat = params.flatten(0, 1)  # (N, PARAMS), N = V * B
        x = views.to(self.device, non_blocking=True).flatten(0, 1).movedim(-1, 1).float()  # (N, 3, side, side)
        x = self._color(x, flat[:, :MAP_SIZE])
        if len(chosen := flat[:, MAP_SIZE].nonzero()[:, 0]):
            there = to_device(chosen, self.device)
            x.index_copy_(0, there, self._blur(x.index_select(0, there), flat[chosen, MAP_SIZE]))
        if len(chosen := flat[:, MAP_SIZE + 1].nonzero()[:, 0]):
            there = to_device(chosen, self.device)
            some = x.index_select(0, there)
            x.index_copy_(0, there, torch.where(some < 127.5, some, 255 - some))
        x = torch.addcmul(self._shift, x, self._scale)
        done: Tensor = x.to(self.dtype).unflatten(0, params.shape[:2])
        return done

    def _color(self, x: Tensor, maps: Tensor) -> Tensor:
        """(N, 3, H, W) through maps (N, MAP_SIZE), clipped to 0..255."""
        maps = to_device(maps, self.device)
        linear = maps[:, :9].unflatten(1, (3, 3))  # (N, 3 out, 3 in)
        mean_luma = x.mean(dim=(2, 3)) @ self._luma  # (N,)
        offset = (maps[:, 9] * mean_luma)[:, None, None]  # (N, 1, 1)
        # sums in place of a matrix product: that may be set to TF32, whose 10 bits are too few for 256 levels
        rows = [
            sum(linear[:, out, i, None, None] * x[:, i] for i in range(3)) + offset
            for out in range(3)  # (N, H, W) each
        ]
        return torch.stack(rows, dim=1).clamp_(0, 255)

    def _blur(self, x: Tensor, sigma_px: Tensor) -> Tensor:
        """(M, 3, H, W), each with its own Gaussian, sigma (M,) on the CPU; mirrored at the rim."""
        taps = gaussian_taps(sigma_px)  # (M, K)
        num_taps, count = taps.shape[1], 3 * len(taps)
        weight = to_device(taps, self.device).repeat_interleave(3, dim=0)  # (3 M, K)
        x = F.pad(x, [num_taps // 2] * 4, mode="reflect").flatten(0, 1)[None]  # (1, 3 M, H + K - 1, W + K - 1)
        x = F.conv2d(x, weight[:, None, :, None], groups=count)  # (1, 3 M, H, W + K - 1)
        x = F.conv2d(x, weight[:, None, None, :], groups=count)  # (1, 3 M, H, W)
        blurred: Tensor = x[0].unflatten(0, (-1, 3))
        return blurred


def gaussian_taps(sigma_px: Tensor) -> Tensor:
    """(M, K) float32 weights with sum 1 for sigmas (M,): three sigma to either side, zeros up to the widest's K."""
    radius = (3 * sigma_px.double()).ceil().clamp(min=1)[:, None]  # (M, 1)
    widest = math.ceil(float(radius.max()))
    at = torch.arange(-widest, widest + 1, dtype=torch.float64)  # (K,)
    taps = (-(at**2) / (2 * sigma_px.double()[:, None] ** 2)).exp() * (at.abs() <= radius)
    return (taps / taps.sum(dim=1, keepdim=True)).float()
