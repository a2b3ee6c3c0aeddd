"""Cost of extraction: against a bare MediaPipe Holistic loop, with two jobs, in memory, to the first frame.

    python benchmarks/extract.py [VIDEO] [--detector NAME] [--holistic-python PYTHON] [--pairs N] [--only PART ...]

The video is played forwards and backwards N times (--repeat), so that fixed costs per file weigh as in longer videos.
Compared runs alternate, each in a process of its own, so that a busy machine slows both; figures are medians of ratios
with their range. The bare loop runs in PYTHON, an interpreter with mediapipe 0.10.21 (by default this one):

    python3.11 -m venv ~/mediapipe && ~/mediapipe/bin/pip install mediapipe==0.10.21

    ratio    the detector alone, and whole extraction (search for people, crops, JPEGs, files, checks), over the bare
             loop, which gets frames that were decoded before, one at a time: CPU time a frame, and frame rate
    jobs     two videos at once over one after the other
    start    a fresh process to its first result
    memory   peak of a process over 20 seconds of video and over 10 minutes, of which every tenth frame is detected
    stride   detection on every k-th frame: time saved, and distance of boxes from those of every frame
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = PROJECT / "scripts" / "extract_rois_v2.py"
DEFAULT_VIDEO = PROJECT.parent / "shared" / "data" / "clips" / "webcam_one_hand.mp4"

# Programs of the measured processes. Each warms up first: models into the page cache, code into memory.
_MEASURE = """
import time
def measure(run, num_frames):
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    print((time.perf_counter() - wall_s) / num_frames, (time.process_time() - cpu_s) / num_frames)
"""
BARE = f"""{_MEASURE}
import sys
import cv2
import mediapipe
video, frames = cv2.VideoCapture(sys.argv[1]), []
while (read := video.read())[0]:
    frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
def run(frames):
    with mediapipe.solutions.holistic.Holistic(model_complexity=1) as holistic:
        for frame in frames:
            holistic.process(frame)
run(frames[:3])
measure(lambda: run(frames), len(frames))
"""
DETECTOR = f"""{_MEASURE}
import sys
from pathlib import Path
from signstreams.extract.detectors import VideoContext, detections
from signstreams.extract.pipeline import KINDS
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import VideoReader
path, name = Path(sys.argv[1]), sys.argv[2]
config = ExtractConfig(videos=[path], root=path.parent / "corpus", detector=name)
with VideoReader(path) as reader:
    frames = list(reader.frames())
    context = VideoContext(path, "video", reader.width_px, reader.height_px, reader.fps)
def run(frames):
    with KINDS[name].start(config, context) as detector:
        for _ in detections(detector, frames):
            pass
run(frames[:3])
measure(lambda: run(frames), len(frames))
"""
WHOLE = f"""{DETECTOR.rsplit("measure(", 1)[0]}
from signstreams.contract.run_checks import check_after_extraction
from signstreams.extract.pipeline import extract_video
from signstreams.extract.results import VideoJob
from signstreams.formats.video_sources import VideoSource
num_frames = len(frames)
del frames
job = VideoJob(VideoSource.at(path), config, KINDS[name])
measure(lambda: check_after_extraction(job.layout, job.video_id, path, extract_video(job)), num_frames)
"""
START_UP = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from signstreams.extract.detectors import VideoContext
from signstreams.extract.pipeline import KINDS
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import VideoReader
path, name = Path(sys.argv[1]), sys.argv[2]
config = ExtractConfig(videos=[path], root=path.parent, detector=name)
with VideoReader(path) as reader:
    context = VideoContext(path, "video", reader.width_px, reader.height_px, reader.fps)
    with KINDS[name].start(config, context) as detector:
        detector.detect(next(reader.frames()))
print(time.perf_counter() - start)
assert "torch" not in sys.modules
"""


class Bench(NamedTuple):
    """What is measured on what."""

    video: Path
    images: list[np.ndarray]  # (H, W, 3) uint8 RGB, of one pass
    num_pairs: int
    detector: str
    holistic_python: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", default=DEFAULT_VIDEO)
    parser.add_argument("--detector", default="tracker", choices=["tracker", "holistic"])
    parser.add_argument("--holistic-python", default=sys.executable, help="interpreter with mediapipe 0.10.21")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    if not args.video.is_file():
        parser.error(f"{args.video}: no such video")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        images = _read(args.video)
        _write_repeated(images, video, args.repeat)
        height_px, width_px = images[0].shape[:2]
        num_frames = len(images) * args.repeat
        print(f"{args.video.name}: {num_frames} frames of {width_px}x{height_px} px, {os.cpu_count()} cores")
        for part in args.only:
            PARTS[part](Bench(video, images, args.pairs, args.detector, args.holistic_python))


def ratio(bench: Bench) -> None:
    """The detector and whole extraction against the bare loop."""
    programs = {"bare": BARE, bench.detector: DETECTOR, "whole extraction": WHOLE}

    def run(name: str) -> tuple[float, float]:
        python = bench.holistic_python if name == "bare" else sys.executable
        done = subprocess.run(
            [python, "-c", programs[name], bench.video, bench.detector], check=True, capture_output=True, text=True
        )
        wall_s, cpu_s = map(float, done.stdout.split())
        return wall_s, cpu_s

    times = [{name: run(name) for name in programs} for _ in range(bench.num_pairs)]
    bare_wall_s, bare_cpu_s = (statistics.median(t["bare"][clock] for t in times) for clock in (0, 1))
    print(f"ratio: bare {1000 * bare_cpu_s:.1f} ms of CPU a frame, {1 / bare_wall_s:.1f} frames/s")
    for name in list(programs)[1:]:
        wall_s, cpu_s = (statistics.median(t[name][clock] for t in times) for clock in (0, 1))
        cpu = _spread([t[name][1] / t["bare"][1] for t in times])
        wall = _spread([t["bare"][0] / t[name][0] for t in times])
        target = "; target at most 1.0" if name == bench.detector else ""
        print(f"ratio: {name} {1000 * cpu_s:.1f} ms of CPU a frame, over bare {cpu}{target}")
        print(f"ratio: {name} {1 / wall_s:.1f} frames/s, over bare {wall}")


def jobs(bench: Bench) -> None:
    """Two processes against one, over four videos."""
    folder = bench.video.parent / "four"
    folder.mkdir()
    for index in range(4):
        (folder / f"v{index}.mp4").hardlink_to(bench.video)

    def run(num_jobs: int) -> float:
        words = ["--videos", folder, "--root", bench.video.parent / "jobs", "--force", "--jobs", num_jobs]
        began_s = time.perf_counter()
        command = [sys.executable, SCRIPT, *words, "--detector", bench.detector]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return time.perf_counter() - began_s

    ratios = [run(1) / run(2) for _ in range(max(2, bench.num_pairs // 2))]
    print(f"jobs: two against one: {_spread(ratios)}; target 1.8")


def start(bench: Bench) -> None:
    """A fresh process to its first result."""
    command = [sys.executable, "-c", START_UP, bench.video, bench.detector]
    found_s = [
        float(subprocess.run(list(map(str, command)), capture_output=True, check=True).stdout)
        for _ in range(bench.num_pairs)
    ]
    print(f"start-up to the first frame: {_spread(found_s)} s; target 0.7")


def memory(bench: Bench) -> None:
    """Peak memory of a run of the script; in 10 minutes every tenth frame is detected, to save time."""
    for name, seconds, stride in (("20 s", 20, 1), ("20 s, every tenth frame", 20, 10), ("10 min", 600, 10)):
        path = bench.video.parent / f"long_{seconds}.mp4"
        _write_repeated(bench.images, path, max(1, seconds * 30 // len(bench.images)))
        words = ["--videos", path, "--root", bench.video.parent / "memory", "--detector", bench.detector]
        words += [f"--{bench.detector}-stride", str(stride), "--force"]
        code = (
            "import resource, subprocess, sys\n"
            "subprocess.run(sys.argv[1:], check=True, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
        )
        command = [sys.executable, "-c", code, sys.executable, SCRIPT, *words]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        print(f"memory: {name}: peak {float(done.stdout):.0f} MiB; target 400")


def stride(bench: Bench) -> None:
    """Every k-th frame: time saved, and boxes against those of every frame."""
    from signstreams.extract.pipeline import KINDS, extract_video
    from signstreams.extract.results import VideoJob
    from signstreams.extract.settings import ExtractConfig
    from signstreams.formats.arrays import Tracks, read_tracks
    from signstreams.formats.video_sources import VideoSource

    def run(step: int) -> tuple[float, Tracks]:
        config = ExtractConfig.model_validate(
            {
                "videos": [bench.video],
                "root": bench.video.parent / f"stride_{step}",
                "detector": bench.detector,
                bench.detector: {"stride": step},
            }
        )
        job = VideoJob(VideoSource.at(bench.video), config, KINDS[bench.detector])
        began_s = time.perf_counter()
        extract_video(job)
        return time.perf_counter() - began_s, read_tracks(job.layout.tracks("video"))

    for step in (2, 3, 5):
        pairs = [(run(1), run(step)) for _ in range(max(1, bench.num_pairs // 2))]
        gain = _spread([every[0] / some[0] for every, some in pairs])
        lost = []
        for name, exact in pairs[0][0][1].streams.items():
            track = pairs[0][1][1].streams[name]
            both = (exact.state > 0) & (track.state > 0)
            if not both.any():
                continue
            middle = (exact.box[both, :2] + exact.box[both, 2:] - track.box[both, :2] - track.box[both, 2:]) / 2
            off = np.linalg.norm(middle, axis=1) / (exact.box[both, 2] - exact.box[both, 0])
            share = both.sum() / max(1, (exact.state > 0).sum())
            lost.append(f"{name} {np.median(off):.3f} / {np.quantile(off, 0.95):.3f}, {share:.1%} kept")
        print(f"stride {step}: {gain} times as fast; centre off by median / 95 % of the side: {'; '.join(lost)}")


PARTS = {"ratio": ratio, "jobs": jobs, "start": start, "memory": memory, "stride": stride}


def _read(video: Path) -> list[np.ndarray]:
    from signstreams.extract.video import VideoReader

    with VideoReader(video) as reader:
        return [frame.image for frame in reader.frames()]


def _write_repeated(images: list[np.ndarray], target: Path, num_times: int) -> None:
    """H.264 of the frames, forwards and backwards in turn."""
    import av

    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = (side // 2 * 2 for side in images[0].shape[:2])
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18", "preset": "veryfast"}
        for index in range(num_times):
            for image in images[:: -1 if index % 2 else 1]:
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(image[: stream.height, : stream.width]), "rgb24"
                )
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
