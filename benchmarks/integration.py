"""Ablations of multistream v9: trainings that differ in one thing, on the ``bench`` demo corpus.

Arms: full (pretrained backbones, pose, MSKA); hidden (the same, each stream hidden from 30 % of the clips in training);
staged (full after stages s2g and g2t); random (full with the backbones' first weights); keypoints (no images); images
(full without pose and MSKA, hence without gloss losses); blank (every stream hidden).
Each with several seeds, on unseen sentences and again with signers of their own in val and test. Chosen by val,
scored on test with five beams. Backbones are pretrained on all videos, of every split, without their texts.

python benchmarks/integration.py                    # corpus, pretraining and trainings; hours on 2 cores
python benchmarks/integration.py --dir DIR          # keeps what DIR holds already
python benchmarks/integration.py --arms full blank --seeds 1 --epochs 5
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from sequence import call

from signstreams.integrate.stage_settings import of_stage

PROJECT = Path(__file__).parents[1]
SCRIPTS = PROJECT / "scripts"
RECIPE = PROJECT / "config" / "integrate" / "demo.yml"
STAGE_EPOCHS = 20
STREAMS = {"face": "--face-backbone", "hand_l": "--hand-left-backbone", "hand_r": "--hand-right-backbone"}
ARMS = {
    "full": [],
    "hidden": ["--set", "model.stream_dropout=0.3"],
    "staged": [],
    "random": [],
    "keypoints": [],
    "images": ["--use-mska", "false", "--use-pose", "false"],
    "blank": ["--data-blank-video", "true"],
}
SPLITS = {"sentences": "index", "signers": "index_unseen_signer"}
SCORES = (("BLEU-4", "bleu_4"), ("chrF", "chrf"), ("gloss WER", "wer"))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--dir", type=Path, default=PROJECT / "work_dirs" / "bench", help="corpus, backbones and runs")
    words.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    words.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=40)
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once, one thread each")
    args = words.parse_args()
    folder = args.dir.absolute()
    prepare(folder)
    jobs = [(split, arm, seed) for split in args.splits for seed in range(args.seeds) for arm in args.arms]
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(lambda job: run(folder, job[0], job[1], job[2], args.epochs), jobs))
    table(dict(zip(jobs, found, strict=True)), args.splits, args.arms)


def prepare(folder: Path) -> None:
    """Render the corpus, pretrain the backbones, export them with their initial weights too, and embed both."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(
        f"corpus:\n  root: {folder}/data\n  demo_size: bench\nwork_dir: {folder}/work_dirs\n"
        "pretrain:\n  config: config/pretrain/small.toml\n  threads: 1\n"
        # the recipe for small corpora; this one has hardly more crops than that
        "  set:\n    dataset.max_crops: 20000\n    experiment.name: bench\n",
        encoding="utf-8",
    )
    backbones = [folder / "work_dirs" / f"dino_{stream}" / "backbone.pt" for stream in STREAMS]
    if not all(path.exists() for path in backbones):
        command = [sys.executable, "-m", "snakemake", "--cores", str(os.cpu_count() or 1), *map(str, backbones)]
        command += ["--configfile", "config/config.yaml", str(config)]
        subprocess.run(command, cwd=PROJECT, check=True)
    for split, index in SPLITS.items():
        corpus = folder / "corpora" / split
        corpus.mkdir(parents=True, exist_ok=True)
        names = {name: name for name in ("meta.csv", "annotations", "processed")} | {"index": index}
        for name, target in names.items():
            if not (corpus / name).exists():
                (corpus / name).symlink_to(folder / "data" / target)
    for stream, path in zip(STREAMS, backbones, strict=True):
        first_weights(path, folder / "work_dirs" / f"first_{stream}.pt")
        for source in (path, folder / "work_dirs" / f"first_{stream}.pt"):
            embed(folder, "--stream", stream, "--backbone", f"file::{source}")
    embed(folder, "--stream", "points")


def embed(folder: Path, *words: str) -> None:
    """Compute the features once for all trainings."""
    command = [sys.executable, str(SCRIPTS / "embed_streams.py"), "--root", str(folder / "data")]
    subprocess.run([*command, "--features", str(folder / "features"), *words], check=True)


def first_weights(pretrained: Path, target: Path) -> None:
    """Export the weights that a pretraining started from."""
    if target.exists():
        return
    from signstreams.backbones.vit import VisionTransformer
    from signstreams.backbones.weights import export_backbone, load_dinov2_backbone
    from signstreams.engine.seeding import torch_generator

    backbone = load_dinov2_backbone(f"file::{pretrained}")
    params = json.loads((pretrained.parent / "params.json").read_text(encoding="utf-8"))
    assert isinstance(backbone.model, VisionTransformer)
    first = VisionTransformer(backbone.model.arch)
    first.init_weights(torch_generator(params["config"]["seed"], "backbone"))
    kept = {key: backbone.metadata[key] for key in ("image_px", "mean", "std")}
    export_backbone(target, backbone.model.arch, first.state_dict(), kept)


def run(folder: Path, split: str, arm: str, seed: int, epochs: int) -> dict[str, float]:
    """Train and score one model, unless that is done already; returns its scores on test."""
    output = folder / "runs" / f"{split}_{arm}_{seed}_{epochs}"
    root, features, scores = folder / "corpora" / split, folder / "features", output / "scores.json"
    if not scores.exists():
        words = ["--config", str(RECIPE), *ARMS[arm], "--output-dir", str(output), "--seed", str(seed)]
        words += ["--epochs", str(epochs), "--train-eval-every-epochs", "5", "--on-conflict", "archive"]
        if arm == "staged":
            starts = [stage_run(folder, split, stage, seed) for stage in ("s2g", "g2t")]
            words += ["--init-checkpoint", *map(str, starts)]
        if arm != "keypoints":
            place = "first_{}.pt" if arm == "random" else "dino_{}/backbone.pt"
            for stream, flag in STREAMS.items():
                words += [flag, f"file::{folder / 'work_dirs' / place.format(stream)}"]
        call("train_slt_multistream_v9.py", root, features, *words)
        call("evaluate_slt.py", root, features, "--checkpoint", str(output / "best.pt"), "--blank-video", "false")
        shutil.rmtree(output / "state")
    content = json.loads(scores.read_text(encoding="utf-8"))
    found = {"bleu_4": content["bleu_4"], "chrf": content["chrf"]}
    if "gloss" in content:
        found["wer"] = content["gloss"]["wer"]
    print(f"{split} {arm} seed {seed}: " + ", ".join(f"{k} {v:.1f}" for k, v in found.items()), flush=True)
    return found


def stage_run(folder: Path, split: str, stage: str, seed: int) -> Path:
    """The best.pt of a stage, trained unless it is there; it knows no backbone."""
    output = folder / "stages" / f"{split}_{stage}_{seed}"
    if not (output / "artifacts.json").exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        recipe = output.with_suffix(".yml")  # one per run: several may start at once
        tree = of_stage(yaml.safe_load(RECIPE.read_text(encoding="utf-8")), stage)
        tree["train"] |= {"epochs": STAGE_EPOCHS, "eval_every_epochs": 5}
        recipe.write_text(yaml.safe_dump({k: v for k, v in tree.items() if k != "root"}), encoding="utf-8")
        words = ["--config", str(recipe), "--seed", str(seed), "--output-dir", str(output)]
        call("train_slt_multistream_v9.py", folder / "corpora" / split, folder / "features", *words)
        shutil.rmtree(output / "state")
    return output / "best.pt"


def table(found: dict[tuple[str, str, int], dict[str, float]], splits: list[str], arms: list[str]) -> None:
    """Mean and deviation over the seeds."""
    for split in splits:
        print(f"\nunseen {split:<10} " + "".join(f"{name:>16}" for name, _ in SCORES))
        for arm in arms:
            row = [scores for (s, a, _), scores in found.items() if (s, a) == (split, arm)]
            cells = []
            for _, key in SCORES:
                values = [scores[key] for scores in row if key in scores]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "-")
            print(f"{arm:<17} " + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
