"""Renders one video of the demo corpus into an MP4 and its ground truth."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from signstreams.array_types import Array, Pixels
from signstreams.demo.backdrop import backdrop
from signstreams.demo.body import Camera
from signstreams.demo.figure import Figure, FrameTruth
from signstreams.demo.motion import video_motion
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, PlannedVideo
from signstreams.demo.signers import signer_named
from signstreams.demo.truth import truth_arrays, write_truth
from signstreams.files import replacing
from signstreams.formats.layout import CorpusLayout
from signstreams.progress import Progress

_NOISE_SIGMA = 2.0
_NUM_NOISE_FIELDS = 4


def video_rng(seed: int, video_id: str) -> np.random.Generator:
    """Random numbers of one video, whatever else is rendered."""
    digest = hashlib.sha256(f"signstreams demo {seed} {video_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def render_video(layout: CorpusLayout, video: PlannedVideo, seed: int, progress: Progress | None = None) -> None:
    """Write ``videos/<id>.mp4`` and ``ground_truth/<id>.npz``; the same arguments give the same bytes."""
    import av  # here: PyAV belongs to the extraction half of the requirements

    rng = video_rng(seed, video.video_id)
    signer = signer_named(video.signer, seed)
    motion = video_motion(video, signer, rng)
    figure = Figure(signer, Camera.before(signer, rng), backdrop(signer, rng))
    noise = _NOISE_SIGMA * rng.standard_normal((_NUM_NOISE_FIELDS, HEIGHT_PX, WIDTH_PX, 1), dtype=np.float32)
    fields = np.repeat(noise.round().astype(np.int16), 3, axis=-1)
    frames: list[FrameTruth] = []
    path = layout.videos / f"{video.video_id}.mp4"
    with replacing(path) as part, av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.thread_count = 1  # more threads would cut the pictures differently on other machines
        for number in range(video.num_frames):
            image, truth = figure.draw(motion, number)
            frames.append(truth)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_with_noise(image, fields, number), format="rgb24")))
            if progress is not None:
                progress.advance()
        container.mux(stream.encode())
    write_truth(layout.ground_truth(video.video_id), truth_arrays(video, signer, motion, frames))


def _with_noise(image: Pixels, fields: Pixels, number: int) -> Array:
    """Sensor noise: one of few fields, shifted from frame to frame."""
    field = np.roll(fields[number % len(fields)], (37 * number) % HEIGHT_PX, axis=0)
    return cv2.add(image, field, dtype=cv2.CV_8U)
