"""The models in torch: the same outputs as LiteRT's, in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.errors import UserError
from signstreams.tracker.engine import LiteRtEngine, shared_engine
from signstreams.tracker.models import MODELS
from signstreams.tracker.regions import cut, whole_frame
from signstreams.tracker.tflite_file import Graph, Operator, Tensor
from signstreams.tracker.torch_engine import MOST_IMAGES_CPU, TorchEngine, _steps


@pytest.fixture(scope="module")
def engine(models: Path) -> TorchEngine:
    return TorchEngine("cpu", models)


def images(frames: list[np.ndarray], side_px: int) -> np.ndarray:
    """(N + 3, S, S, 3) uint8 real frames, whole and turned parts of them, and what no camera would give."""
    regions = np.stack([whole_frame(*frame.shape[1::-1]) for frame in frames])
    regions[1::2, 2:] = regions[1::2, 2:3] * (0.4, 0) + (0, 0.7)
    real = cut(frames, np.arange(len(frames)), regions, side_px)
    noise = np.random.default_rng(0).integers(0, 256, (1, side_px, side_px, 3), np.uint8)
    return np.concatenate([real, noise, np.zeros_like(noise), np.full_like(noise, 255)])


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_litert(name: str, engine: TorchEngine, models: Path, frames: list) -> None:
    model, litert = engine.model(name), LiteRtEngine(models).model(name)
    assert model.side_px == litert.side_px
    seen = images(frames, model.side_px)
    assert len(seen) > MOST_IMAGES_CPU  # in several parts
    found, expected = model.run(seen), litert.run(seen)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
    # The first output are points, in px of the input: asked for is 1e-3 of the side. The others are scores.
    errors = np.abs(found[0] - expected[0]).reshape(len(seen), -1).max(1) / model.side_px  # (N + 3,)
    assert errors[: len(frames)].max() < 5e-5
    assert errors.max() < 1e-3  # one colour: values of hundreds cancel each other
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert np.abs(ours - theirs).max() < 1e-4 * max(1, np.abs(theirs).max())


def test_no_images_give_no_outputs(engine: TorchEngine) -> None:
    outputs = engine.model("hand_landmarks").run(np.empty((0, 224, 224, 3), np.uint8))
    assert [output.shape for output in outputs] == [(0, 63), (0, 1), (0, 1)]


def test_an_image_does_not_depend_on_its_batch(engine: TorchEngine, frames: list) -> None:
    model = engine.model("hand_recrop")  # one of its operators takes a part of the values
    seen = images(frames, model.side_px)
    alone = np.concatenate([model.run(seen[row : row + 1])[0] for row in range(len(seen))])
    assert np.allclose(model.run(seen)[0], alone, atol=1e-3)


def test_a_device_that_is_not_there_is_named() -> None:
    for device in ("cuda:99", "abacus"):
        with pytest.raises(
            UserError, match=rf"^device {device}: torch cannot compute there \(.+\); choose cpu"
        ) as error:
            shared_engine(None, device)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("MAX_POOL_2D", {"activation": 2, "filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2}, "activation 2"),
        ("RESIZE_BILINEAR", {"align_corners": 1, "half_pixel_centers": 0}, "corners"),
        ("DEQUANTIZE", {}, "DEQUANTIZE of a computed value"),
    ],
)
def test_what_is_not_known_is_refused(kind: str, options: dict[str, int], named: str) -> None:
    tensors = [Tensor("in", (1, 4, 4, 2), None), Tensor("out", (1, 2, 2, 2), None)]
    graph = Graph(tensors, [Operator(kind, (0,), (1,), options)], (0,), (1,))
    with pytest.raises(UserError, match=f"^hand.tflite: .*{named}"):
        _steps(graph, torch.device("cpu"), "hand.tflite")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same(models: Path, engine: TorchEngine, frames: list) -> None:
    for name in MODELS:
        seen = images(frames, engine.model(name).side_px)
        found, expected = TorchEngine("cuda", models).model(name).run(seen)[0], engine.model(name).run(seen)[0]
        assert np.abs(found - expected).max() < 1e-3 * seen.shape[1]
