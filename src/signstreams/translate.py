"""A new video in, text out: extraction as of the training corpus, then the trained model."""

from __future__ import annotations

import glob
import math
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.errors import UserError
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.batch import extract_videos, find_all_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import read_metadata
from signstreams.formats.video_sources import source_id
from signstreams.integrate.batches import collate
from signstreams.integrate.bundle import Bundle, load_bundle
from signstreams.integrate.clips import ClipSource
from signstreams.integrate.data import ClipEntry, clip_frames
from signstreams.integrate.evaluate import ctc_greedy
from signstreams.integrate.features import ImageReader, embed_stream, open_features
from signstreams.integrate.settings import IntegrateConfig, TranslateConfig
from signstreams.integrate.videos import POINT_KINDS, embed_points, open_points, read_videos

RATES_DIFFER = 1.05
"""Rates further apart than this factor are different ones: 24 and 25 frames a second are not."""


@dataclass(frozen=True)
class Translation:
    """What the model says of one video.

    Attributes:
        video: Its file.
        text: Translation.
        glosses: By the head that was best on val; None for a model without glosses.
        num_frames: That the model saw.
        duration_s: Of the video.
    """

    video: str
    text: str
    glosses: list[str] | None
    num_frames: int
    duration_s: float


def translate(given: TranslateConfig, *, detector: DetectorKind | None = None) -> Iterator[Translation]:
    """Translate each video; what is extracted goes into a temporary folder and is removed.

    Args:
        given: Videos and model.
        detector: In place of the one the corpus was extracted with.

    Raises:
        UserError: With what is wrong with model or videos.
    """
    paths = each_video(given.videos)
    world = distributed.start(device=given.device)
    bundle = load_bundle(given)
    bundle.model.to(world.device)
    with tempfile.TemporaryDirectory(prefix="signstreams_translate_") as scratch:
        config = bundle.config.model_copy(update={"root": Path(scratch), "features_dir": Path(scratch) / "features"})
        for path in paths:
            yield _translate(given, bundle, config, path, detector, world.device)


def each_video(places: list[Path]) -> list[Path]:
    """Videos of files and folders in their order; two of one name may lie in different places.

    Raises:
        UserError: When a place is no video and holds none.
    """
    return [path for place in places for path in find_all_videos([place]).values()]


def _translate(
    given: TranslateConfig,
    bundle: Bundle,
    config: IntegrateConfig,
    path: Path,
    detector: DetectorKind | None,
    device: torch.device,
) -> Translation:
    extraction = _extraction(given, bundle, path, config.root)
    layout = CorpusLayout(config.root)
    video_id = source_id(path)
    extract_videos(extraction, detector=detector, annotations={video_id: _annotations(given)})
    metadata = read_metadata(layout.metadata(video_id))
    if metadata.status == "quarantined":
        other = "name another video" if given.box is None else "name another video or --box"
        raise UserError(f"{path}: {metadata.reason}; convert it with ffmpeg, or {other}")
    if not metadata.num_pose_frames:
        raise UserError(f"{path}: no person is found in it, expected a signer; upper body and hands must be seen")
    source, entry = _open(given, bundle, config, layout, video_id, device)
    sample = source.load(entry)
    reader = ImageReader(bundle.backbones.sides_px)
    batch = collate([sample], trained=list(bundle.backbones.trained), read_images=reader).to(device)
    with torch.inference_mode(), autocast(config.optim.precision, device):
        encoded = bundle.model.encode(batch)
        text = bundle.tokenizer.decode(bundle.model.translate(encoded, given.decoding)[0])
        glosses = None
        if bundle.vocabulary is not None and bundle.head is not None:
            (ids,) = ctc_greedy(encoded.gloss_logits[bundle.head], batch.num_steps)
            glosses = bundle.vocabulary.decode(ids)
    forget(layout, video_id)
    return Translation(str(path), text, glosses, sample.num_frames, round(metadata.duration_s, 3))


def forget(layout: CorpusLayout, video_id: str) -> None:
    """Remove what was extracted of a video: two of one name do not meet, and the disk holds one at a time."""
    for file in list(layout.processed.rglob(f"{glob.escape(video_id)}.*")):
        file.unlink()


def _annotations(given: TranslateConfig) -> VideoAnnotations:
    if given.box is None:
        return NOT_ANNOTATED
    x0, y0, x1, y1 = given.box
    return VideoAnnotations(box=(x0, y0, x1, y1))


def _extraction(given: TranslateConfig, bundle: Bundle, path: Path, root: Path) -> ExtractConfig:
    settings = {**bundle.about["extraction"], "videos": [path], "root": root, "max_failed_fraction": 1, "force": True}
    settings["spans_only"] = False  # a new video has no annotated spans
    settings.pop("span_padding_s", None)
    if settings.get("detector") == "precomputed":
        if given.points is None:
            raise UserError(
                f"{bundle.path}: was trained on points of another tool, expected a folder with those of {path.name};"
                " name it with --points"
            )
        settings["precomputed"] = {**settings["precomputed"], "folder": given.points}
    elif given.points is not None:
        raise UserError(
            f"points has no effect: {bundle.path} was trained on points that extraction finds itself; leave it out"
        )
    if settings.get("fps") is None and (known := bundle.about.get("fps_range")) is not None:
        settings["fps"] = _fps(path, known, settings.get("frames_fps", 25.0))
    return ExtractConfig.model_validate(settings)


def _fps(path: Path, known: list[float], frames_fps: float) -> float | None:
    """Rate at which to extract a new video for a model whose videos were extracted each at its own rate.

    None, its own too, where it is within those of the corpus or does not declare one; else the nearest of these: at
    twice the rate the same signing would look half as fast.
    """
    low, high = known
    fps = 0.0
    with suppress(UnreadableVideoError, OSError), VideoReader(path, frames_fps=frames_fps) as reader:
        fps = reader.fps
    if not fps or low / RATES_DIFFER <= fps <= high * RATES_DIFFER:
        return None
    return low if fps < low else high


def _open(
    given: TranslateConfig,
    bundle: Bundle,
    config: IntegrateConfig,
    layout: CorpusLayout,
    video_id: str,
    device: torch.device,
) -> tuple[ClipSource, ClipEntry]:
    """Arrays of the video, and its frames."""
    streams = list(config.model.backbones)
    videos, _, problems = read_videos(layout, [video_id], [*POINT_KINDS.values(), *streams])
    found = list(videos.values())
    points = open_points(config.features, uses_nodes=config.model.use_mska)
    problems += embed_points(layout, found, points)
    stores = {}
    for stream, frozen in bundle.backbones.frozen.items():
        stores[stream] = open_features(config.features, frozen)
        problems += embed_stream(layout, found, frozen, stores[stream], device)
    if problems:
        raise UserError(problems)
    trained = list(bundle.backbones.trained)
    source = ClipSource(layout, points, stores, trained=trained, uses_pose=config.model.use_pose)
    try:
        frames = clip_frames(config, points.times_s[video_id], given.start_s or 0.0, given.end_s or math.inf)
    except ValueError as error:
        raise UserError(f"{video_id}: {error}") from None
    return source, ClipEntry(video_id, "test", "", None, videos[video_id], frames)
