"""Clusters of vectors: found where they are, the same each time."""

from __future__ import annotations

import numpy as np

from signstreams.engine.k_means import BLOCK, k_means, nearest
from signstreams.engine.seeding import numpy_rng

PLACES = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)


def test_clusters_are_found_where_they_are_however_uneven_their_sizes() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(4), [900, 80, 15, 5])
    sample = (PLACES[true] + rng.normal(0, 0.3, (1000, 2))).astype(np.float32)
    centres = k_means(sample, 4, numpy_rng(0, "test"))
    assert np.abs(centres[nearest(PLACES, centres)] - PLACES).max() < 0.5
    labels = nearest(sample, centres)
    assert all(len(np.unique(labels[true == one])) == 1 for one in range(4)) and len(np.unique(labels)) == 4


def test_the_same_generator_gives_the_same_centres_and_another_may_give_others() -> None:
    sample = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    first, again, other = (k_means(sample, 20, numpy_rng(seed, "test")) for seed in (0, 0, 1))
    assert first.shape == (20, 6) and first.dtype == np.float32
    assert (first == again).all() and not (first == other).all()


def test_there_are_no_more_clusters_than_different_vectors_or_than_leave_noise() -> None:
    sample = np.tile(PLACES, (50, 1))
    assert len(k_means(sample, 9, numpy_rng(0, "test"))) == 4
    noisy = sample + np.random.default_rng(2).normal(0, 0.1, sample.shape).astype(np.float32)
    assert len(k_means(noisy, 9, numpy_rng(0, "test"))) == 9
    assert len(k_means(noisy, 9, numpy_rng(0, "test"), noise_share=0.05)) == 4


def test_the_nearest_centre_is_that_by_brute_force_in_every_block() -> None:
    rng = np.random.default_rng(3)
    vectors, centres = rng.normal(size=(BLOCK + 7, 3)).astype(np.float32), rng.normal(size=(11, 3)).astype(np.float32)
    expected = np.linalg.norm(vectors[:, None] - centres, axis=-1).argmin(axis=1)
    assert (nearest(vectors, centres) == expected).all()
    assert nearest(vectors[:0], centres).shape == (0,)
