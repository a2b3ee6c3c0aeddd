"""Extraction of one video: decoded once, every file written aside, metadata last.

Frames pass through three threads: one prefetches, this one detects and smooths boxes, one cuts crops behind it. A frame
waits for its smoothed box and is gone once cropped; half a KB per frame stays until the video ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from signstreams.array_types import Floats
from signstreams.extract.box_tracks import FrameBoxes, TrackBuilder
from signstreams.extract.crops import BoxedFrame, store_crops
from signstreams.extract.detectors import Detection, VideoContext, detections
from signstreams.extract.frame_boxes import NUM_STREAMS, Observation, observe
from signstreams.extract.holistic import HOLISTIC
from signstreams.extract.precomputed import PRECOMPUTED
from signstreams.extract.preview import Preview, shown_image, write_notice
from signstreams.extract.results import (
    KeypointSpool,
    TrackRecorder,
    VideoJob,
    mean_rate_hz,
    write_arrays,
    write_job_metadata,
)
from signstreams.extract.signer_tracking import SeveralPeopleError, SignerTracker
from signstreams.extract.tracker import TRACKER, window_frames
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.formats.crops import CropWriter
from signstreams.formats.video_metadata import VideoMetadata
from signstreams.prefetch import prefetch, write_behind
from signstreams.streams import STREAMS

# Detectors by their name in config and metadata.
KINDS = {"tracker": TRACKER, "holistic": HOLISTIC, "precomputed": PRECOMPUTED}

_NUM_IN_DETECTOR = 2
"""Frames counted as held by a detector other than the tracker: a constant, since ``holistic.in_flight`` must not change
how far boxes look ahead. More in flight take one frame each beyond ``max_buffer_mib``."""

NO_BOXES = FrameBoxes(
    np.full((NUM_STREAMS, 3), np.nan), np.zeros(NUM_STREAMS, np.uint8), np.zeros(NUM_STREAMS)
)  # all missing
NOT_OBSERVED = Observation(np.full((NUM_STREAMS, 3), np.nan), np.full((NUM_STREAMS, 3), np.nan), np.zeros(NUM_STREAMS))

OnFrame = Callable[[int | None], None]
"""Called after each frame with the number of frames to expect; None when the file does not declare it."""


def extract_video(job: VideoJob, *, on_frame: OnFrame | None = None) -> VideoMetadata:
    """Extract one video. An unreadable one is quarantined: empty archives, arrays of no frames, and the reason.

    Raises:
        OSError: The video cannot be opened at all or changes meanwhile, or results cannot be written.
    """
    job.layout.metadata(job.video_id).unlink(missing_ok=True)  # it vouches for the other files, which will change
    run = _Run(job, on_frame)
    try:
        while True:
            try:
                with VideoReader(
                    job.source.path, frames_fps=job.config.frames_fps, spans_s=job.annotations.spans_s
                ) as reader:
                    run.extract(reader)
                    return run.finish(reader)
            except SeveralPeopleError:  # at most once: the signer is chosen now
                run.start_over()
    except UnreadableVideoError as error:
        return run.quarantine(str(error))


class _Run:
    """State of the extraction of one video."""

    def __init__(self, job: VideoJob, on_frame: OnFrame | None = None) -> None:
        self.job, self.config, self.layout, self.on_frame = job, job.config, job.layout, on_frame
        self.started_s = time.perf_counter()
        self.timings_s = dict.fromkeys(("start", "detect", "track", "crop", "write"), 0.0)
        self.recorder = TrackRecorder()
        self.num_discarded = 0  # frames of a pass that had to start over, for the progress
        self.detector_note: str | None = None
        self.signer = SignerTracker(job.detector, job.config, job.annotations.spans_s)
        self.stamp: str | None = None  # of the video when it was opened
        self.detector_info = job.detector_info()  # with the digest of the points, where another tool found them

    def extract(self, reader: VideoReader) -> None:
        """Read, detect, crop, and write all files but the metadata."""
        self.stamp = self.job.source.stamp()
        expected = reader.num_frames(self.config.fps)
        if expected is not None:
            expected += self.num_discarded
        size_px = (reader.width_px, reader.height_px)
        num_frames = self.config.max_buffer_mib * 2**20 // (size_px[0] * size_px[1] * 3)
        depth = max(1, min(4, num_frames // 8))  # of each queue, prefetched and to be cropped: a few; one of 4K
        # Besides these queues, one frame is in the hands of each thread and some are in the detector.
        is_tracker = self.job.detector == TRACKER
        in_detector = window_frames(self.config, *size_px) * self.config.stride if is_tracker else _NUM_IN_DETECTOR
        max_waiting = max(1, num_frames - 2 * (depth + 1) - in_detector)
        with ExitStack() as stack:
            spool = stack.enter_context(KeypointSpool(self.layout.keypoints(self.job.video_id).parent))
            archives = [
                stack.enter_context(CropWriter(self.layout.crops(stream, self.job.video_id), self.job.video_id))
                for stream in STREAMS
            ]
            with self._timed("start"):
                box = self.job.annotations.box
                context = VideoContext(reader.path, self.job.video_id, *size_px, reader.fps, box, reader.duration_s)
                detector = stack.enter_context(self.signer.start(context))
            tracks = TrackBuilder(*size_px, self.config.boxes, max_waiting)
            waiting: deque[tuple[Frame, Floats]] = deque()
            preview = Preview(expected)

            def crop(frame: BoxedFrame) -> None:
                with self._timed("crop"):  # only the cropping thread adds to it
                    image, crops = store_crops(frame, archives, self.config)
                    preview.offer(frame.time_s, image, frame.keypoints, frame.boxes, crops)

            crop_behind = stack.enter_context(write_behind(crop, depth))
            frames = stack.enter_context(prefetch(reader.frames(self.config.fps), depth))

            def pass_on(ready: list[FrameBoxes]) -> None:
                for boxes in ready:
                    frame, points = waiting.popleft()
                    if frame.is_damaged:  # no box is filled or tracked: its crop would show what was never filmed
                        boxes = NO_BOXES
                    crop_behind(BoxedFrame(self.recorder.num_boxed, frame.time_s, shown_image(frame), points, boxes))
                    self.recorder.append(boxes)

            found = detections(detector, frames, self.config.stride)
            for frame, keypoints, is_interpolated in self._timed_each("detect", found):
                with self._timed("track"):
                    spool.append(keypoints)
                    self.recorder.times_s.append(frame.time_s)
                    self.recorder.num_damaged += frame.is_damaged
                    waiting.append((frame, keypoints))
                    # Boxes of interpolated points are interpolated, as their state records.
                    seen = NOT_OBSERVED if is_interpolated else observe(keypoints, *size_px, self.config.boxes)
                    pass_on(tracks.add(frame.time_s, seen))
                if self.on_frame is not None:
                    self.on_frame(expected)
            pass_on(tracks.finish())
            with self._timed("write"):
                self.counts = write_arrays(self.job, spool, self.recorder, size_px)

        with self._timed("write"):
            preview.write(self.layout.preview(self.job.video_id), self.signer.info.region_px)
        self.detector_note = getattr(detector, "note", None)  # e.g. points of another length than the video

    def start_over(self) -> None:
        """Discard what was extracted."""
        self.num_discarded = len(self.recorder.times_s)
        self.recorder = TrackRecorder()

    def finish(self, reader: VideoReader) -> VideoMetadata:
        """Write the metadata of a video that was read, if only in part."""
        times_s = self.recorder.times_s
        fps = self.config.fps or mean_rate_hz(times_s, self.job.annotations.spans_s) or reader.fps
        return self._write_metadata(
            status="ok",
            note="; ".join(filter(None, (reader.note, self.detector_note))) or None,
            width_px=reader.width_px,
            height_px=reader.height_px,
            source_fps=reader.fps,
            assumed_matrix=reader.assumed_matrix,
            fps=fps,
            duration_s=self._duration_s(reader, times_s[-1] + (1 / fps if fps else 0.0)),
        )

    def _duration_s(self, reader: VideoReader, end_s: float) -> float:
        """End of the video; where spans do not reach it, as the file declares it."""
        if self.job.annotations.spans_s is None:
            return end_s
        return reader.end_s if reader.end_s is not None else max(end_s, reader.duration_s or 0.0)

    def quarantine(self, reason: str) -> VideoMetadata:
        """Write every declared file without frames, and the reason."""
        self.recorder = TrackRecorder()
        for stream in STREAMS:
            with CropWriter(self.layout.crops(stream, self.job.video_id), self.job.video_id):
                pass
        write_notice(self.layout.preview(self.job.video_id), "quarantined")
        with KeypointSpool(self.layout.keypoints(self.job.video_id).parent) as nothing:
            self.counts = write_arrays(self.job, nothing, self.recorder, (1, 1))
        return self._write_metadata(
            status="quarantined", reason=reason, width_px=0, height_px=0, source_fps=0.0, fps=0.0, duration_s=0.0
        )

    def _write_metadata(self, **found: object) -> VideoMetadata:
        self.timings_s["total"] = time.perf_counter() - self.started_s
        return write_job_metadata(
            self.job,
            self.stamp,
            self.detector_info,
            num_frames=len(self.recorder.times_s),
            num_damaged_frames=self.recorder.num_damaged,
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
