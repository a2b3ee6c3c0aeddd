"""Batches of clips: bucketed by length, padded with a mask, augmented in training.

Letters: B clips, T frames of the longest one, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstreams.array_types import Array, Flags, Floats, Ints, Pixels
from signstreams.engine.device import to_device
from signstreams.engine.seeding import numpy_rng
from signstreams.formats.crops import Crop
from signstreams.integrate.corpus_rules import num_steps
from signstreams.integrate.settings import AugmentationConfig

NO_TOKEN = -100  # padding of text tokens; no tokenizer has this id
MASK_SHARE = 0.15
"""Largest share of a sentence's words that stage vlp masks: what GFSLT-VLP masks (train_vlp_v2.py:155-156)."""
BUCKET_BATCHES = 8
"""Batches whose clips are sorted by length together: enough to save padding, few enough to keep batches random."""

ReadImages = Callable[[str, list[Crop]], Pixels]  # stream and crops to uint8 RGB (N, px, px, 3)


@dataclass(frozen=True)
class Sample:
    """One clip in memory, every stream at the same frames."""

    clip_id: str  # id of the clip
    nodes: Floats  # (T, 79, 3) float32 of `signstreams.integrate.nodes.place_nodes`
    pose: Floats  # (T, P) float32, zeros where missing
    present: dict[str, Flags]  # stream (crops, pose) to (T,) bool
    crops: dict[str, list[Crop | None]]  # stream with a trained backbone to the crop of each frame; None where missing
    features: dict[str, Array] = field(default_factory=dict)
    """Stream with a frozen backbone to (T, D) or (T, L, D) float16, zeros where missing."""
    tokens: list[int] = field(default_factory=list)  # text tokens with the end token
    gloss_ids: list[int] | None = None  # target of CTC; None without annotation, or where a gloss is unknown
    mask_share: float = MASK_SHARE  # of the words that stage vlp masks; drawn in training

    @property
    def num_frames(self) -> int:
        return len(self.nodes)

    def at_frames(self, frames: Ints) -> Sample:
        """The clip with only these frames, in all streams."""
        return replace(
            self,
            nodes=self.nodes[frames],
            pose=self.pose[frames],
            present={stream: mask[frames] for stream, mask in self.present.items()},
            crops={stream: [crops[frame] for frame in frames] for stream, crops in self.crops.items()},
            features={stream: values[frames] for stream, values in self.features.items()},
        )


@dataclass(frozen=True)
class Batch:
    """Padded clips."""

    clip_ids: list[str]  # ids of the clips
    num_frames: list[int]  # number of frames of each clip, always on the CPU
    lengths: Tensor  # (B,) the same as a tensor; later frames are padding
    nodes: Tensor  # (B, T, 79, 3) float32
    features: dict[str, Tensor]  # stream to (B, T, D) or (B, T, L, D), float32 or float16; ``pose`` among them
    present: dict[str, Tensor]  # stream to (B, T) bool, False in padding
    images: dict[str, Tensor]
    """Stream with a trained backbone to its N present frames, uint8 (N, px, px, 3), clip by clip."""
    image_rows: dict[str, Tensor]
    """Stream with a trained backbone to (N,) int64, the rows of its images among B * T frames."""
    num_tokens: int  # number of text tokens of all clips
    tokens: Tensor  # (B, L) text tokens padded with `NO_TOKEN`
    mask_shares: Tensor  # (B,) float32, of the words that stage vlp masks
    gloss_ids: list[list[int] | None]  # targets of CTC

    @property
    def num_steps(self) -> list[int]:
        """Encoder steps of each clip, as `signstreams.integrate.corpus_rules.num_steps` has them."""
        return [num_steps(frames) for frames in self.num_frames]

    def pinned(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies while the CPU goes on."""
        return self._mapped(Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device, copied without waiting for it; a `pinned` batch needs no further copy."""
        return self._mapped(partial(to_device, device=device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(getattr(self, name)) for name in ("lengths", "nodes", "tokens", "mask_shares")
        }
        for name in ("features", "present", "images", "image_rows"):
            changed[name] = {stream: change(tensor) for stream, tensor in getattr(self, name).items()}
        return replace(self, **changed)


def collate(samples: Sequence[Sample], *, trained: Sequence[str] = (), read_images: ReadImages | None = None) -> Batch:
    """Pad clips to the longest of them. The crops of ``trained`` streams are read here, by ``read_images``."""
    lengths = [sample.num_frames for sample in samples]
    size = max(lengths)
    frozen = list(samples[0].features)
    pose = {"pose": _pad([sample.pose for sample in samples], size)} if "pose" in samples[0].present else {}
    images, image_rows = {}, {}
    for stream in trained:
        assert read_images is not None
        places = [
            (i * size + frame, crop)
            for i, sample in enumerate(samples)
            for frame, crop in enumerate(sample.crops[stream])
            if crop is not None
        ]
        images[stream] = torch.from_numpy(read_images(stream, [crop for _, crop in places]))
        image_rows[stream] = torch.tensor([row for row, _ in places], dtype=torch.int64)
    return Batch(
        clip_ids=[sample.clip_id for sample in samples],
        num_frames=lengths,
        lengths=torch.tensor(lengths),
        nodes=_pad([sample.nodes for sample in samples], size),
        features={**{s: _pad([sample.features[s] for sample in samples], size) for s in frozen}, **pose},
        present={s: _pad([sample.present[s] for sample in samples], size) for s in samples[0].present},
        images=images,
        image_rows=image_rows,
        num_tokens=sum(len(sample.tokens) for sample in samples),
        tokens=_pad(
            [np.array(sample.tokens, dtype=np.int64) for sample in samples],
            max(len(s.tokens) for s in samples),
            NO_TOKEN,
        ),
        mask_shares=torch.tensor([sample.mask_share for sample in samples]),
        gloss_ids=[sample.gloss_ids for sample in samples],
    )


def bucketed_batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Rows of the batches of an epoch: random, but with clips of similar length together; every row once."""
    order = rng.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        bucket = sorted(order[start : start + batch_size * BUCKET_BATCHES].tolist(), key=lambda row: lengths[row])
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows of the batches of an evaluation: sorted by length, always the same."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def augment(
    sample: Sample, config: AugmentationConfig, rng: np.random.Generator, *, most_frames: int | None = None
) -> Sample:
    """Augment one clip: time is resampled in all streams; keypoints are scaled, rotated and shifted; words are masked.

    The clip has at most ``most_frames`` afterwards. The result follows from the arguments alone.
    """
    least, most = config.time_scale
    if most_frames is not None:  # before the draw: a long clip has not always that many, but lengths up to it
        least, most = (min(bound, most_frames / sample.num_frames) for bound in (least, most))
    factor = rng.uniform(least, most)
    num_frames = max(1, round(sample.num_frames * factor))
    if num_frames != sample.num_frames:
        sample = sample.at_frames(_chosen_frames(sample.num_frames, num_frames, config, rng))
    angle = math.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    scale = rng.uniform(1 - config.scale, 1 + config.scale)
    shift = rng.uniform(-config.translate, config.translate, size=2)
    if config.rotate_prob < 1 and rng.uniform() >= config.rotate_prob:
        turn = np.eye(2)
    place, confidence = sample.nodes[..., :2], sample.nodes[..., 2:]
    place = place @ (scale * turn) + shift
    place = np.where(confidence > 0, place, 0.0)  # a missing joint stays at zero
    nodes = np.concatenate((place, confidence), axis=-1).astype(np.float32)
    return replace(sample, nodes=nodes, mask_share=rng.uniform(0, MASK_SHARE))  # drawn last: the rest was before it


def _chosen_frames(num_frames: int, wanted: int, config: AugmentationConfig, rng: np.random.Generator) -> Ints:
    """``wanted`` of the frames of a clip, in their order.

    Random ones are drawn as in MSKA's code (sutwangyan/MSKA: datasets.py, get_selected_index): fewer are a subset, more
    are all and some of them twice or more often.
    """
    if config.frame_sampling == "even":
        places = (np.arange(wanted) + 0.5) * (num_frames / wanted)
        return np.minimum(places.astype(np.int64), num_frames - 1)
    if wanted <= num_frames:
        return np.sort(rng.permutation(num_frames)[:wanted])
    return np.sort(np.concatenate((np.arange(num_frames), rng.integers(0, num_frames, wanted - num_frames))))


def _pad(arrays: list[Array], size: int, value: float = 0) -> Tensor:
    out = np.full((len(arrays), size, *arrays[0].shape[1:]), value, dtype=arrays[0].dtype)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return torch.from_numpy(out)


class BatchPlan:
    """The clips of each step: of similar length, every clip once per epoch.

    The joint batch of a step is dealt in turn, by length, to its parts (processes times passes per step), so that all
    have about as many frames. The last batch of an epoch may be smaller, and some of its parts empty. ``batch_size`` is
    of clips per part.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, num_parts: int, seed: int) -> None:
        self._lengths, self._joint, self._num_parts, self._seed = lengths, batch_size * num_parts, num_parts, seed
        self.steps_per_epoch = math.ceil(len(lengths) / self._joint)
        self._epoch, self._batches = -1, [[0]]

    def epoch(self, step: int) -> int:
        """Epoch of a step, from 0."""
        return step // self.steps_per_epoch

    def rows(self, step: int, part: int) -> list[int]:
        """Clips of one part of a step."""
        epoch = self.epoch(step)
        if epoch != self._epoch:
            self._batches = bucketed_batches(self._lengths, self._joint, numpy_rng(self._seed, "epoch", epoch))
            self._epoch = epoch
        return self._batches[step % self.steps_per_epoch][part :: self._num_parts]
