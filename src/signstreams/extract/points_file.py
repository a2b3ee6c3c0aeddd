"""Files of points that another tool found: NumPy arrays here, .pose files in `pose_file`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signstreams.array_types import Array, Flags, Floats, Ints
from signstreams.extract.wholebody import NUM_WHOLEBODY
from signstreams.formats.landmarks import NUM_KEYPOINTS

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
        from signstreams.extract.pose_file import read_pose_file  # and with it pose-format, for these files only

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
