"""k-means with k-means++ start, reproducible: the same result for the same vectors and generator.

Letters: M vectors, D values each, C centres.
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Array, Floats, Ints

MAX_ROUNDS = 10  # of k-means; later ones move next to no vector
BLOCK = 8192  # vectors that are compared with all centres at once


def k_means(sample: Floats, num_clusters: int, rng: np.random.Generator, *, noise_share: float = 0.0) -> Floats:
    """(C, D) float32 centres of a sample (M, D): Lloyd's rounds from a k-means++ start.

    That start (Arthur and Vassilvitskii 2007) spreads the centres, where one at random would lay most of them into the
    densest places. There are fewer than ``num_clusters`` where fewer leave no more than ``noise_share`` of the sample's
    variance: at 0, where the sample has fewer different vectors.
    """
    length = (sample**2).sum(axis=1)  # (M,)
    centres = np.empty((num_clusters, sample.shape[1]), np.float32)
    noise = noise_share * float(((sample - sample.mean(axis=0)) ** 2).sum())
    distance = np.full(len(sample), np.inf)  # (M,) squared, to the nearest centre so far
    at = int(rng.integers(len(sample)))
    for number in range(num_clusters):
        centres[number] = sample[at]
        to_new = np.maximum(length - 2 * (sample @ sample[at]) + length[at], 0)
        to_new[at] = 0
        distance = np.minimum(distance, to_new)
        ends = np.cumsum(distance)
        if ends[-1] <= noise:
            centres = centres[: number + 1]
            break
        at = min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(sample) - 1)
    num_clusters = len(centres)
    labels = np.full(len(sample), -1)
    for _ in range(MAX_ROUNDS):
        before = labels
        labels = nearest(sample, centres)
        if (labels == before).all():
            break
        sizes = np.bincount(labels, minlength=num_clusters)
        sums = [np.bincount(labels, weights=values, minlength=num_clusters) for values in sample.T]  # D times (C,)
        means = np.stack(sums, axis=1) / np.maximum(sizes, 1)[:, None]
        centres = np.where(sizes[:, None] > 0, means, centres).astype(np.float32)
    return centres


def nearest(vectors: Array, centres: Floats) -> Ints:
    """(M,) number of the nearest centre (C, D) to each vector (M, D)."""
    length = (centres**2).sum(axis=1)
    blocks = [vectors[start : start + BLOCK].astype(np.float32) for start in range(0, len(vectors), BLOCK)]
    found = [(length - 2 * (block @ centres.T)).argmin(axis=1) for block in blocks]
    return np.concatenate(found) if found else np.zeros(0, np.int64)
