"""Generators derived from names and numbers: the same in every process, and each its own."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from signstreams.engine.seeding import derive, numpy_rng, seed_global, torch_generator


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    assert derive(1, 2, "a") == derive(1, 2, "a")
    assert len({derive(1, 23), derive(12, 3), derive("1", 23), derive(23, 1), derive(1, 23, 0)}) == 5
    assert numpy_rng(5, "x").random() == numpy_rng(5, "x").random()
    assert torch.equal(torch.rand(2, generator=torch_generator(5)), torch.rand(2, generator=torch_generator(5)))
    seed_global(1, "step", 2)
    first = torch.rand(1)
    seed_global(1, "step", 2)
    assert torch.equal(torch.rand(1), first)


def test_another_process_derives_the_same_seeds() -> None:
    """Python's own hash of a text would differ."""
    code = "from signstreams.engine.seeding import derive; print(derive(7, 'seña', 3))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) == derive(7, "seña", 3)


def test_seeds_spread_over_63_bits_however_near_their_parts() -> None:
    seeds = [derive(epoch, worker, "views") for epoch, worker in itertools.product(range(50), range(50))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> place & 1 for place in range(63)] for seed in seeds])  # (2500, 63)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05  # five deviations


def test_parts_are_not_run_together() -> None:
    assert len({derive("ab", "c"), derive("a", "bc"), derive("abc"), derive("ab", "c", ""), derive("", "ab", "c")}) == 5
    assert derive("a", "b") != derive("astr:b")  # the kind of a part stands before it


@pytest.mark.parametrize("parts", [(0,), (0, "step", 5), ("a",)])
def test_a_generator_does_not_depend_on_what_was_drawn_before(parts: tuple[int | str, ...]) -> None:
    first = numpy_rng(*parts).random(3), torch.rand(3, generator=torch_generator(*parts))
    np.random.default_rng().random(7)
    torch.rand(7)
    assert np.array_equal(numpy_rng(*parts).random(3), first[0])
    assert torch.equal(torch.rand(3, generator=torch_generator(*parts)), first[1])
    assert not np.array_equal(numpy_rng(*parts, 1).random(3), first[0])
    assert not torch.equal(torch.rand(3, generator=torch_generator(*parts, 1)), first[1])


def test_the_global_generators_of_python_and_pytorch_are_seeded() -> None:
    drawn = []
    for parts in ((1, "step", 2), (1, "step", 2), (1, "step", 3)):
        seed_global(*parts)
        drawn.append((random.random(), torch.nn.functional.dropout(torch.ones(64)).tolist()))
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0] and drawn[0][1] != drawn[2][1]
