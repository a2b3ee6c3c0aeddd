"""iBOT: the patch loss by its formula, masking that hides, heads, two processes, exact resume, every setting."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from signstreams.backbones.archs import resolve
from signstreams.cli import parse
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.formats.crops import CropWriter
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.losses import Centre, sinkhorn_targets
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
ALONE = World(0, 1, torch.device("cpu"))
STREAM = "hand_r"
SIDE, PATCH, BATCH = 32, 8, 8
NUM_PATCHES = (SIDE // PATCH) ** 2


@pytest.fixture
def ibot(make: Make) -> Make:
    """Config of `make` with ``algorithm = "ibot"`` and global views of 4 x 4 patches."""

    def build(**changes: Any) -> PretrainConfig:
        views = {"global_px": SIDE, **changes.pop("augmentation", {})}
        return make(**{"algorithm": "ibot", "augmentation": views, **changes})

    return build


def _trainer(config: PretrainConfig, total_steps: int = 20) -> Trainer:
    derived = derive_settings(config, num_crops=BATCH * total_steps // config.epochs, global_batch=BATCH)
    arch = resolve("vit_tiny", image_px=SIDE, patch_px=PATCH, depth=config.model.depth)
    return Trainer(config, derived, arch, ALONE)


def _views(seed: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 256, (2, batch, SIDE, SIDE, 3), dtype=torch.uint8, generator=rng),
        torch.randint(0, 256, (2, batch, 8, 8, 3), dtype=torch.uint8, generator=rng),
    )


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- masking that hides


class _Recorder:
    """What the backbones and heads of a trainer took in and gave out at its last step."""

    def __init__(self, trainer: Trainer) -> None:
        self.first_block: dict[str, list[Tensor]] = {"student": [], "teacher": []}
        self.head_rows: dict[str, list[int]] = {}
        for name in ("student", "teacher"):
            network = getattr(trainer, name)
            network.backbone.blocks[0].register_forward_pre_hook(
                lambda _, args, name=name: self.first_block[name].append(
                    args[0].detach().unflatten(0, args[1][0]).clone()  # (T, D) of one group to (V * B, 1 + P, D)
                )
            )
            for head in ("head", "patch_head"):
                if getattr(network, head) is not None:
                    key = f"{name}.{head}"
                    self.head_rows[key] = []
                    getattr(network, head).register_forward_pre_hook(
                        lambda _, args, key=key: self.head_rows[key].append(len(args[0]))
                    )


def _patch_inputs(config: PretrainConfig, views: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What the first blocks of student and teacher get of the global views, and the teacher's patch targets."""
    trainer = _trainer(config)
    recorder = _Recorder(trainer)
    kept: list[Tensor] = []
    trainer.patches.targets = _kept(trainer.patches.targets, kept)
    trainer.train_step(*views)
    student, teacher = recorder.first_block["student"][0], recorder.first_block["teacher"][0]
    return torch.stack((student, teacher)), kept[0]  # (2, V * B, 1 + P, D), (M, K)


def _kept(function: Callable[..., Tensor], kept: list[Tensor]) -> Callable[..., Tensor]:
    def wrapped(*args: Any) -> Tensor:
        kept.append(function(*args).clone())
        return kept[-1]

    return wrapped


def test_masked_pixels_reach_the_teacher_and_never_the_student(ibot: Make) -> None:
    config = ibot()
    masked = _trainer(config).patches.draw(0, 2, BATCH)[0]
    views = _views(0)
    pixels = masked.masks.view(2, BATCH, 4, 4).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)  # (2, B, S, S)
    changed = torch.where(pixels[..., None], 255 - views[0], views[0])
    inputs, targets = _patch_inputs(config, views)
    other_inputs, other_targets = _patch_inputs(config, (changed, views[1]))
    assert torch.equal(inputs[0], other_inputs[0])
    assert not torch.equal(inputs[1], other_inputs[1])
    assert not torch.allclose(targets, other_targets)


def test_the_student_sees_the_mask_token_with_its_position_there_and_the_image_elsewhere(ibot: Make) -> None:
    config = ibot()
    trainer = _trainer(config)
    with torch.no_grad():
        trainer.student.backbone.mask_token.normal_(generator=torch.Generator().manual_seed(0))
    recorder = _Recorder(trainer)
    masks = trainer.patches.draw(0, 2, BATCH)[0].masks  # (V * B, P)
    token = trainer.student.backbone.mask_token.detach().clone()
    position = trainer.student.backbone.position_table(SIDE, SIDE).detach().clone()[0, 1:]  # (P, D)
    trainer.train_step(*_views(0))
    student, teacher = recorder.first_block["student"][0][:, 1:], recorder.first_block["teacher"][0][:, 1:]
    assert torch.equal(student[masks], (token + position).expand(len(masks), -1, -1)[masks])
    assert torch.equal(student[~masks], teacher[~masks])
    assert len(recorder.first_block["student"]) == 2  # the local views: no masks, other size
    assert len(recorder.first_block["teacher"]) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_only_class_tokens_and_masked_patches_go_through_the_head(ibot: Make, shared: bool) -> None:
    trainer = _trainer(ibot(ibot={"shared_head": shared}))
    recorder = _Recorder(trainer)
    masked = len(trainer.patches.draw(0, 2, BATCH)[0].rows)
    trainer.train_step(*_views(0))
    if shared:
        expected = {"student.head": [4 * BATCH + masked], "teacher.head": [2 * BATCH + masked]}
    else:
        expected = {"student.head": [4 * BATCH], "student.patch_head": [masked]}
        expected |= {"teacher.head": [2 * BATCH], "teacher.patch_head": [masked]}
    assert recorder.head_rows == expected
    assert 0 < masked < BATCH * NUM_PATCHES / 2


def test_masked_views_take_part_in_the_class_loss(ibot: Make) -> None:
    """The class tokens of masked views differ from those of the same views unmasked, and their loss with them."""
    losses = {}
    for share in (0.5, 1.0):
        trainer = _trainer(ibot(ibot={"masked_views_ratio": share}))
        trainer.train_step(*_views(0))
        losses[share] = trainer.meters.read()["train/loss_dino"]
    assert losses[0.5] != losses[1.0]


# ---------------------------------------------------------------- heads, weights, schedules


def test_own_prototypes_of_the_patches_learn(ibot: Make) -> None:
    trainer = _trainer(ibot(ibot={"shared_head": False}))
    assert trainer.student.patch_head.prototypes.weight_v.shape == (16, 16)
    assert trainer.student.head.prototypes.weight_v.shape == (16, 16)
    before = trainer.student.patch_head.prototypes.weight_v.clone()
    for step in range(3):
        trainer.train_step(*_views(step))
    assert trainer.patches.centre.value.shape == (16,)
    assert not torch.equal(trainer.student.patch_head.prototypes.weight_v, before)
    assert not torch.equal(trainer.teacher.patch_head.prototypes.weight_v, before)
    assert all(math.isfinite(value) for value in trainer.meters.read().values())


@pytest.mark.parametrize("shared", [True, False])
def test_the_prototypes_of_every_head_rest_while_frozen(ibot: Make, shared: bool) -> None:
    trainer = _trainer(ibot(ibot={"shared_head": shared}, dino={"freeze_prototypes_ratio": 0.1}))  # 2 of 20 steps
    moved = []
    for step in range(3):
        before = [head.prototypes.weight_v.clone() for head in trainer.student.heads]
        trainer.train_step(*_views(step))
        now = [head.prototypes.weight_v for head in trainer.student.heads]
        moved.append([not torch.equal(a, b) for a, b in zip(before, now, strict=True)])
    assert moved == [[False] * len(before), [False] * len(before), [True] * len(before)]


def test_the_patches_own_head_is_fitted_to_patches(ibot: Make) -> None:
    trainer = _trainer(ibot(ibot={"shared_head": False}))
    images = _views(5)[0].flatten(0, 1)
    trainer.standardize_head(images)
    with torch.no_grad():
        _, patches = trainer.teacher.backbone.forward_features(trainer.normalize(images))  # (N, P, D)
        outputs = trainer.teacher.patch_head.mlp(patches.flatten(0, 1))
    assert outputs.mean(dim=0).abs().max() < 1e-3
    assert torch.allclose(outputs.std(dim=0), torch.ones(outputs.shape[1]), atol=1e-2)
    for ours, theirs in zip(trainer.student.heads, trainer.teacher.heads, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_loss_is_the_weighted_sum_of_its_terms(ibot: Make) -> None:
    weights = {"cls_weight": 0.5, "patch_weight": 3.0}
    trainer = _trainer(ibot(ibot=weights, koleo={"weight": 0.1}))
    trainer.train_step(*_views(0))
    record = trainer.meters.read()
    # half of the views are masked, and the others count as 0
    expected = 0.5 * record["train/loss_dino"] + 3.0 * 0.5 * record["train/loss_patch"]
    assert record["train/loss"] == pytest.approx(expected + 0.1 * record["train/loss_koleo"], rel=1e-5)
    assert record["train/kl_patch"] >= 0
    assert 0.05 < record["patch/masked_ratio"] < 0.25


def test_the_mask_token_is_learned_without_decay_and_averaged(ibot: Make, make: Make) -> None:
    trainer = _trainer(ibot())
    token = trainer.student.backbone.mask_token
    for step in range(3):
        trainer.train_step(*_views(step))
    assert token.abs().max() > 0
    assert trainer.teacher.backbone.mask_token.abs().max() > 0
    (group,) = [g for g in trainer.optimizer.param_groups if any(p is token for p in g["params"])]
    assert group["weight_decay"] == 0
    assert not _trainer(make(augmentation={"global_px": SIDE})).student.backbone.mask_token.requires_grad


def test_the_patches_temperature_is_the_class_tokens(ibot: Make) -> None:
    trainer = _trainer(ibot(dino={"warmup_teacher_temp": 0.03, "teacher_temp": 0.05}))
    for step in (0, 3, 15):
        now = trainer.scheduled(step)
        assert now["patch_teacher_temp"] == now["teacher_temp"]


CHANGES: list[dict[str, Any]] = [
    {"ibot": {"cls_weight": 0.5}},
    {"ibot": {"patch_weight": 3.0}},
    {"ibot": {"masked_views_ratio": 0.75}},
    {"ibot": {"mask_ratio": [0.3, 0.6]}},
    {"ibot": {"min_block_aspect": 1.0}},
    {"ibot": {"max_block_tries": 1}},
    {"ibot": {"shared_head": False}},
    {"sinkhorn": {"use": True}},
    {"sinkhorn": {"use": True, "eps": 0.06}},
    {"koleo": {"weight": 0.1}},
    {"optim": {"precision": "bf16"}},
    {"model": {"drop_path_prob": 0.3, "depth": 2}},
]


def test_every_setting_has_an_effect_and_keeps_the_steps_finite(ibot: Make) -> None:
    weights = []
    for changes in [{}, *CHANGES]:
        trainer = _trainer(ibot(**changes))
        for step in range(2):
            trainer.train_step(*_views(step))
        record = trainer.meters.read()
        assert all(math.isfinite(value) for value in record.values()), changes
        has_centre = float(trainer.patches.centre.value.norm()) > 0
        assert has_centre == (trainer.sinkhorn is None)
        weights.append((changes, trainer.student.backbone.patch_embed.proj.weight.detach().clone()))
    for i, (changes, ours) in enumerate(weights):
        for other, theirs in weights[:i]:
            assert not torch.equal(ours, theirs), (changes, other)
    named = {name for changes in CHANGES for name in changes.get("ibot", {})}
    fields = type(trainer.config.ibot).model_fields
    assert named == {name for name, field in fields.items() if field.default is not None}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--ibot-patch-weight 2", "ibot.patch_weight has no effect: algorithm is 'dino'"),
        ("--algorithm ibot --set ibot.mask_ratio=[0.5,0.1]", "expected 0 < low <= high < 1"),
        ("--algorithm ibot --ibot-patch-weight 0", "ibot.patch_weight"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(PretrainConfig, ["--train-dir", "x/face", "--output-dir", "o", *words.split()])
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


def test_views_that_cannot_be_masked_are_refused(ibot: Make) -> None:
    with pytest.raises(UserError, match="is one patch, iBOT expects at least 2 x 2"):
        pretrain(ibot(augmentation={"global_px": 8}), STREAM)


# ---------------------------------------------------------------- bad losses, learning, resume


def test_a_loss_that_is_not_finite_changes_nothing_but_the_count(ibot: Make) -> None:
    trainer = _trainer(ibot())
    trainer.train_step(*_views(0))
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    centre = trainer.patches.centre.value.clone()
    trainer._mean.fill_(float("nan"))
    trainer.train_step(*_views(1))
    assert all(torch.equal(value, before[name]) for name, value in trainer.student.state_dict().items())
    assert torch.equal(trainer.patches.centre.value, centre)
    assert trainer.meters.num_bad_in_a_row() == 1
    assert all(math.isfinite(value) for value in trainer.meters.read().values())


def test_masked_patches_of_a_few_crops_are_learned_by_heart(ibot: Make) -> None:
    """Stripes that run through the whole crop: what is hidden follows from what is seen."""
    config = ibot(
        epochs=1,
        optim={"learning_rate": 3e-3, "learning_rate_scaling": "none"},
        dino={"momentum": 0.9},
        sinkhorn={"use": True, "eps": 0.03},
    )
    trainer = _trainer(config, total_steps=120)
    crops = torch.arange(BATCH)[:, None] * torch.arange(SIDE)[None] * 40 % 256  # (B, S)
    image = crops.to(torch.uint8)[:, None, :, None].expand(BATCH, SIDE, SIDE, 3)
    views = (image.expand(2, -1, -1, -1, -1), image[:, :8, :8].expand(2, -1, -1, -1, -1))
    for _ in range(120):
        trainer.train_step(*views)
        if trainer.step == 1:
            first = trainer.meters.read()
        if trainer.step == 110:
            trainer.meters.read()
    last = trainer.meters.read()
    assert last["train/loss_patch"] < 0.7 * math.log(16) < first["train/loss_patch"]
    assert last["train/kl_patch"] < 0.5 * first["train/kl_patch"]
    assert last["patch/entropy_sample"] < last["patch/entropy_batch"] - 0.5


def test_the_state_holds_everything_a_later_process_needs(ibot: Make) -> None:
    config = ibot(model={"drop_path_prob": 0.2, "depth": 2}, ibot={"shared_head": False})
    straight, early = _trainer(config), _trainer(config)
    for step in range(6):
        straight.train_step(*_views(step))
    for step in range(3):
        early.train_step(*_views(step))
    torch.manual_seed(99)
    late = _trainer(config)
    late.load_state_dict(early.state_dict())
    for step in range(3, 6):
        late.train_step(*_views(step))
    for part in ("student", "teacher", "centre", "patch_centre"):
        ours, theirs = straight.state_dict()[part], late.state_dict()[part]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert straight.meters.read() == late.meters.read()


def test_a_run_goes_on_from_its_middle_to_the_same_bytes(ibot: Make, tmp_path: Path) -> None:
    straight = pretrain(ibot(), STREAM)
    records = read_metrics(straight.parent / "metrics.jsonl")
    assert {"train/loss_patch", "train/kl_patch", "patch/masked_ratio", "schedule/patch_teacher_temp"} <= set(
        records[0]
    )
    middle = ibot(output_dir=str(tmp_path / "middle"), resume=str(straight.parent / "checkpoint_best.pt"))
    assert pretrain(middle, STREAM).read_bytes() == straight.read_bytes()
    exported = torch.load(straight, weights_only=True)
    assert exported["metadata"]["algorithm"] == "ibot"


# ---------------------------------------------------------------- several processes

UNEVEN = """
import sys, torch
from signstreams.engine import distributed
from signstreams.pretrain.losses import Centre, sinkhorn_targets
world = distributed.start(distributed=True, device="cpu")
parts = torch.load(sys.argv[1], weights_only=True)
own = parts[world.rank]
centre = Centre(own.shape[1], 0.9)
centre.update(own)
result = {"centre": centre.value}
result |= {temp: sinkhorn_targets(own, temp=temp, num_iters=3) for temp in (0.5, 0.01)}
torch.save(result, f"{sys.argv[2]}{world.rank}.pt")
distributed.close()
"""


@pytest.mark.parametrize("counts", [(9, 4), (0, 7)])
def test_centre_and_sinkhorn_count_the_rows_of_all_processes(
    counts: tuple[int, int], tmp_path: Path, run_two: Callable[..., None]
) -> None:
    parts = [_scores(count, 6, seed=i) + i for i, count in enumerate(counts)]
    torch.save(parts, tmp_path / "parts.pt")
    (tmp_path / "uneven.py").write_text(UNEVEN)
    run_two(tmp_path, tmp_path / "uneven.py", str(tmp_path / "parts.pt"), str(tmp_path / "out"))
    results = [torch.load(tmp_path / f"out{rank}.pt", weights_only=True) for rank in (0, 1)]
    joint = torch.cat(parts)
    centre = Centre(6, 0.9)
    centre.update(joint)
    for result in results:
        torch.testing.assert_close(result["centre"], centre.value)
    for temp in (0.5, 0.01):  # at the second one most exponentials underflow
        expected = sinkhorn_targets(joint, temp=temp, num_iters=3)
        torch.testing.assert_close(expected.sum(dim=1), torch.ones(len(joint)))
        torch.testing.assert_close(torch.cat([result[temp] for result in results]), expected)


@pytest.mark.parametrize(
    "changes",
    [{}, {"sinkhorn": {"use": True}, "ibot": {"shared_head": False}}],
    ids=["centre, shared head", "sinkhorn, own head"],
)
def test_two_processes_equal_one_with_the_joint_batch(
    ibot: Make, project: Path, tmp_path: Path, changes: dict[str, Any], run_two: Callable[..., None]
) -> None:
    one = ibot(output_dir=str(tmp_path / "one"), epochs=1, **changes)
    pretrain(one, STREAM)
    two = ibot(output_dir=str(tmp_path / "two"), epochs=1, distributed=True, dataset={"batch_size": 4}, **changes)
    path = tmp_path / "two.json"
    path.write_text(two.model_dump_json())
    run_two(tmp_path, project / "scripts" / "pretrain_dino_hands.py", "--config", str(path))
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["trainer"] for name in ("one", "two")
    ]
    for part in ("centre", "patch_centre"):
        torch.testing.assert_close(states[0][part]["value"], states[1][part]["value"], rtol=1e-4, atol=1e-6)
    assert (float(states[0]["patch_centre"]["value"].norm()) > 0) == (not changes)
    for a, b in zip(*(state["optimizer"]["state"].values() for state in states), strict=True):
        scale = float(a["exp_avg"].abs().max())
        assert scale > 0
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=1e-3, atol=1e-3 * scale)  # the gradients
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    keys = ("train/loss", "train/grad_norm", "train/loss_patch", "train/kl_patch", "patch/entropy_batch")
    for a, b in zip(ours, theirs, strict=True):
        assert a["patch/masked_ratio"] == b["patch/masked_ratio"]
        for key in keys:
            assert a[key] == pytest.approx(b[key], rel=1e-3), key


# ---------------------------------------------------------------- the requirement


def test_the_toml_of_the_requirement_runs_as_written(
    project: Path, tmp_path: Path, picture: Callable[[int, int], bytes], requirement_toml: str
) -> None:
    """On a folder of 96 crops; only the length, the sizes and the process's threads are set on the command line."""
    folder = tmp_path / "data" / "single_signer" / "processed" / "face"
    for video in range(3):
        with CropWriter(folder / f"v{video}.zip", f"v{video}") as writer:
            for frame in range(32):
                writer.add(frame, picture(video, frame))
    (tmp_path / "face.toml").write_text(requirement_toml, encoding="utf-8")
    small = "--epochs 2 --arch vit_tiny --depth 1 --image-size 32 --local-size 16 --augmentation-num-local 1"
    command = [sys.executable, str(project / "scripts" / "pretrain_dino_face.py"), "--config", "face.toml"]
    answer = subprocess.run(
        [*command, *small.split(), "--threads", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert answer.returncode == 0, answer.stderr[-800:]
    out = tmp_path / "work_dirs" / "dino_face"
    params = json.loads((out / "params.json").read_text())
    assert params["config"]["algorithm"] == "ibot"
    assert params["config"]["experiment"]["tags"] == ["face", "ibot"]
    assert math.isfinite(read_metrics(out / "metrics.jsonl")[-1]["train/loss_patch"])
    assert (out / "backbone.pt").exists()
