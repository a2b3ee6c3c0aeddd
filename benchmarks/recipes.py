"""Recipes of pretraining from random weights, judged at equal CPU time, several seeds each: one table.

python benchmarks/recipes.py --set digits                                  # config/pretrain/small.toml, seeds 0, 1, 2
python benchmarks/recipes.py --set massey ksl --recipe small ibot lightly  # hours
python benchmarks/recipes.py --set digits --recipe mine.toml --seeds 0 -- --koleo-weight 0.2   # words for the trainer

Every pretraining takes `--cpu-minutes` (20: ten minutes on two cores), start and export included. CPU time and not wall
time: other jobs take cores, but hardly CPU seconds. It does not end in the middle, since rates and momentum follow
the length of a run: two short runs of each recipe tell what a step costs, and all its seeds get the same number of
steps (`--steps` gives it instead). The table says what they took: some percent more or less, beside other jobs. Two
processes of one thread share each run, as somebody with two cores would train: two threads are hardly faster than one
for networks of this size.

Done runs are lines of `runs.jsonl` in `--keep`, with which an interrupted benchmark goes on; a run that was interrupted
starts again, so that its seconds are all there. A changed recipe is another run; after a change of the trainer's code
take another folder.

| set | trained on, without labels | asked |
| --- | --- | --- |
| digits | hand photos but every 5th of each digit | those, by the others |
| massey | all photos | each of five people by the other four; and every 5th of each class |
| ksl | both hands of extracted Korean signs, in one backbone | a word by the other person's, right hand and both |
| demo | one hand of the rendered corpus, of all its videos | its handshapes: other videos, unseen signers |

massey, ksl and demo are asked about crops that were trained on, though never with their labels: a backbone for each
person left out would take five times as long, and HOG and pixels, which nothing was trained for, stand beside it.

`lightly` is lightly's own DINO at the same CPU time, in a process of `--lightly-python`; benchmarks/recipes_peer.py
says how it is put together. signstreams does not depend on it: `pip install lightly` where signstreams is installed.
Where it is absent, a line says so and the other recipes are run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
SCRIPTS = PROJECT / "scripts"
DATA = PROJECT.parent / "shared" / "data"
SMALL = PROJECT / "config" / "pretrain" / "small.toml"
PEER = PROJECT / "benchmarks" / "recipes_peer.py"
TIMING_STEPS = (20, 100)  # of the two runs that tell what a step costs; the second holds a probe
TIMING = "timing"  # in place of a seed
DONE = "extracted"  # file of a corpus that is whole
TITLES = {"nearest": "1-NN", "knn": "20-NN", "probe": "probe"}


# -- Recipes


@dataclass(frozen=True)
class Recipe:
    """A file of settings and words for the trainer beyond it; or a choice of benchmarks/recipes_peer.py."""

    words: list[str] = field(default_factory=list)
    config: Path = SMALL
    peer: str | None = None


RECIPES = {
    "small": Recipe(),
    "ibot": Recipe(["--algorithm", "ibot"]),
    "without KoLeo": Recipe(["--koleo-weight", "0"]),
    # what would not have been chosen for so few steps: targets by centring, no batch norm, Caron et al.'s widths
    "published start": Recipe(
        [
            *("--dino-batch-norm", "false", "--use-sinkhorn", "false", "--dino-standardize-head", "false"),
            *("--dino-bottleneck-dim", "256", "--dino-teacher-temp", "0.04", "--koleo-weight", "0"),
        ]
    ),
    "lightly": Recipe(peer="lightly"),
    "lightly tuned": Recipe(peer="lightly tuned"),
}
"""By name; ``--recipe`` also takes the path of a TOML file."""


def recipe_of(name: str) -> tuple[str, Recipe]:
    """A recipe by its name, or of a file of settings, which is called as the file is."""
    if name in RECIPES:
        return name, RECIPES[name]
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise argparse.ArgumentTypeError(f"{name}: no such file")
        return Path(name).stem, Recipe(config=Path(name).absolute())
    raise argparse.ArgumentTypeError(f"'{name}': expected one of {', '.join(RECIPES)}, or the path of a TOML file")


# -- Sets


@dataclass(frozen=True)
class Judge:
    """One question to the judge, in settings of `EvaluateBackboneConfig`."""

    title: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Crops that one backbone is trained on, and what it is asked."""

    name: str
    crops: list[Path]  # folders or ZIPs
    stream: str
    judges: list[Judge]


def digits(keep: Path, args: argparse.Namespace) -> list[Task]:
    """Hand photos of ten digits: those asked are not trained on."""
    archive = required(args.data / "hand_digits.zip")
    judge = Judge("hand photos of digits", {"data": archive})
    return [Task("digits", [without_asked(judge, keep / "digits" / "train")], "hand_r", [judge])]


def massey(keep: Path, args: argparse.Namespace) -> list[Task]:
    """Hands on black, 36 classes by five people."""
    archive = required(args.data / "massey_hands.zip")
    judge = Judge("massey hands", {"data": archive, "labels": "<signer>_<class>_*"})
    return [Task("massey", [archive], "hand_r", [judge])]


def ksl(keep: Path, args: argparse.Namespace) -> list[Task]:
    """Korean signs, twenty words by two people each; ``--more``: trained on signs of two other languages as well."""
    corpora = [extracted(name, keep, args) for name in (["ksl", "hksl_jsl"] if args.more else ["ksl"])]
    asked = {"data": corpora[0], "labels": "<class>_example<signer>"}
    judges = [
        Judge("KSL, right hand alone", asked | {"streams": ["hand_r"]}),
        Judge("KSL, both hands", asked | {"streams": ["hand_l", "hand_r"]}),
    ]
    crops = [corpus / "processed" / hand for corpus in corpora for hand in ("hand_l", "hand_r")]
    return [Task("ksl with two other languages" if args.more else "ksl", crops, "hands", judges)]


def demo(keep: Path, args: argparse.Namespace) -> list[Task]:
    """The rendered corpus, one backbone for each hand."""
    from signstreams.workflow.settings import DEMO_CROP_PX

    corpus = keep / "corpora" / "demo"
    if not (corpus / DONE).exists():
        command([sys.executable, SCRIPTS / "render_demo_corpus.py", "--root", corpus, "--size", "demo"])
        extract(corpus / "videos", corpus, "--set", f"crop_px={DEMO_CROP_PX}")  # as `make demo`
    return [
        Task(
            f"demo {hand}",
            [corpus / "processed" / hand],
            hand,
            [Judge(f"demo, {hand}", {"data": corpus, "labels": "handshapes", "streams": [hand]})],
        )
        for hand in ("hand_r", "hand_l")
    ]


SETS: dict[str, Callable[[Path, argparse.Namespace], list[Task]]] = {
    "digits": digits,
    "massey": massey,
    "ksl": ksl,
    "demo": demo,
}


def required(path: Path) -> Path:
    if not path.exists():
        sys.exit(f"{path}: no such file; name the folder that holds it with --data")
    return path


def extracted(name: str, keep: Path, args: argparse.Namespace) -> Path:
    """The corpus of one folder of signs, extracted once."""
    corpus = keep / "corpora" / name
    if not (corpus / DONE).exists():
        extract(required(args.data / "signs" / name), corpus)
    return corpus


def extract(videos: Path, corpus: Path, *words: Any) -> None:
    """Extraction leaves finished videos as they are, so that an interrupted one goes on."""
    command([sys.executable, SCRIPTS / "extract_rois_v2.py", "--videos", videos, "--root", corpus, *words])
    (corpus / DONE).touch()


def without_asked(judge: Judge, folder: Path) -> Path:
    """Copy the images that the judge's plain split does not ask into ``folder``, and say where."""
    from signstreams.formats.crops import CropReader
    from signstreams.judge.labelled_sets import read_set
    from signstreams.judge.probes import splits_of

    found = read_set(judge_config(judge, folder, []))
    (fold,) = splits_of(found)["split"].folds
    asked, reader = {found.names[i] for i in fold.queries}, CropReader()
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted copy, or of another ZIP
    for name, crop in zip(found.names, found.parts[0].crops, strict=True):
        if name not in asked:
            path = folder / Path(name).parent.name / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reader.read(crop))
    return folder


def judge_config(judge: Judge, output: Path, backbones: Sequence[str]) -> Any:
    from signstreams.judge.settings import EvaluateBackboneConfig

    return EvaluateBackboneConfig.model_validate({**judge.settings, "output": output, "backbone": list(backbones)})


# -- The benchmark


def main() -> None:
    words = parser()
    args = words.parse_args()
    if args.more and "ksl" not in args.set:
        words.error("--more has no effect: ksl is not among --set; leave it out")
    keep = args.keep.absolute()
    keep.mkdir(parents=True, exist_ok=True)
    recipes = dict(args.recipe)
    if any(recipe.peer for recipe in recipes.values()) and not has_lightly(args.lightly_python):
        print(
            f"{args.lightly_python}: has no lightly, so its recipes are left out; pip install lightly where"
            " signstreams is installed, and name that interpreter with --lightly-python",
            flush=True,
        )
        recipes = {name: recipe for name, recipe in recipes.items() if not recipe.peer}
    failed = []
    for name in args.set:
        for task in SETS[name](keep, args):
            lines = [free(task, keep)]
            for seed in args.seeds:  # all recipes once, then again: a table of one seed is soon there
                for label, recipe in recipes.items():
                    line = one_run(task, label, recipe, seed, keep, args)
                    failed += [f"{task.name}, {label}, seed {seed}"] * (line is None)
                    lines += [line] if line else []
            text = "\n\n".join(table(judge.title, lines) for judge in task.judges)
            (keep / f"{slug(task.name)}.md").write_text(text + "\n", encoding="utf-8")
            print(f"\n{text}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} runs failed, with their reasons in {keep}: {'; '.join(failed)}")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--set", nargs="+", choices=SETS, default=["digits"])
    words.add_argument(
        "--recipe",
        nargs="+",
        type=recipe_of,
        default=[recipe_of("small")],
        help=f"{', '.join(RECIPES)}, or TOML files",
    )
    words.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    length = words.add_mutually_exclusive_group()
    length.add_argument("--cpu-minutes", type=float, default=20.0, help="CPU time of each pretraining")
    length.add_argument("--steps", type=int, help="steps of each pretraining, in place of --cpu-minutes")
    words.add_argument("--processes", type=int, default=2, help="that share a pretraining, of one thread each")
    words.add_argument(
        "--keep", type=Path, default=PROJECT / "work_dirs" / "recipes", help="for runs, corpora and tables"
    )
    words.add_argument("--data", type=Path, default=DATA, help="folder of hand_digits.zip, massey_hands.zip and signs/")
    words.add_argument("--more", action="store_true", help="of ksl: train on the signs of two other languages, too")
    words.add_argument("--lightly-python", default=sys.executable, help="interpreter that has lightly")
    words.add_argument("further", nargs="*", help="after --: words for scripts/pretrain_dino_hands.py")
    return words


def has_lightly(python: str) -> bool:
    return subprocess.run([python, "-c", "import lightly.transforms"], capture_output=True).returncode == 0


def one_run(
    task: Task, label: str, recipe: Recipe, seed: int, keep: Path, args: argparse.Namespace
) -> dict[str, Any] | None:
    """The line of one pretraining and its judgement, made now unless it was before; None: it failed."""
    steps = args.steps or steps_within(task, label, recipe, keep, args)
    if steps is None:
        return None
    key = {"task": task.name, "recipe": label, "seed": seed, "steps": steps, "digest": digest(task, recipe, args)}
    if line := recorded(keep, key):
        return line
    folder = keep / slug(task.name) / f"{slug(label)}_{seed}"
    cost = trained(task, recipe, seed, steps, folder, args)
    if cost is None:
        return None
    backbones = {"": folder / "backbone.pt"}
    if recipe.peer:  # the judge cannot know what others began with
        backbones["first weights of "] = folder / "first.pt"
    rows: dict[str, list[dict[str, Any]]] = {}
    for judge in task.judges:
        rows[judge.title] = []
        for prefix, path in backbones.items():
            kinds = ["backbone"] if recipe.peer else ["backbone", "first weights"]
            report = judged(judge, folder / slug(prefix + judge.title), [f"file::{path}"], kinds)
            for row in report["rows"]:
                if row["kind"] == "first weights":  # the same network and seed has the same ones, in any recipe
                    row["name"] += f": {row['about'].partition(':')[0]}"
                else:
                    row["name"] = prefix + label
                    row["kind"] = "first weights" if prefix else "backbone"
                rows[judge.title].append(row)
    return record(keep, key | cost | {"rows": rows})


def free(task: Task, keep: Path) -> dict[str, Any]:
    """The line of what costs nothing: points, HOG, pixels, and public backbones that are on this machine."""
    key = {"task": task.name, "recipe": "free"}
    if line := recorded(keep, key):
        return line
    reports = {
        judge.title: judged(judge, keep / slug(task.name) / "free" / slug(judge.title), []) for judge in task.judges
    }
    rows = {title: report["rows"] for title, report in reports.items()}
    return record(keep, key | {"splits": {title: report["splits"] for title, report in reports.items()}, "rows": rows})


def judged(judge: Judge, output: Path, backbones: Sequence[str], kinds: Iterable[str] | None = None) -> dict[str, Any]:
    from signstreams.judge.report import KINDS
    from signstreams.judge.run import evaluate_backbones

    return evaluate_backbones(judge_config(judge, output, backbones), kinds=tuple(kinds or KINDS))


def steps_within(task: Task, label: str, recipe: Recipe, keep: Path, args: argparse.Namespace) -> int | None:
    """How many steps take the CPU time of a run, by two short ones; None: they failed."""
    key = {"task": task.name, "recipe": label, "seed": TIMING, "digest": digest(task, recipe, args)}
    line = recorded(keep, key)
    if line is None:
        seconds = []
        for steps in TIMING_STEPS:
            folder = keep / slug(task.name) / f"{slug(label)}_{TIMING}"
            cost = trained(task, recipe, 0, steps, folder, args)
            if cost is None:
                return None
            seconds.append(cost["cpu_s"])
            shutil.rmtree(folder)
        step_s = (seconds[1] - seconds[0]) / (TIMING_STEPS[1] - TIMING_STEPS[0])
        line = record(keep, key | {"step_s": step_s, "start_s": seconds[0] - TIMING_STEPS[0] * step_s})
    left_s: float = 60 * args.cpu_minutes - line["start_s"]
    return max(TIMING_STEPS[0], round(left_s / float(line["step_s"])))


def trained(
    task: Task, recipe: Recipe, seed: int, steps: int, folder: Path, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Pretrain into an empty folder; CPU and wall seconds and the last loss, or None where it failed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = training_words(task, recipe, seed, steps, folder, args)
    log = folder.with_name(f"{folder.name}.log")
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("wb") as file:
        # waiting threads leave the core, and their seconds, to others
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        print(f"{log}: ended with code {done.returncode}: {' '.join(last)}", flush=True)
        return None
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [line["train/loss_dino"] for line in map(json.loads, metrics) if "train/loss_dino" in line]
    return {"cpu_s": round(cpu_s, 1), "wall_s": round(wall_s, 1), "loss_dino": losses[-1] if losses else None}


def training_words(
    task: Task, recipe: Recipe, seed: int, steps: int, folder: Path, args: argparse.Namespace
) -> list[str]:
    """The command of one pretraining."""
    if recipe.peer:
        words: list[Any] = [args.lightly_python, "-W", "ignore", PEER, "--choice", recipe.peer, "--crops", *task.crops]
        words += ["--output", folder, "--steps", steps, "--seed", seed]
        return list(map(str, words))
    joint_batch = tomllib.loads(recipe.config.read_text(encoding="utf-8"))["dataset"]["batch_size"]
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={args.processes}"]
    words = [sys.executable, *(several if args.processes > 1 else []), SCRIPTS / "pretrain_dino_hands.py"]
    words += ["--distributed"] if args.processes > 1 else []
    words += ["--config", recipe.config, "--train-dir", *task.crops, "--stream", task.stream, "--output-dir", folder]
    words += ["--batch-size", joint_batch // args.processes, "--threads", 1, "--monitor-pictures", "false"]
    words += ["--epochs", "none", "--budget-views", steps * joint_batch, "--seed", seed]
    return list(map(str, [*words, *recipe.words, *args.further]))


# -- Lines of done runs


def digest(task: Task, recipe: Recipe, args: argparse.Namespace) -> str:
    """What a run is beyond its names: its command, and the text that it reads."""
    words = training_words(task, recipe, 0, 1, Path("folder"), args)
    text = PEER.read_text(encoding="utf-8") if recipe.peer else recipe.config.read_text(encoding="utf-8")
    return hashlib.sha256(json.dumps([words, text]).encode()).hexdigest()[:12]


def recorded(keep: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The line of `runs.jsonl` that agrees with all of ``key``."""
    path = keep / "runs.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for written in text.splitlines(keepends=True):
        if written.endswith("\n"):  # the last one may have been cut off
            line: dict[str, Any] = json.loads(written)
            if all(name in line and line[name] == value for name, value in key.items()):
                return line
    return None


def record(keep: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Append a line; one that was cut off before it is ended first."""
    path = keep / "runs.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line


def slug(text: str) -> str:
    return text.replace(",", "").replace(" ", "_")


def command(words: Sequence[Any]) -> None:
    done = subprocess.run(list(map(str, words)))
    if done.returncode:
        sys.exit(done.returncode)


# -- The table


def table(title: str, lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each recipe and feature, each cell the mean over seeds and, of several, their deviation.

    Args:
        title: Title of a judge.
        lines: The line of `free`, then those of the runs.
    """
    splits = lines[0]["splits"][title]
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in [*lines[1:], lines[0]]:  # what costs nothing stands last
        for row in line["rows"][title]:
            key = (row["name"], row["features"])
            known = rows.setdefault(key, [])
            if row["kind"] != "first weights" or row["about"] not in [other["about"] for other in known]:
                known.append(row)  # first weights of a seed count once, whatever was trained from them
            if row["kind"] == "backbone":
                runs.setdefault(key, []).append(line)
    order = {"backbone": 0, "first weights": 1, "public": 2, "free": 3}
    keys = sorted(rows, key=lambda key: order[rows[key][0]["kind"]])
    columns = [(split, by) for split in splits for by in TITLES if by in rows[keys[0]][0]["scores"][split]]
    heads = [f"{splits[split]['title']}, {TITLES[by]}" for split, by in columns]
    text = [
        f"**{title}**, accuracy in %, mean ± deviation over seeds. "
        + "; ".join(f"{about['title']}: {about['num_asked']:,} asked" for about in splits.values())
        + ".",
        "",
        "| " + " | ".join(["features", "seeds", "steps", "CPU s", *heads]) + " |",
        "| --- | " + " | ".join(["--:"] * (3 + len(heads))) + " |",
    ]
    for key in keys:
        of_key = runs.get(key, [])
        cells = [str(len(rows[key])) if rows[key][0]["kind"] in ("backbone", "first weights") else ""]
        cells += [", ".join(map(str, dict.fromkeys(line["steps"] for line in of_key)))]
        cells += [spread([line["cpu_s"] for line in of_key], digits=0)]
        cells += [spread([100 * row["scores"][split][by]["value"] for row in rows[key]]) for split, by in columns]
        text.append("| " + " | ".join([", ".join(filter(None, key)), *cells]) + " |")
    return "\n".join(text)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``74.3 ± 1.2``; of one value itself, of none nothing."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
