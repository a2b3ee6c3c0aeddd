"""The requirement's sequence as typed, from crops to a translation model; the flags that make it small are ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from signstreams.cli import parse
from signstreams.files import sha256_file
from signstreams.integrate.run import run
from signstreams.integrate.settings import IntegrateConfig
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

SMALL_PRETRAINING = (
    "--image-size 28 --set augmentation.num_local=1 --local-size 14 --set dino.num_prototypes=16 --epochs 1"
    " --batch-size 8 --monitor-pictures false --monitor-probe-crops 8 --dataset-epoch-steps 1 --device cpu --threads 1"
    " --dataset-num-workers 0 --set checkpointing.min_free_gb=0"
)
SMALL_TRAINING = (
    "--epochs 1 --batch-size 4 --device cpu --set model.projection_dim=16 model.d_model=32 model.num_layers=1"
    " model.ff_dim=32 mska.channels=[8,12,16] mska.num_heads=2 mska.head_dim=16 mska.head_ff_dim=16"
    " decoder.num_layers=1 decoder.ff_dim=32 decoder.vocab_size=300 decoder.max_tokens=64"
)


def test_crops_become_backbones_and_these_a_translation_model_by_the_commands_of_the_requirement(
    make_corpus: Callable[..., Path], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    make_corpus(tmp_path / "data" / "single_signer", sizes={"train": 6, "val": 1, "test": 1}, frames_each=6)
    try:
        for stream in ("face", "hand_l", "hand_r"):
            typed = f"--train-dir data/single_signer/processed/{stream} --output-dir work_dirs/dino_{stream}"
            typed += f" --algorithm dino --learning-rate 1e-3 --export-backbone work_dirs/dino_{stream}/backbone.pt"
            pretrain(parse(PretrainConfig, f"{typed} {SMALL_PRETRAINING}".split()), stream)
    finally:
        torch.set_num_threads(threads)
    typed = f"--config {project}/config/single_signer.yml"  # it names all three backbones
    typed += " --set model.face_backbone file::work_dirs/dino_face/backbone.pt:dinov2_vits14"
    typed += " --set model.freeze_face_backbone true"
    run(parse(IntegrateConfig, f"{typed} {SMALL_TRAINING}".split()))
    used = json.loads((tmp_path / "work_dirs/multistream_v9/config.json").read_text())["backbone_sha256"]
    assert used == {
        stream: sha256_file(tmp_path / "work_dirs" / f"dino_{stream}" / "backbone.pt")
        for stream in ("face", "hand_l", "hand_r")
    }
    assert (tmp_path / "work_dirs/multistream_v9/best.pt").is_file()
