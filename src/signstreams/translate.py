"""Translation of new videos: extraction as for the training corpus, then the trained model."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.errors import UserError
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.batch import extract_videos, find_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import VideoSource
from signstreams.integrate.batches import Sample, collate
from signstreams.integrate.clips import ClipEntry, clip_frames
from signstreams.integrate.dataset import ClipReader
from signstreams.integrate.evaluate import ctc_greedy
from signstreams.integrate.features import ImageReader, embed_stream, open_features
from signstreams.integrate.settings import IntegrateConfig, TranslateConfig
from signstreams.integrate.trained_model import TrainedModel, load_trained_model
from signstreams.integrate.videos import POINT_KINDS, embed_points, open_points, read_videos

RATES_DIFFER = 1.05
"""Frame rates that differ by less than this factor count as equal, such as 24 and 25 frames per second."""


@dataclass(frozen=True)
class Translation:
    """Output of the model for one video."""

    video: str  # file of the video
    text: str  # translation
    glosses: list[str] | None  # glosses of the head that was best on val; None for a model without glosses
    num_frames: int  # number of frames that the model read
    duration_s: float  # duration of the video


def translate(given: TranslateConfig, *, detector: DetectorKind | None = None) -> Iterator[Translation]:
    """Translate each video; extracted files go to a temporary folder and are removed.

    Without ``detector`` it is the one that the corpus was extracted with. A `UserError` says what is wrong.
    """
    paths = list_videos(given.videos)
    world = distributed.start(device=given.device)
    trained = load_trained_model(given)
    trained.model.to(world.device)
    with tempfile.TemporaryDirectory(prefix="signstreams_translate_") as scratch:
        config = trained.config.model_copy(update={"root": Path(scratch), "features_dir": Path(scratch) / "features"})
        for path in paths:
            yield _translate(given, trained, config, path, detector, world.device)


def list_videos(places: list[Path]) -> list[Path]:
    """Videos of files and folders, in their order; two from different places may have the same name."""
    return [source.path for place in places for source in find_videos([place]).values()]


def _translate(
    given: TranslateConfig,
    trained: TrainedModel,
    config: IntegrateConfig,
    path: Path,
    detector: DetectorKind | None,
    device: torch.device,
) -> Translation:
    extraction = _extraction(given, trained, path, config.root)
    layout = CorpusLayout(config.root)
    video_id = VideoSource.at(path).video_id
    extract_videos(extraction, detector=detector, annotations={video_id: _annotations(given)})
    metadata = read_metadata(layout.metadata(video_id))
    if metadata.status == "quarantined":
        other = "name another video" if given.box is None else "name another video or --box"
        raise UserError(f"{path}: {metadata.reason}; convert it with ffmpeg, or {other}")
    if not metadata.num_pose_frames:
        raise UserError(
            f"{path}: no person was detected in it, expected a signer; upper body and hands must be visible"
        )
    sample = _read_clip(given, trained, config, layout, video_id, device)
    reader = ImageReader(trained.backbones.sides_px)
    batch = collate([sample], trained=list(trained.backbones.trained), read_images=reader).to(device)
    with torch.inference_mode(), autocast(config.optim.precision, device):
        encoded = trained.model.encode(batch)
        text = trained.tokenizer.decode(trained.model.translate(encoded, given.decoding)[0])
        glosses = None
        if trained.vocabulary is not None and trained.head is not None:
            (ids,) = ctc_greedy(encoded.gloss_logits[trained.head], batch.num_steps)
            glosses = trained.vocabulary.decode(ids)
    remove_extraction(layout, video_id)
    return Translation(str(path), text, glosses, sample.num_frames, round(metadata.duration_s, 3))


def remove_extraction(layout: CorpusLayout, video_id: str) -> None:
    """Remove the extracted files of a video: another one may have its name, and the disk holds one at a time."""
    for file in list(layout.processed.rglob(f"{glob.escape(video_id)}.*")):
        file.unlink()


def _annotations(given: TranslateConfig) -> VideoAnnotations:
    if given.box is None:
        return NOT_ANNOTATED
    x0, y0, x1, y1 = given.box
    return VideoAnnotations(box=(x0, y0, x1, y1))


def _extraction(given: TranslateConfig, trained: TrainedModel, path: Path, root: Path) -> ExtractConfig:
    settings = {**trained.about["extraction"], "videos": [path], "root": root, "max_failed_fraction": 1, "force": True}
    settings["spans_only"] = False  # a new video has no annotated spans
    settings.pop("span_padding_s", None)
    if settings.get("detector") == "precomputed":
        if given.points is None:
            raise UserError(
                f"{trained.path}: was trained on points of another tool, expected a folder with those of {path.name};"
                " name it with --points"
            )
        settings["precomputed"] = {**(settings.get("precomputed") or {}), "folder": given.points}
    elif given.points is not None:
        raise UserError(
            f"points has no effect: {trained.path} was trained on points detected by extraction itself; leave it out"
        )
    if settings.get("fps") is None and (known := trained.about.get("fps_range")) is not None:
        settings["fps"] = _fps(path, known, settings.get("frames_fps", 25.0))
    try:
        return ExtractConfig.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{trained.path}: the settings of its extraction do not fit this version of signstreams ({place}:"
            f" {problem['msg']}); train the model again"
        ) from None


def _fps(path: Path, known: list[float], frames_fps: float) -> float | None:
    """Frame rate at which to extract a new video for a model whose videos were extracted each at its own rate.

    None, for its own rate, if that is within the range of the corpus or not declared; else the nearest rate of the
    range: at twice the rate the same signing would look half as fast.
    """
    low, high = known
    fps = 0.0
    with suppress(UnreadableVideoError, OSError), VideoReader(path, frames_fps=frames_fps) as reader:
        fps = reader.fps
    if not fps or low / RATES_DIFFER <= fps <= high * RATES_DIFFER:
        return None
    return low if fps < low else high


def _read_clip(
    given: TranslateConfig,
    trained: TrainedModel,
    config: IntegrateConfig,
    layout: CorpusLayout,
    video_id: str,
    device: torch.device,
) -> Sample:
    """Compute the arrays of the video and read the frames to translate."""
    videos, _, problems = read_videos(layout, [video_id], [*POINT_KINDS.values(), *config.model.backbones])
    found = list(videos.values())
    points = open_points(config.features, uses_nodes=config.model.use_mska)
    problems += embed_points(layout, found, points)
    stores = {}
    for stream, frozen in trained.backbones.frozen.items():
        stores[stream] = open_features(config.features, frozen)
        problems += embed_stream(layout, found, frozen, stores[stream], device)
    if problems:
        raise UserError(problems)
    try:
        frames = clip_frames(config, points.times_s[video_id], given.start_s, given.end_s)
    except ValueError as error:
        raise UserError(f"{video_id}: {error}") from None
    reader = ClipReader(
        layout, points, stores, trained=list(trained.backbones.trained), uses_pose=config.model.use_pose
    )
    return reader.load(ClipEntry(video_id, "test", "", None, videos[video_id], frames))
