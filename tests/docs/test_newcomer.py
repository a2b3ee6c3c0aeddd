"""README and tutorial as a newcomer follows them: every command, in order, in a fresh checkout, with its results.

Only sizes differ: a corpus of four videos, trainings of some steps (SMALLER, RECIPES, SHORTER).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from .pages import PROJECT, RUN, Command, command_blocks, fences

cv2 = pytest.importorskip("cv2")
pytest.importorskip("ai_edge_litert")

WALK = [command for page in RUN for command in command_blocks(PROJECT / page)[0]]

NOT_RUN = {
    "make test": "is what runs this",
    "source .venv/bin/activate": "PATH is set for all commands at once",
}

# Both pages have them; the second time would print the same.
READ_ONLY = {command.bare for command in WALK if command.bare.startswith("python scripts/translate_video.py")}

# SMALLER: additions to the demo's config. RECIPES: lines of recipes that take minutes or a GPU, and their replacement.
# SHORTER: parts of commands, and their replacement.
SMALLER = {
    "corpus": {"demo_size": "tiny"},
    "extract": {"set": {"fps": 12.5}},
    "pretrain": {
        "set": {
            "epochs": 2,
            "dataset.batch_size": 16,
            "dataset.epoch_steps": 4,
            "model.depth": 1,
            "monitor.log_every_steps": 2,
            "monitor.probe_every_steps": 4,
            "checkpointing.every_steps": 2,
        }
    },
    "integrate": {"set": {"train.epochs": 2, "train.eval_every_epochs": 1, "data.frame_stride": 4}},
}
RECIPES = [
    ("config/pretrain/small.toml", "epochs = 130", "epochs = 1"),
    ("config/pretrain/small.toml", "epoch_steps = 20", "epoch_steps = 2"),
    ("config/pretrain/small.toml", "batch_size = 64", "batch_size = 16"),
    ("config/pretrain/hand_r.toml", "epochs = 100", "epochs = 1"),
    ("config/pretrain/hand_r.toml", "batch_size = 128", "batch_size = 4\nepoch_steps = 2"),
    ("config/pretrain/hand_r.toml", "num_local = 8", "num_local = 2"),
    ("config/pretrain/hand_r.toml", "global_px = 112", "global_px = 56"),
    ("config/pretrain/hand_r.toml", "local_px = 56", "local_px = 28"),
    ("config/pretrain/face.toml", "global_px = 112", "global_px = 56"),
    ("config/pretrain/face.toml", "local_px = 56", "local_px = 28"),
    ("config/integrate/demo.yml", "epochs: 100", "epochs: 2"),
    ("config/integrate/demo.yml", "eval_every_epochs: 10", "eval_every_epochs: 1"),
    ("config/single_signer.yml", "model:\n", "train: {epochs: 1, eval_every_epochs: 1}\nmodel:\n"),
]
SHORTER = [
    ("--epochs 100 --batch-size 64", "--epochs 1 --batch-size 4 --dataset-epoch-steps 2 --augmentation-num-local 2"),
    ("--nproc_per_node=4", "--nproc_per_node=2"),
    ("--signal=TERM 60", "--signal=TERM 10"),  # in the middle of a training, there as here
    ("{points.weight: 0}", "{points.weight: 0, epochs: 30}"),
    ("demo_010", "demo_003"),  # of the test split, there as here
]

# Output that the page promises.
PROMISED = [
    (r"make demo$", r"(?s)\ntranslation BLEU-4 .*\n(good|unclear|bad) .*\nall of it   work_dirs/overview.html"),
    (r"snakemake --cores 8 all$", "Nothing to be done"),
    (r"python scripts/translate_video.py .*--json", r'(?m)^\{"video": "data/demo/.*"glosses": \['),
    (r"python scripts/compare_runs.py", r"train/loss"),
    (r"python scripts/validate_data_contract.py", r"0 errors"),
]


@pytest.fixture(scope="module")
def checkout(
    copy_checkout: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A checkout with small settings and an environment that is already there; it grows to 3 GB."""
    folder = copy_checkout(tmp_path_factory.mktemp("newcomer") / "signstreams")
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(PROJECT / name, folder)
    config = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    for section, values in SMALLER.items():
        config[section] = config.get(section, {}) | values
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, old, new in RECIPES:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old)
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, call in (("python", ""), ("snakemake", "-m snakemake"), ("torchrun", "-m torch.distributed.run")):
        (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n', encoding="utf-8")
        (binaries / name).chmod(0o755 | stat.S_IXUSR)
    (folder / ".venv/installed").touch()
    yield folder
    if not request.session.testsfailed:
        shutil.rmtree(folder)


def bring_own_videos(checkout: Path) -> None:
    """Three videos of 1.4 seconds, as if a reader had put them there."""
    folder = checkout / "data/mine/videos"
    folder.mkdir(parents=True)
    for index in range(3):
        source = cv2.VideoCapture(str(checkout / f"data/demo/videos/demo_00{index}.mp4"))
        video = cv2.VideoWriter(str(folder / f"news_{index}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 480))
        for _ in range(35):
            video.write(source.read()[1])
        video.release()
    shutil.copy(folder / "news_0.mp4", checkout / "new_video.mp4")


def bring_own_texts(checkout: Path) -> None:
    """Their meta.csv with the columns that the README shows."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (header,) = [body[0] for language, _, body in fences(readme) if language == "csv"]
    assert header == "id;video;text;start;end"
    texts = ("El agua está bien.", "Hoy tú compras café.", "Mañana mamá comprará pan.")
    rows = [f"clip_{index};news_{index};{text};0.12;1.3" for index, text in enumerate(texts)]
    (checkout / "data/mine/meta.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")


# What the page asks a reader to do between two commands.
BEFORE = [
    ("snakemake --cores 8 pretrain_all --configfile config/own_videos.yaml", bring_own_videos),
    ("snakemake --cores 8 all --configfile config/own_videos.yaml", bring_own_texts),
]


@pytest.fixture(scope="module")
def failed() -> list[str]:
    """Commands that failed; those after them are skipped."""
    return []


@pytest.mark.parametrize("command", WALK, ids=str)
def test_a_newcomers_command_does_what_the_page_says(command: Command, checkout: Path, failed: list[str]) -> None:
    if any(command.text.startswith(words) for words in NOT_RUN):
        return
    if command.bare in READ_ONLY.intersection(earlier.bare for earlier in WALK[: WALK.index(command)]):
        return
    if failed:
        pytest.skip(f"an earlier command failed: {failed[0]}")
    for words, prepare in BEFORE:
        if command.text.startswith(words):
            prepare(checkout)
    text = command.text
    for long, short in SHORTER:
        text = text.replace(long, short)
    environment = os.environ | {
        "PATH": f"{checkout / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout / "src"),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", text],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    if "timeout " in command.text:  # the page interrupts it on purpose
        assert done.returncode != 0, output
        return
    if done.returncode:
        failed.append(command.text)
    assert done.returncode == 0, output[-6000:]
    assert "Traceback" not in output and "not there yet" not in output
    for words, promise in PROMISED:
        if re.match(words, command.bare):
            assert re.search(promise, output), output[-3000:]


def test_the_tables_above_are_in_use() -> None:
    for words in [*NOT_RUN, *(long for long, _ in SHORTER), *(words for words, _ in BEFORE)]:
        assert any(words in command.text for command in WALK), words
    for words, _ in PROMISED:
        assert any(re.match(words, command.bare) for command in WALK), words


def listed() -> list[str]:
    """The files that the README lists as results."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (body,) = [body for language, _, body in fences(readme) if language == "text" and "overview.html  " in body[0]]
    return [re.split(r"\s{2,}", line)[0] for line in body if not line.startswith(" ")]


def test_every_file_that_the_readme_names_is_there(checkout: Path, failed: list[str]) -> None:
    assert not failed
    assert len(listed()) >= 10
    for pattern in listed():
        found = subprocess.run(
            ["bash", "-O", "failglob", "-c", f"ls -d {pattern}"], cwd=checkout, capture_output=True, text=True
        )
        assert found.returncode == 0 and found.stdout.strip(), found.stderr


def test_all_three_streams_reach_overview_and_release(checkout: Path, failed: list[str]) -> None:
    assert not failed
    for stream in ("face", "hand_l", "hand_r"):
        folder = checkout / "work_dirs" / f"dino_{stream}"
        for name in ("backbone.pt", "checkpoint_last.pt", "checkpoint_best.pt", "params.json", "metrics.jsonl"):
            assert (folder / name).stat().st_size > 0
        for name in ("curves", "attention", "patches_pca", "neighbours"):
            assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (checkout / f"work_dirs/logs/pretrain/{stream}.benchmark.tsv").exists()
    assert all((checkout / f"work_dirs/dino_hand_{side}/judge.json").stat().st_size for side in "lr")
    assert "3 of 3" in (checkout / "work_dirs/overview.html").read_text(encoding="utf-8")
    assert (checkout / "work_dirs/release/SHA256SUMS").read_text().count("backbone.safetensors") == 3


SNIPPETS = [
    (page, start, "\n".join(body))
    for page in RUN
    for language, start, body in fences((PROJECT / page).read_text(encoding="utf-8"))
    if language == "python"
]


@pytest.mark.parametrize(("page", "line", "code"), SNIPPETS)
def test_python_on_the_page_runs(page: str, line: int, code: str, checkout: Path, failed: list[str]) -> None:
    assert not failed
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page}:{line} {done.stderr}"
    assert done.stdout.strip()


def test_there_is_python_on_the_page() -> None:
    assert SNIPPETS
