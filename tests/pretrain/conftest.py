"""Crops of three made-up videos, and the smallest config that trains on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from signstreams.config.section import is_fixed
from signstreams.formats.crops import CropWriter
from signstreams.pretrain.settings import PretrainConfig

VIDEOS, FRAMES, SIDE_PX = 3, 16, 40
REQUIREMENT = """
train_dir = ["data/single_signer/processed/face"]
output_dir = "work_dirs/dino_face"
algorithm = "ibot"
epochs = 50

[dataset]
batch_size = 48
num_workers = 4
pin_memory = true
persistent_workers = true

[augmentation]
brightness = 0.5
gaussian_blur_prob = 0.7
mean = [0.481, 0.457, 0.408]
std = [0.268, 0.261, 0.276]

[checkpointing]
last_name = "checkpoint_last.pt"
best_name = "checkpoint_best.pt"
history_file = "metrics.jsonl"

[experiment]
name = "face-ibot-baseline"
tags = ["face", "ibot"]
notes = "Primer experimento con augmentations agresivos."
"""


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    """Runs set the number of threads of their process; other tests get theirs back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def crops_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``mi corpus 'ñ'/hand_r`` with three archives of 16 crops: bars whose angle follows the frame."""
    folder = tmp_path_factory.mktemp("pretrain") / "mi corpus 'ñ'" / "hand_r"
    for video in range(VIDEOS):
        with CropWriter(folder / f"video_{video}.zip", f"video_{video}") as writer:
            for frame in range(FRAMES):
                writer.add(frame, _picture(video, frame))
    return folder


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int], bytes]:
    """JPEG bytes of a made-up crop, by video and frame."""
    return _picture


@pytest.fixture
def requirement_toml() -> str:
    """The config file that the requirement gives as its example."""
    return REQUIREMENT


@pytest.fixture
def make(tiny: dict[str, Any]) -> Callable[..., PretrainConfig]:
    """Config of `tiny` with sections merged into it; fixed values may be among them."""

    def build(**changes: Any) -> PretrainConfig:
        tree, fixed = dict(tiny), {}
        for key, value in changes.items():
            if isinstance(value, dict):
                fields = type(PretrainConfig.model_fields[key].default).model_fields
                fixed[key] = {name: x for name, x in value.items() if name in fields and is_fixed(fields[name])}
                value = {**tree.get(key, {}), **{name: x for name, x in value.items() if name not in fixed[key]}}
            tree[key] = value
        config = PretrainConfig.model_validate(tree)
        return config.model_copy(
            update={key: getattr(config, key).model_copy(update=values) for key, values in fixed.items()}
        )

    return build


def _picture(video: int, frame: int) -> bytes:
    """JPEG of a bright bar on the video's own colour."""
    image = np.full((SIDE_PX, SIDE_PX, 3), (40 + 50 * video, 90, 160 - 40 * video), np.uint8)
    angle = np.pi * frame / FRAMES
    tip = np.array([np.cos(angle), np.sin(angle)]) * 15
    ends = [tuple(int(value) for value in SIDE_PX // 2 + sign * tip) for sign in (-1, 1)]
    cv2.line(image, ends[0], ends[1], (230, 220, 200), 5)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture
def tiny(crops_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run that takes a second; change what the test is about."""
    return {
        "train_dir": [str(crops_dir)],
        "output_dir": str(tmp_path / "run"),
        "epochs": 2,
        "device": "cpu",
        "threads": 1,
        "dataset": {"batch_size": 8, "num_workers": 0},
        "model": {"arch": "vit_tiny", "patch_px": 8, "depth": 1},
        "augmentation": {"global_px": 16, "local_px": 8, "num_local": 2},
        # as a large corpus would choose it; tests/pretrain/test_derived_settings.py has the rest
        "dino": {"num_prototypes": 16, "hidden_dim": 32, "bottleneck_dim": 16, "batch_norm": False},
        "sinkhorn": {"use": False},
        "monitor": {"log_every_steps": 2, "probe_every_steps": 4, "probe_crops": 8, "pictures": False},
        "checkpointing": {"every_steps": 2},
    }
