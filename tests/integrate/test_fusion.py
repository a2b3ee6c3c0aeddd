"""Streams into one memory: where each step looks, what is missing or padded, and what a stream weighs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from signstreams.integrate.model import INITIAL_GATE, FusionEncoder, StreamProjector
from signstreams.integrate.settings import ModelConfig

DIM, WIDTH = 6, 8


def _projector(num_layers: int | None = None) -> StreamProjector:
    torch.manual_seed(0)
    projector = StreamProjector(DIM, WIDTH, 0.5, num_layers).eval()
    nn.init.normal_(projector.missing)
    return projector


def _draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _encoder(num_layers: dict[str, int] | None = None, **changes: Any) -> FusionEncoder:
    torch.manual_seed(0)
    settings = {"projection_dim": WIDTH, "d_model": 16, "num_layers": 1, "num_heads": 2, "ff_dim": 16, "dropout": 0.0}
    config = ModelConfig.model_validate(settings | changes)
    return FusionEncoder({"face": DIM, "pose": 3}, {"mska_left": 5}, num_layers or {}, config)


def _inputs(batch: int, frames: int, seed: int = 1) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Visual streams that are there in every frame, and the steps of MSKA."""
    there = torch.ones(batch, frames, dtype=torch.bool)
    visual = {"face": (_draw(batch, frames, DIM, seed=seed), there), "pose": (_draw(batch, frames, 3, seed=9), there)}
    return visual, {"mska_left": _draw(batch, -(-frames // 4), 5, seed=7)}


@pytest.mark.parametrize("frames", [1, 4, 5, 17])
def test_a_step_sees_the_seven_frames_around_its_own_fourth(frames: int) -> None:
    projector, present = _projector(), torch.ones(1, frames, dtype=torch.bool)
    features, lengths = _draw(1, frames, DIM), torch.tensor([frames])
    with torch.no_grad():
        before = projector(features, present, lengths)  # (1, S, P)
        assert before.shape == (1, -(-frames // 4), WIDTH)
        for frame in range(frames):
            moved = features.clone()
            moved[:, frame] = _draw(DIM, seed=50 + frame)
            changed = (projector(moved, present, lengths) != before).any(dim=-1)[0]
            assert changed.tolist() == [abs(4 * step - frame) <= 3 for step in range(len(changed))], frame


@pytest.mark.parametrize("value", [0.0, 99.0, float("nan"), float("inf")])
def test_a_missing_frame_is_the_learned_embedding_whatever_stands_there(value: float) -> None:
    projector, lengths = _projector(), torch.tensor([9])
    present = torch.ones(1, 9, dtype=torch.bool)
    present[0, 3:6] = False
    features = _draw(1, 9, DIM)
    expected = projector(features, present, lengths).detach()
    features[0, 3:6] = value
    found = projector(features, present, lengths)
    assert torch.equal(found, expected)
    found.sum().backward()
    gradients = [parameter.grad for parameter in projector.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert projector.missing.grad.any()


def test_a_clip_without_the_stream_is_the_embedding_through_time() -> None:
    projector = _projector()
    with torch.no_grad():
        found = projector(_draw(1, 8, DIM), torch.zeros(1, 8, dtype=torch.bool), torch.tensor([8]))
        rows = torch.zeros(14, WIDTH)
        rows[3:11] = projector.missing  # three frames of padding on either side
        for step in range(2):
            window = rows[4 * step : 4 * step + 7]  # (7, P)
            expected = torch.einsum("fp,opf->o", window, projector.pool.weight) + projector.pool.bias
            torch.testing.assert_close(found[0, step], expected, rtol=0, atol=1e-5)


def test_padding_is_the_end_of_the_clip() -> None:
    projector, lengths = _projector(), torch.tensor([6])
    present, features = torch.ones(1, 6, dtype=torch.bool), _draw(1, 6, DIM)
    padded = torch.cat((features, torch.full((1, 5, DIM), 7.0)), dim=1)
    for there in (True, False):  # a collator may say either of padding
        mask = torch.cat((present, torch.full((1, 5), there)), dim=1)
        with torch.no_grad():
            expected, found = projector(features, present, lengths), projector(padded, mask, lengths)
        torch.testing.assert_close(found[:, : expected.shape[1]], expected, rtol=0, atol=1e-6)


def test_blocks_are_weighed_alike_at_first_and_as_their_weights_say_then() -> None:
    layered, plain = _projector(num_layers=3), _projector()
    plain.load_state_dict({name: value for name, value in layered.state_dict().items() if name != "layer_weights"})
    features, lengths = _draw(2, 5, 3, DIM), torch.tensor([5, 4])
    present = torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        first = layered(features, present, lengths)
        torch.testing.assert_close(first, plain(features.mean(dim=2), present, lengths))
        layered.layer_weights.copy_(torch.tensor([1.0, 2.0, 5.0]).log())
        expected = (features[:, :, 0] + 2 * features[:, :, 1] + 5 * features[:, :, 2]) / 8
        torch.testing.assert_close(layered(features, present, lengths), plain(expected, present, lengths))
    # one block that is not finite in a missing frame goes no further
    present[1, 2:] = False
    features[1, 2:, 1] = float("nan")
    assert torch.isfinite(layered(features, present, lengths)).all()


def test_memory_is_zero_where_it_is_masked_and_the_mask_is_the_clips_own_steps() -> None:
    encoder = _encoder().eval()
    visual, steps = _inputs(3, 11)
    memory, mask = encoder(visual, steps, torch.tensor([11, 8, 1]))
    assert memory.shape == (3, 3, 16)
    assert mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert not memory[~mask].any()
    assert memory[mask].any(dim=-1).all()


def test_what_lies_after_a_clip_does_not_change_its_memory() -> None:
    encoder = _encoder().eval()
    lengths = torch.tensor([11, 5])
    (visual, steps), (other, other_steps) = _inputs(2, 11), _inputs(2, 11, seed=5)
    for name, (features, _) in visual.items():
        features[0] = other[name][0][0]
        features[1, 5:] = 50.0
    other["face"][0][1, :5] = visual["face"][0][1, :5]
    other_steps["mska_left"][1, 2:] = 50.0
    with torch.no_grad():
        found, again = encoder(visual, steps, lengths)[0], encoder(other, other_steps, lengths)[0]
    torch.testing.assert_close(found[1], again[1], rtol=0, atol=1e-6)


def test_each_stream_counts_and_that_of_mska_enters_softly() -> None:
    encoder = _encoder().eval()
    visual, steps = _inputs(2, 9)
    lengths = torch.tensor([9, 9])
    assert torch.equal(encoder.gates["mska_left"], torch.full((WIDTH,), INITIAL_GATE))
    with torch.no_grad():
        before = encoder(visual, steps, lengths)[0]
        for name, (features, present) in visual.items():
            assert not torch.allclose(encoder({**visual, name: (-features, present)}, steps, lengths)[0], before)
        moved = {"mska_left": -steps["mska_left"]}
        assert not torch.allclose(encoder(visual, moved, lengths)[0], before, atol=1e-4)
        encoder.gates["mska_left"].zero_()
        assert torch.equal(encoder(visual, moved, lengths)[0], encoder(visual, steps, lengths)[0])


def test_equal_steps_are_told_apart_by_their_place() -> None:
    encoder = _encoder().eval()
    there = torch.ones(1, 21, dtype=torch.bool)
    visual = {"face": (_draw(DIM).expand(1, 21, DIM), there), "pose": (_draw(3).expand(1, 21, 3), there)}
    with torch.no_grad():
        memory = encoder(visual, {"mska_left": _draw(5).expand(1, 6, 5)}, torch.tensor([21]))[0][0]
    inner = memory[1:5]  # their windows hold no padding and are all the same
    assert torch.pdist(inner).min() > 1e-3


def test_streams_are_hidden_from_whole_clips_in_training_alone() -> None:
    encoder = _encoder(stream_dropout=0.5).train()
    visual, steps = _inputs(40, 4)
    lengths = torch.full((40,), 4)
    moved = {**visual, "face": (-visual["face"][0], visual["face"][1])}
    with torch.no_grad():
        torch.manual_seed(0)
        first = encoder(visual, steps, lengths, encoder.draw_kept(lengths))[0]
        torch.manual_seed(0)  # the same streams are drawn
        hidden = (encoder(moved, steps, lengths, encoder.draw_kept(lengths))[0] == first).flatten(1).all(dim=1)
        assert 10 <= int(hidden.sum()) <= 30  # three deviations around a half of 40
        encoder.eval()
        assert encoder.draw_kept(lengths) == {}
        seen = (encoder(moved, steps, lengths)[0] != encoder(visual, steps, lengths)[0]).flatten(1).any(dim=1)
        assert seen.all()


def test_a_stream_of_several_blocks_takes_part() -> None:
    encoder = _encoder(num_layers={"face": 4})
    visual, steps = _inputs(2, 6)
    visual["face"] = (_draw(2, 6, 4, DIM), visual["face"][1])
    encoder(visual, steps, torch.tensor([6, 3]))[0].square().sum().backward()
    weights = encoder.projectors["face"].layer_weights
    assert weights.shape == (4,) and weights.grad.any()
    assert encoder.projectors["pose"].layer_weights is None
