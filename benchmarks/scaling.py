"""What Snakemake itself costs: a dry run over corpora of synthetic metadata, time and memory, with and without batches.

python benchmarks/scaling.py
python benchmarks/scaling.py --videos 65 1000 10000 100000 --videos-per-job 1 200
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
CLIPS_PER_VIDEO = 2


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--videos", type=int, nargs="+", default=[65, 1_000, 10_000])
    words.add_argument("--videos-per-job", type=int, nargs="+", default=[1, 200])
    words.add_argument("--target", default="all")
    args = words.parse_args()
    print(f"{'videos':>8} {'a job':>6} {'jobs':>7} {'dry run':>9} {'CPU':>9} {'memory':>9}")
    for num_videos in args.videos:
        with tempfile.TemporaryDirectory() as folder:
            make_corpus(Path(folder), num_videos)
            for per_job in args.videos_per_job:
                wall_s, cpu_s, memory_mb, jobs = dry_run(Path(folder), per_job, args.target)
                times = f"{wall_s:>7.1f} s {cpu_s:>7.1f} s"
                print(f"{num_videos:>8} {per_job:>6} {jobs:>7} {times} {memory_mb:>6.0f} MB", flush=True)


def make_corpus(folder: Path, num_videos: int) -> None:
    """Empty videos and texts for their clips: a dry run looks at names and times alone."""
    (folder / "videos").mkdir()
    (folder / "corpus").mkdir()
    with (folder / "corpus" / "meta.csv").open("w", encoding="utf-8") as file:
        file.write("id;video;text;start;end\n")
        for number in range(num_videos):
            (folder / "videos" / f"v{number:06d}.mp4").touch()
            for clip in range(CLIPS_PER_VIDEO):
                file.write(f"v{number:06d}_{clip};v{number:06d};a text;{clip * 4}.0;{clip * 4 + 3}.5\n")


def dry_run(folder: Path, per_job: int, target: str) -> tuple[float, float, float, int]:
    """Wall and CPU seconds, peak MB and number of jobs of ``snakemake -n``."""
    config = folder / f"{per_job}.yaml"
    config.write_text(
        f"corpus: {{root: '{folder}/corpus', videos: '{folder}/videos'}}\nwork_dir: '{folder}/work_dirs'\n"
        f"extract: {{videos_per_job: {per_job}}}\npretrain: {{gpus: 0}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "rules", "--cores", "1", target]
    started_s = time.perf_counter()
    run = subprocess.Popen(
        [*command, "--configfile", "config/config.yaml", str(config)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = run.stdout.read() if run.stdout else ""
    _, status, usage = os.wait4(run.pid, 0)
    if status:
        sys.exit(output[-3000:])
    total = next((line.split()[1] for line in output.splitlines() if line.startswith("total")), "0")
    scale = 1 if sys.platform == "darwin" else 1024
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started_s, cpu_s, usage.ru_maxrss * scale / 1e6, int(total)


if __name__ == "__main__":
    main()
