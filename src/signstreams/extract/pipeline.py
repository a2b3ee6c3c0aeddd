"""Extraction of one video: decoded once, everything written aside, metadata last.

Three threads pass frames on: one decodes ahead, this one detects and smooths boxes, one follows behind and cuts crops.
A frame waits for its smoothed box, and is gone once cropped. Of each one half a KB stays until the video ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from signstreams.array_types import Floats
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.boxes import NUM_STREAMS, Observation, observe
from signstreams.extract.crops import BoxedFrame, Cropper
from signstreams.extract.detectors import Detection, DetectorKind, VideoContext, detections
from signstreams.extract.frame_records import CollectedTracks, KeypointSpool
from signstreams.extract.holistic import HOLISTIC
from signstreams.extract.precomputed import PRECOMPUTED
from signstreams.extract.preview import Preview, write_notice
from signstreams.extract.results import mean_rate_hz, write_arrays, write_record
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.signer_tracking import CompanyError, SignerChoice
from signstreams.extract.tracks import FrameBoxes, TrackBuilder
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.formats.crops import CropWriter
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata
from signstreams.formats.video_sources import change_stamp
from signstreams.prefetch import prefetch, write_behind
from signstreams.streams import STREAMS

KINDS = {"holistic": HOLISTIC, "precomputed": PRECOMPUTED}
"""Detectors by the name that config and metadata use."""

_NUM_AT_WORK = 2
"""Frames that the detector is thought to hold: a constant, as ``holistic.in_flight`` must not change how far boxes look
ahead. More in flight take a frame each beyond ``max_buffer_mib``."""

NOT_OBSERVED = Observation(np.full((NUM_STREAMS, 3), np.nan), np.full((NUM_STREAMS, 3), np.nan), np.zeros(NUM_STREAMS))

OnFrame = Callable[[int | None], None]
"""Called after each frame with the number of frames to expect; None when the file does not say."""


def extract_video(
    video_path: Path,
    layout: CorpusLayout,
    video_id: str,
    config: ExtractConfig,
    *,
    detector: DetectorKind | None = None,
    annotations: VideoAnnotations = NOT_ANNOTATED,
    on_frame: OnFrame | None = None,
) -> VideoMetadata:
    """Extract one video. An unreadable one is quarantined: empty archives, arrays of no frames, its reason.

    Args:
        video_path: The video.
        layout: Where results go.
        video_id: Names the results.
        config: Settings.
        detector: In place of the one that the config names.
        annotations: What meta.csv says of the video.
        on_frame: Hears of progress.

    Raises:
        OSError: When the video cannot be opened at all or changes meanwhile, or results cannot be written.
    """
    layout.metadata(video_id).unlink(missing_ok=True)  # it vouches for the other files, which are about to change
    run = _Run(video_path, layout, video_id, config, detector or KINDS[config.detector], annotations, on_frame)
    try:
        while True:
            try:
                with VideoReader(video_path, frames_fps=config.frames_fps, spans_s=annotations.spans_s) as reader:
                    run.extract(reader)
                    return run.finish(reader)
            except CompanyError:  # once at most: the choice is made now
                run.begin_anew()
    except UnreadableVideoError as error:
        return run.quarantine(str(error))


class _Run:
    """State of the extraction of one video."""

    def __init__(
        self,
        video_path: Path,
        layout: CorpusLayout,
        video_id: str,
        config: ExtractConfig,
        detector: DetectorKind,
        annotations: VideoAnnotations,
        on_frame: OnFrame | None,
    ) -> None:
        self.video_path, self.layout, self.video_id = video_path, layout, video_id
        self.config, self.detector, self.annotations, self.on_frame = config, detector, annotations, on_frame
        self.started_s = time.perf_counter()
        self.timings_s = dict.fromkeys(("start", "detect", "track", "crop", "write"), 0.0)
        self.collected = CollectedTracks()
        self.num_forgotten = 0  # frames of a pass that had to begin anew, for the progress
        self.detector_note: str | None = None
        self.signer = SignerChoice(detector, config, annotations)
        self.stamp: str | None = None  # of the video, when it was opened

    def extract(self, reader: VideoReader) -> None:
        """Read, detect, crop, and write all artifacts but the metadata."""
        self.stamp = change_stamp(self.video_path)
        expected = reader.num_frames(self.config.fps)
        if expected is not None:
            expected += self.num_forgotten
        num_frames = self.config.max_buffer_mib * 2**20 // (reader.width_px * reader.height_px * 3)
        depth = max(1, min(4, num_frames // 8))  # decoded ahead, and left to the cropping: few, and of 4K one
        # With one in the hands of each thread, and those that the detector works on side by side.
        max_waiting = max(1, num_frames - 2 * (depth + 1) - _NUM_AT_WORK)
        with ExitStack() as stack:
            spool = stack.enter_context(KeypointSpool(self.layout.keypoints(self.video_id).parent))
            archives = [
                stack.enter_context(CropWriter(self.layout.crops(stream, self.video_id), self.video_id))
                for stream in STREAMS
            ]
            with self._timed("start"):
                context = VideoContext(
                    self.video_path,
                    self.video_id,
                    reader.width_px,
                    reader.height_px,
                    reader.fps,
                    self.annotations.box,
                    reader.duration_s,
                )
                detector = stack.enter_context(self.signer.start(context))
            tracks = TrackBuilder(reader.width_px, reader.height_px, self.config.boxes, max_waiting)
            waiting: deque[tuple[Frame, Floats]] = deque()
            preview = Preview(expected)
            cropper = Cropper(archives, self.config, preview)

            def crop(frame: BoxedFrame) -> None:
                with self._timed("crop"):  # only the thread behind adds to it
                    cropper.crop(frame)

            put = stack.enter_context(write_behind(crop, depth))
            frames = stack.enter_context(prefetch(reader.frames(self.config.fps), depth))

            def pass_on(ready: list[FrameBoxes]) -> None:
                for boxes in ready:
                    frame, points = waiting.popleft()
                    put(BoxedFrame(self.collected.num_boxed, frame.time_s, frame.image, points, boxes))
                    self.collected.append(boxes)

            stride = self.config.holistic.stride if self.config.detector == "holistic" else 1
            found = detections(detector, frames, stride)
            for frame, keypoints, is_interpolated in self._timed_each("detect", found):
                with self._timed("track"):
                    spool.append(keypoints)
                    self.collected.times_s.append(frame.time_s)
                    waiting.append((frame, keypoints))
                    observation = (
                        NOT_OBSERVED  # its boxes are filled in, and their state says so
                        if is_interpolated
                        else observe(keypoints, reader.width_px, reader.height_px, self.config.boxes)
                    )
                    pass_on(tracks.add(frame.time_s, observation))
                if self.on_frame is not None:
                    self.on_frame(expected)
            pass_on(tracks.finish())
            with self._timed("write"):
                size_px = (reader.width_px, reader.height_px)
                self.counts = write_arrays(self.layout, self.video_id, spool, self.collected, size_px)

        with self._timed("write"):
            preview.write(self.layout.preview(self.video_id), self.signer.info.region_px)
        self.detector_note = getattr(detector, "note", None)  # of points that are not of this video's length

    def begin_anew(self) -> None:
        """Forget what was extracted."""
        self.num_forgotten = len(self.collected.times_s)
        self.collected = CollectedTracks()

    def finish(self, reader: VideoReader) -> VideoMetadata:
        """Write the metadata of a video that was read."""
        times_s = self.collected.times_s
        fps = self.config.fps or mean_rate_hz(times_s, self.annotations.spans_s) or reader.fps
        # A video that was read in part is kept, and says what is amiss.
        return self._write_metadata(
            status="ok",
            note="; ".join(filter(None, (reader.note, self.detector_note))) or None,
            width_px=reader.width_px,
            height_px=reader.height_px,
            source_fps=reader.fps,
            fps=fps,
            duration_s=self._duration_s(reader, times_s[-1] + (1 / fps if fps else 0.0)),
        )

    def _duration_s(self, reader: VideoReader, end_s: float) -> float:
        """Where the video ends; of spans that do not reach its end, what the file declares."""
        if self.annotations.spans_s is None:
            return end_s
        return reader.end_s if reader.end_s is not None else max(end_s, reader.duration_s or 0.0)

    def quarantine(self, reason: str) -> VideoMetadata:
        """Write every declared file, without any frame, and the reason."""
        self.collected = CollectedTracks()
        for stream in STREAMS:
            with CropWriter(self.layout.crops(stream, self.video_id), self.video_id):
                pass
        write_notice(self.layout.preview(self.video_id), "quarantined")
        with KeypointSpool(self.layout.keypoints(self.video_id).parent) as nothing:
            self.counts = write_arrays(self.layout, self.video_id, nothing, self.collected, (1, 1))
        return self._write_metadata(
            status="quarantined", reason=reason, width_px=0, height_px=0, source_fps=0.0, fps=0.0, duration_s=0.0
        )

    def _write_metadata(self, **found: object) -> VideoMetadata:
        self.timings_s["total"] = time.perf_counter() - self.started_s
        return write_record(
            self.layout,
            self.video_path,
            self.video_id,
            self.config,
            self.detector,
            self.annotations,
            self.stamp,
            num_frames=len(self.collected.times_s),
            signer=self.signer.info,
            timings_s={name: round(value, 3) for name, value in self.timings_s.items()},
            **self.counts,
            **found,
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start_s = time.perf_counter()
        yield
        self.timings_s[phase] += time.perf_counter() - start_s

    def _timed_each(self, phase: str, items: Iterable[Detection]) -> Iterator[Detection]:
        iterator = iter(items)
        while True:
            with self._timed(phase):
                item = next(iterator, None)
            if item is None:
                return
            yield item
