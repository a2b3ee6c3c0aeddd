"""The workflow through a real Slurm, with the profile as shipped: jobs, resources, a training that is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml

from signstreams.engine.metrics import read_metrics

pytestmark = pytest.mark.slurm

CONFIG = """\
corpus: {root: data/tiny, demo_size: tiny}
pretrain:
  config: config/pretrain/small.toml
  set: {epochs: 1, dataset.max_crops: 64, dataset.batch_size: 16}
integrate:
  config: config/integrate/demo.yml
  set: {train.epochs: 2, train.eval_every_epochs: 1}
"""
# what a cluster without an accounting database needs, and no waiting for it in a test
POLLING = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "4"]


@pytest.fixture(scope="session")
def cluster_checkout(
    slurm: None, copy_checkout: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = copy_checkout(tmp_path_factory.mktemp("slurm") / "señas on a cluster")
    (folder / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


def command(target: str, *words: str) -> list[str]:
    profile = ["--workflow-profile", "workflow/profiles/slurm", *POLLING]
    files = ["--configfile", "config/config.yaml", "tiny.yaml"]
    return [sys.executable, "-m", "snakemake", target, *profile, *words, *files]


def jobs_since(first: int) -> list[dict[str, str]]:
    """Of all jobs from this id on: what Slurm still knows of them."""
    names = ("id", "state", "comment", "node", "cores", "memory", "limit", "restarts")
    done = subprocess.run(
        ["squeue", "-h", "-t", "all", "-o", "%i|%T|%k|%N|%C|%m|%l"], capture_output=True, text=True, check=True
    )
    rows = [dict(zip(names, line.split("|"), strict=False)) for line in done.stdout.splitlines()]
    return [row for row in rows if int(row["id"]) >= first]


def next_id() -> int:
    known = subprocess.run(["squeue", "-h", "-t", "all", "-o", "%i"], capture_output=True, text=True, check=True)
    return max(map(int, known.stdout.split()), default=0) + 1


def detail(job: str, key: str) -> str:
    """A field of ``scontrol show job``."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return next((word.partition("=")[2] for word in shown.split() if word.startswith(f"{key}=")), "")


def test_the_whole_chain_runs_as_slurm_jobs_with_what_the_profile_asks(cluster_checkout: Path) -> None:
    content = yaml.safe_load(CONFIG)
    content["extract"] = {"set": {"fps": 12.5}}
    content["pretrain"]["set"] |= {"model.depth": 1, "augmentation.num_local": 2, "dataset.epoch_steps": 4}
    content["integrate"]["set"]["data.frame_stride"] = 4
    (cluster_checkout / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    first = next_id()
    done = subprocess.run(command("all"), cwd=cluster_checkout, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    jobs = jobs_since(first)
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    by_rule: dict[str, list[dict[str, str]]] = {}
    for job in jobs:
        by_rule.setdefault(job["comment"].removeprefix("rule_").partition("_wildcards")[0], []).append(job)
    expected = {"extract": 4, "contract": 1, "pretrain": 3, "embed": 3, "gather_points": 1, "train": 1, "evaluate": 1}
    assert {rule: len(by_rule.get(rule, [])) for rule in expected} == expected
    # groups: five jobs of the corpus in two of Slurm, all three of the judge in one
    assert len([job for job in jobs if job["comment"].startswith("rule_demo")]) == 2
    assert len([job for job in jobs if job["comment"].startswith("rule_judge")]) == 1
    for rule in ("pretrain", "embed", "train", "evaluate"):
        assert detail(by_rule[rule][0]["id"], "TresPerJob") == "gres:gpu:1", rule
        assert by_rule[rule][0]["cores"] == "8"
    assert (by_rule["extract"][0]["memory"], by_rule["extract"][0]["limit"]) == ("1500M", "2:00:00")
    assert (by_rule["pretrain"][0]["memory"], by_rule["pretrain"][0]["limit"]) == ("32000M", "12:00:00")
    assert len({job["node"] for job in jobs}) > 1, "everything ran on one of two nodes"
    scores = json.loads((cluster_checkout / "work_dirs/multistream_v9/scores.json").read_text(encoding="utf-8"))
    assert scores["num_clips"] > 0
    again = subprocess.run(command("all"), cwd=cluster_checkout, capture_output=True, text=True, timeout=300)
    assert "Nothing to be done" in again.stdout + again.stderr


def configure(checkout: Path, name: str, epochs: int, **settings: object) -> None:
    """A pretraining of this name and length on the corpus that is there, in ``tiny.yaml``."""
    content = yaml.safe_load(CONFIG) | {"work_dir": f"work_dirs/{name}"}
    content["pretrain"]["set"] |= {"epochs": epochs} | settings
    (checkout / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def pretrain_jobs(first: int) -> list[dict[str, str]]:
    return [job for job in jobs_since(first) if "pretrain" in job["comment"]]


def wait_for(happened: Callable[[], bool], run: subprocess.Popen[str], otherwise: str) -> None:
    started_s = time.monotonic()
    while not happened():
        assert time.monotonic() - started_s < 300 and run.poll() is None, otherwise
        time.sleep(1)


def training(
    checkout: Path, name: str, settings: Mapping[str, object] | None = None
) -> tuple[str, subprocess.Popen[str], str]:
    """The target, the Snakemake and the job of a pretraining that has begun to step."""
    configure(checkout, name, 20, **(settings or {}))
    target = f"work_dirs/{name}/dino_hand_r/backbone.pt"
    first = next_id()
    log = checkout / f"work_dirs/{name}/logs/pretrain/hand_r.log"
    log.unlink(missing_ok=True)
    run = subprocess.Popen(
        command(target),
        cwd=checkout,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(
        lambda: log.exists() and "step" in log.read_text(encoding="utf-8", errors="replace"),
        run,
        "the training did not begin",
    )
    (job,) = [job["id"] for job in pretrain_jobs(first)]
    return target, run, job


def family(pid: int) -> list[int]:
    """A process and all that its threads started."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(each for children in lists for child in children for each in family(int(child)))]


def test_two_nodes_train_as_one_with_the_joint_batch(cluster_checkout: Path) -> None:
    """A process on each node, gloo; the same crops a step as one process with twice the batch."""
    weights, nodes, losses = {}, {}, {}
    for name, batch, more in (
        ("one_node", 16, []),
        ("two_nodes", 8, ["pretrain:nodes=2", "pretrain:tasks=2", "pretrain:mpi=srun"]),
    ):
        configure(cluster_checkout, name, 2, **{"dataset.batch_size": batch, "koleo.weight": 0.0})
        first = next_id()
        resources = [*more, "pretrain:slurm_extra='--ntasks-per-node=1 --signal=TERM@120'"]
        folder = cluster_checkout / "work_dirs" / name / "dino_hand_r"
        words = command(f"work_dirs/{name}/dino_hand_r/backbone.pt", "--set-resources", *resources)
        done = subprocess.run(words, cwd=cluster_checkout, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        nodes[name] = detail(pretrain_jobs(first)[0]["id"], "NumNodes")
        weights[name] = torch.load(folder / "backbone.pt", weights_only=True)["model"]
        losses[name] = [record["train/loss"] for record in read_metrics(folder / "metrics.jsonl")]
    assert nodes == {"one_node": "1", "two_nodes": "2"}
    assert losses["two_nodes"] == pytest.approx(losses["one_node"], rel=1e-3)
    for key, one in weights["one_node"].items():
        if one.ndim > 1:  # AdamW makes a step of a gradient that is rounding alone, as those of some biases are
            assert float((weights["two_nodes"][key] - one).norm() / one.norm()) < 1e-3, key


def test_a_training_told_to_stop_puts_its_job_back_and_goes_on(cluster_checkout: Path) -> None:
    """What Slurm does two minutes before the time limit: SIGTERM to the job's steps."""
    target, run, job = training(cluster_checkout, "requeue")
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    output, _ = run.communicate(timeout=1200)
    assert run.returncode == 0, output[-4000:]
    assert detail(job, "Restarts") == "1" and detail(job, "JobState") == "COMPLETED"
    assert (cluster_checkout / target).is_file()
    assert [later["id"] for later in pretrain_jobs(int(job))] == [job]


def test_a_training_goes_on_when_its_node_vanishes(cluster_checkout: Path) -> None:
    """Power off: slurmd and all of the job die at once. Slurm gives the job to the other node."""
    pid_file = Path(os.environ.get("SLURM_TOY_STATE", "/tmp/slurm-toy")) / "run" / "slurmd-{node}.pid"
    target, run, job = training(cluster_checkout, "vanish", {"checkpointing.every_steps": 2})
    state = cluster_checkout / "work_dirs/vanish/dino_hand_r/state"
    wait_for(lambda: any(state.glob("*.pt")), run, "no checkpoint was written")
    node = detail(job, "NodeList")
    pid_file = pid_file.with_name(pid_file.name.format(node=node))
    if not pid_file.is_file():
        run.terminate()
        pytest.skip("only a node of the throw-away cluster may be killed")
    steps = subprocess.run(["pgrep", "-f", rf"^slurmstepd: \[{job}\."], capture_output=True, text=True, check=True)
    doomed = [int(pid_file.read_text()), *(pid for step in steps.stdout.split() for pid in family(int(step)))]
    assert any("pretrain_dino" in Path(f"/proc/{pid}/cmdline").read_text() for pid in doomed)
    try:
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # what slurmctld finds out by itself after SlurmdTimeout, five minutes
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=vanished"], check=True)
        output, _ = run.communicate(timeout=1200)
        assert run.returncode == 0, output[-4000:]
        assert detail(job, "Restarts") == "1" and detail(job, "JobState") == "COMPLETED"
        assert detail(job, "NodeList") != node
        log = cluster_checkout / "work_dirs/vanish/logs/pretrain/hand_r.log"
        assert "going on from step" in log.read_text(encoding="utf-8")
        assert (cluster_checkout / target).is_file()
    finally:
        subprocess.run(["slurmd", "-N", node], check=True)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)


def test_a_limit_far_too_short_is_a_normal_way_to_work(cluster_checkout: Path) -> None:
    """Slurm's own signal before its own limit: the job goes back into the queue as often as it takes."""
    configure(cluster_checkout, "short", 30)
    target = "work_dirs/short/dino_hand_r/backbone.pt"
    first = next_id()
    resources = ["pretrain:runtime=2", "pretrain:slurm_extra='--signal=TERM@60'"]
    words = command(target, "--set-resources", *resources)
    done = subprocess.run(words, cwd=cluster_checkout, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (job,) = [job["id"] for job in pretrain_jobs(first)]
    assert int(detail(job, "Restarts")) >= 1 and detail(job, "JobState") == "COMPLETED"
    assert (cluster_checkout / target).is_file()
