"""Clips from memory maps: every stream at the frames of the clip, and nothing of what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.crops import Crop
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate import dataset as dataset_module
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.clips import ClipEntry
from signstreams.integrate.dataset import ClipDataset, ClipReader
from signstreams.integrate.nodes import NUM_NODES, gather_nodes, place_nodes
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.videos import Points, ProcessedVideo
from signstreams.streams import STREAMS, BoxState

Build = Callable[..., IntegrateConfig]
Open = Callable[[IntegrateConfig], dict[str, ClipDataset]]
NUM_FRAMES = 12
SIZE_PX = (320, 240)


def test_streams_are_aligned_by_frame_index_and_masked_where_missing(tiny_config: Build, open_splits: Open) -> None:
    thawed = {f"freeze_{key}_backbone": False for key in ("face", "hand_left", "hand_right")}
    config = tiny_config(data={"frame_stride": 3}, model=thawed)
    layout = CorpusLayout(config.root)
    clips = open_splits(config)
    assert {split: len(samples) for split, samples in clips.items()} == {"train": 10, "val": 3, "test": 3}
    assert clips["train"].lengths == [sample.num_frames for sample in clips["train"]]
    sample = clips["train"][1]
    frozen = open_splits(tiny_config(data={"frame_stride": 3}))["train"][1]
    tracks = read_tracks(layout.tracks(sample.clip_id))
    frames = np.arange(len(tracks.times_s))[::3]
    assert sample.num_frames == len(frames)
    points = read_keypoints(layout.keypoints(sample.clip_id))[frames]
    expected = place_nodes(gather_nodes(points), 320, 240)
    np.testing.assert_array_equal(sample.nodes, expected)
    for stream in STREAMS:
        there = tracks.streams[stream].state[frames] != BoxState.MISSING
        np.testing.assert_array_equal(sample.present[stream], there)
        np.testing.assert_array_equal(frozen.present[stream], there)
        np.testing.assert_array_equal(frozen.features[stream].any(axis=1), there)
        assert [crop.frame for crop in sample.crops[stream] if crop is not None] == frames[there].tolist()
    assert not sample.present["hand_l"].all() and sample.present["face"].all()
    entry = clips["train"].entries[1]
    assert entry.clip_id == sample.clip_id and entry.text.endswith(".") and entry.gloss is not None


def test_blank_video_hides_every_stream(own_corpus: Path, tiny_config: Build, open_splits: Open) -> None:
    seen, hidden = (
        open_splits(tiny_config(root=own_corpus, data={"blank_video": blank}))["val"][0] for blank in (False, True)
    )
    assert all(there.any() for there in seen.present.values()) and seen.nodes.any() and seen.pose.any()
    assert not any(there.any() for there in hidden.present.values())
    assert not hidden.nodes.any() and not hidden.pose.any()
    assert not any(values.any() for values in hidden.features.values())
    assert hidden.nodes.shape == seen.nodes.shape
    assert (hidden.clip_id, hidden.gloss_ids) == (seen.clip_id, seen.gloss_ids)


def _entry(frames: range = range(1, 11, 3), video_id: str = "v") -> ClipEntry:
    video = ProcessedVideo(video_id, SIZE_PX, {})
    return ClipEntry("c", "train", "Hola.", ("HOLA",), video, frames, (5, 6, 1), (2,))


@pytest.fixture
def points(tmp_path: Path) -> Points:
    """Of video v; the body is not there in frame 4, its left wrist not in frame 7."""
    rng = np.random.default_rng(0)
    found = Points(*(ArrayStore(tmp_path / name) for name in ("times", "pose", "nodes")))
    pose, nodes = (rng.uniform(0.1, 0.9, (NUM_FRAMES, count, 3)).astype(np.float32) for count in (7, NUM_NODES))
    pose[4], pose[7, 5] = (-1, -1, 0), (-1, -1, 0)
    assert found.nodes is not None
    found.times_s.add("v", "source", np.arange(NUM_FRAMES) / 25)
    found.pose.add("v", "source", pose)
    found.nodes.add("v", "source", nodes)
    return found


def _features(folder: Path, *shape: int) -> ArrayStore:
    """Of video v; the stream is not there in frames 0, 1 and 10."""
    store, values = ArrayStore(folder), np.random.default_rng(1).normal(size=(NUM_FRAMES, *shape)).astype(np.float16)
    values[[0, 1, 10]] = np.nan
    store.add("v", "source", values)
    return store


@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=["last block", "all blocks"])
def test_every_stream_is_read_at_the_frames_of_the_clip(points: Points, tmp_path: Path, shape: tuple[int, ...]) -> None:
    store = _features(tmp_path / "face", *shape)
    sample = ClipReader(CorpusLayout(tmp_path), points, {"face": store}).load(_entry())
    frames = [1, 4, 7, 10]
    assert sample.present["face"].tolist() == [False, True, True, False]
    assert sample.features["face"].dtype == np.float16
    expected = np.nan_to_num(store["v"][frames])
    np.testing.assert_array_equal(sample.features["face"], expected)
    assert sample.present["pose"].tolist() == [True, False, True, True]
    pose = points.pose["v"][frames].copy()
    pose[1] = 0  # not -1: a model would take that for a place
    pose[2, 5] = 0
    np.testing.assert_array_equal(sample.pose, pose.reshape(4, 21))
    assert points.nodes is not None
    np.testing.assert_array_equal(sample.nodes, place_nodes(points.nodes["v"][frames], *SIZE_PX))
    assert (sample.clip_id, sample.tokens, sample.gloss_ids, sample.crops) == ("c", [5, 6, 1], [2], {})


def test_streams_that_are_not_used_are_left_out(points: Points, tmp_path: Path) -> None:
    without = Points(points.times_s, points.pose, None)
    sample = ClipReader(CorpusLayout(tmp_path), without, {}, uses_pose=False).load(_entry())
    assert sample.present == {}
    assert sample.nodes.shape == (4, NUM_NODES, 3) and not sample.nodes.any()


def test_what_is_loaded_is_a_copy(points: Points, tmp_path: Path) -> None:
    source = ClipReader(CorpusLayout(tmp_path), points, {"face": _features(tmp_path / "face", 4)})
    first, again = source.load(_entry()), source.load(_entry())
    first.features["face"][:], first.pose[:], first.nodes[:] = 7, 7, 7
    third = source.load(_entry())
    np.testing.assert_array_equal(third.features["face"], again.features["face"])
    np.testing.assert_array_equal(third.pose, again.pose)
    np.testing.assert_array_equal(third.nodes, again.nodes)


def _crop(video_id: str, frame: int) -> Crop:
    return Crop(video_id, frame, Path(video_id), None, 0, None)


def test_crops_are_listed_once_a_video_and_few_lists_are_kept(
    points: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []

    def present(layout: CorpusLayout, stream: str, video_id: str) -> tuple[int, dict[int, Crop]]:
        listed.append(video_id)
        return NUM_FRAMES, {frame: _crop(video_id, frame) for frame in (1, 7)}

    monkeypatch.setattr(dataset_module, "present_crops", present)
    monkeypatch.setattr(dataset_module, "MAX_LISTED", 2)
    for video_id in ("a", "b"):
        points.pose.add(video_id, "source", np.asarray(points.pose["v"]))
    source = ClipReader(CorpusLayout(tmp_path), Points(points.times_s, points.pose, None), {}, trained=["hand_l"])
    sample = source.load(_entry())
    assert sample.crops["hand_l"] == [_crop("v", 1), None, _crop("v", 7), None]
    assert sample.present["hand_l"].tolist() == [True, False, True, False]
    for video_id in ("v", "a", "v", "b", "v", "a"):  # the one that was used last is kept
        source.load(_entry(video_id=video_id))
    assert listed == ["v", "a", "b", "a"]
    source.is_blank = True
    hidden = source.load(_entry())
    assert hidden.crops["hand_l"] == [None] * 4 and not hidden.present["hand_l"].any()


def test_clips_are_a_sequence_that_reads_what_is_asked_for(points: Points, tmp_path: Path) -> None:
    source = ClipReader(CorpusLayout(tmp_path), points, {})
    clips = ClipDataset([_entry(range(4)), _entry(range(2, 12, 2), "absent")], source)
    assert (len(clips), clips.lengths) == (2, [4, 5])
    assert clips[0].num_frames == 4
    rows = iter(clips)
    assert next(rows).num_frames == 4
    with pytest.raises(KeyError):  # not before it is its turn
        next(rows)
