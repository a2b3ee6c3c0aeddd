"""A tiny processed corpus whose glosses can be seen in crops and keypoints, and tiny backbones with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.engine.distributed import World
from signstreams.formats.arrays import StreamTrack, Tracks, write_keypoints, write_pose, write_tracks
from signstreams.formats.crops import CropWriter
from signstreams.formats.landmarks import HAND_L, HAND_R, NUM_KEYPOINTS, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import DetectorInfo, VideoMetadata, write_metadata
from signstreams.integrate.clips import load_clips
from signstreams.integrate.dataset import ClipDataset, open_datasets
from signstreams.integrate.run import run
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.stream_backbones import load_backbones
from signstreams.integrate.training import Trainer
from signstreams.streams import STREAMS, BoxState

GLOSSES = ("CASA", "NIÑO", "COMER", "AGUA", "MAÑANA", "PERRO")
FPS = 25.0


def sentence(glosses: list[str]) -> str:
    return " ".join(gloss.lower() for gloss in glosses).capitalize() + "."


def write_video(
    layout: CorpusLayout,
    video_id: str,
    glosses: list[str],
    rng: np.random.Generator,
    *,
    frames_each: int = 12,
    crop_px: int = 16,
    missing_ratio: float = 0.15,
) -> int:
    """One processed video: each gloss has its own hand place, hand shape and crop colour."""
    num_frames = frames_each * len(glosses)
    which = np.repeat([GLOSSES.index(gloss) for gloss in glosses], frames_each)  # (T,)
    keypoints = rng.normal(0.5, 0.005, (num_frames, NUM_KEYPOINTS, 3)).astype(np.float32)
    keypoints[..., 2] = 0.9
    for side, sign in (("left", 1), ("right", -1)):
        keypoints[:, pose_index(f"{side}_shoulder"), 0] = 0.5 + 0.1 * sign
    shapes = np.random.default_rng(7).normal(0, 0.03, (len(GLOSSES), 21, 2))
    for hand, sign in ((HAND_L, 1), (HAND_R, -1)):
        place = np.stack([0.5 + sign * 0.1 + 0.02 * which, 0.4 + 0.05 * which], axis=-1)  # (T, 2)
        keypoints[:, hand, :2] = place[:, None] + shapes[which] + rng.normal(0, 0.003, (num_frames, 21, 2))
    states = {stream: np.full(num_frames, BoxState.DETECTED, np.uint8) for stream in STREAMS}
    for stream, hand in (("hand_l", HAND_L), ("hand_r", HAND_R)):
        lost = rng.random(num_frames) < missing_ratio
        states[stream][lost] = BoxState.MISSING
        keypoints[lost, hand] = (-1, -1, 0)
    for stream in STREAMS:
        with CropWriter(layout.crops(stream, video_id), video_id) as writer:
            for frame in np.flatnonzero(states[stream] != BoxState.MISSING):
                image = rng.integers(0, 60, (crop_px, crop_px, 3), dtype=np.uint8)
                image[..., which[frame] % 3] += np.uint8(60 + 30 * which[frame])
                writer.add(int(frame), cv2.imencode(".jpg", image)[1].tobytes())
    write_keypoints(layout.keypoints(video_id), keypoints)
    pose = keypoints[:, :33].copy()
    write_pose(layout.pose(video_id), pose.reshape(num_frames, -1))
    tracks = {
        stream: StreamTrack(
            np.full((num_frames, 4), 5, np.float32), np.full(num_frames, 0.9, np.float32), states[stream]
        )
        for stream in STREAMS
    }
    write_tracks(layout.tracks(video_id), Tracks(tracks, np.arange(num_frames) / FPS))
    write_metadata(layout.metadata(video_id), metadata(video_id, num_frames))
    layout.videos.mkdir(parents=True, exist_ok=True)
    (layout.videos / f"{video_id}.mp4").write_bytes(b"")
    return num_frames


def metadata(video_id: str, num_frames: int, **changes: object) -> VideoMetadata:
    fields = {
        "video_id": video_id,
        "status": "ok",
        "source_name": f"{video_id}.mp4",
        "source_bytes": 1,
        "source_sha256": "0" * 64,
        "width_px": 320,
        "height_px": 240,
        "source_fps": FPS,
        "fps": FPS,
        "num_frames": num_frames,
        "duration_s": num_frames / FPS,
        "crop_px": 16,
        "detector": DetectorInfo(name="synthetic", version="1"),
        "signer": {"chosen_by": "alone"},
        "face_privacy": "none",
        "spans_s": None,
        "settings": {},
        "settings_digest": "0",
        "states": {},
        "num_pose_frames": num_frames,
        "num_face_frames": num_frames,
        "timings_s": {},
        "checksums": {},
        "signstreams_version": "0",
    }
    return VideoMetadata.model_validate(fields | changes)


def make_corpus(
    root: Path,
    *,
    sizes: dict[str, int],
    seed: int = 0,
    signs: tuple[int, int] = (1, 3),
    has_gloss: bool = True,
    **video_options: object,
) -> Path:
    """A corpus with ``sizes[split]`` clips, each a whole video."""
    layout = CorpusLayout(root)
    rng = np.random.default_rng(seed)
    rows, gloss_rows = ["id;texto"], ["video_id;gloss;ctc_labels"]
    for split, count in sizes.items():
        ids = []
        for number in range(count):
            clip_id = f"{split} ñ{number}"
            # the first clips of train hold every gloss
            drawn = [GLOSSES[number % len(GLOSSES)]] + [str(rng.choice(GLOSSES)) for _ in range(rng.integers(*signs))]
            write_video(layout, clip_id, drawn, rng, **video_options)  # type: ignore[arg-type]
            rows.append(f"{clip_id};{sentence(drawn)}")
            gloss_rows.append(f"{clip_id};{' '.join(drawn)};{' '.join(drawn)}")
            ids.append(clip_id)
        layout.index(split).parent.mkdir(parents=True, exist_ok=True)
        layout.index(split).write_text("".join(f"{clip_id}\n" for clip_id in ids), encoding="utf-8")
    layout.meta.write_text("\n".join(rows) + "\n", encoding="utf-8")
    if has_gloss:
        layout.gloss.parent.mkdir(parents=True, exist_ok=True)
        layout.gloss.write_text("\n".join(gloss_rows) + "\n", encoding="utf-8")
    return root


def make_backbone(path: Path, *, seed: int = 0, image_px: int = 16, depth: int = 1, patch_px: int = 8) -> Path:
    """An exported vit_tiny with random weights."""
    arch = replace(resolve("vit_tiny", image_px=image_px, patch_px=patch_px, depth=depth))
    model = VisionTransformer(arch)
    model.init_weights(torch.Generator().manual_seed(seed))
    export_backbone(path, arch, model.state_dict(), {"image_px": image_px})
    return path


@pytest.fixture(scope="session", name="make_backbone")
def _make_backbone() -> Callable[..., Path]:
    """`make_backbone`, for tests."""
    return make_backbone


@pytest.fixture(scope="session", name="make_corpus")
def _make_corpus() -> Callable[..., Path]:
    """`make_corpus`, for tests."""
    return make_corpus


@pytest.fixture(scope="session")
def processed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tiny processed corpus. Read only."""
    return make_corpus(tmp_path_factory.mktemp("processed") / "año 1", sizes={"train": 10, "val": 3, "test": 3})


@pytest.fixture
def own_corpus(tmp_path: Path) -> Path:
    """A smaller one, to be broken."""
    return make_corpus(tmp_path / "own", sizes={"train": 6, "val": 1, "test": 1}, frames_each=6)


@pytest.fixture(scope="session")
def backbone_specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Config key to spec of three tiny backbones."""
    folder = tmp_path_factory.mktemp("back bones")
    keys = ("face_backbone", "hand_left_backbone", "hand_right_backbone")
    return {key: f"file::{make_backbone(folder / f'{key}.pt', seed=i)}:vit_tiny" for i, key in enumerate(keys)}


@pytest.fixture(scope="session")
def tiny_config(
    processed_corpus: Path, backbone_specs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., object]:
    """Builds a config of a tiny model; ``section={...}`` changes keys of a section, other names top-level keys."""

    def build(**changes: object) -> IntegrateConfig:
        tree: dict[str, object] = {
            "root": processed_corpus,
            "data": {"batch_size": 4},
            "model": {**backbone_specs, "projection_dim": 16, "d_model": 32, "num_layers": 1, "ff_dim": 32},
            "mska": {"channels": [8, 12, 16], "num_heads": 2, "head_dim": 16, "head_ff_dim": 16},
            "decoder": {"num_layers": 1, "ff_dim": 32, "vocab_size": 300, "max_tokens": 64},
            "train": {"epochs": 2},
        }
        for key, value in changes.items():
            old = tree.get(key)
            tree[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        for key in [k for k, v in tree["model"].items() if v is ...]:  # type: ignore[attr-defined]
            del tree["model"][key]  # type: ignore[attr-defined]
        if "output_dir" not in tree:
            tree.setdefault("features_dir", tmp_path_factory.mktemp("features"))
        return IntegrateConfig.model_validate(tree)

    return build


@pytest.fixture(scope="session")
def open_splits() -> Callable[[IntegrateConfig], dict[str, ClipDataset]]:
    """Split to its clips with features and points, as a training gets them."""

    def build(config: IntegrateConfig) -> dict[str, ClipDataset]:
        alone = World(0, 1, torch.device("cpu"))
        return open_datasets(config, load_clips(config), load_backbones(config), alone)

    return build


@pytest.fixture(scope="session")
def trained(tiny_config: Callable[..., IntegrateConfig], tmp_path_factory: pytest.TempPathFactory) -> IntegrateConfig:
    """Config of a finished training, whose folder no test changes."""
    config = tiny_config(output_dir=tmp_path_factory.mktemp("trained") / "run", train={"epochs": 2})
    run(config)
    return config


@pytest.fixture(scope="session")
def crashed_at() -> Callable[[int], AbstractContextManager[None]]:
    """``with crashed_at(step): run(...)``: the run ends right after that step, without leaving in order."""
    original = Trainer.train_step

    @contextmanager
    def crashed(step: int) -> Iterator[None]:
        def train_step(self: Trainer, batch: Any) -> None:
            original(self, batch)
            if self.step == step:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "train_step", train_step)
            yield

    return crashed
