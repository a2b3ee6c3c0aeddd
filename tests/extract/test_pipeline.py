"""One video from file to artifacts, with a detector that is exact."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.extract import pipeline
from signstreams.extract.detectors import DetectorKind, missing_keypoints
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import REVISION, VideoJob, current_metadata
from signstreams.extract.settings import ExtractConfig, HolisticConfig
from signstreams.extract.video import Frame, VideoReader
from signstreams.files import digest, sha256_file
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.landmarks import HAND_L
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import STREAMS, BoxState

RADIUS_PX = 10
CHANNELS = {"face": 2, "hand_l": 0, "hand_r": 1}  # of RGB


def centres(index: int) -> dict[str, tuple[float, float]]:
    return {"face": (80, 30), "hand_l": (100 + index, 80), "hand_r": (50, 60 + index)}


def crop_images(layout: CorpusLayout, stream: str, video_id: str) -> dict[int, np.ndarray]:
    reader = CropReader()
    found = {}
    for crop in list_crops(layout.crops(stream, video_id)):
        bgr = cv2.imdecode(np.frombuffer(reader.read(crop), np.uint8), cv2.IMREAD_COLOR)
        found[crop.frame] = bgr[..., ::-1]
    reader.close()
    return found


def test_every_artifact_is_written_and_agrees(make_video: Callable, extract_discs: Callable) -> None:
    metadata, layout = extract_discs(make_video("v.mp4", 12))
    tracks, keypoints, pose = (
        read(place("v"))
        for read, place in ((read_tracks, layout.tracks), (read_keypoints, layout.keypoints), (read_pose, layout.pose))
    )
    assert metadata == read_metadata(layout.metadata("v"))
    assert metadata.status == "ok" and metadata.reason is None
    assert metadata.num_frames == 12 == len(tracks.times_s) == len(keypoints) == len(pose)
    assert (metadata.width_px, metadata.height_px, metadata.fps, metadata.crop_px) == (160, 120, 30.0, 224)
    assert metadata.duration_s == pytest.approx(0.4)
    assert tracks.times_s == pytest.approx(np.arange(12) / 30)
    assert metadata.states["hand_l"] == {"missing": 0, "detected": 12, "tracked": 0, "filled": 0}
    assert (metadata.num_pose_frames, metadata.num_face_frames) == (12, 12)
    assert metadata.checksums == {
        "face": sha256_file(layout.crops("face", "v")),
        "hand_l": sha256_file(layout.crops("hand_l", "v")),
        "hand_r": sha256_file(layout.crops("hand_r", "v")),
        "pose": sha256_file(layout.pose("v")),
        "keypoints": sha256_file(layout.keypoints("v")),
        "tracks": sha256_file(layout.tracks("v")),
    }
    with zipfile.ZipFile(layout.crops("face", "v")) as archive:
        assert archive.namelist() == [f"v_f{index:06d}.jpg" for index in range(12)]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    assert not [p for p in layout.processed.rglob("*") if p.name.startswith(".")]


def test_crops_follow_each_stream_and_left_is_left(make_video: Callable, extract_discs: Callable) -> None:
    _, layout = extract_discs(make_video("v.mp4", 20), crop_px=96)
    tracks = read_tracks(layout.tracks("v"))
    for stream, channel in CHANNELS.items():
        images = crop_images(layout, stream, "v")
        assert sorted(images) == list(range(20))
        for index, image in images.items():
            assert image.shape == (96, 96, 3)
            assert image[48, 48].argmax() == channel and image[48, 48].max() > 180
            box = tracks.streams[stream].box[index]
            assert (box[:2] + box[2:]) / 2 == pytest.approx(centres(index)[stream], abs=2)
            assert box[2] - box[0] == pytest.approx(box[3] - box[1])


def test_a_frame_whose_box_is_missing_has_no_crop(make_video: Callable, extract_discs: Callable) -> None:
    def draw(index: int) -> np.ndarray:
        image = np.full((120, 160, 3), 90, np.uint8)
        cv2.circle(image, (80, 60), RADIUS_PX, (0, 0, 255), -1)
        if index in (0, 1, 2, 5, 6, 7):  # two frames away are filled; after that the hand is gone for good
            cv2.circle(image, (40, 60), RADIUS_PX, (255, 0, 0), -1)
        return image

    metadata, layout = extract_discs(make_video("v.mp4", 25, draw=draw))
    track = read_tracks(layout.tracks("v")).streams["hand_l"]
    detected, filled, missing = BoxState.DETECTED, BoxState.FILLED, BoxState.MISSING
    assert track.state.tolist() == [detected] * 3 + [filled] * 2 + [detected] * 3 + [missing] * 17
    assert sorted(crop_images(layout, "hand_l", "v")) == list(range(8))
    assert (track.box[8:] == -1).all() and (track.confidence[8:] == 0).all()
    assert metadata.states["hand_l"] == {"missing": 17, "detected": 6, "tracked": 0, "filled": 2}
    keypoints = read_keypoints(layout.keypoints("v"))
    assert (keypoints[3, HAND_L] == (-1, -1, 0)).all()  # a filled box makes no points up
    assert metadata.states["hand_r"]["missing"] == 25
    assert list_crops(layout.crops("hand_r", "v")) == []


def test_a_target_rate_samples_and_repeats_without_detecting_twice(
    make_video: Callable, extract_discs: Callable, discs: DetectorKind
) -> None:
    metadata, layout = extract_discs(make_video("v.mp4", 60, fps=30), fps=25)
    assert (metadata.num_frames, metadata.fps, metadata.source_fps) == (50, 25.0, 30.0)
    assert read_tracks(layout.tracks("v")).times_s == pytest.approx(np.arange(50) / 25)
    metadata, layout = extract_discs(make_video("w.mp4", 6, fps=10), fps=30)
    assert metadata.num_frames == 18
    assert discs.start.num_calls == 6
    assert len(crop_images(layout, "face", "w")) == 18


def test_the_same_video_gives_the_same_bytes(make_video: Callable, tmp_path: Path, discs: DetectorKind) -> None:
    path = make_video("v.mp4", 8)
    runs = []
    for name in ("a", "b"):
        config = ExtractConfig(videos=[path], root=tmp_path / name)
        runs.append(extract_video(VideoJob(VideoSource.at(path), config, discs)))
    assert runs[0].checksums == runs[1].checksums
    assert runs[0].settings_digest == runs[1].settings_digest


def test_a_small_buffer_bounds_memory_and_keeps_the_frames(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("v.mp4", 8, draw=lambda index: cv2.resize(np.full((2, 2, 3), 20 * index, np.uint8), (1600, 1200)))
    config = ExtractConfig(videos=[path], root=tmp_path / "c", max_buffer_mib=46)  # 8 of 5.5 MiB: 2 wait
    waiting = []

    class Counting(pipeline.TrackBuilder):
        def add(self, *args: object) -> list:
            done = super().add(*args)
            waiting.append(self.num_waiting)
            return done

    monkeypatch.setattr(pipeline, "TrackBuilder", Counting)
    metadata = extract_video(VideoJob(VideoSource.at(path), config, discs))
    assert metadata.num_frames == 8
    assert max(waiting) == 2


def test_frames_in_flight_change_no_crop_where_the_buffer_is_small(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    def draw(index: int) -> np.ndarray:
        image = np.full((120, 160, 3), 90, np.uint8)
        for name, centre in centres(index**2 // 4).items():
            cv2.circle(image, centre, RADIUS_PX, np.eye(3)[CHANNELS[name]] * 255, -1)
        return cv2.resize(image, (1600, 1200), interpolation=cv2.INTER_NEAREST)

    path, found = make_video("v.mp4", 12, draw=draw), []
    for in_flight in (1, 2, 8):
        root = tmp_path / str(in_flight)
        config = ExtractConfig(
            videos=[path], root=root, max_buffer_mib=50, detector="holistic", holistic={"in_flight": in_flight}
        )
        found.append(extract_video(VideoJob(VideoSource.at(path), config, discs)))
    assert found[0].checksums == found[1].checksums == found[2].checksums
    assert found[0].settings_digest == found[1].settings_digest == found[2].settings_digest


@pytest.mark.parametrize(("name", "content"), [("empty.mp4", b""), ("words.mkv", b"no video at all" * 99)])
def test_an_unreadable_video_is_quarantined_with_every_file_in_place(
    tmp_path: Path, extract_discs: Callable, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    metadata, layout = extract_discs(path)
    assert metadata.status == "quarantined" and metadata.reason
    assert (metadata.num_frames, metadata.source_bytes) == (0, len(content))
    for stream in STREAMS:
        assert list_crops(layout.crops(stream, path.stem)) == []
        assert metadata.states[stream] == {"missing": 0, "detected": 0, "tracked": 0, "filled": 0}
    assert read_keypoints(layout.keypoints(path.stem)).shape == (0, 543, 3)
    assert read_pose(layout.pose(path.stem)).shape == (0, 99)
    assert len(read_tracks(layout.tracks(path.stem)).times_s) == 0
    assert read_metadata(layout.metadata(path.stem)) == metadata


def test_a_cut_video_is_kept_up_to_the_cut_and_says_so(make_video: Callable, extract_discs: Callable) -> None:
    path = make_video("v.mp4", 90, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    metadata, _ = extract_discs(path)
    assert metadata.status == "ok" and 30 <= metadata.num_frames < 80
    assert metadata.reason is None and metadata.note


def test_a_failure_midway_leaves_no_file_and_no_metadata(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    path = make_video("v.mp4", 12)
    config = ExtractConfig(videos=[path], root=tmp_path / "c")
    layout = CorpusLayout(config.root)
    extract_video(VideoJob(VideoSource.at(path), config, discs))

    class Failing(discs.start):
        def detect(self, frame: Frame) -> np.ndarray:
            if Failing.num_calls == 5:
                raise RuntimeError("a bug")
            return super().detect(frame)

    before = sha256_file(layout.crops("face", "v"))
    with pytest.raises(RuntimeError, match="a bug"):
        extract_video(VideoJob(VideoSource.at(path), config, discs._replace(start=Failing)))
    assert not layout.metadata("v").exists()  # what is left is not vouched for
    assert sha256_file(layout.crops("face", "v")) == before
    assert not [p for p in layout.processed.rglob("*") if p.name.startswith(".")]


def test_results_are_current_only_for_this_video_and_these_settings(
    make_video: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    path = make_video("v.mp4", 6)
    config = ExtractConfig(videos=[path], root=tmp_path / "c")
    job = VideoJob(VideoSource.at(path), config, discs)
    layout = job.layout
    assert current_metadata(job) is None
    metadata = extract_video(job)
    assert current_metadata(job) == metadata
    other = config.model_copy(update={"crop_px": 96})
    assert current_metadata(replace(job, config=other)) is None
    same = config.model_copy(update={"num_jobs": 4, "force": True})
    assert replace(job, config=same).settings_digest() == job.settings_digest()
    tracks = layout.tracks("v").read_bytes()
    layout.tracks("v").write_bytes(tracks[:-1])
    assert current_metadata(job) is None
    layout.tracks("v").unlink()
    assert current_metadata(job) is None
    layout.tracks("v").write_bytes(tracks)
    assert current_metadata(job) == metadata
    path.write_bytes(path.read_bytes() + b"x")
    assert current_metadata(job) is None


def test_results_of_repeats_that_once_were_wrong_are_not_current(tmp_path: Path, discs: DetectorKind) -> None:
    """Frames between those looked at, where a rate repeats them; all other settings keep what they have."""
    plain = ExtractConfig(videos=[tmp_path], root=tmp_path, detector="holistic")
    for settings, is_same in (({"fps": 25}, True), ({"stride": 2}, True), ({"fps": 25, "stride": 2}, False)):
        holistic = HolisticConfig(stride=settings.get("stride", 1))
        config = plain.model_copy(update={"fps": settings.get("fps"), "holistic": holistic})
        as_before = digest({"revision": REVISION, "settings": config.settings(), "detector": ["discs", "1"]})
        assert (VideoJob(VideoSource(tmp_path / "v.mp4"), config, discs).settings_digest() == as_before) == is_same


def test_progress_is_told_of_every_frame(make_video: Callable, tmp_path: Path, discs: DetectorKind) -> None:
    path = make_video("v.mp4", 7)
    config = ExtractConfig(videos=[path], root=tmp_path / "c")
    expected: list = []
    extract_video(VideoJob(VideoSource.at(path), config, discs), on_frame=expected.append)
    assert expected == [7] * 7


def test_memory_grows_by_half_a_kilobyte_a_frame(
    make_video: Callable, tmp_path: Path, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time, boxes and body points of each frame stay; its points are on disk, its pixels are freed once cropped."""

    class Nobody(discs.start):
        def detect(self, frame: Frame) -> np.ndarray:
            return missing_keypoints()

    monkeypatch.setattr(pipeline, "write_arrays", lambda *args: {})  # formats write as they see fit
    peaks = []
    for num_frames in (100, 700):
        path = make_video(
            f"v{num_frames}.mp4", num_frames, draw=lambda index: np.full((48, 64, 3), index % 256, np.uint8)
        )
        config = ExtractConfig(videos=[path], root=tmp_path / "c")
        run = pipeline._Run(VideoJob(VideoSource.at(path), config, discs._replace(start=Nobody)))
        with VideoReader(path) as reader:
            tracemalloc.start()
            run.extract(reader)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert len(run.recorder.times_s) == num_frames
    assert peaks[1] - peaks[0] < 600 * 900  # bytes; one frame's points alone are 6,516
