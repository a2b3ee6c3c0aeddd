"""Runs laid over each other: what is read of them, what is drawn and said, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from signstreams.commands import main
from signstreams.config.load import leaves
from signstreams.engine.metrics import COLORS, MetricsLog
from signstreams.errors import UserError
from signstreams.integrate.settings import IntegrateConfig
from signstreams.publish.compare import MetricPanel, compare, plot_overlay
from signstreams.publish.runs import axis_of, labelled, read_curves, read_run
from signstreams.publish.settings import CompareConfig

Records = list[tuple[int, dict[str, Any]]]
MakeRun = Callable[..., Path]
PRETRAINING: Records = [
    (10, {"train/loss_dino": 5.0, "teacher/entropy_sample": 4.0, "time/step_s": 0.5, "time/data_s": 0.5, "epoch": 1.0}),
    (20, {"train/loss_dino": 3.0, "teacher/entropy_sample": 3.0, "time/step_s": 2.0, "epoch": 2.0, "probe/rankme": 9}),
    (30, {"train/loss_dino": 4.0, "teacher/entropy_sample": 2.0, "time/step_s": 2.0, "epoch": 3.0, "probe/rankme": 7}),
]
TRANSLATION: Records = [
    (10, {"train/loss_translation": 6.0, "train/epoch": 2.0, "train/clips_per_s": 16.0, "train/lr_encoder": 0.001}),
    (15, {"val/loss_translation": 5.0, "val/bleu_4": 1.5, "val/wer_fuse": 90.0, "val/wer_body": 95.0}),
    (20, {"train/loss_translation": 4.0, "train/epoch": 4.0, "train/clips_per_s": 8.0, "train/lr_encoder": 0.0}),
    (20, {"val/loss_translation": 5.5, "val/bleu_4": 1.0, "val/wer_fuse": 60.0, "val/wer_body": 70.0}),
]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run's folder of given records, name, tags and config."""

    def make(folder: str, records: Records, *, name: str = "", tags: tuple[str, ...] = (), **config: Any) -> Path:
        place = tmp_path / folder
        _write_log(place / "metrics.jsonl", records)
        config["experiment"] = {"name": name, "tags": list(tags), "notes": ""}
        if records is TRANSLATION:
            (place / "config.json").write_text(json.dumps(config))
        else:
            (place / "params.json").write_text(json.dumps({"stream": "face", "world_size": 1, "config": config}))
        return place

    return make


def _write_log(path: Path, records: Records) -> None:
    with MetricsLog(path) as log:
        for step, record in records:
            log.log(record, step)


def _compare(tmp_path: Path, *runs: Path, **options: Any) -> list[str]:
    return compare(CompareConfig(runs=list(runs), output=tmp_path / "out.png", **options))


def _row(lines: list[str], metric: str, run: str) -> list[str]:
    """Last, best and step of a run in the table of values."""
    first = next(place for place, line in enumerate(lines) if line.startswith(f"{metric} "))
    name = metric
    for line in lines[first:]:
        rest = line.removeprefix(name).strip()
        if rest.startswith(run):
            return rest.removeprefix(run).split()
        name = ""
    raise AssertionError(f"{run} is not in the table of {metric}")


def _problems(tmp_path: Path, *runs: Path, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        _compare(tmp_path, *runs, **options)
    assert not (tmp_path / "out.png").exists()
    return caught.value.problems


def _colors_in(image: np.ndarray) -> set[str]:
    """Colours of lines among the pixels (H, W, 3)."""
    pixels = {tuple(pixel) for pixel in (image * 255).round().astype(int).reshape(-1, 3).tolist()}
    return {color for color in COLORS if tuple(round(255 * part) for part in to_rgb(color)) in pixels}


def _picture(path: Path) -> np.ndarray:
    return imread(path)[..., :3]


def test_a_run_is_read_from_its_folder_its_log_and_its_state_alike(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("dino_face", PRETRAINING, name="demo-face", tags=("demo", "face"), optim={"lr": 0.1})
    runs = [read_run(folder), read_run(folder / "metrics.jsonl")]
    (folder / "state").mkdir()
    (folder / "metrics.jsonl").rename(folder / "state" / "metrics.jsonl")  # not published yet
    runs += [read_run(folder), read_run(folder / "state"), read_run(folder / "state" / "metrics.jsonl")]
    for run in runs:
        assert (run.path, run.name, run.tags, run.kind) == (folder, "demo-face", ("demo", "face"), "pretraining")
        assert run.settings["optim.lr"] == 0.1
        assert run.curves["probe/rankme"] == {20: 9.0, 30: 7.0}
        assert run.last_step == 30


def test_where_outputs_were_deleted_the_fingerprint_tells_the_settings(make_run: MakeRun) -> None:
    folder = make_run("multistream_v9", TRANSLATION)
    (folder / "config.json").unlink()
    (folder / "state").mkdir()
    fingerprint = {"config": {"optim": {"lr": 0.5}, "world_size": 2}, "data": "ab" * 32, "files": []}
    (folder / "state" / "fingerprint.json").write_text(json.dumps(fingerprint))
    run = read_run(folder)
    assert (run.name, run.kind) == ("multistream_v9", "translation")
    assert (run.settings["optim.lr"], run.settings["world_size"], run.settings["data_digest"]) == (0.5, 2, "ab" * 32)


def test_a_log_of_another_name_is_found_by_the_config(make_run: MakeRun) -> None:
    folder = make_run("run", PRETRAINING, checkpointing={"history_file": "history.jsonl"})
    (folder / "metrics.jsonl").rename(folder / "history.jsonl")
    assert read_run(folder).history == folder / "history.jsonl"
    assert read_run(folder / "history.jsonl").path == folder


def test_of_a_log_that_falls_back_the_dead_branch_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0), (25, 5.0), (35, 6.0)]
    _write_log(path, [(step, {"loss": value}) for step, value in steps])
    assert read_curves(path) == {"loss": {10: 1.0, 20: 2.0, 25: 5.0, 35: 6.0}}


def test_what_is_no_number_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": null, "b": "x", "c": true, "d": NaN, "e": 2}\n{"a": 1}\n{"step": 2, "e": 3, "f"')
    assert read_curves(path) == {"e": {1: 2.0}}


def test_equal_names_are_told_apart_by_tags_or_else_by_place(make_run: MakeRun) -> None:
    def labels(*folders: Path) -> list[str]:
        return [run.label for run in labelled([read_run(folder) for folder in folders])]

    plain = make_run("a/work_dirs/face", PRETRAINING, name="demo", tags=("demo",))
    slow = make_run("b/work_dirs/face", PRETRAINING, name="demo", tags=("demo", "slow"))
    twin = make_run("c/work_dirs/face", PRETRAINING, name="demo", tags=("demo", "slow"))
    other = make_run("d/work_dirs/face", PRETRAINING)
    archived = make_run("d/work_dirs/face/previous/0a1b", PRETRAINING)
    assert labels(plain, slow, other) == ["demo", "demo (slow)", "face"]
    assert labels(plain, slow, twin) == ["demo (a)", "demo (b)", "demo (c)"]
    assert labels(other, archived) == ["face", "face/previous/0a1b"]


def test_time_adds_up_what_steps_took_and_epochs_hold_for_evaluations_too(make_run: MakeRun) -> None:
    pretraining = read_run(make_run("a", PRETRAINING))
    translation = read_run(make_run("b", TRANSLATION, data={"batch_size": 8}, optim={"accumulate_steps": 2}))
    for run, against, steps, expected in (
        (pretraining, "step", [10, 30], [10.0, 30.0]),
        (pretraining, "epoch", [5, 30], [0.5, 3.0]),
        (pretraining, "time", [0, 10, 15, 30], [0.0, 10.0, 20.0, 50.0]),  # 10 steps of 1 s, then of 2 s
        (translation, "epoch", [15], [3.0]),
        (translation, "time", [10, 15, 20], [10.0, 20.0, 30.0]),  # batches of 16 clips, 16 clips a second, then 8
    ):
        axis = axis_of(run, against)
        assert axis is not None
        assert axis(steps) == pytest.approx(expected)


def test_the_settings_that_time_is_reckoned_from_are_those_of_the_training() -> None:
    fields = dict(leaves(IntegrateConfig))
    assert {"data.batch_size", "optim.accumulate_steps"} <= set(fields)


def test_the_tables_tell_last_and_best_values_and_what_differs(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("a", PRETRAINING, name="one", tags=("demo", "face"), koleo={"weight": 0.1}, epochs=3)
    second = make_run("b", PRETRAINING[:2], name="two", koleo={"weight": None}, mean=[0.5, 0.25], output_dir="b")
    lines = _compare(tmp_path, first, second)
    assert lines[0].split() == ["run", "tags", "kind", "last", "step", "where"]
    assert lines[1].split() == ["one", "demo,", "face", "pretraining", "30", str(first)]
    assert _row(lines, "train/loss_dino", "one") == ["4", "3", "20"]
    assert _row(lines, "train/loss_dino", "two") == ["3", "3", "20"]
    assert _row(lines, "probe/rankme", "one") == ["7", "9", "20"]
    assert _row(lines, "teacher/entropy_sample", "one") == ["2", "-", "-"]
    at = lines.index("settings of pretraining that differ: one / two")
    assert lines[at + 1 : at + 5] == ["epochs: 3 / absent", "koleo.weight: 0.1 / none", "mean: absent / 0.5,0.25", ""]
    assert lines[-1] == str(tmp_path / "out.png")


def test_settings_are_compared_within_a_kind_and_what_is_not_told_is_no_difference(
    make_run: MakeRun, tmp_path: Path
) -> None:
    face = make_run("face", PRETRAINING, epochs=3)
    models = [make_run(name, TRANSLATION, data={"batch_size": size}) for name, size in (("v9", 8), ("v10", 4))]
    bare = tmp_path / "bare" / "copied.jsonl"
    _write_log(bare, PRETRAINING)
    params = json.loads((face / "params.json").read_text())
    twin = make_run("twin", PRETRAINING)
    (twin / "params.json").write_text(json.dumps(params | {"data": {"digest": "cd" * 32}}))
    lines = _compare(tmp_path, face, *models, bare, twin)
    assert "no settings are beside the log of copied.jsonl" in lines
    at = lines.index("settings of translation that differ: v9 / v10")
    assert lines[at + 1 : at + 3] == ["data.batch_size: 8 / 4", ""]
    at = lines.index("settings of pretraining that differ: face / twin")
    assert lines[at + 1] == "none"
    assert _row(lines, "val/bleu_4", "v9") == ["1", "1.5", "15"]
    assert _row(lines, "val/wer_fuse", "v10") == ["60", "60", "20"]


def test_metrics_are_chosen_by_name_and_pattern_and_by_nothing_of_a_kind_unknown(
    make_run: MakeRun, tmp_path: Path
) -> None:
    model = make_run("v9", TRANSLATION)
    lines = _compare(tmp_path, model, metrics=["val/wer_*", "val/bleu_4", "val/wer_fuse"])
    named = [line.split()[0] for line in lines if line.startswith(("val/", "train/"))]
    assert named == ["val/wer_fuse", "val/wer_body", "val/bleu_4"]
    foreign = tmp_path / "foreign.jsonl"
    _write_log(foreign, [(1, {"acc": 0.5, "ppl": 3.0})])
    assert _row(_compare(tmp_path, foreign), "ppl", "foreign.jsonl") == ["3", "-", "-"]
    both = [line.split()[0] for line in _compare(tmp_path, model, foreign) if line.startswith(("val/", "acc", "ppl"))]
    assert len(both) == len(set(both)) and {"val/bleu_4", "acc", "ppl"} <= set(both)  # a panel per metric


def test_a_tag_keeps_the_runs_that_have_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", PRETRAINING, tags=("demo", "slow"))
    make_run("b", PRETRAINING, tags=("demo",))
    lines = _compare(tmp_path, tmp_path / "a", tmp_path / "b", tag="slow")
    assert [line.split()[0] for line in lines[: lines.index("")]] == ["run", "a"]


def test_all_that_is_wrong_is_said_at_once(make_run: MakeRun, tmp_path: Path) -> None:
    model = make_run("model_v9", TRANSLATION, tags=("demo",))  # no batch size: no time
    (tmp_path / "features").mkdir()
    (tmp_path / "empty.jsonl").touch()
    broken = make_run("broken", PRETRAINING)
    (broken / "params.json").write_text("{")
    runs = [model, tmp_path / "model_v8", tmp_path / "features", tmp_path, tmp_path / "empty.jsonl", broken]
    problems = _problems(
        tmp_path, *runs, model / "metrics.jsonl", metrics=["val/bleu4", "wer_*"], tag="dem", against="time"
    )
    expected = "expected the output folder of a run or its metrics.jsonl"
    assert problems[:3] == [
        f"{tmp_path / 'model_v8'}: not there, {expected}; did you mean 'model_v9'?",
        f"{tmp_path / 'features'}: found no metrics.jsonl, {expected}",
        f"{tmp_path}: found no metrics.jsonl, {expected}; name {broken} {model}",
    ]
    starts = [
        f"{tmp_path / 'empty.jsonl'}: found no values",
        f"{broken / 'params.json'}: is not JSON",
        f"{model / 'metrics.jsonl'}: is the same run as {model}",
        "--tag dem: no run has this tag, they have demo; did you mean 'demo'?",
        "--metrics val/bleu4: no run has it; the nearest is 'val/bleu_4'",
        "--metrics wer_*: no run has it; the nearest is 'val/wer_",
        f"{model / 'metrics.jsonl'}: does not record the time of its steps; use --against step",
    ]
    assert len(problems) == 3 + len(starts)
    for problem, start in zip(problems[3:], starts, strict=True):
        assert problem.startswith(start)


def test_a_run_has_one_colour_in_the_panels_that_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    line = ([0.0, 1.0], [1.0, 2.0])
    labels = [f"run {number}" for number in range(9)]
    plot_overlay([MetricPanel("a", "lower", dict.fromkeys(range(9), line))], labels, path, against="step")
    assert _colors_in(_picture(path)) == set(COLORS)
    plot_overlay([MetricPanel("a", "", {0: line}), MetricPanel("b", "", {1: line})], labels[:2], path, against="step")
    panels = _picture(path)[40:]  # below the legend
    middle = panels.shape[1] // 2
    assert _colors_in(panels[:, :middle]) - {"#000000"} == {COLORS[0]}  # letters are black
    assert _colors_in(panels[:, middle:]) - {"#000000"} == {COLORS[1]}


def test_the_legend_gets_the_room_that_it_needs_and_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    heights = []
    for labels in (["_a", "$b", "年"], [f"{number} " + "long " * 30 for number in range(30)]):
        lines = {number: ([1.0], [float(number)]) for number in range(len(labels))}
        plot_overlay([MetricPanel("$loss_{", "", lines)], labels, path, against="step")
        image = _picture(path)
        heights.append(image.shape[0])
        assert (image[:3] == 1).all() and (image[:, -3:] == 1).all()  # nothing is cut off
    assert heights[1] > heights[0] + 300


def test_the_script_writes_the_picture_and_prints_the_tables(
    make_run: MakeRun,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("one", "two"):
        make_run(name, PRETRAINING, name="\x1b[2J_$ñ")
    script = [sys.executable, str(project / "scripts" / "compare_runs.py")]
    done = subprocess.run([*script, "one", "two", "--against", "time"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[1].startswith(r"\x1b[2J_$ñ (one)")
    assert done.stdout.splitlines()[-1] == "compare.png"
    assert _picture(tmp_path / "compare.png").std() > 0.02
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for words, error in (
        (["one", "three", "--metrics", "loss"], "error: three: not there"),
        (["one", "--output", "file/x.png"], "error: file/x.png: cannot be written"),
        (["one", "--output", "x.jpg"], "error: output (--output): x.jpg does not end in .png"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["compare", *words])
        stderr = capsys.readouterr().err
        assert stderr.startswith(error) and "Traceback" not in stderr
