"""Crops to what the model takes: decoded and resized images, and features of frozen backbones, made once a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from signstreams.backbones.load import Backbone
from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader
from signstreams.integrate.batches import Sample
from signstreams.progress import Progress

ENCODE_BATCH = 64


def fitting_px(backbone: Backbone, crop_px: int | None, stream: str) -> int:
    """Side of the images a backbone gets: as set, or as it was trained.

    Raises:
        UserError: When the side is no multiple of its patch.
    """
    side = crop_px or backbone.image_px
    if backbone.patch_size and side % backbone.patch_size:
        lower = max(1, side // backbone.patch_size) * backbone.patch_size
        raise UserError(
            f"data.crop_px: {side} px do not divide into the {stream} backbone's patches of {backbone.patch_size} px;"
            f" set data.crop_px to {lower} or {lower + backbone.patch_size}"
        )
    return side


class ImageReader:
    """Reads crops as images of a stream's side; archives stay open."""

    def __init__(self, sides_px: dict[str, int]) -> None:
        self._sides_px = sides_px
        self._reader = CropReader()

    def __call__(self, stream: str, crops: Sequence[Crop]) -> np.ndarray:
        """Crops to uint8 RGB (N, px, px, 3).

        Raises:
            UserError: When a crop cannot be decoded; names file and frame.
        """
        import cv2

        side = self._sides_px[stream]
        images = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
        for row, crop in enumerate(crops):
            try:
                image = cv2.imdecode(np.frombuffer(self._reader.read(crop), dtype=np.uint8), cv2.IMREAD_COLOR)
            except (OSError, ValueError, cv2.error):
                image = None
            if image is None:
                raise UserError(f"{crop.path}: frame {crop.frame} is no readable JPEG; extract the video again")
            if image.shape[:2] != (side, side):
                shrinks = image.shape[0] > side
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            images[row] = image[..., ::-1]  # OpenCV decodes to blue, green, red
        return images


def encode_frozen(
    samples: list[Sample], backbones: dict[str, Backbone], reader: ImageReader, device: torch.device
) -> list[Sample]:
    """The clips with the features of these streams, each crop encoded once though clips may share it.

    Raises:
        UserError: Unreadable crop, or a backbone whose features are not finite in float16.
    """
    for stream, backbone in backbones.items():
        samples = _encode_stream(samples, stream, backbone, reader, device)
    return samples


@torch.inference_mode()
def _encode_stream(
    samples: list[Sample], stream: str, backbone: Backbone, reader: ImageReader, device: torch.device
) -> list[Sample]:
    crops = list(dict.fromkeys(crop for sample in samples for crop in sample.crops[stream] if crop is not None))
    rows = {crop: row for row, crop in enumerate(crops)}
    features = np.zeros((len(crops) + 1, backbone.embed_dim), dtype=np.float16)  # the last row: missing
    backbone.to(device).eval()
    done = 0
    with Progress(len(crops), "crops", f"encode {stream}") as progress:
        for images in _ahead(reader, stream, crops):
            values = backbone(backbone.normalize(torch.from_numpy(images).to(device))).half()  # (N, D)
            if not torch.isfinite(values).all():
                raise UserError(f"backbone of {stream}: its features are not finite; pretrain the stream again")
            features[done : done + len(images)] = values.cpu().numpy()
            done += len(images)
            progress.advance(len(images))
    backbone.to("cpu")
    encoded = []
    for sample in samples:
        places = [len(crops) if crop is None else rows[crop] for crop in sample.crops[stream]]
        others = {name: kept for name, kept in sample.crops.items() if name != stream}  # never read again: frees memory
        encoded.append(replace(sample, features={**sample.features, stream: features[places]}, crops=others))
    return encoded


def _ahead(reader: ImageReader, stream: str, crops: list[Crop]) -> Iterator[np.ndarray]:
    """Images of each batch; the next one is decoded while the current one is in use."""
    starts = range(0, len(crops), ENCODE_BATCH)
    with ThreadPoolExecutor(1) as pool:
        jobs = [pool.submit(reader, stream, crops[start : start + ENCODE_BATCH]) for start in starts[:1]]
        for start in starts:
            images = jobs.pop().result()
            if start + ENCODE_BATCH < len(crops):
                following = crops[start + ENCODE_BATCH : start + 2 * ENCODE_BATCH]
                jobs.append(pool.submit(reader, stream, following))
            yield images
