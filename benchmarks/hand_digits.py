"""Pretraining on 2,059 real hand photos, judged by k-NN on the digit they show. Needs shared/data/hand_digits.zip.

Every 5th photo of a digit, in name order, is test; the others are trained on without their labels, from random weights.
Weighted k-NN (k 20, temperature .07, cosine) on class tokens, before and after, beside raw pixels and HOG. The split
shares people between train and test, as published figures do.

python benchmarks/hand_digits.py                           # the recipe for small corpora: about 6 minutes on 2 cores
python benchmarks/hand_digits.py --recipe all              # and without KoLeo, as iBOT, and DINO's own start
python benchmarks/hand_digits.py --recipe small -- --epochs 20 --seed 1      # further arguments go to the trainer
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PROJECT = Path(__file__).parents[1]
PHOTOS = PROJECT.parent / "shared" / "data" / "hand_digits.zip"
RECIPE = PROJECT / "config" / "pretrain" / "small.toml"
TEST_EVERY = 5
K, TEMPERATURE = 20, 0.07

RECIPES = {
    "small": [],
    "without KoLeo": ["--koleo-weight", "0"],
    "iBOT": ["--algorithm", "ibot"],
    # what the number of crops would not have chosen: targets by centring, no batch norm, Caron et al.'s widths
    "published start": [
        *("--dino-batch-norm", "false", "--use-sinkhorn", "false", "--dino-standardize-head", "false"),
        *("--dino-bottleneck-dim", "256", "--dino-teacher-temp", "0.04", "--koleo-weight", "0"),
    ],
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--photos", type=Path, default=PHOTOS)
    words.add_argument("--recipe", choices=[*RECIPES, "all"], default="small")
    words.add_argument("--keep", type=Path, help="folder for the runs; default: a temporary one")
    words.add_argument("further", nargs="*", help="after --: words for scripts/pretrain_dino_hands.py")
    args = words.parse_args()
    if not args.photos.is_file():
        sys.exit(f"{args.photos}: no such file; give --photos hand_digits.zip")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        split(args.photos, folder / "photos")
        references(folder / "photos")
        for name in RECIPES if args.recipe == "all" else [args.recipe]:
            run(name, folder, [*RECIPES[name], *args.further])


def split(archive: Path, folder: Path) -> None:
    """Write the photos to ``folder/{train,test}/<digit>/``."""
    by_digit: dict[str, list[str]] = {}
    with zipfile.ZipFile(archive) as photos:
        for name in photos.namelist():
            if not name.endswith("/"):
                by_digit.setdefault(Path(name).parent.name, []).append(name)
        for digit, names in by_digit.items():
            for i, name in enumerate(sorted(names)):
                target = folder / ("test" if i % TEST_EVERY == 0 else "train") / digit / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(photos.read(name))


def read(folder: Path, side_px: int) -> "tuple[Tensor, Tensor]":
    """Photos (N, side, side, 3) uint8 and digits (N,)."""
    import numpy as np
    import torch

    from signstreams.pretrain.views import whole_view

    paths = sorted(folder.glob("*/*"))
    images = np.stack([whole_view(path.read_bytes(), side_px) for path in paths])
    return torch.from_numpy(images), torch.tensor([int(path.parent.name) for path in paths])


def accuracy(features: "list[Tensor]", digits: "list[Tensor]") -> float:
    """k-NN accuracy on the test photos with the train photos as bank, in %."""
    from signstreams.pretrain.knn import cosines, vote

    answers = vote(cosines(features[1], features[0]), digits[0], k=K, temperature=TEMPERATURE)
    return 100 * float((answers == digits[1]).double().mean())


def references(photos: Path) -> None:
    """Print the accuracy of features that need no learning."""
    import torch

    from signstreams.judge.features import FREE_PX, hog

    images, digits = zip(*(read(photos / part, FREE_PX) for part in ("train", "test")), strict=True)
    mean = images[0].float().mean()
    print(f"{len(digits[0])} photos to train on, {len(digits[1])} to test, {FREE_PX} px for what follows")
    print(f"raw pixels       {accuracy([(x.float() - mean).flatten(1) for x in images], list(digits)):5.1f} %")
    gradients = [torch.stack([torch.from_numpy(hog(image.numpy())) for image in part]) for part in images]
    print(f"HOG              {accuracy(gradients, list(digits)):5.1f} %", flush=True)


def run(name: str, folder: Path, words: list[str]) -> None:
    """Pretrain by the recipe in its own process; print the k-NN accuracy of its first and its last weights."""
    output = folder / name.replace(" ", "_")
    command = [sys.executable, str(PROJECT / "scripts" / "pretrain_dino_hands.py"), "--config", str(RECIPE)]
    command += ["--train-dir", str(folder / "photos" / "train"), "--stream", "hand_r", "--output-dir", str(output)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    done = subprocess.run([*command, *words], env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    wall_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        print(f"{name:<16} ended with code {done.returncode} after {wall_s / 60:.1f} min", flush=True)
        return
    from signstreams.backbones.vit import VisionTransformer
    from signstreams.backbones.weights import load_dinov2_backbone
    from signstreams.engine.seeding import torch_generator
    from signstreams.pretrain.health import embed

    backbone = load_dinov2_backbone(f"file::{output / 'backbone.pt'}")
    params = json.loads((output / "params.json").read_text(encoding="utf-8"))
    first = VisionTransformer(backbone.model.arch).eval()
    first.init_weights(torch_generator(params["config"]["seed"], "backbone"))  # the very weights it started from
    parts = [read(folder / "photos" / part, backbone.image_px) for part in ("train", "test")]
    digits = [labels for _, labels in parts]
    scores = [
        accuracy([embed(model, images, backbone.normalize) for images, _ in parts], digits)
        for model in (first, backbone)
    ]
    last = json.loads((output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    print(
        f"{name:<16} {scores[0]:5.1f} % -> {scores[1]:5.1f} %   {last['step']} steps, {wall_s / 60:.1f} min,"
        f" {cpu_s:.0f} CPU s; DINO loss {last['train/loss_dino']:.2f}, ln K {params['ln_num_prototypes']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
