"""Features of frozen backbones: crops are decoded and encoded once per video and backbone; training maps the arrays."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from signstreams.array_types import Array, Pixels
from signstreams.errors import DamagedFile, UserError, raise_if_of_machine
from signstreams.files import digest, write_json
from signstreams.formats.arrays import read_tracks
from signstreams.formats.crops import Crop, CropReader, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.stream_backbones import FrozenBackbone
from signstreams.integrate.videos import ProcessedVideo
from signstreams.prefetch import prefetch
from signstreams.processes import files_to_keep_open
from signstreams.progress import Progress
from signstreams.streams import BoxState

# -- Images


def decoding_threads(device: torch.device) -> int:
    """Threads that decode crops: a GPU encodes faster than one core decodes; a CPU needs its cores for the model."""
    return torch.get_num_threads() if device.type == "cuda" else 1


class ImageReader:
    """Decodes crops and resizes them to the side length of their stream's images; archives stay open. Thread-safe."""

    def __init__(self, sides_px: dict[str, int], *, num_threads: int = 1) -> None:
        self._sides_px, self._num_threads = sides_px, num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode") if num_threads > 1 else None
        self._own = threading.local()

    def __call__(self, stream: str, crops: Sequence[Crop]) -> Pixels:
        """Crops to uint8 RGB (N, px, px, 3), shared out among the threads; `DamagedFile` if one cannot be decoded."""
        side = self._sides_px[stream]
        images = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
        if self._pool is None:
            self._decode(crops, images)
            return images
        size = max(1, math.ceil(len(crops) / self._num_threads))
        starts = range(0, len(crops), size)
        for _ in self._pool.map(lambda at: self._decode(crops[at : at + size], images[at : at + size]), starts):
            pass  # raises what a thread raised
        return images

    def _decode(self, crops: Sequence[Crop], images: Pixels) -> None:
        """Write crops to the rows of ``images``."""
        import cv2

        if not hasattr(self._own, "reader"):
            self._own.reader = CropReader(files_to_keep_open(2 * self._num_threads))
        reader: CropReader = self._own.reader
        side = images.shape[1]
        for row, crop in enumerate(crops):
            try:
                image = cv2.imdecode(np.frombuffer(reader.read(crop), dtype=np.uint8), cv2.IMREAD_COLOR)
            except (OSError, ValueError, cv2.error) as error:
                raise_if_of_machine(error, crop.path)
                image = None
            if image is None:
                raise DamagedFile(crop.path, "is not a readable JPEG", frame=crop.frame)
            images[row] = resized(image, side)[..., ::-1]  # OpenCV decodes to blue, green, red


def resized(image: Pixels, side_px: int) -> Pixels:
    """An image (H, W, 3) at the side length of a backbone's images; one that has it is returned as it is."""
    import cv2

    if image.shape[:2] == (side_px, side_px):
        return image
    shrinks = image.shape[0] > side_px
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


# -- Features

BATCH = 64  # crops that a backbone encodes at once on a CPU; eight times as many on a GPU


def open_features(features: Path, frozen: FrozenBackbone) -> ArrayStore:
    """``<features>/<stream>/<digest>``: (T, D) or (T, L, D) float16 of each video, NaN in frames without a crop."""
    return ArrayStore(features / frozen.stream / frozen.digest)


def present_crops(layout: CorpusLayout, stream: str, video_id: str) -> tuple[int, dict[int, Crop]]:
    """Number of frames of a video, and frame to crop where the stream is present.

    Raises:
        DamagedFile: A file cannot be read.
        OSError: A file is missing.
    """
    tracks = read_tracks(layout.tracks(video_id))
    state = tracks.streams[stream].state
    crops = {crop.frame: crop for crop in list_crops(layout.crops(stream, video_id))}
    present = {frame: crop for frame, crop in crops.items() if frame < len(state) and state[frame] != BoxState.MISSING}
    return len(state), present


def embed_stream(
    layout: CorpusLayout,
    videos: Iterable[ProcessedVideo],
    frozen: FrozenBackbone,
    store: ArrayStore,
    device: torch.device,
) -> list[str]:
    """Encode the videos that have no features, or features of other crops; returns problems of files.

    Raises:
        UserError: A crop cannot be decoded, or features are not finite in float16.
    """
    work: list[tuple[ProcessedVideo, int, list[Crop]]] = []
    problems = []
    for video in videos:
        if store.is_current(video.video_id, _source(video, frozen.stream)):
            continue
        try:
            num_frames, crops = present_crops(layout, frozen.stream, video.video_id)
        except (OSError, ValueError) as error:
            file = layout.crops(frozen.stream, video.video_id)
            problems += DamagedFile.of(file, error).problems
            continue
        work.append((video, num_frames, [crops[frame] for frame in sorted(crops)]))
    if work and not problems:
        _encode(work, frozen, store, device)
    return problems


def _source(video: ProcessedVideo, stream: str) -> str:
    """Digest of the crops and of the states that say which ones count."""
    return digest([video.sources[stream], video.sources["tracks"]])


@torch.inference_mode()
def _encode(
    work: list[tuple[ProcessedVideo, int, list[Crop]]],
    frozen: FrozenBackbone,
    store: ArrayStore,
    device: torch.device,
) -> None:
    frozen.net.to(device).eval()
    reader = ImageReader({frozen.stream: frozen.side_px}, num_threads=decoding_threads(device))
    size = BATCH * (8 if device.type == "cuda" else 1)
    # batches cross videos, so that short ones do not leave a GPU half empty
    places = [(i, crop) for i, (_, _, crops) in enumerate(work) for crop in crops]
    left = [len(crops) for _, _, crops in work]
    arrays: dict[int, Array] = {}

    def finish(i: int) -> None:
        video, num_frames, _ = work[i]
        array = arrays.pop(i) if i in arrays else np.full((num_frames, *frozen.shape), np.nan, np.float16)
        store.add(video.video_id, _source(video, frozen.stream), array)

    for i, count in enumerate(left):
        if not count:
            finish(i)
    batches = [places[start : start + size] for start in range(0, len(places), size)]
    decoded = ((batch, reader(frozen.stream, [crop for _, crop in batch])) for batch in batches)
    with Progress(len(places), "crops", f"embed {frozen.stream}") as progress, prefetch(decoded, 1) as pairs:
        for batch, images in pairs:
            rows = frozen.encode(torch.from_numpy(images).to(device)).half().cpu().numpy()  # (N, D) or (N, L, D)
            if not np.isfinite(rows).all():
                crop = batch[0][1]
                raise UserError(
                    f"backbone of {frozen.stream}: features are not finite (near frame {crop.frame} of {crop.path});"
                    " pretrain the stream again"
                )
            for (i, crop), row in zip(batch, rows, strict=True):
                if i not in arrays:
                    arrays[i] = np.full((work[i][1], *frozen.shape), np.nan, np.float16)
                arrays[i][crop.frame] = row
                left[i] -= 1
                if not left[i]:
                    finish(i)
            progress.advance(len(batch))
    frozen.net.to("cpu")


def write_manifest(
    features: Path, store: ArrayStore, videos: Iterable[ProcessedVideo], about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``<features>/<source>.json``: what was embedded, for the workflow and for people; returns its content."""
    video_ids = sorted(video.video_id for video in videos)
    records = {video_id: store.records[video_id] for video_id in video_ids if video_id in store.records}
    content = {
        **about,
        "folder": str(store.folder.relative_to(features)),
        "num_frames": sum(record.shape[0] for record in records.values()),
        "bytes": sum(record.bytes for record in records.values()),
        "videos": {
            video_id: {"frames": record.shape[0], "bytes": record.bytes, "sha256": record.sha256}
            for video_id, record in records.items()
        },
    }
    write_json(features / f"{about['source']}.json", content)
    return content
