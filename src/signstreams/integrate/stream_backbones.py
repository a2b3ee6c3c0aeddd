"""Backbones of the streams: frozen ones, whose features are computed once, and those that train inside the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from signstreams.backbones.archs import Layers, parse_spec
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import Backbone, load_dinov2_backbone
from signstreams.errors import UserError
from signstreams.files import digest, sha256_file
from signstreams.integrate.settings import IntegrateConfig


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose weights stay as they are, and what its features depend on."""

    stream: str  # stream of crops that it encodes
    net: Backbone  # the network
    identity: str
    """SHA-256 of its file, with what the spec changes of it (heads, size of the position table); or its spec."""
    side_px: int  # side length of its input images
    layers: Layers = "last"
    """What its features are: (D,), (L, D) or (2 D,)."""

    @property
    def digest(self) -> str:
        """Digest of everything that decides the features of a crop."""
        # false and true are the names that earlier features have
        kind = {"last": False, "weighted": True}.get(self.layers, self.layers)
        return digest([self.identity, self.side_px, kind])[:16]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one frame."""
        return self.net.feature_shape(self.layers)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, H, W, 3) to features (N, D), (N, L, D) or (N, 2 D)."""
        return self.net.features(self.net.inputs(images, self.stream), self.layers)


@dataclass(frozen=True)
class Backbones:
    """The backbones of a model."""

    frozen: dict[str, FrozenBackbone]  # stream to frozen backbone
    trained: dict[str, Backbone]  # stream to backbone that trains inside the model
    sides_px: dict[str, int]  # stream to the side length of its images
    digests: dict[str, str]  # stream to the SHA-256 of its file, or its spec
    layers: Layers = "last"  # what the features are

    @property
    def nets(self) -> dict[str, Backbone]:
        """Stream to its backbone, frozen or trained, in the order of the streams."""
        return {s: self.trained[s] if s in self.trained else self.frozen[s].net for s in self.sides_px}

    @property
    def mirrored(self) -> list[str]:
        """Streams whose crops their backbones see mirrored, sorted."""
        return sorted(stream for stream, net in self.nets.items() if stream in net.mirrored_streams)

    @property
    def dims(self) -> dict[str, int]:
        """Stream to the width of its features."""
        return {stream: net.feature_shape(self.layers)[-1] for stream, net in self.nets.items()}

    @property
    def num_layers(self) -> dict[str, int]:
        """Stream to the blocks that its features are of; empty unless they are of all blocks."""
        return {s: net.num_layers for s, net in self.nets.items()} if self.layers == "weighted" else {}


def load_backbones(config: IntegrateConfig) -> Backbones:
    """Load the backbones of a config, on the CPU; a `UserError` has all problems of all of them."""
    layers = config.model.backbone_layers
    found = Backbones({}, {}, {}, {}, layers)
    problems: list[str] = []
    for stream, spec in config.model.backbones.items():
        try:
            net = load_dinov2_backbone(spec, download=config.model.download)
            side_px = image_side_px(net, config.data.crop_px, stream)
            parsed = parse_spec(spec)
            digest_of_weights = sha256_file(Path(parsed.location)) if parsed.kind == "file" else spec
            named = "" if parsed.num_heads is None else f":num_heads={parsed.num_heads}"
            named += "" if net.resized_grid is None else f":grid={net.resized_grid}"
            # DINOv3 of timm gave the mean of its patches before: features made so are others
            named += ":class token" if parsed.kind == "timm" and isinstance(net.model, VisionTransformer) else ""
            if layers == "last_and_patches" and not net.has_patches:
                raise UserError(
                    f"model.backbone_layers: the {stream} backbone {spec} has no patch tokens, expected a vision"
                    " transformer; use --backbone-layers last"
                )
            if layers == "weighted" and net.num_layers < 2:
                raise UserError(
                    f"model.backbone_layers: the {stream} backbone {spec} shows only its last layer, expected a vision"
                    " transformer from a file; use file::, or --backbone-layers last"
                )
        except UserError as error:
            problems += error.problems
            continue
        found.sides_px[stream], found.digests[stream] = side_px, digest_of_weights
        if config.model.is_frozen(stream):
            identity = digest_of_weights + named
            found.frozen[stream] = FrozenBackbone(stream, net.requires_grad_(False), identity, side_px, layers)
        else:
            found.trained[stream] = net
    if problems:
        raise UserError(problems)
    return found


def image_side_px(backbone: Backbone, crop_px: int | None, stream: str) -> int:
    """Side length of a backbone's images: ``crop_px``, or where that is None the one it was trained with.

    Raises:
        UserError: It is not a multiple of the backbone's patch size.
    """
    side = crop_px or backbone.image_px
    if backbone.patch_size and side % backbone.patch_size:
        lower = max(1, side // backbone.patch_size) * backbone.patch_size
        raise UserError(
            f"data.crop_px: {side} px do not divide into the {stream} backbone's patches of {backbone.patch_size} px;"
            f" set data.crop_px to {lower} or {lower + backbone.patch_size}"
        )
    return side
