"""Parts of a video: extracted and encoded one after the other, so that memory and disk hold one at a time."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from signstreams.array_types import Floats
from signstreams.errors import UserError
from signstreams.extract.annotations import VideoAnnotations, merged
from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata, read_metadata
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.dataset import ClipReader
from signstreams.integrate.features import ImageReader, embed_stream, open_features
from signstreams.integrate.trained_model import TrainedModel
from signstreams.integrate.videos import POINT_KINDS, Points, ProcessedVideo, embed_points, open_points, read_videos
from signstreams.progress import silenced
from signstreams.segment.scores import Span

PART_S = 120.0
"""Length of a part: long beside the start of a detector and a second look at the sentence that crosses its end (some
seconds), short enough for memory and disk (about 100 MB of crops)."""
CONTEXT_S = 1.0  # extracted around what is asked for: trackers of body and hands look at the frames around
WHOLE_BELOW_S = 60.0
"""A video up to this length is extracted whole, as for training: its points do not depend on what is asked for."""


@dataclass(frozen=True)
class Part:
    """Arrays of an extracted part of a video, all at the same frames."""

    video: ProcessedVideo
    times_s: Floats  # (T,) from the start of the video
    pose: Floats  # (T, 7, 3) as `Points.pose` has it
    points: Points
    features: dict[str, ArrayStore]
    reader: ClipReader
    read_images: ImageReader  # of streams whose backbone was trained
    metadata: VideoMetadata


class EmptyPartError(Exception):
    """No frame of a part can be read; the message says why."""


class PartExtractor:
    """Extracts parts of one video into a scratch folder."""

    def __init__(
        self,
        trained: TrainedModel,
        extraction: ExtractConfig,
        video_id: str,
        *,
        features: Path,
        box: list[float] | None,
        detector: DetectorKind | None,
        device: torch.device,
        on_frame: Callable[[], None],
    ) -> None:
        self._trained, self._extraction, self._video_id = trained, extraction, video_id
        self._features, self._detector, self._device, self._on_frame = features, detector, device, on_frame
        self._box = None if box is None else (box[0], box[1], box[2], box[3])
        self._layout = CorpusLayout(extraction.root)

    @contextmanager
    def part(self, spans_s: Sequence[Span] | None) -> Iterator[Part]:
        """The arrays of some spans, or of the whole video; its files are removed when the block ends.

        Raises:
            EmptyPartError: No frame can be read.
            UserError: A problem of files, backbones or the machine.
        """
        spans = None if spans_s is None else merged(spans_s, 0.0)
        try:
            with silenced():
                extract_videos(
                    self._extraction.model_copy(update={"spans_only": spans is not None}),
                    detector=self._detector,
                    annotations={self._video_id: VideoAnnotations(spans, self._box)},
                    on_frame=lambda _: self._on_frame(),
                )
                metadata = read_metadata(self._layout.metadata(self._video_id))
                if metadata.status == "quarantined":
                    raise EmptyPartError(metadata.reason)
                part = self._read(metadata)
            yield part
        finally:
            remove_extraction(self._layout, self._video_id)

    def _read(self, metadata: VideoMetadata) -> Part:
        config, backbones, video_id = self._trained.config, self._trained.backbones, self._video_id
        videos, _, problems = read_videos(self._layout, [video_id], [*POINT_KINDS.values(), *config.model.backbones])
        found = list(videos.values())
        points = open_points(self._features, uses_nodes=config.model.use_mska)
        problems += embed_points(self._layout, found, points)
        stores = {}
        for stream, frozen in backbones.frozen.items():
            stores[stream] = open_features(self._features, frozen)
            problems += embed_stream(self._layout, found, frozen, stores[stream], self._device)
        if problems:
            raise UserError(problems)
        reader = ClipReader(
            self._layout, points, stores, trained=list(backbones.trained), uses_pose=config.model.use_pose
        )
        return Part(
            videos[video_id],
            points.times_s[video_id],
            points.pose[video_id],
            points,
            stores,
            reader,
            ImageReader(backbones.sides_px),
            metadata,
        )


def with_context(span: Span, length_s: float | None) -> Span:
    """The span with some time around it, not far beyond the video; its end may be infinite."""
    end_s = span[1] + CONTEXT_S
    return max(0.0, span[0] - CONTEXT_S), end_s if length_s is None else min(end_s, length_s + CONTEXT_S)


def remove_extraction(layout: CorpusLayout, video_id: str) -> None:
    """Remove the extracted files of a video: another one may have its name, and the disk holds one part at a time."""
    for file in list(layout.processed.rglob(f"{glob.escape(video_id)}.*")):
        file.unlink()
