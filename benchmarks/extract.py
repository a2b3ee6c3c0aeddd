"""What extraction costs beside detection: whole runs paired with a bare MediaPipe Holistic loop over the same frames.

    python benchmarks/extract.py [VIDEO] [--pairs N] [--repeat N]

The video is played forth and back N times, so that the fixed costs of a file weigh as they do in videos of some length.
Prints the ratio of frame rates (bare time over whole time; CPU seconds beside wall seconds), the start-up of a fresh
process to its first frame, and the peak memory. The two kinds of run alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DEFAULT_VIDEO = PROJECT.parent / "shared" / "data" / "clips" / "webcam_one_hand.mp4"
START_UP = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from signstreams.config.extract import HolisticConfig
from signstreams.extract.holistic import HolisticDetector
from signstreams.extract.pipeline import extract_video
from signstreams.extract.video import VideoReader
with VideoReader(Path(sys.argv[1])) as reader, HolisticDetector(HolisticConfig()) as detector:
    detector.detect(next(reader.frames()).image)
print(time.perf_counter() - start)
assert "torch" not in sys.modules
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", type=Path, nargs="?", default=DEFAULT_VIDEO)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    if not args.video.is_file():
        parser.error(f"{args.video}: no such video")

    from signstreams.config.extract import ExtractConfig, HolisticConfig
    from signstreams.extract.holistic import HolisticDetector
    from signstreams.extract.pipeline import extract_video
    from signstreams.extract.video import VideoReader
    from signstreams.formats.layout import CorpusLayout

    folder = tempfile.TemporaryDirectory()
    video = Path(folder.name) / "video.mp4"
    _write_repeated(args.video, video, args.repeat)
    with VideoReader(video) as reader:
        images = [frame.image for frame in reader.frames()]

    def bare() -> None:
        with HolisticDetector(HolisticConfig()) as detector:
            detector.detect(images[0])
            for image in images[1:]:
                detector._graph.process(image)

    config = ExtractConfig(videos=[video], root=Path(folder.name))

    def whole() -> None:
        extract_video(video, CorpusLayout(config.root), "video", config)

    bare(), whole()  # models into the page cache, code into memory
    runs = [(_timed(bare), _timed(whole)) for _ in range(args.pairs)]
    start_up_s = [
        float(subprocess.run([sys.executable, "-c", START_UP, video], capture_output=True, check=True).stdout)
        for _ in range(args.pairs)
    ]
    print(
        f"{args.video.name}: {len(images)} frames of {images[0].shape[1]}x{images[0].shape[0]} px, {args.pairs} pairs"
    )
    for index, clock in enumerate(("wall", "CPU")):
        ratios = [bare_s[index] / whole_s[index] for bare_s, whole_s in runs]
        print(
            f"{clock:>5}: bare {_rate(len(images), [b[index] for b, _ in runs])}, "
            f"whole {_rate(len(images), [w[index] for _, w in runs])}, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}; target 0.93)"
        )
    print(f"start-up to the first frame: {statistics.median(start_up_s):.2f} s (target 1.5)")
    print(
        f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB with the bare loop's frames"
    )


def _write_repeated(source: Path, target: Path, num_times: int) -> None:
    """H.264 of the frames forth and back, again and again."""
    import av

    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18", "preset": "veryfast"}
        for index in range(num_times):
            for image in frames[:: -1 if index % 2 else 1]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads) of one call."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _rate(num_frames: int, seconds: list[float]) -> str:
    return f"{num_frames / statistics.median(seconds):.1f}/s"


if __name__ == "__main__":
    main()
