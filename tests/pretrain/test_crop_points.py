"""The points of crops: where they are in the crop, which crops have none, and what a folder without them says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.formats.arrays import Tracks, read_keypoints, read_tracks, write_keypoints, write_tracks
from signstreams.formats.landmarks import EXPRESSION, FACE, IBUG_68, REGIONS
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata, write_metadata
from signstreams.pretrain.crop_index import CropIndex, build_index
from signstreams.pretrain.crop_points import SHAPE_DIM, crop_points, point_shapes
from signstreams.pretrain.points_teacher import PointTargets


def index_of(layout: CorpusLayout) -> CropIndex:
    index, problems = build_index([layout.processed / "hand_r"])
    assert not problems
    return index


def test_points_are_shares_of_the_crop_that_was_cut_around_them(hands_corpus: CorpusLayout) -> None:
    index = index_of(hands_corpus)
    points = crop_points(index, None, needed_by="a test")
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
    points = crop_points(index, None, needed_by="a test")
    expected = crop_points(index_of(hands_corpus), None, needed_by="a test")
    np.testing.assert_allclose(points, expected * [-1, 1] + [1, 0], atol=1e-6)
    np.testing.assert_allclose(point_shapes(points)[:, ::2], -point_shapes(expected)[:, ::2], atol=1e-5)


def test_some_crops_have_the_points_that_all_have(hands_corpus: CorpusLayout) -> None:
    index = index_of(hands_corpus)
    some = np.sort(np.random.default_rng(0).permutation(len(index))[:17])
    expected = crop_points(index, None, needed_by="a test")[some]
    np.testing.assert_array_equal(crop_points(index.take(some), None, needed_by="a test"), expected)


def test_the_shape_of_a_hand_has_no_place_and_no_size(hands_corpus: CorpusLayout) -> None:
    points = crop_points(index_of(hands_corpus), None, needed_by="a test")
    shapes = point_shapes(points)
    assert shapes.shape == (len(points), SHAPE_DIM)
    np.testing.assert_array_equal(np.isnan(shapes).all(axis=1), np.isnan(points).all(axis=(1, 2)))
    np.testing.assert_allclose(point_shapes(points * 112 + [3, -50]), shapes, atol=1e-5)
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
        crop_points(index, None, needed_by="points.weight")
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
        UserError, match=r"right: points\.weight needs points of hand_l or hand_r, and this is a folder of neither"
    ):
        crop_points(index, None, needed_by="points.weight")
    with pytest.raises(UserError, match="this is a folder of neither"):
        crop_points(index, "face", needed_by="points.weight")


def test_points_of_faces_are_21_of_the_mesh_unless_the_crops_hide_them(
    hands_corpus: CorpusLayout, tmp_path: Path
) -> None:
    """The corpus of hands, as if each were a face whose lips, lids and brows lie where the hand's points did."""
    layout = CorpusLayout(tmp_path / "faces")
    shutil.copytree(hands_corpus.root, layout.root)
    (layout.processed / "hand_r").rename(layout.processed / "face")
    for video in ("v0", "v1", "v2", "v3", "v4"):
        keypoints = read_keypoints(layout.keypoints(video))
        keypoints[:, np.add(FACE.start, EXPRESSION)] = keypoints[:, REGIONS["hand_r"]]
        write_keypoints(layout.keypoints(video), keypoints)
        tracks = read_tracks(layout.tracks(video))
        write_tracks(layout.tracks(video), Tracks(tracks.streams | {"face": tracks.streams["hand_r"]}, tracks.times_s))
    hidden = read_metadata(layout.metadata("v4"))
    write_metadata(layout.metadata("v4"), hidden.model_copy(update={"face_privacy": "eyes-mouth"}))
    index, problems = build_index([layout.processed / "face"])
    assert not problems and len(set(EXPRESSION)) == 21 and set(EXPRESSION) < set(IBUG_68.tolist())
    points = crop_points(index, None, needed_by="a test", streams=("face", "hand_l", "hand_r"))
    expected = crop_points(index_of(hands_corpus), None, needed_by="a test")
    expected[[crop.video_id == "v4" for crop in index]] = np.nan
    np.testing.assert_array_equal(points, expected)
    # the teacher takes them less the mean of their video: whose face it is does not count
    train, probe = index.take(index.frame != 9), index.take(index.frame == 9)
    targets = PointTargets.of(points[index.frame != 9], train, probe, "face")
    shapes = targets.train.astype(np.float64) * targets.scale.std + targets.scale.mean
    np.testing.assert_allclose(targets.scale.mean, 0, atol=1e-6)
    for video in range(4):
        own, of_probe = shapes[train.video == video], targets.probe[probe.video == video]
        np.testing.assert_allclose(np.nanmean(own, axis=0), 0, atol=1e-3)
        seen = point_shapes(points[(index.frame != 9) & (index.video == video)])
        held_out = point_shapes(points[(index.frame == 9) & (index.video == video)]) - np.nanmean(seen, axis=0)
        np.testing.assert_allclose(of_probe * targets.scale.std, held_out, atol=1e-3)
    assert np.isnan(targets.train[train.video == 4]).all() and np.isnan(targets.probe[probe.video == 4]).all()
    with pytest.raises(UserError, match=r"other_signer_prob needs points of hand_l or hand_r, and this"):
        crop_points(index, None, needed_by="positives.other_signer_prob")
