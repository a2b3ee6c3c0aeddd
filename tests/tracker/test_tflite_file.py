"""Graphs of .tflite files: what is read, fewer outputs, damage in one line."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.tracker.models import MODELS, read_model
from signstreams.tracker.tflite_file import read_graph, with_outputs


@pytest.mark.parametrize("name", MODELS)
def test_graphs_can_run_in_their_order(name: str, models: Path) -> None:
    graph = read_graph(read_model(name, models), name)
    known = set(graph.inputs) | {row for row, tensor in enumerate(graph.tensors) if tensor.content is not None}
    for operator in graph.operators:
        assert known >= {row for row in operator.inputs if row >= 0}
        known.update(operator.outputs)
    assert known >= set(graph.outputs)
    assert {graph.tensors[row].name for row in graph.outputs} >= set(MODELS[name].outputs)


def test_fewer_outputs_in_the_order_that_was_asked_for(models: Path) -> None:
    content = read_model("pose_landmarks", models)
    graph = read_graph(with_outputs(content, ["Identity_1", "Identity"], "pose"), "pose")
    assert [graph.tensors[row].name for row in graph.outputs] == ["Identity_1", "Identity"]
    made = {row for operator in graph.operators for row in operator.outputs}
    used = {row for operator in graph.operators for row in operator.inputs} | set(graph.outputs)
    assert made <= used
    assert len(graph.operators) < len(read_graph(content, "pose").operators) - 60
    every = [graph.tensors[row].name for row in read_graph(content, "pose").outputs]
    assert with_outputs(content, every, "pose") is content


def test_sparse_weights_are_unfolded(models: Path) -> None:
    """Most of the weights are zero, and none is lost."""
    graph = read_graph(read_model("face_detection", models), "face")
    sparse = [graph.tensors[operator.inputs[0]].content for operator in graph.operators if operator.kind == "DENSIFY"]
    shares = [np.count_nonzero(content) / content.size for content in sparse]
    assert len(sparse) == 46
    assert 0.1 < min(shares) < max(shares) < 0.7


def damaged(content: bytes, seed: int) -> bytes:
    """A few words changed, in the tables rather than in the weights, or the end cut off."""
    rng = random.Random(seed)
    result = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.choice((rng.randrange(0, 400), rng.randrange(len(result) - 40_000, len(result) - 4)))
        struct.pack_into("<I", result, at, rng.choice((0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32))))
    return bytes(result[: rng.randrange(len(result))] if rng.random() < 0.2 else result)


@pytest.mark.parametrize("name", ["hand_recrop", "face_detection"])
def test_damage_ends_in_one_line(name: str, models: Path) -> None:
    content, refused = read_model(name, models), 0
    for seed in range(150):
        try:
            graph = read_graph(damaged(content, seed), "model.tflite")
            with_outputs(damaged(content, seed), [graph.tensors[graph.outputs[0]].name], "model.tflite")
        except UserError as error:
            (line,) = error.problems
            assert line.startswith("model.tflite: not a model that can be read (")
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it does not begin like one"),
        (b"PK\x03\x04 a ZIP", "it does not begin like one"),
        (b"\0\0\0\0TFL3", "version 0 of the schema"),
    ],
)
def test_other_files_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=r"^model\.tflite: not a model.*\.tflite files$") as error:
        read_graph(content, "model.tflite")
    assert reason in str(error.value)


def test_an_output_that_is_not_there_is_named(models: Path) -> None:
    with pytest.raises(UserError, match="no output Identity_9"):
        with_outputs(read_model("hand_landmarks", models), ["Identity", "Identity_9"], "hand")
