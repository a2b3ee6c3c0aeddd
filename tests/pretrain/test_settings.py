"""The requirement's TOML and flags work as written, our recipes are sound, settings without effect are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from signstreams.backbones.archs import resolve
from signstreams.cli import parse
from signstreams.config.load import build
from signstreams.errors import UserError
from signstreams.integrate.settings import IntegrateConfig
from signstreams.pretrain import settings
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.run import architecture, with_local_side
from signstreams.pretrain.settings import PretrainConfig, auto_workers
from signstreams.processes import available_cores

MINIMUM = ["--train-dir", "processed/face", "--output-dir", "out"]


def _parse(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, [*MINIMUM, *words])


def test_the_toml_of_the_requirement_is_accepted_as_written(tmp_path: Path, requirement_toml: str) -> None:
    path = tmp_path / "face ñ.toml"
    path.write_text(requirement_toml, encoding="utf-8")
    config = parse(PretrainConfig, ["--config", str(path), "--batch-size", "16"])
    assert config.dataset.batch_size == 16
    assert config.augmentation.blur_probs == (0.7, 0.7, 0.7)
    assert config.experiment.tags == ["face", "ibot"]
    assert config.named_stream(("face",)) == "face"
    assert config.algorithm == "ibot"


def test_every_flag_of_the_requirement_works_under_its_own_name() -> None:
    command = (
        "--train-dir a/face b/face --output-dir w --epochs 100 --batch-size 64 --learning-rate 1e-3 --algorithm dino"
        " --export-backbone w/backbone.pt --koleo-weight 0.5 --koleo-epsilon 1e-4 --use-sinkhorn --sinkhorn-eps 0.05"
        " --sinkhorn-iters 4 --resume must --distributed --dataset-persistent-workers --dataset-num-workers 3"
        " --experiment-tag x --experiment-tag y --experiment-notes hola --experiment-name n --arch vit_tiny"
        " --patch-size 8 --depth 3 --image-size 64 --local-size 32 --on-conflict archive"
    )
    config = parse(PretrainConfig, command.split())
    assert config.train_dir == [Path("a/face"), Path("b/face")]
    assert (config.dataset.batch_size, config.optim.learning_rate, config.koleo.weight) == (64, 1e-3, 0.5)
    assert (config.sinkhorn.use, config.sinkhorn.eps, config.sinkhorn.iters) == (True, 0.05, 4)
    assert config.experiment.model_dump() == {"name": "n", "tags": ["x", "y"], "notes": "hola"}
    assert (config.model.arch, config.model.patch_px, config.model.depth) == ("vit_tiny", 8, 3)
    assert (config.augmentation.global_px, config.augmentation.local_px) == (64, 32)
    assert (config.resume, config.distributed, config.on_conflict) == ("must", True, "archive")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--koleo-epsilon 0.01", "koleo.epsilon has no effect: koleo.weight is 0"),
        ("--sinkhorn-iters 5", "sinkhorn.iters has no effect: sinkhorn.use is not true"),
        ("--use-sinkhorn --sinkhorn-eps .05 --set dino.teacher_temp=.05", "dino.teacher_temp has no effect"),
        ("--use-sinkhorn --sinkhorn-eps .05 --dino-warmup-teacher-temp .05", "dino.warmup_teacher_temp has no effect"),
        ("--set dino.center_momentum=0.5", "is fixed at 0.9 and is not a setting"),
        ("--set augmentation.num_local=0 --local-size 32", "local_px has no effect"),
        ("--koleo-weight 1 --batch-size 1", "a batch_size of 1 has no neighbour"),
        ("--set augmentation.global_scale=[0.9,0.4]", "expected 0 < low <= high <= 1"),
        ("--set augmentation.std=[0,1,1]", "expected values above 0"),
        ("--set checkpointing.last_name=params.json", "'params.json' names two files"),
        ("--set checkpointing.last_name=../x.pt", "checkpointing.last_name"),
        ("--koleo-wieght 1", "did you mean '--koleo-weight'"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        _parse(*words.split())
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


def test_the_stream_is_known_by_the_folders_name() -> None:
    hands = ("hand_l", "hand_r")
    config = parse(PretrainConfig, ["--train-dir", "x/hand_l", "y/hand_l", "--output-dir", "o"])
    assert config.named_stream(hands) == "hand_l"
    with pytest.raises(UserError, match="one stream per run"):
        parse(PretrainConfig, ["--train-dir", "x/hand_l", "y/hand_r", "--output-dir", "o"]).named_stream(hands)
    for folders in (["x/hand_l"], ["x/hand_r", "x/hand_l"], ["x/face"]):
        named = parse(PretrainConfig, ["--train-dir", *folders, "--output-dir", "o", "--stream", "hand_r"])
        with pytest.raises(UserError, match=f"found a folder of {Path(folders[-1]).name}, and the stream is 'hand_r'"):
            named.named_stream(hands)
    other = parse(PretrainConfig, ["--train-dir", "x/hand_l", "--output-dir", "work_dirs/dino_hand_r"])
    with pytest.raises(
        UserError, match="named after another stream than 'hand_l'; give --output-dir work_dirs/dino_hand_l"
    ):
        other.named_stream(hands)
    anywhere = parse(PretrainConfig, ["--train-dir", "x/crops", "--output-dir", "o"])
    assert anywhere.named_stream(("face",)) == "face"
    with pytest.raises(UserError, match="add --stream"):
        anywhere.named_stream(hands)


def test_a_hand_is_never_flipped_and_a_face_may_be() -> None:
    flipped = ["--set", "augmentation.flip_prob=0.5"]
    hand = parse(PretrainConfig, ["--train-dir", "x/hand_l", "--output-dir", "o", *flipped])
    with pytest.raises(UserError, match="a flipped hand_l is the other hand"):
        hand.named_stream(("hand_l", "hand_r"))
    assert _parse(*flipped).named_stream(("face",)) == "face"


def test_paths_names_and_logging_are_no_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    same = _parse("--experiment-name", "x", "--set", "dataset.num_workers=3", "--resume", "must", "--device", "cpu")
    assert same.identity() == _parse().identity()
    assert _parse("--set", "augmentation.hue=0.2").identity() != _parse().identity()
    assert _parse("--batch-size", "32").identity() != _parse("--batch-size", "64").identity()
    assert _parse("--batch-size", "32", "--accumulate", "2").identity(4) == _parse("--batch-size", "64").identity(2)
    one = _parse("--set", "augmentation.gaussian_blur_prob=0.3").identity()
    monkeypatch.setattr(settings, "BLUR_VIEW_2_PROB", 0.3)
    monkeypatch.setattr(settings, "BLUR_LOCAL_PROB", 0.3)
    assert one == _parse("--set", "augmentation.blur_view_1_prob=0.3").identity()


@pytest.mark.parametrize(
    "name", ["demo_face", "demo_hand_l", "demo_hand_r", "demo_hands", "face", "hand_l", "hand_r", "hands"]
)
def test_every_recipe_we_ship_can_run(project: Path, name: str) -> None:
    path = project / "config" / "pretrain" / f"{name}.toml"
    config = build(PretrainConfig, [path], [])
    stream = name.removeprefix("demo_")
    assert config.named_stream((stream,)) == stream
    model, views = config.model, config.augmentation
    arch = resolve(model.arch, image_px=views.global_px, patch_px=model.patch_px, depth=model.depth)
    assert views.global_px % arch.patch_px == views.local_px % arch.patch_px == 0
    _has_header(path)


def _has_header(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines()[:10] if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Duration:", "Expectation:"):
        assert any(word in line for line in header)


def test_the_recipe_from_dinov2_has_its_published_values(project: Path) -> None:
    """SignMusketeers: 10,000 steps of 1,024 at 2e-4 times the root of batch / 1,024, layer decay .9."""
    path = project / "config" / "pretrain" / "from_dinov2.toml"
    config = build(PretrainConfig, [path], [])
    assert [config.named_stream((stream,)) for stream in ("hand_r",)] == ["hand_r"]
    arch, views = resolve(config.model.arch, image_px=config.augmentation.global_px), config.augmentation
    assert arch.num_registers == 4 and views.global_px % arch.patch_px == views.local_px % arch.patch_px == 0
    for global_batch, steps, rate in ((1024, 10_000, 2e-4), (128, 80_000, 2e-4 / 8**0.5)):
        derived = derive_settings(config, num_crops=1_000_000, global_batch=global_batch)
        assert (derived.total_steps, derived.peak_learning_rate) == (steps, pytest.approx(rate))
        assert (derived.layer_decay, derived.patch_embed_factor, derived.use_sinkhorn) == (0.9, 0.2, True)
        assert derived.decay_steps == steps / 5
        assert 500 <= derived.head_only_steps <= 2_000
    _has_header(path)


def test_loader_processes_leave_the_model_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [auto_workers(cores) for cores in (1, 2, 4, 64)] == [0, 0, 3, 8]
    alone = available_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert available_cores() == max(1, alone // 2)


@pytest.mark.parametrize(
    ("model", "views", "expected"),
    [
        ({}, {}, ("dinov2_vits14", 56)),
        ({"arch": "vit_small"}, {}, ("vit_small", 48)),
        ({"arch": "vit_tiny", "patch_px": 12}, {}, ("vit_tiny", 48)),
        ({}, {"local_px": 42}, ("dinov2_vits14", 42)),
    ],
)
def test_the_requirements_architecture_is_the_default_and_local_views_fit_its_patches(
    model: dict[str, Any], views: dict[str, Any], expected: tuple[str, int]
) -> None:
    tree = {"train_dir": ["x/face"], "output_dir": "out", "model": model, "augmentation": views}
    config = with_local_side(PretrainConfig.model_validate(tree))
    assert (config.model.arch, config.augmentation.local_px) == expected
    if views != {}:
        with pytest.raises(UserError, match="does not divide"):
            architecture(with_local_side(PretrainConfig.model_validate(tree | {"augmentation": {"local_px": 48}})))


@pytest.mark.parametrize(("words", "expected"), [("--resume", "must"), ("--resume --seed 1", "must"), ("", "auto")])
def test_resume_alone_means_must(words: str, expected: str) -> None:
    given = ["--train-dir", "x/face", "--output-dir", "out", *words.split()]
    assert parse(PretrainConfig, given).resume == expected
    assert parse(IntegrateConfig, words.split()).resume == expected
