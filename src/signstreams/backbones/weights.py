"""Backbone weights: loaded from files or timm, checked against their architecture, and exported in the hub layout."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from signstreams.backbones.archs import (
    ARCHS,
    HEAD_DIM,
    MAX_HEADS,
    OTHER_HEADS,
    OTHER_ROTARY_HEADS,
    Layers,
    ViTArch,
    infer,
    is_rotary_network,
    mismatches,
    parse_spec,
)
from signstreams.backbones.layouts import find_network, to_dinov3_layout, to_hub_layout
from signstreams.backbones.rotary import LONGEST_PERIOD
from signstreams.backbones.vit import VisionTransformer, resize_table
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import write_bytes
from signstreams.streams import StreamName

log = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMAT = "signstreams_backbone_v1"
DEFAULT_IMAGE_PX = 224
UNKNOWN_SIDE = (
    "sees left hands mirrored, and nothing says which hand these images show: they stay as they are; mirror left hands"
    " first"
)
"""Warning of a backbone with `mirrored_streams`, about images of no stream."""


class WeightsMetadata(BaseModel):
    """What of a file's metadata decides features; the rest is for people. Numbers are neither texts nor booleans."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    architecture: Annotated[str, Field(strict=True)] = ""
    image_px: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    """Side of the images that it was trained on; None: 224, or what the position table covers, or DINOv3's 256."""
    mean: list[Annotated[float, Field(strict=True, ge=0, le=1)]] | None = Field(None, min_length=3, max_length=3)
    """Mean of R, G, B in 0..1; None: ImageNet's."""
    std: list[Annotated[float, Field(strict=True, ge=1e-3, le=1)]] | None = Field(None, min_length=3, max_length=3)
    """Standard deviation of them; None: ImageNet's."""
    num_heads: Annotated[int, Field(strict=True, ge=1, le=MAX_HEADS)] | None = None
    """Attention heads; None: each is 64 wide."""
    mirrored_streams: list[StreamName] = []
    """Streams whose crops it saw mirrored: left hands, by a backbone of both."""


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A vision transformer in a file."""

    state: dict[str, Tensor]  # state dict in hub layout; every tensor is dense and finite
    arch: ViTArch  # its shape
    about: WeightsMetadata  # checked metadata
    metadata: dict[str, Any]  # all metadata, as the file has it


class Backbone(nn.Module):
    """A network with its input specification.

    Features are ``embed_dim`` wide. It was trained on images of side ``image_px``, their R, G, B in 0..1 normalised
    by ``mean`` and ``std``, those of ``mirrored_streams`` mirrored.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        embed_dim: int,
        patch_size: int,
        image_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        metadata: dict[str, Any],
        resized_grid: int | None = None,
        mirrored_streams: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata
        self.resized_grid = resized_grid  # side of its position table, where that is not the file's
        self.embed_dim, self.patch_size, self.image_px = embed_dim, patch_size, image_px
        self.mean, self.std = tuple(mean), tuple(std)
        self.mirrored_streams = tuple(mirrored_streams)
        # on the device of the weights and images: copying to a GPU at each call would wait for it
        self.register_buffer("_mean", torch.tensor(self.mean), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to class tokens (B, D)."""
        tokens: Tensor = self.model(images)
        return tokens

    def class_and_patches(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised images (B, 3, H, W) to class tokens (B, D) and the mean of their patch tokens (B, D).

        DINOv2's linear evaluation puts the two side by side. The mean is None for a network of timm that is no vision
        transformer: its only feature is a mean over places already.
        """
        if isinstance(self.model, VisionTransformer):
            classes, patches = self.model.forward_features(images)  # (B, D), (B, P, D)
            return classes, patches.mean(dim=1)
        tokens: Tensor = self.model.forward_features(images)  # type: ignore[operator]  # (B, N, D) of a transformer
        found: Tensor = self.model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
        if tokens.ndim != 3:
            return found, None
        return found, tokens[:, int(getattr(self.model, "num_prefix_tokens", 0)) :].mean(dim=1)

    @property
    def num_layers(self) -> int:
        """Blocks whose class tokens `layer_tokens` gives; 1 where only the last is available (timm)."""
        return len(self.model.blocks) if isinstance(self.model, VisionTransformer) else 1

    def layer_tokens(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the class token of every block, (B, L, D), the last one last."""
        if isinstance(self.model, VisionTransformer):
            return self.model.layer_tokens(images)
        tokens: Tensor = self.model(images)
        return tokens[:, None]

    @property
    def has_patches(self) -> bool:
        """Whether it has patch tokens: a vision transformer of ours or of timm."""
        return isinstance(self.model, VisionTransformer) or hasattr(self.model, "num_prefix_tokens")

    def feature_shape(self, layers: Layers) -> tuple[int, ...]:
        """Shape of the features of one image, (D,), (L, D) or (2 D,)."""
        if layers == "weighted":
            return self.num_layers, self.embed_dim
        return (2 * self.embed_dim,) if layers == "last_and_patches" else (self.embed_dim,)

    def features(self, images: Tensor, layers: Layers) -> Tensor:
        """Normalised images (B, 3, H, W) to features (B, *feature_shape)."""
        if layers == "weighted":
            return self.layer_tokens(images)
        if layers == "last_and_patches":
            classes, patches = self.class_and_patches(images)  # each (B, D)
            if patches is None:
                raise ValueError("the network has no patch tokens")
            return torch.cat((classes, patches), dim=1)
        tokens: Tensor = self(images)
        return tokens

    def inputs(self, images: Tensor, stream: str | None) -> Tensor:
        """uint8 RGB (B, H, W, 3) of a stream to what `forward` takes, float32 (B, 3, H, W).

        The only way from images to input: crops of its ``mirrored_streams`` are mirrored here. None: images of no
        stream, or already as its training saw them.
        """
        if stream in self.mirrored_streams:
            images = images.flip(2)
        return ((images.float() / 255 - self._mean) / self._std).permute(0, 3, 1, 2)


def load_dinov2_backbone(spec: str, *, download: bool = False) -> Backbone:
    """Backbone of ``file::path[:architecture]`` or ``timm::name``, in evaluation mode, on the CPU.

    A position table of another size is resized to the architecture's, which is logged, as is what the file does not
    say. ``download`` lets ``timm::`` fetch weights that are not in the local cache.

    Raises:
        UserError: File absent, not a checkpoint, or of another architecture than named; no such weights of timm here.
    """
    parsed = parse_spec(spec)
    if parsed.kind == "timm":
        return _from_timm(parsed.location, download=download)
    path = Path(parsed.location)
    file = read_file(path, parsed.arch, parsed.num_heads)
    state, about, arch = file.state, file.about, _agreed(path, file.arch, parsed.arch)
    is_resized = not arch.is_rotary and arch.grid != file.arch.grid
    if is_resized:
        log.info("%s: position table resized from %dx%d to %dx%d", path, *[file.arch.grid] * 2, *[arch.grid] * 2)
        state["pos_embed"] = resize_table(state["pos_embed"], arch.grid, arch.grid)
    state.setdefault("mask_token", torch.zeros(1, arch.embed_dim))
    _check_fit(path, arch, state)
    model = VisionTransformer(arch)
    model.load_state_dict(state)
    has_own_side = arch.is_rotary or DEFAULT_IMAGE_PX % arch.patch_px
    image_px = about.image_px or (arch.table_px if has_own_side else DEFAULT_IMAGE_PX)
    if image_px % arch.patch_px:
        raise UserError(
            f"{path}: metadata.image_px is {image_px}, expected a multiple of its patches of {arch.patch_px} px;"
            " export the backbone again"
        )
    if about.mean is None or about.std is None:
        log.warning("%s: does not say with which mean and std it was trained: ImageNet's are used", path)
    return Backbone(
        model,
        embed_dim=arch.embed_dim,
        patch_size=arch.patch_px,
        image_px=image_px,
        mean=about.mean or IMAGENET_MEAN,
        std=about.std or IMAGENET_STD,
        metadata=file.metadata,
        resized_grid=arch.grid if is_resized else None,
        mirrored_streams=about.mirrored_streams,
    ).eval()


def _check_fit(path: Path, arch: ViTArch, state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes before memory is taken: sizes that a damaged file claims may be any."""
    with torch.device("meta"):
        wanted = VisionTransformer(arch).state_dict()
    if differences := checkpoint.differences(state, wanted):
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UserError(
            f"{path}: does not fit {arch.described()} ({'; '.join(differences[:4])}{more}); export the backbone again,"
            " or name another file"
        )


def read_file(path: Path, named: str | None = None, num_heads: int | None = None) -> WeightsFile:
    """The vision transformer in a ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` or ``.safetensors`` file.

    ``num_heads`` is for files that do not say, ``named`` the architecture it must have.

    Raises:
        UserError: Absent, broken, without a vision transformer, or of another architecture than named.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file of weights; name the backbone.pt in it")
    try:
        is_safetensors = path.suffix == ".safetensors"
        content = read_safetensors(path) if is_safetensors else checkpoint.load(path, with_placeholders=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected weights; pretrain the stream first, or name them") from None
    except ValueError as error:
        raise UserError(f"{error}; export the backbone again, or name another file") from None
    try:
        _refuse_states_of_a_run(content)
        network = find_network(content)
        metadata = _metadata(content) | (_of_hugging_face(path.parent) if network.is_hugging_face else {})
        about = _checked(metadata)
        heads = _num_heads(path, network.state, about.num_heads, num_heads, named)
        checkpoint.check_tensors(network.state)
        if odd := [name for name, tensor in network.state.items() if tensor.dtype not in _DTYPES]:
            raise ValueError(f"holds {odd[0]} as {network.state[odd[0]].dtype}, expected float16, bfloat16 or float32")
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state.items()}
        found = infer(shapes, about.architecture, heads)
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; name a backbone.pt of a pretraining, or weights in a layout of docs/pretraining.md"
        ) from None
    if network.others:
        log.info("%s: holds several networks: that of %s* is used", path, network.prefix)
    if named is not None:
        _agreed(path, found, named)
    return WeightsFile(network.state, found, about, metadata)


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _refuse_states_of_a_run(content: Any) -> None:
    """Those of this project know mean and deviation in the exported file alone."""
    if isinstance(content, dict) and isinstance(content.get("fingerprint"), dict):
        raise ValueError("is the state of a training, expected exported weights; name the backbone.pt beside it")


def _metadata(content: Any) -> dict[str, Any]:
    """Plain metadata of a checkpoint: ours, or what lightly-train says of its images."""
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("metadata"), dict):
        return dict(content["metadata"])
    lightly = content.get("lightly_train")
    values = lightly.get("normalize_args") if isinstance(lightly, dict) else None
    return {key: values[key] for key in ("mean", "std") if key in values} if isinstance(values, dict) else {}


def _of_hugging_face(folder: Path) -> dict[str, Any]:
    """What Hugging Face writes into two files beside the weights; without them nothing is known.

    Raises:
        ValueError: It names another activation.
    """
    found: dict[str, Any] = {}
    network, images = (_json_object(folder / name) for name in ("config.json", "preprocessor_config.json"))
    if network.get("hidden_act", "gelu") != (expected := "silu" if network.get("use_gated_mlp") else "gelu"):
        raise ValueError(f"has the activation {network['hidden_act']} (config.json), expected {expected}")
    for source, theirs, ours in (
        (network, "num_attention_heads", "num_heads"),
        (images, "image_mean", "mean"),
        (images, "image_std", "std"),
    ):
        if source.get(theirs) is not None:
            found[ours] = source[theirs]
    return found


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"has beside it {path.name}, which cannot be read ({error})") from None
    return content if isinstance(content, dict) else {}


def _checked(metadata: Mapping[str, Any]) -> WeightsMetadata:
    try:
        return WeightsMetadata.model_validate(metadata)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        shown = " ".join(repr(problem["input"]).split())[:40]
        raise ValueError(f"its metadata.{place} is {shown}: {problem['msg'].lower()}") from None


def _num_heads(
    path: Path, state: Mapping[str, Tensor], said: int | None, given: int | None, named: str | None
) -> int | None:
    """Attention heads, which no shape shows: those of the file, else those given, else 64 wide, which is logged.

    Raises:
        ValueError: File and user differ, or networks of this kind have other heads.
    """
    if said is not None and given is not None and said != given:
        raise ValueError(f"has {said} heads, but num_heads is {given}; leave that out")
    if said is not None or given is not None or "patch_embed.proj.weight" not in state:
        return said or given
    width, is_rotary = len(state["patch_embed.proj.weight"]), is_rotary_network(state)
    if usual := (OTHER_ROTARY_HEADS if is_rotary else OTHER_HEADS).get(width):
        raise ValueError(
            f"is {width} wide and does not say how many heads it has: usually {usual}, and not"
            f" {width // HEAD_DIM}; name them, such as file::{path}:num_heads={usual}"
        )
    if width == 384 and _has_sine_table(state.get("pos_embed")):
        raise ValueError(
            "is 384 wide with a fixed table of sines and does not say how many heads it has: MoCo v3's ViT-S has 12,"
            f" others 6; name them, such as file::{path}:num_heads=12"
        )
    if named is None and width % HEAD_DIM == 0:
        log.warning("%s: does not say how many heads it has: %d, each %d wide", path, width // HEAD_DIM, HEAD_DIM)
    return None


def _has_sine_table(table: Tensor | None) -> bool:
    """Whether positions (1, 1 + P, D) are the sines and cosines of MoCo v3 and MAE, which no training changed."""
    if table is None or table.ndim != 3 or table.shape[2] % 4 or table.shape[1] < 2:
        return False
    parts = table[0, 1:].float().unflatten(1, (4, -1))  # (P, 4, D / 4): sine, cosine of both directions
    sums = parts[:, 0::2].square() + parts[:, 1::2].square()  # (P, 2, D / 4)
    return bool((sums - 1).abs().max() < 1e-3)


def read_safetensors(path: Path) -> dict[str, Any]:
    """``{"model": tensors, "metadata": ...}`` of a file of `export_backbone`, or the tensors of any other file.

    Raises:
        FileNotFoundError: It is absent.
        ValueError: It is broken; the message names it.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("signstreams", "{}"))
            names = file.keys()  # the file itself cannot be iterated
            return {"model": {name: file.get_tensor(name) for name in names}, "metadata": described}
    except Exception as error:  # of a damaged header the library raises many kinds
        raise ValueError(
            f"{path}: is truncated or no safetensors file ({' '.join(str(error).split())[:160]})"
        ) from error


def _agreed(path: Path, found: ViTArch, named: str | None) -> ViTArch:
    """The architecture to build: the file's shape with the named one's position table; refused where they differ."""
    if named is None:
        return found
    expected = ARCHS[named]
    if expected.has_fixed_shape:
        differences = mismatches(found, expected)
        expected = dataclasses.replace(expected, layer_scale_init=found.layer_scale_init)
    else:  # vit_* names say the width; patch, depth and the rest are the file's
        differences = [text for text in mismatches(found, expected) if "wide" in text or "positions" in text]
        expected = dataclasses.replace(found, name=named)
    if differences:
        raise UserError(
            f"{path}: holds {found.described()}, expected {named}: {', '.join(differences)};"
            f" name the architecture it has, or leave ':{named}' out"
        )
    return expected


def load_timm(name: str, *, download: bool, setting: str = "backbone", flag: str = "--model-download") -> Any:
    """A network of timm (``vit_small_patch14_dinov2.lvd142m``) with its pretrained weights, without its classifier.

    It has more than an nn.Module declares. ``download`` says whether weights that are not in the local cache may be
    fetched; messages name the setting that names the network, and the flag that allows the download.

    Raises:
        UserError: timm has no such weights, they are not in the cache, or cannot be fetched or read.
    """
    import timm

    named = f"{setting} 'timm::{name}'"
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        config = None
    if config is None or not config.has_weights:
        raise UserError(f"{named}: timm has no such model with weights; see timm.list_pretrained()")
    local = cached_file(config)
    if local is None and not download:
        raise UserError(f"{named}: is not in the local cache; add {flag} to fetch it, or give a file::")
    overlay = {} if local is None else {"file": str(local), "custom_load": False}
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub client raises many kinds when it is offline; none of them is our bug
        reason = checkpoint.short_reason(error)
        what = "fetched" if local is None else f"read from {local}"
        raise UserError(f"{named}: cannot be {what} ({type(error).__name__}: {reason}); give a file::") from None


def cached_file(config: Any) -> Path | None:
    """Weights of a timm model in the cache of the hub client or of torch.hub, without network access; None: absent."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
    if config.url and config.url.endswith((".pth", ".pt")):
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if path.is_file():
            return path
    return None


def rotary_of_timm(model: Any) -> VisionTransformer | None:
    """A DINOv3 network of timm as one of ours; None for any other.

    timm's own gives the mean of its patches, where DINOv3's features, and all of ours, are class tokens.
    """
    rope: Any = getattr(model, "rope", None)
    if type(rope).__name__ != "RotaryEmbeddingDinoV3" or rope.temperature != LONGEST_PERIOD:
        return None
    state = to_hub_layout(model.state_dict())
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if not is_rotary_network(shapes):
        return None
    try:
        ours = VisionTransformer(infer(shapes, "", model.blocks[0].attn.num_heads))
        ours.load_state_dict({"mask_token": torch.zeros(1, ours.embed_dim)} | state)
    except (ValueError, RuntimeError):  # one of its relatives with other parts
        return None
    return ours


def _from_timm(name: str, *, download: bool) -> Backbone:
    model = load_timm(name, download=download)
    config = model.pretrained_cfg
    model = rotary_of_timm(model) or model
    if isinstance(model, VisionTransformer):
        patch_size, embed_dim = model.patch_size, model.embed_dim
    else:
        patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", (0,))[0]
        embed_dim = model.num_features
    return Backbone(
        model,
        embed_dim=embed_dim,
        patch_size=patch_size,
        image_px=config["input_size"][-1],
        mean=config["mean"],
        std=config["std"],
        metadata={"architecture": name},
    ).eval()


def export_backbone(
    path: str | Path,
    arch: ViTArch,
    state: dict[str, Tensor],
    metadata: dict[str, Any],
    *,
    safetensors: str | Path | None = None,
) -> None:
    """Write a backbone that timm, torch.hub's DINOv2 and `load_dinov2_backbone` read; equal runs give equal bytes.

    The file holds ``{"model": state dict in hub layout, "metadata": plain values}``, without times and paths, which
    would make equal runs differ. ``mask_token`` is kept where a reader expects it: in DINOv2's architectures (timm
    recognises them by it) and where there are registers (timm renames them then). Elsewhere the keys equal timm's own.
    Networks with rotary positions have the names of timm's DINOv3 with biases, without a mask token.
    ``safetensors`` is a second file with the same tensors; the metadata is its entry ``signstreams``, as JSON.
    """
    keeps_mask_token = arch.is_dinov2 or arch.num_registers > 0
    if arch.is_rotary:
        state = to_dinov3_layout(state)
    model = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in state.items()
        if keeps_mask_token or name != "mask_token"
    }
    shape = dataclasses.asdict(arch)
    if not arch.is_rotary:  # files of before had no such entries
        del shape["is_rotary"], shape["gated_dim"]
    content = {"format": FORMAT, "architecture": arch.name, **shape, **metadata}
    del content["name"]
    checkpoint.save(path, {"model": model, "metadata": content})
    if safetensors is not None:
        from safetensors.torch import save

        described = {"format": "pt", "signstreams": json.dumps(content, ensure_ascii=False)}
        write_bytes(safetensors, _with_sorted_metadata(save(model, metadata=described)))


def _with_sorted_metadata(data: bytes) -> bytes:
    """The same safetensors file with sorted metadata, which the library writes in the order of a hash map."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
