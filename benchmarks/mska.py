"""MSKA's four keypoint encoders, forward and backward, beside those of sutwangyan/MSKA at equal sizes, in turns.

Batch 4, 79 nodes, 8 blocks of 64 to 256 channels, 6 heads, without heads and losses on both sides. Each side runs in a
process of its own, as its users run it: the reference in float32 (it has no other), ours in float32 and in bf16
autocast, with the memory settings that our scripts make. ``--same-settings`` makes them for the reference too, so
that only the code differs. Then our peak memory at 128 and 400 frames.

python benchmarks/mska.py --reference DIR --pairs 5

DIR is a checkout of sutwangyan/MSKA at e7d5610; without it only our encoders are timed:
git clone https://github.com/sutwangyan/MSKA DIR && git -C DIR checkout e7d5610
"""

import argparse
import contextlib
import importlib
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BATCH, NUM_JOINTS = 4, 79
LENGTHS = (100, 200)
MEMORY_LENGTHS = (128, 400)
UNUSED = ("tensorflow", "Tokenizer", "Visualhead")  # what its recognition.py imports besides the encoders


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--reference", type=Path, help="checkout of sutwangyan/MSKA")
    words.add_argument("--pairs", type=int, default=5)
    words.add_argument("--threads", type=int, help="default: all cores")
    words.add_argument("--same-settings", action="store_true", help="our memory settings for the reference too")
    words.add_argument("--side", choices=["ours", "ours bf16", "theirs"], help=argparse.SUPPRESS)
    args = words.parse_args()
    if args.side:
        serve(args)
        return
    compare(args)
    for side, length in itertools.product(("ours", "ours bf16"), MEMORY_LENGTHS):
        with Side(side, args) as process:
            process.step(length)
            peak_gib = process.step(length)[2]
        print(f"peak memory of a process, {side}, T {length}, batch {BATCH}: {peak_gib:.2f} GiB")


class Side:
    """One side in its own process, which makes a step of a given length and reports what that took."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--side", name]
        command += ["--reference", str(args.reference)] if args.reference else []
        command += ["--threads", str(args.threads)] if args.threads else []
        command += ["--same-settings"] if args.same_settings else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def step(self, length: int) -> list[float]:
        """Wall and CPU seconds of a step, and the peak memory of the process so far in GiB."""
        assert self.process.stdin and self.process.stdout
        print(length, file=self.process.stdin, flush=True)
        return [float(word) for word in self.process.stdout.readline().split()]


def serve(args: argparse.Namespace) -> None:
    """Make a step for each line of standard input."""
    from signstreams.processes import prepare_processor

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.side != "theirs" or args.same_settings:
        prepare_processor()
    import torch

    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    forward = theirs(args.reference) if args.side == "theirs" else ours()
    for line in sys.stdin:
        step = make_step(forward, int(line), is_bf16=args.side.endswith("bf16"))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        step()
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        print(wall_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, flush=True)


def ours() -> "Callable[[Tensor], list[Tensor]]":
    """Our encoders as a function of nodes (B, T, 79, 3)."""
    import torch

    from signstreams.integrate.mska import Mska
    from signstreams.integrate.settings import MskaConfig

    torch.manual_seed(0)
    model = Mska(MskaConfig(gloss_fusion="none"), None).train()
    lengths = torch.full((BATCH,), 0)

    def forward(nodes: "Tensor") -> "list[Tensor]":
        streams, _, _ = model(nodes, lengths + nodes.shape[1])
        return list(streams.values())

    return forward


def theirs(folder: Path) -> "Callable[[Tensor], list[Tensor]]":
    """The reference's encoders as such a function; their node numbers index the 79."""
    import torch
    import yaml

    for name in UNUSED:
        module = types.ModuleType(name)
        module.__dict__.update(GlossTokenizer_S2G=None, VisualHead=None)
        sys.modules[name] = module
    sys.path.insert(0, str(folder))
    recognition = importlib.import_module("recognition")
    sys.path.remove(str(folder))
    config = yaml.safe_load((folder / "configs" / "phoenix-2014t_s2g.yaml").read_text())
    config = config["model"]["RecognitionNetwork"]["DSTA-Net"]
    places = {number: place for place, number in enumerate(config["body"])}
    config |= {part: [places[number] for number in config[part]] for part in ("left", "right", "face", "body")}
    torch.manual_seed(0)
    model = recognition.DSTA(cfg=config, num_channel=3).train()

    def forward(nodes: "Tensor") -> "list[Tensor]":
        keypoint = types.SimpleNamespace(cuda=lambda: nodes.permute(0, 3, 1, 2).contiguous())  # it asks for a GPU
        return [model({"keypoint": keypoint})[0]]

    return forward


def make_step(forward: "Callable[[Tensor], list[Tensor]]", length: int, *, is_bf16: bool) -> Callable[[], None]:
    """Forward and backward over clips of one length."""
    import torch

    nodes = torch.rand(BATCH, length, NUM_JOINTS, 3, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            outputs = forward(nodes)
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()

    return step


def compare(args: argparse.Namespace) -> None:
    """Print our seconds, and how many times as long the reference takes."""
    names = ["ours", "ours bf16"]
    if args.reference is None:
        print("no --reference: sutwangyan/MSKA is left out")
    else:
        names.append("theirs")
    with contextlib.ExitStack() as stack:
        sides = {name: stack.enter_context(Side(name, args)) for name in names}
        for length in LENGTHS:
            for side in sides.values():
                side.step(length)
            rounds = [{name: side.step(length) for name, side in sides.items()} for _ in range(args.pairs)]
            for name in names:
                line = f"T {length}: {name} {statistics.median(r[name][0] for r in rounds):.2f} s"
                if name != "theirs" and "theirs" in names:
                    wall, cpu = ([r["theirs"][i] / r[name][i] for r in rounds] for i in (0, 1))
                    line += f"; theirs over {name}: wall {shown(wall)}, CPU {shown(cpu)}; {args.pairs} pairs"
                print(line, flush=True)


def shown(ratios: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
