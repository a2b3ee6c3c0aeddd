"""Clips as a sequence: what is asked for is read from memory maps, every stream at the same frames."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from signstreams.array_types import Array, Flags
from signstreams.formats.crops import Crop
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.batches import Sample
from signstreams.integrate.data import ClipEntry
from signstreams.integrate.features import present_crops
from signstreams.integrate.nodes import NUM_NODES, place_nodes
from signstreams.integrate.videos import POSE_DIM, Points

MAX_LISTED = 64
"""Videos whose lists of crops are kept, for streams whose backbone is trained."""


class ClipSource:
    """Reads the frames of a clip.

    Args:
        layout: Of the corpus.
        points: Times, pose and nodes.
        features: Stream with a frozen backbone to its features.
        trained: Streams whose crops the model encodes itself.
        uses_pose: Whether pose is a stream.
        is_blank: Hide every stream, as if the signer were never found.
    """

    def __init__(
        self,
        layout: CorpusLayout,
        points: Points,
        features: Mapping[str, ArrayStore],
        *,
        trained: Sequence[str] = (),
        uses_pose: bool = True,
        is_blank: bool = False,
    ) -> None:
        self.layout, self.points, self.features = layout, points, dict(features)
        self.trained, self.uses_pose, self.is_blank = tuple(trained), uses_pose, is_blank
        self._listed: OrderedDict[tuple[str, str], dict[int, Crop]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, entry: ClipEntry) -> Sample:
        """The clip's arrays, read now."""
        frames = entry.frames
        span = slice(frames.start, frames.stop, frames.step)
        video_id = entry.video.video_id
        present: dict[str, Flags] = {}
        features: dict[str, Array] = {}
        crops: dict[str, list[Crop | None]] = {}
        for stream, store in self.features.items():
            values = np.array(store[video_id][span])  # (T, D) or (T, L, D)
            there = ~np.isnan(values.reshape(len(values), -1)[:, 0])
            values[~there] = 0
            present[stream], features[stream] = there, values
        for stream in self.trained:
            listed = self._crops(stream, video_id)
            crops[stream] = [listed.get(frame) for frame in frames]
            present[stream] = np.array([crop is not None for crop in crops[stream]])
        pose = np.array(self.points.pose[video_id][span])  # (T, 7, 3)
        visible = pose[..., 2] > 0
        if self.uses_pose:
            present["pose"] = visible.any(axis=1)
        nodes = np.zeros((len(frames), NUM_NODES, 3), np.float32)
        if self.points.nodes is not None:
            nodes = place_nodes(self.points.nodes[video_id][span], *entry.video.size_px)
        if self.is_blank:
            nodes, visible = np.zeros_like(nodes), np.zeros_like(visible)
            present = {stream: np.zeros_like(there) for stream, there in present.items()}
            crops = {stream: [None] * len(frames) for stream in crops}
            features = {stream: np.zeros_like(values) for stream, values in features.items()}
        return Sample(
            entry.clip_id,
            entry.split,
            entry.text,
            entry.gloss,
            nodes,
            np.where(visible[..., None], pose, 0.0).reshape(len(frames), POSE_DIM).astype(np.float32),
            present,
            crops,
            features,
            list(entry.tokens),
            None if entry.gloss_ids is None else list(entry.gloss_ids),
        )

    def _crops(self, stream: str, video_id: str) -> dict[int, Crop]:
        key = (stream, video_id)
        with self._lock:
            if key not in self._listed:
                self._listed[key] = present_crops(self.layout, stream, video_id)[1]
                while len(self._listed) > MAX_LISTED:
                    self._listed.popitem(last=False)
            self._listed.move_to_end(key)
            return self._listed[key]


class Clips(Sequence[Sample]):
    """Clips of one split, loaded one by one as they are asked for.

    Attributes:
        entries: What is known without reading frames.
        lengths: Frames of each clip.
    """

    def __init__(self, entries: Sequence[ClipEntry], source: ClipSource) -> None:
        self.entries = list(entries)
        self.source = source
        self.lengths = [entry.num_frames for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, row: int) -> Sample:  # type: ignore[override]
        return self.source.load(self.entries[row])

    def __iter__(self) -> Iterator[Sample]:
        return (self.source.load(entry) for entry in self.entries)
