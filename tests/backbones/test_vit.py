"""The network: masks, sizes, stochastic depth, packed tokens, precision, first weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import (
    MAX_EXPLICIT_TOKENS,
    VisionTransformer,
    resize_patch_embed,
    resize_table,
    sine_positions,
)

from .models import make_model


def test_images_of_another_size_use_the_resized_table() -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    assert model(torch.randn(1, 3, 16, 24)).shape == (1, 192)
    assert model.position_table(32, 32) is model.pos_embed
    with pytest.raises(ValueError, match="do not divide"):
        model(torch.randn(1, 3, 30, 32))


def test_a_masked_patch_gives_way_to_the_mask_token() -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    images = torch.randn(1, 3, 32, 32)
    masks = torch.zeros(1, 16, dtype=torch.bool)
    assert torch.equal(model(images, masks), model(images))
    changed = images.clone()
    changed[:, :, :8, :8] += 1.0  # the first patch alone
    masks[0, 0] = True
    assert not torch.equal(model(changed), model(images))
    assert torch.equal(model(changed, masks), model(images, masks))


def test_drop_path_only_acts_in_training_and_keeps_the_expectation() -> None:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=2)
    model = VisionTransformer(arch, drop_path_prob=0.5)
    model.init_weights(torch.Generator().manual_seed(0))
    images = torch.randn(1, 3, 16, 16).expand(4000, -1, -1, -1)
    first, last = model.train().blocks
    assert first.draw_drop(torch.zeros(3, 5, 192)) is None
    torch.manual_seed(0)
    factors = last.draw_drop(torch.zeros(4000, 5, 192))
    assert factors.shape == (2, 4000, 1, 1)
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert factors.mean(dim=1).flatten().tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    with torch.no_grad():
        tokens = torch.randn(1, 5, 192).expand(2, -1, -1)
        kept, dropped = last(tokens, None, torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(2, -1, -1, -1))
        assert torch.equal(dropped, tokens[0])
        assert not torch.equal(kept, tokens[0])
        model.eval()
        assert last.draw_drop(tokens) is None
        assert torch.equal(model(images[:1]), model(images[:1]))


def test_packed_tokens_are_dropped_by_image() -> None:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=2)
    block = VisionTransformer(arch, drop_path_prob=0.5).train().blocks[1]
    torch.manual_seed(0)
    factors = block.draw_drop(torch.zeros(22, 192), ((4, 3), (5, 2)))[..., 0]  # (2, T)
    for part, tokens in zip(factors.split([12, 10], dim=1), (3, 2), strict=True):
        by_image = part.unflatten(1, (-1, tokens))
        assert torch.equal(by_image, by_image[..., :1].expand_as(by_image))
    assert len(factors[:, ::3].unique()) == 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("num_registers", [0, 2])
def test_training_computes_the_same_tokens_as_one_image_size_at_a_time(packed: bool, num_registers: int) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=3, num_registers=num_registers)
    large, small = torch.randn(3, 3, 32, 32), torch.randn(5, 3, 16, 16)
    masks = torch.rand(3, 16) < 0.4
    masks[1] = False
    masks[0, 3] = True
    rows = masks.flatten().nonzero().squeeze(1)
    weights = [torch.randn(8, 192), torch.randn(len(rows), 192)]

    def gradients(*outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    (class_large, patches), (class_small, _) = model.forward_features(large, masks), model.forward_features(small)
    expected = torch.cat((class_large, class_small)), patches.flatten(0, 1)[rows]
    found = model.forward_tokens([large, small], masks, rows, packed=packed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients(*found), gradients(*expected), rtol=1e-4, atol=1e-3)
    assert model.forward_tokens([small], packed=packed)[1] is None


@pytest.mark.parametrize("tokens", [5, MAX_EXPLICIT_TOKENS + 1])
def test_attention_in_bfloat16_on_a_cpu_agrees_with_float32(tokens: int) -> None:
    layer = make_model("vit_tiny", 32, patch_px=8, depth=1).blocks[0].attn
    x = torch.randn(2, tokens, 192)
    exact = layer.proj(layer.attend(x))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer.proj(layer.attend(x))
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.03 * exact.abs().max().item())


def test_activation_checkpointing_gives_the_same_gradients_with_drop_path() -> None:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=3)
    images = torch.randn(6, 3, 16, 16)
    results = []
    for is_checkpointed in (False, True):
        model = VisionTransformer(arch, drop_path_prob=0.5, checkpoint_activations=is_checkpointed).train()
        model.init_weights(torch.Generator().manual_seed(0))
        torch.manual_seed(1)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: (saved.append(x.numel()), x)[1], _same):
            classes, _ = model.forward_tokens([images])
        classes.square().sum().backward()
        results.append((classes.detach(), [p.grad for p in model.parameters() if p.grad is not None], sum(saved)))
    (plain, plain_gradients, plain_saved), (again, gradients, saved) = results
    assert torch.equal(plain, again)
    assert all(torch.equal(a, b) for a, b in zip(plain_gradients, gradients, strict=True))
    assert saved < plain_saved / 2


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 4), (9, 5)])
def test_a_table_on_another_grid_is_that_of_timm_and_its_class_entry_stays(rows: int, columns: int) -> None:
    table = torch.randn(1, 17, 192, generator=torch.Generator().manual_seed(0))
    found = resize_table(table, rows, columns)
    torch.testing.assert_close(found, resample_abs_pos_embed(table, [rows, columns]), rtol=0, atol=1e-6)
    assert torch.equal(found[:, 0], table[:, 0])


@pytest.mark.parametrize("num_registers", [0, 2])
def test_the_token_behind_a_block_is_that_of_a_network_that_ends_there(num_registers: int) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=3, num_registers=num_registers)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.layer_tokens(images)  # (B, L, D)
        assert tokens.shape == (2, 3, 192)
        for depth in (3, 2, 1):
            model.blocks = model.blocks[:depth]
            torch.testing.assert_close(tokens[:, depth - 1], model(images), rtol=0, atol=1e-5)


def test_first_weights_follow_the_generator_and_the_number_of_inputs() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(states))  # the global generator has no say
        model = VisionTransformer(resolve("vit_tiny", image_px=32, patch_px=8, depth=1, num_registers=2))
        model.init_weights(torch.Generator().manual_seed(seed))
        states.append(model.state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.mlp.fc2.weight"], other["blocks.0.mlp.fc2.weight"])
    # a normal cut off at three deviations is 1.3 % narrower
    for name, inputs in (("patch_embed.proj", 3 * 64), ("blocks.0.attn.qkv", 192), ("blocks.0.mlp.fc2", 4 * 192)):
        assert float(first[f"{name}.weight"].std()) == pytest.approx(inputs**-0.5, rel=0.03), name
        assert not first[f"{name}.bias"].any()
    assert 0.015 < float(first["register_tokens"].std()) < 0.025
    assert not first["pos_embed"][:, 0].any() and first["pos_embed"][:, 1:].any()
    assert not first["mask_token"].any()


@pytest.mark.parametrize("grid", [2, 4, 14, 37])
def test_positions_are_all_different_and_near_ones_alike(grid: int) -> None:
    table = sine_positions(grid, 192)
    assert table.shape == (grid * grid, 192)
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(192), rtol=0, atol=1e-5)
    assert float(table.std(correction=0)) == pytest.approx(1, abs=1e-4)
    near = torch.cdist(table, table) + torch.eye(grid * grid) * 1e3
    assert float(near.min()) > 1e-2
    if grid > 2:  # the nearest of the middle patch is one beside it
        middle = (grid // 2) * grid + grid // 2
        assert int(near[middle].argmin()) - middle in (-1, 1, -grid, grid)
    rows = table.unflatten(0, (grid, grid))
    torch.testing.assert_close(rows[0, :, :96] - rows[1, :, :96], torch.zeros(grid, 96))  # columns alone
    torch.testing.assert_close(rows[:, 0, 96:] - rows[:, 1, 96:], torch.zeros(grid, 96))


def test_a_class_token_of_first_weights_tells_where() -> None:
    """The same bright patch in two places: the features of first weights differ as much as by what is there."""
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=2)
    model = VisionTransformer(arch).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    images = torch.zeros(3, 3, 32, 32)
    images[0, :, :8, :8] = images[1, :, 24:, 24:] = 2.0
    images[2, :, :8, :8] = -2.0
    with torch.no_grad():
        first, elsewhere, other = model(images)
    assert (first - elsewhere).norm() > 0.3 * (first - other).norm()


def _kernel(side_px: int) -> Tensor:
    return torch.randn(5, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))


def _resized(images: Tensor, side_px: int) -> Tensor:
    return F.interpolate(images, size=(side_px, side_px), mode="bicubic", antialias=True)


@pytest.mark.parametrize(("old_px", "new_px"), [(4, 8), (4, 7), (14, 16)])
def test_an_enlarged_patch_gives_the_token_of_the_small_one(old_px: int, new_px: int) -> None:
    images = torch.rand(6, 3, old_px, old_px, generator=torch.Generator().manual_seed(1))
    kernel = _kernel(old_px)
    found = resize_patch_embed(kernel, new_px)
    assert found.shape == (5, 3, new_px, new_px)
    torch.testing.assert_close(F.conv2d(_resized(images, new_px), found), F.conv2d(images, kernel), rtol=0, atol=1e-4)


def test_a_smaller_kernel_is_the_best_there_is() -> None:
    """No other small kernel comes nearer to the tokens of the large one, over all pictures."""
    kernel, basis = _kernel(8).double(), torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    small = _resized(basis, 4).flatten(1)  # (64, 16): the large pictures that span all others, made small
    expected = torch.linalg.lstsq(small, kernel.flatten(0, 1).flatten(1).T).solution.T  # (15, 16)
    torch.testing.assert_close(resize_patch_embed(kernel, 4).flatten(0, 1).flatten(1), expected)


def test_the_same_size_changes_nothing_and_the_precision_stays() -> None:
    kernel = _kernel(8)
    assert resize_patch_embed(kernel, 8) is kernel
    assert resize_patch_embed(kernel.bfloat16(), 4).dtype == torch.bfloat16
