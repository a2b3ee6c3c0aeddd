"""Compare runs: curves in one picture, last and best values, settings that differ; two translations also by clip."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from signstreams.config.load import suggest
from signstreams.engine.metrics import COLORS
from signstreams.errors import UserError
from signstreams.files import replacing
from signstreams.ids import printable
from signstreams.publish.runs import FACTS, Axis, Run, axis_of, labelled, read_run
from signstreams.publish.settings import CompareConfig

SHOWN = {
    "pretraining": (
        "train/loss_dino",
        "train/loss_patch",
        "probe/knn",
        "probe/rankme",
        "probe/assignment_information",
        "teacher/entropy_sample",
        "teacher/entropy_batch",
        "teacher/prototypes_used_ratio",
        "schedule/lr",
    ),
    "translation": (
        "train/loss_translation",
        "val/loss_translation",
        "val/loss_ctc",
        "val/bleu_4",
        "val/chrf",
        "val/wer_fuse",
        "train/lr_encoder",
    ),
    "unknown": ("*",),
}
"""Metrics shown for each kind of run unless some are named."""
LOWER_IS_BETTER = ("*loss*", "*/kl*", "*wer*", "time/*", "mem/*", "*/data_wait_share", "*/ctc_skipped")
HIGHER_IS_BETTER = ("*bleu*", "*chrf*", "*rouge*", "*knn*", "*rankme*", "*information", "*prototypes_used*", "*_per_s")
NOT_COMPARED = (
    "output_dir",
    "export_backbone",
    "init.download",
    "model.download",
    "experiment.name",
    "experiment.tags",
    "tracking.*",
)
"""Settings that do not change a result."""
TIME_UNITS = ((2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
"""Longest time of an axis in seconds, from which on the unit is used; seconds of the unit; its name."""
MAX_VALUE = 48  # letters of a setting's value in the table


def compare(config: CompareConfig) -> list[str]:
    """Draw the picture, and write the page of two translation runs beside it; returns the lines of the tables, then the
    paths of what was written, the picture's last.

    Raises:
        UserError: Everything that is wrong with the runs and with what was asked of them, one line per problem.
    """
    runs, problems = _read_runs(config)
    metrics = _chosen(runs, config.metrics, problems) if runs else []
    axes = []
    for run in runs:
        if (axis := axis_of(run, config.against)) is not None:
            axes.append(axis)
        else:
            problems.append(f"{run.history}: does not record the {config.against} of its steps; use --against step")
    if problems:
        raise UserError(problems)
    panels = [_panel(metric, runs, axes) for metric in metrics]
    plot_overlay(panels, [run.label for run in runs], config.output, against=config.against)
    tables = [_runs_table(runs), _values_table(runs, metrics), *_differences(runs)]
    written = [str(config.output)]
    if [run.kind for run in runs] == ["translation", "translation"]:
        lines, page = _clip_by_clip(runs[0], runs[1], config.output.with_suffix(".html"))
        tables.append(lines)
        written = [*page, *written]
    return [printable(line) for table in tables for line in (*table, "")] + written


def _clip_by_clip(first: Run, second: Run, path: Path) -> tuple[list[str], list[str]]:
    """Lines on the differences of two translation runs, and the page's path; why there is none where that is so."""
    from signstreams.publish.compare_translations import compare_translations, difference_lines, write_comparison

    try:
        found = compare_translations(first, second)
    except UserError as error:  # runs whose curves can be compared, and were, need not have been evaluated
        return [f"no {path.name}: {problem}" for problem in error.problems], []
    write_comparison(path, first, second, found)
    lines = [line for split, differences in found.differences.items() for line in difference_lines(split, differences)]
    return [f"{first.label} and {second.label}, clip by clip", *lines, *found.notes], [str(path)]


def _read_runs(config: CompareConfig) -> tuple[list[Run], list[str]]:
    """Labelled runs that have the tag, and what is wrong with the others."""
    runs: list[Run] = []
    problems: list[str] = []
    for path in config.runs:
        try:
            run = read_run(path)
        except UserError as error:
            problems += error.problems
            continue
        twin = next((other for other in runs if other.history.samefile(run.history)), None)
        if twin is None:
            runs.append(run)
        else:
            problems.append(f"{path}: is the same run as {twin.path}; name each once")
    if config.tag is not None and runs:
        tags = sorted({tag for run in runs for tag in run.tags})
        tagged = [run for run in runs if config.tag in run.tags]
        runs = tagged or runs  # where no run has it, the rest of the command line is checked against all
        if not tagged:
            known = f"they have {', '.join(tags)}" if tags else "they have none"
            problems.append(f"--tag {config.tag}: no run has this tag, {known}{suggest(config.tag, tags)}")
    return labelled(runs), problems


def _chosen(runs: list[Run], patterns: Sequence[str], problems: list[str]) -> list[str]:
    """Metrics that were asked for, else those that matter for these runs; a pattern without a match is a problem."""
    known = list(dict.fromkeys(key for run in runs for key in run.curves))
    if not patterns:
        kinds = {run.kind for run in runs}
        wanted = [pattern for kind, shown in SHOWN.items() if kind in kinds for pattern in shown]
        return list(dict.fromkeys(key for pattern in wanted for key in known if fnmatchcase(key, pattern))) or known
    chosen: list[str] = []
    for pattern in patterns:
        found = [key for key in known if fnmatchcase(key, pattern)]
        if not found:
            problems.append(f"--metrics {pattern}: no run has it; the nearest is '{_nearest(pattern, known)}'")
        chosen += found
    return list(dict.fromkeys(chosen))


def _nearest(pattern: str, known: list[str]) -> str:
    word = pattern.replace("*", "")
    holding = [key for key in known if word in key]
    return difflib.get_close_matches(word, holding or known, n=1, cutoff=0.0)[0]


def _panel(metric: str, runs: list[Run], axes: list[Axis]) -> MetricPanel:
    lines = {
        number: (axis(list(curve)), list(curve.values()))
        for number, (run, axis) in enumerate(zip(runs, axes, strict=True))
        if (curve := run.curves.get(metric))
    }
    return MetricPanel(metric, {min: "lower", max: "higher", None: ""}[_best_of(metric)], lines)


def _best_of(metric: str) -> Callable[..., Any] | None:
    """``min`` or ``max``; None where neither end is good, such as a learning rate or an entropy."""
    for best, patterns in ((min, LOWER_IS_BETTER), (max, HIGHER_IS_BETTER)):
        if _matches(metric, patterns):
            return best
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _runs_table(runs: list[Run]) -> list[str]:
    rows = [("run", "tags", "kind", "last step", "where")]
    rows += [(run.label, ", ".join(run.tags) or "-", run.kind, str(run.last_step), str(run.path)) for run in runs]
    return _aligned(rows, numbers=(3,))


def _values_table(runs: list[Run], metrics: list[str]) -> list[str]:
    rows = [("metric", "run", "last", "best", "at step")]
    for metric in metrics:
        name = metric
        for run in runs:
            if curve := run.curves.get(metric):
                best_of = _best_of(metric)
                step = None if best_of is None else best_of(curve, key=curve.__getitem__)
                best = ("-", "-") if step is None else (f"{curve[step]:.4g}", str(step))
                rows.append((name, run.label, f"{curve[max(curve)]:.4g}", *best))
                name = ""
    return _aligned(rows, numbers=(2, 3, 4))


def _differences(runs: list[Run]) -> list[list[str]]:
    """A table per kind of run: the settings that differ, one value per run."""
    tables = []
    for kind in SHOWN:
        told = [run for run in runs if run.kind == kind and run.settings]
        if len(told) < 2:
            continue
        keys = sorted({key for run in told for key in run.settings if not _matches(key, NOT_COMPARED)})
        rows = [line for key in keys if (line := _difference(key, told))]
        tables.append([f"settings of {kind} that differ: {' / '.join(run.label for run in told)}", *(rows or ["none"])])
    untold = [run.label for run in runs if not run.settings]
    return [*tables, *([[f"no settings are beside the log of {', '.join(untold)}"]] if untold else [])]


def _difference(key: str, runs: list[Run]) -> str:
    """``key: value / value / ...``; empty where all are equal."""
    absent = "unknown" if key in FACTS else "absent"
    texts = [_shown(run.settings[key]) if key in run.settings else absent for run in runs]
    values = [run.settings[key] for run in runs if key in run.settings]
    if all(value == values[0] for value in values) and (absent == "unknown" or len(values) == len(runs)):
        return ""
    return f"{key}: {' / '.join(texts)}"


def _shown(value: Any) -> str:
    """A value as it is typed on a command line, digests and long texts shortened."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    text = re.sub(r"\b[0-9a-f]{40,64}\b", lambda digest: digest[0][:12], text)
    half = MAX_VALUE // 2 - 1
    return text if len(text) <= MAX_VALUE else f"{text[:half]}...{text[-half:]}"


def _aligned(rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# -- The picture

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")
MANY_POINTS = 25
COLUMNS = 3
PANEL_IN = (3.9, 2.7)
LETTER_IN, LINE_IN = 0.085, 0.21
MAX_LABEL = 70


@dataclass(frozen=True)
class MetricPanel:
    """One metric of all runs that have it."""

    metric: str  # its name
    aim: str  # ``lower`` or ``higher`` where that is better, else empty
    lines: dict[int, tuple[list[float], list[float]]]  # number of the run to places on the horizontal axis and values


def plot_overlay(panels: Sequence[MetricPanel], labels: Sequence[str], path: Path, *, against: str) -> None:
    """Draw the panels to a PNG, under one legend with a label per run; a run looks the same in each.

    Raises:
        UserError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import StrMethodFormatter

    labels = [_shortened(label) for label in labels]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width_in = max(columns, 2) * PANEL_IN[0]
    legend_columns = max(1, min(len(labels), int(width_in / (LETTER_IN * (max(map(len, labels)) + 7)))))
    legend_rows = -(-len(labels) // legend_columns)
    size_in = (width_in, rows * PANEL_IN[1] + legend_rows * LINE_IN + 0.2)
    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    looks = [_look(number, len(labels)) for number in range(len(labels))]
    farthest = max(x for panel in panels for xs, _ in panel.lines.values() for x in xs)
    unit, xlabel = 1.0, against
    if against == "time":
        unit, name = next((unit, name) for least, unit, name in TIME_UNITS if farthest >= least)
        xlabel = f"training time ({name})"
    farthest /= unit
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        for number, (xs, ys) in panel.lines.items():
            is_dense = len(xs) > MANY_POINTS
            axes.plot([x / unit for x in xs], ys, **looks[number] | ({"marker": None} if is_dense else {}))
        axes.set_title(panel.metric, loc="left", fontsize="medium", parse_math=False)
        if panel.aim:
            axes.set_title(f"{panel.aim} is better", loc="right", fontsize="x-small", color="0.45")
        axes.set_xlim(-0.02 * farthest, 1.02 * farthest or 1)  # the same in all panels
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # no power of ten that meets the title
        if place + columns >= len(panels):  # nothing below it
            axes.set_xlabel(xlabel, fontsize="small")
    handles = [Line2D([], [], **look) for look in looks]
    names = ["run"] * len(labels)
    legend = figure.legend(
        handles, names, loc="outside upper left", ncols=legend_columns, fontsize="small", frameon=False
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)  # only now: a legend leaves out names that start with an underscore
    try:
        with replacing(path) as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a box in the picture; the table has the name
            figure.savefig(part, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another --output") from None


def _look(number: int, num_runs: int) -> dict[str, Any]:
    """Colour, dash, marker and width of a run's lines."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 2.2 - number / max(1, num_runs - 1),  # a line below another one still shows
    }


def _shortened(label: str) -> str:
    half = MAX_LABEL // 2 - 2
    return label if len(label) <= MAX_LABEL else f"{label[:half]} ... {label[-half:]}"
