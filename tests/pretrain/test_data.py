"""Crops on disk to batches: found, split, read by any number of workers alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.formats.crops import list_crops
from signstreams.pretrain.data import ViewLoader, find_crops, load_whole, normalize
from signstreams.pretrain.sampler import BatchPlan, group_by_video


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
    with pytest.raises(UserError, match="frame 3: is no readable image"):
        load_whole(list_crops(tmp_path), 16)


def test_normalising_ends_channels_first() -> None:
    pixel = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    out = normalize(pixel, torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0.5, 0.25, 0.1]))
    assert out.shape == (1, 3, 1, 1)
    assert out.flatten().tolist() == pytest.approx([1.0, -2.0, 1.0])
