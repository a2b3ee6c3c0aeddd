"""What a training or an evaluation needs from disk: clips, backbones, features; all their problems at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from signstreams.backbones.weights import Backbone, load_dinov2_backbone
from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.ids import shown
from signstreams.integrate.array_store import ArrayStore
from signstreams.integrate.clips import Clips, ClipSource
from signstreams.integrate.data import ClipEntry, ClipSet, backbone_files, load_clips, raise_few
from signstreams.integrate.features import FrozenBackbone, embed_stream, fitting_px, open_features
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.tokenizer import TextTokenizer
from signstreams.integrate.videos import check_lengths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbones:
    """Of the streams in use.

    Attributes:
        frozen: Stream to backbone whose features are made once.
        trained: Stream to backbone that runs inside the model.
        sides_px: Stream to the side of its images.
        digests: Stream to the SHA-256 of its file, or its spec.
    """

    frozen: dict[str, FrozenBackbone]
    trained: dict[str, Backbone]
    sides_px: dict[str, int]
    digests: dict[str, str]

    @property
    def dims(self) -> dict[str, int]:
        """Stream to the width of its features."""
        nets = {stream: frozen.net for stream, frozen in self.frozen.items()} | self.trained
        return {stream: nets[stream].embed_dim for stream in self.sides_px}

    @property
    def num_layers(self) -> dict[str, int]:
        """Stream to the number of blocks of its backbone."""
        nets = {stream: frozen.net for stream, frozen in self.frozen.items()} | self.trained
        return {stream: nets[stream].num_layers for stream in self.sides_px}


def load_backbones(config: IntegrateConfig, streams: Iterable[str] | None = None) -> Backbones:
    """The backbones of a config, on the CPU.

    Args:
        streams: Only these; None: all in use.

    Raises:
        UserError: With every problem.
    """
    found = Backbones({}, {}, {}, {})
    problems: list[str] = []
    all_layers = config.model.backbone_layers == "weighted"
    for stream, spec in config.model.backbones.items():
        if streams is not None and stream not in streams:
            continue
        try:
            net = load_dinov2_backbone(spec, download=config.model.download)
            side_px = fitting_px(net, config.data.crop_px, stream)
            files = backbone_files({stream: spec})
            identity = sha256_file(files[stream]) if files else spec
            if all_layers and net.num_layers < 2:
                raise UserError(
                    f"model.backbone_layers: the {stream} backbone {spec} shows only its last layer, expected a vision"
                    " transformer from a file; use file::, or --backbone-layers last"
                )
        except UserError as error:
            problems += error.problems
            continue
        found.sides_px[stream], found.digests[stream] = side_px, identity
        if config.model.is_frozen(stream):
            found.frozen[stream] = FrozenBackbone(stream, net.requires_grad_(False), identity, side_px, all_layers)
        else:
            found.trained[stream] = net
    if problems:
        raise UserError(problems)
    return found


def read_inputs(config: IntegrateConfig, world: World) -> tuple[ClipSet, Backbones]:
    """Clips and backbones.

    Raises:
        UserError: With all their problems.
    """
    clips, backbones, problems = None, None, []
    with distributed.main_first(world):  # points are gathered by one process
        if world.is_main:
            try:
                clips = load_clips(config)
            except UserError as error:
                problems += error.problems
            try:
                backbones = load_backbones(config)
            except UserError as error:
                problems += error.problems
            if problems:
                raise UserError(problems)
    if not world.is_main:
        clips, backbones = load_clips(config), load_backbones(config)
    assert clips is not None and backbones is not None
    return clips, backbones


def open_source(config: IntegrateConfig, clips: ClipSet, backbones: Backbones, world: World) -> ClipSource:
    """Features of every video, made where they are absent (each process makes a share), and what reads them.

    Raises:
        UserError: A crop cannot be read, or features are not finite.
    """
    layout = CorpusLayout(config.root)
    videos = sorted(clips.videos, key=lambda video: video.video_id)
    stores: dict[str, ArrayStore] = {}
    problems: list[str] = []
    for stream, frozen in backbones.frozen.items():
        stores[stream] = open_features(config.features, frozen)
        share = videos[world.rank :: world.size]
        problems += embed_stream(layout, share, frozen, stores[stream], world.device)
    problems = [problem for found in distributed.gather(problems) for problem in found]
    if not problems:
        for store in stores.values():
            store.reload()
        problems += check_lengths(layout, videos, {"times": clips.points.times_s, **stores})
    if problems:
        raise_few(problems)
    return ClipSource(
        layout,
        clips.points,
        stores,
        trained=list(backbones.trained),
        uses_pose=config.model.use_pose,
        is_blank=config.data.blank_video,
    )


def tokenized(
    entries: dict[str, list[ClipEntry]], tokenizer: TextTokenizer, max_tokens: int
) -> dict[str, list[ClipEntry]]:
    """Entries of each split with their texts as tokens.

    Raises:
        UserError: With every clip whose text is too long.
    """
    out: dict[str, list[ClipEntry]] = {}
    problems = []
    for split, chosen in entries.items():
        out[split] = [replace(entry, tokens=tuple(tokenizer.encode(entry.text))) for entry in chosen]
        problems += [
            f"clip {shown(entry.clip_id)}: its text has {len(entry.tokens)} tokens, expected at most {max_tokens};"
            " raise decoder.max_tokens"
            for entry in out[split]
            if len(entry.tokens) > max_tokens
        ]
    if problems:
        raise_few(problems)
    return out


def by_split(entries: dict[str, list[ClipEntry]], source: ClipSource) -> dict[str, Clips]:
    """Split to its clips, read as they are asked for."""
    return {split: Clips(entries[split], source) for split in SPLITS if split in entries}
