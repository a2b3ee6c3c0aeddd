"""The report as one self-contained page: no scripts, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from signstreams.progress import duration
from signstreams.streams import STREAMS

MAX_ROWS = 1000
"""Rows of one table; report.json has all."""

_COVERED = ("pose", *STREAMS)
_STATES = ("detected", "tracked", "filled", "missing")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #e4e7ec; --card: #fff; --ground: #f6f7f9;
  --error: #b42318; --warning: #b25e09; --info: #175cd3; --pass: #067647;
  --detected: #2e90fa; --tracked: #f79009; --filled: #9b8afb; --missing: #d0d5dd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3240; --card: #171c26;
  --ground: #0f131a; --error: #f97066; --warning: #fdb022; --info: #84adff; --pass: #47cd89; --missing: #3b4454; } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 12px; }
.soft { color: var(--soft); } .error { color: var(--error); } .warning { color: var(--warning); }
.info { color: var(--info); } .pass { color: var(--pass); } .fail { color: var(--error); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 8px 12px; border-top: 1px solid var(--line); }
th { border-top: 0; font-weight: 600; color: var(--soft); white-space: nowrap; }
td { overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.rule { white-space: nowrap; overflow-wrap: normal; }
code { font: 13px/1.5 ui-monospace, monospace; }
.bar { display: flex; height: 8px; width: 120px; border-radius: 4px; overflow: hidden; background: var(--missing); }
.bar i { display: block; height: 100%; }
.detected { background: var(--detected); } .tracked { background: var(--tracked); }
.filled { background: var(--filled); } .missing { background: var(--missing); }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin: 0 5px 0 14px; }
"""


def render_page(report: Mapping[str, Any]) -> str:
    """HTML of a report (content of ``contract/report.json``)."""
    summary = report["summary"]
    passed = report["verdict"] == "pass"
    verdict = "The corpus keeps the contract" if passed else "The corpus breaks the contract"
    parts = [
        f'<h1 class="{"pass" if passed else "fail"}">{verdict}</h1>',
        f'<div class="soft">{summary["num_errors"]:,} errors, {summary["num_warnings"]:,} warnings · '
        f"signstreams {escape(report['signstreams_version'])}</div>",
        _cards(summary),
        _section("Findings", _findings(report["findings"]), "Nothing was found."),
        _section("Quarantined videos", _quarantined(report["quarantined"]), "None: every video could be read."),
        _section("Streams", _streams(report["streams"]), ""),
        _section("Videos, the worst first", _videos(report["videos"]), "There are no videos.", _legend()),
        _section("Splits", _splits(summary["num_clips_by_split"]), "No split: the corpus has no meta.csv."),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Data contract: {escape(report['verdict'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _cards(summary: Mapping[str, Any]) -> str:
    values = (
        (f"{summary['num_videos']:,}", "videos"),
        (f"{summary['num_extracted']:,}", "extracted"),
        (f"{summary['num_quarantined']:,}", "quarantined"),
        (f"{summary['num_frames']:,}", "frames"),
        (duration(summary["duration_s"]), "of video"),
        (f"{summary['num_clips']:,}", "clips"),
    )
    cards = (
        f'<div class="card"><b>{escape(value)}</b><span class="soft">{name}</span></div>' for value, name in values
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _section(title: str, body: str, otherwise: str, before: str = "") -> str:
    content = before + body if body else f'<p class="soft">{otherwise}</p>'
    return f"<h2>{title}</h2>\n{content}"


def _table(header: Sequence[str], rows: Iterable[str], num_rows: int) -> str:
    if not num_rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in header)
    table = f'<div class="scroll"><table>\n<tr>{head}</tr>\n' + "\n".join(rows) + "\n</table></div>"
    if num_rows > MAX_ROWS:
        table += f'<p class="soft">The first {MAX_ROWS:,} of {num_rows:,}; report.json has all.</p>'
    return table


def _row(*cells: str) -> str:
    return "<tr>" + "".join(cells) + "</tr>"


def _text(value: object) -> str:
    return f"<td>{escape(str(value))}</td>"


def _code(value: object) -> str:
    return f"<td><code>{escape(str(value))}</code></td>"


def _number(value: object) -> str:
    return f'<td class="number">{escape(str(value))}</td>'


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        _row(
            f'<td class="{finding["severity"]}">{finding["severity"]}</td>',
            f'<td class="rule"><code>{escape(finding["rule"])}</code></td>',
            _code(finding["file"] if finding["row"] is None else f"{finding['file']} row {finding['row']}"),
            _text(finding["found"]),
            _text(finding["expected"]),
            _text(finding["fix"]),
        )
        for finding in findings[:MAX_ROWS]
    )
    return _table(("Severity", "Rule", "File", "Found", "Expected", "Fix"), rows, len(findings))


def _quarantined(videos: Sequence[Mapping[str, Any]]) -> str:
    rows = (_row(_code(video["video_id"]), _text(video["reason"] or "")) for video in videos[:MAX_ROWS])
    return _table(("Video", "Reason"), rows, len(videos))


def _streams(streams: Mapping[str, Mapping[str, Any]]) -> str:
    rows = (
        _row(
            _text(name),
            _number(f"{stream['num_crops']:,}"),
            _number(f"{stream['coverage']:.1%}"),
            *(_number(f"{stream['states'].get(state, 0):,}") for state in _STATES),
        )
        for name, stream in streams.items()
    )
    return _table(("Stream", "Crops", "Coverage", *(state.capitalize() for state in _STATES)), rows, len(streams))


def _legend() -> str:
    keys = "".join(f'<i class="key {state}"></i>{state}' for state in _STATES)
    return f'<p class="soft">Share of frames in which the stream was found, by state:{keys}</p>'


def _videos(videos: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted(videos, key=lambda video: (-video["num_errors"], _worst(video), video["video_id"]))
    rows = (
        _row(
            _code(video["video_id"]),
            f'<td class="{"ok" if video["status"] == "ok" else "error"}">{escape(video["status"])}</td>',
            *(_coverage(video, name) for name in _COVERED),
            _number(f"{video['num_frames']:,}"),
            _number("" if video["fps"] is None else f"{video['fps']:.4g}"),
            _number(video["num_clips"]),
            _number(f"{video['num_errors']} / {video['num_warnings']}"),
        )
        for video in ordered[:MAX_ROWS]
    )
    header = ("Video", "Status", *_COVERED, "Frames", "fps", "Clips", "Errors / warnings")
    return _table(header, rows, len(videos))


def _worst(video: Mapping[str, Any]) -> float:
    return min((video["coverage"].get(name, 0.0) for name in _COVERED), default=0.0)


def _coverage(video: Mapping[str, Any], name: str) -> str:
    if name not in video["coverage"]:
        return "<td></td>"
    ratio = video["coverage"][name]
    num_frames = max(1, video["num_frames"])
    states = video["states"].get(name, {"detected": ratio * num_frames})
    parts = "".join(
        f'<i class="{state}" style="width:{100 * states.get(state, 0) / num_frames:.1f}%"></i>' for state in _STATES[:3]
    )
    return f'<td>{ratio:.1%}<div class="bar">{parts}</div></td>'


def _splits(counts: Mapping[str, int]) -> str:
    rows = (_row(_text(split), _number(f"{count:,}")) for split, count in counts.items())
    return _table(("Split", "Clips"), rows, len(counts))
