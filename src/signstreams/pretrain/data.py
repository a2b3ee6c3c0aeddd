"""Crops on disk to batches of views."""

from __future__ import annotations

import functools
import multiprocessing.queues
import os
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from signstreams.array_types import Floats, Ints
from signstreams.engine.distributed import World
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import DamagedFile, UserError
from signstreams.formats.crops import Crop, CropReader, evenly_spread
from signstreams.pretrain.crop_index import CropIndex, build_index
from signstreams.pretrain.points_teacher import PointTargets, ShapeScale
from signstreams.pretrain.positives import Positives
from signstreams.pretrain.resource_estimates import no_shared_memory, plan_loading
from signstreams.pretrain.sampler import BatchPlan, CropGroups
from signstreams.pretrain.selection import select, signers
from signstreams.pretrain.settings import DatasetConfig, PretrainConfig
from signstreams.pretrain.similar_crops import crop_clusters
from signstreams.pretrain.views import NUM_GLOBAL, PARAMS, DeviceViews, ViewMaker, convert_crops, decode, whole_view
from signstreams.processes import ctrl_c_held_back, end_with_parent

MIN_TRAIN_CROPS_PER_PROBE = 7  # held-out crops are at most one in eight


@dataclass(frozen=True)
class CropSet:
    """The crops of a run."""

    train: CropIndex  # crops that the run learns from
    probe: CropIndex  # held-out crops that its health is measured on, evenly spread over videos and frames
    digest: str  # digest of all of them together


def find_crops(
    folders: Sequence[Path],
    *,
    probe_crops: int,
    max_crops: int | None = None,
    dataset: DatasetConfig | None = None,
    stream: str | None = None,
    cache_dir: Path | None = None,
    mirrored: Collection[str] = (),
) -> CropSet:
    """All crops of the folders (of crops or plain images, or ZIPs) that may be used, training and held-out ones.

    At most ``max_crops`` are used, evenly spread, and ``probe_crops`` of them held out. The limits of ``dataset`` on
    confidence and state are about the tracks of ``stream`` (None: of the folder's name), and sharpness, once measured,
    is kept in ``cache_dir``. Crops of folders with one of the names ``mirrored`` are mirrored as they are decoded.

    Raises:
        UserError: A folder is absent, given twice, holds no crop, or cannot be read, all of them at once; or no crop
            is within the limits.
    """
    resolved = [folder.resolve() for folder in folders]
    problems = [f"{folder}: is given twice" for i, folder in enumerate(folders) if resolved[i] in resolved[:i]]
    index, failures = build_index(folders, mirrored)
    for folder, error in failures:
        if error is None:
            problems.append(
                f"{folder}: found no crop, expected <video>.zip, <video>_f000000.jpg or images; run signstreams extract"
            )
        elif isinstance(error, FileNotFoundError):
            problems.append(f"{folder}: no such folder, expected crops of one stream; run signstreams extract")
        else:
            problems += DamagedFile.of(folder, error).problems
    if problems:
        raise UserError(problems)
    if dataset is not None:
        index = index.take(select(index, dataset, stream=stream, cache_dir=cache_dir))
        if not len(index):
            raise UserError(
                f"{', '.join(map(str, folders))}: no crop is within dataset.min_confidence, states and min_sharpness;"
                " lower them"
            )
    if max_crops is not None and len(index) > max_crops:
        index = index.take(np.array(evenly_spread(max_crops, len(index))))
    held_out = np.zeros(len(index), bool)
    num_held_out = min(probe_crops, len(index) // (MIN_TRAIN_CROPS_PER_PROBE + 1))
    held_out[evenly_spread(num_held_out, len(index))] = True
    return CropSet(index.take(~held_out), index.take(held_out), index.digest)


def crop_groups(config: PretrainConfig, crops: CropSet, clusters: Ints | None = None) -> CropGroups:
    """What the order of a run's crops depends on; ``clusters`` are their `crop_clusters`, where they are at hand.

    Raises:
        UserError: Clusters are needed, and a crop or the points of its video cannot be read.
    """
    index, dataset = crops.train, config.dataset
    if dataset.cluster_balance and clusters is None:
        clusters = crop_clusters(index, stream=config.stream, cache_dir=None)
    return CropGroups.of(index.video, index.frame, signers(index) if dataset.signer_balance else None, clusters)


def plan_batches(
    config: PretrainConfig, crops: CropSet, world_size: int, groups: CropGroups | None = None
) -> BatchPlan:
    """The order in which a run sees its crops; ``groups`` are its `crop_groups`, where they are at hand.

    Raises:
        UserError: They do not fill a batch, or not with the least gap that is asked for.
    """
    dataset = config.dataset
    try:
        return BatchPlan(
            crop_groups(config, crops) if groups is None else groups,
            batch_size=dataset.batch_size,
            world_size=world_size,
            seed=config.seed,
            balance=dataset.signer_balance,
            cluster_balance=dataset.cluster_balance,
            min_gap_frames=dataset.min_gap_frames,
        )
    except ValueError as error:
        raise UserError(
            f"{', '.join(map(str, config.train_dir))}: {error} (after {len(crops.probe)} held-out ones);"
            " lower --batch-size, or extract more video"
        ) from None


class Key(NamedTuple):
    """What a loader process needs to know of one crop of a batch, so that none holds what is known of all crops."""

    step: int
    number: int  # of the crop among the training crops
    crop: Crop
    partner: Crop | None = None  # that global view 2 is cut from, where it is another
    points: Floats | None = None  # (2, SHAPE_DIM) float16, the global views' rows of `PointTargets`, where points teach


class ViewBatch(NamedTuple):
    """Views of B crops."""

    global_views: Tensor  # (2, B, side, side, 3) uint8
    local_views: Tensor  # (V - 2, B, side, side, 3) uint8; (0,) without local views
    params: Tensor | None  # (V, B, PARAMS) float32, what is left to do for `DeviceViews`; None: nothing
    points: Tensor | None  # (2, B, SHAPE_DIM) float16 targets of the global views, where points teach


Failure = UserError | OSError


class ViewDataset(Dataset[ViewBatch | Failure]):
    """Views of crops at a step; the draws depend on (seed, step, crop) alone, so workers have no state."""

    def __init__(self, make_views: ViewMaker, seed: int, scale: ShapeScale | None = None) -> None:
        """``scale`` is that of the keys' points, which turn with their views; None: they stay as they are."""
        self.make_views, self.seed, self.scale, self.reader = make_views, seed, scale, CropReader()

    def __getitems__(self, keys: list[Key]) -> ViewBatch | Failure:
        """The batch of these keys.

        A loader process puts it into shared memory, and returns what a user may mend: PyTorch would raise a text with
        its own traceback in the middle.
        """
        if get_worker_info() is None:
            return self._batch(keys)
        try:
            batch = self._batch(keys)
            # here, not in the thread that hands it over: what fails there is lost, and the training waits forever
            for tensor in batch:
                if tensor is not None:
                    tensor.share_memory_()
            return batch
        except (UserError, OSError) as error:
            return error
        except RuntimeError as error:
            if (found := no_shared_memory(error)) is None:
                raise
            return found

    def _batch(self, keys: list[Key]) -> ViewBatch:
        """Each view is written straight to its place."""
        maker = self.make_views
        global_px, local_px = maker.config.global_px, maker.config.local_px
        num_views = len(maker.sides_px)
        global_views = np.empty((NUM_GLOBAL, len(keys), global_px, global_px, 3), np.uint8)
        local_views = np.empty((num_views - NUM_GLOBAL, len(keys), local_px, local_px, 3), np.uint8)
        params = np.empty((num_views, len(keys), PARAMS), np.float32)
        turn_deg = np.zeros((NUM_GLOBAL, len(keys)))
        for i, key in enumerate(keys):
            at, partner = key.crop, None
            try:
                if key.partner is not None:
                    at = key.partner
                    partner = decode(self.reader.read(at), maker.needed_px, is_mirrored=at.is_mirrored)
                    at = key.crop
                jpeg = self.reader.read(at)
                rng = numpy_rng(self.seed, "views", key.step, key.number)
                views = [*global_views[:, i], *local_views[:, i]]
                draws = maker.fill(jpeg, rng, views, partner, is_mirrored=at.is_mirrored)
            except (OSError, ValueError, cv2.error) as error:
                raise at.damage(error) from None
            params[:, i] = draws.params
            if draws.camera is not None:
                turn_deg[:, i] = draws.camera[:NUM_GLOBAL, 0]
        rows = [key.points for key in keys if key.points is not None]
        points = np.stack(rows, axis=1) if rows else None  # (2, B, SHAPE_DIM)
        if points is not None and self.scale is not None:
            points = self.scale.turned(points, turn_deg)
        return ViewBatch(
            torch.from_numpy(global_views),
            torch.from_numpy(local_views) if len(local_views) else torch.empty(0, dtype=torch.uint8),
            None if maker.is_photometric else torch.from_numpy(params),
            None if points is None else torch.from_numpy(points),
        )


Views = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Global and local views of a step and, where points teach, their targets: arguments of `Trainer.train_step`."""


class ViewLoader:
    """Batches of views, epoch by epoch, from any step on.

    Yields a pair: global views (2, B, side, side, 3) and local views (V, B, side, side, 3), uint8; (0,) without local.
    Where the device does the photometric half: (2, B, 3, side, side) and (V, B, 3, side, side), finished, on it.
    With ``points``, targets of all crops, those of the global views (2, B, SHAPE_DIM), turned with them, come third.
    ``positives`` say which crop view 2 is cut from.
    """

    def __init__(
        self,
        config: PretrainConfig,
        crops: Sequence[Crop],
        plan: BatchPlan,
        world: World,
        points: PointTargets | None = None,
        positives: Positives | None = None,
    ) -> None:
        self.num_workers, prefetched = plan_loading(config)
        self._batches = _EpochBatches(crops, plan, world.rank, None if points is None else points.train, positives)
        scale = points.scale if points is not None and config.augmentation.turn_deg else None
        is_on_device = config.augmentation.is_on_device(world.device.type)
        dtype = torch.bfloat16 if config.optim.precision == "bf16" else torch.float32
        self._device_views = DeviceViews(config.augmentation, world.device, dtype) if is_on_device else None
        if not self.num_workers:
            cv2.setNumThreads(1)  # views are small: threads cost more than they save
        self._loader = DataLoader(
            ViewDataset(ViewMaker(config.augmentation, is_photometric=not is_on_device), config.seed, scale),
            batch_sampler=self._batches,
            num_workers=self.num_workers,
            prefetch_factor=prefetched if self.num_workers else None,
            collate_fn=_unchanged,
            pin_memory=config.dataset.pin_memory and world.device.type == "cuda",
            persistent_workers=config.dataset.persistent_workers and self.num_workers > 0,
            worker_init_fn=_start_loader,
            # not fork: our threads of OpenMP and of gloo would not live in the child
            multiprocessing_context="forkserver" if self.num_workers else None,
        )

    def steps(self, first_step: int, last_step: int) -> Iterator[Views]:
        """The batches of these steps.

        Raises:
            UserError: A crop is damaged, or there is no room for a batch in shared memory.
            OSError: Disk, memory or a permission kept a crop from being read.
        """
        self._batches.span = (first_step, last_step)
        try:
            with ctrl_c_held_back():  # the run itself ends its loader processes
                return map(self._finished, self._loader)
        except OSError as error:  # of the locks between the processes, which are in shared memory, too
            if (found := no_shared_memory(error)) is None:
                raise
            raise found from None

    def _finished(self, batch: ViewBatch | Failure) -> Views:
        if isinstance(batch, Exception):
            raise batch
        global_views, local_views, params, points = batch
        if self._device_views is not None and params is not None:
            global_views = self._device_views(global_views, params[:NUM_GLOBAL])
            if len(params) > NUM_GLOBAL:
                local_views = self._device_views(local_views, params[NUM_GLOBAL:])
        return (global_views, local_views) if points is None else (global_views, local_views, points)


class _EpochBatches:
    """Batch sampler of one span of steps, which changes from epoch to epoch."""

    def __init__(
        self,
        crops: Sequence[Crop],
        plan: BatchPlan,
        rank: int,
        points: Floats | None,
        positives: Positives | None,
    ) -> None:
        self.crops, self.plan, self.rank, self.points, self.positives = crops, plan, rank, points, positives
        self.span = (0, 0)

    def __iter__(self) -> Iterator[list[Key]]:
        for keys in self.plan.batches(self.rank, *self.span):
            yield [self._key(step, index) for step, index in keys]

    def _key(self, step: int, index: int) -> Key:
        of_view_2 = index if self.positives is None else self.positives.partner(step, index)
        partner = None if of_view_2 == index else self.crops[of_view_2]
        points = None if self.points is None else self.points[[index, of_view_2]]
        return Key(step, index, self.crops[index], partner, points)


def load_whole(crops: Sequence[Crop], side_px: int) -> Tensor:
    """Crops without augmentation, uint8 (N, side, side, 3); mirrored where `Crop.is_mirrored` says so.

    Raises:
        UserError: When one cannot be read.
    """
    images = np.empty((len(crops), side_px, side_px, 3), np.uint8)
    places: dict[bool, list[int]] = {False: [], True: []}
    for i, crop in enumerate(crops):
        places[crop.is_mirrored].append(i)
    for is_mirrored, rows in places.items():
        convert = functools.partial(whole_view, side_px=side_px, is_mirrored=is_mirrored)
        for i, image in zip(rows, convert_crops((crops[i] for i in rows), convert), strict=True):
            images[i] = image
    return torch.from_numpy(images)


def normalize(views: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W), in 0..1, less ``mean``, over ``std``; on the views' device.

    Views that `DeviceViews` finished are floats already and pass through.
    """
    if views.is_floating_point():
        return views
    return ((views.float() / 255 - mean) / std).movedim(-1, -3)


def _unchanged(batch: Any) -> Any:  # a lambda would not reach a worker
    return batch


def _start_loader(worker: int) -> None:
    """First thing in a loader process. PyTorch watches the fork server instead of the training that asked for it."""
    end_with_parent()
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_loader)  # type: ignore[attr-defined]
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _end_loader(error: Exception, batch: Any) -> None:
    """Where a batch cannot be handed over: the queue would drop it, and the training wait for it forever."""
    traceback.print_exception(error)
    os._exit(1)
