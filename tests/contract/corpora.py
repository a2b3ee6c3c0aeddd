"""A small corpus that keeps the contract, made of synthetic arrays and tiny JPEGs, and ways to break a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import Validation, validate
from signstreams.corpus.findings import Finding
from signstreams.files import sha256_file
from signstreams.formats.arrays import StreamTrack, Tracks, write_keypoints, write_pose, write_tracks
from signstreams.formats.crops import CropReader, CropWriter, crop_name, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import DetectorInfo, SignerInfo, VideoMetadata, read_metadata, write_metadata
from signstreams.streams import STREAMS, BoxState

NUM_FRAMES, FPS_HZ, CROP_PX = 10, 10.0, 16
VIDEOS = ("one", "two", "Ñandú d'ayer", "four")
META = """id;video;text;start;end;duration;fps;frame_count;signer
c1;one;hola;0.0;0.5;0.5;10;5;ana
c2;one;"adiós; adiós";0.5;1.0;0.5;10;5;ana
c3;two;casa;0.0;1.0;1.0;10;10;bea
c4;Ñandú d'ayer;perro;0.0;1.0;1.0;10;10;caro
c5;four;gato;0.1;0.9;0.8;10;8;ana
"""
GLOSS = """video_id;gloss;ctc_labels
c1;HOLA;1
c2;ADIÓS ADIÓS;2 2
c3;HOLA ADIÓS;1 2
c4;ADIÓS;2
c5;HOLA;1
"""
INDEX = {"train": "c1\nc2\nc5\n", "val": "c3\n", "test": "c4\n"}


def jpeg(size_px: tuple[int, int] = (CROP_PX, CROP_PX), seed: int = 0) -> bytes:
    """Noise of (width, height)."""
    image = np.random.default_rng(seed).integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def good_keypoints() -> np.ndarray:
    points = np.random.default_rng(1).uniform(0.1, 0.9, (NUM_FRAMES, 543, 3)).astype(np.float32)
    points[3, 501:522] = (-1, -1, 0)  # the left hand is hidden in one frame
    return points


def good_pose() -> np.ndarray:
    return np.random.default_rng(2).uniform(0.1, 0.9, (NUM_FRAMES, 99)).astype(np.float32)


def good_tracks() -> Tracks:
    streams = {}
    for stream in STREAMS:
        box = np.tile(np.array([10, 20, 50, 60], np.float32), (NUM_FRAMES, 1))
        state = np.full(NUM_FRAMES, BoxState.DETECTED, np.uint8)
        confidence = np.full(NUM_FRAMES, 0.9, np.float32)
        if stream == "hand_l":
            box[3], state[3], confidence[3] = -1, BoxState.MISSING, 0
            state[4] = BoxState.FILLED
        streams[stream] = StreamTrack(box, confidence, state)
    return Tracks(streams, np.arange(NUM_FRAMES) / FPS_HZ)


@dataclass
class BrokenCorpus:
    """A corpus to break, and what the contract says of it."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)  # of every check, as `ContractConfig` has them

    @property
    def layout(self) -> CorpusLayout:
        return CorpusLayout(self.root)

    def write_crops(self, video_id: str, stream: str, crops: dict[int, bytes] | None = None, name: str = "") -> None:
        """Write an archive of frame -> JPEG; as the good tracks want it by default."""
        state = good_tracks().streams[stream].state
        crops = crops or {frame: jpeg(seed=frame) for frame in range(NUM_FRAMES) if state[frame]}
        with CropWriter(self.layout.crops(stream, video_id), name or video_id) as writer:
            for frame, data in sorted(crops.items()):
                writer.add(frame, data)
        self.seal(video_id)

    def write_keypoints(self, video_id: str, points: np.ndarray) -> None:
        write_keypoints(self.layout.keypoints(video_id), points)
        self.seal(video_id)

    def write_pose(self, video_id: str, pose: np.ndarray) -> None:
        write_pose(self.layout.pose(video_id), pose)
        self.seal(video_id)

    def change_tracks(self, video_id: str, change: Callable[[Tracks], Any]) -> None:
        tracks = good_tracks()
        change(tracks)
        write_tracks(self.layout.tracks(video_id), tracks)
        self.seal(video_id)

    def change_metadata(self, video_id: str, /, **fields: Any) -> None:
        path = self.layout.metadata(video_id)
        write_metadata(path, read_metadata(path).model_copy(update=fields))

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def seal(self, video_id: str) -> None:
        """Renew the checksums, so that another rule than theirs has to find the fault."""
        if self.layout.metadata(video_id).is_file():
            self.change_metadata(video_id, checksums=checksums(self.layout, video_id))

    def quarantine(self, video_id: str) -> None:
        for stream in STREAMS:
            with CropWriter(self.layout.crops(stream, video_id), video_id):
                pass
        write_keypoints(self.layout.keypoints(video_id), np.empty((0, 543, 3)))
        write_pose(self.layout.pose(video_id), np.empty((0, 99)))
        empty = StreamTrack(np.empty((0, 4)), np.empty(0), np.empty(0))
        write_tracks(self.layout.tracks(video_id), Tracks(dict.fromkeys(STREAMS, empty), np.empty(0)))
        states = {stream: {state.name.lower(): 0 for state in BoxState} for stream in STREAMS}
        self.change_metadata(
            video_id, status="quarantined", reason="is <cut> off", num_frames=0, num_pose_frames=0, states=states
        )
        self.seal(video_id)

    def loosen(self, *video_ids: str) -> None:
        """Turn videos (all without any) into what other tools write: loose crops, no tracks, no metadata."""
        reader = CropReader()
        for video_id in video_ids or VIDEOS:
            for stream in STREAMS:
                archive = self.layout.crops(stream, video_id)
                for crop in list_crops(archive):
                    name = crop_name(video_id, crop.frame)
                    (archive.parent / name).write_bytes(reader.read(crop))
                archive.unlink()
            self.layout.tracks(video_id).unlink()
            self.layout.metadata(video_id).unlink()
        reader.close()

    def validate(self, **settings: Any) -> Validation:
        return validate(ContractConfig(root=self.root, **self.settings, **settings))

    def must_report(self, rule: str, file: str, fix: str, break_it: Callable[[BrokenCorpus], Any]) -> None:
        """Check the good corpus, break it, and see the fault reported, also from and beside the records of checks."""
        self.validate()  # leaves a record of every video, none of which may hide what is broken now
        break_it(self)
        validation = self.validate()
        assert validation.report["verdict"] == "fail"
        assert self.validate().report == validation.report  # from the records of the broken corpus
        assert self.validate(recheck=True).report == validation.report
        places = {str(self.root / file), file}  # the videos folder may lie elsewhere and is named in full
        same = [finding for finding in validation.findings if finding.rule == rule and finding.file in places]
        assert [finding for finding in same if finding.severity == "error"], [f.line() for f in validation.findings]
        assert any(fix in finding.fix for finding in same), [finding.fix for finding in same]
        assert all("\n" not in finding.line() for finding in validation.findings if not rule.startswith("videos."))

    def errors(self, **settings: Any) -> list[Finding]:
        return [finding for finding in self.validate(**settings).findings if finding.severity == "error"]


def checksums(layout: CorpusLayout, video_id: str) -> dict[str, str]:
    paths = {stream: layout.crops(stream, video_id) for stream in STREAMS}
    paths |= {kind: getattr(layout, kind)(video_id) for kind in ("pose", "keypoints", "tracks")}
    return {kind: sha256_file(path) for kind, path in paths.items() if path.is_file()}


def build(root: Path) -> None:
    """Write the good corpus."""
    corpus = BrokenCorpus(root)
    layout = corpus.layout
    layout.videos.mkdir(parents=True)
    for video_id in VIDEOS:
        source = layout.videos / f"{video_id}.mp4"
        source.write_bytes(video_id.encode() * 9)
        for stream in STREAMS:
            corpus.write_crops(video_id, stream)
        corpus.write_keypoints(video_id, good_keypoints())
        corpus.write_pose(video_id, good_pose())
        corpus.change_tracks(video_id, lambda tracks: None)
        states = {stream: {"missing": 0, "detected": NUM_FRAMES, "tracked": 0, "filled": 0} for stream in STREAMS}
        states["hand_l"] = {"missing": 1, "detected": NUM_FRAMES - 2, "tracked": 0, "filled": 1}
        record = VideoMetadata(
            video_id=video_id,
            status="ok",
            source_name=source.name,
            source_bytes=source.stat().st_size,
            source_sha256=sha256_file(source),
            width_px=64,
            height_px=80,
            source_fps=FPS_HZ,
            fps=FPS_HZ,
            num_frames=NUM_FRAMES,
            duration_s=NUM_FRAMES / FPS_HZ,
            crop_px=CROP_PX,
            detector=DetectorInfo(name="synthetic", version="1"),
            signer=SignerInfo(chosen_by="alone", num_people=1),
            face_privacy="none",
            spans_s=None,
            settings={},
            settings_digest="same",
            states=states,
            num_pose_frames=NUM_FRAMES,
            num_face_frames=NUM_FRAMES,
            timings_s={},
            checksums=checksums(layout, video_id),
            signstreams_version="0",
        )
        write_metadata(layout.metadata(video_id), record)
    layout.meta.write_text(META, encoding="utf-8")
    layout.gloss.parent.mkdir()
    layout.gloss.write_text(GLOSS, encoding="utf-8")
    layout.index("train").parent.mkdir()
    for split, text in INDEX.items():
        layout.index(split).write_text(text, encoding="utf-8")


def rules_of(validation: Validation, severity: str) -> set[str]:
    """Rules that were broken with this severity."""
    return {finding.rule for finding in validation.findings if finding.severity == severity}
