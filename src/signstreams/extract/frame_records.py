"""What is kept of every frame until the video ends: points on the disk, the rest in flat arrays, half a KB a frame."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from signstreams.array_types import Floats
from signstreams.extract.boxes import NUM_STREAMS, corners
from signstreams.extract.tracks import FrameBoxes
from signstreams.formats.arrays import PIECE_FRAMES, StreamTrack, Tracks
from signstreams.formats.landmarks import FACE, MISSING, NUM_KEYPOINTS, NUM_POSE, POSE
from signstreams.streams import STREAMS, BoxState


class CollectedTracks:
    """Times and final boxes, 71 bytes a frame. Boxes follow later than times.

    Attributes:
        times_s: (T,) seconds.
    """

    def __init__(self) -> None:
        self.times_s = array("d")
        self._placed, self._confidence, self._state = array("f"), array("f"), array("B")

    @property
    def num_boxed(self) -> int:
        """Frames whose boxes are there."""
        return len(self._state) // NUM_STREAMS

    def append(self, boxes: FrameBoxes) -> None:
        """Add the boxes of the next frame."""
        placed = np.where((boxes.state != BoxState.MISSING)[:, None], corners(boxes.box), MISSING[0])  # (S, 4)
        self._placed.frombytes(placed.astype(np.float32).tobytes())
        self._confidence.frombytes(boxes.confidence.astype(np.float32).tobytes())
        self._state.frombytes(boxes.state.tobytes())

    def tracks(self) -> Tracks:
        """Of all frames, without copies; nothing can be added while they are in use."""
        placed = np.frombuffer(self._placed, np.float32).reshape(-1, NUM_STREAMS, 4)
        confidence = np.frombuffer(self._confidence, np.float32).reshape(-1, NUM_STREAMS)
        state = np.frombuffer(self._state, np.uint8).reshape(-1, NUM_STREAMS)
        streams = {
            stream: StreamTrack(placed[:, index], confidence[:, index], state[:, index])
            for index, stream in enumerate(STREAMS)
        }
        return Tracks(streams, np.frombuffer(self.times_s, np.float64))


class KeypointSpool:
    """Keypoints of all frames on disk (6.5 KB each), in a file without a name that vanishes with the process.

    Attributes:
        num_face_frames: Frames with a face.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._poses = array("f")
        self._num_frames = 0
        self.num_face_frames = 0

    def __enter__(self) -> KeypointSpool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, keypoints: Floats) -> None:
        """Add the (543, 3) points of the next frame."""
        keypoints = np.ascontiguousarray(keypoints, np.float32)
        self._file.write(keypoints.data)
        self._poses.frombytes(keypoints[POSE].tobytes())
        self._num_frames += 1
        self.num_face_frames += bool(keypoints[FACE.start, 2] > 0)

    def __len__(self) -> int:
        return self._num_frames

    def take_pose(self) -> Floats:
        """(T, 33, 3) float32 body points, to be written into; they are given away, once."""
        poses, self._poses = self._poses, array("f")
        return np.frombuffer(poses, np.float32).reshape(-1, NUM_POSE, 3)

    def pieces(self) -> Iterator[Floats]:
        """(N, 543, 3) float32 each, in order."""
        self._file.seek(0)
        for start in range(0, len(self), PIECE_FRAMES):
            num_frames = min(PIECE_FRAMES, len(self) - start)
            data = self._file.read(num_frames * NUM_KEYPOINTS * 3 * 4)
            yield np.frombuffer(data, np.float32).reshape(num_frames, NUM_KEYPOINTS, 3)
