"""Crops that look alike: clusters, to be drawn from equally often, and near-duplicates, to be counted once.

Signing footage is uneven: a hand at rest fills minutes, a rare handshape a few frames. Clusters are by hand points
where extraction saw the hand, since they do not depend on light, sleeve and background (92 clusters of 8,542 real right
hands, by k-means from a random start, explain 89 % of the variance of the points), and by histograms of oriented
gradients elsewhere (57 %; grey values 48 %).

Letters: N crops, D values of a descriptor.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Array, Floats, Ints, Pixels
from signstreams.engine.k_means import k_means, nearest
from signstreams.engine.seeding import numpy_rng
from signstreams.formats.crops import evenly_spread
from signstreams.pretrain.crop_index import CropIndex
from signstreams.pretrain.crop_points import crop_points, has_hand_points, point_shapes
from signstreams.pretrain.selection import by_video, measured_once, of_each_crop
from signstreams.pretrain.views import decode

log = logging.getLogger(__name__)

CLUSTER_CACHE = "clusters.npz"
CROPS_PER_CLUSTER, MIN_CLUSTERS, MAX_CLUSTERS = 50, 8, 1024
"""Many clusters, so that the rare ones are pure; no more than that, so that time is bounded for millions of crops."""
SAMPLE_PER_CLUSTER = 64  # crops that the clusters are found on, for each
NOISE_SHARE = 0.05
"""Share of the crops' variance below which clusters are not split further: what is left is the detector's tremor, and a
rest pose would become many clusters."""
PICTURE_PX, CELL_PX, NUM_ANGLES = 64, 16, 9
_PICTURE_SCALE = 512  # of a histogram's values, below .5, to 8 bits: 288 MB for two million crops
_METHOD = "k-means++ 1"  # counts up when the clusters of the same crops become others

DISTINCT_PX = 16
DISTINCT_LEVELS = 4.0
"""Grey levels, root of the mean square over 16 x 16 px, up to which two crops of a video are near-duplicates."""
DISTINCT_RUN, MAX_DISTINCT_RUNS = 64, 320
"""Crops in a row, and rows of them, that are looked at in a large corpus: its size makes no difference."""


# -- Clusters


def crop_clusters(index: CropIndex, *, stream: str | None, cache_dir: Path | None) -> Ints:
    """(N,) int32 cluster of each crop, from 0 without gaps; found once and kept in ``cache_dir``.

    By the points of the hand where the folders are of hands and have `keypoints` beside them, for the crops in which
    extraction saw the hand; by the picture for all others. A pure function of the crops and their points.

    Raises:
        UserError: A crop or its video's points cannot be read, or some videos lack points.
    """
    has_points = has_hand_points(index, stream)
    path = cache_dir / CLUSTER_CACHE if cache_dir is not None else None
    digest = f"{_METHOD} {'points' if has_points else 'pictures'} {index.digest}"
    clusters: Ints = measured_once(
        path, digest, "cluster", len(index), lambda: _find_clusters(index, stream, has_points)
    )
    sizes = np.sort(np.bincount(clusters))
    log.info(
        "%s clusters of alike %s: the largest has %s of %s crops, the median one %d",
        *(f"{len(sizes):,}", "hand points" if has_points else "pictures", f"{sizes[-1]:,}", f"{len(index):,}"),
        int(np.median(sizes)),
    )
    return clusters


def _find_clusters(index: CropIndex, stream: str | None, has_points: bool) -> Ints:
    clusters = np.empty(len(index), np.int32)
    is_seen = np.zeros(len(index), bool)
    if has_points:
        shapes = point_shapes(crop_points(index, stream, needed_by="dataset.cluster_balance"))  # (N, 42)
        is_seen = np.array(np.isfinite(shapes).all(axis=1))
        if is_seen.any():
            clusters[is_seen] = cluster(shapes[is_seen])
        del shapes
    if not is_seen.all():
        first = int(clusters[is_seen].max()) + 1 if is_seen.any() else 0
        clusters[~is_seen] = first + cluster(of_each_crop(index.take(~is_seen), picture_histograms))
    return clusters


def picture_histograms(jpeg: bytes) -> Ints:
    """(144,) uint8 histograms of oriented gradients (Dalal and Triggs 2005) of the grey crop at 64 px, one block.

    Raises:
        ValueError: When the bytes are no image.
    """
    px, cell = (PICTURE_PX, PICTURE_PX), (CELL_PX, CELL_PX)
    found = cv2.HOGDescriptor(px, px, cell, cell, NUM_ANGLES).compute(_grey(jpeg, PICTURE_PX))
    return np.minimum(np.round(np.ravel(found) * _PICTURE_SCALE), 255).astype(np.uint8)


def cluster(descriptors: Array) -> Ints:
    """(N,) int32 cluster of each descriptor (N, D), from 0 without gaps.

    By k-means++ on an even sample: a start at random would cut a rest pose into many clusters.
    """
    count = len(descriptors)
    num_clusters = min(count, max(MIN_CLUSTERS, min(MAX_CLUSTERS, count // CROPS_PER_CLUSTER)))
    at = evenly_spread(min(count, num_clusters * SAMPLE_PER_CLUSTER), count)
    sample = descriptors[np.array(at)].astype(np.float32)
    centres = k_means(sample, num_clusters, numpy_rng(0, "clusters"), noise_share=NOISE_SHARE)
    return np.unique(nearest(descriptors, centres), return_inverse=True)[1].astype(np.int32)


# -- Near-duplicates


def num_distinct_crops(index: CropIndex) -> int:
    """Number of crops, near-duplicates counted once.

    A crop is a near-duplicate if it differs from the last distinct one before it in its video by no more than
    `DISTINCT_LEVELS`. Single images are all distinct, and not read. Of more than 20,480 crops as many are looked at, in
    rows that are spread evenly over all.

    Raises:
        UserError: When a crop cannot be read.
    """
    num_crops, num_videos = len(index), len(np.unique(index.video))
    if num_videos == num_crops:
        return num_crops
    rows = [(0, num_crops)]
    if num_crops > DISTINCT_RUN * MAX_DISTINCT_RUNS:
        starts = evenly_spread(MAX_DISTINCT_RUNS, num_crops - DISTINCT_RUN)
        rows = [(start, start + DISTINCT_RUN) for start in starts]
    looked_at = np.concatenate([np.arange(*row) for row in rows])
    pictures = of_each_crop(index.take(looked_at), _small_grey).astype(np.float32)  # (M, 256)
    first = num_followers = num_new = 0
    for start, end in rows:
        for _, at in by_video(index.take(np.arange(start, end))):
            num_followers += at.stop - at.start - 1
            num_new += _num_new(pictures[first + at.start : first + at.stop])
        first += end - start
    share = num_new / num_followers if num_followers else 1.0
    return num_videos + round(share * (num_crops - num_videos))


def _num_new(pictures: Floats) -> int:
    """How many pictures (M, P) of a video differ from the last distinct one; the first one does not count."""
    last, count = pictures[0], 0
    for picture in pictures[1:]:
        difference = picture - last
        if difference @ difference > len(picture) * DISTINCT_LEVELS**2:
            last, count = picture, count + 1
    return count


def _small_grey(jpeg: bytes) -> Pixels:
    return _grey(jpeg, DISTINCT_PX).ravel()


def _grey(jpeg: bytes, side_px: int) -> Pixels:
    """(side, side) uint8 of a crop.

    Raises:
        ValueError: When the bytes are no image.
    """
    grey = cv2.cvtColor(decode(jpeg, side_px), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (side_px, side_px), interpolation=cv2.INTER_AREA)
