"""One picture of all signers and all handshapes, for the README."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.demo.backdrop import backdrop
from signstreams.demo.body import Camera
from signstreams.demo.figure import Figure
from signstreams.demo.grammar import Sentence
from signstreams.demo.lexicon import HANDSHAPES, SIGNS
from signstreams.demo.motion import video_motion
from signstreams.demo.plan import PlannedClip, PlannedSign, PlannedVideo
from signstreams.demo.signers import SIGNERS, Signer
from signstreams.demo.video import video_rng
from signstreams.files import write_bytes

_FRAME_PX = (320, 240)
_HAND_PX = 120
_START, _LENGTH = 10, 12
_SHOWN = ("CASA", "MAMÁ", "CAFÉ", "VER", "DÓNDE", "AGUA")


def write_contact_sheet(path: Path, seed: int) -> None:
    """Write a PNG: a frame of each signer above, crops of each handshape below."""
    frames = [
        cv2.resize(_frame(signer, gloss, seed)[0], _FRAME_PX, interpolation=cv2.INTER_AREA)
        for signer, gloss in zip(SIGNERS, _SHOWN, strict=True)
    ]
    gloss_of = {sign.handshape: gloss for gloss, sign in SIGNS.items()}
    hands = [
        _hand(SIGNERS[number % len(SIGNERS)], gloss_of[name], name, seed)
        for number, name in enumerate(name for name in HANDSHAPES if name in gloss_of)
    ]
    per_row = len(hands) // 2
    width = 3 * _FRAME_PX[0]
    rows = [np.hstack(frames[:3]), np.hstack(frames[3:])]
    for first in range(0, len(hands), per_row):
        row = np.hstack(hands[first : first + per_row])
        rows.append(cv2.resize(row, (width, round(row.shape[0] * width / row.shape[1])), interpolation=cv2.INTER_AREA))
    sheet = np.vstack(rows) // 6 * 6  # fewer shades keep the file small
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    write_bytes(path, data.tobytes())


def _frame(signer: Signer, gloss: str, seed: int) -> tuple[Pixels, Floats]:
    """Picture in the middle of a sign, and the (21, 2) px of the hand that signs."""
    sign = PlannedSign(gloss, _START, _START + _LENGTH)
    clip = PlannedClip("sheet", Sentence((gloss,), gloss), 0, sign.end + _START, (sign,))
    rng = video_rng(seed, f"contact sheet {signer.name} {gloss}")
    motion = video_motion(PlannedVideo("sheet", signer.name, (clip,), clip.end), signer, rng)
    figure = Figure(signer, Camera.before(signer, rng), backdrop(signer, rng))
    image, truth = figure.draw(motion, _START + _LENGTH // 2)
    return image, truth.limbs[0 if signer.left_handed else 1].hand[:, :2]


def _hand(signer: Signer, gloss: str, name: str, seed: int) -> Pixels:
    image, points = _frame(signer, gloss, seed)
    middle, half = (points.min(0) + points.max(0)) / 2, np.ptp(points, axis=0).max() * 0.66
    x0, y0 = np.round(middle - half).astype(int)
    side = int(2 * half)
    padded = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE)
    crop = padded[y0 + side : y0 + 2 * side, x0 + side : x0 + 2 * side]
    crop = cv2.resize(crop, (_HAND_PX, _HAND_PX), interpolation=cv2.INTER_AREA)
    cv2.putText(crop, name, (5, _HAND_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (250, 250, 250), 1, cv2.LINE_AA)
    return crop
