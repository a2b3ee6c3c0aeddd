"""Rates of pretraining: the loader alone, the step alone, both together. Prints one line each; needs no corpus.

Then a step of iBOT beside one of DINO, in turns: ViT-Ti/16, 2 x 224 + 8 x 96 px, batch 8, 8192 prototypes.

python benchmarks/pretrain.py                        # the demo recipe, on made-up crops
python benchmarks/pretrain.py --config config/pretrain/face.toml --dataset-batch-size 8
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from signstreams.cli import parse
from signstreams.config.pretrain import PretrainConfig

NUM_VIDEOS, NUM_FRAMES, SIDE_PX = 8, 64, 224
WARMUP_STEPS, STEPS = 2, 5
PAIRS = 6
DEMO = Path(__file__).parents[1] / "config" / "pretrain" / "demo_hand_r.toml"


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if "--config" in sys.argv else ["--config", str(DEMO), *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "hand_r"
        config = parse(PretrainConfig, [*argv, "--train-dir", str(crops), "--output-dir", folder], doc=__doc__)
        write_crops(crops)
        measure(config, crops)
        compare_ibot(config.optim.precision)


def write_crops(folder: Path) -> None:
    """JPEGs of about 9 kB: smoothed noise, 224 px."""
    import cv2
    import numpy as np

    from signstreams.formats.crops import CropWriter

    rng = np.random.default_rng(0)
    for video in range(NUM_VIDEOS):
        with CropWriter(folder / f"v{video}.zip", f"v{video}") as writer:
            for frame in range(NUM_FRAMES):
                noise = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
                image = cv2.GaussianBlur(noise, (0, 0), 3) * 3 - 255
                writer.add(frame, cv2.imencode(".jpg", image)[1].tobytes())


def measure(config: PretrainConfig, folder: Path) -> None:
    """Print the rates for crops of ``folder``."""
    import torch

    from signstreams.engine.distributed import start
    from signstreams.pretrain.choices import choose
    from signstreams.pretrain.data import ViewLoader, find_crops
    from signstreams.pretrain.run import architecture
    from signstreams.pretrain.sampler import BatchPlan, group_by_video
    from signstreams.pretrain.trainer import Trainer

    world = start(device=config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    crops = find_crops([folder], max_crops=None, probe_crops=8).train
    batch = config.dataset.batch_size
    plan = BatchPlan(group_by_video([c.video_id for c in crops]), batch_size=batch, world_size=1, seed=0)
    loader = ViewLoader(config, crops, plan, world)
    trainer = Trainer(config, choose(config, num_crops=len(crops), global_batch=batch), architecture(config), world)
    print(f"{trainer.arch.described()}, batch {batch}, {config.optim.precision}, {torch.get_num_threads()} threads,")
    print(
        f"2 x {config.augmentation.global_px} px + {config.augmentation.num_local} x {config.augmentation.local_px} px"
    )

    views = next(iter(loader.steps(0, 1)))
    batches = iter(loader.steps(0, WARMUP_STEPS + STEPS))
    report("loader", batch, lambda: next(batches))
    report("step", batch, lambda: trainer.train_step(*views))
    batches = iter(loader.steps(0, WARMUP_STEPS + STEPS))
    report("both", batch, lambda: trainer.train_step(*next(batches)))


def compare_ibot(precision: str) -> None:
    """Print what a step of iBOT costs in steps of DINO: pairs in turns, wall and CPU, median and range."""
    import torch

    from signstreams.backbones.archs import resolve
    from signstreams.engine.distributed import start
    from signstreams.pretrain.choices import choose
    from signstreams.pretrain.trainer import Trainer

    world = start()
    trainers = []
    for algorithm in ("dino", "ibot"):
        config = PretrainConfig.model_validate(
            {
                "train_dir": ["face"],
                "output_dir": "unused",
                "algorithm": algorithm,
                "model": {"arch": "vit_tiny"},
                "augmentation": {"global_px": 224, "local_px": 96, "num_local": 8},
                "dataset": {"batch_size": 8},
                "dino": {"num_prototypes": 8192, "hidden_dim": 2048},
                "optim": {"precision": precision},
            }
        )
        choices = choose(config, num_crops=8000, global_batch=8)
        trainers.append(Trainer(config, choices, resolve("vit_tiny", image_px=224), world))
    rng = torch.Generator().manual_seed(0)
    views = [
        torch.randint(0, 256, (count, 8, side, side, 3), dtype=torch.uint8, generator=rng)
        for count, side in ((2, 224), (8, 96))
    ]
    for trainer in trainers:
        trainer.train_step(*views)
    wall_s, cpu_s = [], []
    for pair in range(PAIRS):
        both = {}
        for which in (0, 1) if pair % 2 else (1, 0):
            started = time.perf_counter(), time.process_time()
            trainers[which].train_step(*views)
            trainers[which].teacher_distance()  # waits for the device
            both[which] = time.perf_counter() - started[0], time.process_time() - started[1]
        wall_s.append((both[0][0], both[1][0]))
        cpu_s.append((both[0][1], both[1][1]))
    for name, pairs in (("wall", wall_s), ("CPU", cpu_s)):
        ratios = sorted(ibot / dino for dino, ibot in pairs)
        best = [min(times) for times in zip(*pairs, strict=True)]
        print(
            f"iBOT / DINO step, {precision}, {name}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to"
            f" {ratios[-1]:.3f}, {PAIRS} pairs); best {best[0]:.2f} s and {best[1]:.2f} s"
        )


def report(name: str, batch: int, work: Callable[[], object]) -> None:
    """Time ``work`` a few times: median and best wall seconds, CPU seconds of this process."""
    for _ in range(WARMUP_STEPS):
        work()
    wall_s = []
    cpu_s = time.process_time()
    for _ in range(STEPS):
        started_s = time.perf_counter()
        work()
        wall_s.append(time.perf_counter() - started_s)
    cpu_s = (time.process_time() - cpu_s) / STEPS
    print(
        f"{name:<7} {batch / statistics.median(wall_s):8.1f} crops/s median, {batch / min(wall_s):8.1f} best,"
        f" {batch / cpu_s:8.1f} a CPU second of this process, {cpu_s:.3f} CPU s a step"
    )


if __name__ == "__main__":
    main()
