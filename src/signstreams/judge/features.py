"""Features that are judged: of backbones, of the same networks with their first weights, and of simple baselines.

Letters: M crops, D width of a feature, N items.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Floats, Ints, Pixels
from signstreams.backbones.archs import parse_spec
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import UNKNOWN_SIDE, Backbone, cached_file, load_dinov2_backbone
from signstreams.engine.seeding import torch_generator
from signstreams.errors import UserError
from signstreams.files import read_json, sha256_file
from signstreams.formats.layout import PRETRAINING_FILES
from signstreams.judge.labelled_sets import LabelledSet, Part
from signstreams.pretrain.crop_points import point_shapes
from signstreams.pretrain.data import load_whole
from signstreams.pretrain.initial_weights import read_adapted
from signstreams.progress import Progress

log = logging.getLogger(__name__)

CLASS_TOKEN = "class token"
WITH_PATCHES = "class token, patches"  # and beside it the mean of the patch tokens
FREE_PX = 64  # side of the image that pixels and gradients are taken of
BATCH = 64  # images that a backbone encodes at once
CHUNK = 512  # crops whose features are pooled to those of their clips at once; then progress is shown
PUBLIC = ("vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_224.augreg_in21k_ft_in1k")
"""What anybody has without training, DINOv2 and ImageNet; judged where timm's cache on this machine holds it."""

HOG = "HOG"  # names of sources
PIXELS = "grey pixels"

Encode = Callable[[Part, slice], dict[str, Tensor]]


@dataclass(frozen=True)
class Source:
    """One source of features."""

    name: str  # in the table
    kind: str  # ``backbone``, ``first weights``, ``public`` or ``free``
    about: str  # what a reader should know of it: the spec, the seed, the size
    encode: Encode
    """Crops of a part to features (M, D) by the name of the variant; NaN rows have none."""
    first: str | None = None  # of a backbone: name of the source that is the same network with its first weights
    sha256: str | None = None  # of a backbone that is a file of this machine: the file's digest


# -- Sources


def sources(
    specs: Sequence[str], found: LabelledSet, *, seed: int, download: bool, device: torch.device
) -> list[Source]:
    """Backbones, their first weights, public ones on this machine, and what costs nothing, in this order.

    Images of no stream are taken as they are, with a warning where a backbone sees left hands mirrored.

    Raises:
        UserError: All backbones that cannot be loaded.
    """
    problems: list[str] = []
    loaded: dict[str, Backbone] = {}
    for spec in specs:
        try:
            full = spec if "::" in spec else f"file::{spec}"
            loaded[full] = load_dinov2_backbone(full, download=download)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    for spec, backbone in loaded.items():
        if backbone.mirrored_streams and any(not part.stream for part in found.parts):
            log.warning("%s: %s", spec, UNKNOWN_SIDE)
    names = _short_names(list(loaded))
    firsts: dict[tuple[object, ...], Source] = {}  # equal weights that see images otherwise give other features
    trained = []
    for spec, backbone in loaded.items():
        first, about = first_weights(spec, backbone, seed)
        about += ", left hands mirrored" if first.mirrored_streams else ""
        arch = first.model.arch if isinstance(first.model, VisionTransformer) else None
        key = (about, arch, first.image_px, first.mean, first.std)
        if key not in firsts:
            encode = _of_backbone(first, device)
            name = f"first weights of {names[spec]}" if len(loaded) > 1 else "first weights"
            firsts[key] = Source(name, "first weights", about, encode)
        place = parse_spec(spec)
        digest = sha256_file(place.location) if place.kind == "file" else None
        encode = _of_backbone(backbone, device)
        trained.append(Source(names[spec], "backbone", spec, encode, first=firsts[key].name, sha256=digest))
    public = []
    for name in PUBLIC:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
        if f"timm::{name}" in loaded:
            continue
        if cached_file(config) is None:
            log.info(
                "%s: left out, as it is not in timm's cache; --backbone timm::%s --download fetches it", name, name
            )
        else:
            backbone = load_dinov2_backbone(f"timm::{name}")
            public.append(Source(name, "public", f"timm::{name}", _of_backbone(backbone, device)))
    free = [
        Source(HOG, "free", f"{FREE_PX} px, cells of 8, blocks of 2 x 2, 9 angles", _of_images(hog)),
        Source(PIXELS, "free", f"{FREE_PX} px, less the image's own mean", _of_images(grey_pixels)),
    ]
    if any(part.points is not None for part in found.parts):
        free.insert(0, Source("hand points", "free", "21 points, less their mean, over their size", _of_points))
    return [*trained, *firsts.values(), *public, *free]


def _short_names(specs: Sequence[str]) -> dict[str, str]:
    """The last two parts of a path, or the whole spec where two would be called alike."""
    short = {}
    for spec in specs:
        kind, _, place = spec.partition("::")
        short[spec] = place if kind == "timm" else "/".join(Path(place).parts[-2:])
    return {spec: name if list(short.values()).count(name) == 1 else spec for spec, name in short.items()}


def first_weights(spec: str, backbone: Backbone, seed: int) -> tuple[Backbone, str]:
    """The network as its training found it, with the trained one's input, and what it is in words.

    The params.json beside a backbone of ours says which weights these were; of any other file it is the same
    architecture with our own random weights, of a network of timm that with timm's.
    """
    named = parse_spec(spec)
    if not isinstance(backbone.model, VisionTransformer):
        name = named.location
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, num_classes=0).eval()
        return _with_model(backbone, model), f"random weights of {name}, seed {seed}"
    model = VisionTransformer(backbone.model.arch)
    params = Path(named.location).with_name(PRETRAINING_FILES["params"])
    known = f"random weights, seed {seed}, which may not be its own"
    if named.kind == "file" and params.is_file():
        try:
            config = read_json(params)["config"]
            start, seed = config["init"]["weights"], int(config["seed"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{params}: does not say how its run began; move it away, or restore it") from None
        if start is not None:
            try:
                state = read_adapted(start, model.arch)[0].state
            except UserError as error:
                log.warning("%s; random weights stand in for those it began with", error.problems[0])
            else:
                model.init_weights(torch_generator(seed, "backbone"))  # parts that the start does not have
                model.load_state_dict(state, strict=False)
                drawn = model.arch.num_registers and "register_tokens" not in state
                of_seed = f", registers of seed {seed}" if drawn else ""
                return _with_model(backbone, model), f"the weights it began with, {start}{of_seed}"
        known = f"random weights, seed {seed}" + (", in place of those it began with" if start is not None else "")
    model.init_weights(torch_generator(seed, "backbone"))  # what a training draws
    return _with_model(backbone, model), f"{model.arch.described()}: {known}"


def _with_model(backbone: Backbone, model: torch.nn.Module) -> Backbone:
    return Backbone(
        model,
        embed_dim=backbone.embed_dim,
        patch_size=backbone.patch_size,
        image_px=backbone.image_px,
        mean=backbone.mean,
        std=backbone.std,
        metadata={},
        mirrored_streams=backbone.mirrored_streams,
    ).eval()


def _of_backbone(backbone: Backbone, device: torch.device) -> Encode:
    @torch.inference_mode()
    def encode(part: Part, chosen: slice) -> dict[str, Tensor]:
        backbone.to(device)
        classes, both = [], []
        for images in load_whole(part.crops[chosen], backbone.image_px).split(BATCH):
            inputs = backbone.inputs(images.to(device), part.stream or None)
            token, mean = backbone.class_and_patches(inputs)
            classes.append(token.float().cpu())
            if mean is not None:
                both.append(torch.cat((token, mean), dim=1).float().cpu())
        backbone.to("cpu")
        found = {CLASS_TOKEN: torch.cat(classes)}
        return found | ({WITH_PATCHES: torch.cat(both)} if both else {})

    return encode


def _of_images(describe: Callable[[Pixels], Floats]) -> Encode:
    def encode(part: Part, chosen: slice) -> dict[str, Tensor]:
        images = load_whole(part.crops[chosen], FREE_PX).numpy()  # (M, 64, 64, 3) uint8
        return {"": torch.from_numpy(np.stack([describe(image) for image in images]).astype(np.float32))}

    return encode


def grey_pixels(image: Pixels) -> Floats:
    """Grey values (side * side,) of an RGB image less their mean: the cosine of two is their correlation."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found: Floats = (grey - grey.mean()).ravel()
    return found


def hog(image: Pixels) -> Floats:
    """Histograms of oriented gradients (Dalal and Triggs 2005) of an RGB image of `FREE_PX`, by OpenCV: (1764,)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found: Floats = np.ravel(cv2.HOGDescriptor((FREE_PX, FREE_PX), (16, 16), (8, 8), (8, 8), 9).compute(grey))
    return found


def _of_points(part: Part, chosen: slice) -> dict[str, Tensor]:
    if part.points is None:
        return {"": torch.full((len(part.crops[chosen]), 1), torch.nan)}
    return {"": torch.from_numpy(point_shapes(part.points[chosen]))}


# -- From crops to items


def item_features(source: Source, found: LabelledSet) -> dict[str, Tensor]:
    """Feature (N, D) of every item by variant: of images the source's own, of clips pooled over their frames.

    The parts of several streams have length 1 each and stand side by side; zeros where a clip does not show a stream.
    """
    streams = [_of_part(source, part, found) for part in found.parts if part.crops]
    if not found.has_clips:
        return {name: torch.nan_to_num(x) for name, x in streams[0].items()}
    return {name: torch.cat([F.normalize(of[name], dim=1) for of in streams], dim=1) for name in streams[0]}


def _of_part(source: Source, part: Part, found: LabelledSet) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {}
    with Progress(len(part.crops), "crops", " ".join(filter(None, (source.name, part.stream)))) as progress:
        for chosen, items in _chunks(part.owner, len(found.names)):
            for name, features in source.encode(part, chosen).items():  # each (M, D)
                if not found.has_clips:
                    rows.setdefault(name, []).append(features)
                    continue
                owner = torch.from_numpy(part.owner[chosen])
                for pooling, pool in POOLINGS.items():
                    pooled = torch.stack([pool(features[owner == item]) for item in items])  # (items, D')
                    rows.setdefault(f"{name}, {pooling}".removeprefix(", "), []).append(pooled)
            progress.advance(chosen.stop - chosen.start)
    return {name: torch.cat(blocks) for name, blocks in rows.items()}


def _chunks(owner: Ints, num_items: int) -> Iterator[tuple[slice, range]]:
    """Crops and their items, whole items and about `CHUNK` crops at a time."""
    ends = np.searchsorted(owner, np.arange(num_items), side="right")  # (N,)
    start, first = 0, 0
    for item, end in enumerate(ends.tolist()):
        if end - start >= CHUNK or item == num_items - 1:
            yield slice(start, end), range(first, item + 1)
            start, first = end, item + 1


def mean_of_frames(frames: Tensor) -> Tensor:
    """Features of the frames of a clip (T, D), NaN where there is none, to their mean (D,), each of length 1."""
    x = F.normalize(frames[~frames.isnan().any(dim=1)], dim=1)  # (T', D)
    return x.mean(dim=0) if len(x) else frames.new_zeros(frames.shape[1])


def motion_of_frames(frames: Tensor) -> Tensor:
    """The same frames to (5 D,): mean, deviation, and the means of the first, middle and last third, equally heavy."""
    x = F.normalize(frames[~frames.isnan().any(dim=1)], dim=1)  # (T', D)
    if not len(x):
        return frames.new_zeros(5 * frames.shape[1])
    thirds = [third.mean(dim=0) for third in x[torch.linspace(0, len(x) - 1, max(3, len(x))).long()].tensor_split(3)]
    parts = torch.stack((x.mean(dim=0), x.std(dim=0, correction=0), *thirds))  # (5, D)
    return F.normalize(parts, dim=1).flatten()


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean_of_frames,
    "mean, deviation, thirds": motion_of_frames,
}
"""From the frames of a clip to one feature; the second says something of order and motion."""
