"""Datasets of clips: everything that a training or an evaluation reads from disk.

`read_inputs` finds all problems of clips and backbones at once; `open_datasets` computes features that are missing and
gives a `ClipDataset` per split, whose clips are read from memory maps when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from signstreams.array_types import Array, Flags
from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.formats.crops import Crop
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.batches import Sample, augment
from signstreams.integrate.clips import ClipEntry, ClipSet, load_clips, raise_problems
from signstreams.integrate.features import embed_stream, open_features, present_crops
from signstreams.integrate.nodes import NUM_NODES, place_nodes
from signstreams.integrate.settings import AugmentationConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import Backbones, load_backbones
from signstreams.integrate.videos import POSE_DIM, Points, check_lengths

MAX_LISTED = 64  # videos whose lists of crops are kept, for streams whose backbone is trained


class ClipReader:
    """Reads the frames of a clip from memory maps, the same ones for every stream.

    Streams with a frozen backbone have ``features``; of ``trained`` ones the crops are listed, not read. ``is_blank``
    hides every stream, as if the signer had never been detected.
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
        self.points, self.features = points, dict(features)
        self.trained, self.uses_pose, self.is_blank = tuple(trained), uses_pose, is_blank
        self._crops = lru_cache(MAX_LISTED)(lambda stream, video_id: present_crops(layout, stream, video_id)[1])

    def load(self, entry: ClipEntry) -> Sample:
        """Read the arrays of a clip."""
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
            present["pose"] = np.asarray(visible.any(axis=1))
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
            nodes,
            np.where(visible[..., None], pose, 0.0).reshape(len(frames), POSE_DIM).astype(np.float32),
            present,
            crops,
            features,
            list(entry.tokens),
            None if entry.gloss_ids is None else list(entry.gloss_ids),
        )


class ClipDataset(Sequence[Sample]):
    """Clips of one split, each read when it is asked for."""

    def __init__(self, entries: Sequence[ClipEntry], reader: ClipReader) -> None:
        self.entries = list(entries)
        self.reader = reader
        self.lengths = [entry.num_frames for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, row: int) -> Sample:  # type: ignore[override]
        return self.reader.load(self.entries[row])

    def drawn(
        self, row: int, augmentation: AugmentationConfig, rng: np.random.Generator, *, most_frames: int | None = None
    ) -> Sample:
        """A clip as training sees it, augmented by draws of ``rng``; of at most ``most_frames``."""
        return augment(self[row], augmentation, rng, most_frames=most_frames)


def read_inputs(config: IntegrateConfig, world: World) -> tuple[ClipSet, Backbones]:
    """Load clips and backbones; a `UserError` has all problems of both."""
    clips, backbones, problems = None, None, []
    with distributed.main_first(world):  # points are gathered by one process
        if world.is_main:
            try:
                clips = load_clips(config)
            except UserError as error:
                problems += error.problems
            try:
                backbones = load_backbones(config)
            except UserError as error:
                problems += error.problems
            if problems:
                raise UserError(problems)
    if not world.is_main:
        clips, backbones = load_clips(config), load_backbones(config)
    assert clips is not None and backbones is not None
    return clips, backbones


def open_datasets(
    config: IntegrateConfig,
    clips: ClipSet,
    backbones: Backbones,
    world: World,
    entries: dict[str, list[ClipEntry]] | None = None,
) -> dict[str, ClipDataset]:
    """Split to its dataset; all share one reader. Missing features are computed first, a share by each process.

    ``entries`` are those of the splits where they say more than those in ``clips``: tokens, other gloss ids.

    Raises:
        UserError: A crop cannot be read, or features are not finite.
    """
    layout = CorpusLayout(config.root)
    videos = sorted(clips.videos, key=lambda video: video.video_id)
    stores: dict[str, ArrayStore] = {}
    problems: list[str] = []
    for stream, frozen in backbones.frozen.items():
        stores[stream] = open_features(config.features, frozen)
        share = videos[world.rank :: world.size]
        problems += embed_stream(layout, share, frozen, stores[stream], world.device)
    problems = [problem for found in distributed.gather(problems) for problem in found]
    if not problems:
        for store in stores.values():
            store.reload()
        problems += check_lengths(layout, videos, {"times": clips.points.times_s, **stores})
    raise_problems(problems)
    reader = ClipReader(
        layout,
        clips.points,
        stores,
        trained=list(backbones.trained),
        uses_pose=config.model.use_pose,
        is_blank=config.data.blank_video,
    )
    entries = clips.entries if entries is None else entries
    return {split: ClipDataset(entries[split], reader) for split in SPLITS if split in entries}
