"""The list of the page's browser, ``contract/views.js``: a row for each video with what it is filtered and sorted by.

Every video has one, where the page itself has pictures of some: 10,000 videos take 2 to 3 MB, read when the page opens.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from signstreams.contract.inventory import ENDINGS, PROCESSED
from signstreams.contract.views import STEPS, ViewSummary, read_summary
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.formats.skeleton import DRAWN, FACE_LINES, LEFT, LINES, RIGHT, Colour
from signstreams.formats.video_sources import unsafe_id
from signstreams.language import translated
from signstreams.pages.render import relative_address
from signstreams.streams import BY_NAME, SIDE_BY_SIDE

MAX_FINDINGS = 6  # of one video that are shown with it; report.json has all
PLAYED = (".mp4", ".m4v", ".webm", ".mov", ".mkv")
"""Endings of what a browser may play; it says itself when it cannot. Others, and folders of frames, none plays."""
_SIDES: dict[str | None, Colour] = {"left": LEFT, "right": RIGHT, None: FACE_LINES}


def view_index(
    ordered: Sequence[Mapping[str, Any]], report: Mapping[str, Any], layout: CorpusLayout, sources: Mapping[str, Path]
) -> str:
    """The script, ASCII: a call of ``showVideos``.

    ``ordered`` are the report's videos, the worst first; ``sources`` the files of videos that are there, by id. Ids are
    data in it, and only those that can name a file lead to files.
    """
    previews = _ids_in(layout.preview("x").parent, ".jpg")
    views = _ids_in(layout.views.with_suffix(""), ".js")
    rules = sorted({rule for video in ordered for rule in video["rules"]})
    findings = _findings_of(report["findings"])
    folder_address = cache(lambda folder: relative_address(folder, layout.report_page))

    def address(source: Path) -> str:
        return f"{folder_address(source.parent)}/{quote(source.name, errors='surrogateescape')}"

    rows = []
    for video in ordered:
        video_id = video["video_id"]
        is_safe = not unsafe_id(video_id)
        source = sources.get(video_id)
        summary = read_summary(layout.view(video_id)) if is_safe and video_id in views else None
        rows.append(
            {
                "id": video_id,
                "status": video["status"],
                "frames": video["num_frames"],
                "s": video["duration_s"],
                "coverage": [video["coverage"].get(name) for name in ("pose", *SIDE_BY_SIDE)],
                "damaged": video["num_damaged_frames"] / max(1, video["num_frames"]),
                "errors": video["num_errors"],
                "warnings": video["num_warnings"],
                "rules": [rules.index(rule) for rule in video["rules"]],
                "findings": findings.get(video_id, [])[:MAX_FINDINGS],
                "signers": video["signers"],
                "splits": video["splits"],
                "preview": is_safe and video_id in previews,
                "view": summary is not None and summary.is_drawn,
                **_measured(summary),
                "source": address(source) if _is_played(source, summary) else None,
            }
        )
    columns = list(rows[0]) if rows else []
    content = {
        "columns": columns,
        "rows": [[_short(row[column]) for column in columns] for row in rows],
        "rules": rules,
        "splits": list(SPLITS),
        "streams": SIDE_BY_SIDE,
        "side_colours": [_css(_SIDES[BY_NAME[name].side]) for name in SIDE_BY_SIDE],
        "steps": STEPS,
        "num_points": len(DRAWN),
        "lines": [[_css(colour), width, [DRAWN.index(row) for row in points]] for points, colour, width in LINES],
    }
    return f"showVideos({json.dumps(content, separators=(',', ':'))});\n"


def remove_other_views(layout: CorpusLayout, video_ids: Iterable[str]) -> None:
    """Remove views of videos that are no longer in the corpus: they show people."""
    known = set(video_ids)
    for video_id in _ids_in(layout.views.with_suffix(""), ".js") - known:
        with contextlib.suppress(OSError):
            layout.view(video_id).unlink()


def _ids_in(folder: Path, ending: str) -> set[str]:
    with contextlib.suppress(OSError):
        return {name.removesuffix(ending) for name in os.listdir(folder) if name.endswith(ending) and name[0] != "."}
    return set()


def _findings_of(findings: Iterable[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Video to severity, rule and text of each finding about one of its files; those about tables have none."""
    found: dict[str, list[list[str]]] = {}
    for finding in findings:
        folder, _, name = finding["file"].rpartition("/")
        ending = ENDINGS.get(folder.removeprefix(f"{PROCESSED}/"))
        if ending is not None and name.endswith(ending):
            entry = [finding["severity"], finding["rule"], translated(finding["found"])]
            found.setdefault(name.removesuffix(ending), []).append(entry)
    return found


def _measured(summary: ViewSummary | None) -> dict[str, float | int | None]:
    """What a view says of the hands; None of a video without one."""
    names = ("no_hands_ratio", "estimated_ratio", "unsure_ratio", "num_swaps", "mirrored_ratio", "num_people")
    return {name: getattr(summary, name, None) for name in names}


def _is_played(source: Path | None, summary: ViewSummary | None) -> TypeGuard[Path]:
    """Whether the page may play a video: not where its faces are to be hidden, or where nothing is known of it."""
    is_open = summary is not None and summary.is_drawn and summary.face_privacy == "none"
    return source is not None and source.suffix.lower() in PLAYED and is_open


def _css(colour: Colour) -> str:
    return f"rgb{colour}"


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
