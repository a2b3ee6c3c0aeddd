"""The hand points of crops: where they are in the crop, which crops have none, and what a folder without them says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.formats.arrays import read_keypoints, read_tracks, write_keypoints
from signstreams.formats.landmarks import REGIONS
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.pretrain.crop_index import CropIndex, build_index
from signstreams.pretrain.hand_points import SHAPE_DIM, hand_points, hand_shapes


def index_of(layout: CorpusLayout) -> CropIndex:
    index, problems = build_index([layout.processed / "hand_r"])
    assert not problems
    return index


def test_points_are_shares_of_the_crop_that_was_cut_around_them(hands_corpus: CorpusLayout) -> None:
    index = index_of(hands_corpus)
    points = hand_points(index, None, needed_by="a test")
    assert points.shape == (len(index), 21, 2) and points.dtype == np.float32
    for i, crop in enumerate(index):  # by the formula, crop by crop
        about = read_metadata(hands_corpus.metadata(crop.video_id))
        box = read_tracks(hands_corpus.tracks(crop.video_id)).streams["hand_r"].box[crop.frame]
        found = read_keypoints(hands_corpus.keypoints(crop.video_id))[crop.frame, REGIONS["hand_r"]]
        if (found[:, 2] <= 0.1).any():
            assert np.isnan(points[i]).all()
            continue
        x = (found[:, 0] * about.width_px - box[0]) / (box[2] - box[0])
        y = (found[:, 1] * about.height_px - box[1]) / (box[3] - box[1])
        np.testing.assert_allclose(points[i], np.stack((x, y), axis=1), atol=1e-5)
        assert points[i].min() > -0.2 and points[i].max() < 1.2
    is_unseen = np.isnan(points).all(axis=(1, 2))
    np.testing.assert_array_equal(is_unseen, index.frame % 4 == 0)


def test_points_of_a_mirrored_crop_are_mirrored_as_its_pixels_are(hands_corpus: CorpusLayout) -> None:
    folder = hands_corpus.processed / "hand_r"
    index, _ = build_index([folder], mirrored=["hand_r"])
    assert all(crop.is_mirrored for crop in index)
    points = hand_points(index, None, needed_by="a test")
    expected = hand_points(index_of(hands_corpus), None, needed_by="a test")
    np.testing.assert_allclose(points, expected * [-1, 1] + [1, 0], atol=1e-6)
    np.testing.assert_allclose(hand_shapes(points)[:, ::2], -hand_shapes(expected)[:, ::2], atol=1e-5)


def test_some_crops_have_the_points_that_all_have(hands_corpus: CorpusLayout) -> None:
    index = index_of(hands_corpus)
    some = np.sort(np.random.default_rng(0).permutation(len(index))[:17])
    expected = hand_points(index, None, needed_by="a test")[some]
    np.testing.assert_array_equal(hand_points(index.take(some), None, needed_by="a test"), expected)


def test_the_shape_of_a_hand_has_no_place_and_no_size(hands_corpus: CorpusLayout) -> None:
    points = hand_points(index_of(hands_corpus), None, needed_by="a test")
    shapes = hand_shapes(points)
    assert shapes.shape == (len(points), SHAPE_DIM)
    np.testing.assert_array_equal(np.isnan(shapes).all(axis=1), np.isnan(points).all(axis=(1, 2)))
    np.testing.assert_allclose(hand_shapes(points * 112 + [3, -50]), shapes, atol=1e-5)
    seen = shapes[~np.isnan(shapes).any(axis=1)].reshape(-1, 21, 2)
    np.testing.assert_allclose(seen.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose((seen**2).sum(axis=(1, 2)), 1, rtol=1e-5)


def test_a_folder_without_points_is_refused_in_a_line_for_each_video(
    hands_corpus: CorpusLayout, tmp_path: Path
) -> None:
    layout = CorpusLayout(tmp_path / "copy")
    shutil.copytree(hands_corpus.root, layout.root)
    index = index_of(layout)
    write_keypoints(layout.keypoints("v1"), read_keypoints(layout.keypoints("v1"))[:20])
    layout.tracks("v2").write_bytes(layout.tracks("v2").read_bytes()[:200])
    layout.keypoints("v3").unlink()
    with pytest.raises(UserError) as refused:
        hand_points(index, None, needed_by="points.weight")
    short, damaged, absent = refused.value.problems
    assert short.startswith(f"{layout.keypoints('v1')}: has fewer frames than {layout.processed / 'hand_r'} has crops")
    assert damaged.startswith(f"{layout.tracks('v2')}: is not a readable npz file")
    assert absent == (
        f"{layout.keypoints('v3')}: no such file, but points.weight needs it; extract the video, or leave it out"
    )


def test_crops_that_are_of_no_hand_are_refused(hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    folder = tmp_path / "right"
    shutil.copytree(hands_corpus.processed / "hand_r", folder)
    index, _ = build_index([folder])
    with pytest.raises(
        UserError, match=r"right: points\.weight needs hand points, and this is not a folder of hand_l or"
    ):
        hand_points(index, None, needed_by="points.weight")
    with pytest.raises(UserError, match="not a folder of"):
        hand_points(index, "face", needed_by="points.weight")
