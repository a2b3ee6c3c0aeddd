"""Two processes of one run over gloo, with what torchrun tells them: forked from a server that has imported torch.

torchrun itself, which imports torch three times for two processes, is under test in tests/engine/test_launch.py,
tests/pretrain/test_safety.py and tests/docs/test_newcomer.py.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import time
from pathlib import Path

PRELOADED = ["torch", "torch._dynamo", "matplotlib.figure", "signstreams.pretrain.run"]


def run_two(folder: Path, script: Path, *words: str, timeout_s: float = 180) -> None:
    """Run ``script`` in two processes and assert that both end well; their output goes to ``folder``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logs = [folder / f"rank_{rank}.log" for rank in range(2)]
    runs = [
        context.Process(target=_run_rank, args=(rank, port, log, str(script), words)) for rank, log in enumerate(logs)
    ]
    for run in runs:
        run.start()
    until_s = time.monotonic() + timeout_s
    try:
        for run in runs:
            run.join(max(0.0, until_s - time.monotonic()))
    finally:
        for run in runs:
            run.kill()
    said = "\n".join(log.read_text(encoding="utf-8")[-2000:] for log in logs if log.exists())
    assert [run.exitcode for run in runs] == [0, 0], said


def _run_rank(rank: int, port: int, log: Path, script: str, words: tuple[str, ...]) -> None:
    import torch

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in places.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
