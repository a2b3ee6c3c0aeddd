"""GPUs leased by lock files: never shared, free again when a job dies, limited to what is visible from outside."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from signstreams.engine import gpu_lease
from signstreams.engine.gpu_lease import allowed_gpus, leased, machine_gpus
from signstreams.errors import UserError

JOB = """
import os, sys, time
from pathlib import Path
from signstreams.engine.gpu_lease import leased
count, folder, hold_s = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
with leased(count) as devices:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(devices) and len(devices) == count
    for device in devices:
        (folder / device).mkdir()  # fails where another job is on the device
    print("leased", *devices, flush=True)
    time.sleep(hold_s)
    for device in devices:
        (folder / device).rmdir()
"""


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGNSTREAMS_GPUS", "0,1,2,3")
    monkeypatch.setenv("SIGNSTREAMS_LEASE_FOLDER", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Starts a job that holds GPUs for a while; it fails when one of them is in use."""
    (tmp_path / "in_use").mkdir()
    jobs = []

    def begin(count: int, hold_s: float) -> subprocess.Popen:
        words = [sys.executable, "-c", JOB, str(count), str(tmp_path / "in_use"), str(hold_s)]
        jobs.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()
        job.communicate()


def test_jobs_side_by_side_never_share_a_device(start: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    jobs = [start(rng.randint(1, 3), rng.uniform(0, 0.3)) for _ in range(10)]
    for job in jobs:
        _, said = job.communicate(timeout=60)
        assert job.returncode == 0, said


def test_a_killed_job_frees_its_devices_at_once(start: Callable, tmp_path: Path) -> None:
    killed = start(4, 60)
    assert killed.stdout.readline() == "leased 0 1 2 3\n"
    waiting = start(2, 0)
    time.sleep(0.5)
    assert waiting.poll() is None  # it waits
    for device in "0123":
        (tmp_path / "in_use" / device).rmdir()
    os.kill(killed.pid, signal.SIGKILL)
    out, said = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (0, "leased 0 1\n"), said
    assert said.startswith("waiting for 2 of 4 GPUs")


class Waiting(Exception):
    """Raised where a job would pause until it tries again."""


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        raise Waiting

    monkeypatch.setattr(gpu_lease, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


def test_a_job_waits_without_keeping_halves_from_others(no_pause: None, capsys: pytest.CaptureFixture[str]) -> None:
    with leased(3), pytest.MonkeyPatch.context() as other_job:
        other_job.delenv("CUDA_VISIBLE_DEVICES")  # as the shell of another job has it
        with pytest.raises(Waiting):
            leased(2).__enter__()
        assert capsys.readouterr().err.startswith("waiting for 2 of 4 GPUs that other jobs hold")
        with leased(1) as devices:
            assert devices == ["3"]


def test_devices_set_from_outside_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with leased(1) as first, pytest.MonkeyPatch.context() as other_job:
        assert first == ["2"]
        other_job.setenv("CUDA_VISIBLE_DEVICES", "2,3")  # as the shell of another job has it
        with leased(1) as second:
            assert second == ["3"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    with pytest.raises(UserError, match=r"2 of this machine may be used by CUDA_VISIBLE_DEVICES=2,3, expected 3"):
        leased(3).__enter__()


def test_no_gpu_wanted_hides_all() -> None:
    with leased(0) as devices:
        assert devices == []
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("visible", "found"), [("", []), ("-1", []), ("1,-1,2", ["1"]), (" 0 , GPU-ab", ["0", "GPU-ab"])]
)
def test_visible_devices_are_read_as_cuda_reads_them(
    visible: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(allowed_gpus()) == found


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, one of them with a part of its own."""
    monkeypatch.delenv("SIGNSTREAMS_GPUS")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-aa1)'\n"
        "echo 'GPU 1: NVIDIA H100 (UUID: GPU-ab2)'\necho '  MIG 1g.10gb Device 0: (UUID: MIG-cc)'\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


@pytest.mark.parametrize("name", ["0", "GPU-aa1", "GPU-aa"])
def test_a_gpu_is_the_same_by_index_by_uuid_and_by_its_beginning(nvidia_smi: None, name: str, no_pause: None) -> None:
    assert machine_gpus() == {"0": "GPU-aa1", "1": "GPU-ab2"}
    with leased(1) as devices, pytest.MonkeyPatch.context() as other_job:
        assert devices == ["0"]
        other_job.setenv("CUDA_VISIBLE_DEVICES", name)
        with pytest.raises(Waiting):
            leased(1).__enter__()


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0,7", {"0": "GPU-aa1"}),
        ("7,0", {}),
        ("GPU-ab,GPU-cc,0", {"GPU-ab": "GPU-ab2"}),
        ("GPU-a", {}),  # of two
        ("1,GPU-ab", {"1": "GPU-ab2"}),
        ("MIG-cc", {"MIG-cc": "MIG-cc"}),
    ],
)
def test_what_the_machine_lacks_ends_the_list_as_for_cuda(
    nvidia_smi: None, visible: str, found: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert allowed_gpus() == found


def test_a_lease_folder_of_another_user_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by hand, so that nobody else may write into it; root may, and so it is pretended."""
    plain = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, flags, *mode)

    (tmp_path / "leases").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(gpu_lease.os, "open", refuse)
        with pytest.raises(UserError, match=r"cannot be written by you, .*chmod 1777.*SIGNSTREAMS_LEASE_FOLDER"):
            leased(1).__enter__()


def test_a_lease_folder_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIGNSTREAMS_LEASE_FOLDER", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="set SIGNSTREAMS_LEASE_FOLDER"):
        leased(1).__enter__()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    folder = gpu_lease.lease_folder()
    (tmp_path / "precious").write_text("kept")
    (folder / "0.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=r"0\.lock"):
        leased(1).__enter__()
    assert (tmp_path / "precious").read_text() == "kept"
