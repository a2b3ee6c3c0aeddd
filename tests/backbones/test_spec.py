"""Names of backbones: kind, path, architecture."""

from __future__ import annotations

import pytest

from signstreams.backbones.archs import BackboneSpec, parse_spec
from signstreams.errors import UserError


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
