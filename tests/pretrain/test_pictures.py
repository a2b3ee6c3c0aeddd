"""What a backbone sees: attention by a slow softmax, planted directions, neighbours that are strangers, the files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.errors import UserError
from signstreams.formats.crops import CropWriter
from signstreams.pretrain.data import find_crops
from signstreams.pretrain.pictures import (
    FAR_FRAMES,
    PICTURE_FILES,
    _candidates,
    class_attention,
    nearest_crops,
    patch_colors,
    show_backbone,
)
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig, ShowConfig

Make = Callable[..., PretrainConfig]


def _model(num_registers: int, layer_scale_init: float | None) -> VisionTransformer:
    arch = resolve(
        "vit_tiny",
        image_px=32,
        patch_px=8,
        depth=2,
        num_registers=num_registers,
        layer_scale_init=layer_scale_init,
    )
    model = VisionTransformer(arch).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def _slow_attention(model: VisionTransformer, image: Tensor) -> Tensor:
    """Token by token and head by head, (heads, P)."""
    x = model._embed(image[None], None)
    for block in model.blocks[:-1]:
        x = block(x)
    last = model.blocks[-1]
    x = last.norm1(x)[0]
    width = x.shape[1] // last.attn.num_heads
    weight, bias = last.attn.qkv.weight, last.attn.qkv.bias
    rows = []
    for head in range(last.attn.num_heads):
        mine = slice(head * width, (head + 1) * width)
        query = weight[mine] @ x[0] + bias[mine]
        keys = slice(x.shape[1] + head * width, x.shape[1] + (head + 1) * width)
        scores = [float(query @ (weight[keys] @ token + bias[keys])) / width**0.5 for token in x]
        exps = np.exp(np.array(scores) - max(scores))
        rows.append(exps / exps.sum())
    return torch.tensor(np.array(rows))[:, 1 + model.arch.num_registers :]


@pytest.mark.parametrize(("num_registers", "layer_scale_init"), [(0, None), (3, 0.1)])
@pytest.mark.parametrize("shape", [(32, 32), (48, 64)])
def test_attention_is_that_of_the_last_block(
    num_registers: int, layer_scale_init: float | None, shape: tuple[int, int]
) -> None:
    model = _model(num_registers, layer_scale_init)
    images = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    maps = class_attention(model, images)
    assert maps.shape == (2, 3, shape[0] // 8, shape[1] // 8)
    for image, of_image in zip(images, maps, strict=True):
        with torch.no_grad():
            expected = _slow_attention(model, image)
        torch.testing.assert_close(of_image.flatten(1).double(), expected, rtol=1e-4, atol=1e-6)
    assert (maps.sum(dim=(2, 3)) < 1).all()
    assert not model.blocks[-1].norm1._forward_hooks  # nothing stays behind


def test_planted_directions_become_colours() -> None:
    rng = torch.Generator().manual_seed(0)
    patches = 0.01 * torch.randn(4, 9, 20, generator=rng)
    is_hand = torch.rand(4, 9, generator=rng) > 0.5
    patches[..., 5] += 3.0 * is_hand
    colors = patch_colors(patches)
    assert colors.shape == (4, 9, 3)
    assert (colors[is_hand][:, 0] > 0.9).all()
    assert (colors[~is_hand][:, 0] < 0.1).all()
    torch.testing.assert_close(patch_colors(patches.flip(0)).flip(0), colors, rtol=1e-4, atol=1e-4)


def test_colours_of_few_patches_do_not_fail() -> None:
    assert patch_colors(torch.randn(1, 2, 20)).shape == (1, 2, 3)
    assert torch.isfinite(patch_colors(torch.zeros(2, 4, 8))).all()


def test_neighbours_are_the_nearest_that_is_candidate() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [5.0, 5.0]])
    is_candidate = torch.tensor([[False, True, True, True], [True, False, False, False]])
    places, cosines = nearest_crops(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), bank, is_candidate, 2)
    assert places[0].tolist() == [1, 3]
    assert cosines[0].tolist() == pytest.approx([0.9939, 0.7071], abs=1e-3)
    assert places[1, 0] == 0
    assert torch.isinf(cosines[1, 1])


def test_answers_come_from_other_videos_or_from_far_away(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    for video, frames in (("a", 2 * FAR_FRAMES), ("b", 3)):
        with CropWriter(tmp_path / "two" / f"{video}.zip", video) as writer:
            for frame in range(frames):
                writer.add(frame, picture(0, frame % 16))
    with CropWriter(tmp_path / "one" / "a.zip", "a") as writer:
        for frame in range(2 * FAR_FRAMES):
            writer.add(frame, picture(0, frame % 16))
    for folder, words in (("two", "from other videos"), ("one", "frames away")):
        crops = list(find_crops([tmp_path / folder], probe_crops=8).train)
        is_candidate, said = _candidates(crops, crops)
        assert words in said
        for i, crop in enumerate(crops):
            for j, other in enumerate(crops):
                is_far = folder == "one" and abs(crop.frame - other.frame) >= FAR_FRAMES
                assert bool(is_candidate[i, j]) == (crop.video_id != other.video_id or is_far)


def test_a_run_draws_them_and_the_script_draws_the_same(make: Make, project: Path, tmp_path: Path) -> None:
    config = make(epochs=1, monitor={"pictures": True})
    folder = pretrain(config, "hand_r").parent
    listed = json.loads((folder / "artifacts.json").read_text(encoding="utf-8"))
    for name in PICTURE_FILES:
        assert listed[Path(name).stem]["file"] == name
        image = cv2.imread(str(folder / name))
        assert min(image.shape[:2]) > 300
        assert image.std() > 10
    command = [sys.executable, str(project / "scripts" / "show_backbone.py"), "--backbone", str(folder / "backbone.pt")]
    command += ["--crops", str(config.train_dir[0]), "--output", str(tmp_path / "seen"), "--title", "hand_r: vit_tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split("\n") if line] == list(PICTURE_FILES)
    ours, theirs = (cv2.imread(str(at / "patches_pca.png")) for at in (folder, tmp_path / "seen"))
    assert ours.shape == theirs.shape


def test_a_network_of_timm_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("it was read"))
    config = ShowConfig(backbone="timm::test_vit.r160_in1k", crops=tmp_path, output=tmp_path / "out")
    with pytest.raises(UserError, match="is a network of timm, expected a file::"):
        show_backbone(config)


def test_the_script_names_what_it_cannot_show(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(project / "scripts" / "show_backbone.py"), "--backbone", str(tmp_path / "no.pt")]
    command += ["--crops", str(tmp_path), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
