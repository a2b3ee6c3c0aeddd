"""What ends a run early: signals, collapse, losses that are not finite, full disk, little memory, a second run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine import training_run as training
from signstreams.engine.metrics import read_metrics
from signstreams.engine.run_folder import Experiment, Fingerprint
from signstreams.errors import UserError
from signstreams.pretrain import resource_estimates as room
from signstreams.pretrain.losses import Centre
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
STREAM = "hand_r"


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _command(project: Path, config: PretrainConfig, *launcher: str) -> list[str]:
    path = Path(f"{config.output_dir}.json")
    path.write_text(config.model_dump_json(exclude_none=True, exclude_defaults=True))
    script = str(project / "scripts" / "pretrain_dino_hands.py")
    return [sys.executable, *launcher, script, "--config", str(path)]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _wait_for(path: Path, run: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert run.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < until
        time.sleep(0.02)


LONG = {"epochs": 4000, "checkpointing": {"every_steps": 2}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_process_group_ends_with_75_and_a_checkpoint(
    number: int, make: Make, project: Path
) -> None:
    """As a scheduler sends it: the loader's processes get it as well."""
    config = make(dataset={"num_workers": 2}, **LONG)
    run = subprocess.Popen(
        _command(project, config), env=_environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    state = config.output_dir / "state" / "checkpoint_last.pt"
    _wait_for(state, run)
    asked = time.monotonic()
    os.killpg(run.pid, number)
    said = run.communicate(timeout=60)[1].decode()
    assert run.returncode == 75, said[-800:]
    assert time.monotonic() - asked < 60
    assert "asked to stop at step" in said
    step = checkpoint.load(state)["trainer"]["step"]
    assert f"asked to stop at step {step} of" in said


def test_ctrl_c_saves_and_ends_with_130(make: Make, project: Path) -> None:
    """As a terminal sends it, to all processes; the loader's say nothing, and nobody is asked to try again."""
    config = make(dataset={"num_workers": 2}, **LONG)
    run = subprocess.Popen(
        _command(project, config), env=_environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    state = config.output_dir / "state" / "checkpoint_last.pt"
    _wait_for(state, run)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1].decode()
    assert run.returncode == 130, said[-800:]
    assert "Ctrl-C once more ends at once" in said
    step = checkpoint.load(state)["trainer"]["step"]
    assert f"asked to stop at step {step} of" in said and "run again to go on" in said
    assert not any(word in said for word in ("Traceback", "KeyboardInterrupt", "Error"))
    assert not list(config.output_dir.rglob("*.part"))


def test_two_processes_leave_together(make: Make, project: Path, tmp_path: Path) -> None:
    """The signal reaches one of them alone; torchrun itself answers 1, whatever its processes answer."""
    config = make(distributed=True, dataset={"batch_size": 4}, **LONG)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--log-dir={tmp_path}/logs")
    run = subprocess.Popen(
        _command(project, config, *launcher), env=_environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    state = config.output_dir / "state" / "checkpoint_last.pt"
    _wait_for(state, run)
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    children = [int(line.split()[0]) for line in listed.splitlines()[1:] if int(line.split()[1]) == run.pid]
    os.kill(max(children), signal.SIGUSR1)
    said = run.communicate(timeout=90)[1].decode()
    assert said.count("asked to stop at step") == 2
    assert "exitcode  : 75" in said
    assert checkpoint.load(state)["trainer"]["step"] > 0


SLOW_TO_SAVE = """
import os, signal, sys, time
from pathlib import Path
from signstreams.pretrain.settings import PretrainConfig
from signstreams.engine import checkpoint
from signstreams.engine.training_run import TrainingRun
from signstreams.pretrain.run import pretrain
rank, save, ask = os.environ["RANK"], checkpoint.save, TrainingRun._leave_if_asked
def slow_save(*args, **kwargs):
    time.sleep(3)
    save(*args, **kwargs)
    Path(f"{sys.argv[1]}.saved").write_text(str(time.monotonic()))
def asked(run, *args):
    if rank == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    ask(run, *args)
checkpoint.save, TrainingRun._leave_if_asked = slow_save, asked
try:
    pretrain(PretrainConfig.model_validate_json(Path(sys.argv[1]).read_text()), "hand_r")
finally:
    Path(f"{sys.argv[1]}.left_{rank}").write_text(str(time.monotonic()))
"""


def test_no_process_leaves_before_the_first_has_saved(make: Make, project: Path, tmp_path: Path) -> None:
    """On two nodes srun would end the step, and the saving in it, with the first process that leaves."""
    config = make(distributed=True, dataset={"batch_size": 4}, epochs=4000, checkpointing={"every_steps": 9999})
    (tmp_path / "slow.py").write_text(SLOW_TO_SAVE)
    settings = tmp_path / "settings"
    settings.write_text(config.model_dump_json(exclude_none=True, exclude_defaults=True))
    launcher = [sys.executable, str(project / "scripts" / "launch.py"), "--cpu-processes", "2", "--"]
    command = [*launcher, str(tmp_path / "slow.py"), str(settings)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 75, done.stderr[-3000:]
    saved_s, *left_s = (float(Path(f"{settings}.{name}").read_text()) for name in ("saved", "left_0", "left_1"))
    assert min(left_s) >= saved_s


def test_torchrun_restarts_a_run_that_died_and_it_goes_on(
    make: Make, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """Once each process dies at step 6; with --resume never as well: the restart is the same run."""
    straight = make(output_dir=str(tmp_path / "straight"), epochs=1, distributed=True, dataset={"batch_size": 4})
    run_two(tmp_path, *_command(project, straight)[1:])
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1")
    config = straight.model_copy(
        update={
            "output_dir": tmp_path / "dying",
            "resume": "never",
            "checkpointing": straight.checkpointing.model_copy(update={"every_steps": 1}),
        }
    )
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0':\n"
        "    from signstreams.engine.training_run import TrainingRun\n"
        "    after = TrainingRun._after_step\n"
        "    def die(self, stage, *args):\n"
        "        after(self, stage, *args)\n"
        "        if stage.step == 3: os._exit(9)\n"
        "    TrainingRun._after_step = die\n"
    )
    paths = os.pathsep.join([str(folder), str(project / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        _command(project, config, *launcher),
        env=_environment() | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on from step 3 of 5" in done.stderr
    ours, theirs = (torch.load(tmp_path / name / "backbone.pt", weights_only=True) for name in ("straight", "dying"))
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in ours["model"])


def test_the_same_run_in_bfloat16_on_two_processes(
    make: Make, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    optim = {"precision": "bf16", "accumulate": 2}
    one = make(output_dir=str(tmp_path / "one"), epochs=1, optim=optim)
    pretrain(one, STREAM)
    two = make(output_dir=str(tmp_path / "two"), epochs=1, optim=optim, distributed=True, dataset={"batch_size": 4})
    run_two(tmp_path, *_command(project, two)[1:])
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(ours) == len(theirs) > 1
    for a, b in zip(ours, theirs, strict=True):
        for key in ("train/loss", "train/grad_norm", "teacher/entropy_sample", "teacher/entropy_batch"):
            # 0.02 nats: the rounding of logits moves an entropy by what it is, also where the entropy is near 0
            near = 0.02 if "entropy" in key else 0.0
            assert a[key] == pytest.approx(b[key], rel=0.02, abs=near), key


def test_a_second_run_in_the_same_folder_is_refused_in_one_line(make: Make, project: Path) -> None:
    config = make()
    with Experiment(config.output_dir, Fingerprint({}, ""), files=[]):
        done = subprocess.run(_command(project, config), env=_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "another process is writing into this folder" in errors[0]


def test_the_lock_of_a_killed_run_is_free_though_its_loaders_live(make: Make, tmp_path: Path) -> None:
    """A forked child that outlives its parent holds no lock."""
    code = (
        "import os, sys, time\n"
        "from signstreams.engine.run_folder import Experiment, Fingerprint\n"
        "claimed = Experiment(sys.argv[1], Fingerprint({}, ''), files=[])\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True); time.sleep(60); os._exit(0)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(UserError, match="another process is writing"):
            Experiment(tmp_path / "run", Fingerprint({}, ""), files=[])
        parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=10)
        os.kill(child, 0)  # lives
        Experiment(tmp_path / "run", Fingerprint({}, ""), files=[]).close()
    finally:
        os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.stdout.close()


def test_a_run_that_collapses_stops_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provoked: without the centre, and with the sharpest targets, one prototype takes all; no line is made up."""
    monkeypatch.setattr(Centre, "update", lambda self, scores: self.value[0].sub_(0.5))
    monkeypatch.setattr("signstreams.pretrain.health.MIN_STEPS", 4)
    monkeypatch.setattr("signstreams.pretrain.health.PATIENCE", 2)
    config = make(
        epochs=8,
        dino={"warmup_teacher_temp": 0.01, "teacher_temp": 0.01, "momentum": 0.9},
    )
    with pytest.raises(UserError, match=r"collapsed by step \d+: one prototype takes every crop.*stop_on_collapse"):
        pretrain(config, STREAM)
    last = read_metrics(config.output_dir / "metrics.jsonl")[-1]
    assert last["teacher/entropy_batch"] < 0.05 * 2.77  # the line that shows it is there to look at
    assert not (config.output_dir / "backbone.pt").exists()


def test_as_many_bad_losses_as_allowed_go_by(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {
        "optim": {"learning_rate": 1e38, "learning_rate_scaling": "none", "warmup_ratio": 0.0},
        "epochs": 2,
    }
    with pytest.raises(UserError, match=r"\d losses in a row were not finite"):
        pretrain(make(**changes), STREAM)
    monkeypatch.setattr(training, "MAX_BAD_LOSSES", 99)
    config = make(output_dir=str(tmp_path / "tolerant"), **changes)
    pretrain(config, STREAM)
    records = read_metrics(config.output_dir / "metrics.jsonl")
    assert records[-1]["probe/rankme"] is None  # not finite, and said so
    assert checkpoint.load(config.output_dir / "checkpoint_last.pt")["best"] is None  # NaN is never the best


def test_a_disk_without_room_is_refused_before_the_first_step(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 2**20
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UserError, match=r"0\.00 GB are free.*4 checkpoints.*checkpointing\.min_free_gb") as caught:
        pretrain(make(), STREAM)
    assert len(caught.value.problems) == 1
    assert not (make().output_dir / "metrics.jsonl").exists()
    target = pretrain(make(checkpointing={"min_free_gb": 0}), STREAM)
    target.unlink()
    assert pretrain(make(), STREAM).exists()  # a finished run is exported again, however little is free
    with pytest.raises(UserError, match=r"needs 2\.00 GB"):
        pretrain(make(checkpointing={"min_free_gb": 2}, seed=1, on_conflict="archive"), STREAM)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, save = make(), checkpoint.save

    def full(path: Path, state: dict[str, Any], **options: bool) -> None:
        if state["trainer"]["step"] > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, state, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(UserError, match=r"its disk is full .*run again to go on"):
            pretrain(config, STREAM)
    assert checkpoint.load(config.output_dir / "state" / "checkpoint_last.pt")["trainer"]["step"] == 4
    assert pretrain(config, STREAM).exists()


@pytest.mark.parametrize("kind", ["cpu", "cuda", "python"])
def test_too_little_memory_names_the_settings(make: Make, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Trainer, *views: torch.Tensor) -> None:
        if kind == "cpu":
            torch.empty(2**55)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB") if kind == "cuda" else MemoryError

    monkeypatch.setattr(Trainer, "train_step", greedy)
    place = "GPU" if kind == "cuda" else "CPU"
    with pytest.raises(UserError, match=rf"out of memory on the {place}, about .*--accumulate.*--batch-size") as caught:
        pretrain(make(), STREAM)
    assert "\n" not in caught.value.problems[0]


def test_other_errors_stay_what_they_are(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Trainer, *views: torch.Tensor) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Trainer, "train_step", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        pretrain(make(), STREAM)


def test_the_best_checkpoint_is_the_healthiest_not_the_one_with_the_lowest_loss(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health given by hand: best at step 8; the loss is at its lowest elsewhere."""
    given = {4: 0.1, 8: 0.9, 12: 0.5, 16: 0.2, 20: 0.3}
    probe = Trainer.probe
    monkeypatch.setattr(
        Trainer,
        "probe",
        lambda self, *given_to_it: probe(self, *given_to_it) | {"probe/assignment_information": given[self.step]},
    )
    config = make(epochs=4, optim={"learning_rate": 3e-3, "learning_rate_scaling": "none"})
    pretrain(config, STREAM)
    best = checkpoint.load(config.output_dir / "checkpoint_best.pt")
    assert (best["trainer"]["step"], best["best"]["score"]) == (8, 0.9)
    records = read_metrics(config.output_dir / "metrics.jsonl")
    assert min(records, key=lambda record: record["train/loss"])["step"] != 8


def test_what_shows_collapse_is_logged(make: Make) -> None:
    config = make()
    pretrain(config, STREAM)
    records = read_metrics(config.output_dir / "metrics.jsonl")
    for key in (
        "teacher/entropy_sample",
        "teacher/entropy_batch",
        "teacher/prototypes_used_ratio",
        "teacher/centre_norm",
        "teacher/distance",
        "train/kl",
        "train/grad_norm",
        "schedule/lr_backbone",
    ):
        assert all(record[key] is not None for record in records), key
    assert {"probe/rankme", "probe/feature_std", "probe/assignment_information"} <= set(records[-1])
