"""A finished run of the workflow on the tiny demo corpus, for tests of what people do with one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

CROP_PX, FPS = 64, 12.5


def build(folder: Path, corpus: Path) -> None:
    """``data/demo`` extracted, ``work_dirs`` with three backbones and a translation model of one epoch."""
    from signstreams.backbones.archs import resolve
    from signstreams.backbones.vit import VisionTransformer
    from signstreams.backbones.weights import export_backbone
    from signstreams.contract.run_checks import check_after_extraction
    from signstreams.extract.batch import extract_videos
    from signstreams.extract.settings import ExtractConfig
    from signstreams.formats.layout import CorpusLayout, RunLayout
    from signstreams.integrate.run import run
    from signstreams.integrate.settings import IntegrateConfig
    from signstreams.streams import BACKBONE_KEYS, STREAMS

    root = folder / "data" / "demo"
    shutil.copytree(corpus, root)
    settings = {"fps": FPS, "crop_px": CROP_PX, "tracker": {"stride": 3}}
    tree = {"videos": [CorpusLayout(root).videos], "root": root, **settings}
    extract_videos(ExtractConfig.model_validate(tree), on_result=check_after_extraction)
    runs = RunLayout(folder / "work_dirs")
    arch = replace(resolve("vit_tiny", image_px=32, patch_px=8, depth=1))
    about = {"image_px": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    for seed, stream in enumerate(STREAMS):
        model = VisionTransformer(arch)
        model.init_weights(torch.Generator().manual_seed(seed))
        runs.backbone(stream).parent.mkdir(parents=True)
        export_backbone(runs.backbone(stream), arch, model.state_dict(), about)
    backbones = {key: f"file::{runs.backbone(stream)}" for stream, key in BACKBONE_KEYS.items()}
    config = IntegrateConfig.model_validate(
        {
            "root": root,
            "output_dir": runs.training,
            "features_dir": runs.features,
            "data": {"batch_size": 4},
            "model": {**backbones, "projection_dim": 16, "d_model": 32, "num_layers": 1, "ff_dim": 32},
            "mska": {"channels": [8, 12, 16], "num_heads": 2, "head_dim": 16, "head_ff_dim": 16},
            "decoder": {"num_layers": 1, "ff_dim": 32, "vocab_size": 300, "max_tokens": 64},
            "train": {"epochs": 1},
        }
    )
    run(config)
