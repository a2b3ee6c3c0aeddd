"""What is predicted: the cluster of each stream at each step; and what is hidden of a window's streams.

A stream is face, hand_l, hand_r or pose, with all that shows it: features of its backbone, and its nodes of MSKA. It is
clustered by the features where it has a backbone, as in SHuBERT (arXiv 2411.16765), and by its points elsewhere.

Letters: T frames, S = ceil(T / 4) steps, D values of a descriptor.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from signstreams.array_types import Array, Flags, Floats, Ints
from signstreams.engine.k_means import k_means, nearest
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.files import replacing
from signstreams.formats.crops import evenly_spread
from signstreams.integrate.batches import Sample
from signstreams.integrate.corpus_rules import TIME_STRIDE
from signstreams.integrate.model import POSE_STREAM
from signstreams.integrate.nodes import BODY_NODES
from signstreams.integrate.settings import ModelConfig
from signstreams.integrate.videos import POSE_POINTS
from signstreams.sequence.settings import PredictionConfig
from signstreams.streams import HAND_STREAMS, STREAMS

log = logging.getLogger(__name__)

NO_TARGET = -100  # step that is not hidden, or at which the stream is missing; PyTorch's cross-entropy leaves it out
NODES = {
    stream: np.array([row for row, node in enumerate(BODY_NODES) if node[0].startswith(f"{stream}.")])
    for stream in (*STREAMS, POSE_STREAM)
}
"""Stream to the rows of its nodes among the 79 of MSKA."""
SAMPLE_WINDOWS = 512  # windows that clusters are found on, spread evenly: hours of video add time, no other clusters
STEPS_PER_CLUSTER = 64
"""Steps of the sample for each cluster: 256 clusters take an hour and a half of video, less of it has fewer."""


def target_streams(model: ModelConfig) -> list[str]:
    """Streams that a model sees in any form."""
    has_pose = model.use_pose or model.use_mska
    return [stream for stream in STREAMS if stream in model.backbones or model.use_mska] + [POSE_STREAM] * has_pose


def descriptors(sample: Sample, stream: str) -> tuple[Floats, Flags]:
    """(S, D) float32 of a stream in the frame that each step is centred on, 4 s, and where it is present, (S,)."""
    steps = slice(None, None, TIME_STRIDE)
    if stream in sample.features:
        values: Array = sample.features[stream][steps]
        last = values[:, -1] if values.ndim == 3 else values  # of several blocks
        return last.astype(np.float32), np.asarray(sample.present[stream][steps])
    if stream in sample.present:  # pose: x, y of seven points, without their visibility
        points = sample.pose[steps].reshape(-1, len(POSE_POINTS), 3)[..., :2]  # (S, 7, 2)
        return points.reshape(len(points), -1), np.asarray(sample.present[stream][steps])
    nodes = sample.nodes[steps][:, NODES[stream]]  # (S, V, 3)
    place, seen = nodes[..., :2], nodes[..., 2] > 0
    present: Flags = np.asarray(seen.any(axis=1))
    if stream in HAND_STREAMS:  # its shape: from the wrist, the first point
        present, place = seen[:, 0], place - place[:, :1]
    elif stream != POSE_STREAM:
        middle = (place * seen[..., None]).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)[:, None]
        place = place - middle[:, None]
    return np.where(seen[..., None], place, 0.0).reshape(len(nodes), -1).astype(np.float32), np.asarray(present)


# -- Clusters


@dataclass(frozen=True)
class Clusters:
    """Clusters of the streams."""

    centres: dict[str, Floats]  # stream to (C, D) float32
    commonest: dict[str, int]  # stream to the cluster that train has most often: the majority baseline

    def labels(self, sample: Sample) -> dict[str, Ints]:
        """Stream to the cluster of each step, (S,) int64, `NO_TARGET` where the stream is missing."""
        found = {}
        for stream, centres in self.centres.items():
            values, present = descriptors(sample, stream)
            found[stream] = np.where(present, nearest(values, centres), NO_TARGET)
        return found

    def save(self, path: Path) -> None:
        """Write them as an npz file."""
        arrays = {f"{stream}_centres": centres for stream, centres in self.centres.items()}
        arrays |= {f"{stream}_commonest": np.array(number) for stream, number in self.commonest.items()}
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Clusters:
        """Read what `save` wrote; a `UserError` where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                streams = [name.removesuffix("_centres") for name in file.files if name.endswith("_centres")]
                centres = {stream: file[f"{stream}_centres"] for stream in streams}
                return cls(centres, {stream: int(file[f"{stream}_commonest"]) for stream in streams})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: holds no clusters ({error}); remove it, and they are found again") from None


def find_clusters(windows: Sequence[Sample], model: ModelConfig, config: PredictionConfig, seed: int) -> Clusters:
    """Cluster each stream by k-means on steps of `SAMPLE_WINDOWS` windows; a pure function of its arguments.

    Raises:
        UserError: No stream is present often enough.
    """
    at = evenly_spread(min(SAMPLE_WINDOWS, len(windows)), len(windows))
    streams = target_streams(model)
    seen: dict[str, list[Floats]] = {stream: [] for stream in streams}
    for row in at:
        sample = windows[row]
        for stream in streams:
            values, present = descriptors(sample, stream)
            seen[stream].append(values[present])
    centres, commonest = {}, {}
    for stream in streams:
        found = np.concatenate(seen.pop(stream))
        if len(found) < 2 * STEPS_PER_CLUSTER:
            text = "%s: is present in %d steps, clusters need %d: nothing is predicted of it"
            log.warning(text, stream, len(found), 2 * STEPS_PER_CLUSTER)
            continue
        wanted = min(config.num_clusters, len(found) // STEPS_PER_CLUSTER)
        chosen = found[np.array(evenly_spread(wanted * STEPS_PER_CLUSTER, len(found)))]
        centres[stream] = k_means(chosen, wanted, numpy_rng(seed, "sequence clusters", stream))
        sizes = np.bincount(nearest(found, centres[stream]), minlength=len(centres[stream]))
        commonest[stream] = int(sizes.argmax())
        log.info("%s: %d clusters, the commonest has %.1f %%", stream, len(sizes), 100 * sizes.max() / sizes.sum())
    if not centres:
        raise UserError(
            f"sequence pretraining: no stream is present in {2 * STEPS_PER_CLUSTER} steps of four frames (of"
            f" {len(windows)} windows of train), expected some to cluster; extract more video, or lower"
            " data.frame_stride"
        )
    return Clusters(centres, commonest)


# -- What is hidden


def draw_mask(num_steps: int, config: PredictionConfig, rng: np.random.Generator) -> Flags:
    """(S,) bool: spans of `span_steps`, which together are `mask_ratio` of the steps on average, one at least."""
    span = min(config.span_steps, num_steps)
    count = int(config.mask_ratio * num_steps / span + rng.random())
    count = min(max(count, 1), num_steps // span)
    # places of the spans among as many single steps, each of which then grows to a span
    starts = np.sort(rng.choice(num_steps - count * (span - 1), count, replace=False)) + (span - 1) * np.arange(count)
    mask = np.zeros(num_steps, bool)
    mask[(starts[:, None] + np.arange(span)).ravel()] = True
    return mask


def hide(sample: Sample, masks: dict[str, Flags]) -> Sample:
    """The window with each stream missing in the frames of its masked steps (S,): its features, and its nodes of MSKA.

    A step is the four frames around its centre: 4 s - 2 to 4 s + 1.
    """
    num_frames = sample.num_frames
    present, nodes = dict(sample.present), sample.nodes.copy()
    for stream, mask in masks.items():
        step_of_frame = np.minimum((np.arange(num_frames) + TIME_STRIDE // 2) // TIME_STRIDE, len(mask) - 1)
        hidden = mask[step_of_frame]  # (T,)
        if stream in present:
            present[stream] = present[stream] & ~hidden
        nodes[np.ix_(hidden, NODES[stream])] = 0.0
    return replace(sample, present=present, nodes=nodes)


def hidden_targets(labels: dict[str, Ints], masks: dict[str, Flags]) -> dict[str, Ints]:
    """Stream to the cluster of each hidden step, (S,); `NO_TARGET` elsewhere."""
    return {stream: np.where(masks[stream], clusters, NO_TARGET) for stream, clusters in labels.items()}


def repeated(labels: Ints, mask: Flags) -> Ints:
    """(S,) cluster of the nearest step that is seen, the earlier of two: what repeating it would predict.

    `NO_TARGET` where no step is seen.
    """
    seen = np.flatnonzero(~mask & (labels != NO_TARGET))
    if not len(seen):
        return np.full(len(labels), NO_TARGET)
    distance = np.abs(np.arange(len(labels))[:, None] - seen)  # (S, number of seen steps)
    found: Ints = labels[seen[distance.argmin(axis=1)]]
    return found
