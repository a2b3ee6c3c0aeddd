"""From planned signs to movement: place, orientation and joint angles of both hands and the face, frame by frame.

Signs are joined by minimum-jerk transitions (Flash and Hogan 1985), so each begins on the way from the one before.
Coordinates as in ``signstreams.demo.language``: those of the hand's own side of the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signstreams.array_types import Floats, Ints
from signstreams.demo.hand import ANGLES
from signstreams.demo.language import HANDSHAPES, MOUTHS, ORIENTATIONS, PLACES, SIGNS, Vector
from signstreams.demo.plan import FPS, PlannedSign, PlannedVideo
from signstreams.demo.signers import Signer

NO_HANDSHAPE = -1  # handshape id while a hand changes from one to another
NO_MOUTH = -1  # mouth id while the mouth changes from one to another
_MOUTH_NAMES = tuple(MOUTHS)
_MOUTH_FRAMES = 5  # over which the mouth's movement is smoothed

_REST = HANDSHAPES.index("rest")
_REST_ON_BELLY = (np.array([0.5, 2.0, 0.75]), ((-0.85, 0.3, 0.25), (-0.15, -0.1, -1.0)))
_REST_BELOW = (np.array([1.02, 3.75, 0.3]), ((0.0, 1.0, 0.1), (-0.9, 0.0, -0.4)))
_BASE = (np.array([0.55, 1.5, 0.85]), ((-0.75, -0.45, 0.3), (-0.1, -0.75, -0.7)))


@dataclass(frozen=True)
class HandMotion:
    """One hand in every frame."""

    palm: Floats  # (T, 3) middle of the palm
    frame: Floats  # (T, 3, 3) rows: thumb side, finger direction, palm normal
    angles: Floats  # (T, 20) joint angles
    handshape: Ints  # (T,) int16 id, or `NO_HANDSHAPE`


@dataclass(frozen=True)
class Motion:
    """The signer in every frame."""

    signing: HandMotion  # the hand that signs
    other: HandMotion  # the other hand
    mouth: Floats  # (T, 2) how far open 0..1, how wide -1..1
    mouth_shape: Ints  # (T,) int16 index into `MOUTHS`, or `NO_MOUTH`
    brows: Floats  # (T,) how far raised, about -1..1
    lids: Floats  # (T,) 0 open .. 1 shut.
    sway: Floats  # (T, 2) shift of the upper body
    head: Floats  # (T, 3) shift of the head against the body, and its roll in rad


def minimum_jerk(t: Floats) -> Floats:
    """Share of the way at share ``t`` of the time, 0..1, with no speed and no acceleration at either end."""
    return t * t * t * (10 - 15 * t + 6 * t * t)


def video_motion(video: PlannedVideo, signer: Signer, rng: np.random.Generator) -> Motion:
    """Movement of a whole video."""
    num_frames = video.num_frames
    rest = _REST_BELOW if signer.rests_low else _REST_ON_BELLY
    signing, other = _Track(num_frames, rest), _Track(num_frames, rest)
    mouth, brows = np.full(num_frames, _MOUTH_NAMES.index("neutral"), np.int16), np.zeros(num_frames)
    for clip in video.clips:
        start = clip.start
        for planned in clip.signs:
            sign = SIGNS[planned.gloss]
            jitter = rng.normal(0, (0.03, 0.03, 0.02))
            tilt = rng.normal(0, 0.06, 3)
            place, turn = np.array(PLACES[sign.place]) + jitter, _turn(ORIENTATIONS[sign.orientation], tilt)
            signing.sign(start, planned, sign.handshape, place, turn, sign.movement)
            if sign.hands == "two":
                other.sign(start, planned, sign.handshape, place, turn, sign.movement)
            elif sign.hands == "base":
                other.sign(start, planned, "flat", _BASE[0] + jitter, _turn(_BASE[1], tilt), "still")
            else:
                other.rest(start, planned.start)
            mouth[planned.start : planned.end] = _MOUTH_NAMES.index(sign.mouth)
            start = planned.end
        signing.rest(start, clip.end)
        other.rest(start, clip.end)
        if clip.sentence.text.endswith("?"):
            brows[clip.start : clip.end] = 1.0
    time_s = np.arange(num_frames) / FPS
    return Motion(
        signing=signing.finish(rng),
        other=other.finish(rng),
        mouth=_smooth(np.array(list(MOUTHS.values()))[mouth], _MOUTH_FRAMES),
        mouth_shape=_between_changes(mouth, _MOUTH_FRAMES),
        brows=_smooth(brows, 9) + 0.25 * _drift(time_s, rng, 1.1),
        lids=_blinks(num_frames, rng),
        sway=np.stack([0.035 * _drift(time_s, rng, 0.3), 0.012 * _drift(time_s, rng, 0.25)], -1),
        head=np.stack(
            [0.025 * _drift(time_s, rng, 0.6), 0.02 * _drift(time_s, rng, 0.7), 0.05 * _drift(time_s, rng, 0.5)], -1
        ),
    )


class _Track:
    """Keyframed movement of one hand; it keeps its pose between movements."""

    def __init__(self, num_frames: int, rest: tuple[Floats, tuple[Vector, Vector]]) -> None:
        self._rest = rest[0], _turn(rest[1])
        self.palm, self.turn = (np.tile(part, (num_frames, 1)) for part in self._rest)
        self.angles = np.tile(ANGLES[_REST], (num_frames, 1))
        self.handshape = np.full(num_frames, _REST, np.int16)

    def sign(self, before: int, sign: PlannedSign, shape: str, place: Floats, turn: Floats, movement: str) -> None:
        """Move there from frame ``before`` on, sign, and stay."""
        start, end, handshape = sign.start, sign.end, HANDSHAPES.index(shape)
        share = minimum_jerk(np.arange(end - start) / max(end - start - 1, 1))
        path = place + _offset(movement, share)
        self._approach(before, start, path[0], turn, handshape)
        self.palm[start:end], self.palm[end:] = path, path[-1]
        self.turn[start:], self.angles[start:], self.handshape[start:] = turn, ANGLES[handshape], handshape

    def rest(self, before: int, start: int) -> None:
        """Go to rest from frame ``before`` to ``start``, and stay."""
        place, turn = self._rest
        self._approach(before, start, place, turn, _REST)
        self.palm[start:], self.turn[start:] = place, turn
        self.angles[start:], self.handshape[start:] = ANGLES[_REST], _REST

    def _approach(self, before: int, start: int, palm: Floats, turn: Floats, handshape: int) -> None:
        if start <= before:
            return
        first = max(before - 1, 0)
        share = minimum_jerk(np.arange(1, start - before + 1) / (start - before + 1))[:, None]
        span = slice(before, start)
        bulge = np.array([0.06, 0.0, 0.12]) * np.linalg.norm(palm - self.palm[first])
        self.palm[span] = self.palm[first] + share * (palm - self.palm[first]) + 4 * share * (1 - share) * bulge
        self.turn[span] = _slerp(self.turn[first], turn, share)
        if handshape != self.handshape[first]:
            near_either = np.where(share[:, 0] < 0.5, self.handshape[first], handshape)
            self.handshape[span] = np.where(np.abs(share[:, 0] - 0.5) < 0.35, NO_HANDSHAPE, near_either)
        self.angles[span] = self.angles[first] + share * (ANGLES[handshape] - self.angles[first])

    def finish(self, rng: np.random.Generator) -> HandMotion:
        """The finished movement, with a small random drift."""
        time_s = np.arange(len(self.palm)) / FPS
        palm = self.palm + 0.012 * np.stack([_drift(time_s, rng, 1.3) for _ in range(3)], -1)
        angles = self.angles + 0.03 * np.stack([_drift(time_s, rng, 0.9) for _ in range(self.angles.shape[1])], -1)
        return HandMotion(palm, _rotation(self.turn), angles, self.handshape)


def _turn(orientation: tuple[Vector, Vector], tilt: Floats | float = 0.0) -> Floats:
    """(4,) quaternion of rows: thumb side, finger direction, palm normal of the left hand; made orthonormal."""
    fingers, palm = np.add(orientation[0], tilt), np.asarray(orientation[1], float)
    f = fingers / np.linalg.norm(fingers)
    p = palm - f * (f @ palm)
    p /= np.linalg.norm(p)
    return _quaternion(np.stack([np.cross(f, p), f, p]))


def _offset(movement: str, t: Floats) -> Floats:
    """Offset from the place (N, 3) at the shares ``t`` (N,) of a movement."""
    still, turn = np.zeros_like(t), 2 * np.pi * t
    paths = {
        "still": (still, still, still),
        "tap": (-0.11 * (1 - np.cos(2 * turn)), still, -0.05 * (1 - np.cos(2 * turn))),
        "push": (-0.14 * t, -0.1 * t, 0.45 * t),
        "circle": (0.2 * (np.cos(1.25 * turn) - 1), 0.2 * np.sin(1.25 * turn), still),
        "wave": (0.2 * np.sin(1.5 * turn), still, still),
        "arc_forward": (-0.3 * t, -0.22 * np.sin(np.pi * t) + 0.15 * t, 0.45 * t),
        "arc_back": (0.32 * t, -0.22 * np.sin(np.pi * t), -0.3 * t),
        "down": (0.08 * t, 0.42 * t, still),
        "open": (0.42 * t, 0.12 * t, still),
    }
    return np.stack(paths[movement], -1)


def _drift(time_s: Floats, rng: np.random.Generator, rate_hz: float) -> Floats:
    """(T,) slow wandering of about unit size: three sines with random rates and phases."""
    rates, phases = rate_hz * rng.uniform(0.6, 1.4, 3), rng.uniform(0, 2 * np.pi, 3)
    waves: Floats = np.sin(2 * np.pi * time_s[:, None] * rates + phases)  # (T, 3)
    drift: Floats = waves.sum(axis=1)
    return drift * 0.6


def _smooth(values: Floats, width: int) -> Floats:
    """Mean over ``width`` frames along the first axis, ends repeated."""
    padded = np.pad(values, [(width // 2, width // 2), *[(0, 0)] * (values.ndim - 1)], mode="edge")
    smooth: Floats = np.mean([padded[shift : shift + len(values)] for shift in range(width)], axis=0)
    return smooth


def _between_changes(shapes: Ints, width: int) -> Ints:
    """The shapes (T,), `NO_MOUTH` where the mean over ``width`` frames mixes two of them."""
    padded = np.pad(shapes, width // 2, mode="edge")
    around = np.stack([padded[shift : shift + len(shapes)] for shift in range(width)])  # (width, T)
    return np.where((around == shapes).all(axis=0), shapes, NO_MOUTH).astype(np.int16)


def _blinks(num_frames: int, rng: np.random.Generator) -> Floats:
    lids = np.zeros(num_frames)
    frame = int(rng.integers(10, 60))
    while frame < num_frames:
        for step, shut in enumerate((0.5, 1.0, 0.9, 0.4)):
            if frame + step < num_frames:
                lids[frame + step] = shut
        frame += int(rng.integers(45, 110))
    return lids


def _quaternion(rotation: Floats) -> Floats:
    """(4,) w, x, y, z of a (3, 3) rotation (Shepperd 1978: the largest component first)."""
    m = rotation
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    largest = int(np.argmax(squares))
    rows = (
        (squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]),
    )
    quaternion: Floats = np.array(rows[largest])
    return quaternion / float(np.linalg.norm(quaternion))


def _rotation(quaternion: Floats) -> Floats:
    """(T, 3, 3) rotations of (T, 4) unit quaternions."""
    w, x, y, z = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _slerp(start: Floats, end: Floats, share: Floats) -> Floats:
    """(N, 4) rotations between two, the short way; share (N, 1)."""
    cos = float(start @ end)
    if cos < 0:
        end, cos = -end, -cos
    angle = np.arccos(min(cos, 1.0))
    if angle < 1e-4:
        return np.repeat(end[None], len(share), axis=0)
    between: Floats = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)
    return between
