"""Picture of a clip: crops of some of its frames, one row per stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signstreams.array_types import Pixels
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.spread import evenly_spread
from signstreams.streams import SIDE_BY_SIDE

NUM_FRAMES = 6
TILE_PX = 72
WIDTH_PX, HEIGHT_PX = NUM_FRAMES * TILE_PX, len(SIDE_BY_SIDE) * TILE_PX
_ABSENT = 230  # light grey


def clip_strip(layout: CorpusLayout, video_id: str, frames: Sequence[int], reader: CropReader) -> Pixels:
    """`NUM_FRAMES` frames of a clip, evenly spread; grey where there is no crop.

    Args:
        layout: Corpus.
        video_id: Video of the clip.
        frames: Frames of the clip, at least one.
        reader: Reader of crops; the caller closes it.

    Returns:
        (`HEIGHT_PX`, `WIDTH_PX`, 3) uint8 BGR.
    """
    shown = [frames[place] for place in evenly_spread(NUM_FRAMES, len(frames))]
    rows = [np.hstack([*_tiles(layout, stream, video_id, shown, reader)]) for stream in SIDE_BY_SIDE]
    return np.vstack(rows)


def _tiles(layout: CorpusLayout, stream: str, video_id: str, frames: Sequence[int], reader: CropReader) -> list[Pixels]:
    """A square (TILE_PX, TILE_PX, 3) per frame."""
    import cv2

    try:
        crops = {crop.frame: crop for crop in list_crops(layout.crops(stream, video_id))}
    except (OSError, ValueError):
        crops = {}
    tiles: list[Pixels] = []
    for frame in frames:
        image = None
        if (crop := crops.get(frame)) is not None:
            image = cv2.imdecode(np.frombuffer(reader.read(crop), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            tiles.append(np.full((TILE_PX, TILE_PX, 3), _ABSENT, np.uint8))
        else:
            tiles.append(cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA))
    return tiles
