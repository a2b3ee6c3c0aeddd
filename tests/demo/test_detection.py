"""MediaPipe Holistic sees the rendered signers as people: pose, face and the right hands on the right side."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import mediapipe as mp
import numpy as np
import pytest

from signstreams.demo.plan import HEIGHT_PX, WIDTH_PX, plan

SIDES = (("hand_l", "left_wrist", "right_wrist"), ("hand_r", "right_wrist", "left_wrist"))


@pytest.fixture(scope="module")
def counts(tiny_corpus: Path) -> Counter[str]:
    """How often each part was there, and was found; hands only in frames where they are visible."""
    counts: Counter[str] = Counter()
    for video in plan("tiny", 0).videos:
        with np.load(tiny_corpus / "ground_truth" / f"{video.video_id}.npz", allow_pickle=False) as file:
            truth = {name: file[name] for name in file.files}
        names = truth["body_names"].tolist()
        holistic = mp.solutions.holistic.Holistic(static_image_mode=False, model_complexity=1)
        with holistic, av.open(str(tiny_corpus / "videos" / f"{video.video_id}.mp4")) as container:
            for number, frame in enumerate(container.decode(video=0)):
                found = holistic.process(frame.to_ndarray(format="rgb24"))
                counts["frames"] += 1
                counts["pose found"] += found.pose_landmarks is not None
                counts["face found"] += found.face_landmarks is not None
                hands = (found.left_hand_landmarks, found.right_hand_landmarks)
                for (name, own, opposite), hand in zip(SIDES, hands, strict=True):
                    if not truth[f"{name}_visible"][number]:
                        continue
                    counts[f"{name} visible"] += 1
                    if hand is None:
                        continue
                    counts[f"{name} found"] += 1
                    points = np.array([(p.x * WIDTH_PX, p.y * HEIGHT_PX) for p in hand.landmark])  # (21, 2)
                    counts[f"{name} within 20 px"] += np.linalg.norm(points - truth[name][number], axis=1).mean() < 20
                    wrists = [truth["body"][number, names.index(side)] for side in (own, opposite)]
                    near, far = (np.linalg.norm(points.mean(axis=0) - wrist) for wrist in wrists)
                    are_close = np.linalg.norm(wrists[0] - wrists[1]) < 120
                    counts["swapped"] += bool(far < near and not are_close)
    return counts


def test_pose_and_face_are_found_in_nearly_every_frame(counts: Counter[str]) -> None:
    assert counts["pose found"] >= 0.99 * counts["frames"]
    assert counts["face found"] >= 0.99 * counts["frames"]


@pytest.mark.parametrize("hand", ["hand_l", "hand_r"])
def test_visible_hands_are_found_where_they_are(hand: str, counts: Counter[str]) -> None:
    assert counts[f"{hand} visible"] > 150
    assert counts[f"{hand} found"] >= 0.85 * counts[f"{hand} visible"]
    assert counts[f"{hand} within 20 px"] >= 0.95 * counts[f"{hand} found"]


def test_left_and_right_are_never_swapped(counts: Counter[str]) -> None:
    assert counts["swapped"] == 0
