"""Weights with random damage: refused in one line, or read as they were; never a traceback."""

from __future__ import annotations

import argparse
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from signstreams.backbones.weights import export_backbone, read_file
from signstreams.errors import UserError

from .models import make_model

NUM_DAMAGES = 400  # of each kind of file; 3 s
MAX_GROWTH_BYTES = 1 << 30


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One kind of damage, at places that headers and tables of contents get their share of."""
    end = rng.choice((100, 2000, len(data)))
    place = rng.randrange(min(end, len(data)))
    if rng.random() < 0.4:
        place = len(data) - 1 - place
    kind = rng.randrange(7)
    some = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 4, 8))))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + some + data[place:]
    if kind == 2:
        return data[:place] + data[place + len(some) :]
    if kind == 3:
        return data[:place] + bytes(rng.choice((1, 8, 600))) + data[place + 8 :]
    if kind == 4:
        return data[:place] + b"\xff" * len(some) + data[place + len(some) :]
    if kind == 5:
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    return data[:place] + some + data[place + len(some) :]


@pytest.fixture(scope="module", params=["pt", "safetensors", "pth"])
def kind(request: pytest.FixtureRequest) -> str:
    """An export of ours, as both files, and a checkpoint of DINO from before PyTorch 1.6."""
    return str(request.param)


@pytest.fixture(scope="module")
def whole(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("whole")
    model = make_model("vit_tiny", 16, patch_px=8, depth=1)
    small = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    about = {"mean": [0.5] * 3, "std": [0.2] * 3, "image_px": 16, "stream": "face"}
    export_backbone(folder / "b.pt", model.arch, small, about, safetensors=folder / "b.safetensors")
    content = {"teacher": {f"backbone.{k}": v for k, v in small.items()}, "args": argparse.Namespace(arch="vit_tiny")}
    torch.save(content, folder / "b.pth", _use_new_zipfile_serialization=False)
    yield (folder / f"b.{kind}").read_bytes(), read_file(folder / f"b.{kind}").state


def test_damage_is_one_line_or_none(kind: str, whole: tuple[bytes, dict[str, Tensor]], tmp_path: Path) -> None:
    """Formats with sums tell every damage; the others what is no longer a network of finite values."""
    data, expected = whole
    rng = random.Random(f"damage of {kind}")
    path = tmp_path / f"b.{kind}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    outcomes = {"refused": 0, "read": 0}
    for _ in range(NUM_DAMAGES):
        changed = damaged(data, rng)
        if changed == data:
            continue
        path.write_bytes(changed)
        try:
            found = read_file(path)
        except UserError as error:
            outcomes["refused"] += 1
            text = str(error)
            assert len(error.problems) == 1 and "\n" not in text and "weights_only" not in text, text
            assert text.startswith(str(path)) and len(text) < 600, text
            continue
        outcomes["read"] += 1
        if kind == "pt":
            assert found.state.keys() == expected.keys()
            assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.items())
        assert all(bool(tensor.isfinite().all()) for tensor in found.state.values())
    assert outcomes["refused"] > NUM_DAMAGES // 4, outcomes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MAX_GROWTH_BYTES
