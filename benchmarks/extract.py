"""Cost of extraction: against a bare MediaPipe Holistic loop, with two jobs, in memory, to the first frame.

    python benchmarks/extract.py [VIDEO] [--pairs N] [--repeat N] [--only PART ...]

The video is played forwards and backwards N times, so that fixed costs per file weigh as in longer videos. Compared
runs alternate, so that a busy machine slows both; figures are medians of ratios with their range.

    ratio    whole extraction (decoding, crops, JPEGs, files, checks) over the frame rate of the bare loop, which gets
             frames that were decoded before, one at a time
    jobs     two videos at once over one after the other
    start    a fresh process to its first result
    memory   peak of a process over 10 minutes of video, and over 20 seconds
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = PROJECT / "scripts" / "extract_rois_v2.py"
DEFAULT_VIDEO = PROJECT.parent / "shared" / "data" / "clips" / "webcam_one_hand.mp4"
START_UP = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from signstreams.extract.settings import HolisticConfig
from signstreams.extract.holistic import HolisticDetector
from signstreams.extract.pipeline import extract_video
from signstreams.extract.video import VideoReader
with VideoReader(Path(sys.argv[1])) as reader, HolisticDetector(HolisticConfig()) as detector:
    detector.detect(next(reader.frames()))
print(time.perf_counter() - start)
assert "torch" not in sys.modules
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", default=DEFAULT_VIDEO)
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
            PARTS[part](video, images, args.pairs)


def ratio(video: Path, images: list[np.ndarray], num_pairs: int) -> None:
    """Whole extraction against the bare loop."""
    from signstreams.contract.run_checks import check_after_extraction
    from signstreams.extract.holistic import HOLISTIC, solution_class
    from signstreams.extract.pipeline import extract_video
    from signstreams.extract.results import VideoJob
    from signstreams.extract.settings import ExtractConfig
    from signstreams.formats.video_sources import VideoSource
    from signstreams.processes import QuietStderr

    frames = _read(video)
    runs: dict[str, Callable[[], None]] = {}

    def bare() -> None:
        with QuietStderr():
            holistic = solution_class("holistic", "Holistic")(model_complexity=1)
            for image in frames:
                holistic.process(image)
            holistic.close()

    def whole(in_flight: int) -> None:
        config = ExtractConfig(videos=[video], root=video.parent / "corpus", holistic={"in_flight": in_flight})
        job = VideoJob(VideoSource.at(video), config, HOLISTIC)
        check_after_extraction(job.layout, job.video_id, video, extract_video(job))

    runs = {"bare": bare, "whole": lambda: whole(2), "whole, one frame in flight": lambda: whole(1)}
    for run in runs.values():  # models into the page cache, code into memory
        run()
    times = [{name: _timed(run) for name, run in runs.items()} for _ in range(num_pairs)]
    for index, clock in enumerate(("wall", "CPU")):
        rates = {name: len(frames) / statistics.median(t[name][index] for t in times) for name in runs}
        for name in list(runs)[1:]:
            ratios = [t["bare"][index] / t[name][index] for t in times]
            print(
                f"ratio, {clock:>4}: bare {rates['bare']:.1f}/s, {name} {rates[name]:.1f}/s: {_spread(ratios)}"
                + ("; target 0.93" if index == 0 else "")
            )


def jobs(video: Path, images: list[np.ndarray], num_pairs: int) -> None:
    """Two processes against one, over four videos."""
    folder = video.parent / "four"
    folder.mkdir()
    for index in range(4):
        (folder / f"v{index}.mp4").hardlink_to(video)

    def run(num_jobs: int, in_flight: int) -> float:
        words = ["--videos", folder, "--root", video.parent / "jobs", "--force", "--jobs", num_jobs]
        began_s = time.perf_counter()
        command = [sys.executable, SCRIPT, *words, "--holistic-in-flight", in_flight]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return time.perf_counter() - began_s

    for in_flight in (1, 2):
        ratios = [run(1, in_flight) / run(2, in_flight) for _ in range(max(2, num_pairs // 2))]
        print(f"jobs: two against one, {in_flight} frames in flight: {_spread(ratios)}; target 1.45")


def start(video: Path, images: list[np.ndarray], num_pairs: int) -> None:
    """A fresh process to its first result."""
    found_s = [
        float(subprocess.run([sys.executable, "-c", START_UP, video], capture_output=True, check=True).stdout)
        for _ in range(num_pairs)
    ]
    print(f"start-up to the first frame: {_spread(found_s)} s; target 1.5")


def memory(video: Path, images: list[np.ndarray], num_pairs: int) -> None:
    """Peak memory of a run of the script; detection on every tenth frame only saves time, all frames are cropped."""
    for name, seconds in (("20 s", 20), ("10 min", 600)):
        path = video.parent / f"long_{seconds}.mp4"
        _write_repeated(images, path, max(1, seconds * 30 // len(images)))
        words = ["--videos", path, "--root", video.parent / "memory", "--holistic-stride", "10"]
        code = (
            "import resource, subprocess, sys\n"
            "subprocess.run(sys.argv[1:], check=True, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
        )
        command = [sys.executable, "-c", code, sys.executable, SCRIPT, *words]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        print(f"memory: {name} of video: peak {float(done.stdout):.0f} MiB; target 700")


def stride(video: Path, images: list[np.ndarray], num_pairs: int) -> None:
    """Every k-th frame: time saved, and boxes against those of every frame."""
    from signstreams.extract.holistic import HOLISTIC
    from signstreams.extract.pipeline import extract_video
    from signstreams.extract.results import VideoJob
    from signstreams.extract.settings import ExtractConfig
    from signstreams.formats.arrays import Tracks, read_tracks
    from signstreams.formats.video_sources import VideoSource

    def run(step: int) -> tuple[float, Tracks]:
        config = ExtractConfig(videos=[video], root=video.parent / f"stride_{step}", holistic={"stride": step})
        job = VideoJob(VideoSource.at(video), config, HOLISTIC)
        began_s = time.perf_counter()
        extract_video(job)
        return time.perf_counter() - began_s, read_tracks(job.layout.tracks("video"))

    for step in (2, 3, 5):
        pairs = [(run(1), run(step)) for _ in range(max(1, num_pairs // 2))]
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


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads) of one call."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
