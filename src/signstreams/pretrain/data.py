"""Crops on disk to batches of views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from signstreams.config.pretrain import PretrainConfig, auto_workers, available_cores
from signstreams.engine.distributed import World
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader, crops_digest, list_crops
from signstreams.pretrain.sampler import BatchPlan
from signstreams.pretrain.views import ViewMaker, whole_view

MIN_TRAIN_CROPS_PER_PROBE = 7
"""Held-out crops are at most one in eight."""


@dataclass(frozen=True)
class CropSet:
    """The crops of a run.

    Attributes:
        train: What the run learns from.
        probe: Held-out crops its health is measured on; evenly spread over videos and frames.
        digest: Of all of them together.
    """

    train: list[Crop]
    probe: list[Crop]
    digest: str


def find_crops(folders: list[Path], *, max_crops: int | None, probe_crops: int) -> CropSet:
    """All crops of the folders, split into training and held-out ones.

    Raises:
        UserError: A folder is absent, holds no crop, or an archive cannot be read; all of them at once.
    """
    problems, crops = [], []
    for folder in folders:
        try:
            found = list_crops(folder)
        except FileNotFoundError:
            problems.append(f"{folder}: no such folder, expected crops of one stream; run scripts/extract_rois_v2.py")
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{error}; extract the video again")
            continue
        if not found:
            problems.append(
                f"{folder}: found no crop, expected <video>.zip or <video>_f000000.jpg; run scripts/extract_rois_v2.py"
            )
        crops += found
    if problems:
        raise UserError(problems)
    crops.sort(key=lambda crop: (crop.video_id, crop.frame, str(crop.path)))
    if max_crops is not None and len(crops) > max_crops:
        crops = [crops[i] for i in spread(len(crops), max_crops)]
    probe_crops = min(probe_crops, len(crops) // (MIN_TRAIN_CROPS_PER_PROBE + 1))
    held_out = set(spread(len(crops), probe_crops))
    return CropSet(
        train=[crop for i, crop in enumerate(crops) if i not in held_out],
        probe=[crop for i, crop in enumerate(crops) if i in held_out],
        digest=crops_digest(crops),
    )


class ViewDataset(Dataset[list[np.ndarray]]):
    """Views of a crop at a step; the draws come from (seed, step, crop), so no worker has a state of its own."""

    def __init__(self, crops: list[Crop], make_views: ViewMaker, seed: int) -> None:
        self.crops = crops
        self.make_views = make_views
        self.seed = seed
        self.reader = CropReader()

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: tuple[int, int]) -> list[np.ndarray]:
        step, index = key
        crop = self.crops[index]
        try:
            return self.make_views(self.reader.read(crop), numpy_rng(self.seed, "views", step, index))
        except (OSError, ValueError) as error:
            raise UserError(f"{crop.path}, frame {crop.frame}: {error}; extract the video again") from None


class ViewLoader:
    """Batches of views, epoch by epoch, from any step on.

    Yields a pair: global views (2, B, side, side, 3) and local views (V, B, side, side, 3), uint8; (0,) without local.
    """

    def __init__(self, config: PretrainConfig, crops: list[Crop], plan: BatchPlan, world: World) -> None:
        workers = config.dataset.num_workers
        self.num_workers = auto_workers(available_cores()) if workers is None else workers
        self._batches = _EpochBatches(plan, world.rank)
        self._loader = DataLoader(
            ViewDataset(crops, ViewMaker(config.augmentation), config.seed),
            batch_sampler=self._batches,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=config.dataset.pin_memory and world.device.type == "cuda",
            persistent_workers=config.dataset.persistent_workers and self.num_workers > 0,
            worker_init_fn=_one_thread,
            # not fork: our threads of OpenMP and of gloo would not live in the child
            multiprocessing_context="forkserver" if self.num_workers else None,
        )

    def steps(self, first_step: int, last_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of these steps."""
        self._batches.span = (first_step, last_step)
        return iter(self._loader)


class _EpochBatches:
    """Batch sampler of one span of steps; the loader asks it anew for each epoch."""

    def __init__(self, plan: BatchPlan, rank: int) -> None:
        self.plan = plan
        self.rank = rank
        self.span = (0, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.plan.batches(self.rank, *self.span)

    def __len__(self) -> int:
        return self.span[1] - self.span[0]


def collate(samples: list[list[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Views of B crops to uint8 (2, B, H, W, 3) and (V, B, h, w, 3)."""
    views = [torch.from_numpy(np.stack(group)) for group in zip(*samples, strict=True)]
    return torch.stack(views[:2]), torch.stack(views[2:]) if len(views) > 2 else torch.empty(0, dtype=torch.uint8)


def load_whole(crops: list[Crop], side_px: int) -> Tensor:
    """Crops without augmentation, uint8 (N, side, side, 3).

    Raises:
        UserError: When one cannot be read.
    """
    reader = CropReader()
    images = np.empty((len(crops), side_px, side_px, 3), np.uint8)
    for i, crop in enumerate(crops):
        try:
            images[i] = whole_view(reader.read(crop), side_px)
        except (OSError, ValueError) as error:
            raise UserError(f"{crop.path}, frame {crop.frame}: {error}; extract the video again") from None
    reader.close()
    return torch.from_numpy(images)


def normalize(views: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W), in 0..1, less ``mean``, over ``std``; on the views' device."""
    return ((views.float() / 255 - mean) / std).movedim(-1, -3)


def spread(total: int, count: int) -> list[int]:
    """``count`` of ``total`` indices, evenly spaced, from the middle of their spans."""
    return [int((i + 0.5) * total / count) for i in range(count)]


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
