"""Names of backbones, the network against timm's, export and loading."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from timm.models import load_checkpoint
from timm.models.vision_transformer import checkpoint_filter_fn

from signstreams.backbones.archs import ARCHS, infer, resolve
from signstreams.backbones.export import export_backbone
from signstreams.backbones.load import load_dinov2_backbone
from signstreams.backbones.spec import BackboneSpec, parse_spec
from signstreams.backbones.vit import MAX_EXPLICIT_TOKENS, VisionTransformer, resize_table
from signstreams.errors import UserError


def _model(name: str, image_px: int, **changes: float) -> VisionTransformer:
    model = VisionTransformer(resolve(name, image_px=image_px, **changes))  # type: ignore[arg-type]
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("gamma"):
                parameter.fill_(0.7)  # at DINOv2's 1e-5 every block would be next to nothing
    return model.eval()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "file::work_dirs/a/backbone.pt:dinov2_vits14",
            BackboneSpec("file", "work_dirs/a/backbone.pt", "dinov2_vits14"),
        ),
        ("file::C:/mis datos/año: 2/b.pt:vit_tiny", BackboneSpec("file", "C:/mis datos/año: 2/b.pt", "vit_tiny")),
        ("file::/a b/c.pt", BackboneSpec("file", "/a b/c.pt")),
        ("file::a:b/c.pt", BackboneSpec("file", "a:b/c.pt")),
        ("timm::vit_small_patch16_224", BackboneSpec("timm", "vit_small_patch16_224")),
    ],
)
def test_a_backbone_is_named_by_kind_path_and_architecture(text: str, expected: BackboneSpec) -> None:
    assert parse_spec(text) == expected
    assert parse_spec(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "backbone.pt", "file::", "hub::x", "file:backbone.pt"])
def test_a_malformed_name_says_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match="expected file::PATH"):
        parse_spec(text)


def test_a_misspelt_architecture_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'dinov2_vits14'"):
        parse_spec("file::a.pt:dinov2_vits15")


@pytest.mark.parametrize(
    ("name", "timm_name", "image_px"),
    [
        ("vit_tiny", "vit_tiny_patch16_224", 32),
        ("dinov2_vits14", "vit_small_patch14_dinov2", 98),
        ("dinov2_vits14_reg", "vit_small_patch14_reg4_dinov2", 98),
    ],
)
def test_exported_weights_give_the_same_class_token_in_timm_and_here(
    tmp_path: Path, name: str, timm_name: str, image_px: int
) -> None:
    changes = {"patch_px": 8, "depth": 2} if name == "vit_tiny" else {}
    model = _model(name, image_px, **changes)
    path = tmp_path / "mi carpeta: ñ" / "backbone.pt"
    export_backbone(path, model.arch, model.state_dict(), {"image_px": image_px, "mean": [0.5] * 3, "std": [0.2] * 3})
    ours = load_dinov2_backbone(f"file::{path}:{name}")
    theirs = timm.create_model(
        timm_name, num_classes=0, img_size=image_px, **({"patch_size": 8, "depth": 2} if changes else {})
    ).eval()
    load_checkpoint(theirs, str(path), filter_fn=checkpoint_filter_fn)
    images = torch.randn(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)  # (2, D)
        assert (expected[0] - expected[1]).abs().max() > 0.01
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.forward_features(images)[:, 0], expected, rtol=0, atol=1e-5)
    assert (ours.embed_dim, ours.patch_size, ours.image_px) == (model.embed_dim, model.patch_size, image_px)
    assert ours.mean == (0.5, 0.5, 0.5)


def test_small_architectures_export_the_very_keys_of_timm(tmp_path: Path) -> None:
    model = _model("vit_tiny", 32, patch_px=8, depth=2)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, depth=2)
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(content["model"]) == set(theirs.state_dict())
    theirs.load_state_dict(content["model"])


def test_dinov2_exports_its_table_of_1370_entries_and_its_mask_token(tmp_path: Path) -> None:
    for name, count in (("dinov2_vits14", 175), ("dinov2_vits14_reg", 176)):
        model = VisionTransformer(resolve(name, image_px=98))
        export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
        state = torch.load(tmp_path / "b.pt", weights_only=True)["model"]
        assert state["pos_embed"].shape == (1, 1370, 384)
        assert "mask_token" in state
        assert len(state) == count


def test_equal_weights_export_equal_bytes(tmp_path: Path) -> None:
    model = _model("vit_tiny", 32, depth=1)
    export_backbone(tmp_path / "a.pt", model.arch, model.state_dict(), {"stream": "face"})
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {"stream": "face"})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_another_architecture_than_named_is_refused_in_one_line(tmp_path: Path) -> None:
    model = _model("vit_tiny", 32, patch_px=8, depth=2)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
    with pytest.raises(UserError) as caught:
        load_dinov2_backbone(f"file::{tmp_path}/b.pt:dinov2_vits14")
    assert len(caught.value.problems) == 1
    assert "192 wide in place of 384" in str(caught.value)
    assert "2 blocks in place of 12" in str(caught.value)
    with pytest.raises(UserError, match="192 wide in place of 384"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt:vit_small")
    assert load_dinov2_backbone(f"file::{tmp_path}/b.pt:vit_tiny").model.arch.depth == 2


def test_a_table_of_another_size_is_resized_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = VisionTransformer(ARCHS["dinov2_vits14"]).state_dict()
    state["pos_embed"] = torch.randn(1, 257, 384)  # SHuBERT's released files: a 224 px table
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "b.pt")
    with caplog.at_level(logging.INFO):
        backbone = load_dinov2_backbone(f"file::{tmp_path}/b.pt:dinov2_vits14")
    assert "resized from 16x16 to 37x37" in caplog.text
    assert backbone.model.pos_embed.shape == (1, 1370, 384)


@pytest.mark.parametrize("content", [{"model": {}}, {"model": {"fc.weight": torch.zeros(2, 2)}}, [1, 2], torch.ones(3)])
def test_a_file_without_a_transformer_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt: holds no"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")


def test_an_absent_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_dinov2_backbone(f"file::{tmp_path}/absent.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UserError, match="truncated"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")


def test_an_unknown_timm_model_is_named() -> None:
    with pytest.raises(UserError, match="no_such_model"):
        load_dinov2_backbone("timm::no_such_model")


def test_the_shape_of_a_checkpoint_is_read_from_its_tensors() -> None:
    for arch in (resolve("vit_tiny", image_px=64, patch_px=8, depth=3), ARCHS["dinov2_vits14_reg"]):
        shapes = {name: tuple(value.shape) for name, value in VisionTransformer(arch).state_dict().items()}
        assert infer(shapes, arch.name) == arch
    with pytest.raises(ValueError, match="chunks"):
        infer({**shapes, "blocks.0.0.norm1.weight": (384,)})


def test_dinov2_keeps_its_shape() -> None:
    with pytest.raises(ValueError, match="fixed shape: leave out depth"):
        resolve("dinov2_vits14", image_px=98, depth=2)
    with pytest.raises(ValueError, match="unknown, expected one of vit_tiny"):
        resolve("resnet50", image_px=98)
    with pytest.raises(ValueError, match="do not divide"):
        resolve("vit_tiny", image_px=50)


def test_images_of_another_size_use_the_resized_table() -> None:
    model = _model("vit_tiny", 32, patch_px=8, depth=1)
    assert model(torch.randn(1, 3, 16, 24)).shape == (1, 192)
    assert model.position_table(32, 32) is model.pos_embed
    assert resize_table(model.pos_embed, 2, 3).shape == (1, 7, 192)
    with pytest.raises(ValueError, match="do not divide"):
        model(torch.randn(1, 3, 30, 32))


def test_a_masked_patch_gives_way_to_the_mask_token() -> None:
    model = _model("vit_tiny", 32, patch_px=8, depth=1)
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
    model = _model("vit_tiny", 32, patch_px=8, depth=3, num_registers=num_registers)
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
    layer = _model("vit_tiny", 32, patch_px=8, depth=1).blocks[0].attn
    x = torch.randn(2, tokens, 192)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
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
