"""Checkpoints: written aside, synced, renamed; read back without running code from the file."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch

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


def load(path: str | Path) -> Any:
    """Read a checkpoint to the CPU; nothing in the file is executed (``weights_only=True``).

    Raises:
        FileNotFoundError: It is absent.
        ValueError: It is truncated, foreign or holds more than tensors and plain values; names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a checkpoint file")
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: is not a checkpoint of tensors and plain values ({reason})") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise ValueError(f"{path}: is truncated or no checkpoint ({reason})") from error
