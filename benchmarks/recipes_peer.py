"""DINO as a user of lightly trains it (lightly-ai/lightly 1.6), for the table of `recipes.py`; a process of its own.

python benchmarks/recipes_peer.py --crops photos/train --output lightly --steps 2000 --seed 0

Its own transform, head, loss and schedules, put together as its example does (examples/pytorch/dino.py: head of 512, 64
and 2,048, rate 1e-3, batch 64, last layer frozen for an epoch), and timm's ViT with its own first weights. What the
example leaves out is as published (facebookresearch/dino): AdamW, weight decay .04 to .4, momentum .996 to 1, teacher's
temperature .04, warm-up for a tenth of the run, gradients clipped at 3. The teacher's backbone becomes ``backbone.pt``,
and what it was at the start ``first.pt``, in timm's layout.

It needs lightly (`pip install lightly`, no dependency of signstreams) in the interpreter that runs it.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

HIDDEN, BOTTLENECK, PROTOTYPES = 512, 64, 2048  # of its example
BATCH = 64  # of its example, and of config/pretrain/small.toml
WIDTH, DEPTH, HEADS, PATCH_PX, GLOBAL_PX = 192, 4, 3, 12, 48  # the network and the views of config/pretrain/small.toml
WARMUP_SHARE, FINAL_RATE, WEIGHT_DECAY, CLIP = 0.1, 1e-6, (0.04, 0.4), 3.0
LOG_EVERY = 50


@dataclass(frozen=True)
class Choice:
    """What a user of lightly decides beyond its example."""

    learning_rate: float
    momentum: float  # of the teacher at the start
    transform: dict[str, Any]  # words for DINOTransform beyond its defaults


CHOICES = {
    # 96 of 224 px is 20.6 of 48; the next multiple of the patch is 24. All else is DINOTransform's default
    "lightly": Choice(1e-3, 0.996, {"global_crop_size": GLOBAL_PX, "local_crop_size": 24}),
    # what config/pretrain/small.toml found for few crops and few steps, as far as lightly has it: wide views, no flip,
    # blur in proportion to the view, rate and momentum
    "lightly tuned": Choice(
        2e-3,
        0.9,
        {
            "global_crop_size": GLOBAL_PX,
            "global_crop_scale": (0.6, 1.0),
            "local_crop_size": 36,
            "local_crop_scale": (0.35, 0.9),
            "n_local_views": 2,
            "hf_prob": 0.0,
            "sigmas": (0.1 * GLOBAL_PX / 224, 2 * GLOBAL_PX / 224),
            "solarization_prob": 0.0,
        },
    ),
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--crops", type=Path, nargs="+", required=True, help="folders or ZIPs of crops")
    words.add_argument("--output", type=Path, required=True)
    words.add_argument("--steps", type=int, required=True)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--choice", choices=CHOICES, default="lightly")
    args = words.parse_args()
    train(args.crops, args.output, args.steps, args.seed, CHOICES[args.choice])


def train(folders: list[Path], output: Path, steps: int, seed: int, choice: Choice) -> None:
    """Train for so many steps on one core and write the files."""
    import numpy as np
    import timm
    import torch
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import DINOTransform
    from lightly.utils.scheduler import cosine_schedule, cosine_warmup_schedule

    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # its blur draws from there
    torch.manual_seed(seed)
    crops: Any = Crops(folders, DINOTransform(**choice.transform))  # a Dataset but in name
    loader: Any = torch.utils.data.DataLoader(crops, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=0)
    backbone = timm.models.vision_transformer.VisionTransformer(
        img_size=GLOBAL_PX,
        patch_size=PATCH_PX,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        dynamic_img_size=True,  # local views are smaller
    )
    head = DINOProjectionHead(WIDTH, HIDDEN, BOTTLENECK, PROTOTYPES, freeze_last_layer=1)
    teacher, teacher_head = copy.deepcopy(backbone).eval(), DINOProjectionHead(WIDTH, HIDDEN, BOTTLENECK, PROTOTYPES)
    teacher_head.load_state_dict(head.state_dict())
    loss_of = DINOLoss(output_dim=PROTOTYPES)
    decayed, others = parted([backbone, head])
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    output.mkdir(parents=True, exist_ok=True)
    torch.save(teacher.state_dict(), output / "first.pt")
    with (output / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        for step, views in zip(range(steps), endless(loader), strict=False):
            epoch = step // len(loader)
            optimizer.param_groups[0]["weight_decay"] = cosine_schedule(step, steps, *WEIGHT_DECAY)
            factor = cosine_warmup_schedule(
                step, steps, 1.0, FINAL_RATE / choice.learning_rate, int(WARMUP_SHARE * steps), 0.0
            )
            for group in optimizer.param_groups:
                group["lr"] = factor * choice.learning_rate
            with torch.no_grad():
                targets = [teacher_head(teacher(view)) for view in views[:2]]  # each (B, K)
            loss = loss_of(targets, [head(backbone(view)) for view in views])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*decayed, *others], CLIP)
            head.cancel_last_layer_gradients(epoch)
            optimizer.step()
            momentum = cosine_schedule(step, steps, choice.momentum, 1.0)
            update_momentum(backbone, teacher, momentum)
            update_momentum(head, teacher_head, momentum)
            if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
                line = json.dumps({"step": step + 1, "epoch": epoch, "train/loss_dino": loss.item()})
                print(line, file=metrics, flush=True)
    torch.save(teacher.state_dict(), output / "backbone.pt")


def endless(loader: Any) -> Any:
    """Batches of one pass after the other."""
    while True:
        yield from loader


def parted(modules: list[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights that decay, and norms and biases that do not, as published."""
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    return [p for _, p in named if p.ndim > 1], [p for _, p in named if p.ndim <= 1]


class Crops:
    """Views of crops, decoded by PIL, as a folder of images of torchvision gives them."""

    def __init__(self, folders: list[Path], transform: Any) -> None:
        from signstreams.formats.crops import CropReader
        from signstreams.pretrain.crop_index import build_index

        index, problems = build_index(folders)
        if problems:
            raise SystemExit(f"{problems[0][0]}: found no crops")
        self._crops, self._reader, self._transform = list(index), CropReader(), transform

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, i: int) -> list[Tensor]:
        from PIL import Image

        image = Image.open(io.BytesIO(self._reader.read(self._crops[i]))).convert("RGB")
        views: list[Tensor] = self._transform(image)
        return views


if __name__ == "__main__":
    main()
