"""Rates of pretraining: the loader alone, the step alone, both together. Prints one line each; needs no corpus.

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
DEMO = Path(__file__).parents[1] / "config" / "pretrain" / "demo_hand_r.toml"


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if "--config" in sys.argv else ["--config", str(DEMO), *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "hand_r"
        config = parse(PretrainConfig, [*argv, "--train-dir", str(crops), "--output-dir", folder], doc=__doc__)
        write_crops(crops)
        measure(config, crops)


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
