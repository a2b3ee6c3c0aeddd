"""Checkpoints: equal states give equal bytes, broken and foreign files are named."""

from __future__ import annotations

import errno
import pickle
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
