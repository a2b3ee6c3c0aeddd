"""The view of one video, ``contract/views/<video>.js``: what the page draws over the video and beside it, thinned out.

Its size is bounded, whatever the length of the video: see `MAX_POINT_FRAMES` and `MAX_CROP_FRAMES`. The crops are
those of the archives, so that a face that extraction hid stays hidden. The first line is a comment with a
`ViewSummary`, which is read without the rest.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import zlib
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.contract.video import check_claims
from signstreams.errors import DamagedFile
from signstreams.files import write_text
from signstreams.formats.arrays import Tracks, keypoint_pieces, read_tracks
from signstreams.formats.crops import Crop, CropReader, list_crops
from signstreams.formats.landmarks import HAND_L, HAND_R, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.skeleton import DRAWN
from signstreams.formats.video_metadata import VideoMetadata, read_metadata
from signstreams.streams import HAND_STREAMS, SIDE_BY_SIDE, BoxState

FORMAT = 1
"""Raised when the page reads something else: views of an earlier format are then written again."""
_HEAD = f"// signstreams view {FORMAT} "

MAX_POINTS_HZ, MAX_POINT_FRAMES = 15.0, 3000
"""Points and boxes are kept of so many frames a second, and of no more frames than that: 200 s at the full rate."""
MAX_CROPS_HZ, MAX_CROP_FRAMES = 5.0, 300
LONGEST_S = 1e6
TILE_PX, QUALITY = 96, 60  # of a crop in the sprite, and of the JPEG
STEPS = 2048  # steps of a coordinate per frame width or height
"""Positions are stored as 1 + STEPS * (1 + fraction), so that those outside of the frame are kept; 0 is missing."""
SURE = 0.75
"""Confidence of a hand below which it is worth a look: points that were seen have 0.5 to 1, interpolated ones 0.1."""
SWAP_PALMS, SWAP_RATIO, SWAP_S = 4.0, 0.5, 0.25
"""Hands change sides if, from one frame to the next, within `SWAP_S`, both wrists together move by that many lengths of
a palm, and by less than that share of it if left were right."""
ARM_PALMS = 2.0  # a hand is on the other arm when it is so far from its own wrist, and twice as near to the other one

_WRISTS = (HAND_L.start, HAND_R.start)
_PALM = 9  # knuckle of the middle finger: the palm is as long as its distance from the wrist
_BODY = tuple(pose_index(f"{side}_{joint}") for joint in ("shoulder", "wrist") for side in ("left", "right"))
_WATCHED = (*_WRISTS, *(start + _PALM for start in _WRISTS), *_BODY)
"""Rows of every frame that the summary looks at: wrists and knuckles of the hands, shoulders and wrists of the body."""


@dataclass(frozen=True)
class ViewSummary:
    """What the points and boxes of a video say of its hands; shares are of its frames, 0..1."""

    no_hands_ratio: float  # frames without any hand
    estimated_ratio: float  # frames with a hand whose box the body placed, or filled in between two others
    unsure_ratio: float  # frames with a hand below `SURE`, interpolated ones included
    num_swaps: int  # times that left and right hand seem to change places
    mirrored_ratio: float
    """Frames in which the sides seem to be mirrored: the signer's left shoulder is on the left of the picture, or a
    hand is on the other arm."""
    num_people: int | None  # people found side by side; None without a search for people
    face_privacy: str  # what extraction hid of the face; then the video itself, which hides nothing, is not played
    is_drawn: bool  # whether there is anything to draw


def write_view(layout: CorpusLayout, video_id: str) -> None:
    """Write the view of a video from the files of its extraction; none for a video without frames.

    Where these cannot be read, the view is empty: what is wrong with them is the business of the checks.
    """
    path = layout.view(video_id)
    try:
        metadata = read_metadata(layout.metadata(video_id))
        if metadata.status != "ok" or metadata.num_frames == 0:
            _remove(path)
            return
        summary, content = _view(layout, metadata)
    except (OSError, ValueError, MemoryError, cv2.error):
        summary, content = ViewSummary(0.0, 0.0, 0.0, 0, 0.0, None, "none", is_drawn=False), None
    head = _HEAD + json.dumps(asdict(summary))
    body = f"showView({json.dumps(video_id)}, {json.dumps(content, separators=(',', ':'))});"
    with contextlib.suppress(OSError):  # a view is for people; writing the report beside it will report the fault
        write_text(path, f"{head}\n{body}\n", sync=False)


def read_summary(path: Path) -> ViewSummary | None:
    """Summary of a view; None where there is none of this format."""
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(1000)
        return ViewSummary(**json.loads(line.removeprefix(_HEAD))) if line.startswith(_HEAD) else None
    except (OSError, ValueError, TypeError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _view(layout: CorpusLayout, metadata: VideoMetadata) -> tuple[ViewSummary, dict[str, Any]]:
    """Summary and content.

    Raises:
        ValueError, OSError, MemoryError, cv2.error: A file cannot be read, or the files differ in length.
    """
    video_id, num_frames = metadata.video_id, metadata.num_frames
    for kind, path in (("tracks", layout.tracks(video_id)), ("keypoints", layout.keypoints(video_id))):
        check_claims(path, kind, num_frames)
    tracks = read_tracks(layout.tracks(video_id))
    rows = np.arange(0, num_frames, _stride(metadata.fps, num_frames, MAX_POINTS_HZ, MAX_POINT_FRAMES))  # (N,)
    drawn, watched = _read_points(layout.keypoints(video_id), rows)
    if not len(tracks.times_s) == len(watched) == num_frames:
        raise DamagedFile(layout.tracks(video_id), f"{len(tracks.times_s)} frames, {len(watched)} of keypoints")
    size_px, times_s = (metadata.width_px, metadata.height_px), tracks.times_s[rows]
    if min(size_px) < 1 or not ((times_s >= 0) & (times_s < LONGEST_S)).all():
        raise DamagedFile(layout.tracks(video_id), f"frames of {size_px} px, or at impossible times")
    shown = rows[:: _stride(metadata.fps * len(rows) / num_frames, len(rows), MAX_CROPS_HZ, MAX_CROP_FRAMES)]  # (M,)
    boxes = [track.box[rows] / np.tile(size_px, 2) for track in (tracks.streams[name] for name in SIDE_BY_SIDE)]
    found = [tracks.streams[name].state[rows] > 0 for name in SIDE_BY_SIDE]
    places = [_steps(drawn[..., axis], drawn[..., 2] > 0) for axis in (0, 1)]  # (N, P) each
    places += [_steps(box, np.repeat(here[:, None], 4, axis=1)) for box, here in zip(boxes, found, strict=True)]
    states = np.stack([tracks.streams[name].state[rows] for name in SIDE_BY_SIDE], axis=-1)  # (N, S)
    content = {
        "size_px": size_px,
        "fps": round(metadata.fps, 3),
        "times_ms": np.diff(np.rint(times_s * 1000).astype(int), prepend=0).tolist(),
        "places": _packed(np.concatenate(places, axis=1)),
        "states": "".join(map(str, states.ravel().tolist())),
        "tile_px": TILE_PX,
        "crops": np.searchsorted(rows, shown).tolist(),
        **_sprite(layout, video_id, shown),
        "known": known_of(metadata),
    }
    return _summary(tracks, watched, metadata), content


def _stride(rate_hz: float, num_frames: int, max_hz: float, max_frames: int) -> int:
    """Every how-manieth frame is kept, for at most so many a second (give or take a tenth) and in all."""
    return max(1, math.ceil(rate_hz / max_hz - 0.1), math.ceil(num_frames / max_frames))


def _read_points(path: Path, rows: Ints) -> tuple[Floats, Floats]:
    """(N, P, 3) `DRAWN` of the frames ``rows``, and (T, 8, 3) `_WATCHED` of all frames."""
    drawn, watched, start = [], [], 0
    for piece in keypoint_pieces(path):
        here = rows[(rows >= start) & (rows < start + len(piece))] - start
        drawn.append(piece[here][:, DRAWN])
        watched.append(piece[:, _WATCHED])
        start += len(piece)
    if not drawn:
        raise DamagedFile(path, "no frame")
    return np.concatenate(drawn), np.concatenate(watched)


def _steps(fractions: Floats, present: Flags) -> Ints:
    """Positions as whole numbers of 16 bits, 0 where missing."""
    steps = np.rint((fractions.astype(np.float64) + 1) * STEPS) + 1
    return np.where(present & np.isfinite(steps), np.clip(np.nan_to_num(steps), 1, 2**16 - 1), 0).astype(np.uint16)


def _packed(values: Ints) -> str:
    """(N, R) uint16 as base64 of zlib of: R rows of the N values' differences over time, all low bytes before all high.

    Differences are small and repeat, which is what makes them short.
    """
    steps = np.diff(values.T, axis=1, prepend=np.uint16(0))  # (R, N), modulo 2^16
    planes = np.ascontiguousarray(steps, "<u2").view(np.uint8).reshape(-1, 2).T  # (2, R * N)
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()


def _sprite(layout: CorpusLayout, video_id: str, frames: Ints) -> dict[str, Any]:
    """One JPEG of the crops of these frames: a cell per frame, in rows of ``columns``, its streams side by side."""
    columns = max(1, round(math.sqrt(len(frames) / len(SIDE_BY_SIDE))))
    lines = math.ceil(len(frames) / columns)
    sprite = np.zeros((lines * TILE_PX, columns * len(SIDE_BY_SIDE) * TILE_PX, 3), np.uint8)
    with closing(CropReader()) as reader:
        for place, stream in enumerate(SIDE_BY_SIDE):
            crops = {crop.frame: crop for crop in list_crops(layout.crops(stream, video_id))}
            for cell, frame in enumerate(frames.tolist()):
                if frame in crops and (tile := _tile(crops[frame], reader)) is not None:
                    top = cell // columns * TILE_PX
                    left = (cell % columns * len(SIDE_BY_SIDE) + place) * TILE_PX
                    sprite[top : top + TILE_PX, left : left + TILE_PX] = tile
    data = cv2.imencode(".jpg", sprite, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return {"columns": columns, "sprite": f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"}


def _tile(crop: Crop, reader: CropReader) -> Pixels | None:
    """(`TILE_PX`, `TILE_PX`, 3) BGR; None of a damaged crop, which the checks report."""
    try:
        data = np.frombuffer(reader.read(crop), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_2)  # half the size, in a third of the time
    except (OSError, ValueError, cv2.error):
        return None
    if image is None or not image.size:
        return None
    return cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)


# -- What is known of a video in words, and in figures


def known_of(metadata: VideoMetadata) -> list[str]:
    """Facts about the video for people, one a line."""
    signer = metadata.signer
    motions = f"{', '.join(f'{value:.1f}' for value in signer.hand_motion)} head units per second"
    words = [
        {
            "alone": "one person",
            "hand_motion": f"of {signer.num_people} people the one whose hands move most ({motions})",
            "size": f"of {signer.num_people} people the larger one: hands do not tell ({motions})",
            "box": "the person in the box of meta.csv",
            "detector": "nobody looked for other people",
        }[signer.chosen_by]
    ]
    if metadata.face_privacy != "none":
        words.append(f"faces hidden ({metadata.face_privacy})")
    if metadata.spans_s is not None:
        words.append(f"{len(metadata.spans_s):,} annotated spans only")
    if metadata.note:
        words.append(metadata.note)
    return words


def _summary(tracks: Tracks, watched: Floats, metadata: VideoMetadata) -> ViewSummary:
    """``watched`` (T, 8, 3) is `_WATCHED` of every frame."""
    states = np.stack([tracks.streams[name].state for name in HAND_STREAMS], axis=-1)  # (T, 2)
    confidence = watched[:, :2, 2]  # (T, 2)
    unsure = (confidence > 0) & (confidence < SURE)
    places = watched[..., :2].astype(np.float64) * (metadata.width_px, metadata.height_px)  # (T, 8, 2) px
    present = watched[..., 2] > 0  # (T, 8)
    return ViewSummary(
        no_hands_ratio=_share(np.asarray((states == BoxState.MISSING).all(axis=1))),
        estimated_ratio=_share(np.asarray((states > BoxState.DETECTED).any(axis=1))),
        unsure_ratio=_share(np.asarray(unsure.any(axis=1))),
        num_swaps=_num_swaps(places, present, tracks.times_s),
        mirrored_ratio=_share(_mirrored(places, present)),
        num_people=metadata.signer.num_people,
        face_privacy=metadata.face_privacy,
        is_drawn=True,
    )


def _share(flags: Flags) -> float:
    return round(float(flags.mean()), 4) if len(flags) else 0.0


def _num_swaps(places: Floats, present: Flags, times_s: Floats) -> int:
    """Times that both hands jump to where the other one was a frame before."""
    wrists, palms_px = places[:, :2], np.linalg.norm(places[:, 2:4] - places[:, :2], axis=-1)  # (T, 2, 2), (T, 2)
    both = np.asarray(present[:, :4].all(axis=1))
    known = both[1:] & both[:-1] & (np.diff(times_s) <= SWAP_S)
    straight_px = np.linalg.norm(wrists[1:] - wrists[:-1], axis=-1).sum(axis=1)  # (T - 1,)
    crossed_px = np.linalg.norm(wrists[1:] - wrists[:-1, ::-1], axis=-1).sum(axis=1)
    is_jump = straight_px > SWAP_PALMS * palms_px[1:].mean(axis=1)
    return int((known & is_jump & (crossed_px < SWAP_RATIO * straight_px)).sum())


def _mirrored(places: Floats, present: Flags) -> Flags:
    """(T,) frames in which the sides seem to be mirrored."""
    shoulders, arms = places[:, 4:6], places[:, 6:8]
    reversed_body = present[:, 4:6].all(axis=1) & (shoulders[:, 0, 0] < shoulders[:, 1, 0])
    palms_px = np.linalg.norm(places[:, 2:4] - places[:, :2], axis=-1)  # (T, 2)
    own_px = np.linalg.norm(places[:, :2] - arms, axis=-1)
    other_px = np.linalg.norm(places[:, :2] - arms[:, ::-1], axis=-1)
    known = present[:, :2] & present[:, 2:4] & present[:, 6:8].all(axis=1, keepdims=True)
    on_other_arm = known & (own_px > ARM_PALMS * palms_px) & (other_px < own_px / 2)
    return np.asarray(reversed_body | on_other_arm.any(axis=1))
