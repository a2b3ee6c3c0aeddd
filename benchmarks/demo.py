"""What `make demo` scores on other seeds and thread counts: the range that its verdict compares a run with.

The translation is trained again on the features and points of a demo that has run, for each seed with each number of
threads, as the workflow does it. To be recorded again whenever the demo's corpus or recipe changes.

python benchmarks/demo.py FOLDER                  # of the demo in data/demo and work_dirs; what FOLDER holds is kept
python benchmarks/demo.py FOLDER --record         # also into src/signstreams/publish/demo_range.json, which ships
python benchmarks/demo.py FOLDER --points-only    # without a demo: on the noisy true points of benchmarks/sequence.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from sequence import write_video

from signstreams.demo.corpus import write_annotations
from signstreams.demo.plan import plan
from signstreams.files import read_json, write_json
from signstreams.formats.layout import CorpusLayout, RunLayout
from signstreams.publish.figures import DEMO_RANGE
from signstreams.streams import BY_NAME, STREAMS

PROJECT = Path(__file__).parents[1]
RECIPE = PROJECT / "config" / "integrate" / "demo.yml"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="runs, and the corpus of --points-only")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    words.add_argument("--root", type=Path, default=PROJECT / "data" / "demo")
    words.add_argument("--work-dir", type=Path, default=PROJECT / "work_dirs")
    words.add_argument("--points-only", action="store_true", help="no backbones; computed points without a picture")
    words.add_argument("--record", action="store_true", help="write demo_range.json")
    words.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the training")
    args = words.parse_args()
    if args.record and (args.points_only or args.set):
        words.error("--record is of the demo as it is shipped: without --points-only and --set")
    runs = RunLayout(args.work_dir)
    root, features = args.root, runs.features
    backbones = [word for s in STREAMS for word in (BY_NAME[s].backbone_flag, f"file::{runs.backbone(s).absolute()}")]
    if args.points_only:
        root, features, backbones = args.folder / "corpus", args.folder / "features", []
        make_corpus(CorpusLayout(root), "demo")
    found = []
    for seed in args.seeds:
        for threads in args.threads:
            output = args.folder / "_".join([f"seed_{seed}", f"threads_{threads}", *args.set])
            words_of_run = [*backbones, "--seed", str(seed), "--set", "train.log_every_steps=20", *args.set]
            found.append(scores(root, features, output, threads, words_of_run))
            print(f"seed {seed}, {threads} threads: {shown(found[-1])}", flush=True)
    values = {"bleu_4": [s["bleu_4"] for s in found], "wer": [s["gloss"]["wer"] for s in found]}
    ranges = {name: [round(min(of), 1), round(max(of), 1)] for name, of in values.items()}
    print(json.dumps(ranges))
    if args.record:
        summary = read_json(CorpusLayout(root).report)["summary"]
        counts = {key: summary[key] for key in ("num_videos", "num_clips", "num_frames")}
        of = {"seeds": listed(args.seeds), "threads": listed(args.threads), "machine": platform.machine()}
        write_json(DEMO_RANGE, {"counts": counts, **ranges, "runs": of})
        print(DEMO_RANGE)


def listed(numbers: list[int]) -> str:
    """``"0, 1, 2"``."""
    return ", ".join(map(str, numbers))


def make_corpus(layout: CorpusLayout, size: str) -> None:
    """A demo corpus as points alone, unless it is there; meta.csv comes last."""
    if not layout.meta.is_file():
        demo = plan(size, 0)
        for video in demo.videos:
            write_video(layout, video)
        write_annotations(layout, demo)


def scores(root: Path, features: Path, output: Path, threads: int, words: list[str]) -> dict[str, Any]:
    """Content of scores.json of one training, unless it is done already."""
    if not (output / "scores.json").exists():
        common = ["--root", str(root), "--features", str(features)]
        train = ["train_slt_multistream_v9.py", "--config", str(RECIPE), "--output-dir", str(output), *words]
        for script, *rest in (train, ["evaluate_slt.py", "--checkpoint", str(output / "best.pt")]):
            command = [sys.executable, str(PROJECT / "scripts" / script), *common, *rest]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{script}: ended with code {done.returncode}\n{done.stderr[-2000:]}")
        shutil.rmtree(output / "state")
    content: dict[str, Any] = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    return content


def shown(content: dict[str, Any]) -> str:
    """Scores and blank video's, with the interval of the difference."""
    blank = content["baselines"]["blank_video"]
    pairs = [(name, content[name], blank[name]) for name in ("bleu_4", "chrf")]
    pairs.append(("wer", content["gloss"]["wer"], blank["gloss"]["wer"]))
    return ", ".join(
        f"{name} {ours:.1f} against {theirs:.1f}"
        f" [{blank['difference'][name]['low']:.1f}, {blank['difference'][name]['high']:.1f}]"
        for name, ours, theirs in pairs
    )


if __name__ == "__main__":
    main()
