"""Checkpoints: equal states give equal bytes, broken and foreign files are named."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import struct
from pathlib import Path
from typing import IO

import pytest
import torch

from signstreams.engine import checkpoint

STATE = {"step": 3, "weights": {"a": torch.arange(6.0).reshape(2, 3)}, "names": ["x", "y"], "score": 0.5}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "sub folder" / "ñ.pt", STATE)
    back = checkpoint.load(tmp_path / "sub folder" / "ñ.pt")
    assert torch.equal(back["weights"]["a"], STATE["weights"]["a"])
    assert {key: back[key] for key in ("step", "names", "score")} == {"step": 3, "names": ["x", "y"], "score": 0.5}


def test_equal_states_give_equal_bytes_under_any_name(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", STATE)
    checkpoint.save(tmp_path / "another name.pt", STATE)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another name.pt").read_bytes()


def test_a_failed_save_leaves_the_earlier_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", STATE)
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save(tmp_path / "a.pt", {"bad": lambda: None})
    assert (tmp_path / "a.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_full_disk_says_so_whatever_the_archive_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the end of the archive still finds room, PyTorch complains of what is missing before it."""

    class AlmostFull:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if len(data) > 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: save(state, AlmostFull(file)))
    with pytest.raises(OSError, match=r"No space left on device.*a\.pt"):
        checkpoint.save(tmp_path / "a.pt", {"weights": torch.zeros(10_000)})


@pytest.mark.parametrize("keep", [0, 1, 100, -10])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, keep: int) -> None:
    checkpoint.save(tmp_path / "a.pt", STATE)
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[:keep])
    with pytest.raises(ValueError, match=r"a\.pt: is"):
        checkpoint.load(tmp_path / "a.pt")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_folder_and_an_absent_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        checkpoint.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "absent.pt")


def test_placeholders_stand_for_what_is_not_installed_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"args": argparse.Namespace(lr=0.1, path=Path("a")), "evil": _Evil(), "set": {1}, "w": torch.ones(2)}
    torch.save(content, tmp_path / "c.pt")
    back = checkpoint.load(tmp_path / "c.pt", with_placeholders=True)
    assert not (tmp_path / "executed").exists()
    assert torch.equal(back["w"], torch.ones(2)) and back["set"] == {1} and back["args"].lr == 0.1
    assert isinstance(back["evil"], checkpoint.Placeholder)
    with pytest.raises(ValueError, match=r"c\.pt: is not a checkpoint of tensors and plain values: it also holds "):
        checkpoint.load(tmp_path / "c.pt")


class _System:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("placeholders", [False, True])
def test_what_runs_commands_is_refused_in_one_line_without_advice_to_trust_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placeholders: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": _System(), "w": torch.ones(2)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt: .*it also holds posix\.system") as caught:
        checkpoint.load(tmp_path / "c.pt", with_placeholders=placeholders)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value) and not (tmp_path / "executed").exists()


def test_a_bit_that_flips_in_a_tensor_is_found(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", {"w": torch.full((1000,), 0.5)})
    data = bytearray((tmp_path / "a.pt").read_bytes())
    place = data.find(b"\x00\x00\x00\x3f" * 100)
    data[place + 200] ^= 16
    (tmp_path / "a.pt").write_bytes(bytes(data))
    assert torch.load(tmp_path / "a.pt", weights_only=True)["w"].unique().numel() == 2  # PyTorch does not look
    with pytest.raises(ValueError, match=r"a\.pt: is damaged: .*data/0 in it is not what was written"):
        checkpoint.load(tmp_path / "a.pt")


def test_archives_without_sums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint.load(tmp_path / "a.pt")["step"] == 3


@pytest.mark.parametrize("damage", ["half", "nothing", "text", "bit"])
def test_the_checkpoint_before_a_damaged_one_is_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.pt"
    for step in (1, 2):
        checkpoint.save(path, {"step": step, "w": torch.full((5000,), float(step))}, keep_previous=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    content = {"half": data[: len(data) // 2], "nothing": b"", "text": b"Rate limit exceeded", "bit": bytes(data)}
    path.unlink()
    path.write_bytes(content[damage])
    assert checkpoint.load_latest(path)["step"] == 1
    assert "going on from the one before it" in caplog.text


def test_errors_of_the_machine_are_not_errors_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files: the checkpoint before the last would lose work for nothing."""
    for step in (1, 2):
        checkpoint.save(tmp_path / "last.pt", {"step": step}, keep_previous=True)

    def load(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(OSError, match="Too many open files"):
        checkpoint.load_latest(tmp_path / "last.pt")


def test_what_another_library_says_of_weights_carries_no_advice_to_trust_them(tmp_path: Path) -> None:
    """timm and transformers hand PyTorch's words on."""
    torch.save({"evil": _Evil()}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError, match="you trust the source") as caught:
        torch.load(tmp_path / "a.pt", weights_only=True)
    text = checkpoint.short_reason(RuntimeError(f"Unable to load weights: {caught.value}"))
    assert text.startswith("is not a checkpoint of tensors and plain values: it also holds ")
    assert "trust" not in text and "\x1b" not in text and "weights_only" not in text
    assert checkpoint.short_reason(OSError("no such\n file")) == "no such file"


LEGACY = {"w": torch.ones(1234), "part": torch.ones(50, 30)[3:7, ::2], "e": torch.ones(1).expand(9, 2), "n": 10**12}


def legacy(path: Path, state: object) -> bytes:
    """As PyTorch wrote before 1.6."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_whole_pickles_of_before_are_read(tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.bfloat16))
    state = {**LEGACY, "a": shared, "b": [shared, torch.tensor(5), torch.empty(0)], "seed": 2**31 - 1, "s": "x" * 300}
    legacy(tmp_path / "a.pth", state)
    found = checkpoint.load(tmp_path / "a.pth")
    assert all(torch.equal(found[name], state[name]) for name in ("w", "part", "e", "a"))
    assert torch.equal(found["b"][0], shared) and (found["n"], found["seed"]) == (10**12, 2**31 - 1)


WORD = b"M" + struct.pack("<H", 1234)
HUGE = b"J" + struct.pack("<i", 10**9)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (WORD + b"Nt", HUGE + b"Nt"),  # values of the storage
        (WORD + b"\x85", HUGE + b"\x85"),  # size of the tensor
        (b"QK\x00" + WORD, b"Q" + HUGE + WORD),  # its offset
        (b"K\x01\x85", HUGE + b"\x85"),  # its stride
        (b"X\x01\x00\x00\x00w", b"X" + struct.pack("<I", 4 * 10**9) + b"w"),  # its name
    ],
)
def test_a_pickle_that_claims_more_than_it_has_takes_no_memory(
    old: bytes, new: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = legacy(tmp_path / "a.pth", {"w": torch.ones(1234)})
    assert data.count(old) == 1
    (tmp_path / "a.pth").write_bytes(data.replace(old, new))
    monkeypatch.setattr(torch, "load", None)  # not even asked
    with pytest.raises(ValueError, match=r"a\.pth: claims more bytes than it has, expected a checkpoint"):
        checkpoint.load(tmp_path / "a.pth")
