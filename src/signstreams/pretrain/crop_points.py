"""The points of crops: 21 points of each crop in which extraction saw the hand or the face, and their shape.

They cost nothing, since extraction found them to cut the crops. Letters: N crops, T frames of a video, S seen points.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from signstreams.array_types import Flags, Floats
from signstreams.errors import DamagedFile, UserError
from signstreams.formats.arrays import keypoint_pieces, read_tracks
from signstreams.formats.landmarks import EXPRESSION, FACE, HAND_L, HAND_R, INTERPOLATED, NUM_HAND
from signstreams.formats.video_metadata import read_metadata
from signstreams.pretrain.crop_index import CropIndex
from signstreams.pretrain.selection import by_video
from signstreams.processes import available_cores
from signstreams.progress import Progress
from signstreams.streams import HAND_STREAMS

ROWS = {"face": np.add(FACE.start, EXPRESSION), "hand_l": np.r_[HAND_L], "hand_r": np.r_[HAND_R]}
"""Stream to the rows of its 21 points among the 543."""
NUM_POINTS = NUM_HAND  # of a face too: one head serves all streams
SHAPE_DIM = 2 * NUM_POINTS
"""Values of a shape: x and y of each point, one point after the other."""
_MIN_SIZE = 1e-9
_MOST_TOLD = 3  # videos without points that a message names


def crop_points(
    index: CropIndex, stream: str | None, *, needed_by: str, streams: Sequence[str] = HAND_STREAMS
) -> Floats:
    """(N, 21, 2) float32 points of each crop, NaN where they were not seen; 336 MB for two million crops.

    x and y are shares of the crop's side, from its top left corner: 0..1 within it, mirrored where the crop is.
    Interpolated points count as not seen. From `keypoints`, `tracks` and `metadata` beside the folder of the crops,
    whose name, or else ``stream``, says which of ``streams`` they show. Messages blame the setting ``needed_by``.

    Raises:
        UserError: The crops are of none of these, or a video lacks files, or has fewer frames than crops; or one is
            damaged.
    """
    points = np.full((len(index), NUM_POINTS, 2), np.nan, np.float32)
    named = [_stream_of(folder, stream, needed_by, streams) for folder in index.folders]

    def fill(video: int, at: slice) -> list[str]:
        number = index.video_folder[video]
        processed, name, frames = index.folders[number].resolve().parent, index.videos[video], index.frame[at]
        files = [processed / kind / f"{name}.npz" for kind in ("keypoints", "tracks")]
        try:
            in_px = points_of_video(processed, named[number], name)  # (T, 21, 2)
            box = read_tracks(files[1]).streams[named[number]].box  # (T, 4)
        except FileNotFoundError as error:
            return [f"{error.filename}: no such file, but {needed_by} needs it; extract the video, or leave it out"]
        except (OSError, ValueError) as error:
            return DamagedFile.of(files[0], error).problems
        for file, rows in zip(files, (in_px, box), strict=True):
            if len(rows) <= frames.max():
                return DamagedFile(file, f"has fewer frames than {index.folders[number]} has crops of").problems
        corner, end = box[frames, None, :2], box[frames, None, 2:]  # (n, 1, 2)
        shares = (in_px[frames] - corner) / np.maximum(end - corner, _MIN_SIZE)  # (n, 21, 2)
        if number in index.mirrored:
            shares[..., 0] = 1 - shares[..., 0]
        points[at] = shares
        return []

    with Progress(len(index), "crops", "read points") as progress, ThreadPoolExecutor(available_cores()) as pool:
        problems: list[str] = []
        spans = list(by_video(index))
        for (_, at), found in zip(spans, pool.map(lambda span: fill(*span), spans), strict=True):
            progress.advance(at.stop - at.start)
            problems += found
    if problems:
        more = [f"and {len(problems) - _MOST_TOLD} more videos alike"] if len(problems) > _MOST_TOLD else []
        raise UserError(problems[:_MOST_TOLD] + more)
    return points


def points_of_video(processed: Path, stream: str, video_id: str) -> Floats:
    """(T, 21, 2) float32 points of a stream in px of the frame; NaN where they were not seen or are guessed, and in the
    faces of a video whose crops hide them.

    Raises:
        DamagedFile: A file cannot be read.
        FileNotFoundError: A file is absent.
    """
    about = read_metadata(processed / "metadata" / f"{video_id}.json")
    size_px = np.array([about.width_px, about.height_px], np.float32)
    is_hidden = stream == "face" and about.face_privacy != "none"
    pieces = [np.empty((0, NUM_POINTS, 2), np.float32)]
    for piece in keypoint_pieces(processed / "keypoints" / f"{video_id}.npz"):  # (n, 543, 3)
        points = piece[:, ROWS[stream]]  # (n, 21, 3)
        is_seen: Flags = (points[..., 2].min(axis=1) > INTERPOLATED) & (not is_hidden)  # (n,)
        pieces.append(np.where(is_seen[:, None, None], points[..., :2] * size_px, np.float32(np.nan)))
    return np.concatenate(pieces)


def point_shapes(points: Floats) -> Floats:
    """Points (N, 21, 2) to (N, 42) float32 less their mean, of length 1: place and size take no part.

    The unit of the points does not matter, as long as it is the same along x and y. NaN rows stay NaN.
    """
    centred = (points - points.mean(axis=1, keepdims=True)).reshape(len(points), SHAPE_DIM)
    found: Floats = (centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(_MIN_SIZE)).astype(np.float32)
    return found


def has_hand_points(index: CropIndex, stream: str | None) -> bool:
    """Whether all folders are of a hand and have points beside them: what `crop_points` needs."""
    return all(_named(folder, stream, HAND_STREAMS) and _keypoints_beside(folder).is_dir() for folder in index.folders)


def _named(folder: Path, stream: str | None, streams: Sequence[str]) -> str | None:
    return next((name for name in (folder.name, stream) if name in streams), None)


def _keypoints_beside(folder: Path) -> Path:
    return folder.resolve().parent / "keypoints"


def _stream_of(folder: Path, stream: str | None, needed_by: str, streams: Sequence[str]) -> str:
    """Of which of ``streams`` a folder's crops are."""
    name = _named(folder, stream, streams)
    if name is None:
        raise UserError(
            f"{folder}: {needed_by} needs points of {' or '.join(streams)}, and this is a folder of neither;"
            " leave it out"
        )
    if not (found := _keypoints_beside(folder)).is_dir():
        raise UserError(
            f"{found}: no such folder, but {needed_by} needs the points of the crops in {folder}; leave it out, or"
            " extract the videos"
        )
    return name
