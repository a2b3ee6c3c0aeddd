"""The command line: the requirement's commands as written, and settings that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.cli import parse
from signstreams.errors import UserError
from signstreams.integrate.mska_settings import check_processes, mska_checkpoint
from signstreams.integrate.settings import IntegrateConfig, few_clips
from signstreams.translate.settings import TranslateConfig

SPEC = "file::work_dirs/dino_face/backbone.pt:dinov2_vits14"


def parsed(*words: str) -> IntegrateConfig:
    return parse(IntegrateConfig, list(words))


def test_the_requirements_command_parses_as_written(project: Path) -> None:
    config = parsed(
        *("--config", str(project / "config/single_signer.yml")),
        *("--set", "model.face_backbone", SPEC),
        *("--set", "model.freeze_face_backbone", "true"),
    )
    assert config.model.face_backbone == SPEC and config.model.freeze_face_backbone
    assert config.root == Path("data/single_signer") and set(config.model.backbones) == {"face", "hand_l", "hand_r"}


def test_each_flag_of_the_requirement_reaches_its_key() -> None:
    config = parsed(
        *("--face-backbone", "file::a", "--hand-left-backbone", "file::b", "--hand-right-backbone", "timm::c"),
        *("--freeze-face-backbone", "false", "--no-freeze-hand-left-backbone", "--freeze-hand-right-backbone"),
        *("--use-mska", "--mska-translation-weight", ".5", "--mska-ctc-weight", ".25"),
        *("--mska-distillation-weight", "2", "--mska-gloss-fusion", "concat"),
        *("--lr-encoder", "1e-4", "--lr-mska", "2e-4", "--lr-decoder", "3e-4", "--lr-backbone", "1e-5"),
        *("--set", "optim.lr=1e-3", "--max-train-steps", "7", "--subset-size", "9", "--seed", "3", "--epochs", "2"),
        *("--output-dir", "out", "--resume", "must", "--on-conflict", "archive", "--batch-size", "5"),
        *("--experiment-name", "007", "--experiment-tag", "a", "b", "--experiment-notes", "n", "--root", "data/x"),
    )
    assert list(config.model.backbones.values()) == ["file::a", "file::b", "timm::c"]
    assert [config.model.is_frozen(stream) for stream in config.model.backbones] == [False, False, True]
    weights = (config.mska.translation_weight, config.mska.ctc_weight, config.mska.distillation_weight)
    assert weights == (0.5, 0.25, 2.0) and config.mska.gloss_fusion == "concat"
    optim = config.optim
    assert (optim.lr, optim.lr_encoder, optim.lr_mska, optim.lr_decoder) == (1e-3, 1e-4, 2e-4, 3e-4)
    assert (config.train.max_train_steps, config.data.subset_size, config.data.batch_size) == (7, 9, 5)
    assert (config.resume, config.on_conflict, config.seed) == ("must", "archive", 3)
    assert config.experiment.name == "007" and config.experiment.tags == ["a", "b"]


@pytest.mark.parametrize(
    "recipe", ["config/single_signer.yml", "config/integrate/demo.yml", "config/integrate/corpus.yml"]
)
def test_every_recipe_parses(project: Path, recipe: str) -> None:
    assert parsed("--config", str(project / recipe))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-use-mska", "--mska-ctc-weight", "0.5"], "mska.ctc_weight has no effect"),
        (["--no-use-mska", "--mska-gloss-fusion", "concat"], "mska.gloss_fusion has no effect"),
        (["--no-use-mska", "--lr-mska", "1e-3"], "optim.lr_mska has no effect"),
        (["--no-use-mska", "--mska-translation-weight", "0"], "no loss is left"),
        (["--freeze-face-backbone", "false"], "freeze_face_backbone has no effect"),
        (["--face-backbone", "file::a", "--lr-backbone", "1e-5"], "lr_backbone has no effect"),
        (["--face-backbone", "file::a", "--model-download"], "download has no effect: no backbone is a timm::"),
        (["--no-use-mska", "--no-use-pose"], "no stream is left"),
        (["--set", "model.d_model=66"], "d_model (66) is not an even multiple"),
        (["--set", "decoder.num_heads=3"], "not a multiple of decoder.num_heads (3)"),
        (["--set", "mska.channels=8,10"], "10 is not a multiple of 4"),
        (["--mska-ctc-weight", "0", "--mska-translation-weight", "0"], "ctc_weight are 0: no loss is left"),
        (["--set", "augmentation.time_scale=1.2,.8"], "expected 0 < low <= high"),
        (["--no-use-mska", "--mska-norm", "batch"], "mska.norm has no effect"),
        (["--no-use-mska", "--mska-layers", "reduced"], "mska.layers has no effect"),
        (["--set", "mska.norm=batch", "mska.layers=reduced"], "norm batch is that of the authors' layers"),
        (
            ["--mska-norm", "batch", "--optim-accumulate-steps", "2"],
            "statistics are of one pass, but optim.accumulate_",
        ),
        (
            ["--init-checkpoint", "mska::a.pth"],
            "needs mska.norm batch, mska.root_relative_hands false; set this too",
        ),
        (["--mska-gloss-fusion", "sum"], "'add', 'concat', 'none' or 'alone'"),
        (["--set", "model.face_bakbone=x"], "did you mean 'model.face_backbone'?"),
        (["--mska-ctc-weigth", "1"], "did you mean '--mska-ctc-weight'?"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parsed(*words)
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]


def test_paths_and_rhythm_of_writing_are_no_part_of_the_experiment() -> None:
    same = parsed("--root", "a b", "--output-dir", "x", "--face-backbone", "file::p", "--train-log-every-steps", "3")
    other = parsed("--root", "c", "--face-backbone", "file::q:vit_tiny", "--experiment-notes", "n")
    assert same.identity({"face": "0a"}) == other.identity({"face": "0a"})
    assert same.identity({"face": "0a"}) != same.identity({"face": "0b"})
    assert same.identity({}) != parsed("--root", "a b", "--lr-mska", "1").identity({})


def test_leave_to_fetch_weights_is_no_part_of_the_experiment() -> None:
    words = ("--face-backbone", "timm::a")
    asked, silent = parsed(*words, "--model-download"), parsed(*words)
    assert asked.model.download and not silent.model.download
    assert asked.identity({"face": "timm::a"}) == silent.identity({"face": "timm::a"})
    assert "download" not in silent.identity({})["model"]  # runs of before go on
    words = ("--decoder-model", "facebook/mbart-large-cc25")
    assert parsed(*words, "--decoder-offline", "false").identity({}) == parsed(*words).identity({})
    tree = silent.model_dump(mode="json")
    del tree["model"]["download"]  # of a checkpoint of before
    assert IntegrateConfig.model_validate(tree) == silent


def test_runs_of_before_keep_their_fingerprint_and_are_of_fewer_layers() -> None:
    before = {"channels", "ctc_weight", "distillation_warmup_ratio", "distillation_weight", "dropout", "gloss_fusion"}
    before |= {"head_dim", "head_ff_dim", "num_heads", "root_relative_hands", "translation_weight"}
    assert parsed("--mska-layers", "reduced").identity({})["mska"].keys() == before  # as it was recorded
    assert parsed("--no-use-mska").identity({})["mska"].keys() == before
    assert parsed().identity({})["mska"].keys() == before | {"layers"}
    assert parsed("--mska-norm", "batch").identity({})["mska"].keys() == before | {"layers", "norm"}


def test_batch_norm_is_of_one_process() -> None:
    check_processes(parsed(), 2)
    check_processes(parsed("--mska-norm", "batch"), 1)
    with pytest.raises(UserError, match=r"mska\.norm: batch, .*: found 2, expected 1; start a single process"):
        check_processes(parsed("--mska-norm", "batch"), 2)


def test_the_authors_file_is_what_stands_behind_mska() -> None:
    words = ("--mska-norm", "batch", "--set", "mska.root_relative_hands=false")
    config = parsed(*words, "--init-checkpoint", "mska::a b/best.pth")
    assert mska_checkpoint(config.train.init_checkpoint[0]) == Path("a b/best.pth")
    assert IntegrateConfig.model_validate(config.model_dump(mode="json")) == config
    assert mska_checkpoint(None) is None and mska_checkpoint(Path("run/best.pt")) is None


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("0,1", "0,9", (0.1, 0.9)),
        ("0,25", "2,400", (0.25, 2.4)),
        ("0.1", "0.9", (0.1, 0.9)),
        ("0", "1,500", None),
        ("0:01.500", "1:05.000", (1.5, 65.0)),
    ],
)
def test_a_span_is_read_as_meta_csv_is(start: str, end: str, expected: tuple[float, float] | None) -> None:
    words = ["--videos", "a.mp4", "--start", start, "--end", end]
    if expected is None:  # 1.5 or 1,500: nobody knows
        with pytest.raises(SystemExit):
            parse(TranslateConfig, words)
        return
    config = parse(TranslateConfig, words)
    assert (config.start_s, config.end_s) == expected


@pytest.mark.parametrize(("count", "is_few"), [(8, True), (999, True), (1000, False)])
def test_few_clips_are_called_few(count: int, is_few: bool) -> None:
    assert (few_clips(count) == f"{count} clips cannot teach translation; some thousands do") == is_few
