"""Multistream v9 on cached features beside frozen backbones in the loop; start-up on many clips; peak memory.

Default sizes, three ViT-S/14 with random weights, on a corpus that was extracted (data/demo after ``make demo``), with
MSKA and without. A pair is a training on cached features (clips per second by its own count, with the wait for data)
and the time that the three backbones take for crops of the same clips. Start-up is measured on many copies of the same
videos under other names. Memory is the peak of a process that makes two steps of full length; ``--preset-step`` also
times steps of ``mska_slt`` with mBART-large's sizes and random weights.

python benchmarks/integration_speed.py --root data/demo --pairs 3
"""

import argparse
import contextlib
import io
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.integrate.settings import IntegrateConfig
from signstreams.processes import prepare_processor
from signstreams.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signstreams.integrate.batches import Batch
    from signstreams.integrate.clips import ClipEntry
    from signstreams.integrate.stream_backbones import Backbones
    from signstreams.integrate.text_model import TextModel
    from signstreams.integrate.tokenizer import Tokenizer

PROJECT = Path(__file__).parents[1]
ARCH = "dinov2_vits14"
SIDES_PX = (112, 224)
EMBED_PX = 28  # cached features have the same size for any size of crops
KEYS = ("face_backbone", "hand_left_backbone", "hand_right_backbone")
LENGTHS = (128, 400)
# PHOENIX-2014T has 116 frames per clip and 1,066 glosses; 20 tokens per text, and 3,000 of mBART's 250,027 rows after
# the pruning, are assumed.
PHOENIX = {"length": 116, "num_tokens": 20, "num_glosses": 1066, "num_rows": 3000}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--root", type=Path, default=PROJECT / "data" / "demo", help="extracted corpus")
    words.add_argument("--pairs", type=int, default=3)
    words.add_argument("--steps", type=int, default=8, help="steps of a training")
    words.add_argument("--copies", type=int, default=100, help="times the corpus is repeated for the start-up")
    words.add_argument("--preset-step", action="store_true", help="only the steps of mska_slt; needs 15 GiB")
    words.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    words.add_argument("--settings", default="{}", help=argparse.SUPPRESS)
    args = words.parse_args()
    logging.basicConfig(level=logging.WARNING)
    prepare_processor()
    if args.memory_of:
        print(peak_gib(args.memory_of, json.loads(args.settings)))
        return
    if args.preset_step:
        preset_steps(args.steps)
        return
    with tempfile.TemporaryDirectory(prefix="signstreams_") as folder:
        specs = make_backbones(Path(folder))
        compare(args, Path(folder), specs)
        start_up(args, Path(folder), specs)
    for settings in ({}, {"checkpoint_activations": True}, {"precision": "bf16"}):
        figures = []
        for length in LENGTHS:
            command = [sys.executable, __file__, "--memory-of", str(length), "--settings", json.dumps(settings)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures.append(f"T {length}: {float(done.stdout):.2f} GiB")
        print(f"peak memory, batch 4, {settings or 'plain'}: {', '.join(figures)}", flush=True)


def make_backbones(folder: Path) -> dict[str, str]:
    """Config key to spec of three exported backbones."""
    import torch

    from signstreams.backbones.archs import resolve
    from signstreams.backbones.vit import VisionTransformer
    from signstreams.backbones.weights import export_backbone

    specs = {}
    for seed, key in enumerate(KEYS):
        arch = resolve(ARCH, image_px=EMBED_PX)
        model = VisionTransformer(arch)
        model.init_weights(torch.Generator().manual_seed(seed))
        export_backbone(folder / f"{key}.pt", arch, model.state_dict(), {"image_px": EMBED_PX})
        specs[key] = f"file::{folder / key}.pt:{ARCH}"
    return specs


def settings_of(root: Path, folder: Path, specs: dict[str, str], **changes: object) -> IntegrateConfig:
    """Default sizes."""
    tree: dict[str, object] = {
        "root": root,
        "features_dir": folder / "features",
        "output_dir": folder / "run",
        "model": specs,
        "data": {"batch_size": 8},
        "decoder": {"vocab_size": 600},
    }
    return IntegrateConfig.model_validate(tree | changes)


def compare(args: argparse.Namespace, folder: Path, specs: dict[str, str]) -> None:
    """Compare cached features with backbones in the loop."""
    import torch

    from signstreams.engine.distributed import World
    from signstreams.engine.metrics import read_metrics
    from signstreams.integrate.clips import load_clips
    from signstreams.integrate.dataset import open_datasets
    from signstreams.integrate.run import run
    from signstreams.integrate.stream_backbones import load_backbones

    config = settings_of(args.root, folder, specs)
    clips, backbones = load_clips(config), load_backbones(config)
    with quiet():
        open_datasets(config, clips, backbones, World(0, 1, torch.device("cpu")))  # embeds
    entries = clips.entries["train"]
    frames = statistics.mean(entry.num_frames for entry in entries)
    for uses_mska in (True, False):
        rates, waits = [], []
        ratios: dict[int, list[float]] = {side: [] for side in SIDES_PX}
        for pair in range(args.pairs):
            output = folder / f"run{pair}"
            train = {"max_train_steps": args.steps, "log_every_steps": 1, "epochs": 100, "eval_every_epochs": 100}
            model = {**specs, "use_mska": uses_mska}
            with quiet():
                run(settings_of(args.root, folder, specs, output_dir=output, model=model, train=train))
            records = [r for r in read_metrics(output / "metrics.jsonl") if "train/clips_per_s" in r][1:]
            shutil.rmtree(output)
            rates.append(statistics.median(r["train/clips_per_s"] for r in records))
            waits.append(statistics.mean(r["train/data_wait_share"] for r in records))
            for side, found in ratios.items():
                found.append(1 + rates[-1] * in_the_loop_s(args.root, backbones, entries[pair], side))
        print(
            f"clips of {frames:.0f} frames, {'with' if uses_mska else 'without'} MSKA: cached"
            f" {statistics.median(rates):.2f} clips per second, waiting for data {100 * statistics.median(waits):.2f} %"
            f" of a step; times as fast as with three {ARCH} in the loop: "
            + ", ".join(
                f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}) at {side} px"
                for side, found in ratios.items()
            )
            + f"; {args.pairs} pairs",
            flush=True,
        )


def in_the_loop_s(root: Path, backbones: "Backbones", entry: "ClipEntry", side_px: int) -> float:
    """Seconds that all backbones take for the crops of a clip, reading included."""
    import torch

    from signstreams.integrate.features import ImageReader, present_crops

    reader = ImageReader(dict.fromkeys(STREAMS, side_px))
    started_s = time.perf_counter()
    with torch.inference_mode():
        for stream, frozen in backbones.frozen.items():
            listed = present_crops(CorpusLayout(root), stream, entry.video.video_id)[1]
            crops = [listed[frame] for frame in entry.frames if frame in listed]
            if crops:
                frozen.net.eval()
                frozen.encode(torch.from_numpy(reader(stream, crops)))
    return time.perf_counter() - started_s


def start_up(args: argparse.Namespace, folder: Path, specs: dict[str, str]) -> None:
    """Time and memory until a training could begin, on many copies of the corpus."""
    import torch

    from signstreams.engine.distributed import World
    from signstreams.integrate.dataset import open_datasets, read_inputs
    from signstreams.integrate.stream_backbones import load_backbones

    root = folder / "many"
    repeat(CorpusLayout(args.root), root, args.copies)

    config = settings_of(root, folder / "many_features", specs, model={})
    with quiet():
        clips, backbones = read_inputs(config, World(0, 1, torch.device("cpu")))
        open_datasets(config, clips, load_backbones(config), World(0, 1, torch.device("cpu")))
    before_gib = peak_of_process_gib()
    started_s = time.perf_counter()
    with quiet():
        clips, backbones = read_inputs(config, World(0, 1, torch.device("cpu")))
        splits = open_datasets(config, clips, backbones, World(0, 1, torch.device("cpu")))
    took_s = time.perf_counter() - started_s
    added_gib = peak_of_process_gib() - before_gib
    print(
        f"start-up, {sum(map(len, splits.values())):,} clips of {len(clips.videos):,} videos, points gathered before:"
        f" {took_s:.1f} s, {1024 * max(added_gib, 0):.0f} MiB more at the peak",
        flush=True,
    )


def repeat(source: CorpusLayout, root: Path, copies: int) -> None:
    """The corpus with each video under ``copies`` names; arrays are links."""
    target = CorpusLayout(root)
    lines = source.meta.read_text(encoding="utf-8").splitlines()
    rows = [line.split(";") for line in lines[1:]]
    videos = sorted({row[1] for row in rows})
    meta = [lines[0]]
    index: dict[str, list[str]] = {split: [] for split in SPLITS}
    split_of = {
        name: split for split in SPLITS for name in source.index(split).read_text(encoding="utf-8").split() if name
    }
    for copy in range(copies):
        for video in videos:
            for kind in ("keypoints", "pose", "tracks", "metadata"):
                old = getattr(source, kind)(video)
                new = getattr(target, kind)(f"{video}_{copy}")
                new.parent.mkdir(parents=True, exist_ok=True)
                if kind == "metadata":
                    new.write_text(old.read_text(encoding="utf-8").replace(f'"{video}"', f'"{video}_{copy}"'))
                else:
                    new.symlink_to(old.absolute())
        for row in rows:
            meta.append(";".join([f"{row[0]}_{copy}", f"{row[1]}_{copy}", *row[2:]]))
            if row[0] in split_of:
                index[split_of[row[0]]].append(f"{row[0]}_{copy}")
    target.meta.write_text("\n".join(meta) + "\n", encoding="utf-8")
    for split, names in index.items():
        target.index(split).parent.mkdir(parents=True, exist_ok=True)
        target.index(split).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def peak_gib(length: int, settings: dict[str, object]) -> float:
    """Peak memory of two steps with a batch of 4 clips of equal length."""
    from signstreams.integrate.model import build_model
    from signstreams.integrate.stream_backbones import Backbones

    config = IntegrateConfig.model_validate({"optim": settings})
    tokenizer = small_tokenizer()
    model = build_model(config, Backbones({}, {}, {}, {}), tokenizer, num_glosses=1000)
    batch = random_batch(4, length, num_tokens=30)
    for _ in range(2):
        backward(config, model, batch)
    return peak_of_process_gib()


def preset_steps(num_steps: int) -> None:
    """Time and peak memory of steps of ``mska_slt`` on clips of PHOENIX's mean length, the optimiser included."""
    import torch
    from transformers import MBartConfig

    from signstreams.integrate.model import build_model
    from signstreams.integrate.stream_backbones import Backbones
    from signstreams.integrate.training import make_optimizer

    config = IntegrateConfig.model_validate({"decoder": {"preset": "mska_slt", "target_language": "de_DE"}})
    sizes = MBartConfig(vocab_size=PHOENIX["num_rows"], scale_embedding=True)  # mBART-large's are the defaults
    model = build_model(
        config, Backbones({}, {}, {}, {}), small_tokenizer(), num_glosses=PHOENIX["num_glosses"], decoder_config=sizes
    )
    optimizer = make_optimizer(config, model)
    batch = random_batch(config.data.batch_size, PHOENIX["length"], PHOENIX["num_tokens"])
    took_s = []
    for _ in range(1 + num_steps):
        started_s = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        backward(config, model, batch)
        optimizer.step()
        took_s.append(time.perf_counter() - started_s)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"mska_slt, {parameters / 1e6:.1f} million parameters, batch {config.data.batch_size},"
        f" T {PHOENIX['length']}, {torch.get_num_threads()} threads: {statistics.median(took_s[1:]):.2f} s per step"
        f" ({min(took_s[1:]):.2f} to {max(took_s[1:]):.2f}), peak {peak_of_process_gib():.2f} GiB"
    )


def small_tokenizer() -> "Tokenizer":
    """One of a few words; the ids of a batch are drawn."""
    from signstreams.integrate.tokenizer import Tokenizer

    return Tokenizer.train(["el perro come", "la casa es roja"], 300)


def random_batch(num_clips: int, length: int, num_tokens: int) -> "Batch":
    """Clips of equal length with random points, texts and six glosses."""
    import numpy as np

    from signstreams.integrate.batches import Sample, collate
    from signstreams.integrate.videos import POSE_DIM

    rng = np.random.default_rng(0)
    return collate(
        [
            Sample(
                clip_id=str(number),
                nodes=rng.random((length, 79, 3), np.float32),
                pose=rng.random((length, POSE_DIM), np.float32),
                present={"pose": np.ones(length, bool)},
                crops={},
                tokens=rng.integers(3, 200, num_tokens).tolist(),
                gloss_ids=[1, 2, 3, 4, 5, 6],
            )
            for number in range(num_clips)
        ]
    )


def backward(config: IntegrateConfig, model: "TextModel", batch: "Batch") -> None:
    """Forward and backward of one batch with all three losses."""
    import torch

    from signstreams.integrate.losses import compute_losses

    with torch.autocast("cpu", torch.bfloat16, enabled=config.optim.precision == "bf16"):
        losses = compute_losses(model, batch, model.encode(batch), label_smoothing=config.optim.label_smoothing)
    names = ("translation", "ctc", "distillation")
    torch.stack([losses.terms[name].total / max(losses.terms[name].count, 1) for name in names]).sum().backward()


def peak_of_process_gib() -> float:
    """Peak of this program only: ``ru_maxrss`` would count what the parent held when it forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


@contextlib.contextmanager
def quiet() -> "Iterator[None]":
    """Hide the progress lines of the parts."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
