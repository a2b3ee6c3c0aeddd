"""Rates of pretraining; prints one line each and needs no corpus.

rates   the loader alone, the step alone, both together, on made-up crops; takes the settings of a run
peer    our step beside that of facebookresearch/dino, in turns: ViT-Ti/16 and ViT-S/16, fp32 and bf16, batch 8
ibot    a step of iBOT beside one of DINO, in turns, at 8,192 and 65,536 prototypes
memory  peak memory of a step on the CPU with and without activation checkpointing, and with 65,536 prototypes
gpu     share of the measured bf16 matrix rate, time waiting for data, peak memory: ViT-S/16, batch 64 and 128

python benchmarks/pretrain.py                        # all; the rates for the demo recipe
python benchmarks/pretrain.py --only rates --config config/pretrain/face.toml --dataset-batch-size 8
python benchmarks/pretrain.py --only peer --reference DIR --pairs 4

DIR is a checkout of facebookresearch/dino at 7c446df; without it `peer` is left out:
git clone https://github.com/facebookresearch/dino DIR && git -C DIR checkout 7c446df
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from signstreams.cli import parse
from signstreams.pretrain.settings import PretrainConfig

NUM_VIDEOS, NUM_FRAMES, SIDE_PX = 8, 64, 224
WARMUP_STEPS, STEPS = 2, 5
BATCH, NUM_LOCAL, GLOBAL_PX, LOCAL_PX = 8, 8, 224, 96
DEMO = Path(__file__).parents[1] / "config" / "pretrain" / "demo_hand_r.toml"
PARTS = ("rates", "peer", "ibot", "memory", "gpu")


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part only; may be repeated")
    parser.add_argument("--reference", type=Path, help="checkout of facebookresearch/dino")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of two steps that are compared")
    parser.add_argument("--archs", nargs="+", default=["vit_tiny", "vit_small"], help="of peer and ibot")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="of peer and ibot")
    parser.add_argument("--prototypes", nargs="+", type=int, default=[8192, 65536], help="of ibot")
    options, argv = parser.parse_known_args()
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return
    parts = options.only or PARTS
    if "rates" in parts:
        if "--config" not in argv:
            argv = ["--config", str(DEMO), *argv]
        with tempfile.TemporaryDirectory() as folder:
            crops = Path(folder) / "hand_r"
            config = parse(PretrainConfig, [*argv, "--train-dir", str(crops), "--output-dir", folder], doc=__doc__)
            write_crops(crops)
            measure(config, crops)
    elif argv:
        sys.exit(f"{argv[0]}: no such option; settings of a run are for the part 'rates'")
    if "peer" in parts:
        compare_peer(options)
    if "ibot" in parts:
        compare_ibot(options)
    if "memory" in parts:
        measure_memory()
    if "gpu" in parts:
        measure_gpu()


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
    from signstreams.pretrain.data import ViewLoader, find_crops
    from signstreams.pretrain.derived_settings import derive_settings
    from signstreams.pretrain.run import architecture
    from signstreams.pretrain.sampler import BatchPlan, CropGroups
    from signstreams.pretrain.trainer import Trainer

    world = start(device=config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    crops = find_crops([folder], max_crops=None, probe_crops=8).train
    batch = config.dataset.batch_size
    plan = BatchPlan(CropGroups.of(crops.video, crops.frame), batch_size=batch, world_size=1, seed=0)
    loader = ViewLoader(config, crops, plan, world)
    derived = derive_settings(config, num_crops=len(crops), global_batch=batch)
    trainer = Trainer(config, derived, architecture(config), world)
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


def our_step(
    arch: str, algorithm: str, precision: str, num_prototypes: int, *, checkpoint: bool = False
) -> Callable[[], object]:
    """A step on random views; main_dino.py's settings where they affect its cost (drop path, clipping, head)."""
    import torch

    from signstreams.backbones.archs import resolve
    from signstreams.engine.distributed import start
    from signstreams.pretrain.derived_settings import derive_settings
    from signstreams.pretrain.trainer import Trainer

    config = PretrainConfig.model_validate(
        {
            "train_dir": ["face"],
            "output_dir": "unused",
            "algorithm": algorithm,
            "model": {"arch": arch, "drop_path_prob": 0.1},
            "augmentation": {"global_px": GLOBAL_PX, "local_px": LOCAL_PX, "num_local": NUM_LOCAL},
            "dataset": {"batch_size": BATCH},
            "dino": {"num_prototypes": num_prototypes, "hidden_dim": 2048, "freeze_prototypes_ratio": 0.0},
            "optim": {"precision": precision, "checkpoint_activations": checkpoint},
        }
    )
    derived = derive_settings(config, num_crops=8000, global_batch=BATCH)
    trainer = Trainer(config, derived, resolve(arch, image_px=GLOBAL_PX), start())
    rng = torch.Generator().manual_seed(0)
    views = [
        torch.randint(0, 256, (count, BATCH, side, side, 3), dtype=torch.uint8, generator=rng)
        for count, side in ((2, GLOBAL_PX), (NUM_LOCAL, LOCAL_PX))
    ]

    def step() -> None:
        trainer.train_step(*views)
        if trainer.world.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def compare_peer(options: argparse.Namespace) -> None:
    """Print the cost of our step relative to one of facebookresearch/dino, at 8,192 prototypes."""
    if options.reference is None:
        print("peer: left out, it needs --reference DIR, a checkout of facebookresearch/dino (see --help)")
        return
    if not (options.reference / "main_dino.py").is_file():
        sys.exit(
            f"--reference {options.reference}: found no main_dino.py, expected a checkout of facebookresearch/dino"
        )
    import torch
    from pretrain_peer import peer_step

    views = [torch.randn(BATCH, 3, side, side) for count, side in ((2, 224), (NUM_LOCAL, 96)) for _ in range(count)]
    for arch in options.archs:
        for precision in options.precisions:
            theirs = peer_step(options.reference, arch, views, num_prototypes=8192, precision=precision)
            ours = our_step(arch, "dino", precision, 8192)
            compare(f"ours / facebookresearch/dino, {arch}, {precision}", ours, theirs, options.pairs)


def compare_ibot(options: argparse.Namespace) -> None:
    """Print the cost of a step of iBOT relative to one of DINO."""
    for arch in options.archs:
        for precision in options.precisions:
            for num_prototypes in options.prototypes:
                dino, ibot = (our_step(arch, name, precision, num_prototypes) for name in ("dino", "ibot"))
                compare(f"iBOT / DINO, {arch}, {precision}, K {num_prototypes}", ibot, dino, options.pairs)


def measure_memory() -> None:
    """Print the peak memory of steps on the CPU, each in its own process, as the peak of a process never shrinks."""
    for arch, algorithm, num_prototypes in (
        ("vit_small", "dino", 8192),
        ("vit_small", "ibot", 8192),
        ("vit_small", "dino", 65536),
        ("vit_small", "ibot", 65536),
    ):
        peaks = []
        for checkpoint in (False, True):
            call = f"import pretrain; pretrain.print_peak({arch!r}, {algorithm!r}, {num_prototypes}, {checkpoint})"
            answer = subprocess.run(
                [sys.executable, "-c", call], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            )
            peaks.append(answer.stdout.strip())
        print(
            f"memory: {arch}, {algorithm}, fp32, batch {BATCH}, 2 x {GLOBAL_PX} + {NUM_LOCAL} x {LOCAL_PX} px,"
            f" K {num_prototypes}: peak {peaks[0]} GiB, with checkpointed activations {peaks[1]}",
            flush=True,
        )


def print_peak(arch: str, algorithm: str, num_prototypes: int, checkpoint: bool) -> None:
    """Print the peak memory of this process over two steps, in GiB, including torch itself."""
    step = our_step(arch, algorithm, "fp32", num_prototypes, checkpoint=checkpoint)
    for _ in range(2):
        step()
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


def measure_gpu() -> None:
    """Print the figures of `pretrain_gpu` for ViT-S/16, bf16, 8,192 prototypes."""
    import torch

    if not torch.cuda.is_available():
        print("gpu: left out, PyTorch finds no GPU here")
        return
    from pretrain_gpu import matrix_rate, report_batch

    from signstreams.engine.distributed import start

    world = start()
    rate = matrix_rate(world.device)
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "hand_r"
        write_crops(crops)
        for batch in (64, 128):
            for checkpoint in (False, True):
                config = PretrainConfig.model_validate(
                    {
                        "train_dir": [str(crops)],
                        "output_dir": folder,
                        "model": {"arch": "vit_small", "drop_path_prob": 0.1},
                        "augmentation": {"global_px": GLOBAL_PX, "local_px": LOCAL_PX, "num_local": NUM_LOCAL},
                        "dataset": {"batch_size": batch},
                        "dino": {"num_prototypes": 8192, "hidden_dim": 2048},
                        "optim": {"precision": "bf16", "checkpoint_activations": checkpoint},
                    }
                )
                report_batch(config, crops, world, rate)


def compare(name: str, first: Callable[[], object], second: Callable[[], object], pairs: int) -> None:
    """Run both in turns; print the ratio of their times, wall and CPU of this process: median and range of pairs."""
    times: list[list[tuple[float, float]]] = [[], []]
    for work in (first, second):
        work()
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            started = time.perf_counter(), time.process_time()
            (first, second)[which]()
            times[which].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    said = []
    for i, clock in enumerate(("wall", "CPU")):
        ratios = sorted(mine[i] / its[i] for mine, its in zip(*times, strict=True))
        medians = [statistics.median(pair[i] for pair in side) for side in times]
        said.append(
            f"{clock} {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}),"
            f" {medians[0]:.2f} and {medians[1]:.2f} s"
        )
    print(f"{name}: {'; '.join(said)}; {pairs} pairs", flush=True)


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
        f" {batch / cpu_s:8.1f} per CPU second of this process, {cpu_s:.3f} CPU s per step"
    )


if __name__ == "__main__":
    main()
