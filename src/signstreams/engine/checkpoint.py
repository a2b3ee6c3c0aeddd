"""Checkpoints: written aside, synced, renamed; read back whole, and without running code from the file."""

from __future__ import annotations

import argparse
import errno
import logging
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor

from signstreams.files import link_or_copy, replacing

log = logging.getLogger(__name__)


def save(path: str | Path, state: Any, *, keep_previous: bool = False) -> None:
    """Write tensors and plain values (nested dicts, lists, numbers, texts) whole or not at all.

    Equal states give equal bytes: PyTorch names the archive inside after the file it writes, so it gets a file
    object, which has no name. ``keep_previous`` keeps the earlier file as ``<name>.previous``, for `load_latest`.
    """
    path = Path(path)
    with replacing(path) as part:
        with part.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # of the disk; torch only says that it is short
                    raise error.__context__ from None
                raise
        if keep_previous and path.is_file():
            previous(path).unlink(missing_ok=True)
            link_or_copy(path, previous(path))


def previous(path: Path) -> Path:
    """Path of the checkpoint before the one at ``path``."""
    return path.with_name(f"{path.name}.previous")


def load_latest(path: Path) -> Any:
    """The checkpoint at ``path``; if a crash or the disk has broken it, the one before it, with a warning.

    Raises:
        FileNotFoundError: It is absent.
        ValueError: Neither can be read; names the file.
    """
    try:
        return load(path)
    except ValueError as error:
        try:
            state = load(previous(path))
        except (FileNotFoundError, ValueError):
            raise error from None
        log.warning("%s; going on from the one before it", error)
        return state


MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM})
"""Errors that say nothing of the file: an earlier checkpoint would not help."""


def load(path: str | Path, *, with_placeholders: bool = False) -> Any:
    """Read a checkpoint to the CPU; nothing in the file is executed (``weights_only=True``).

    The checksums in the file are compared, which PyTorch leaves out. ``with_placeholders`` is for weights that others
    trained: beside them stand objects of classes that are not installed, for which inert `Placeholder` are put.

    Raises:
        FileNotFoundError: It is absent.
        ValueError: It is damaged, foreign or holds more than tensors and plain values; names the file, in one line.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a checkpoint file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is not a regular file, expected a checkpoint file")
    try:
        with path.open("rb") as file:
            is_archive = _is_archive(file)
            if is_archive:
                _compare_sums(file)
            else:
                with warnings.catch_warnings(action="ignore"):  # of escapes that damage made
                    _check_claims(file)
            allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
            if with_placeholders:
                allowed = _placeholders(file) if is_archive else [argparse.Namespace]
            file.seek(0)
            with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
                warnings.simplefilter("ignore")  # of odd pickles and old archives; what matters is raised
                return torch.load(file, map_location="cpu", weights_only=True)
    except _NoCheckpoint as error:
        raise ValueError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged file PyTorch raises nearly every kind
        if isinstance(error, OSError) and error.errno in MACHINE:
            raise
        raise ValueError(f"{path}: {reason(error)}") from error


class _NoCheckpoint(ValueError):
    """What the file is instead, as the end of a sentence."""


_ARCHIVE = b"PK\x03\x04"
_PICKLE = b"\x80"
_KNOWN = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    b"\x1f\x8b": "is compressed with gzip, expected a checkpoint; unpack it",
    b"\x89HDF": "is a file of Keras (HDF5), expected a checkpoint of PyTorch",
    b"GGUF": "is a GGUF file, expected a checkpoint of PyTorch",
}


def _is_archive(file: IO[bytes]) -> bool:
    """Whether it is an archive, as PyTorch has written since 1.6, or a bare pickle, as before; else it raises."""
    head = file.read(200)
    if head.startswith((_ARCHIVE, _PICKLE)):
        return head.startswith(_ARCHIVE)
    if not head:
        raise _NoCheckpoint("is empty (0 bytes), expected a checkpoint")
    for start, text in _KNOWN.items():
        if head.startswith(start):
            raise _NoCheckpoint(text)
    if head[8:9] == b"{":
        raise _NoCheckpoint("is a safetensors file, expected a checkpoint of PyTorch; let its name end in .safetensors")
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n")
    if text.lower().startswith(("<!doctype html", "<html")):
        raise _NoCheckpoint("is a web page, as a failed download leaves, expected a checkpoint; download it again")
    if len(text) > 0.9 * len(head) and all(c.isprintable() or c.isspace() for c in text):
        shown = " ".join(text.split())[:40]
        raise _NoCheckpoint(f"is a text ('{shown}'), expected a checkpoint; download it again")
    raise _NoCheckpoint("is truncated or no checkpoint (it begins with other bytes)")


_CLAIMS_TOO_MUCH = "claims more bytes than it has, expected a checkpoint; it is damaged"
_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG"})
_NUM_PICKLES = 4  # a magic number, the version, what is known of the machine, the content


class _Bounded:
    """Reads for `pickletools.genops`; a length above that of the file would take its memory before it is missed."""

    def __init__(self, file: IO[bytes], num_bytes: int) -> None:
        self.readline, self._file, self._num_bytes = file.readline, file, num_bytes

    def read(self, count: int) -> bytes:
        if count > self._num_bytes:
            raise _NoCheckpoint(_CLAIMS_TOO_MUCH)
        return self._file.read(count)


def _check_claims(file: IO[bytes]) -> None:
    """Check a bare pickle, without loading it, for what PyTorch takes memory for before it compares.

    A storage has its number of values last before its persistent id, a tensor offset, sizes and strides behind it; none
    may reach beyond as many values as the file has bytes. What is no pickle ends the check: PyTorch says so.
    """
    most = file.seek(0, 2)
    file.seek(0)
    bounded: Any = _Bounded(file, most)
    try:
        for _ in range(_NUM_PICKLES):
            numbers: list[int] = []
            is_tensor = False
            for op, value, _ in pickletools.genops(bounded):
                if op.name in _INTEGERS and isinstance(value, int):
                    numbers.append(value)
                elif op.name == "MARK" and not is_tensor:
                    numbers = []
                elif op.name == "BINPERSID":
                    _check_reach(numbers[-1:], most)
                    numbers, is_tensor = [], True
                elif op.name in ("NEWTRUE", "NEWFALSE", "REDUCE") and is_tensor:  # "requires_grad" ends the strides
                    num_dims = (len(numbers) - 1) // 2
                    sizes, strides = numbers[1 : 1 + num_dims], numbers[1 + num_dims :]
                    steps = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=False) if size > 0]
                    _check_reach([*numbers[:1], *steps], most)
                    numbers, is_tensor = [], False
    except _NoCheckpoint:
        raise
    except Exception:  # a damaged pickle raises nearly every kind
        return


def _check_reach(numbers: list[int], most: int) -> None:
    if sum(numbers) > most:
        raise _NoCheckpoint(_CLAIMS_TOO_MUCH)


def _compare_sums(file: IO[bytes]) -> None:
    """Compare every record of an archive with its CRC-32: a flipped bit in a tensor shows nowhere else."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if sum(record.file_size for record in records) > 2 * size:
            raise _NoCheckpoint(_CLAIMS_TOO_MUCH)
        broken = []
        for record in records:
            try:
                with archive.open(record) as content:
                    while content.read(1 << 20):
                        pass
            except zipfile.BadZipFile as error:
                broken.append(f"{record.filename}: {error}" if "CRC" not in str(error) else record.filename)
    # with torch.serialization.set_crc32_options(False) no sum is right
    if broken and len(broken) < len(records):
        raise _NoCheckpoint(f"is damaged: {broken[0]} in it is not what was written; copy or download it again")


class Placeholder:
    """Stands for an object of a foreign class: nothing of the class is run, nothing of the object kept."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _DictPlaceholder(Placeholder):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()  # of which PyTorch's reader can set items


def _placeholders(file: IO[bytes]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    file.seek(0)
    names = [name for name in torch.serialization.get_unsafe_globals_in_checkpoint(file) if isinstance(name, str)]
    if any(name.startswith("torch.distributed.") for name in names):
        raise _NoCheckpoint(
            "is a part of weights sharded over processes; gather them into one state dict and save that"
        )
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for name in names:
        if name == "argparse.Namespace":
            allowed.append(argparse.Namespace)
        else:
            base = _DictPlaceholder if "dict" in name.rpartition(".")[2].lower() else Placeholder
            allowed.append((type(name, (base,), {}), name))
    return allowed


_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_GLOBAL = re.compile(r"GLOBAL ([\w.]{1,80})")


def reason(error: BaseException) -> str:
    """Why a file of weights cannot be read, as the end of a sentence, without PyTorch's advice to trust the file."""
    text = _ESCAPES.sub("", str(error))
    if found := _GLOBAL.search(text):
        return f"is not a checkpoint of tensors and plain values: it also holds {found[1]}; save its state dict alone"
    if "TorchScript" in text:
        return "is a TorchScript program, expected a checkpoint; save its state dict"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "needs more memory than is free, as a damaged file may"
    first = (text.strip().splitlines() or [""])[0].partition(". ")[0][:160]
    if not first or "weights" in first.lower():
        first = type(error).__name__
    return f"is truncated or no checkpoint ({first})"


def short_reason(error: BaseException) -> str:
    """Why another library could not load weights, in brackets of a sentence; PyTorch's advice may be within."""
    text = " ".join(str(error).split())
    return reason(error) if "weights only" in text.lower() or "weights_only" in text else text[:160]


def check_tensors(state: Mapping[Any, Any]) -> None:
    """Check that these are tensors by name, each with as many values as it claims and all of them finite.

    Raises:
        ValueError: Names the first that is not, as the end of a sentence.
    """
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"holds {name!r:.60}, which is not a named tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ValueError(f"holds {name}, expected a dense tensor, not a sparse, quantised or empty one")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"holds {name}, which claims {tuple(tensor.shape)} values but has fewer")
        # a sum is ten times as fast to look at; only one that overflows needs the values
        if tensor.is_floating_point() and not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
            raise ValueError(f"holds {name} with values that are not finite; its training diverged, or it is damaged")


def differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """How a state dict differs in names and shapes from that of the network it is for."""
    return [
        *(f"lacks {name}" for name in wanted if name not in found),
        *(f"also holds {name}" for name in found if name not in wanted),
        *(
            f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ),
    ]
