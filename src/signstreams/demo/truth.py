"""Exact ground truth of a rendered video: points, handshapes, visibility, gloss boundaries, as one npz file.

Arrays, with T frames, C clips, G glosses; ``hand_l`` is the signer's own left hand, on the right of the picture:

- ``body`` (T, 14, 2) float32 px, ``body_names``; ``hand_l``, ``hand_r`` (T, 21, 2) float32 px, ``hand_names``: the
  order of ``signstreams.formats.landmarks``.
- ``hand_l_handshape``, ``hand_r_handshape`` (T,) int16: index into ``handshape_names``, -1 while it changes.
- ``hand_l_occluded``, ``hand_l_outside``, ``hand_l_visible`` (T,) bool, and the same of ``hand_r``.
- ``clip_ids``, ``clip_start``, ``clip_end`` (C,); ``gloss``, ``gloss_clip``, ``gloss_start``, ``gloss_end`` (G,):
  frames, the end excluded; ``gloss_clip`` is an index into ``clip_ids``.
- ``video_id``, ``signer``, ``fps``, ``width``, ``height``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from signstreams.array_types import Array
from signstreams.demo.body import LEFT, RIGHT
from signstreams.demo.figure import FrameTruth
from signstreams.demo.head import POINTS
from signstreams.demo.lexicon import HANDSHAPES
from signstreams.demo.motion import Motion
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, PlannedVideo
from signstreams.demo.signers import Signer
from signstreams.files import write_bytes
from signstreams.formats.landmarks import HAND_NAMES

BODY_NAMES = (
    *POINTS,
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "mouth",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def truth_arrays(video: PlannedVideo, signer: Signer, motion: Motion, frames: Sequence[FrameTruth]) -> dict[str, Array]:
    """Everything that the file holds, by name."""
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
    """Write an npz without pickles; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    write_bytes(path, buffer.getvalue())
