"""Pictures of what a backbone sees: attention maps, main directions of the patches, nearest neighbours."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Floats, Pixels
from signstreams.backbones.archs import parse_spec
from signstreams.backbones.vit import Block, VisionTransformer
from signstreams.backbones.weights import UNKNOWN_SIDE, load_dinov2_backbone
from signstreams.errors import UserError
from signstreams.files import replacing
from signstreams.formats.crops import Crop, evenly_spread, most_different
from signstreams.formats.layout import PRETRAINING_FILES
from signstreams.pretrain.data import CropSet, find_crops, load_whole
from signstreams.pretrain.health import embed
from signstreams.pretrain.knn import cosines
from signstreams.pretrain.settings import ShowConfig
from signstreams.streams import STREAMS

log = logging.getLogger(__name__)


@torch.no_grad()
def class_attention(model: VisionTransformer, images: Tensor) -> Tensor:
    """Attention (B, heads, rows, columns) of the class token to the patches of normalised images, in the last block.

    A head sums to 1 less the share of class token and registers.
    """
    last = model.blocks[-1]
    assert isinstance(last, Block)
    seen: list[Tensor] = []
    hook = last.norm1.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        model.forward_features(images)
    finally:
        hook.remove()
    qkv = last.attn.projected(seen[0]).float()  # (B, N, 3 D)
    q, k, _ = last.attn.by_head(qkv, *model.turns(images))  # each (B, H, N, D / H)
    scores = q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, H, 1, N)
    weights = scores.softmax(dim=-1)[:, :, 0, 1 + model.arch.num_registers :]  # (B, H, P)
    rows = images.shape[-2] // model.patch_size
    maps: Tensor = weights.unflatten(-1, (rows, -1))
    return maps


def patch_colors(patches: Tensor) -> Tensor:
    """The first three principal components of all patches (B, P, D) together, as colours (B, P, 3) in 0..1.

    These are between the 2nd and 98th percentile of each component, whose greatest loading is positive, so that equal
    patches give equal pictures.
    """
    x = patches.flatten(0, 1).double()
    x = x - x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)  # (min(B P, D), D)
    axes = axes[:3]
    greatest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))  # (<= 3, 1)
    values = x @ (axes * greatest.sign()).T  # (B P, <= 3)
    if values.shape[1] < 3:
        values = F.pad(values, (0, 3 - values.shape[1]))
    low, high = (torch.quantile(values, share, dim=0) for share in (0.02, 0.98))
    colors = ((values - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    by_crop: Tensor = colors.unflatten(0, patches.shape[:2])
    return by_crop.float()


def nearest_crops(queries: Tensor, bank: Tensor, is_candidate: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The crops of the bank (N, D) most like each query (M, D), by cosine, among its candidates (M, N).

    Indices into the bank (M, <= count), nearest first, and their cosines; -inf where there is no further candidate.
    """
    similarity = cosines(queries, bank).masked_fill(~is_candidate, -torch.inf)  # (M, N)
    nearest = similarity.topk(min(count, len(bank)), dim=-1)
    return nearest.indices, nearest.values


PICTURE_FILES = tuple(PRETRAINING_FILES[name] for name in ("attention", "patches", "neighbours"))
NUM_SHOWN = 8
MAX_OFFERED, COMPARED_PX = 128, 16  # crops of which those that differ most are shown, and the side they are compared at
NUM_NEIGHBOURS = 7
MAX_BANK = 2_000  # crops to search for neighbours, evenly spread; half a minute on two cores for a small network
MIN_GRID = 8  # least number of patches per side of a map: small inputs are enlarged for the network
FAR_FRAMES = 50  # least distance of neighbours where all crops are of one video
SHOWN_PX = 160
ATTENTION_MASS = 0.6  # share of a head's attention that is outlined

Normalize = Callable[[Tensor], Tensor]


def show_backbone(config: ShowConfig) -> dict[str, Path]:
    """Draw the pictures of a backbone from a file, on crops of a folder, mirrored where it sees those mirrored.

    Raises:
        UserError: No crops, no such backbone, or one whose attention is not accessible.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    spec = config.backbone if "::" in config.backbone else f"file::{config.backbone}"
    if parse_spec(spec).kind == "timm":
        raise UserError(
            f"{spec}: is a network of timm, expected a file:: backbone; attention is read from our own code"
        )
    backbone = load_dinov2_backbone(spec)
    assert isinstance(backbone.model, VisionTransformer)
    mirrored = backbone.mirrored_streams
    if mirrored and config.crops.name not in STREAMS:
        log.warning("%s: %s, or call their folder hand_l", spec, UNKNOWN_SIDE)
    crops = find_crops([config.crops], probe_crops=NUM_SHOWN, mirrored=mirrored)
    title = config.title or config.crops.stem + (", mirrored" if config.crops.name in mirrored else "")
    as_seen = functools.partial(backbone.inputs, stream=None)  # the pictures show what the network sees
    return draw_pictures(backbone.model, as_seen, backbone.image_px, crops, config.output, title=title)


def draw_pictures(
    model: VisionTransformer, normalize: Normalize, image_px: int, crops: CropSet, folder: Path, *, title: str
) -> dict[str, Path]:
    """Draw the three pictures of a backbone in evaluation mode and return their paths by the stem of their names.

    ``normalize`` makes uint8 (..., H, W, 3) to input of the model, on its device. ``image_px`` is the image side that
    the backbone was trained on. Of the held-out crops those that differ most are shown, and neighbours are found among
    all crops.
    """
    own = crops.probe or crops.train
    offered = [own[i] for i in evenly_spread(min(MAX_OFFERED, len(own)), len(own))]
    small = load_whole(offered, COMPARED_PX).float().mean(dim=-1).flatten(1).numpy()  # (M, COMPARED_PX^2), grey
    small -= small.mean(axis=1, keepdims=True)  # light alone is no difference
    shown = [offered[i] for i in sorted(most_different(small, [(crop.video_id,) for crop in offered], NUM_SHOWN))]
    side_px = image_px * max(1, -(-MIN_GRID * model.patch_size // image_px))
    enlarged = f", enlarged for it from {image_px} to {side_px} px" if side_px > image_px else ""
    images_at_side = load_whole(shown, side_px)  # (N, side, side, 3) uint8
    inputs = normalize(images_at_side)  # (N, 3, side, side)
    images = [
        cv2.resize(image, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_CUBIC) for image in images_at_side.numpy()
    ]
    paths = {Path(name).stem: folder / name for name in PICTURE_FILES}

    attention = class_attention(model, inputs).cpu().numpy()  # (N, heads, rows, columns)
    heads = attention / attention.sum(axis=(2, 3), keepdims=True).clip(1e-9)
    mean = heads.mean(axis=1, keepdims=True)
    maps = np.concatenate((mean, heads), axis=1)[:, :7]  # the mean, and at most six heads
    _sheet(
        paths["attention"],
        [[image, *[_heat(image, one) for one in of_image]] for image, of_image in zip(images, maps, strict=True)],
        columns=["crop", "all heads", *[f"head {i + 1}" for i in range(maps.shape[1] - 1)]],
        labels=[_name(crop) for crop in shown],
        title=f"{title}: where the class token looks",
        caption=f"Last block{enlarged}. Outlined: {ATTENTION_MASS:.0%} of a head's attention. Good: fingers, mouth,"
        " eyes, heads that differ. Bad: the border or the same patch in every crop, or everything evenly.",
    )

    with torch.no_grad():
        patches = model.forward_features(inputs)[1]  # (N, P, D)
    grid = side_px // model.patch_size
    colors = (255 * patch_colors(patches.cpu())).byte().unflatten(1, (grid, grid)).numpy()  # (N, rows, columns, 3)
    pairs = [
        [image, cv2.resize(color, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_NEAREST)]
        for image, color in zip(images, colors, strict=True)
    ]
    half = -(-len(pairs) // 2)
    _sheet(
        paths["patches_pca"],
        [list(itertools.chain.from_iterable(pairs[i::half])) for i in range(half)],
        columns=["crop", "patches"] * min(2, len(pairs)),
        labels=[" | ".join(_name(crop) for crop in shown[i::half]) for i in range(half)],
        title=f"{title}: patches by their three main directions",
        caption=f"One colour scale for all crops{enlarged}. Good: a finger has its colour wherever it is, the"
        " background another. Bad: colours that follow the place or the light alone.",
    )

    bank = [*crops.probe, *crops.train]
    bank = [bank[i] for i in evenly_spread(min(MAX_BANK, len(bank)), len(bank))]
    queries, answers = (embed(model, load_whole(of, image_px), normalize) for of in (shown, bank))  # (N, D), (M, D)
    is_candidate, where = _candidates(shown, bank)
    places, cosines = nearest_crops(queries, answers, is_candidate, NUM_NEIGHBOURS)
    rows = []
    for i, image in enumerate(images):
        found = [bank[place] for place, cosine in zip(places[i], cosines[i], strict=True) if torch.isfinite(cosine)]
        rows.append([image, *(load_whole(found, SHOWN_PX).numpy() if found else [])])
    _sheet(
        paths["neighbours"],
        rows,
        columns=["crop", *[f"{i + 1}" for i in range(NUM_NEIGHBOURS)]],
        labels=[_name(crop) for crop in shown],
        title=f"{title}: nearest crops",
        caption=f"By cosine of the class token, {where}, among {len(bank):,} crops. Good: the same handshape or mouth"
        " from other people and places. Bad: the same light, sleeve or background with any handshape.",
        below=[["", *[f"{cosine:.2f}" for cosine in of_row if torch.isfinite(cosine)]] for of_row in cosines],
    )
    return paths


def _candidates(shown: Sequence[Crop], bank: Sequence[Crop]) -> tuple[Tensor, str]:
    """(M, N) bool, which crops of the bank may be shown as neighbours, and the rule in words."""
    videos = [np.array([crop.video_id for crop in of]) for of in (shown, bank)]
    other = videos[0][:, None] != videos[1][None]
    if other.any(axis=1).all():
        return torch.from_numpy(other), "from other videos"
    frames = [np.array([crop.frame for crop in of]) for of in (shown, bank)]
    far = np.abs(frames[0][:, None] - frames[1][None]) >= FAR_FRAMES
    return torch.from_numpy(other | far), f"{FAR_FRAMES} frames away or more, since all are of one video"


def _heat(image: Pixels, attention: Floats) -> Pixels:
    """The grey crop under its attention map (rows, columns), with the patches that hold most of it outlined."""
    smooth = cv2.resize(attention, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_CUBIC).clip(0)
    heat = cv2.applyColorMap((255 * smooth / max(float(smooth.max()), 1e-9)).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    mixed = (0.4 * grey + 0.6 * heat[:, :, ::-1]).astype(np.uint8)
    order = np.sort(attention.ravel())[::-1]
    enough = order[np.searchsorted(np.cumsum(order), ATTENTION_MASS * order.sum())]
    mask = cv2.resize((attention >= enough).astype(np.uint8), (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(mixed), outlines, -1, (120, 255, 120), 1)


def _name(crop: Crop) -> str:
    return f"{crop.video_id}, {crop.frame}" + (" (mirrored)" if crop.is_mirrored else "")


def _sheet(
    path: Path,
    rows: Sequence[Sequence[Pixels]],
    *,
    columns: Sequence[str],
    labels: Sequence[str],
    title: str,
    caption: str,
    below: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draw rows of images, each as long as ``columns`` or shorter; equal input gives equal bytes.

    All images are one picture on one pair of axes: axes of their own for each take most of the time of a short run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell_px, line_px, top_px = SHOWN_PX + 10, 16, 70
    size_px = (cell_px * len(columns) + 10, top_px + (cell_px + line_px) * len(rows) + 60)  # width, height
    canvas = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold", parse_math=False)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize="small", wrap=True)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size_px[0]), ylim=(size_px[1], 0))
    axes.set_axis_off()
    for j, column in enumerate(columns):
        axes.text(10 + j * cell_px + SHOWN_PX / 2, top_px - 6, column, ha="center", va="bottom", fontsize="small")
    for i, row in enumerate(rows):
        y = top_px + i * (cell_px + line_px)
        for j, image in enumerate(row):
            x = 10 + j * cell_px
            canvas[y : y + SHOWN_PX, x : x + SHOWN_PX] = image
            if below is not None:
                text = below[i][j]
                axes.text(x + SHOWN_PX / 2, y + SHOWN_PX + 4, text, ha="center", va="top", fontsize="x-small")
        axes.text(10, y + SHOWN_PX + 4, labels[i], ha="left", va="top", fontsize="x-small", parse_math=False)
    axes.imshow(canvas, extent=(0, size_px[0], size_px[1], 0), interpolation="none", zorder=-1)
    with replacing(path) as part:
        # level 1: a third of the CPU seconds of the default, for a seventh more bytes
        figure.savefig(part, format="png", dpi=100, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
