"""Processes of a run: alone nothing is needed and nothing changes; two of them agree on sums, values and errors."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch

from signstreams.engine import distributed
from signstreams.errors import UserError

SHARES = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])]
"""Of rank 0 and of rank 1."""
WEIGHTS = [torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])]
SIZES = [(3, 2), (5,), (1,), (4, 4)]  # of parameters; rank 1 has no gradient for the second, nobody for the third
RANK = """
import sys, torch
from signstreams.engine import distributed
from signstreams.errors import UserError

world = distributed.start(distributed=True, device="cpu")
given = torch.load(sys.argv[1], weights_only=True)
share, weight = given["shares"][world.rank], given["weights"][world.rank]
result = {"world": [world.rank, world.size, world.is_main, distributed.world_size()]}
for name in ("all_reduce_sum", "all_reduce_max"):
    tensor = share.clone()
    result[name] = [getattr(distributed, name)(tensor), tensor]

x = share.clone().requires_grad_()
total = distributed.joint_sum(x.sum(dim=0))
(weight * total.square()).sum().backward()
result["joint_sum"] = [total.detach(), x.grad]

tensors = [share.clone(), share[0] + 1]
distributed.broadcast(tensors)
result["broadcast"] = tensors
result["from_main"] = distributed.from_main({"a": [1, None]} if world.is_main else None)
result["gather"] = distributed.gather(["x"] * (world.rank + 1))

for bucket_bytes in (1, 40, 10**6):
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in given["sizes"]]
    for i, parameter in enumerate(parameters):
        if i != 2 and (i, world.rank) != (1, 1):
            parameter.grad = torch.full_like(parameter, 10.0**world.rank * (i + 1))
    distributed.sum_gradients(parameters, bucket_bytes=bucket_bytes)
    result[f"sum_gradients {bucket_bytes}"] = [parameter.grad for parameter in parameters]

result["errors"] = []
for problems in (["a: absent", "b: broken"], []):
    try:
        with distributed.main_first(world):
            if world.is_main and problems:
                raise UserError(problems)
    except UserError as error:
        result["errors"].append(error.problems)
torch.save(result, f"{sys.argv[2]}/{world.rank}.pt")
distributed.close()
assert not distributed.is_distributed()
"""


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = distributed.start(device="cpu")
    assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
    tensor = torch.tensor([2.0])
    assert distributed.all_reduce_sum(tensor) is tensor
    assert distributed.all_reduce_sum(tensor).item() == distributed.all_reduce_max(tensor).item() == 2.0
    assert distributed.from_main("x") == "x"
    assert distributed.gather("x") == ["x"]
    assert distributed.joint_sum(tensor) is tensor
    parameter = torch.nn.Parameter(tensor)
    distributed.sum_gradients([parameter])
    distributed.broadcast([parameter])
    assert (parameter.grad, parameter.item()) == (None, 2.0)
    assert distributed.world_size() == 1 and not distributed.is_distributed()
    distributed.barrier()
    distributed.close()


def test_asking_for_several_processes_without_torchrun_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun"):
        distributed.start(distributed=True, device="cpu")


def test_a_gpu_that_is_not_there_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device auto or cpu"):
        distributed.start(device="cuda")


def test_a_user_error_of_the_main_rank_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = distributed.start(device="cpu")
    with pytest.raises(UserError, match="folder"), distributed.main_first(world):
        raise UserError("folder: in the way")


def test_a_process_without_a_gpu_of_its_own_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="rank 1 of this machine has no GPU: 1 visible; start at most one process"):
        distributed.start()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"RANK": "abc"}, "RANK: found 'abc' in the environment, expected a whole number"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT: found 'x' in the environment, expected a whole number"),
        ({"WORLD_SIZE": "2.5"}, "WORLD_SIZE: found '2.5'"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK: found '-1'"),
        ({"RANK": "7"}, "RANK: found 7 in the environment, expected 0 to 1 as WORLD_SIZE is 2"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT: found 99999 in the environment, expected 1 to 65535"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: found none"),
    ],
)
def test_an_environment_that_makes_no_sense_is_one_line(
    changes: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in (good | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        distributed.start(distributed=True, device="cpu")
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith(expected)


def test_ranks_that_nobody_asked_for_are_named_and_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "x"}.items():
        monkeypatch.setenv(name, value)
    world = distributed.start(device="cpu")
    assert (world.rank, world.size) == (0, 1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "RANK=3, WORLD_SIZE=4, MASTER_ADDR=10.0.0.1, MASTER_PORT=x" in said


def test_a_long_wait_and_a_taken_port_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distributed, "WAIT_UNSAID_S", 0.1)
    monkeypatch.setattr(distributed, "TIMEOUT", datetime.timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: the 2 processes of the run cannot meet there"):
            distributed.start(distributed=True, device="cpu")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="cannot meet there"):  # nobody is there any more
        distributed.start(distributed=True, device="cpu")
    assert f"rank 1: waiting for 2 processes at 127.0.0.1:{port}" in caplog.text


def test_one_process_of_a_run_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}.items():
        monkeypatch.setenv(name, value)
    assert [distributed.is_first_to_report() for _ in range(4)] == [True, False, False, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert distributed.is_first_to_report()  # another attempt
    del store
    monkeypatch.setenv("MASTER_PORT", "1")
    assert distributed.is_first_to_report()  # nobody answers: rather twice than never
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE")
    assert distributed.is_first_to_report()


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("2", True)])
def test_a_restart_is_known_from_torchruns_count(
    monkeypatch: pytest.MonkeyPatch, count: str | None, expected: bool
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert distributed.is_restart() == expected


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, run_two: Callable[..., None]) -> list[dict[str, Any]]:
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "rank.py").write_text(RANK)
    torch.save({"shares": SHARES, "weights": WEIGHTS, "sizes": SIZES}, folder / "given.pt")
    run_two(folder, folder / "rank.py", str(folder / "given.pt"), str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_each_process_knows_its_place(ranks: list[dict[str, Any]]) -> None:
    assert [rank["world"] for rank in ranks] == [[0, 2, True, 2], [1, 2, False, 2]]


def test_sums_and_maxima_are_those_of_all_and_in_place(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert all(torch.equal(tensor, SHARES[0] + SHARES[1]) for tensor in rank["all_reduce_sum"])
        assert all(torch.equal(tensor, SHARES[1]) for tensor in rank["all_reduce_max"])


def test_the_gradient_of_a_joint_sum_is_that_of_all_losses(ranks: list[dict[str, Any]]) -> None:
    """As if one process had all rows and added up both losses."""
    rows = torch.cat(SHARES).requires_grad_()  # (4, 2)
    total = rows.sum(dim=0)
    sum((weight * total.square()).sum() for weight in WEIGHTS).backward()
    for rank, expected in zip(ranks, rows.grad.split(2), strict=True):
        found, gradient = rank["joint_sum"]
        assert torch.equal(found, total.detach())
        assert torch.equal(gradient, expected)


def test_values_come_from_the_main_process_or_from_all_in_order(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert torch.equal(rank["broadcast"][0], SHARES[0])
        assert torch.equal(rank["broadcast"][1], SHARES[0][0] + 1)
        assert rank["from_main"] == {"a": [1, None]}
        assert rank["gather"] == [["x"], ["x", "x"]]


@pytest.mark.parametrize("bucket_bytes", [1, 40, 10**6], ids=["one by one", "some together", "all together"])
def test_gradients_are_summed_and_a_missing_one_counts_as_zero(ranks: list[dict[str, Any]], bucket_bytes: int) -> None:
    for rank in ranks:
        found = rank[f"sum_gradients {bucket_bytes}"]
        for gradient, size, value in zip(found, SIZES, (1 + 10, 2, 0, 4 + 40), strict=True):
            assert torch.equal(gradient, torch.full(size, float(value)))


def test_an_error_of_the_main_process_is_raised_by_all(ranks: list[dict[str, Any]]) -> None:
    assert [rank["errors"] for rank in ranks] == [[["a: absent", "b: broken"]]] * 2
