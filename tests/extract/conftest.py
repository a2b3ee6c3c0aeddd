"""Videos of coloured discs for face and hands, a detector of such discs, and the real clips, extracted once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import DetectorKind, VideoContext, missing_keypoints
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import DetectorInfo, VideoMetadata
from signstreams.formats.video_sources import VideoSource

WIDTH, HEIGHT = 160, 120
COLOURS = {"face": (0, 0, 255), "hand_l": (255, 0, 0), "hand_r": (0, 255, 0)}
SLOTS = {"face": FACE, "hand_l": HAND_L, "hand_r": HAND_R}
RADIUS_PX = 10


def disc_centres(index: int) -> dict[str, tuple[float, float]]:
    """Where the discs of frame ``index`` are: the left hand moves right, the right hand moves down."""
    return {"face": (80.0, 30.0), "hand_l": (100.0 + index, 80.0), "hand_r": (50.0, 60.0 + index)}


def draw_discs(index: int) -> np.ndarray:
    """(120, 160, 3) RGB."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for name, (x, y) in disc_centres(index).items():
        cv2.circle(image, (round(x), round(y)), RADIUS_PX, COLOURS[name], -1)
    return image


class DiscDetector:
    """Finds the discs by colour; a stand-in for a neural detector that is exact and takes no time."""

    num_calls = 0

    def __init__(self, config: ExtractConfig, video: VideoContext) -> None:
        type(self).num_calls = 0

    def __enter__(self) -> DiscDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def detect(self, frame: Frame) -> np.ndarray:
        type(self).num_calls += 1
        image = frame.image
        keypoints = missing_keypoints()
        size = np.array(image.shape[1::-1])
        for name, colour in COLOURS.items():
            is_own = np.array(colour) > 0
            mask = cv2.inRange(image, np.where(is_own, 151, 0), np.where(is_own, 255, 99))
            rows, columns = np.nonzero(mask)
            if len(rows) < 50:
                continue
            points = np.stack([columns, rows], -1)[
                np.linspace(0, len(rows) - 1, SLOTS[name].stop - SLOTS[name].start).astype(int)
            ]
            keypoints[SLOTS[name], :2] = (points + 0.5) / size
            keypoints[SLOTS[name], 2] = 1.0
        keypoints[POSE] = (0.5, 0.5, 0.3)  # a body is there, too faint to place boxes by
        return keypoints


DISCS = DetectorKind(lambda config, video_id: DetectorInfo(name="discs", version="1"), DiscDetector, sees_pixels=False)


@pytest.fixture(scope="session")
def real_clips(shared_data: Path, build_once: Callable[[str, Callable[[Path], None]], Path]) -> CorpusLayout:
    """The four real clips, extracted once for all test processes with the default settings."""

    def extract(root: Path) -> None:
        extract_videos(ExtractConfig(videos=[shared_data / "clips"], root=root))

    return CorpusLayout(build_once("real_clips", extract))


@pytest.fixture
def discs() -> DetectorKind:
    """The disc detector."""
    return DISCS


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Write a video: ``make_video(name, num_frames, ...)`` gives its path."""

    def make(
        name: str = "video.mp4",
        num_frames: int = 12,
        *,
        fps: int = 30,
        times_ms: list[int] | None = None,
        draw: Callable[[int], np.ndarray] = draw_discs,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        pixel_format: str = "rgb24",
        aspect: tuple[int, int] | None = None,
        audio: bool = False,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=options or {}) as container:
            sound = container.add_stream("aac", rate=16000) if audio else None
            stream = container.add_stream(codec, rate=fps)
            height, width = draw(0).shape[:2]
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            if codec == "libx264":
                stream.options = {"crf": "12", "preset": "ultrafast"}
            if aspect:
                stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
            if times_ms is not None:
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
                silence.sample_rate = 16000
                container.mux(sound.encode(silence))
                container.mux(sound.encode(None))
            for index in range(num_frames if times_ms is None else len(times_ms)):
                frame = av.VideoFrame.from_ndarray(draw(index), pixel_format)
                frame.pts = index if times_ms is None else times_ms[index]
                if times_ms is not None:
                    frame.time_base = Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def extract_discs(tmp_path: Path) -> Callable[..., tuple[VideoMetadata, CorpusLayout]]:
    """Extract a video of discs: ``extract_discs(path, **settings)`` gives metadata and layout."""

    def run(path: Path, **settings: object) -> tuple[VideoMetadata, CorpusLayout]:
        config = ExtractConfig(videos=[path], root=tmp_path / "corpus", **settings)
        return extract_video(VideoJob(VideoSource.at(path), config, DISCS)), CorpusLayout(config.root)

    return run
