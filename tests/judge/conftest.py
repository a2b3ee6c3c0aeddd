"""Small labelled sets, and a backbone with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.formats.arrays import StreamTrack, Tracks, write_keypoints, write_tracks
from signstreams.formats.crops import CropWriter
from signstreams.formats.landmarks import NUM_KEYPOINTS, REGIONS
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import write_metadata
from signstreams.streams import STREAMS

SEED = 5


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    """A judge may set the number of threads of the process; other tests get theirs back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def jpeg(angle: float, shade: int) -> bytes:
    """A bar through the middle of a picture of 40 px, at an angle in radians."""
    image = np.full((40, 40, 3), shade, np.uint8)
    along = (15 * np.cos(angle), 15 * np.sin(angle))
    ends = [(round(20 + sign * along[0]), round(20 + sign * along[1])) for sign in (-1, 1)]
    cv2.line(image, *ends, color=(255, 220, 200), thickness=4)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder for each of 4 classes with 6 bars by 3 people: `photos/<class>/<signer>_<class>_<n>.jpg`.

    The angle is that of the class and a little of the person's own.
    """
    folder = tmp_path / "photos"
    for label in range(4):
        for person in range(3):
            for n in range(2):
                path = folder / f"c{label}" / f"p{person}_c{label}_{n}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(label * np.pi / 4 + 0.05 * person + 0.02 * n, 20 * person))
    return folder


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A backbone of random weights with the params.json of its run, whose seed is `SEED`."""
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=1)
    model = VisionTransformer(arch)
    model.init_weights(torch.Generator().manual_seed(3))
    path = tmp_path / "dino_hand_r" / "backbone.pt"
    metadata = {"image_px": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    export_backbone(path, arch, model.state_dict(), metadata)
    path.with_name("params.json").write_text(f'{{"config": {{"seed": {SEED}, "init": {{"weights": null}}}}}}')
    return path


NUM_FRAMES = 9


@pytest.fixture
def add_video(tmp_path: Path, made_metadata: Callable[..., Any]) -> Callable[..., CorpusLayout]:
    """Adds an extracted video of 9 frames: both hands are bars that turn from one angle to another."""
    layout = CorpusLayout(tmp_path / "corpus")

    def add(video_id: str, first: float, last: float, *, shade: int = 0, left: bool = True) -> CorpusLayout:
        angles = np.linspace(first, last, NUM_FRAMES)
        state = {stream: np.ones(NUM_FRAMES, np.uint8) for stream in STREAMS}
        state["face"][:] = 0
        if not left:
            state["hand_l"][:] = 0
        for stream in ("hand_l", "hand_r"):
            with CropWriter(layout.crops(stream, video_id), video_id) as writer:
                for frame, angle in enumerate(angles):
                    if state[stream][frame]:
                        writer.add(frame, jpeg(angle, shade))
        box = np.tile(np.float32([10, 10, 50, 50]), (NUM_FRAMES, 1))
        confidence = np.ones(NUM_FRAMES, np.float32)
        tracks = {stream: StreamTrack(box, confidence, state[stream]) for stream in STREAMS}
        write_tracks(layout.tracks(video_id), Tracks(tracks, np.arange(NUM_FRAMES) / 25))
        keypoints = np.full((NUM_FRAMES, NUM_KEYPOINTS, 3), -1, np.float32)
        keypoints[..., 2] = 0
        along = np.linspace(0, 0.2, 21)
        for frame, angle in enumerate(angles):
            bent = np.sin(np.arange(21) * (1 + angle)) * 0.05
            for stream in ("hand_l", "hand_r") if left else ("hand_r",):
                keypoints[frame, REGIONS[stream], 0] = 0.4 + along
                keypoints[frame, REGIONS[stream], 1] = 0.4 + bent
                keypoints[frame, REGIONS[stream], 2] = 0.9
        write_keypoints(layout.keypoints(video_id), keypoints)
        write_metadata(layout.metadata(video_id), made_metadata(video_id, NUM_FRAMES, size_px=(200, 100), crop_px=40))
        return layout

    return add
