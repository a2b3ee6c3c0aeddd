"""Hand points as a teacher: loss and gradient by hand, parts and processes as one, resume, refusals."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.backbones.archs import resolve
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.files import read_json, write_json
from signstreams.formats.arrays import read_keypoints, write_keypoints
from signstreams.formats.crops import Crop
from signstreams.formats.layout import CorpusLayout
from signstreams.pretrain.crop_points import SHAPE_DIM, crop_points, point_shapes
from signstreams.pretrain.data import (
    CropSet,
    Key,
    ViewBatch,
    ViewDataset,
    ViewLoader,
    find_crops,
    load_whole,
    plan_batches,
)
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.points_teacher import PointTargets, ShapeScale, points_losses, r_squared
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import AugmentationConfig, PretrainConfig
from signstreams.pretrain.trainer import Trainer
from signstreams.pretrain.views import ViewMaker

Make = Callable[..., PretrainConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
ALONE = World(0, 1, torch.device("cpu"))
STREAM = "hand_r"


@pytest.fixture
def crops(hands_corpus: CorpusLayout) -> CropSet:
    return find_crops([hands_corpus.processed / STREAM], probe_crops=12)


@pytest.fixture
def taught(make: Make, hands_corpus: CorpusLayout) -> Make:
    """Config of a tiny run on the corpus of drawn hands, whose points teach."""

    def build(**changes: Any) -> PretrainConfig:
        return make(**{"train_dir": [str(hands_corpus.processed / STREAM)], "points": {"weight": 1.0}, **changes})

    return build


def targets_from(crops: CropSet) -> PointTargets:
    return PointTargets.of(crop_points(crops.train, None, needed_by="a test"), crops.train, crops.probe, STREAM)


def targets_of(count: int, unseen: list[int]) -> Tensor:
    """Targets (2, count, SHAPE_DIM) of the two views, none of the ``unseen`` crops."""
    targets = torch.randn(2, count, SHAPE_DIM, generator=torch.Generator().manual_seed(1))
    targets[:, unseen] = torch.nan
    return targets.half()


def trainer_of(config: PretrainConfig, steps: int = 1, unseen: tuple[int, ...] = (1, 2, 3, 6)) -> Trainer:
    """A trainer after some steps on noise, 8 crops each."""
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=1)
    trainer = Trainer(config, derive_settings(config, num_crops=200, global_batch=8), arch, ALONE)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        views = [torch.randint(0, 256, (2, 8, side, side, 3), dtype=torch.uint8, generator=rng) for side in (32, 8)]
        trainer.train_step(*views, *([targets_of(8, list(unseen))] if config.points.weight else []))
    return trainer


# -- The loss


def test_only_views_with_points_have_a_loss_and_a_gradient() -> None:
    predicted = torch.randn(2, 5, SHAPE_DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = targets_of(5, [1, 4]).float()
    targets[1, 0] = torch.nan
    losses = points_losses(predicted, targets)
    for view in range(2):
        for crop in range(5):
            total = 0.0
            for a, b in zip(predicted[view, crop].tolist(), targets[view, crop].tolist(), strict=True):
                total += 0 if math.isnan(b) else (a - b) ** 2 / 2 if abs(a - b) < 1 else abs(a - b) - 0.5
            assert float(losses[view, crop].detach()) == pytest.approx(total / SHAPE_DIM, rel=1e-5)
    losses.sum().backward()
    assert predicted.grad is not None
    has_gradient = predicted.grad.abs().sum(dim=2) > 0
    assert has_gradient.tolist() == [[True, False, True, True, False], [False, False, True, True, False]]


def test_r_squared_is_1_for_the_truth_and_0_for_the_mean() -> None:
    targets = targets_of(6, [2])[0].float()
    assert r_squared(targets.nan_to_num(), targets) == 1
    assert r_squared(torch.zeros_like(targets), targets) == 0
    assert math.isnan(r_squared(torch.zeros_like(targets), torch.full_like(targets, torch.nan)))


def test_targets_are_standardised_shapes(crops: CropSet) -> None:
    targets = targets_from(crops)
    shapes = point_shapes(crop_points(crops.train, None, needed_by="a test"))
    is_seen = ~np.isnan(shapes).any(axis=1)
    assert targets.num_seen == is_seen.sum() and 0 < targets.num_seen < len(shapes)
    assert np.isnan(targets.train[~is_seen]).all()
    seen = targets.train[is_seen].astype(np.float64)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=2e-3)
    correlation = np.corrcoef(seen[:, 7], shapes[is_seen, 7])[0, 1]
    assert correlation > 0.999
    held_out = point_shapes(crop_points(crops.probe, None, needed_by="a test"))
    mean, std = shapes[is_seen].mean(axis=0), shapes[is_seen].std(axis=0)
    np.testing.assert_allclose(targets.probe, (held_out - mean) / std, atol=5e-3)


# -- Steps


@pytest.mark.parametrize("changes", [{}, {"algorithm": "ibot"}], ids=["dino", "ibot"])
def test_parts_with_unequal_numbers_of_points_equal_the_joint_batch(make: Make, changes: dict[str, Any]) -> None:
    shape = {
        "augmentation": {"global_px": 32},
        "dino": {"freeze_prototypes_ratio": 0.0},
        "points": {"weight": 2.0},
        **changes,
    }
    joint, cut = trainer_of(make(**shape)), trainer_of(make(optim={"accumulate": 4}, **shape))
    assert joint.points is not None and cut.points is not None
    assert cut.points.read() == pytest.approx(joint.points.read(), rel=1e-5)
    assert cut.meters.read()["train/loss"] == pytest.approx(joint.meters.read()["train/loss"], rel=1e-5)
    theirs = dict(joint.student.named_parameters())
    for name, parameter in cut.student.named_parameters():
        gradient = theirs[name].grad
        if gradient is not None:
            assert parameter.grad is not None
            scale = float(gradient.abs().max())
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4 * scale, msg=name)
    assert float(theirs["points_head.linear.weight"].grad.abs().max()) > 0


def test_a_batch_without_points_teaches_what_it_does_without_the_term(make: Make) -> None:
    shape = {"augmentation": {"global_px": 32}}
    plain = trainer_of(make(**shape), steps=2)
    with_term = trainer_of(make(points={"weight": 1.0}, **shape), steps=2, unseen=tuple(range(8)))
    ours = with_term.student.state_dict()
    for name, tensor in plain.student.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)
    assert with_term.points is not None and math.isnan(with_term.points.read()["train/loss_points"])


def test_points_are_learned_from_the_pictures(taught: Make, crops: CropSet) -> None:
    """A handful of crops by heart, in whole views: far below the loss of the best constant."""
    config = taught(
        augmentation={"global_px": 32, "num_local": 0, "local_px": 48},
        points={"weight": 10.0},
        optim={"learning_rate": 2e-3, "learning_rate_scaling": "none", "warmup_ratio": 0.0},
        budget={"views": 8 * 120},
        epochs=None,
    )
    targets = torch.from_numpy(targets_from(crops).train)
    some = (~targets[:, 0].isnan()).nonzero()[:, 0][:8]
    images = load_whole([crops.train[int(i)] for i in some], 32)
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=1)
    trainer = Trainer(config, derive_settings(config, num_crops=8, global_batch=8), arch, ALONE)
    wanted = targets[some].float()
    constant = float(F.smooth_l1_loss(wanted.mean(dim=0).expand_as(wanted), wanted))
    before = trainer.probe(images, None, targets[some])["probe/points_r2"]
    batch = torch.stack((images, images)), torch.empty(0, dtype=torch.uint8), targets[some].expand(2, -1, -1)
    for _ in range(80):
        trainer.train_step(*batch)
    assert trainer.points is not None
    trainer.points.read()
    trainer.train_step(*batch)
    assert trainer.points.read()["train/loss_points"] < 0.3 * constant
    assert trainer.probe(images, None, targets[some])["probe/points_r2"] > before + 0.2  # of the teacher, which lags


# -- Batches and runs


def test_targets_travel_with_the_crops_of_a_batch(taught: Make, crops: CropSet) -> None:
    targets = targets_from(crops)
    plan = plan_batches(taught(), crops, 1)
    for workers in (0, 2):
        loader = ViewLoader(taught(dataset={"num_workers": workers}), crops.train, plan, ALONE, targets)
        for batch, keys in zip(loader.steps(2, 5), plan.batches(0, 2, 5), strict=True):
            for of_view in batch[2].numpy():
                np.testing.assert_array_equal(of_view, targets.train[[index for _, index in keys]])


def dots(points: Any) -> list[bytes]:
    """A picture for each point of a hand (21, 2), in shares of its 200 px: a white dot there."""
    pictures = np.zeros((len(points), 200, 200, 3), np.uint8)
    for picture, point in zip(pictures, points * 200 - 0.5, strict=True):
        cv2.circle(picture, [int(x) for x in np.rint(point * 16)], 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]


def centres(views: Tensor) -> Any:
    """(N, 2) x and y in shares of the side of what is white in the views (N, side, side, 3)."""
    light = views[..., 0].double().numpy()
    light = np.where(light > 60, light, 0)
    places = (np.arange(light.shape[1]) + 0.5) / light.shape[1]
    across, down = (light.sum(axis=axis) @ places for axis in (1, 2))
    return np.stack((across, down), axis=1) / light.sum(axis=(1, 2))[:, None]


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_targets_show_what_a_turned_view_shows(tmp_path: Path, is_mirrored: bool) -> None:
    """Each point of two hands is a picture of its own, so that it is known in the views; view 2 is of the other hand.

    The same draws for all points: one hand, turned as a whole.
    """
    rng = np.random.default_rng(0)
    hands = rng.uniform(0.3, 0.7, (2, 21, 2))  # far from the border, beyond which is the mirror image
    crops: list[list[Crop]] = [[], []]
    for hand, points in enumerate(hands):
        for number, png in enumerate(dots(points)):
            path = tmp_path / f"{hand}_{number}.png"
            path.write_bytes(png)
            crops[hand].append(Crop(path.stem, 0, path, None, len(png), None, is_mirrored))
    if is_mirrored:
        hands[..., 0] = 1 - hands[..., 0]
    scale = ShapeScale(rng.normal(0, 0.1, SHAPE_DIM), rng.uniform(0.05, 0.2, SHAPE_DIM))
    rows = scale.standardized(point_shapes(hands))
    views = AugmentationConfig(global_px=200, local_px=16, num_local=1, turn_deg=40.0)
    views = views.model_copy(update={"global_scale": (1.0, 1.0)})
    dataset = ViewDataset(ViewMaker(views, is_photometric=False), seed=3, scale=scale)
    for step in range(4):
        batch = dataset.__getitems__([Key(step, 0, *pair, rows) for pair in zip(*crops, strict=True)])
        assert isinstance(batch, ViewBatch) and batch.points is not None
        for view in range(2):
            seen = scale.standardized(point_shapes(centres(batch.global_views[view])[None]))[0]
            assert np.abs(seen - rows[view]).max() > 0.1, "it is not turned"
            for target in batch.points[view].numpy():
                np.testing.assert_allclose(target, seen, atol=0.05)


def test_a_target_turned_back_is_the_target(crops: CropSet) -> None:
    targets = targets_from(crops)
    turn_deg = np.linspace(-45, 45, len(targets.train))
    there = targets.scale.turned(targets.train, turn_deg)
    assert there.dtype == np.float16 and np.nanmax(np.abs(there - targets.train)) > 0.5
    np.testing.assert_allclose(targets.scale.turned(there, -turn_deg), targets.train, atol=0.05)  # NaN stay so
    points = crop_points(crops.train, None, needed_by="a test")
    seen = np.flatnonzero(~np.isnan(points[:, 0, 0]))[:1]
    same = PointTargets.of(np.tile(points[seen], (9, 1, 1)), crops.train, crops.probe, STREAM)
    assert np.isfinite(same.scale.turned(same.train, np.full(9, 45.0))).all(), "what never moves is beyond float16"


@pytest.mark.parametrize("workers", [0, 2])
def test_each_global_view_has_its_own_turn_of_the_target(taught: Make, crops: CropSet, workers: int) -> None:
    targets = targets_from(crops)
    config = taught(dataset={"num_workers": workers}, augmentation={"turn_deg": 20.0})
    plan, maker = plan_batches(config, crops, 1), ViewMaker(config.augmentation)
    loader = ViewLoader(config, crops.train, plan, ALONE, targets)
    for batch, keys in zip(loader.steps(2, 4), plan.batches(0, 2, 4), strict=True):
        for i, (step, crop) in enumerate(keys):
            camera = maker.draw(40, 40, numpy_rng(config.seed, "views", step, crop)).camera
            assert camera is not None
            expected = targets.scale.turned(targets.train[[crop, crop]], camera[:2, 0])
            np.testing.assert_array_equal(batch[2][:, i].numpy(), expected)


def test_upright_targets_of_turned_views_are_another_run(taught: Make, tmp_path: Path) -> None:
    """As an earlier version had them."""
    config = taught(epochs=1, augmentation={"turn_deg": 20.0})
    pretrain(config, STREAM)
    path = config.output_dir / "state" / "fingerprint.json"
    recorded = read_json(path)
    assert recorded["config"]["points"].pop("turned") is True
    write_json(path, recorded)
    with pytest.raises(UserError, match=r"points\.turned is absent there, True here"):
        pretrain(config, STREAM)
    pretrain(taught(epochs=1, output_dir=str(tmp_path / "upright")), STREAM)
    assert "turned" not in read_json(tmp_path / "upright" / "state" / "fingerprint.json")["config"]["points"]


def test_a_run_that_was_stopped_ends_with_the_same_bits_and_says_what_taught(
    taught: Make, tmp_path: Path, stopped_at: StoppedAt
) -> None:
    straight = pretrain(taught(output_dir=str(tmp_path / "straight")), STREAM)
    config = taught(output_dir=str(tmp_path / "stopped"))
    with stopped_at(7):  # between two lines of metrics
        pretrain(config, STREAM)
    assert pretrain(config, STREAM).read_bytes() == straight.read_bytes()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("straight", "stopped"))
    for a, b in zip(ours, theirs, strict=True):
        assert {k: v for k, v in a.items() if "time/" not in k} == {k: v for k, v in b.items() if "time/" not in k}
    assert 0 < ours[-1]["train/loss_points"] < 1 and math.isfinite(ours[-1]["probe/points_r2"])
    state = torch.load(straight, weights_only=True)
    assert not [name for name in state["model"] if "points" in name]
    card = straight.with_name("README.md").read_text()
    assert "| `points.weight` | 1; points taught, where seen |" in card, card
    assert "`probe/points_r2`" in card, card


def test_two_processes_equal_one_with_the_joint_batch(
    taught: Make, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """With partners, whose search rank 0 does for both."""
    changes = {"epochs": 1, "positives": {"neighbour_s": [0.1, 0.3], "other_signer_prob": 0.5}}
    one = taught(output_dir=str(tmp_path / "one"), **changes)
    pretrain(one, STREAM)
    two = taught(output_dir=str(tmp_path / "two"), distributed=True, dataset={"batch_size": 4}, **changes)
    path = tmp_path / "two.json"
    path.write_text(two.model_dump_json(exclude_unset=True))
    run_two(tmp_path, project / "scripts" / "pretrain_dino_hands.py", "--config", str(path))
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["trainer"] for name in ("one", "two")
    ]
    for a, b in zip(*(state["optimizer"]["state"].values() for state in states), strict=True):
        scale = max(1e-6, float(a["exp_avg"].abs().max()))
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=1e-3, atol=1e-3 * scale)  # the gradients
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for a, b in zip(ours, theirs, strict=True):
        for key in ("train/loss", "train/loss_points", "train/grad_norm"):
            assert a[key] == pytest.approx(b[key], rel=1e-3), key


def copied(layout: CorpusLayout, folder: Path) -> CorpusLayout:
    shutil.copytree(layout.root, folder)
    return CorpusLayout(folder)


def test_other_points_are_another_run(taught: Make, hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    layout = copied(hands_corpus, tmp_path / "corpus")
    config = taught(epochs=1, train_dir=[str(layout.processed / STREAM)])
    pretrain(config, STREAM)
    points = read_keypoints(layout.keypoints("v1"))
    points[5, :, :2] += 0.01
    write_keypoints(layout.keypoints("v1"), points)
    with pytest.raises(UserError, match=r"points\.targets"):
        pretrain(config, STREAM)


def test_without_the_term_nothing_is_recorded_of_it(taught: Make) -> None:
    assert "points" not in taught(points={"weight": 0.0}).identity()
    assert taught().identity()["points"] == {"weight": 1.0}


def test_crops_without_points_are_refused_in_one_line(
    make: Make, hands_corpus: CorpusLayout, crops_dir: Path, tmp_path: Path
) -> None:
    weight = {"weight": 0.5}
    with pytest.raises(UserError) as refused:
        pretrain(make(points=weight), STREAM)
    folder = crops_dir.parent.resolve() / "keypoints"
    assert refused.value.problems == [
        f"{folder}: no such folder, but points.weight needs the points of the crops in {crops_dir}; leave it out, or"
        " extract the videos"
    ]
    layout = copied(hands_corpus, tmp_path / "corpus")
    for video in range(5):
        points = read_keypoints(layout.keypoints(f"v{video}"))
        points[..., 2] = 0
        write_keypoints(layout.keypoints(f"v{video}"), points)
    with pytest.raises(UserError, match=r"0 of \d+ crops have points, expected 2 at least"):
        pretrain(make(points=weight, train_dir=[str(layout.processed / STREAM)]), STREAM)
