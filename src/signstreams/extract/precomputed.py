"""A detector that reads the points another tool found: their rows, units and signer matched to the video."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

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
    from_wholebody,
    is_sentinel,
    read_points,
    spread_rows,
)
from signstreams.extract.settings import ExtractConfig, PrecomputedConfig, points_path
from signstreams.extract.video import Frame, UnreadableVideoError
from signstreams.files import sha256_file
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, MISSING, NOSE_TIP, NUM_KEYPOINTS, POSE_NAMES
from signstreams.formats.video_metadata import DetectorInfo, SignerInfo


def precomputed_info(config: ExtractConfig, video_id: str) -> DetectorInfo:
    """File and digest of its content: a video with changed points is extracted again."""
    path = points_path(config.precomputed.folder, video_id)
    settings: dict[str, Any] = {"file": None, "sha256": None}
    if path is not None:
        status = path.stat()
        settings = {"file": path.name, "sha256": _sha256(path, status.st_size, status.st_mtime_ns)}
    settings |= config.precomputed.model_dump(mode="json", exclude={"folder"})
    return DetectorInfo(name="precomputed", version="1", settings=settings)


@functools.lru_cache(maxsize=4)
def _sha256(path: Path, num_bytes: int, mtime_ns: int) -> str:
    return sha256_file(path)


class PrecomputedDetector:
    """Gives each frame its row of the file."""

    def __init__(self, config: ExtractConfig, video: VideoContext) -> None:
        path = points_path(config.precomputed.folder, video.video_id)
        if path is None:
            raise UnreadableVideoError(f"no points of '{video.video_id}' in {config.precomputed.folder}")
        file = read_points(path)
        self._points = SignerPoints(file, config, video)
        self.signer = self._points.signer
        self._aspect_ratio = video.width_px / video.height_px
        self._rows = RowFinder(file, video, is_whole=not config.spans_only)
        self.note: str | None = None  # after the last frame: faults of points that are used all the same

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *rest: object) -> None:
        """Raises `PointsError` when all frames were read and the points are of another length."""
        if kind is None:
            self.note = self._rows.check()

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`."""
        row = self._rows.row(frame)
        if row is None:
            return missing_keypoints()
        points = self._points.row(row)
        return assign_hands(from_wholebody(points) if len(points) == NUM_WHOLEBODY else points, self._aspect_ratio)


PRECOMPUTED = DetectorKind(precomputed_info, PrecomputedDetector, sees_pixels=False)


# -- Rows to frames

MAX_RATE_ERROR = 0.005  # relative difference up to which two rates are equal: 29.97 and 30
SAME_LENGTH_RATIO = 0.01
"""If rows and frames are equal in number to this share, rows belong to frames and the file's rate is
ignored: many tools write a default rate, or a rounded one."""
MAX_LENGTH_RATIO, MIN_LENGTH_ROWS = 0.05, 2
"""Largest difference between the numbers of rows and frames, as a share and in rows."""
_EPS = 1e-6  # timestamps are sums of rounded steps


class RowFinder:
    """Finds each frame's row: by number, or by time where the file states times or a rate of its own.

    ``is_whole`` says that the whole video will be read, so that rows without a frame are too many.
    """

    def __init__(self, file: PointsFile, video: VideoContext, *, is_whole: bool) -> None:
        self._file, self._video, self._is_whole = file, video, is_whole
        self._num_rows = len(file.array)
        self._by_number = file.times_s is None and (file.fps is None or self._rates_agree(file.fps))
        self._rate_hz = (file.fps if not self._by_number else None) or video.fps
        self._max_away_s = 0.5
        if file.times_s is not None and self._num_rows > 1:
            self._max_away_s = 0.75 * float(np.median(np.diff(file.times_s)))
        self._offset_s: float | None = None
        self._num_frames = self._num_without = 0
        self._last_row = -1  # highest row of any frame, whether it exists or not
        self._step = 0  # most rows between consecutive frames: they may be sampled at a lower rate

    def row(self, frame: Frame) -> int | None:
        """Row of the frame; None when the file has none for it."""
        if self._file.times_s is not None:
            found = self._nearest(self._file.times_s, frame.time_s)
        elif self._by_number:
            found = frame.source_index
        else:
            found = self._at_rate(frame)
        self._num_frames += 1
        if found is not None and self._last_row >= 0:
            self._step = max(self._step, found - self._last_row)
        self._last_row = max(self._last_row, -1 if found is None else found)
        if found is None or not 0 <= found < self._num_rows:
            self._num_without += 1
            return None
        return found

    def check(self) -> str | None:
        """After the last frame: a note on frames without a row; None if all have one.

        Raises:
            PointsError: Rows and frames differ too much in number to belong together.
        """
        if not self._num_frames:
            return None
        path, without = self._file.path, self._num_without
        note = f"{path.name} has no row for {without} of {self._num_frames} frames" if without else None
        if self._file.times_s is not None:
            if without == self._num_frames:
                raise PointsError(f"{path}: no row is at the time of a frame; expected seconds of the video in times_s")
            return note
        slack = max(MIN_LENGTH_ROWS, self._step)
        is_short = without > max(MIN_LENGTH_ROWS, MAX_LENGTH_RATIO * self._num_frames)
        left_over = self._num_rows - 1 - self._last_row
        is_long = self._is_whole and left_over > max(slack, MAX_LENGTH_RATIO * self._num_rows)
        if is_short or is_long:
            frames = self._last_row + 1
            unit = "frames" if self._by_number else f"frames at the file's {self._rate_hz:g} per second"
            raise PointsError(
                f"{path}: found {self._num_rows} rows, expected about {frames} as the video has {unit}; "
                "find the points in this very video, or store fps or times_s with them"
            )
        return note

    def _rates_agree(self, fps: float) -> bool:
        """Whether rows are frames: they have the video's rate, or at least its number of frames."""
        video = self._video
        if not video.fps or abs(fps - video.fps) <= MAX_RATE_ERROR * video.fps:
            return True
        declared = round(video.fps * video.duration_s) if video.duration_s else 0
        return abs(self._num_rows - declared) <= max(1, SAME_LENGTH_RATIO * declared)

    def _at_rate(self, frame: Frame) -> int:
        """Row by time, counted from the first frame, which need not be at 0 s."""
        if self._offset_s is None:  # the video's rate is known, as it differs from the file's
            self._offset_s = frame.time_s - frame.source_index / self._video.fps
        place = (frame.time_s - self._offset_s) * self._rate_hz
        nearest = int(np.ceil(place - 0.5 - _EPS))  # halfway between two, the earlier: it shows until the later comes
        return min(nearest, self._num_rows - 1) if place < self._num_rows - _EPS else nearest  # the last shows on

    def _nearest(self, times_s: Floats, time_s: float) -> int | None:
        after = int(np.searchsorted(times_s, time_s))
        choices = [row for row in (after - 1, after) if 0 <= row < len(times_s)]
        best = min(choices, key=lambda row: abs(times_s[row] - time_s))
        return best if abs(times_s[best] - time_s) <= self._max_away_s else None


# -- Points of a row

PX_FROM = 2.0
"""Median of |x|, |y| from which they are px: fractions of a person in the picture stay near 1, px of 16 do not."""
MAX_OUTSIDE_RATIO = 0.5  # largest share of points that may be outside the frame
MAX_ASPECT_ERROR = 0.02
MIN_PART_RATIO = 0.5
"""Least share of a hand's or face's points of COCO-WholeBody above min_confidence: with fewer, the part is a guess."""
MAX_NOSE_DISTANCE, MIN_SHOULDER_WIDTH = 0.35, 0.1
"""Distance between the noses of body and face mesh, and shoulder width, over the extent of the face: .1 and 1.6 on real
clips; .6 or .02 when rows are in another order."""
SHOULDERS = [POSE_NAMES.index(f"{side}_shoulder") for side in ("left", "right")]
BLOCK_ROWS = 512  # rows processed together


_NUMBERS_OF_ANY_KIND = np.errstate(over="ignore", invalid="ignore")
"""Points that are missing may be NaN or infinite: NumPy would warn of each."""


class SignerPoints:
    """The signer's points row by row, as fractions of the frame, `MISSING` where not found.

    Raises:
        PointsError: The points cannot belong to this video.
    """

    @_NUMBERS_OF_ANY_KIND
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

    @_NUMBERS_OF_ANY_KIND
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
            for part in (W_FACE, W_HAND_L, W_HAND_R):
                present[..., part] &= present[..., part].mean(axis=-1, keepdims=True) >= MIN_PART_RATIO
        return points, confidence, present

    def _unscored_parts(self, some: slice) -> list[slice]:
        """Parts of MediaPipe's points with confidence 0 throughout: it gives them none, and exporters write 0."""
        if self._is_wholebody:
            return []
        _, confidence = self._file.take(some)
        return [part for part in (FACE, HAND_L, HAND_R) if not (confidence[..., part] > 0).any()]

    def _choose(self, config: ExtractConfig, video: VideoContext) -> tuple[Ints, SignerInfo]:
        """(T,) slot of the signer in each row, -1 where there is none; and how the signer was chosen."""
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


def _scale(file: PointsFile, found: Floats, config: PrecomputedConfig, video: VideoContext) -> Floats:
    """(2,) divisors of x and y that give fractions of the frame; ``found`` (N, 2) are points as written."""
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


def _check_order(file: PointsFile, some: Floats, video: VideoContext) -> None:
    """Refuse rows in another order (such as the face first): noses would be apart, or shoulders in one place."""
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


# -- The signer among several people

MIN_PRESENCE_RATIO = 0.1  # least share of a video's rows in which somebody must be to count as one of the people in it
MAX_STEP = 3.0  # largest distance that a person moves between rows, or across a gap, in half shoulder distances
MAX_WRIST_STEP = 1.0
"""Largest motion counted per frame, in the same unit: a wrist that jumps farther is a wrong detection."""

BoxPx = tuple[float, float, float, float]


@dataclass
class TrackedPerson:
    """One person, followed over the video."""

    slots: dict[int, int] = field(default_factory=dict)  # row to the person's slot in it
    middles: list[Floats] = field(default_factory=list)  # (2,) middle of the shoulders per row, px
    motion: float = 0.0  # path length of the wrists relative to the shoulders, in half shoulder distances
    _wrists: Floats | None = None
    _last_row: int = -1

    def add(self, row: int, slot: int, middle: Floats, wrists: Floats, unit_px: float) -> None:
        """Add a sighting in a slot of a row: (2,) middle, (2, 2) wrists, NaN where missing."""
        wrists = (wrists - middle) / unit_px
        if self._wrists is not None and self._last_row == row - 1:
            way = np.linalg.norm(wrists - self._wrists, axis=-1)
            self.motion += float(np.minimum(way[~np.isnan(way)], MAX_WRIST_STEP).sum())
        self.slots[row], self._wrists, self._last_row = slot, wrists, row
        self.middles.append(middle)

    def rows_inside(self, box: BoxPx) -> int:
        """Number of rows in which the person's middle is in the box."""
        middles = np.array(self.middles)
        return int(((middles >= box[:2]) & (middles <= box[2:])).all(axis=-1).sum())


def follow(middles: Floats, wrists: Floats, units_px: Floats) -> list[TrackedPerson]:
    """Link slots to people over time: in each row, the nearest pairs of person and slot are joined.

    Detectors list the people of each frame in any order. Given are the middle of the shoulders (T, P, 2), both wrists
    (T, P, 2, 2) and half the shoulder distance (T, P) in px, NaN where a slot is empty.
    """
    people: list[TrackedPerson] = []
    for row in range(len(middles)):
        free = [slot for slot in range(middles.shape[1]) if not np.isnan(middles[row, slot]).any()]
        pairs = sorted(
            (float(np.linalg.norm(middles[row, slot] - person.middles[-1])) / units_px[row, slot], index, slot)
            for index, person in enumerate(people)
            for slot in free
        )
        owners: dict[int, int] = {}  # slot to person
        for distance, index, slot in pairs:
            if distance <= MAX_STEP and slot not in owners and index not in owners.values():
                owners[slot] = index
        for slot in free:
            if slot not in owners:
                owners[slot] = len(people)
                people.append(TrackedPerson())
            people[owners[slot]].add(row, slot, middles[row, slot], wrists[row, slot], units_px[row, slot])
    return people


def choose_signer(seen: Floats, box: BoxPx | None) -> tuple[Ints, SignerInfo]:
    """Choose the signer: the person most often in the box of meta.csv; without one, whose wrists move most.

    ``seen`` is (T, P, 4, 2): left and right shoulder, left and right wrist, px; NaN where missing. Returns the signer's
    slot in each row, (T,), -1 where there is none; and how the signer was chosen.
    """
    left, right, wrists = seen[:, :, 0], seen[:, :, 1], seen[:, :, 2:]
    middles = (left + right) / 2
    people = follow(middles, wrists, np.maximum(np.linalg.norm(left - right, axis=-1) / 2, 1.0))
    slots = np.full(len(seen), -1)
    if people:
        chosen = max(people, key=lambda person: (person.rows_inside(box) if box else 0, person.motion))
        slots[list(chosen.slots)] = list(chosen.slots.values())
    present = [person for person in people if len(person.slots) >= MIN_PRESENCE_RATIO * len(slots)]
    if len(present) < 2 and box is None:
        return slots, SignerInfo(chosen_by="alone", num_people=len(present))
    present.sort(key=lambda person: np.mean([middle[0] for middle in person.middles]))
    motion = [round(person.motion / max(len(person.slots), 1), 3) for person in present]
    chosen_by = "hand_motion" if box is None else "box"
    return slots, SignerInfo(chosen_by=chosen_by, num_people=len(present), hand_motion=motion)
