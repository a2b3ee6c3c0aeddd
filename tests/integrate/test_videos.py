"""Processed videos: what their metadata say, which arrays are made of them and when, and what is a problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstreams.files import sha256_file
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks, write_pose
from signstreams.formats.landmarks import pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata, write_metadata
from signstreams.integrate.array_store import JOURNAL, ArrayStore
from signstreams.integrate.nodes import gather_nodes
from signstreams.integrate.videos import (
    POINT_KINDS,
    POSE_POINTS,
    Points,
    ProcessedVideo,
    check_lengths,
    embed_points,
    extraction_settings,
    fps_range,
    log_quarantined_clips,
    open_points,
    processed_file,
    read_videos,
)

KINDS = tuple(POINT_KINDS.values())


@pytest.fixture
def layout(own_corpus: Path) -> CorpusLayout:
    return CorpusLayout(own_corpus)


@pytest.fixture
def ids(layout: CorpusLayout) -> list[str]:
    return sorted(path.stem for path in (layout.processed / "metadata").iterdir())


def _change(layout: CorpusLayout, video_id: str, **fields: Any) -> None:
    path = layout.metadata(video_id)
    write_metadata(path, read_metadata(path).model_copy(update=fields))


def _lines(points: Points) -> list[int]:
    """Of each journal: how many arrays were ever made."""
    stores = [points.times_s, points.pose, points.nodes]
    return [len((store.folder / JOURNAL).read_text().splitlines()) for store in stores if store is not None]


def test_a_video_is_known_by_its_metadata_and_the_digests_of_its_files(layout: CorpusLayout, ids: list[str]) -> None:
    _change(layout, ids[0], width_px=640, height_px=360, checksums={"pose": "abc", "face": "def"})
    videos, quarantined, problems = read_videos(layout, ids[:2], ["pose", "keypoints", "face"])
    assert (list(videos), quarantined, problems) == (ids[:2], [], [])
    first, second = videos.values()
    assert (first.size_px, second.size_px) == ((640, 360), (320, 240))
    # extraction's checksum stands for the file as long as its size is the same; without one the file is read
    assert first.sources["pose"] == f"abc:{layout.pose(ids[0]).stat().st_size}"
    assert first.sources["face"] == f"def:{layout.crops('face', ids[0]).stat().st_size}"
    assert first.sources["keypoints"] == sha256_file(layout.keypoints(ids[0]))
    assert second.sources["pose"] == sha256_file(layout.pose(ids[1]))
    assert second.sources["face"] not in ("", first.sources["face"])


@pytest.mark.parametrize("kind", ["pose", "face"])
@pytest.mark.parametrize("has_checksum", [True, False])
def test_another_file_is_another_source(layout: CorpusLayout, ids: list[str], kind: str, has_checksum: bool) -> None:
    if has_checksum:
        _change(layout, ids[0], checksums={kind: "abc"})
    before, same = (read_videos(layout, ids[:1], [kind])[0][ids[0]].sources[kind] for _ in range(2))
    path = processed_file(layout, kind, ids[0])
    others = [processed_file(layout, kind, video_id) for video_id in ids[1:]]
    path.write_bytes(next(other for other in others if other.stat().st_size != path.stat().st_size).read_bytes())
    assert before == same
    assert read_videos(layout, ids[:1], [kind])[0][ids[0]].sources[kind] != before


def test_quarantined_videos_are_told_apart_from_broken_ones(layout: CorpusLayout, ids: list[str]) -> None:
    _change(layout, ids[0], status="quarantined", reason="cut off")
    layout.metadata(ids[1]).unlink()
    layout.metadata(ids[2]).write_text("no json")
    layout.pose(ids[3]).unlink()
    layout.crops("face", ids[4]).write_bytes(b"no archive")
    videos, quarantined, problems = read_videos(layout, ids, ["pose", "face"])
    assert quarantined == [ids[0]]
    assert not {ids[0], ids[1], ids[2]} & set(videos) and ids[5] in videos
    metadata, broken, absent, archive = problems
    assert metadata.startswith(f"{layout.metadata(ids[1])}: no such file, expected a processed video; run ")
    assert broken.startswith(f"{layout.metadata(ids[2])}: ") and broken.endswith("; extract the video again")
    assert absent == f"{layout.pose(ids[3])}: no such file, expected the video's pose; extract the video again"
    assert archive.startswith(f"{layout.crops('face', ids[4])}: ") and archive.count(str(layout.root)) == 1


def test_arrays_hold_times_body_points_and_nodes(layout: CorpusLayout, ids: list[str], tmp_path: Path) -> None:
    points = open_points(tmp_path / "f", uses_nodes=True)
    assert embed_points(layout, read_videos(layout, ids, KINDS)[0].values(), points) == []
    assert points.nodes is not None
    for video_id in ids:
        np.testing.assert_array_equal(points.times_s[video_id], read_tracks(layout.tracks(video_id)).times_s)
        body = read_pose(layout.pose(video_id)).reshape(-1, 33, 3)
        for row, name in enumerate(POSE_POINTS):
            np.testing.assert_array_equal(points.pose[video_id][:, row], body[:, pose_index(name)], name)
        nodes = gather_nodes(read_keypoints(layout.keypoints(video_id)))
        np.testing.assert_array_equal(points.nodes[video_id], nodes)
    assert (points.times_s[ids[0]].dtype, points.pose[ids[0]].dtype) == (np.float64, np.float32)


def test_arrays_are_made_once_and_a_changed_file_makes_its_own_again(
    layout: CorpusLayout, ids: list[str], tmp_path: Path
) -> None:
    for expected in ([8, 8, 8], [8, 8, 8], [8, 9, 8]):
        if expected[1] == 9:
            values = read_pose(layout.pose(ids[2])).copy()
            values[0, 0] = 0.75
            write_pose(layout.pose(ids[2]), values)
        points = open_points(tmp_path / "f", uses_nodes=True)
        assert embed_points(layout, read_videos(layout, ids, KINDS)[0].values(), points) == []
        assert _lines(points) == expected
    assert points.pose[ids[2]][0, 0, 0] == 0.75


def test_without_mska_no_keypoints_are_read(layout: CorpusLayout, ids: list[str], tmp_path: Path) -> None:
    for path in (layout.processed / "keypoints").iterdir():
        path.unlink()
    points = open_points(tmp_path / "f", uses_nodes=False)
    videos, _, problems = read_videos(layout, ids, ["tracks", "pose"])
    assert points.nodes is None
    assert problems + embed_points(layout, videos.values(), points) == []
    assert _lines(points) == [8, 8]


def test_one_bad_file_is_one_line_and_keeps_none_of_the_others(
    layout: CorpusLayout, ids: list[str], tmp_path: Path
) -> None:
    values = read_pose(layout.pose(ids[0])).copy()
    values[3, 3 * pose_index("nose")] = np.nan
    write_pose(layout.pose(ids[0]), values)
    np.savez(layout.keypoints(ids[1]), keypoints=np.zeros((4, 133, 3), np.float32))
    videos = list(read_videos(layout, ids, KINDS)[0].values())
    layout.tracks(ids[2]).unlink()  # in between
    points = open_points(tmp_path / "f", uses_nodes=True)
    problems = embed_points(layout, videos, points)
    assert problems[0] == f"{layout.pose(ids[0])}: holds values that are not finite; extract the video again"
    assert problems[1].startswith(f"{layout.keypoints(ids[1])}: ") and "(T, 543, 3)" in problems[1]
    assert problems[2] == f"{layout.tracks(ids[2])}: no such file, expected the video's tracks; extract the video again"
    assert len(problems) == 3
    assert points.nodes is not None
    for store, bad in ((points.pose, ids[0]), (points.nodes, ids[1]), (points.times_s, ids[2])):
        assert set(ids) - set(store.records) == {bad}


def test_an_unused_point_that_is_not_finite_stops_the_nodes(
    layout: CorpusLayout, ids: list[str], tmp_path: Path
) -> None:
    """A file with NaN is not what extraction writes, wherever it stands."""
    with np.load(layout.keypoints(ids[0])) as content:
        arrays = dict(content)
    arrays["keypoints"][0, pose_index("left_hip")] = np.nan
    np.savez(layout.keypoints(ids[0]), **arrays)
    points = open_points(tmp_path / "f", uses_nodes=True)
    (problem,) = embed_points(layout, read_videos(layout, ids[:1], KINDS)[0].values(), points)
    assert problem == f"{layout.keypoints(ids[0])}: holds values that are not finite; extract the video again"


def test_arrays_of_other_lengths_than_their_times_are_named_by_their_file(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    stores = {name: ArrayStore(tmp_path / name) for name in ("times", "pose", "face")}
    lengths = {"a": (5, 5, 5), "b": (5, 4, 6), "c": (None, 4, 6)}
    for video_id, counts in lengths.items():
        for store, count in zip(stores.values(), counts, strict=True):
            if count is not None:
                store.add(video_id, "source", np.zeros((count, 2), np.float32))
    videos = [ProcessedVideo(video_id, (1, 1), {}) for video_id in lengths]  # of c, the tracks have a problem already
    assert check_lengths(layout, videos, stores) == [
        f"{layout.pose('b')}: 4 frames, but tracks has 5; extract the video again",
        f"{layout.crops('face', 'b')}: 6 frames, but tracks has 5; extract the video again",
    ]


def test_a_new_video_is_extracted_as_those_of_the_corpus_were(layout: CorpusLayout, ids: list[str]) -> None:
    _change(layout, ids[0], fps=29.97, settings={"fps": None, "crop_px": 112})
    assert extraction_settings(layout.root, ids[0]) == {"fps": None, "crop_px": 112}  # each at its own times
    _change(layout, ids[0], fps=12.5, settings={"fps": 25.0, "crop_px": 112})  # what was asked for
    assert extraction_settings(layout.root, ids[0]) == {"fps": 25.0, "crop_px": 112}


def test_the_rates_of_a_corpus_are_those_that_its_videos_declare(layout: CorpusLayout, ids: list[str]) -> None:
    _change(layout, ids[0], source_fps=29.97, fps=25.0)
    _change(layout, ids[1], source_fps=0.0)
    videos, _, _ = read_videos(layout, ids[:3], ["pose"])
    assert fps_range(videos.values()) == [25.0, 29.97]
    assert fps_range([videos[ids[1]]]) is None


def test_clips_that_are_left_out_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log_quarantined_clips(0, ["a"])
    assert not caplog.records
    log_quarantined_clips(7, ["a", "b\nc"])
    (record,) = caplog.records
    assert "7 clips are left out: their videos are quarantined" in record.message and "\n" not in record.message
