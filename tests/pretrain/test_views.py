"""Views: each kind by its own recipe, reproducible, never flipped for hands; batches that spread over the videos."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from signstreams.config.pretrain import AugmentationConfig
from signstreams.engine.distributed import World
from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.formats.crops import list_crops
from signstreams.pretrain import views as views_module
from signstreams.pretrain.color import LUMA, apply_color, color_affine, solarize
from signstreams.pretrain.data import ViewLoader, find_crops, load_whole, normalize
from signstreams.pretrain.sampler import BatchPlan, group_by_video, pass_order
from signstreams.pretrain.views import ViewMaker, decode, jpeg_size, random_box, recipes, whole_view

PLAIN = {
    "jitter_prob": 0.0,
    "grayscale_prob": 0.0,
    "blur_view_1_prob": 0.0,
    "blur_view_2_prob": 0.0,
    "blur_local_prob": 0.0,
    "solarize_prob": 0.0,
}


def _jpeg(side_px: int = 96) -> bytes:
    ramp = np.linspace(0, 255, side_px).astype(np.uint8)
    image = np.stack([np.tile(ramp, (side_px, 1)), np.tile(ramp[:, None], (1, side_px)), np.full((side_px,) * 2, 90)])
    return cv2.imencode(".jpg", image.transpose(1, 2, 0).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[
        1
    ].tobytes()


def test_every_view_has_its_size_and_the_draws_decide_everything() -> None:
    make_views = ViewMaker(AugmentationConfig(global_px=32, local_px=16, num_local=3))
    first, again = (make_views(_jpeg(), numpy_rng(1, 2)) for _ in range(2))
    assert [view.shape for view in first] == [(32, 32, 3)] * 2 + [(16, 16, 3)] * 3
    assert all(view.dtype == np.uint8 for view in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], make_views(_jpeg(), numpy_rng(1, 3))[0])


def test_blur_and_solarisation_happen_as_often_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(views_module, "blur", lambda view, sigma: calls.append(f"blur{len(view)}") or view)
    monkeypatch.setattr(views_module, "solarize", lambda view: calls.append(f"solarize{len(view)}") or view)
    config = AugmentationConfig(global_px=32, local_px=16, num_local=1)
    maker, image, rng = ViewMaker(config), decode(_jpeg()), numpy_rng(0)
    rates = []
    for recipe in maker.recipes:
        calls.clear()
        for _ in range(400):
            maker._view(image, recipe, rng)
        rates.append((sum(c.startswith("blur") for c in calls) / 400, sum(c.startswith("sol") for c in calls) / 400))
    expected = [(1.0, 0.0), (0.1, 0.2), (0.5, 0.0)]
    assert rates[0] == expected[0]  # DINOv2's code blurs this view never
    assert np.allclose(rates, expected, atol=0.08)


def test_one_blur_probability_replaces_the_three() -> None:
    assert [r.blur_prob for r in recipes(AugmentationConfig(num_local=1))] == [1.0, 0.1, 0.5]
    assert [r.blur_prob for r in recipes(AugmentationConfig(num_local=1, gaussian_blur_prob=0.7))] == [0.7] * 3
    with pytest.raises(ValueError, match="blur_local_prob has no effect"):
        AugmentationConfig(gaussian_blur_prob=0.7, blur_local_prob=0.2)


def test_left_stays_left() -> None:
    """A ramp that rises to the right rises in every view, unless a flip is asked for."""
    maker = ViewMaker(AugmentationConfig(global_px=32, local_px=16, num_local=4, **PLAIN))
    flipping = ViewMaker(AugmentationConfig(global_px=32, local_px=16, num_local=4, flip_prob=1.0, **PLAIN))
    for seed in range(20):
        for view in maker(_jpeg(), numpy_rng(seed)):
            assert view[:, -1, 0].mean() > view[:, 0, 0].mean()
        for view in flipping(_jpeg(), numpy_rng(seed)):
            assert view[:, -1, 0].mean() < view[:, 0, 0].mean()


def test_a_box_has_the_area_and_aspect_it_may_have() -> None:
    rng = numpy_rng(0)
    for _ in range(300):
        top, left, height, width = random_box(100, 80, (0.2, 0.5), rng)
        assert 0 <= top <= 100 - height
        assert 0 <= left <= 80 - width
        assert 0.19 < height * width / 8000 < 0.51
        assert 0.72 < width / height < 1.38
    assert random_box(100, 10, (1.0, 1.0), rng) == (45, 0, 10, 10)  # no such part fits: the middle square


def test_a_large_crop_is_decoded_small_when_the_views_need_no_more() -> None:
    jpeg = _jpeg(224)
    assert jpeg_size(jpeg) == (224, 224)
    assert decode(jpeg).shape == (224, 224, 3)
    assert decode(jpeg, 100.0).shape == (112, 112, 3)
    assert decode(jpeg, 50.0).shape == (56, 56, 3)
    assert decode(jpeg, 150.0).shape == (224, 224, 3)
    assert whole_view(jpeg, 48).shape == (48, 48, 3)
    assert abs(whole_view(jpeg, 48).astype(int) - cv2.resize(decode(jpeg), (48, 48), interpolation=3)).max() < 8


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"GIF89a....................", b"\xff\xd8\xff\xe0\x00\x04ab\x00\x00"]
)
def test_bytes_that_are_no_jpeg_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no readable JPEG"):
        decode(data)


def test_the_folded_colours_equal_the_steps_one_by_one() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(90, 160, (8, 8, 3), dtype=np.uint8)
    mean = float((view @ LUMA).mean())
    x = view.astype(float) * 1.1  # brightness, then contrast about the mean luma, then saturation about each luma
    x = 0.8 * x + 0.2 * 1.1 * mean
    x = 1.3 * x - 0.3 * (x @ LUMA)[..., None]
    affine = color_affine(mean, brightness=1.1, contrast=0.8, saturation=1.3)
    assert np.abs(apply_color(view, affine) - x).max() <= 0.55  # rounding, and coefficients of finite precision


def test_neutral_colours_change_nothing_and_grey_is_grey() -> None:
    view = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(apply_color(view, color_affine(100.0)), view)
    gray = apply_color(view, color_affine(100.0, is_gray=True)).astype(int)
    assert np.array_equal(gray[..., 0], gray[..., 1])
    assert np.abs(gray[..., 0] - view @ LUMA).max() <= 0.55
    turned = apply_color(view // 2 + 64, color_affine(100.0, hue_turn=0.1))
    assert np.abs(turned @ LUMA - (view // 2 + 64) @ LUMA).max() < 1.5  # a turn of hue keeps luma
    back = apply_color(apply_color(view // 4 + 96, color_affine(0, hue_turn=0.1)), color_affine(0, hue_turn=-0.1))
    assert np.abs(back.astype(int) - (view // 4 + 96)).max() <= 2


def test_solarising_inverts_the_bright_half() -> None:
    view = np.array([[[0, 127, 128], [200, 255, 10]]], np.uint8)
    assert solarize(view).tolist() == [[[0, 127, 127], [55, 0, 10]]]


def test_a_pass_sees_every_crop_once_and_another_pass_in_another_order() -> None:
    videos = [np.arange(0, 50), np.arange(50, 57), np.arange(57, 100)]
    orders = [pass_order(videos, 3, number) for number in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(100))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_near_duplicates_do_not_meet_in_a_batch() -> None:
    """16 videos of 100 frames in batches of 32: two frames of a video a batch, and those far apart."""
    videos = [np.arange(100 * v, 100 * (v + 1)) for v in range(16)]
    for number in range(3):
        order = pass_order(videos, 0, number)
        for batch in order[:1600].reshape(50, 32):
            counts = np.bincount(batch // 100, minlength=16)
            assert counts.max() <= 4
            gaps = [abs(a - b) for v in range(16) for a, b in itertools.combinations(batch[batch // 100 == v] % 100, 2)]
            assert min(gaps, default=99) >= 10


def test_two_ranks_see_the_batch_of_one() -> None:
    videos = group_by_video(["b", "a", "b", "a", "c", "c", "a", "b"] * 4)
    joint = BatchPlan(videos, batch_size=8, world_size=1, seed=0)
    split = BatchPlan(videos, batch_size=4, world_size=2, seed=0)
    parts = zip(split.batches(0, 0, 9), split.batches(1, 0, 9), strict=True)
    assert [a + b for a, b in parts] == list(joint.batches(0, 0, 9))


def test_a_plan_goes_on_from_any_step() -> None:
    plan = BatchPlan([np.arange(20), np.arange(20, 30)], batch_size=4, world_size=1, seed=0)
    whole = list(plan.batches(0, 0, 20))
    assert list(plan.batches(0, 9, 20)) == whole[9:]
    with pytest.raises(ValueError, match="30 crops do not fill a batch of 40"):
        BatchPlan(plan.videos, batch_size=40, world_size=1, seed=0)


def test_workers_do_not_change_the_views(crops_dir: Path, make: Callable[..., Any]) -> None:
    crops = find_crops([crops_dir], max_crops=None, probe_crops=8).train
    plan = BatchPlan(group_by_video([crop.video_id for crop in crops]), batch_size=8, world_size=1, seed=0)
    world = World(0, 1, torch.device("cpu"))
    batches = []
    for workers in (0, 2):
        loader = ViewLoader(make(dataset={"num_workers": workers}), crops, plan, world)
        batches.append([*loader.steps(0, 3), *loader.steps(3, 5)])
    for (globals_a, locals_a), (globals_b, locals_b) in zip(*batches, strict=True):
        assert globals_a.shape == (2, 8, 16, 16, 3)
        assert locals_a.shape == (2, 8, 8, 8, 3)
        assert torch.equal(globals_a, globals_b)
        assert torch.equal(locals_a, locals_b)


def test_archives_and_loose_jpegs_are_found_together(
    crops_dir: Path, tmp_path: Path, picture: Callable[[int, int], bytes]
) -> None:
    (tmp_path / "otra carpeta").mkdir()
    for frame in range(8):
        (tmp_path / "otra carpeta" / f"suelto_f{frame:06d}.jpg").write_bytes(picture(0, frame))
    found = find_crops([crops_dir, tmp_path / "otra carpeta"], max_crops=None, probe_crops=16)
    assert (len(found.train), len(found.probe)) == (49, 7)
    assert not {(c.video_id, c.frame) for c in found.train} & {(c.video_id, c.frame) for c in found.probe}
    few = find_crops([crops_dir], max_crops=24, probe_crops=8)
    assert (len(few.train), len(few.probe)) == (21, 3)
    assert {crop.video_id for crop in few.train} == {"video_0", "video_1", "video_2"}
    assert few.digest != found.digest


def test_folders_without_crops_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "v.zip").write_bytes(b"no archive")
    with pytest.raises(UserError) as caught:
        find_crops([tmp_path / n for n in ("empty", "absent", "bad")], max_crops=None, probe_crops=8)
    text = caught.value.problems
    assert len(text) == 3
    assert "found no crop" in text[0]
    assert "no such folder" in text[1]
    assert "v.zip" in text[2]


def test_a_broken_crop_is_named(crops_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "v_f000003.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match="frame 3: is no readable JPEG"):
        load_whole(list_crops(tmp_path), 16)


def test_normalising_ends_channels_first() -> None:
    pixel = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    out = normalize(pixel, torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0.5, 0.25, 0.1]))
    assert out.shape == (1, 3, 1, 1)
    assert out.flatten().tolist() == pytest.approx([1.0, -2.0, 1.0])
