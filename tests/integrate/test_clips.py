"""Clips from memory maps: every stream at the frames of the clip, and nothing of what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from signstreams.config.integrate import IntegrateConfig
from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.clips import Clips
from signstreams.integrate.nodes import to_nodes
from signstreams.streams import STREAMS, BoxState

Build = Callable[..., IntegrateConfig]
Open = Callable[[IntegrateConfig], dict[str, Clips]]


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
    expected = to_nodes(read_keypoints(layout.keypoints(sample.clip_id)).keypoints[frames], 320, 240)
    np.testing.assert_array_equal(sample.nodes, expected)
    for stream in STREAMS:
        there = tracks.streams[stream].state[frames] != BoxState.MISSING
        np.testing.assert_array_equal(sample.present[stream], there)
        np.testing.assert_array_equal(frozen.present[stream], there)
        np.testing.assert_array_equal(frozen.features[stream].any(axis=1), there)
        assert [crop.frame for crop in sample.crops[stream] if crop is not None] == frames[there].tolist()
    assert not sample.present["hand_l"].all() and sample.present["face"].all()
    assert sample.text.endswith(".") and sample.gloss is not None


def test_blank_video_hides_every_stream(own_corpus: Path, tiny_config: Build, open_splits: Open) -> None:
    seen, hidden = (
        open_splits(tiny_config(root=own_corpus, data={"blank_video": blank}))["val"][0] for blank in (False, True)
    )
    assert all(there.any() for there in seen.present.values()) and seen.nodes.any() and seen.pose.any()
    assert not any(there.any() for there in hidden.present.values())
    assert not hidden.nodes.any() and not hidden.pose.any()
    assert not any(values.any() for values in hidden.features.values())
    assert hidden.nodes.shape == seen.nodes.shape and hidden.text == seen.text
