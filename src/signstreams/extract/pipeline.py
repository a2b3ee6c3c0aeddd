"""Extraction of one video: decoded once, everything written aside, metadata last.

A frame goes detector -> observation -> (waits for its smoothed box) -> crops -> archives; memory does not grow with the
length of the video.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

import signstreams
from signstreams.config.extract import DetectorConfig, ExtractConfig
from signstreams.extract.ahead import ahead
from signstreams.extract.boxes import corners, observe
from signstreams.extract.crops import cut, encode
from signstreams.extract.detectors import Detector, HolisticDetector, holistic_info, is_found
from signstreams.extract.signing_space import signing_space
from signstreams.extract.tracks import FrameBoxes, TrackBuilder
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.files import digest, sha256_file
from signstreams.formats.arrays import (
    Keypoints,
    Pose,
    StreamTrack,
    Tracks,
    write_keypoints,
    write_pose,
    write_tracks,
)
from signstreams.formats.crops import CropWriter
from signstreams.formats.landmarks import FACE, MISSING, NUM_KEYPOINTS, POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import DetectorInfo, VideoMetadata, read_metadata, write_metadata
from signstreams.streams import STREAMS, BoxState

REVISION = 1
"""Raised when the same settings give other results: existing results then no longer count as current."""


class DetectorKind(NamedTuple):
    """A detector's description, without importing it, and how to start it for one video."""

    info: Callable[[DetectorConfig], DetectorInfo]
    start: Callable[[DetectorConfig], Detector]


HOLISTIC = DetectorKind(holistic_info, HolisticDetector)

OnFrame = Callable[[int | None], None]
"""Called after each frame with the number of frames to expect; None when the file does not say."""


def extract_video(
    video_path: Path,
    layout: CorpusLayout,
    video_id: str,
    config: ExtractConfig,
    *,
    detector: DetectorKind = HOLISTIC,
    on_frame: OnFrame | None = None,
) -> VideoMetadata:
    """Extract one video. An unreadable one is quarantined: empty archives, arrays of no frames, its reason.

    Raises:
        OSError: When the video cannot be opened at all, or results cannot be written.
    """
    layout.metadata(video_id).unlink(missing_ok=True)  # it vouches for the other files, which are about to change
    run = _Run(video_path, layout, video_id, config, detector, on_frame)
    try:
        with VideoReader(video_path) as reader:
            run.extract(reader)
            return run.finish(reader)
    except UnreadableVideoError as error:
        return run.quarantine(str(error))


def current_metadata(
    video_path: Path,
    layout: CorpusLayout,
    video_id: str,
    config: ExtractConfig,
    detector: DetectorKind = HOLISTIC,
) -> VideoMetadata | None:
    """Metadata of complete results of this very video with these settings; None when there are none."""
    try:
        found = read_metadata(layout.metadata(video_id))
    except (OSError, ValueError):
        return None
    is_current = (
        found.settings_digest == settings_digest(config, detector)
        and found.source_bytes == video_path.stat().st_size
        and found.source_sha256 == sha256_file(video_path)
        and found.checksums == _checksums(layout, video_id)
    )
    return found if is_current else None


def settings_digest(config: ExtractConfig, detector: DetectorKind = HOLISTIC) -> str:
    """Digest of all that shapes the results of a video: settings, detector and its version, revision of this code."""
    return digest(
        {
            "revision": REVISION,
            "settings": config.settings(),
            "detector": detector.info(config.detector).model_dump(mode="json"),
        }
    )


class _Run:
    """State of the extraction of one video."""

    def __init__(
        self,
        video_path: Path,
        layout: CorpusLayout,
        video_id: str,
        config: ExtractConfig,
        detector: DetectorKind,
        on_frame: OnFrame | None,
    ) -> None:
        self.video_path, self.layout, self.video_id = video_path, layout, video_id
        self.config, self.detector, self.on_frame = config, detector, on_frame
        self.started_s = time.perf_counter()
        self.timings_s = dict.fromkeys(("start", "decode", "detect", "crop", "write"), 0.0)
        self.times_s: list[float] = []
        self.boxes: list[FrameBoxes] = []

    def extract(self, reader: VideoReader) -> None:
        """Read, detect, crop, and write all artifacts but the metadata."""
        expected = reader.num_frames(self.config.fps)
        max_waiting = max(1, self.config.max_buffer_mib * 2**20 // (reader.width_px * reader.height_px * 3))
        tracks = TrackBuilder(reader.width_px, reader.height_px, self.config.boxes, max_waiting)
        waiting: deque[Frame] = deque()
        with ExitStack() as stack:
            spool = stack.enter_context(_KeypointSpool(self.layout.keypoints(self.video_id).parent))
            archives = [
                stack.enter_context(CropWriter(self.layout.crops(stream, self.video_id), self.video_id))
                for stream in STREAMS
            ]
            with self._timed("start"):
                detector = stack.enter_context(self.detector.start(self.config.detector))
            keypoints = None
            frames = stack.enter_context(ahead(reader.frames(self.config.fps), _frames_ahead(max_waiting)))
            for frame in self._timed_each("decode", frames):
                with self._timed("detect"):
                    if keypoints is None or not frame.is_repeat:
                        keypoints = detector.detect(frame.image)
                with self._timed("crop"):
                    spool.append(keypoints)
                    self.times_s.append(frame.time_s)
                    observation = observe(keypoints, reader.width_px, reader.height_px, self.config.boxes)
                    waiting.append(frame)
                    for boxes in tracks.add(frame.time_s, observation):
                        self._crop(waiting.popleft(), boxes, archives)
                if self.on_frame is not None:
                    self.on_frame(expected)
            with self._timed("crop"):
                for boxes in tracks.finish():
                    self._crop(waiting.popleft(), boxes, archives)
            with self._timed("write"):
                self._write_arrays(spool.array(), reader)

    def finish(self, reader: VideoReader) -> VideoMetadata:
        """Write the metadata of a video that was read."""
        fps = self.config.fps or _mean_rate_hz(self.times_s) or reader.fps
        # A video that was read in part is kept, and says what is amiss.
        return self._write_metadata(
            status="ok",
            reason=reader.note,
            width_px=reader.width_px,
            height_px=reader.height_px,
            source_fps=reader.fps,
            fps=fps,
            duration_s=self.times_s[-1] + (1 / fps if fps else 0.0),
        )

    def quarantine(self, reason: str) -> VideoMetadata:
        """Write every declared file, without any frame, and the reason."""
        self.times_s, self.boxes = [], []
        for stream in STREAMS:
            with CropWriter(self.layout.crops(stream, self.video_id), self.video_id):
                pass
        self._write_arrays(np.empty((0, NUM_KEYPOINTS, 3), np.float32), None)
        return self._write_metadata(
            status="quarantined", reason=reason, width_px=0, height_px=0, source_fps=0.0, fps=0.0, duration_s=0.0
        )

    def _crop(self, frame: Frame, boxes: FrameBoxes, archives: list[CropWriter]) -> None:
        index = len(self.boxes)
        self.boxes.append(boxes)
        for box, state, archive in zip(boxes.box, boxes.state, archives, strict=True):
            if state != BoxState.MISSING:
                crop = cut(frame.image, box, self.config.crop_px)
                archive.add(index, encode(crop, self.config.jpeg_quality))

    def _write_arrays(self, keypoints: np.ndarray, reader: VideoReader | None) -> None:
        size_px = (reader.width_px, reader.height_px) if reader else (1, 1)
        pose = np.array(keypoints[:, POSE])
        self.num_pose_frames = sum(map(is_found, pose))
        self.num_face_frames = int((keypoints[:, FACE.start, 2] > 0).sum())
        write_pose(self.layout.pose(self.video_id), Pose(signing_space(pose, *size_px)))
        write_keypoints(self.layout.keypoints(self.video_id), Keypoints(keypoints))
        streams = {stream: _stream_track(self.boxes, index) for index, stream in enumerate(STREAMS)}
        self.states = {
            stream: {state.name.lower(): int((track.state == state).sum()) for state in BoxState}
            for stream, track in streams.items()
        }
        times_s = np.array(self.times_s, np.float64)
        write_tracks(self.layout.tracks(self.video_id), Tracks(streams, times_s))

    def _write_metadata(self, **found: object) -> VideoMetadata:
        checksums = _checksums(self.layout, self.video_id)
        assert checksums is not None
        self.timings_s["total"] = time.perf_counter() - self.started_s
        metadata = VideoMetadata(
            video_id=self.video_id,
            source_name=self.video_path.name,
            source_bytes=self.video_path.stat().st_size,
            source_sha256=sha256_file(self.video_path),
            num_frames=len(self.times_s),
            crop_px=self.config.crop_px,
            detector=self.detector.info(self.config.detector),
            settings=self.config.settings(),
            settings_digest=settings_digest(self.config, self.detector),
            states=self.states,
            num_pose_frames=self.num_pose_frames,
            num_face_frames=self.num_face_frames,
            timings_s={name: round(value, 3) for name, value in self.timings_s.items()},
            checksums=checksums,
            signstreams_version=signstreams.__version__,
            **found,  # type: ignore[arg-type]
        )
        write_metadata(self.layout.metadata(self.video_id), metadata)
        return metadata

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start_s = time.perf_counter()
        yield
        self.timings_s[phase] += time.perf_counter() - start_s

    def _timed_each(self, phase: str, frames: Iterable[Frame]) -> Iterator[Frame]:
        iterator = iter(frames)
        while True:
            with self._timed(phase):
                frame = next(iterator, None)
            if frame is None:
                return
            yield frame


class _KeypointSpool:
    """Keypoints of all frames on disk (6.5 KB each), in a file without a name that vanishes with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._num_frames = 0

    def __enter__(self) -> _KeypointSpool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, keypoints: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(keypoints, np.float32).tobytes())
        self._num_frames += 1

    def array(self) -> np.ndarray:
        """(T, 543, 3) float32, mapped from the file."""
        self._file.flush()
        return np.memmap(self._file, np.float32, mode="r", shape=(self._num_frames, NUM_KEYPOINTS, 3))


def _frames_ahead(max_waiting: int) -> int:
    """Frames to decode while others are looked at: few, and of a size of frame that fills the buffer, one."""
    return max(1, min(4, max_waiting // 8))


def _stream_track(boxes: list[FrameBoxes], stream: int) -> StreamTrack:
    box = np.full((len(boxes), 4), MISSING[0], np.float32)
    state = np.array([frame.state[stream] for frame in boxes], np.uint8)
    confidence = np.array([frame.confidence[stream] for frame in boxes], np.float32)
    for row, frame in enumerate(boxes):
        if state[row] != BoxState.MISSING:
            box[row] = corners(frame.box[stream])
    return StreamTrack(box, confidence, state)


def _checksums(layout: CorpusLayout, video_id: str) -> dict[str, str] | None:
    """Artifact to digest; None when one is absent."""
    paths = {stream: layout.crops(stream, video_id) for stream in STREAMS}
    paths |= {
        "pose": layout.pose(video_id),
        "keypoints": layout.keypoints(video_id),
        "tracks": layout.tracks(video_id),
    }
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: sha256_file(path) for name, path in paths.items()}


def _mean_rate_hz(times_s: list[float]) -> float:
    """Frames a second over the video, rounded to what timestamps in milliseconds can tell; 0 for a single frame."""
    if len(times_s) < 2:
        return 0.0
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    return rate_hz if math.isclose(rate_hz, round(rate_hz), rel_tol=1e-4) is False else float(round(rate_hz))
