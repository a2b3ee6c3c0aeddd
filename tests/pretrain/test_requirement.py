"""The commands of the requirement, one after the other; the flags that make them small are ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.cli import parse
from signstreams.errors import UserError
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

SMALL = "--image-size 28 --set augmentation.num_local=1 --local-size 14 --set dino.num_prototypes=16"
SMALL += " --monitor-pictures false --monitor-probe-crops 8 --dataset-epoch-steps 1 --device cpu --threads 1"
SMALL += " --dataset-num-workers 0 --set checkpointing.min_free_gb=0"


def test_the_commands_of_the_requirement_work_as_typed(
    crops_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    shutil.copytree(crops_dir, "data/single_signer/processed/face")
    folders = "--train-dir data/single_signer/processed/face --output-dir work_dirs/dino_face"
    basic = f"{folders} --epochs 1 --batch-size 8 --learning-rate 1e-3 --algorithm dino"
    basic += " --export-backbone work_dirs/dino_face/backbone.pt"

    def run(words: str) -> Path:
        return pretrain(parse(PretrainConfig, f"{words} {SMALL}".split()), "face")

    try:
        run(basic)
        spec = "file::work_dirs/dino_face/backbone.pt:dinov2_vits14"  # of the requirement's integration command
        assert load_dinov2_backbone(spec).model.arch.name == "dinov2_vits14"
        run(f"{basic} --resume")  # all steps are done already
        koleo = f"{folders} --koleo-weight 0.5 --koleo-epsilon 1e-4 --epochs 1 --batch-size 8"
        with pytest.raises(UserError, match="holds another experiment"):
            run(koleo)
        run(f"{koleo} --on-conflict archive")
        assert load_dinov2_backbone(spec).model.arch.depth == 12
        with pytest.raises(UserError, match="no checkpoint to resume from"):
            run(f"{basic} --resume".replace("dino_face", "dino_face_2"))
    finally:
        torch.set_num_threads(threads)
