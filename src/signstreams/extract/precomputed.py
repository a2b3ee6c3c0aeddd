"""Points that another tool found, in place of a detector: a file for each video, read whole, given frame by frame."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Self

import numpy as np

from signstreams.array_types import Flags, Floats, Ints
from signstreams.extract.detectors import MIN_CONFIDENCE, DetectorKind, VideoContext, assign_hands, missing_keypoints
from signstreams.extract.points_file import (
    BODY_NAMES,
    NUM_WHOLEBODY,
    W_FACE,
    W_HAND_L,
    W_HAND_R,
    PointsError,
    PointsFile,
    RowFinder,
    from_wholebody,
    is_sentinel,
    read_points,
    spread_rows,
)
from signstreams.extract.settings import ExtractConfig, PrecomputedConfig, points_path
from signstreams.extract.signer_tracking import BoxPx, follow, signer_slots
from signstreams.extract.video import Frame, UnreadableVideoError
from signstreams.files import sha256_file
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, MISSING, NOSE_TIP, NUM_KEYPOINTS, POSE_NAMES
from signstreams.formats.metadata import DetectorInfo, SignerInfo

PX_FROM = 2.0
"""Median of |x|, |y| from which they are px: fractions of a person in the picture stay about 1, px of 16 do not."""
MAX_OUTSIDE_RATIO = 0.5
"""Most points that may lie outside the frame."""
MAX_ASPECT_ERROR = 0.02
MIN_PART_RATIO = 0.5
"""Of the points of a hand or face of COCO-WholeBody, the least share above min_confidence: else it is guessed."""
MAX_NOSE_DISTANCE, MIN_SHOULDER_WIDTH = 0.35, 0.1
"""Between the noses of body and face mesh, and between the shoulders, over the extent of the face: .1 and 1.6 on real
clips; .6 or .02 when rows have another order."""
SHOULDERS = [POSE_NAMES.index(f"{side}_shoulder") for side in ("left", "right")]
BLOCK_ROWS = 512
"""Rows looked at together."""
MIN_PRESENCE_RATIO = 0.1
"""Of a video's rows, the least in which somebody counts as one of the people in it."""


def precomputed_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """Which file, and the digest of its content: changed points are extracted again."""
    path = points_path(config.precomputed.folder, video_id) if config.precomputed.folder else None
    settings = {"file": path.name if path else None, "sha256": _sha256(path) if path else None}
    return DetectorInfo(
        name="precomputed",
        version="1",
        settings=settings | config.precomputed.model_dump(mode="json", exclude={"folder"}),
    )


class PrecomputedDetector:
    """Gives each frame the row of the file that belongs to it.

    Attributes:
        note: After the last frame: what is amiss with the points though they are used; None when nothing is.
        signer: Whose points of several people these are.
    """

    def __init__(self, config: ExtractConfig, video: VideoContext) -> None:
        path = points_path(config.precomputed.folder, video.video_id) if config.precomputed.folder else None
        if path is None:
            raise UnreadableVideoError(f"no points of '{video.video_id}' in {config.precomputed.folder}")
        try:
            file = read_points(path)
            self._points = SignerPoints(file, config, video)
        except PointsError as error:
            raise UnreadableVideoError(str(error)) from None
        self.signer = self._points.signer
        self._aspect_ratio = video.width_px / video.height_px
        self._rows = RowFinder(file, video, is_whole=not config.spans_only)
        self.note: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *rest: object) -> None:
        """Raises `UnreadableVideoError` when all frames were seen, and the points are of another length than they."""
        if kind is None:
            try:
                self.note = self._rows.check()
            except PointsError as error:
                raise UnreadableVideoError(str(error)) from None

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`."""
        row = self._rows.row(frame)
        if row is None:
            return missing_keypoints()
        points = self._points.row(row)
        return assign_hands(from_wholebody(points) if len(points) == NUM_WHOLEBODY else points, self._aspect_ratio)


PRECOMPUTED = DetectorKind(precomputed_info, PrecomputedDetector, sees_pixels=False)


class SignerPoints:
    """The signer's points, in our units and with our sentinel, row by row.

    Args:
        file: The points of all people.
        config: Units, least confidence, choice of the signer.
        video: Whose frames they belong to.

    Attributes:
        signer: Who of how many people that is.

    Raises:
        PointsError: When they cannot belong to this video's frames.
    """

    def __init__(self, file: PointsFile, config: ExtractConfig, video: VideoContext) -> None:
        self._file, self._config = file, config.precomputed
        self._is_wholebody = file.num_points == NUM_WHOLEBODY
        some = spread_rows(len(file.array))
        self._unscored = self._unscored_parts(some)
        points, _, present = self._read(some)
        if not present.any():
            least = config.precomputed.min_confidence if self._is_wholebody else 0
            raise PointsError(f"{file.path}: every point is missing, or below a confidence of {least}")
        self._scale = _scale(file, points[present], config.precomputed, video)
        _check_inside(file, points[present] / self._scale, video)
        self._slots, self.signer = self._choose(config, video)
        if not self._is_wholebody:
            _check_order(file, np.array([self.row(row) for row in range(len(file.array))[some]]), video)

    def row(self, row: int) -> Floats:
        """(J, 3) float32."""
        points, confidence, present = (part[0] for part in self._read(slice(row, row + 1)))
        slot = self._slots[row]
        result: Floats = np.concatenate(
            [points[slot] / self._scale, confidence[slot, :, None].clip(MIN_CONFIDENCE, 1)], axis=-1
        )
        result[~present[slot] if slot >= 0 else slice(None)] = MISSING
        return result

    def _read(self, rows: slice) -> tuple[Floats, Floats, Flags]:
        """(N, P, J, 2) as written, (N, P, J) confidence, (N, P, J) whether the point counts as found."""
        points, confidence = self._file.take(rows)
        for part in self._unscored:
            confidence[..., part] = (points[:, :, part] != 0).any(axis=-1)
        present = ~is_sentinel(points) & (confidence > 0)  # NaN is not above 0 either
        if self._is_wholebody:
            present &= confidence >= self._config.min_confidence
            _drop_guessed_parts(present)
        return points, confidence, present

    def _unscored_parts(self, some: slice) -> list[slice]:
        """Parts of MediaPipe's points whose confidence is 0 throughout: it has none for them, and exporters write 0."""
        if self._is_wholebody:
            return []
        _, confidence = self._file.take(some)
        return [part for part in (FACE, HAND_L, HAND_R) if not (confidence[..., part] > 0).any()]

    def _choose(self, config: ExtractConfig, video: VideoContext) -> tuple[Ints, SignerInfo]:
        """(T,) slot of the signer in each row, -1 where there is none; and how she was chosen."""
        num_rows, num_people = self._file.array.shape[:2]
        if num_people == 1 or (config.signer.choose == "none" and video.box is None):
            return np.zeros(num_rows, int), SignerInfo(chosen_by="detector")
        names = BODY_NAMES if self._is_wholebody else POSE_NAMES
        joints = [names.index(f"{side}_{part}") for part in ("shoulder", "wrist") for side in ("left", "right")]
        seen = np.empty((num_rows, num_people, 4, 2))  # px
        for start in range(0, num_rows, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            points, _, present = self._read(rows)
            seen[rows] = np.where(present[:, :, joints, None], points[:, :, joints] / self._scale, np.nan)
        return choose_signer(seen * (video.width_px, video.height_px), video.box)


def _drop_guessed_parts(present: Flags) -> None:
    for part in (W_FACE, W_HAND_L, W_HAND_R):
        present[..., part] &= present[..., part].mean(axis=-1, keepdims=True) >= MIN_PART_RATIO


def _scale(file: PointsFile, found: Floats, config: PrecomputedConfig, video: VideoContext) -> Floats:
    """(2,) what x and y are to be divided by; ``found`` (N, 2) are points as written."""
    is_px = file.is_px
    if config.units != "auto":
        is_px = config.units == "px"
    elif is_px is None:
        is_px = bool(np.median(np.abs(found)) > PX_FROM)
    if not is_px:
        return np.ones(2, np.float32)
    if file.size_px is None:
        return np.array([video.width_px, video.height_px], np.float32)
    width, height = file.size_px
    if not math.isclose(width / height, video.width_px / video.height_px, rel_tol=MAX_ASPECT_ERROR):
        raise PointsError(
            f"{file.path}: the points are of a frame of {width:g}x{height:g} px, but the upright video is "
            f"{video.width_px}x{video.height_px}; find them in the upright video"
        )
    return np.array(file.size_px, np.float32)


def _check_inside(file: PointsFile, fractions: Floats, video: VideoContext) -> None:
    outside = ((fractions < 0) | (fractions > 1)).any(axis=-1).mean()
    if outside > MAX_OUTSIDE_RATIO:
        reach = fractions.max(axis=0) * (video.width_px, video.height_px)
        raise PointsError(
            f"{file.path}: {outside:.0%} of the points lie outside the frame of {video.width_px}x{video.height_px} px "
            f"(they reach {reach[0]:.0f}, {reach[1]:.0f}); set precomputed.units, or store width_px and height_px"
        )


def choose_signer(seen: Floats, box: BoxPx | None) -> tuple[Ints, SignerInfo]:
    """Of several people.

    Args:
        seen: (T, P, 4, 2) left and right shoulder, left and right wrist, px; NaN where missing.
        box: Of meta.csv.

    Returns:
        (T,) slot of the signer in each row, -1 where there is none; and how she was chosen.
    """
    left, right, wrists = seen[:, :, 0], seen[:, :, 1], seen[:, :, 2:]
    middles = (left + right) / 2
    people = follow(middles, wrists, np.maximum(np.linalg.norm(left - right, axis=-1) / 2, 1.0))
    slots = signer_slots(people, middles, box)
    at_hand = [person for person in people if len(person.slots) >= MIN_PRESENCE_RATIO * len(slots)]
    if len(at_hand) < 2 and box is None:
        return slots, SignerInfo(chosen_by="alone", num_people=len(at_hand))
    at_hand.sort(key=lambda person: np.mean([middles[row, slot, 0] for row, slot in person.slots.items()]))
    motion = [round(person.motion / max(len(person.slots), 1), 3) for person in at_hand]
    chosen_by = "hand_motion" if box is None else "box"
    return slots, SignerInfo(chosen_by=chosen_by, num_people=len(at_hand), hand_motion=motion)


def _check_order(file: PointsFile, some: Floats, video: VideoContext) -> None:
    """Rows in another order (the face first, as in some data sets) put noses apart, or shoulders on one spot."""
    px = np.where(some[..., 2:] > 0, some[..., :2], np.nan) * (video.width_px, video.height_px)  # (T', 543, 2)
    nose, shoulders, face = px[:, 0], px[:, SHOULDERS], px[:, FACE]
    known = ~np.isnan(nose[:, 0]) & ~np.isnan(face[:, NOSE_TIP, 0]) & ~np.isnan(shoulders[..., 0]).any(axis=1)
    if not known.any():
        return
    face = face[known]
    extent = np.maximum((np.nanmax(face, axis=1) - np.nanmin(face, axis=1)).max(axis=-1), 1e-6)
    noses = np.median(np.linalg.norm(nose[known] - face[:, NOSE_TIP], axis=-1) / extent)
    width = np.median(np.linalg.norm(shoulders[known, 0] - shoulders[known, 1], axis=-1) / extent)
    if noses > MAX_NOSE_DISTANCE or width < MIN_SHOULDER_WIDTH:
        raise PointsError(
            f"{file.path}: the {NUM_KEYPOINTS} points seem to be in another order (noses of body and face are "
            f"{noses:.2f} faces apart, shoulders {width:.2f}), expected pose 33, face 468, left hand 21, right hand 21"
        )


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _sha256_of(path: Path, num_bytes: int, mtime_ns: int) -> str:
    return sha256_file(path)
