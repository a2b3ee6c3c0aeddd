"""Points found by another tool, as its file holds them: arrays or .pose, 543 (MediaPipe) or 133 (COCO-WholeBody)."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from signstreams.array_types import Array, Flags, Floats, Ints
from signstreams.corpus.findings import few_ids
from signstreams.extract.frame_source import UnreadableVideoError
from signstreams.formats.arrays import check_claim
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

# -- COCO-WholeBody
#
# Order of the 133 (jin-s13/COCO-WholeBody): body 17, feet 6, face 68, left hand 21, right hand 21; anatomical sides.
# The joints of the hands have MediaPipe's order: wrist, then thumb to little finger, each from palm to tip.

BODY_NAMES = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist") for side in ("left", "right")),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
)
FOOT_NAMES = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
NUM_WHOLEBODY = 133

W_FACE, W_HAND_L, W_HAND_R = slice(23, 91), slice(91, 112), slice(112, 133)
_BODY_ROWS = {name: row for row, name in enumerate(BODY_NAMES + FOOT_NAMES)}


def _rows() -> tuple[Ints, Ints]:
    """Rows of the 133 and of the 543 points that mean the same place; the small toe has no row among the 543."""
    names = {name.replace("big_toe", "foot_index"): row for name, row in _BODY_ROWS.items()}
    pairs = [(row, pose_index(name)) for name, row in names.items() if name in POSE_NAMES]
    pairs += zip(range(W_FACE.start, W_FACE.stop), (FACE.start + IBUG_68).tolist(), strict=True)
    for source, target in ((W_HAND_L, HAND_L), (W_HAND_R, HAND_R)):
        pairs += zip(range(source.start, source.stop), range(target.start, target.stop), strict=True)
    return tuple(np.array(pairs).T)


SOURCE_ROWS, TARGET_ROWS = _rows()


def from_wholebody(points: Floats) -> Floats:
    """(..., 133, 3) x, y, confidence to (..., 543, 3) float32; rows without a counterpart are missing."""
    result = np.empty((*points.shape[:-2], NUM_KEYPOINTS, 3), np.float32)
    result[...] = MISSING
    result[..., TARGET_ROWS, :] = points[..., SOURCE_ROWS, :]
    return result


# -- Files

_OTHER_ARRAYS = {"fps", "times_s", "width_px", "height_px", "scores", "confidence"}
_NUMBERS = {"fps": (0.0, 1000.0), "width_px": (1.0, 100_000.0), "height_px": (1.0, 100_000.0)}  # least, most
LAYOUTS = f"{NUM_KEYPOINTS} (MediaPipe) or {NUM_WHOLEBODY} (COCO-WholeBody) points"
MAX_DEPTH_RATIO = 0.1
"""Share of negative third values from which MediaPipe's are depths: a confidence is never negative."""
MAX_NPZ_BYTES = 2**30
"""What the arrays of an npz may take in memory, some hours of one person; those of an npy stay on the disk."""
MAX_PEOPLE = 32  # of each row: a thousand rows are held in memory at once


class PointsError(UnreadableVideoError):
    """A file of points cannot be used; the message is one line that names the file."""


@dataclass(frozen=True)
class PointsFile:
    """Points as a tool wrote them: T rows, P people, J points. Memory-mapped where possible: an hour has 100,000 rows.

    Where a field may be None, the file does not say.
    """

    path: Path
    array: Array  # (T, P, K, 2 or more) numbers, x and y first
    scores: Floats | None  # (T, P, K) confidence
    columns: Ints | None = None
    """(J,) index among the K of each of the 543 or 133 points, -1 for none; None where K is J."""
    is_px: bool | None = None  # whether x and y are px
    fps: float | None = None  # rows per second
    times_s: Floats | None = None  # (T,) time of each row
    size_px: tuple[float, float] | None = None  # width and height of the frame that the points belong to

    @property
    def num_points(self) -> int:
        """J: 543 or 133."""
        return self.array.shape[2] if self.columns is None else len(self.columns)

    def take(self, rows: slice) -> tuple[Floats, Floats]:
        """(N, P, J, 2) x, y and (N, P, J) confidence, float32; without scores it is 1, and 0 for points at 0, 0."""
        with np.errstate(over="ignore", invalid="ignore"):  # what no float32 holds is infinite, so counts as missing
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
    """Read an npz, npy or .pose file.

    Raises:
        PointsError: It holds something else.
        OSError: It cannot be opened.
    """
    if path.suffix == ".pose":
        return read_pose_file(path)
    with _as_points_error(path):
        with path.open("rb") as file:
            if path.stat().st_size and file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                file.seek(0)
                check_claim(file, path.stat().st_size, may_go_on=True)
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)  # an npz is read, an npy left on the disk
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else _read_npz(path, loaded)
    return _from_arrays(path, arrays)


@contextmanager
def _as_points_error(path: Path) -> Iterator[None]:
    """Whatever the libraries raise on a damaged file, as `PointsError`; errors of the machine stay what they are."""
    try:
        yield
    except (PointsError, MemoryError):
        raise
    except Exception as error:  # zip, zlib, struct, Unicode, Syntax, Overflow, Key: damage raises anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a seek to nowhere
            raise
        text = " ".join(str(error).split())[:200]
        problem = f"is not a {path.suffix} file that NumPy can read ({text or type(error).__name__})"
        if "pickle" in text or "Python objects" in text:
            problem = "holds Python objects, expected numbers; write it with np.save and dtype float32"
        raise PointsError(f"{path}: {problem}") from None


def _read_npz(path: Path, loaded: Any) -> dict[str, Array]:
    """The arrays that count, by name; what they claim is checked before memory is taken for it."""
    with loaded:
        names = list(loaded.files)
        of_points = ["keypoints"] if "keypoints" in names else [name for name in names if name not in _OTHER_ARRAYS]
        if len(of_points) != 1:
            raise PointsError(f"{path}: holds {few_ids(names)}, expected 'keypoints' or a single array of points")
        wanted = [*of_points, *(name for name in names if name in _OTHER_ARRAYS)]
        members = set(loaded.zip.namelist())
        infos = [loaded.zip.getinfo(f"{name}.npy" if f"{name}.npy" in members else name) for name in wanted]
        claimed = sum(info.file_size for info in infos)
        if claimed > MAX_NPZ_BYTES:
            raise PointsError(
                f"{path}: its arrays take {claimed:,} bytes of memory, expected at most {MAX_NPZ_BYTES:,}; write the"
                " points with np.save as .npy, which is read from the disk"
            )
        for info in infos:
            with loaded.zip.open(info) as member:
                check_claim(member, info.file_size)
        return {name: loaded[name] for name in wanted}


def _from_arrays(path: Path, loaded: Mapping[str, Array]) -> PointsFile:
    """From the arrays of an npz file, or from the one of an npy file, which has no name."""
    names = list(loaded)
    of_points = [name for name in names if name not in _OTHER_ARRAYS]
    of_scores = [name for name in ("scores", "confidence") if name in names]
    if len(of_scores) == 2:
        raise PointsError(f"{path}: holds 'scores' and 'confidence', expected one of them")
    value = {name: _number(path, name, loaded[name]) for name in _NUMBERS if name in names}
    if ("width_px" in value) != ("height_px" in value):
        raise PointsError(f"{path}: holds only one of width_px and height_px, expected both or neither")
    array = _numbers(path, of_points[0], loaded)
    scores = _numbers(path, of_scores[0], loaded) if of_scores else None
    times_s = _numbers(path, "times_s", loaded) if "times_s" in names else None
    has_layout = array.ndim in (3, 4) and array.shape[-2] in (NUM_KEYPOINTS, NUM_WHOLEBODY)
    if not has_layout or array.shape[-1] not in (2, 3, 4) or 0 in array.shape[:-2]:
        raise PointsError(
            f"{path}: the points are {array.shape}, expected (rows, points, values) or (rows, people, points, values) "
            f"with {LAYOUTS} of 2 to 4 values: x, y, perhaps z, perhaps a confidence"
        )
    if array.ndim == 3:
        array = array[:, None]
    _check_people(path, array.shape[1])
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
            raise PointsError(f"{path}: times_s is {times_s.shape}, expected {len(array)} rising times, one per row")
    size_px = (value["width_px"], value["height_px"]) if "width_px" in value else None
    return PointsFile(path, array, scores, fps=value.get("fps"), times_s=times_s, size_px=size_px)


def _is_depth(array: Array) -> bool:
    """Whether the third of three values is MediaPipe's depth, which is negative for much of a body."""
    if array.shape[-2] != NUM_KEYPOINTS:
        return False
    some = array[spread_rows(len(array))]
    third = some[..., 2][~is_sentinel(some[..., :2])]
    return bool((third < 0).mean() > MAX_DEPTH_RATIO) if len(third) else False


def spread_rows(num_rows: int) -> slice:
    """About a thousand rows, or all, spread over the video: enough to infer units and layout."""
    return slice(None, None, max(1, num_rows // 1000))


def is_sentinel(points: Floats) -> Flags:
    """(...,) whether (..., 2) x, y stand for no point: NaN, infinite, or -1, -1 in either unit."""
    absent: Flags = ~np.isfinite(points).all(axis=-1) | (points == -1).all(axis=-1)
    return absent


def _numbers(path: Path, name: str, loaded: Mapping[str, Array]) -> Array:
    array = loaded[name]
    if array.dtype.kind not in "fiu":
        what = f"'{name}'" if name else "the array"
        raise PointsError(f"{path}: {what} holds {array.dtype}, expected numbers")
    return array


def _number(path: Path, name: str, array: Array) -> float:
    value = float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else np.nan
    least, most = _NUMBERS[name]
    if not (value > 0 and least <= value <= most):
        found = " ".join(str(array).split())[:40]
        expected = f"from {least:g} to {most:g}" if least else f"above 0, at most {most:g}"
        raise PointsError(f"{path}: '{name}' is {found}, expected one number {expected}")
    return value


def _check_people(path: Path, num_people: int) -> None:
    if num_people > MAX_PEOPLE:
        raise PointsError(f"{path}: holds {num_people:,} people in each row, expected at most {MAX_PEOPLE}")


# -- .pose files, read by sign-language-processing/pose (pose-format)

MEDIAPIPE = ("POSE_LANDMARKS", "FACE_LANDMARKS", "LEFT_HAND_LANDMARKS", "RIGHT_HAND_LANDMARKS")
COCO = ("BODY", "FACE", "LEFT_HAND", "RIGHT_HAND")  # AlphaPose appends _133
OPENPOSE = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
FAMILIES = (MEDIAPIPE, COCO, OPENPOSE)


def read_pose_file(path: Path) -> PointsFile:
    """Points of all people; x and y in px of the header's frame, z dropped, confidence 0 where nothing was found."""
    from pose_format import Pose  # only these files need it

    data = path.read_bytes()
    try:
        pose = Pose.read(data)  # a claim that the bytes do not bear out is refused before memory is taken
    except MemoryError:
        raise
    except Exception as error:  # struct, Unicode, Value, ZeroDivision: random bytes raise anything in its reader
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise PointsError(f"{path}: is not a .pose file that pose-format can read ({reason})") from None
    family, targets = _targets(path, pose.header.components)
    array, confidence = pose.body.data.data, pose.body.confidence
    num_frames, num_people = confidence.shape[:2]
    if 0 in (num_frames, num_people):
        raise PointsError(f"{path}: holds {num_frames} frames of {num_people} people, expected some")
    _check_people(path, num_people)
    columns = np.full(NUM_KEYPOINTS if family is MEDIAPIPE else NUM_WHOLEBODY, -1)
    for column, row in enumerate(targets):
        if row is not None:
            columns[row] = column
    if (columns < 0).all() or array.shape[-1] < 2:
        raise PointsError(f"{path}: holds points of the shape {array.shape}, expected x and y of {LAYOUTS}")
    fps = float(pose.body.fps)
    if fps and not 0 < fps <= _NUMBERS["fps"][1]:
        raise PointsError(f"{path}: has {fps:g} rows per second, expected at most {_NUMBERS['fps'][1]:g}, or 0")
    size = pose.header.dimensions
    return PointsFile(
        path,
        array,
        confidence,
        columns,
        is_px=True,
        fps=fps or None,
        size_px=(size.width, size.height) if size.width and size.height else None,
    )


def _targets(path: Path, components: list[Any]) -> tuple[tuple[str, ...], list[int | None]]:
    """Family of the components, and the row of each point of the file among the 543 or 133; None for none."""
    names = [component.name.removesuffix("_133") for component in components]
    family = next((family for family in FAMILIES if family[0] in names), None)
    if family is None:
        known = " or ".join(known[0] for known in FAMILIES)
        raise PointsError(
            f"{path}: holds the components {few_ids(names)}, expected those of MediaPipe Holistic, COCO-WholeBody or "
            f"OpenPose, with a body: {known}"
        )
    targets: list[int | None] = []
    for name, component in zip(names, components, strict=True):
        part = family.index(name) if name in family else None  # POSE_WORLD_LANDMARKS has no place in the frame
        for index, point in enumerate(component.points):
            targets.append(None if part is None else _row(family, part, index, str(point)))
    return family, targets


_MEDIAPIPE_PARTS = (
    (0, POSE_NAMES),
    (FACE.start, tuple(map(str, range(NUM_FACE)))),
    (HAND_L.start, HAND_NAMES),
    (HAND_R.start, HAND_NAMES),
)


def _row(family: tuple[str, ...], part: int, index: int, point: str) -> int | None:
    """Row of a component's point among the 543 or 133; None for none.

    MediaPipe's points and bodies go by name: a face may be reduced to some of its points, which have numbers for names
    (irises are above 467). Other parts go by order; what follows them (OpenPose's pupils) has no row.
    """
    if family is MEDIAPIPE:
        start, names = _MEDIAPIPE_PARTS[part]
        name = point.lower().replace("_finger_", "_")
        return start + names.index(name) if name in names else None
    if part > 0:
        rows = (W_FACE, W_HAND_L, W_HAND_R)[part - 1]
        return rows.start + index if index < rows.stop - rows.start else None
    if family is OPENPOSE:  # LShoulder, LBigToe and the like; neck and the middle of the hips have no row
        side = {"L": "left_", "R": "right_"}.get(point[:1], "")
        point = side + point[bool(side) :].lower().replace("toe", "_toe")
    return _BODY_ROWS.get(point)
