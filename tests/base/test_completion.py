"""Tab completion as bash asks for it, with the words as bash cuts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from signstreams.completion import SCRIPT

SHELL = (
    'eval "$(python -m signstreams.completion)"; '
    'COMP_LINE="$1" COMP_POINT=${#1}; read -ra COMP_WORDS <<< "$1"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
    '_signstreams; printf "%s\\n" "${COMPREPLY[@]}"'
)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pretrain_dino_hands.py --checkpointing-e", "--checkpointing-every-steps --checkpointing-export"),
        ("pretrain_dino_hands.py --algorithm ", "dino ibot"),
        ("pretrain_dino_hands.py --algorithm=i", "ibot"),  # bash takes what follows the = for the word
        ("pretrain_dino_hands.py --stream hand_", "hand_l hand_r"),
        ("pretrain_dino_hands.py --sinkhorn-use ", "true false none"),
        ("pretrain_dino_hands.py --set checkpointing.every_s", "checkpointing.every_steps="),
        ("pretrain_dino_hands.py --set epochs=3 optim.precision=b", "bf16"),
        ("pretrain_dino_hands.py --dataset-states detected ", "detected tracked filled"),
        ("pretrain_dino_hands.py --train-dir ", ""),  # files: bash knows them
        ("pretrain_dino_hands.py --config config/", ""),
        ("translate_video.py video.mp4 --chec", "--checkpoint"),
        ("launch.py --g", "--gpus"),
    ],
)
def test_bash_gets_flags_choices_and_keys(words: str, expected: str, project: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", SHELL, "bash", f"python {project}/scripts/{words}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == sorted(expected.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("first", ["", "import signstreams  # as a user's training does"])
def test_scripts_that_would_not_answer_are_not_called(first: str, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(f"{first}\nimport pathlib; pathlib.Path('was_run').touch()")
    words = f"python {tmp_path}/other.py --"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", SHELL, "bash", words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
    )
    assert done.stdout.strip() == ""
    assert not (tmp_path / "was_run").exists()


def test_an_answer_loads_nothing_heavy(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(project / "scripts" / "train_slt_multistream_v9.py")],
        capture_output=True,
        text=True,
        env=os.environ | {"SIGNSTREAMS_COMPLETE": "python scripts/train_slt_multistream_v9.py --no-dist"},
    )
    assert done.stdout.split() == ["--no-distributed"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pydantic" in loaded and not loaded & {"torch", "numpy", "pandas"}


def test_the_script_is_for_zsh_too() -> None:
    assert "bashcompinit" in SCRIPT
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-c", f"autoload -U compinit; compinit -u; {SCRIPT}"], check=True, capture_output=True)
