"""Random generators derived from names and numbers, so that no draw depends on what ran before it.

A generator derived from (seed, rank, worker, step) needs no saved state: a resumed run derives it again.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mix of numbers and names; different parts, or another order, give another seed."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """NumPy generator of these parts."""
    return np.random.Generator(np.random.PCG64(derive(*parts)))


def torch_generator(*parts: int | str) -> torch.Generator:
    """PyTorch generator of these parts, on the CPU."""
    return torch.Generator().manual_seed(derive(*parts))


def seed_global(*parts: int | str) -> None:
    """Seed the global generators of PyTorch (dropout, drop path) and Python from these parts, before each step."""
    torch.manual_seed(derive(*parts))
    random.seed(derive(*parts))
