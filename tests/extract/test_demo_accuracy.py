"""Extraction of the rendered corpus against its ground truth: signers are found, boxes sit, left is never right."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from signstreams.demo.video import true_boxes
from signstreams.extract.batch import extract_videos
from signstreams.extract.settings import BoxConfig, ExtractConfig
from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.landmarks import HAND_L, HAND_R
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import HAND_STREAMS, BoxState

HANDS = (("hand_l", HAND_L, "left_wrist", "right_wrist"), ("hand_r", HAND_R, "right_wrist", "left_wrist"))


class Hands(NamedTuple):
    """All frames of all videos, one row a frame and side.

    Attributes:
        error_px: (N,) distance of the box's centre from the true hand's.
        other_px: (N,) the same to the other hand of the person.
        iou: (N,) overlap with the true box of the same scale.
        side_px: (N,) side of the box.
        state: (N,) uint8 of `BoxState`.
        is_visible: (N,) whether the true hand is in the frame and not hidden.
    """

    error_px: np.ndarray
    other_px: np.ndarray
    iou: np.ndarray
    side_px: np.ndarray
    state: np.ndarray
    is_visible: np.ndarray


@pytest.fixture(scope="module")
def layout(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> CorpusLayout:
    """The tiny corpus' videos, extracted with the defaults, beside the corpus that other tests share."""
    config = ExtractConfig(videos=[CorpusLayout(tiny_corpus).videos], root=tmp_path_factory.mktemp("demo"))
    metadata = extract_videos(config).extracted
    for found in metadata.values():
        assert found.num_pose_frames >= 0.99 * found.num_frames
        assert found.num_face_frames >= 0.99 * found.num_frames
    return CorpusLayout(config.root)


def video_ids(layout: CorpusLayout) -> list[str]:
    return sorted(path.stem for path in (layout.processed / "metadata").glob("*.json"))


@pytest.fixture(scope="module")
def hands(layout: CorpusLayout, tiny_corpus: Path) -> Hands:
    """Boxes beside the truth."""
    columns: list[list[np.ndarray]] = [[] for _ in Hands._fields]
    for video_id in video_ids(layout):
        tracks = read_tracks(layout.tracks(video_id))
        with np.load(CorpusLayout(tiny_corpus).ground_truth(video_id), allow_pickle=False) as file:
            truth = {name: file[name] for name in file.files}
        true = true_boxes(truth, BoxConfig().face_scale, BoxConfig().hand_scale)
        for stream, other in zip(HAND_STREAMS, HAND_STREAMS[::-1], strict=True):
            track = tracks.streams[stream]
            centre = (track.box[:, :2] + track.box[:, 2:]) / 2
            values = (
                np.linalg.norm(centre - true[stream][:, :2], axis=1),
                np.linalg.norm(centre - true[other][:, :2], axis=1),
                overlaps(track.box, true[stream]),
                track.box[:, 2] - track.box[:, 0],
                track.state,
                truth[f"{stream}_visible"],
            )
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    return Hands(*map(np.concatenate, columns))


def overlaps(box: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(T,) IoU of boxes (T, 4) as corners with (T, 3) as centre and side."""
    low, high = true[:, :2] - true[:, 2:] / 2, true[:, :2] + true[:, 2:] / 2
    shared = np.clip(np.minimum(box[:, 2:], high) - np.maximum(box[:, :2], low), 0, None).prod(axis=1)
    return shared / ((box[:, 2:] - box[:, :2]).prod(axis=1) + true[:, 2] ** 2 - shared)


def test_face_boxes_sit_on_the_face(layout: CorpusLayout, tiny_corpus: Path) -> None:
    off, iou = [], []
    for video_id in video_ids(layout):
        track = read_tracks(layout.tracks(video_id)).streams["face"]
        assert (track.state == BoxState.DETECTED).all()
        with np.load(CorpusLayout(tiny_corpus).ground_truth(video_id), allow_pickle=False) as file:
            true = true_boxes(file, BoxConfig().face_scale, BoxConfig().hand_scale)["face"]
        off.append(np.linalg.norm((track.box[:, :2] + track.box[:, 2:]) / 2 - true[:, :2], axis=1) / true[:, 2])
        iou.append(overlaps(track.box, true))
    assert np.median(np.concatenate(off)) < 0.04
    assert np.quantile(np.concatenate(iou), 0.05) > 0.8


def test_visible_hands_have_a_box_in_97_percent_of_frames(hands: Hands) -> None:
    has_box = hands.state[hands.is_visible] != BoxState.MISSING
    is_on_hand = hands.iou[hands.is_visible] > 0.3
    assert (has_box & is_on_hand).mean() >= 0.97


def test_boxes_sit_on_the_hands(hands: Hands) -> None:
    use = hands.is_visible & (hands.state == BoxState.DETECTED)
    assert np.median(hands.error_px[use] / hands.side_px[use]) < 0.04
    assert np.percentile(hands.error_px[use] / hands.side_px[use], 95) < 0.15
    assert np.median(hands.iou[use]) > 0.8


def test_left_and_right_never_swap(hands: Hands) -> None:
    use = hands.is_visible & (hands.state != BoxState.MISSING)
    assert use.sum() > 300
    assert not (hands.other_px[use] < 0.5 * hands.error_px[use]).any()


@pytest.mark.parametrize(("stream", "rows", "own", "opposite"), HANDS)
def test_visible_hands_are_found_and_their_points_are_those_of_the_true_hand(
    stream: str, rows: slice, own: str, opposite: str, layout: CorpusLayout, tiny_corpus: Path
) -> None:
    num_visible, errors_px, extents_px = 0, [], []
    for video_id in video_ids(layout):
        keypoints = read_keypoints(layout.keypoints(video_id))
        with np.load(CorpusLayout(tiny_corpus).ground_truth(video_id), allow_pickle=False) as truth:
            is_visible = truth[f"{stream}_visible"]
            found = (keypoints[:, rows.start, 2] > 0) & is_visible
            points = keypoints[found, rows, :2] * (int(truth["width"]), int(truth["height"]))  # (N, 21, 2)
            true, body, names = truth[stream][found], truth["body"][found], truth["body_names"].tolist()
        num_visible += is_visible.sum()
        errors_px.append(np.linalg.norm(points - true, axis=-1).mean(axis=1))
        extents_px.append(np.ptp(true, axis=1).max(axis=1))
        wrist, other = body[:, names.index(own)], body[:, names.index(opposite)]
        near, far = (np.linalg.norm(points.mean(axis=1) - one, axis=1) for one in (wrist, other))
        are_close = np.linalg.norm(wrist - other, axis=1) < 120
        assert not ((far < near) & ~are_close).any()  # never the other hand
    errors, extents = np.concatenate(errors_px), np.concatenate(extents_px)
    assert num_visible > 150
    assert len(errors) >= 0.85 * num_visible
    assert (errors < 20).mean() >= 0.95
    assert np.median(errors / extents) < 0.1
