"""The embed stage: features of one stream, or the points, of all extracted videos of a corpus."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from signstreams.engine import distributed
from signstreams.errors import UserError
from signstreams.files import remove_leftovers
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.array_store import JOURNAL
from signstreams.integrate.clips import extracted_ids, raise_problems
from signstreams.integrate.features import embed_stream, open_features, write_manifest
from signstreams.integrate.settings import EmbedConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import load_backbones
from signstreams.integrate.videos import (
    POINT_KINDS,
    POINTS,
    ProcessedVideo,
    check_lengths,
    embed_points,
    open_points,
    read_videos,
)
from signstreams.streams import BACKBONE_KEYS

log = logging.getLogger(__name__)


def embed(config: EmbedConfig) -> dict[str, Any]:
    """Compute what is missing, then write ``<features>/<stream>.json``; returns its content.

    Raises:
        UserError: All problems of the corpus or the backbone.
    """
    layout = CorpusLayout(config.root)
    ids = extracted_ids(layout)
    if not ids:
        raise UserError(
            f"{layout.processed / 'metadata'}: holds no extracted video, expected some; run signstreams extract"
        )
    kinds = POINT_KINDS.values() if config.stream == POINTS else ("tracks", config.stream)
    videos, quarantined, problems = read_videos(layout, ids, kinds)
    raise_problems(problems)
    if quarantined:
        log.warning("%d videos are left out: they are quarantined", len(quarantined))
    found = list(videos.values())
    return _points(config, layout, found) if config.stream == POINTS else _stream(config, layout, found)


def _points(config: EmbedConfig, layout: CorpusLayout, videos: list[ProcessedVideo]) -> dict[str, Any]:
    points = open_points(config.features_dir, uses_nodes=True)
    assert points.nodes is not None
    remove_leftovers(config.features_dir, config.features_dir / POINTS)
    problems = embed_points(layout, videos, points)
    raise_problems(problems + check_lengths(layout, videos, points.stores))
    about = {"source": POINTS, "arrays": {name: store.folder.name for name, store in points.stores.items()}}
    return write_manifest(config.features_dir, points.nodes, videos, about)


def _stream(config: EmbedConfig, layout: CorpusLayout, videos: list[ProcessedVideo]) -> dict[str, Any]:
    world = distributed.start(device=config.device)
    training = IntegrateConfig.model_validate(
        {
            "root": config.root,
            "data": {"crop_px": config.crop_px},
            "model": {
                BACKBONE_KEYS[config.stream]: config.backbone,
                "download": config.download,
                "backbone_layers": config.backbone_layers,
            },
        }
    )
    frozen = load_backbones(training).frozen[config.stream]
    store = open_features(config.features_dir, frozen)
    remove_leftovers(config.features_dir, store.folder)
    raise_problems(embed_stream(layout, videos, frozen, store, world.device))
    if config.prune:
        _prune(store.folder)
    about = {
        "source": config.stream,
        "backbone": frozen.identity,
        "architecture": str(frozen.net.metadata.get("architecture", "")),
        "crop_px": frozen.side_px,
        "layers": config.backbone_layers,
        **({"is_mirrored": True} if config.stream in frozen.net.mirrored_streams else {}),
    }
    return write_manifest(config.features_dir, store, videos, about)


def _prune(kept: Path) -> None:
    """Remove the features of the stream's other backbones."""
    for folder in kept.parent.iterdir():
        if folder.is_dir() and folder != kept and (folder / JOURNAL).is_file():
            log.info("removing %s", folder)
            shutil.rmtree(folder)
