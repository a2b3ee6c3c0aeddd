"""How well sentences are found by the hands' rests, without training: rendered videos with known times, real signs.

    python benchmarks/segments.py FOLDER [--signs FOLDER_OF_HANDS ...]

FOLDER gets a corpus of one video of two minutes with rests of 0.3 to 1.5 s and eight of 40 s by the demo's signers with
rests of 0.2 to 1.2 s, rendered and extracted (some minutes; what is there stays). Printed are F1 of the boundaries,
F1 of the sentences, and the same where the place of rest moves from rest to rest. ``--signs`` are corpora of isolated
signs as `benchmarks/hands.py extract` leaves them: each video should be one sentence.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from signstreams.array_types import Floats
from signstreams.demo.plan import FPS, PlannedVideo, plan_continuous
from signstreams.demo.signers import SIGNERS
from signstreams.demo.video import render_video
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.videos import POINT_KINDS, embed_points, open_points, read_videos
from signstreams.progress import Progress
from signstreams.segment.activity import SPACE_UNITS, WRISTS, RestPlaces, hand_activity, sentences_of
from signstreams.segment.scores import SegmentScores

PROJECT = Path(__file__).resolve().parents[1]
LONG, SHORT = "long", "short"
MOVED_M = (0.0, 0.05)
"""Standard deviation by which the place of rest moves, m."""
UNIT_M = 0.18  # of signing space, half a shoulder width


def planned() -> list[PlannedVideo]:
    """The rendered videos."""
    short = [
        plan_continuous(f"{SHORT}_{number}", SIGNERS[number % 5].name, 40.0, (0.2, 1.2), seed=number)
        for number in range(8)
    ]
    return [plan_continuous(f"{LONG}_0", SIGNERS[0].name, 120.0, (0.3, 1.5), seed=1), *short]


def render_and_extract(layout: CorpusLayout) -> None:
    """Render what is absent and extract it."""
    for seed, video in enumerate(planned()):
        if not layout.ground_truth(video.video_id).is_file():
            with Progress(video.num_frames, "frames", f"render {video.video_id}") as progress:
                render_video(layout, video, seed, progress)
    words = ["--videos", str(layout.videos), "--root", str(layout.root), "--jobs", "2"]
    subprocess.run([sys.executable, str(PROJECT / "scripts" / "extract_rois_v2.py"), *words], check=True)


def poses(layout: CorpusLayout) -> Iterator[tuple[str, Floats, Floats]]:
    """Id, pose (T, 7, 3) and times (T,) of each video, as a training reads them."""
    ids = sorted(path.stem for path in layout.processed.joinpath("metadata").glob("*.json"))
    videos, _, problems = read_videos(layout, ids, [*POINT_KINDS.values()])
    with tempfile.TemporaryDirectory() as folder:
        points = open_points(Path(folder), uses_nodes=False)
        problems += embed_points(layout, list(videos.values()), points)
        if problems:
            sys.exit("\n".join(problems))
        for video_id in videos:
            yield video_id, np.array(points.pose[video_id], np.float64), np.array(points.times_s[video_id])


def with_moved_rests(pose: Floats, times_s: Floats, video: PlannedVideo, moved_m: float) -> Floats:
    """The pose with the wrists moved by an offset of its own in each rest, blended in over the neighbouring raises."""
    rng = np.random.default_rng(0)
    edges = [0.0, *(edge / FPS for clip in video.clips for edge in (clip.start, clip.end)), video.num_frames / FPS]
    out = pose.copy()
    for start_s, end_s in zip(edges[::2], edges[1::2], strict=True):
        outside_s = np.maximum(np.maximum(start_s - times_s, times_s - end_s), 0)
        share = (1 - outside_s / 0.24).clip(0, 1)  # (T,) hands sink and rise within a quarter of a second
        for wrist in WRISTS:
            out[:, wrist, :2] += share[:, None] * rng.normal(0, moved_m / UNIT_M, 2) / SPACE_UNITS
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--signs", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    layout = CorpusLayout(args.folder)
    render_and_extract(layout)
    videos = {video.video_id: video for video in planned()}
    found = {video_id: (pose, times_s) for video_id, pose, times_s in poses(layout)}
    for moved_m in MOVED_M:
        for kind in (LONG, SHORT):
            scores = SegmentScores()
            for video_id, (pose, times_s) in found.items():
                if video_id.startswith(kind):
                    video = videos[video_id]
                    activity = hand_activity(with_moved_rests(pose, times_s, video, moved_m), times_s, RestPlaces())
                    true = [(clip.start / FPS, clip.end / FPS) for clip in video.clips]
                    scores = scores.adding(sentences_of(activity, times_s), true)
            shown = {name: value for name, value in scores.as_dict().items() if "f1" in name or "num" in name}
            print(f"{kind}, rests moved by {100 * moved_m:.0f} cm: {shown}")
    for folder in args.signs:
        counts = Counter(
            len(sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s))
            for _, pose, times_s in poses(CorpusLayout(folder))
        )
        print(f"{folder.name}: {counts[1]} of {counts.total()} isolated signs are one sentence; {dict(counts)}")


if __name__ == "__main__":
    main()
