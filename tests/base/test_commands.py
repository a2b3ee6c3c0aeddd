"""The console command: one table behind `signstreams` and the scripts, answered before anything heavy is imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import signstreams
from signstreams.commands import COMMANDS, main, run_script

HEAVY = {"torch", "torchvision", "timm", "transformers", "tokenizers", "sacrebleu", "safetensors", "mediapipe", "cv2"}
HEAVY |= {"av", "numpy", "pandas", "matplotlib", "yaml", "snakemake", "tensorboard", "wandb", "jinja2", "argcomplete"}


def loaded(*words: str, code: int = 0) -> tuple[str, set[str]]:
    """What a Python process prints (the lines of its error, where it ends with one), and the modules it imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    modules = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    return said if code else done.stdout, modules


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_help_lists_every_command_with_one_line_and_imports_nothing_heavy() -> None:
    text, modules = loaded("-m", "signstreams", "--help")
    lines = text.splitlines()
    for command in COMMANDS.values():
        (line,) = (line for line in lines if line.startswith(f"  {command.name} "))
        assert line.endswith(command.help) and len(line) <= 100
    assert not modules & (HEAVY | {"pydantic"})


def test_help_of_a_command_and_of_its_script_import_nothing_heavy(project: Path) -> None:
    for words in (["-m", "signstreams", "train"], [str(project / "scripts" / "train_slt_multistream_v9.py")]):
        text, modules = loaded(*words, "--help")
        assert "--hand-right-backbone" in text
        assert not modules & HEAVY


@pytest.mark.parametrize("words", [["evaluate"], ["boundaries"], ["translate", "video.mp4"]])
def test_an_absent_model_is_told_before_torch_is_imported(words: list[str], tmp_path: Path) -> None:
    said, modules = loaded("-m", "signstreams", *words, "--checkpoint", str(tmp_path / "best.pt"), code=2)
    assert said.startswith(f"error: {tmp_path}/best.pt: no such file, expected a trained model; train one")
    assert "pydantic" in modules and "torch" not in modules


def test_an_absent_video_and_an_output_without_a_place_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    for name in ("best.pt", "video.mp4"):
        (tmp_path / name).write_bytes(b"not read")
    words = ("-m", "signstreams", "translate", "--checkpoint", str(tmp_path / "best.pt"), "--videos")
    said, modules = loaded(*words, str(tmp_path / "other.mp4"), code=2)
    assert said.startswith(f"error: {tmp_path}/other.mp4: no such file or folder") and "torch" not in modules
    output = ("--output", str(tmp_path / "best.pt" / "a.srt"))
    said, modules = loaded(*words, str(tmp_path / "video.mp4"), *output, code=2)
    assert said.startswith(f"error: --output {tmp_path}/best.pt/a.srt") and "torch" not in modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_with_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: signstreams {name} ")


def test_a_wrong_name_or_flag_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "trian") == [
        "error: unknown command 'trian'; did you mean 'train'?",
        "try: signstreams --help",
    ]
    assert failure(capsys, "extract", "--vidoes", "a") == [
        "error: unknown argument '--vidoes'; did you mean '--videos'?",
        "try: signstreams extract --help",
    ]
    assert failure(capsys)[0] == "usage: signstreams COMMAND ..."


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"signstreams {signstreams.__version__}\n"


def test_a_command_does_what_its_script_does(
    tmp_path: Path, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--root", str(tmp_path), "--size", "tiny", "--annotations-only"]
    main(["demo", *words])
    said = capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["render_demo_corpus.py", *words])
    run_script(str(project / "scripts" / "render_demo_corpus.py"))
    assert capsys.readouterr() == said
    assert "clips of" in said.out


def test_a_pretraining_script_takes_its_own_streams_and_the_command_takes_all(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(project / "scripts" / "pretrain_dino_face.py")
    words = ["--train-dir", str(tmp_path / "hand_l"), "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit) as left:
        run_script(script)
    assert left.value.code == 2
    assert "stream 'hand_l': expected face here; use scripts/pretrain_dino_hands.py" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["signstreams"])
    (line,) = failure(capsys, "pretrain", *words)
    assert "hand_l: no such folder" in line


def test_table_scripts_and_config_classes_are_all_there(project: Path) -> None:
    scripts = {path.name for path in (project / "scripts").glob("*.py") if not path.name.startswith("export_")}
    named = [script for command in COMMANDS.values() for script in command.scripts]
    assert sorted(named) == sorted(scripts)
    for command in COMMANDS.values():
        assert not command.config or command.model().model_fields
    for script in scripts:
        text = (project / "scripts" / script).read_text(encoding="utf-8")
        assert re.search(r"\n\nif __name__ == \"__main__\":\n    run_script\(__file__(, __doc__)?\)\n$", text), script
        assert len(text.splitlines()) <= 10, script


def test_the_console_command_is_declared(project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert declared == {"signstreams": "signstreams.commands:main"}


# -- Tab completion, as bash asks for it

SHELL = (
    'compopt() { :; }; eval "$(activate-global-python-argcomplete --dest=-)"; '
    'COMP_LINE="$1" COMP_POINT=${#1}; read -ra COMP_WORDS <<< "$1"; [[ "$1" == *" " ]] && COMP_WORDS+=(""); '
    'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _python_argcomplete_global "${COMP_WORDS[0]}"; '
    'printf "%s\\n" "${COMPREPLY[@]}"'
)
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def completions(words: str, folder: Path) -> list[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", SHELL, "bash", words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PATH": path},
    )
    assert done.stderr == ""
    return sorted(done.stdout.split())


@needs_bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pretrain_dino_hands.py --checkpointing-ev", "--checkpointing-every-steps"),
        ("pretrain_dino_hands.py --algorithm ", "dino ibot"),
        ("pretrain_dino_hands.py --algorithm=i", "ibot"),  # bash takes what follows the = for the word
        ("pretrain_dino_hands.py --set checkpointing.every_s", "checkpointing.every_steps="),
        ("pretrain_dino_hands.py --set epochs=3 optim.precision=b", "bf16"),
        ("pretrain_dino_hands.py --dataset-states detected ", "detected tracked filled"),
        ("pretrain_dino_hands.py --train-dir ", "clips"),  # files
        ("train_slt_multistream_v9.py --no-dist", "--no-distributed"),
        ("translate_video.py video.mp4 --chec", "--checkpoint"),
        ("launch.py --g", "--gpus"),
    ],
)
def test_bash_gets_flags_choices_keys_and_files_of_a_script(
    words: str, expected: str, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    found = completions(f"python {project}/scripts/{words}", tmp_path)
    assert [word.rstrip("/") for word in found] == sorted(expected.split())


@needs_bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tra", "train translate"),
        ("pretrain --stream hand_", "hand_l hand_r"),
        ("pretrain --sinkhorn-use ", "true false none"),
        ("translate a.mp4 --set decoding.num_b", "decoding.num_beams="),
    ],
)
def test_bash_gets_names_of_commands_and_what_each_takes(words: str, expected: str, tmp_path: Path) -> None:
    assert completions(f"python -m signstreams {words}", tmp_path) == sorted(expected.split())


@needs_bash
def test_scripts_that_would_not_answer_are_not_called(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import signstreams, pathlib; pathlib.Path('was_run').touch()")
    assert completions(f"python {tmp_path}/other.py --", tmp_path) == []
    assert not (tmp_path / "was_run").exists()


def test_an_answer_to_the_shell_loads_nothing_heavy(project: Path, tmp_path: Path) -> None:
    line = "python scripts/train_slt_multistream_v9.py --no-dist"
    asked = {
        "_ARGCOMPLETE": "2",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"),
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(project / "scripts" / "train_slt_multistream_v9.py")],
        capture_output=True,
        text=True,
        env=os.environ | asked,
    )
    assert (tmp_path / "out").read_text().split() == ["--no-distributed"]
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pydantic" in modules and not modules & (HEAVY - {"argcomplete"})
