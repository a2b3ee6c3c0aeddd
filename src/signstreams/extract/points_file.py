"""Files of points found by another tool: NumPy arrays and .pose files, 543 or 133 points, matched to the video's frames."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pose_format import Pose

from signstreams.array_types import Array, Flags, Floats, Ints
from signstreams.extract.detectors import VideoContext
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import (
    FACE,
    HAND_L,
    HAND_NAMES,
    HAND_R,
    IBUG_68,
    MISSING,
    NUM_FACE,
    NUM_KEYPOINTS,
    POSE_NAMES,
    pose_index,
)

# From the 133 points of COCO-WholeBody to the 543: every point goes to the row that means the same place.
#
# Order of the 133 (jin-s13/COCO-WholeBody): body 17, feet 6, face 68, left hand 21, right hand 21; sides are anatomical.
# The hands' joints have MediaPipe's order: wrist, then thumb to little finger, each from palm to tip.

BODY_NAMES = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist") for side in ("left", "right")),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
)
FOOT_NAMES = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
NUM_WHOLEBODY = 133

W_BODY, W_FEET, W_FACE = slice(0, 17), slice(17, 23), slice(23, 91)
W_HAND_L, W_HAND_R = slice(91, 112), slice(112, 133)

_SAME_PLACE = {"big_toe": "foot_index", "heel": "heel"}  # the small toe has no row


def _rows() -> tuple[Ints, Ints]:
    """Of the 133 and of the 543: points that mean the same."""
    pairs = [(index, pose_index(name)) for index, name in enumerate(BODY_NAMES)]
    for index, name in enumerate(FOOT_NAMES, W_FEET.start):
        side, part = name.split("_", 1)
        if part in _SAME_PLACE:
            pairs.append((index, pose_index(f"{side}_{_SAME_PLACE[part]}")))
    pairs += zip(range(W_FACE.start, W_FACE.stop), (FACE.start + IBUG_68).tolist(), strict=True)
    for source, target in ((W_HAND_L, HAND_L), (W_HAND_R, HAND_R)):
        pairs += zip(range(source.start, source.stop), range(target.start, target.stop), strict=True)
    return tuple(np.array(pairs).T)


SOURCE_ROWS, TARGET_ROWS = _rows()


def from_wholebody(points: Floats) -> Floats:
    """(..., 133, 3) x, y, confidence to (..., 543, 3) float32; rows that 133 points say nothing of are missing."""
    result = np.empty((*points.shape[:-2], NUM_KEYPOINTS, 3), np.float32)
    result[...] = MISSING
    result[..., TARGET_ROWS, :] = points[..., SOURCE_ROWS, :]
    return result


# Files of points that another tool found: NumPy arrays here, .pose files in `pose_file`.

LAYOUTS = f"{NUM_KEYPOINTS} (MediaPipe) or {NUM_WHOLEBODY} (COCO-WholeBody) points"
MAX_DEPTH_RATIO = 0.1
"""Share of negative third values from which MediaPipe's are depths: a confidence is never negative."""


class PointsError(ValueError):
    """A file of points cannot be used; the message is one line that names the file."""


@dataclass(frozen=True)
class PointsFile:
    """Points as a tool wrote them. T rows, P people, J points. They stay as they are on disk or in memory: an hour of
    video has 100,000 rows.

    Attributes:
        path: The file.
        array: (T, P, K, 2 or more) numbers, x and y first.
        scores: (T, P, K) confidence; None when the file has none.
        columns: (J,) which of the K is each of the 543 or 133 points, -1 for none; None where K is J.
        is_px: Whether the file says that x and y are px; None when it does not say.
        fps: Rows a second; None when it does not say.
        times_s: (T,) time of each row; None likewise.
        size_px: Width and height of the frame that the points belong to; None likewise.
    """

    path: Path
    array: Array
    scores: Floats | None
    columns: Ints | None = None
    is_px: bool | None = None
    fps: float | None = None
    times_s: Floats | None = None
    size_px: tuple[float, float] | None = None

    @property
    def num_points(self) -> int:
        """J: 543 or 133."""
        return self.array.shape[2] if self.columns is None else len(self.columns)

    def take(self, rows: slice) -> tuple[Floats, Floats]:
        """(N, P, J, 2) x, y and (N, P, J) confidence, float32; without scores it is 1, and 0 for points at 0, 0."""
        points = self.array[rows, :, :, :2].astype(np.float32)
        if self.scores is None:
            confidence = (points != 0).any(axis=-1).astype(np.float32)
        else:
            confidence = self.scores[rows].astype(np.float32)
        if self.columns is not None:
            points, confidence = points[:, :, self.columns], confidence[:, :, self.columns]
            confidence[:, :, self.columns < 0] = 0
        return points, confidence


def read_points(path: Path) -> PointsFile:
    """Read by ending.

    Raises:
        PointsError: When it holds something else.
        OSError: When it cannot be opened.
    """
    if path.suffix == ".pose":
        return read_pose_file(path)
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)  # an npz is read, an npy left on the disk
        if isinstance(loaded, np.ndarray):
            return _points_file(path, _numbers(path, "the array", loaded))
        with loaded:
            return _from_npz(path, loaded)
    except PointsError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise PointsError(
                f"{path}: holds Python objects, expected numbers; write it with np.save and dtype float32"
            ) from None
        raise PointsError(f"{path}: is no {path.suffix} file that NumPy can read ({error})") from None


def _from_npz(path: Path, loaded: np.lib.npyio.NpzFile) -> PointsFile:
    names = loaded.files
    extra = {"fps", "times_s", "width_px", "height_px", "scores", "confidence"}
    arrays = [name for name in names if name not in extra]
    if "keypoints" in names:
        name = "keypoints"
    elif len(arrays) == 1:
        name = arrays[0]
    else:
        raise PointsError(f"{path}: holds {names}, expected 'keypoints' or a single array of points")
    scores = [name for name in ("scores", "confidence") if name in names]
    if len(scores) == 2:
        raise PointsError(f"{path}: holds 'scores' and 'confidence', expected one of them")
    value = {key: _number(path, key, loaded[key]) for key in ("fps", "width_px", "height_px") if key in names}
    if ("width_px" in value) != ("height_px" in value):
        raise PointsError(f"{path}: holds only one of width_px and height_px, expected both or neither")
    return _points_file(
        path,
        _numbers(path, f"'{name}'", loaded[name]),
        scores=_numbers(path, f"'{scores[0]}'", loaded[scores[0]]) if scores else None,
        fps=value.get("fps"),
        times_s=_numbers(path, "'times_s'", loaded["times_s"]) if "times_s" in names else None,
        size_px=(value["width_px"], value["height_px"]) if "width_px" in value else None,
    )


def _points_file(
    path: Path,
    array: Array,
    *,
    scores: Floats | None = None,
    fps: float | None = None,
    times_s: Floats | None = None,
    size_px: tuple[float, float] | None = None,
) -> PointsFile:
    has_layout = array.ndim in (3, 4) and array.shape[-2] in (NUM_KEYPOINTS, NUM_WHOLEBODY)
    if not has_layout or array.shape[-1] not in (2, 3, 4) or 0 in array.shape[:-2]:
        raise PointsError(
            f"{path}: the points are {array.shape}, expected (rows, points, values) or (rows, people, points, values) "
            f"with {LAYOUTS} of 2 to 4 values: x, y, perhaps z, perhaps a confidence"
        )
    if array.ndim == 3:
        array = array[:, None]
    if scores is not None:
        scores = scores[..., 0] if scores.ndim > 2 and scores.shape[-1] == 1 else scores
        scores = scores[:, None] if scores.ndim == 2 else scores
        if scores.shape != array.shape[:3]:
            raise PointsError(f"{path}: scores are {scores.shape}, expected {array.shape[:3]} as the points")
    elif array.shape[-1] == 4 or (array.shape[-1] == 3 and not _is_depth(array)):
        scores = array[..., -1]
    if times_s is not None:
        times_s = times_s.astype(np.float64)
        is_rising = times_s.shape == (len(array),) and np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()
        if not is_rising:
            raise PointsError(f"{path}: times_s is {times_s.shape}, expected {len(array)} rising times, one a row")
    return PointsFile(path, array, scores, fps=fps, times_s=times_s, size_px=size_px)


def _is_depth(array: Array) -> bool:
    """Whether the third of three values is MediaPipe's depth, which is negative for much of a body."""
    if array.shape[-2] != NUM_KEYPOINTS:
        return False
    some = array[spread_rows(len(array))]
    third = some[..., 2][~is_sentinel(some[..., :2])]
    return bool((third < 0).mean() > MAX_DEPTH_RATIO) if len(third) else False


def spread_rows(num_rows: int) -> slice:
    """About a thousand rows, or all, spread over the video: enough to tell how a file is written."""
    return slice(None, None, max(1, num_rows // 1000))


def is_sentinel(points: Floats) -> Flags:
    """(...,) whether (..., 2) x, y stand for no point: NaN, infinite, or -1, -1 in either unit."""
    absent: Flags = ~np.isfinite(points).all(axis=-1) | (points == -1).all(axis=-1)
    return absent


def _numbers(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind not in "fiu":
        raise PointsError(f"{path}: {name} holds {array.dtype}, expected numbers")
    return array


def _number(path: Path, name: str, array: Array) -> float:
    value = float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else np.nan
    if not (np.isfinite(value) and value > 0):
        raise PointsError(f"{path}: '{name}' is {str(array)[:40]}, expected one number above 0")
    return value


# Read .pose files through sign-language-processing/pose (pose-format), whose import is light: NumPy and tqdm.

MEDIAPIPE = ("POSE_LANDMARKS", "FACE_LANDMARKS", "LEFT_HAND_LANDMARKS", "RIGHT_HAND_LANDMARKS")
COCO = ("BODY", "FACE", "LEFT_HAND", "RIGHT_HAND")  # AlphaPose appends _133
OPENPOSE = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
FAMILIES = (MEDIAPIPE, COCO, OPENPOSE)


def read_pose_file(path: Path) -> PointsFile:
    """Points of all people; x and y in px of the header's frame, z dropped, confidence 0 where nothing was found.

    Raises:
        PointsError: When pose-format cannot read it, or it holds other components.
        OSError: When it cannot be opened.
    """
    data = path.read_bytes()
    try:
        pose = Pose.read(data)
    except Exception as error:  # struct, Unicode, Value, Zero: whatever random bytes bring about in its reader
        reason = f"{type(error).__name__}: {error}"
        raise PointsError(f"{path}: is no .pose file that pose-format can read ({reason})") from None
    family, targets = _targets(path, pose.header.components)
    num_frames, num_people = pose.body.confidence.shape[:2]
    if 0 in (num_frames, num_people):
        raise PointsError(f"{path}: holds {num_frames} frames of {num_people} people, expected some")
    columns = np.full(NUM_KEYPOINTS if family is MEDIAPIPE else NUM_WHOLEBODY, -1)
    for column, row in enumerate(targets):
        if row is not None:
            columns[row] = column
    size = pose.header.dimensions
    return PointsFile(
        path,
        pose.body.data.data,
        pose.body.confidence,
        columns,
        is_px=True,
        fps=float(pose.body.fps) if pose.body.fps and pose.body.fps > 0 else None,
        size_px=(size.width, size.height) if size.width and size.height else None,
    )


def _targets(path: Path, components: list[Any]) -> tuple[tuple[str, ...], list[int | None]]:
    """Family of the components, and for each point of the file its row among the 543 or 133; None for none."""
    names = [component.name.removesuffix("_133") for component in components]
    family = next((family for family in FAMILIES if family[0] in names), None)
    if family is None:
        known = " or ".join(known[0] for known in FAMILIES)
        raise PointsError(
            f"{path}: holds the components {names}, expected those of MediaPipe Holistic, COCO-WholeBody or OpenPose, "
            f"with a body: {known}"
        )
    targets: list[int | None] = []
    for name, component in zip(names, components, strict=True):
        part = family.index(name) if name in family else None  # POSE_WORLD_LANDMARKS has no place in the frame
        for index, point in enumerate(component.points):
            targets.append(None if part is None else _ROW_OF[family][part](index, str(point)))
    return family, targets


def _holistic_body(index: int, point: str) -> int | None:
    name = point.lower()
    return POSE_NAMES.index(name) if name in POSE_NAMES else None


def _holistic_face(index: int, point: str) -> int | None:
    """Points are named by their number, so that a face reduced to some of them can be told; irises come after 467."""
    return FACE.start + int(point) if point.isdigit() and int(point) < NUM_FACE else None


def _holistic_hand(start: int) -> Any:
    def row(index: int, point: str) -> int | None:
        name = point.lower().replace("_finger_", "_")
        return start + HAND_NAMES.index(name) if name in HAND_NAMES else None

    return row


_COCO_ROWS = {name: index for index, name in enumerate(BODY_NAMES)} | {
    name: index for index, name in enumerate(FOOT_NAMES, W_FEET.start)
}
_OPENPOSE_PARTS = {"BigToe": "big_toe", "SmallToe": "small_toe"}


def _coco_body(index: int, point: str) -> int | None:
    return _COCO_ROWS.get(point)


def _openpose_body(index: int, point: str) -> int | None:
    """LShoulder and the like; neck and the middle of the hips have no row."""
    side = {"L": "left_", "R": "right_"}.get(point[:1], "")
    part = point[1:] if side else point
    return _COCO_ROWS.get(side + _OPENPOSE_PARTS.get(part, part.lower()))


def _in_order(part: slice) -> Any:
    """The same points in the same order; what comes after them (OpenPose's pupils) has no row."""

    def row(index: int, point: str) -> int | None:
        return part.start + index if index < part.stop - part.start else None

    return row


_ROW_OF = {
    MEDIAPIPE: (_holistic_body, _holistic_face, _holistic_hand(HAND_L.start), _holistic_hand(HAND_R.start)),
    COCO: (_coco_body, _in_order(W_FACE), _in_order(W_HAND_L), _in_order(W_HAND_R)),
    OPENPOSE: (_openpose_body, _in_order(W_FACE), _in_order(W_HAND_L), _in_order(W_HAND_R)),
}


# Which row of a file of points belongs to which frame, and whether file and video are of one length.

MAX_RATE_ERROR = 0.005
"""Up to which two rates are one: 29.97 and 30."""
SAME_LENGTH_RATIO = 0.01
"""Rows that number the frames of the video to this share belong to frames, whatever rate the file states: many tools
write a default, or a rounded one."""
MAX_LENGTH_RATIO, MIN_LENGTH_ROWS = 0.05, 2
"""Most that rows and frames may differ in number."""
_EPS = 1e-6  # timestamps are sums of rounded steps


class RowFinder:
    """Rows of one video's frames: by number, or by time where the file brings times or a rate of its own.

    Args:
        file: The points.
        video: What the video declares.
        is_whole: Whether all of the video is going to be read, so that rows that no frame asks for are too many.
    """

    def __init__(self, file: PointsFile, video: VideoContext, *, is_whole: bool) -> None:
        self._file, self._video, self._is_whole = file, video, is_whole
        self._num_rows = len(file.array)
        self._by_number = file.times_s is None and (file.fps is None or self._rates_agree(file.fps))
        self._rate_hz = (file.fps if not self._by_number else None) or video.fps
        self._max_away_s = (
            0.75 * float(np.median(np.diff(file.times_s))) if file.times_s is not None and self._num_rows > 1 else 0.5
        )
        self._offset_s: float | None = None
        self._num_asked = self._num_without = 0
        self._last_asked = -1  # highest row that a frame belongs to, whether it exists or not
        self._step = 0  # most rows between two frames that follow each other: frames are taken at a lower rate

    @property
    def _is_timed(self) -> bool:
        return self._file.times_s is not None

    def row(self, frame: Frame) -> int | None:
        """Row of the frame; None when the file has none for it."""
        if self._is_timed:
            asked = self._nearest(frame.time_s)
        elif self._by_number:
            asked = frame.source_index
        else:
            asked = self._at_rate(frame)
        self._num_asked += 1
        if asked is not None and self._last_asked >= 0:
            self._step = max(self._step, asked - self._last_asked)
        self._last_asked = max(self._last_asked, -1 if asked is None else asked)
        if asked is None or not 0 <= asked < self._num_rows:
            self._num_without += 1
            return None
        return asked

    def check(self) -> str | None:
        """After the last frame: a note on frames without a row, None when there are none.

        Raises:
            PointsError: When rows and frames differ too much in number for the rows to be of these frames.
        """
        if not self._num_asked:
            return None
        path, without = self._file.path, self._num_without
        note = f"{path.name} has no row for {without} of {self._num_asked} frames" if without else None
        if self._is_timed:
            if without == self._num_asked:
                raise PointsError(f"{path}: no row is at the time of a frame; expected seconds of the video in times_s")
            return note
        slack = max(MIN_LENGTH_ROWS, self._step)
        is_short = without > max(MIN_LENGTH_ROWS, MAX_LENGTH_RATIO * self._num_asked)
        left_over = self._num_rows - 1 - self._last_asked
        is_long = self._is_whole and left_over > max(slack, MAX_LENGTH_RATIO * self._num_rows)
        if is_short or is_long:
            frames = self._last_asked + 1
            unit = "frames" if self._by_number else f"frames at the file's {self._rate_hz:g} a second"
            raise PointsError(
                f"{path}: found {self._num_rows} rows, expected about {frames} as the video has {unit}; "
                "find the points in this very video, or store fps or times_s with them"
            )
        return note

    def _rates_agree(self, fps: float) -> bool:
        """Whether rows are frames: their rate is the video's, or at least their number is."""
        video = self._video
        if not video.fps or abs(fps - video.fps) <= MAX_RATE_ERROR * video.fps:
            return True
        declared = round(video.fps * video.duration_s) if video.duration_s else 0
        return abs(self._num_rows - declared) <= max(1, SAME_LENGTH_RATIO * declared)

    def _at_rate(self, frame: Frame) -> int:
        """Row by time, counted from the first picture, which need not be at 0 s."""
        if self._offset_s is None:  # the video's rate is known: it is not that of the file
            self._offset_s = frame.time_s - frame.source_index / self._video.fps
        place = (frame.time_s - self._offset_s) * self._rate_hz
        nearest = int(np.ceil(place - 0.5 - _EPS))  # halfway between two, the earlier: it shows until the later comes
        return min(nearest, self._num_rows - 1) if place < self._num_rows - _EPS else nearest  # the last shows on

    def _nearest(self, time_s: float) -> int | None:
        times_s = self._file.times_s
        assert times_s is not None
        after = int(np.searchsorted(times_s, time_s))
        choices = [row for row in (after - 1, after) if 0 <= row < len(times_s)]
        best = min(choices, key=lambda row: abs(times_s[row] - time_s))
        return best if abs(times_s[best] - time_s) <= self._max_away_s else None
