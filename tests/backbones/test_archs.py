"""Architectures by name and by tensors, and backbone specs."""

from __future__ import annotations

import pytest

from signstreams.backbones.archs import ARCHS, BackboneSpec, infer, mismatches, parse_spec, resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.errors import UserError


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


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"fc.weight": (2, 2)}, "holds no vision transformer in DINOv2's layout"),
        ({"patch_embed.proj.weight": (192, 48), "pos_embed": (1, 17, 192)}, "holds no vision transformer"),
        ({"patch_embed.proj.weight": (192, 3, 8, 8), "pos_embed": (1, 18, 192)}, "18 entries and width 192: no square"),
        ({"patch_embed.proj.weight": (100, 3, 8, 8), "pos_embed": (1, 17, 100)}, "17 entries and width 100: no square"),
    ],
    ids=["no transformer", "flat patches", "no square grid", "width without heads"],
)
def test_tensors_of_something_else_are_refused(shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        infer(shapes)


def test_what_a_user_changes_is_changed_and_the_table_covers_the_images() -> None:
    arch = resolve("vit_small", image_px=96, patch_px=8, depth=5, num_registers=2, layer_scale_init=0.1)
    assert (arch.embed_dim, arch.num_heads) == (384, 6)
    assert (arch.patch_px, arch.depth, arch.num_registers, arch.layer_scale_init) == (8, 5, 2, 0.1)
    assert (arch.table_px, arch.grid) == (96, 12)
    assert arch.described() == "vit_small (384 wide, 5 blocks, patch 8, 2 registers)"
    dinov2 = resolve("dinov2_vits14", image_px=98, patch_px=14, depth=12)  # what it is anyway
    assert dinov2 == ARCHS["dinov2_vits14"]
    assert (dinov2.grid, 1 + dinov2.grid**2) == (37, 1370)


def test_every_difference_that_matters_is_said() -> None:
    found = resolve("vit_tiny", image_px=32, patch_px=8, depth=2)
    assert mismatches(found, ARCHS["dinov2_vits14_reg"]) == [
        "192 wide instead of 384",
        "2 blocks instead of 12",
        "patches of 8 px instead of 14",
        "0 registers instead of 4",
        "no LayerScale",
    ]
    assert mismatches(resolve("vit_tiny", image_px=32, layer_scale_init=0.1), ARCHS["vit_tiny"]) == ["LayerScale"]
    assert mismatches(resolve("vit_tiny", image_px=32), resolve("vit_tiny", image_px=64)) == []  # the table's size


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
