"""The stage behind the detector: a frame with its final boxes becomes crops in the archives."""

from __future__ import annotations

from typing import NamedTuple

from signstreams.array_types import Floats, Pixels
from signstreams.config.extract import ExtractConfig
from signstreams.extract.crops import cut, encode
from signstreams.extract.preview import Preview
from signstreams.extract.privacy import protect
from signstreams.extract.tracks import FrameBoxes
from signstreams.formats.crops import CropWriter
from signstreams.streams import BoxState


class BoxedFrame(NamedTuple):
    """A frame whose boxes are final.

    Attributes:
        index: Output frame.
        time_s: Its time.
        image: (H, W, 3) uint8 RGB.
        keypoints: (543, 3) points of the signer.
        boxes: Box of each stream.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    time_s: float
    image: Pixels
    keypoints: Floats
    boxes: FrameBoxes


class Cropper:
    """Cuts, encodes and stores the crops of one video.

    Args:
        archives: One for each stream, in the order of `STREAMS`.
        config: Size, quality, and what is shown of faces.
        preview: Is offered every frame.
    """

    def __init__(self, archives: list[CropWriter], config: ExtractConfig, preview: Preview) -> None:
        self._archives, self._config, self._preview = archives, config, preview

    def crop(self, frame: BoxedFrame) -> None:
        """Crops of the streams that have a box in this frame."""
        image = protect(frame.image, frame.keypoints, frame.boxes, self._config.face_privacy)
        crops: list[Pixels | None] = []
        for box, state, archive in zip(frame.boxes.box, frame.boxes.state, self._archives, strict=True):
            if state == BoxState.MISSING:
                crops.append(None)
                continue
            crop = cut(image, box, self._config.crop_px)
            archive.add(frame.index, encode(crop, self._config.jpeg_quality))
            crops.append(crop)
        self._preview.offer(frame.time_s, image, frame.keypoints, frame.boxes, crops)
