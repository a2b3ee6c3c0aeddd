"""Render one video of the demo corpus: backdrop, frames, MP4, and its exact ground truth as one npz file.

Arrays of the ground truth, with T frames, C clips, G glosses; ``hand_l`` is the signer's own left hand, on the right of
the picture:

- ``body`` (T, 14, 2) float32 px, ``body_names``; ``hand_l``, ``hand_r`` (T, 21, 2) float32 px, ``hand_names``: the
  order of ``signstreams.formats.landmarks``.
- ``hand_l_handshape``, ``hand_r_handshape`` (T,) int16: index into ``handshape_names``, -1 while it changes.
- ``hand_l_occluded``, ``hand_l_outside``, ``hand_l_visible`` (T,) bool, and the same for ``hand_r``.
- ``clip_ids``, ``clip_start``, ``clip_end`` (C,); ``gloss``, ``gloss_clip``, ``gloss_start``, ``gloss_end`` (G,):
  frames, the end excluded; ``gloss_clip`` is an index into ``clip_ids``.
- ``video_id``, ``signer``, ``fps``, ``width``, ``height``.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Array, Floats, Pixels
from signstreams.demo.figure import LEFT, RIGHT, Camera, Figure, FrameTruth
from signstreams.demo.head import EYE, FACE_BOTTOM, FACE_TOP, POINTS
from signstreams.demo.language import HANDSHAPES, MOUTHS
from signstreams.demo.motion import Motion, video_motion
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, PlannedVideo
from signstreams.demo.signers import Signer, signer_named
from signstreams.files import replacing
from signstreams.formats.landmarks import HAND_NAMES
from signstreams.formats.layout import CorpusLayout
from signstreams.progress import Progress
from signstreams.streams import HAND_STREAMS

_ARM_NAMES = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist") for side in ("left", "right")]
BODY_NAMES = (*POINTS, *_ARM_NAMES, "mouth")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NOISE_SIGMA = 2.0
_NUM_NOISE_FIELDS = 4


def video_rng(seed: int, video_id: str) -> np.random.Generator:
    """Random numbers of one video, independent of what else is rendered."""
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
        stream.codec_context.thread_count = 1  # with more, the bytes would depend on the number of processors
        for number in range(video.num_frames):
            image, truth = figure.draw(motion, number)
            frames.append(truth)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_with_noise(image, fields, number), format="rgb24")))
            if progress is not None:
                progress.advance()
        container.mux(stream.encode())
    write_truth(layout.ground_truth(video.video_id), truth_arrays(video, signer, motion, frames))


def _with_noise(image: Pixels, fields: Pixels, number: int) -> Array:
    """Add sensor noise: one of a few fields, shifted from frame to frame."""
    field = np.roll(fields[number % len(fields)], (37 * number) % HEIGHT_PX, axis=0)
    return cv2.add(image, field, dtype=cv2.CV_8U)


# -- What is behind the signer, drawn once per video


def backdrop(signer: Signer, rng: np.random.Generator) -> Pixels:
    """Background of a video, (H, W, 3) uint8 RGB."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    light = 1.08 - 0.28 * (x / WIDTH_PX - 0.25) ** 2 - 0.22 * (y / HEIGHT_PX)
    image = np.asarray(signer.backdrop_color, np.float32) * light[..., None]
    _PAINTERS[signer.backdrop](image, rng)
    coarse = rng.normal(0, 2.5, (HEIGHT_PX // 8, WIDTH_PX // 8)).astype(np.float32)
    image += cv2.resize(coarse, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)[..., None]
    clipped: Floats = np.clip(cv2.GaussianBlur(image, (0, 0), 1.6), 0, 255)
    return clipped.astype(np.uint8)


def _gradient(image: Floats, rng: np.random.Generator) -> None:
    image *= np.linspace(1.06, 0.82, HEIGHT_PX, dtype=np.float32)[:, None, None]


def _wall(image: Floats, rng: np.random.Generator) -> None:
    height, width = 30, 76
    for row, y in enumerate(range(0, HEIGHT_PX, height)):
        for x in range(-width + (row % 2) * width // 2, WIDTH_PX, width):
            image[y + 2 : y + height, max(x + 2, 0) : max(x + width, 0)] *= rng.uniform(0.88, 1.04)
    image[::height] *= 0.84


def _shelf(image: Floats, rng: np.random.Generator) -> None:
    for y in (150, 320):
        x = int(rng.integers(0, 20))
        while x < WIDTH_PX:
            width, height = int(rng.integers(12, 30)), int(rng.integers(70, 120))
            if rng.random() < 0.85:
                cv2.rectangle(image, (x, y - height), (x + width, y), rng.uniform(60, 190, 3).tolist(), -1)
                cv2.line(image, (x + width, y - height), (x + width, y), (50, 45, 40), 1)
            x += width + 1
        cv2.rectangle(image, (0, y), (WIDTH_PX, y + 9), (112, 82, 56), -1)


def _window(image: Floats, rng: np.random.Generator) -> None:
    left = int(rng.integers(20, 60))
    cv2.rectangle(image, (left, 30), (left + 150, 300), (226, 226, 220), -1)
    sky = np.linspace(0, 1, 240, dtype=np.float32)[:, None, None]
    image[45:285, left + 14 : left + 136] = (1 - sky) * np.array([150, 190, 226]) + sky * np.array([214, 222, 214])
    cv2.rectangle(image, (left + 70, 40), (left + 79, 290), (226, 226, 220), -1)
    cv2.rectangle(image, (480, 250), (600, 480), (116, 92, 68), -1)
    cv2.circle(image, (540, 215), 44, (78, 116, 70), -1)


def _board(image: Floats, rng: np.random.Generator) -> None:
    image[:26] = image[-60:] = (150, 112, 76)
    for _ in range(14):
        x, y = int(rng.integers(10, WIDTH_PX - 90)), int(rng.integers(50, HEIGHT_PX - 90))
        cv2.line(image, (x, y), (x + int(rng.integers(30, 90)), y + int(rng.integers(-4, 5))), (150, 172, 158), 2)


def _curtain(image: Floats, rng: np.random.Generator) -> None:
    x = np.arange(WIDTH_PX, dtype=np.float32)
    folds = np.sum([np.sin(x / length + rng.uniform(0, 6)) for length in (9.0, 14.0, 23.0)], axis=0)  # (W,)
    image *= (1 + 0.07 * folds)[None, :, None]


_PAINTERS = {
    "gradient": _gradient,
    "wall": _wall,
    "shelf": _shelf,
    "window": _window,
    "board": _board,
    "curtain": _curtain,
}


# -- Ground truth


def truth_arrays(video: PlannedVideo, signer: Signer, motion: Motion, frames: Sequence[FrameTruth]) -> dict[str, Array]:
    """The arrays of the ground truth file, by name."""
    hands = np.stack([[limb.hand[:, :2] for limb in frame.limbs] for frame in frames])  # (T, 2, 21, 2)
    joints = np.stack(
        [[getattr(limb, joint)[:2] for joint in ("shoulder", "elbow") for limb in frame.limbs] for frame in frames]
    )  # (T, 4, 2)
    face = np.stack([frame.face for frame in frames])  # (T, 7, 2)
    mouth = face[:, [POINTS.index("mouth_left"), POINTS.index("mouth_right")]].mean(axis=1, keepdims=True)
    occluded = np.stack([frame.occluded for frame in frames])  # (T, 2)
    outside = np.stack([frame.outside for frame in frames])
    arrays: dict[str, Array] = {
        "body": np.concatenate([face, joints, hands[:, :, 0], mouth], axis=1).astype(np.float32),
        "body_names": np.array(BODY_NAMES),
        "hand_names": np.array(HAND_NAMES),
        "handshape_names": np.array(HANDSHAPES),
        "face_mouth": motion.mouth_shape,
        "mouth_names": np.array(list(MOUTHS)),
    }
    signing_side = LEFT if signer.left_handed else RIGHT
    for side, name in ((LEFT, "hand_l"), (RIGHT, "hand_r")):
        arrays[name] = hands[:, side].astype(np.float32)
        arrays[f"{name}_handshape"] = (motion.signing if side == signing_side else motion.other).handshape
        arrays[f"{name}_occluded"] = occluded[:, side]
        arrays[f"{name}_outside"] = outside[:, side]
        arrays[f"{name}_visible"] = ~(occluded[:, side] | outside[:, side])
    signs = [(number, sign) for number, clip in enumerate(video.clips) for sign in clip.signs]
    arrays |= {
        "clip_ids": np.array([clip.clip_id for clip in video.clips]),
        "clip_start": np.array([clip.start for clip in video.clips], np.int32),
        "clip_end": np.array([clip.end for clip in video.clips], np.int32),
        "gloss": np.array([sign.gloss for _, sign in signs]),
        "gloss_clip": np.array([number for number, _ in signs], np.int32),
        "gloss_start": np.array([sign.start for _, sign in signs], np.int32),
        "gloss_end": np.array([sign.end for _, sign in signs], np.int32),
        "video_id": np.array(video.video_id),
        "signer": np.array(signer.name),
        "fps": np.array(FPS),
        "width": np.array(WIDTH_PX),
        "height": np.array(HEIGHT_PX),
    }
    return arrays


def write_truth(path: str | Path, arrays: dict[str, Array]) -> None:
    """Write an npz file without pickles or times: equal arrays give equal bytes."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def true_boxes(truth: Mapping[str, Array], face_scale: float, hand_scale: float) -> dict[str, Floats]:
    """Stream to its true square boxes (T, 3) as extraction defines them: x and y of the centre, side, px.

    The side is a scale times the extent from the hairline to the chin, or the larger extent of the 21 joints.
    """
    boxes = {"face": _face(truth, face_scale)}
    for stream in HAND_STREAMS:
        low, high = truth[stream].min(axis=1), truth[stream].max(axis=1)  # (T, 2) each
        boxes[stream] = np.column_stack([(low + high) / 2, (high - low).max(axis=1) * hand_scale])
    return boxes


def _face(truth: Mapping[str, Array], scale: float) -> Floats:
    """(T, 3) from the eyes, which give place, size and roll of the head."""
    names = [str(name) for name in truth["body_names"]]
    left, right = (truth["body"][:, names.index(f"{side}_eye")].astype(float) for side in ("left", "right"))  # (T, 2)
    across = left - right
    unit_px = np.linalg.norm(across, axis=1) / (2 * EYE[0])  # (T,)
    down = np.column_stack([-across[:, 1], across[:, 0]]) / np.linalg.norm(across, axis=1, keepdims=True)
    centre = (left + right) / 2 + ((FACE_TOP + FACE_BOTTOM) / 2 - EYE[1]) * unit_px[:, None] * down
    return np.column_stack([centre, (FACE_BOTTOM - FACE_TOP) * unit_px * scale])
