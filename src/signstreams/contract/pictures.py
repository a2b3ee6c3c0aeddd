"""Pictures for the page: crops and previews of some videos, from files that may be damaged or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Pixels
from signstreams.contract.records import STATE_NAMES
from signstreams.formats.arrays import Tracks, read_tracks
from signstreams.formats.crops import Crop, CropReader, list_crops, parse_crop_name
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata, read_metadata
from signstreams.formats.strip import inner_places
from signstreams.markup import QUALITIES, webp
from signstreams.streams import STREAMS

MAX_VIDEOS = 24
"""Videos shown with pictures: all of a small corpus; of a large one half the worst, half spread over the others."""
NUM_CROPS, CROP_PX = 48, 88
PREVIEW_PX = 800
MAX_LOOSE = 20_000
"""Files of a folder of loose crops that are looked at for some to show."""


class ShownCrop(NamedTuple):
    """A small crop.

    Attributes:
        video_id, frame: Where it was cut.
        state: Name of its state; empty when the tracks do not say.
        uri: The picture; empty when it cannot be read.
    """

    video_id: str
    frame: int
    state: str
    uri: str


class ShownVideo(NamedTuple):
    """A video with what is known of it.

    Attributes:
        row: Its row in the report.
        metadata: None when it cannot be read.
        preview: The picture; empty when there is none.
    """

    row: Mapping[str, Any]
    metadata: VideoMetadata | None
    preview: str


def choose_videos(ordered: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows to show with pictures, of all rows with the worst first."""
    if len(ordered) <= MAX_VIDEOS:
        return list(ordered)
    worst, others = ordered[: MAX_VIDEOS // 2], ordered[MAX_VIDEOS // 2 :]
    spread = np.linspace(0, len(others) - 1, MAX_VIDEOS - len(worst)).round().astype(int)
    return [*worst, *(others[place] for place in spread)]


def show_videos(
    layout: CorpusLayout, rows: Sequence[Mapping[str, Any]], quality: int = QUALITIES[0]
) -> list[ShownVideo]:
    """Metadata and preview of each."""
    shown = []
    for row in rows:
        metadata = None
        with suppress(OSError, ValueError):
            metadata = read_metadata(layout.metadata(row["video_id"]))
        shown.append(ShownVideo(row, metadata, _preview(layout.preview(row["video_id"]), quality)))
    return shown


def box_sides(layout: CorpusLayout, video_ids: Sequence[str]) -> dict[str, list[float]]:
    """Stream to the sides of its boxes, px of the source, over these videos."""
    sides: dict[str, list[float]] = {stream: [] for stream in STREAMS}
    for tracks in filter(None, (_tracks(layout, video_id) for video_id in video_ids)):
        for stream, track in tracks.streams.items():
            box = track.box[track.state > 0]
            side = box[:, 2] - box[:, 0]
            sides[stream] += side[np.isfinite(side) & (side > 0)].tolist()
    return sides


def show_crops(
    layout: CorpusLayout, video_ids: Sequence[str], quality: int = QUALITIES[0]
) -> dict[str, list[ShownCrop]]:
    """Stream to crops spread over the videos and over time."""
    tracks = {video_id: _tracks(layout, video_id) for video_id in video_ids}
    reader = CropReader()
    try:
        return {stream: list(_crops_of(layout, stream, video_ids, tracks, reader, quality)) for stream in STREAMS}
    finally:
        reader.close()


def _crops_of(
    layout: CorpusLayout,
    stream: str,
    video_ids: Sequence[str],
    tracks: Mapping[str, Tracks | None],
    reader: CropReader,
    quality: int,
) -> Iterator[ShownCrop]:
    each = max(2, NUM_CROPS // max(1, len(video_ids)))
    num_shown = 0
    for video_id, crops in _listed(layout, stream, video_ids):
        known = tracks.get(video_id)
        for place in inner_places(len(crops), min(each, len(crops))):
            if num_shown == NUM_CROPS:
                return
            crop = crops[place]
            state = ""
            if known is not None and crop.frame < len(known.times_s):
                state = STATE_NAMES.get(int(known.streams[stream].state[crop.frame]), "")
            yield ShownCrop(video_id, crop.frame, state, _small(crop, reader, quality))
            num_shown += 1


def _listed(layout: CorpusLayout, stream: str, video_ids: Sequence[str]) -> Iterator[tuple[str, list[Crop]]]:
    """Video id and its crops, of videos that have some."""
    archived = False
    for video_id in video_ids:
        with suppress(OSError, ValueError):
            crops = list_crops(layout.crops(stream, video_id))
            archived = True
            if crops:
                yield video_id, crops
    if archived:
        return
    loose: dict[str, list[Crop]] = {}
    with suppress(OSError), os.scandir(layout.processed / stream) as entries:
        for entry in islice(entries, MAX_LOOSE):
            if (key := parse_crop_name(entry.name)) is not None and key[0] in video_ids:
                loose.setdefault(key[0], []).append(Crop(*key, Path(entry.path), None, 0, None))
    for video_id in sorted(loose):
        yield video_id, sorted(loose[video_id], key=lambda crop: crop.frame)


def _small(crop: Crop, reader: CropReader, quality: int) -> str:
    with suppress(OSError, ValueError):
        image = _decoded(reader.read(crop))
        if image is not None:
            return webp(cv2.resize(image, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), quality)
    return ""


def _preview(path: Path, quality: int) -> str:
    with suppress(OSError):
        image = _decoded(path.read_bytes())
        if image is not None:
            scale = min(1.0, PREVIEW_PX / image.shape[1])
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            return webp(cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image, quality)
    return ""


def _decoded(data: bytes) -> Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # a size that no picture has
        return None


def _tracks(layout: CorpusLayout, video_id: str) -> Tracks | None:
    try:
        return read_tracks(layout.tracks(video_id))
    except Exception:  # the checks have said what is wrong with it; nothing may keep the page from being written
        return None
