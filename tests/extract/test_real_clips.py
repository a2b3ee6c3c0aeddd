"""Extraction of real footage: pose and face are found in every frame, and left is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import VideoContext
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.tracker import start_tracker
from signstreams.extract.video import Frame
from signstreams.formats.arrays import read_keypoints, read_pose, read_tracks
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import SignerInfo, VideoMetadata, read_metadata
from signstreams.processes import QuietStderr
from signstreams.streams import STREAMS, BoxState

NUM_FRAMES = {"lsat_one_signer_outdoor": 56, "lsat_one_signer_studio": 72, "lsat_two_people": 24, "webcam_one_hand": 58}


@pytest.fixture(scope="module")
def clips(real_clips: CorpusLayout) -> tuple[CorpusLayout, dict[str, VideoMetadata]]:
    """The four real clips, extracted with the default settings, and their metadata."""
    return real_clips, {name: read_metadata(real_clips.metadata(name)) for name in NUM_FRAMES}


def test_pose_and_face_are_found_in_every_frame_of_every_clip(clips: tuple) -> None:
    _, found = clips
    for name, num_frames in NUM_FRAMES.items():
        metadata = found[name]
        assert metadata.num_frames == num_frames == metadata.num_pose_frames == metadata.num_face_frames
        assert metadata.states["face"]["detected"] == num_frames


def test_detected_hands_lie_at_the_persons_own_wrists(clips: tuple) -> None:
    layout, found = clips
    num_hands = 0
    for name, metadata in found.items():
        points = read_keypoints(layout.keypoints(name))
        px = points[..., :2] * (metadata.width_px, metadata.height_px)
        for slot, own, other in ((HAND_L, "left_wrist", "right_wrist"), (HAND_R, "right_wrist", "left_wrist")):
            present = points[:, slot.start, 2] > 0
            to_own, to_other = (
                np.linalg.norm(px[present, slot.start] - px[present, pose_index(wrist)], axis=-1)
                for wrist in (own, other)
            )
            assert not (to_other < 0.5 * to_own).any()
            num_hands += int(present.sum())
    assert num_hands > 150


def test_the_one_hand_of_the_webcam_clip_is_the_right_one(clips: tuple) -> None:
    """It comes in on the left of the picture, unmirrored: the person's right hand. Hands alone would call it left."""
    _, found = clips
    states = found["webcam_one_hand"].states
    assert states["hand_l"]["detected"] == 0
    assert states["hand_r"]["detected"] >= 15


def test_all_of_the_two_people_belongs_to_the_woman_on_the_right_who_signs(clips: tuple) -> None:
    layout, found = clips
    metadata = found["lsat_two_people"]
    signer = metadata.signer
    assert (signer.chosen_by, signer.num_people) == ("hand_motion", 2)
    assert signer.hand_motion[1] > 2 * signer.hand_motion[0]
    points = read_keypoints(layout.keypoints("lsat_two_people"))
    x_px = points[..., 0] * metadata.width_px
    for name in ("nose", "left_shoulder", "right_shoulder"):
        assert (x_px[:, pose_index(name)] > 160).all()  # the man's nose is at 100, his left shoulder at 140
    assert (read_tracks(layout.tracks("lsat_two_people")).streams["face"].box[:, 0] > 160).all()
    num_hands = 0
    for hand in (HAND_L, HAND_R):
        present = points[:, hand.start, 2] > 0
        assert (x_px[present, hand] > 145).all()  # the man's hands end at 130
        num_hands += int(present.sum())
    assert num_hands >= 24  # of 48: both hands are small and blurred


def test_people_who_are_alone_are_seen_as_without_a_choice(clips: tuple, shared_data: Path, tmp_path: Path) -> None:
    _, found = clips
    for name in set(NUM_FRAMES) - {"lsat_two_people"}:
        assert found[name].signer == SignerInfo(chosen_by="alone", num_people=1)
    clip = shared_data / "clips" / "webcam_one_hand.mp4"
    config = ExtractConfig(videos=[clip], root=tmp_path, signer={"choose": "none"})
    plain = extract_videos(config).extracted["webcam_one_hand"]
    assert plain.signer == SignerInfo(chosen_by="detector")
    assert plain.checksums == found["webcam_one_hand"].checksums


def test_arrays_keep_their_ranges_and_sentinels(clips: tuple) -> None:
    layout, found = clips
    for name in found:
        keypoints = read_keypoints(layout.keypoints(name))
        pose = read_pose(layout.pose(name)).reshape(len(keypoints), 33, 3)
        for points in (keypoints, pose):
            assert np.isfinite(points).all()
            missing = points[..., 2] == 0
            assert (points[missing] == (-1, -1, 0)).all()
            assert (points[~missing][:, 2] <= 1).all()
        assert (keypoints[:, POSE, 2] > 0).all() and (keypoints[:, FACE, 2] == 1).all()
        assert ((pose[..., :2] >= 0) & (pose[..., :2] <= 1)).all()


def test_crops_exist_exactly_where_tracks_say(clips: tuple) -> None:
    layout, found = clips
    reader = CropReader()
    for name in found:
        tracks = read_tracks(layout.tracks(name))
        for stream in STREAMS:
            crops = list_crops(layout.crops(stream, name))
            assert [c.frame for c in crops] == np.flatnonzero(tracks.streams[stream].state != BoxState.MISSING).tolist()
            for crop in crops[::10]:
                image = cv2.imdecode(np.frombuffer(reader.read(crop), np.uint8), cv2.IMREAD_COLOR)
                assert image.shape == (224, 224, 3)
                assert image.std() > 5
    reader.close()


def test_an_empty_scene_has_nobody() -> None:
    video = VideoContext(Path("v.mp4"), "v", 160, 120, 25.0)
    config = ExtractConfig(videos=[video.path], root="c")
    with start_tracker(config, video) as detector:
        keypoints = detector.detect(Frame(0.0, np.full((120, 160, 3), 127, np.uint8), False, 0))
    assert keypoints.shape == (543, 3) and keypoints.dtype == np.float32
    assert (keypoints == (-1, -1, 0)).all()


def test_the_tracker_is_quiet_and_torch_and_plotting_stay_out() -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "import signstreams.extract.batch\n"
        "from signstreams.extract.detectors import VideoContext\n"
        "from signstreams.extract.settings import ExtractConfig\n"
        "from signstreams.extract.tracker import start_tracker\n"
        "from signstreams.extract.video import Frame\n"
        "video = VideoContext(Path('v.mp4'), 'v', 64, 64, 25.0)\n"
        "with start_tracker(ExtractConfig(videos=[video.path], root='c'), video) as detector:\n"
        "    detector.detect(Frame(0.0, np.zeros((64, 64, 3), np.uint8), False, 0))\n"
        "print({'torch', 'matplotlib', 'mediapipe'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("set()\n", "", 0)


def test_native_messages_are_held_back_but_shown_on_failure(capfd: pytest.CaptureFixture) -> None:
    quiet = QuietStderr()
    with quiet:
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(RuntimeError), quiet:
        os.write(2, b"why it failed\n")
        raise RuntimeError
    assert capfd.readouterr().err == "why it failed\n"
    quiet.close()
