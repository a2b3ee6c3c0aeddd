"""Does a translation gain from stages before it? Trainings that differ in their start, on the ``bench`` demo corpus.

Arms: none (first weights); none_long (the same with twice the epochs, about the cost of a stage and the training);
s2g, g2t, vlp (a stage each), s2g_g2t (both, as MSKA), vlp_s2g_g2t. Each with several seeds, on unseen sentences and
again with signers of their own in val and test. A stage is trained with each seed on the same train split. All see
keypoints alone (pose and MSKA): the true points of the figures with noise, as in sequence.py, hence no backbones.

python benchmarks/stages.py FOLDER                # two CPU hours; what FOLDER holds already is kept
python benchmarks/stages.py FOLDER --seeds 1 --arms none s2g
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from demo import make_corpus
from integration import RECIPE, SPLITS, stage_run, table
from sequence import call

from signstreams.formats.layout import CorpusLayout

ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "none_long": (),
    "s2g": ("s2g",),
    "g2t": ("g2t",),
    "vlp": ("vlp",),
    "s2g_g2t": ("s2g", "g2t"),
    "vlp_s2g_g2t": ("vlp", "s2g", "g2t"),
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="corpus and runs")
    words.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    words.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=20)
    args = words.parse_args()
    folder = args.folder.absolute()
    prepare(folder)
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for seed in range(args.seeds):
        for split in args.splits:
            for arm in args.arms:
                scores = found[split, arm, seed] = translation(folder, split, arm, seed, args.epochs)
                told = ", ".join(f"{key} {value:.1f}" for key, value in scores.items())
                print(f"unseen {split}, {arm}, seed {seed}: {told}", flush=True)
    table(found, args.splits, args.arms)


def prepare(folder: Path) -> None:
    """The corpus, once with each set of splits."""
    make_corpus(CorpusLayout(folder / "data"), "bench")
    for split, index in SPLITS.items():
        corpus = folder / "corpora" / split
        corpus.mkdir(parents=True, exist_ok=True)
        for name, target in {"meta.csv": "meta.csv", "annotations": "annotations", "index": index}.items():
            if not (corpus / name).is_symlink():
                (corpus / name).symlink_to(folder / "data" / target)
        if not (corpus / "processed").is_symlink():
            (corpus / "processed").symlink_to(folder / "data" / "processed")


def translation(folder: Path, split: str, arm: str, seed: int, epochs: int) -> dict[str, float]:
    """Scores on test of one arm."""
    output = folder / "runs" / f"{split}_{arm}_{seed}_{epochs}"
    scores = output / "scores.json"
    if not scores.exists():
        starts = [str(stage_run(folder, split, stage, seed)) for stage in ARMS[arm]]
        epochs *= 2 if arm == "none_long" else 1
        words = ["--config", str(RECIPE), "--epochs", str(epochs), "--train-eval-every-epochs", "5"]
        words += ["--init-checkpoint", *starts] if starts else []
        call(
            "train_slt_multistream_v9.py",
            folder / "corpora" / split,
            folder / "features",
            *words,
            "--seed",
            str(seed),
            "--output-dir",
            str(output),
        )
        best = ["--checkpoint", str(output / "best.pt"), "--blank-video", "false"]
        call("evaluate_slt.py", folder / "corpora" / split, folder / "features", *best)
        shutil.rmtree(output / "state")
    content: dict[str, Any] = json.loads(scores.read_text(encoding="utf-8"))
    return {"bleu_4": content["bleu_4"], "chrf": content["chrf"], "wer": content["gloss"]["wer"]}


if __name__ == "__main__":
    main()
