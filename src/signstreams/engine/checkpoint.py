"""Checkpoints: written aside, synced, renamed; read back without running code from the file."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import torch

from signstreams.files import replacing


def save(path: str | Path, state: Any) -> None:
    """Write tensors and plain values (nested dicts, lists, numbers, texts) whole or not at all.

    Equal states give equal bytes: PyTorch names the archive inside after the file it writes, so it gets a file
    object, which has no name.
    """
    with replacing(path) as part, part.open("wb") as file:
        torch.save(state, file)


def load(path: str | Path, *, map_location: str | torch.device = "cpu") -> Any:
    """Read a checkpoint; nothing in the file is executed (``weights_only=True``).

    Raises:
        FileNotFoundError: When it is absent.
        ValueError: When it is truncated, foreign or holds more than tensors and plain values; names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a checkpoint file")
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: is not a checkpoint of tensors and plain values ({reason})") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: is truncated or no checkpoint ({reason})") from error


def rng_state() -> dict[str, Any]:
    """State of PyTorch's global generators and Python's, as tensors and plain numbers.

    NumPy's global generator is not among them: our code draws from generators of its own (`seeding.numpy_rng`).
    """
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [int(version), torch.tensor(internal, dtype=torch.int64), gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put the global generators back to what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
