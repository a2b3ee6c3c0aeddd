"""The benchmark of recipes, which makes the table of pretrained features: benchmarks/recipes.py."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from signstreams.judge.labelled_sets import read_set
from signstreams.judge.probes import splits_of
from signstreams.judge.settings import EvaluateBackboneConfig

TINY = """
train_dir = ["photos"]
output_dir = "run"
[dataset]
batch_size = 8
[model]
arch = "vit_tiny"
patch_px = 8
depth = 1
[augmentation]
global_px = 16
num_local = 0
[monitor]
probe_crops = 8
"""


@pytest.fixture
def recipes(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    return importlib.import_module("recipes")


@pytest.fixture
def data(photos: Path, tmp_path: Path) -> Path:
    """A folder with hand_digits.zip of 4 classes with 6 photos each."""
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "hand_digits.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg"), reverse=True):  # the order in the ZIP decides nothing
            archive.write(path, f"Dataset/{path.relative_to(photos)}")
    return folder


def test_a_recipe_is_a_name_or_a_file_of_settings(recipes: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TINY)
    words = ["--set", "digits", "ksl", "--recipe", "ibot", str(file), "--seeds", "4", "5", "--", "--koleo-weight", "0"]
    args = recipes.parser().parse_args(words)
    assert (args.set, args.seeds, args.further) == (["digits", "ksl"], [4, 5], ["--koleo-weight", "0"])
    chosen = dict(args.recipe)
    assert chosen["ibot"].words == ["--algorithm", "ibot"]
    assert (chosen["mine"].words, chosen["mine"].config) == ([], file)


@pytest.mark.parametrize(
    ("name", "said"), [("smal", "expected one of small, ibot"), ("absent.toml", "absent.toml: no such file")]
)
def test_an_unknown_recipe_is_one_line(
    recipes: ModuleType, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        recipes.parser().parse_args(["--recipe", name])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "digits", "--more"], "--more has no effect"),
        (["--steps", "9", "--cpu-minutes", "2"], "not allowed with"),
    ],
)
def test_a_word_without_effect_is_refused(
    recipes: ModuleType,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes.py", *words])
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["small", "ibot", "without KoLeo", "published start"])
def test_the_trainer_understands_the_words_of_a_recipe(
    recipes: ModuleType, project: Path, tmp_path: Path, name: str
) -> None:
    args = recipes.parser().parse_args(["--processes", "1"])
    task = recipes.Task("digits", [tmp_path / "photos"], "hand_r", [])
    words = recipes.training_words(task, recipes.RECIPES[name], 3, 150, tmp_path / "run", args)
    done = subprocess.run([*words, "--print-config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    assert (config["epochs"], config["budget"]["views"], config["seed"]) == (None, 150 * 64, 3)


def test_processes_share_the_joint_batch(recipes: ModuleType, tmp_path: Path) -> None:
    args = recipes.parser().parse_args(["--processes", "2"])
    task = recipes.Task("digits", [tmp_path / "photos"], "hand_r", [])
    words = recipes.training_words(task, recipes.RECIPES["small"], 0, 10, tmp_path / "run", args)
    assert "--nproc-per-node=2" in words and "--distributed" in words
    assert words[words.index("--batch-size") + 1] == "32"
    assert words[words.index("--budget-views") + 1] == "640"


def test_the_choices_of_lightly_are_known_to_its_script(recipes: ModuleType) -> None:
    peer = importlib.import_module("recipes_peer")
    assert {recipe.peer for recipe in recipes.RECIPES.values() if recipe.peer} == set(peer.CHOICES)


def test_no_photo_that_is_asked_is_trained_on(recipes: ModuleType, data: Path, tmp_path: Path) -> None:
    (tmp_path / "keep/digits/train/c0").mkdir(parents=True)
    (tmp_path / "keep/digits/train/c0/stale.jpg").write_bytes(b"of an interrupted copy")
    (task,) = recipes.digits(tmp_path / "keep", recipes.parser().parse_args(["--data", str(data)]))
    (folder,) = task.crops
    found = read_set(EvaluateBackboneConfig(data=data / "hand_digits.zip", output=tmp_path))
    (fold,) = splits_of(found)["split"].folds
    asked = {Path(found.names[i]).name for i in fold.queries}
    trained = {path.name: path.read_bytes() for path in folder.glob("*/*")}
    assert len(asked) == 4 * 2 and len(trained) == 4 * 4
    assert not asked & set(trained)
    with zipfile.ZipFile(data / "hand_digits.zip") as archive:
        assert {Path(name).name: archive.read(name) for name in archive.namelist()}.items() >= trained.items()


def test_a_benchmark_goes_on_where_it_stopped(project: Path, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    keep = tmp_path / "keep"

    def run(*words: str) -> list[dict[str, Any]]:
        command = [sys.executable, "benchmarks/recipes.py", "--data", data, "--keep", keep, "--processes", "1"]
        command += ["--recipe", recipe, "lightly", "--lightly-python", shutil.which("false"), *words]
        done = subprocess.run(list(map(str, command)), cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "has no lightly, so its recipes are left out; pip install lightly" in done.stdout
        return [json.loads(line) for line in (keep / "runs.jsonl").read_text().splitlines()]

    lines = run("--steps", "2", "--seeds", "0")
    assert [(line["recipe"], line.get("seed")) for line in lines] == [("free", None), ("tiny", 0)]
    assert lines[1]["steps"] == 2 and lines[1]["cpu_s"] > 0
    kinds = [(row["kind"], row["features"]) for row in lines[1]["rows"]["hand photos of digits"]]
    token, patches = "class token", "class token, patches"
    assert kinds == [(kind, name) for kind in ("backbone", "first weights") for name in (token, patches)]
    with (keep / "runs.jsonl").open("a") as file:
        file.write('{"task": "digits", "recipe": "tiny", "se')  # killed while it wrote
    again = run("--steps", "2", "--seeds", "0", "1")
    assert again[:2] == lines and [line.get("seed") for line in again] == [None, 0, 1]
    rows = [line for line in (keep / "digits.md").read_text().splitlines() if line.startswith("| tiny, class token |")]
    assert len(rows) == 1 and rows[0].split("|")[2:4] == [" 2 ", " 2 "] and "±" in rows[0]
    recipe.write_text(TINY.replace("depth = 1", "depth = 2"))
    assert [line.get("seed") for line in run("--steps", "2", "--seeds", "0")] == [None, 0, 1, 0]


def test_the_table_gives_mean_and_deviation_over_seeds(recipes: ModuleType) -> None:
    def row(name: str, kind: str, value: float, about: str = "") -> dict[str, Any]:
        scores = {"split": {by: {"value": value} for by in ("nearest", "knn")}}
        return {"name": name, "kind": kind, "features": "", "about": about, "scores": scores}

    free = {
        "splits": {"digits": {"split": {"title": "plain split", "num_asked": 417}}},
        "rows": {"digits": [row("HOG", "free", 0.863)]},
    }
    runs = [
        {
            "steps": 1000,
            "cpu_s": 1190.0 + 20 * seed,
            "rows": {
                "digits": [
                    row(recipe, "backbone", 0.7 + 0.02 * seed),
                    row("first weights: vit_tiny", "first weights", 0.4 + 0.01 * seed, f"seed {seed}"),
                ]
            },
        }
        for recipe in ("small", "ibot")
        for seed in (0, 1)
    ]
    assert recipes.table("digits", [free, *runs]).splitlines() == [
        "**digits**, accuracy in %, mean ± deviation over seeds. plain split: 417 asked.",
        "",
        "| features | seeds | steps | CPU s | plain split, 1-NN | plain split, 20-NN |",
        "| --- | --: | --: | --: | --: | --: |",
        "| small | 2 | 1000 | 1200 ± 14 | 71.0 ± 1.4 | 71.0 ± 1.4 |",
        "| ibot | 2 | 1000 | 1200 ± 14 | 71.0 ± 1.4 | 71.0 ± 1.4 |",
        # the same networks, whatever was trained from them
        "| first weights: vit_tiny | 2 |  |  | 40.5 ± 0.7 | 40.5 ± 0.7 |",
        "| HOG |  |  |  | 86.3 | 86.3 |",
    ]
