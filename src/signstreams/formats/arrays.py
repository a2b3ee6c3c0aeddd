"""Per-frame arrays of a video: keypoints, pose, tracks, as npz files without pickles and with reproducible bytes."""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from signstreams.array_types import Array, Floats, Ints
from signstreams.errors import DamagedFile
from signstreams.files import replacing
from signstreams.formats.landmarks import NUM_KEYPOINTS, NUM_POSE
from signstreams.streams import STREAMS

# Damage: a ZIP member may be cut, garbled, encrypted or absent, and so may the header of its array.
_NPZ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
)
POSE_NORM = "signing_space_v1"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a ZIP can hold: equal arrays give equal bytes
_ZIP64_FROM_BYTES = 2**30
_TRACK_ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "box": (np.float32, (4,)),
    "confidence": (np.float32, ()),
    "state": (np.uint8, ()),
}
"""Fields of `StreamTrack` to the type and the shape of a frame."""
_HEADER_BYTES = 12_000  # magic, length and header of an array; NumPy reads no header above 10,000
PIECE_FRAMES = 256  # frames of keypoints held in memory at once when a file is read or written in pieces: 1.7 MB
_KEYPOINTS_BYTES = NUM_KEYPOINTS * 3 * 4


@dataclass(frozen=True)
class StreamTrack:
    """Box of one stream in every frame."""

    box: Floats  # (T, 4) float32 x0, y0, x1, y1 in px of the upright source frame; -1 where missing
    confidence: Floats  # (T,) float32, 0 where missing
    state: Ints  # (T,) uint8 of `signstreams.streams.BoxState`


@dataclass(frozen=True)
class Tracks:
    """Boxes of all streams, and the time of every frame."""

    streams: dict[str, StreamTrack]  # stream name to its track
    times_s: Floats  # (T,) float64, seconds from the start of the video


def write_keypoints(path: str | Path, keypoints: Floats) -> None:
    """Write ``keypoints``; see `read_keypoints`."""
    _write(path, {"keypoints": keypoints.astype(np.float32, copy=False)})


def read_keypoints(path: str | Path) -> Floats:
    """(T, 543, 3) float32 points of the signer, in the order of `signstreams.formats.landmarks`.

    x and y are fractions of frame width and height, the confidence is 0..1; a missing point is (-1, -1, 0).

    Raises:
        DamagedFile: The file is no npz, or its array has another shape or type.
    """
    with as_damage(path):
        return _expect(_read(path), "keypoints", np.float32, (None, NUM_KEYPOINTS, 3))


def write_keypoint_pieces(path: str | Path, num_frames: int, pieces: Iterable[Floats]) -> None:
    """Write ``keypoints`` from pieces (N, 543, 3) float32 of ``num_frames`` in all: an hour of video has 600 MB."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_frames, NUM_KEYPOINTS, 3)}
    with (
        replacing(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        _member(archive, "keypoints", num_frames * _KEYPOINTS_BYTES) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for piece in pieces:
            member.write(np.ascontiguousarray(piece, "<f4").data)


def keypoint_pieces(path: str | Path) -> Iterator[Floats]:
    """Read ``keypoints`` in pieces (N, 543, 3); none for a video without frames.

    Raises:
        DamagedFile: As `read_keypoints`; after some pieces when the file ends early.
    """
    with as_damage(path), zipfile.ZipFile(path) as archive, archive.open("keypoints.npy") as member:
        if np.lib.format.read_magic(member) == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
            if not is_fortran:
                _expect_form("keypoints", dtype, shape, np.float32, (None, NUM_KEYPOINTS, 3))
                yield from _pieces(member, shape[0])
                return
    keypoints = read_keypoints(path)  # a header or an order of axes that we do not write
    for start in range(0, len(keypoints), PIECE_FRAMES):
        yield keypoints[start : start + PIECE_FRAMES]


def _pieces(member: IO[bytes], num_frames: int) -> Iterator[Floats]:
    for start in range(0, num_frames, PIECE_FRAMES):
        wanted = min(PIECE_FRAMES, num_frames - start)
        data = member.read(wanted * _KEYPOINTS_BYTES)
        if len(data) < wanted * _KEYPOINTS_BYTES:
            raise ValueError(f"'keypoints' ends in frame {start + len(data) // _KEYPOINTS_BYTES:,} of {num_frames:,}")
        yield np.frombuffer(data, np.float32).reshape(wanted, NUM_KEYPOINTS, 3)
    if member.read(1):
        raise ValueError(f"'keypoints' goes on after its {num_frames:,} frames")


def write_pose(path: str | Path, pose: Floats) -> None:
    """Write ``pose`` (see `read_pose`) and the name of its normalisation."""
    _write(path, {"pose": pose.astype(np.float32, copy=False), "pose_norm": np.array(POSE_NORM)})


def read_pose(path: str | Path) -> Floats:
    """(T, 99) float32 body points: 33 times x, y (0..1 within the signing space), visibility; missing is (-1, -1, 0).

    Raises:
        DamagedFile: As `read_keypoints`, or the normalisation is another.
    """
    with as_damage(path):
        arrays = _read(path)
        norm = str(arrays.get("pose_norm", "absent"))
        if norm != POSE_NORM:
            raise ValueError(f"pose_norm is '{norm}', expected '{POSE_NORM}'")
        return _expect(arrays, "pose", np.float32, (None, NUM_POSE * 3))


def write_tracks(path: str | Path, value: Tracks) -> None:
    """Write ``<stream>_box``, ``<stream>_confidence``, ``<stream>_state`` and ``times_s``."""
    arrays = {"times_s": value.times_s.astype(np.float64, copy=False)}
    for stream, track in value.streams.items():
        for name, (dtype, _) in _TRACK_ARRAYS.items():
            arrays[f"{stream}_{name}"] = getattr(track, name).astype(dtype, copy=False)
    _write(path, arrays)


def read_tracks(path: str | Path) -> Tracks:
    """Read the tracks of all three streams.

    Raises:
        DamagedFile: As `read_keypoints`, or arrays disagree about the number of frames.
    """
    with as_damage(path):
        arrays = _read(path)
        times_s = _expect(arrays, "times_s", np.float64, (None,))
        fields = {name: (dtype, (len(times_s), *shape)) for name, (dtype, shape) in _TRACK_ARRAYS.items()}
        tracks = {
            stream: StreamTrack(**{name: _expect(arrays, f"{stream}_{name}", *form) for name, form in fields.items()})
            for stream in STREAMS
        }
        return Tracks(tracks, times_s)


def read_times(path: str | Path) -> Floats:
    """``times_s`` (T,) of the tracks, without their boxes.

    Raises:
        DamagedFile: As `read_keypoints`.
    """
    with as_damage(path):
        return _expect(_read(path, "times_s"), "times_s", np.float64, (None,))


def frames_of_span(times_s: Floats, start_s: float | None, end_s: float | None) -> range:
    """Frames with ``start_s <= time < end_s`` of ``times_s`` (T,), which rise; None: from the first, to the last."""
    span_s = (-math.inf if start_s is None else start_s, math.inf if end_s is None else end_s)
    start, stop = (int(place) for place in np.searchsorted(times_s, span_s))
    return range(start, stop)


def _write(path: str | Path, arrays: dict[str, Array]) -> None:
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with _member(archive, name, array.nbytes) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str, num_bytes: int) -> IO[bytes]:
    """Open the member of an array for writing."""
    info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=num_bytes > _ZIP64_FROM_BYTES)


@contextlib.contextmanager
def as_damage(path: str | Path) -> Iterator[None]:
    """Raise what a reader finds wrong with ``path`` as `DamagedFile`."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DamagedFile(path, "is not a readable npz file (it refers to places outside of it)") from error
    except ValueError as error:
        raise DamagedFile.of(path, error) from error
    except _NPZ_ERRORS as error:
        raise DamagedFile(path, f"is not a readable npz file ({error})") from error


def _read(path: str | Path, only: str | None = None) -> dict[str, Array]:
    file = np.load(path, allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ValueError("is a single array, expected an npz of named arrays")
    with file:
        for member in file.zip.infolist():
            if only in (None, member.filename.removesuffix(".npy")):
                with file.zip.open(member) as data:
                    if data.peek(1)[:1] == np.lib.format.MAGIC_PREFIX[:1]:  # else NumPy hands out its bytes
                        check_claim(data, member.file_size)
        return {name: file[name] for name in file.files if only in (None, name)}


def check_claim(file: IO[bytes], num_bytes: int, *, may_go_on: bool = False) -> None:
    """Check that an array is as large as its header says; with ``may_go_on``, at least so.

    Raises:
        ValueError: It is not, or there is no header.
    """
    head = io.BytesIO(file.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of the format {version}")
    try:
        read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(head)
    except (MemoryError, RecursionError):
        raise ValueError("a header that is nested too deeply") from None
    claimed = head.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed != num_bytes and not (may_go_on and 0 <= claimed < num_bytes):
        raise ValueError(f"an array that claims {claimed:,} bytes of {num_bytes:,}")


def _expect(arrays: dict[str, Array], name: str, dtype: type, shape: tuple[int | None, ...]) -> Array:
    if name not in arrays:
        raise ValueError(f"has no array '{name}' (found {', '.join(sorted(arrays)) or 'none'})")
    array = arrays[name]
    if not isinstance(array, np.ndarray):  # NumPy hands out the bytes of a member that is no array
        raise ValueError(f"'{name}' is not an array")
    _expect_form(name, array.dtype, array.shape, dtype, shape)
    return array


def _expect_form(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], want_dtype: type, want_shape: tuple[int | None, ...]
) -> None:
    if dtype != want_dtype:
        raise ValueError(f"'{name}' is {dtype}, expected {np.dtype(want_dtype)}")
    if len(shape) != len(want_shape) or any(w not in (None, got) for w, got in zip(want_shape, shape, strict=True)):
        wanted = ", ".join("T" if size is None else str(size) for size in want_shape)
        raise ValueError(f"'{name}' has the shape {shape}, expected ({wanted})")
