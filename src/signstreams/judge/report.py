"""What the judge found, for people and programs: one table (text, JSON, CSV) and one picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from signstreams.engine.metrics import COLORS
from signstreams.files import replacing, write_json, write_text
from signstreams.formats.layout import JUDGE_FILES

NEAREST, VOTE, PROBE = "nearest", "knn", "probe"
KINDS = ("backbone", "first weights", "public", "free")  # in the picture each has its colour


def _titles(report: dict[str, Any]) -> dict[str, str]:
    """Probe to its name in table and picture."""
    return {NEAREST: "1-NN", VOTE: f"{report['k']}-NN", PROBE: "probe"}


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write table and picture, and the JSON last."""
    _write_csv(folder / JUDGE_FILES["table"], report)
    _draw(folder / JUDGE_FILES["judge"], report)
    write_json(folder / JUDGE_FILES["report"], report)


def table(report: dict[str, Any]) -> str:
    """Accuracies in %, a row for each source of features, a column for each probe of each split."""
    titles = _titles(report)
    columns = [(split, by) for split in report["splits"] for by in titles if by in report["rows"][0]["scores"][split]]
    heads = ["features", *(titles[by] for _, by in columns)]
    lines = [[_name(row), *(_shown(row["scores"][split][by]) for split, by in columns)] for row in report["rows"]]
    guess = [f"{100 * report['splits'][split]['most_frequent']:.1f}" for split, _ in columns]
    lines.append(["the most frequent class, always", *guess])
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]

    def aligned(cells: list[str]) -> str:
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])

    signers = f", {report['num_signers']} signers" if report["num_signers"] else ""
    above = [
        f"{report['data']}: {report['num_items']:,} {report['items']} of {len(report['classes'])} classes{signers}"
    ]
    groups = " " * widths[0]
    for split, about in report["splits"].items():
        width = sum(w for (name, _), w in zip(columns, widths[1:], strict=True) if name == split)
        width += 2 * sum(name == split for name, _ in columns) - 2
        groups += "  " + about["title"].ljust(width)
        left = f"; {about['num_left_out']:,} are alone in their class" if about["num_left_out"] else ""
        above.append(f"{about['title']}: {about['num_asked']:,} asked in {_counted(about['num_folds'])}{left}")
    above.append(f"accuracy in % [{report['interval']}]")
    return "\n".join([*above, groups.rstrip(), *(aligned(line) for line in (heads, *lines))])


def _counted(folds: int) -> str:
    return f"{folds} folds" if folds > 1 else "one fold"


def _name(row: dict[str, Any]) -> str:
    return ", ".join(filter(None, (row["name"], row["features"])))


def _shown(score: dict[str, float]) -> str:
    return f"{100 * score['value']:.1f} [{100 * score['low']:.0f}, {100 * score['high']:.0f}]"


COLUMNS = ("name", "kind", "features", "width", "split", "probe", "accuracy", "low", "high", "about")


def score_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of `COLUMNS` for each source of features, variant of them, split and probe; accuracies are 0..1."""
    rows = []
    for row in report["rows"]:
        first = [row["name"], row["kind"], row["features"], row["width"]]
        for split, scores in row["scores"].items():
            for by, score in scores.items():
                values = [*first, split, by, score["value"], score["low"], score["high"], row["about"]]
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _write_csv(path: Path, report: dict[str, Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in score_rows(report):
        writer.writerow(f"{row[key]:.6f}" if key in ("accuracy", "low", "high") else row[key] for key in COLUMNS)
    write_text(path, text.getvalue())


def _draw(path: Path, report: dict[str, Any]) -> None:
    """A panel for each split: a line for each source, a mark for each probe with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, titles, marks = report["rows"], _titles(report), {NEAREST: "s", VOTE: "o", PROBE: "D"}
    figure = Figure(figsize=(4.2 + 3.6 * len(report["splits"]), 1.9 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    title = f"{report['data']}: {report['num_items']:,} {report['items']}, {len(report['classes'])} classes"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold", parse_math=False)
    caption = (
        f"Lines: {report['interval']}. Dashed: always the most frequent class. Good: a backbone further right than its"
        " first weights, grey pixels and HOG, on unseen signers too."
    )
    figure.supxlabel(caption, x=0.01, ha="left", fontsize="small", wrap=True, parse_math=False)
    places = figure.subplots(1, len(report["splits"]), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (split, about) in zip(places, report["splits"].items(), strict=True):
        for i, row in enumerate(rows):
            color = COLORS[KINDS.index(row["kind"])]
            for j, (by, score) in enumerate(row["scores"][split].items()):
                y = i + 0.22 * (j - (len(row["scores"][split]) - 1) / 2)
                axes.plot([100 * score["low"], 100 * score["high"]], [y, y], color=color, linewidth=1)
                label = titles[by] if i == 0 else None
                axes.plot(100 * score["value"], y, marks[by], color=color, markersize=4, label=label)
        axes.axvline(100 * about["most_frequent"], linestyle="--", color="0.5", linewidth=1)
        axes.set_title(f"{about['title']}, {about['num_asked']:,} asked", loc="left", fontsize="medium")
        axes.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize="small", parse_math=False)
        axes.set_xlabel("right answers, %", fontsize="small")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small")
    places[0].invert_yaxis()
    places[0].legend(fontsize="x-small", framealpha=0.6)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
