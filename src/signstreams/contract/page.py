"""The contract report as one self-contained page: no scripts, no network, every text escaped, pictures inside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np

from signstreams.array_types import Pixels
from signstreams.contract.records import STATE_NAMES
from signstreams.contract.report import draw, histogram
from signstreams.formats.arrays import Tracks, read_tracks
from signstreams.formats.crops import Crop, CropReader, list_crops, parse_crop_name
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import SignerInfo, VideoMetadata, read_metadata
from signstreams.formats.strip import inner_places
from signstreams.markup import (
    MAX_ROWS,
    QUALITIES,
    cards,
    code,
    document,
    fitting,
    number,
    row,
    section,
    table,
    text,
    webp,
)
from signstreams.progress import duration
from signstreams.streams import STREAMS

# Pictures for the page: crops and previews of some videos, from files that may be damaged or absent.

MAX_VIDEOS = 24
"""Videos shown with pictures: all of a small corpus; of a large one half the worst, half spread over the others."""
NUM_CROPS, CROP_PX = 48, 88
PREVIEW_PX = 800
MAX_LOOSE = 20_000
"""Files of a folder of loose crops that are looked at for some to show."""


class ShownCrop(NamedTuple):
    """A small crop.

    Attributes:
        video_id, frame: Where it was cut.
        state: Name of its state; empty when the tracks do not say.
        uri: The picture; empty when it cannot be read.
    """

    video_id: str
    frame: int
    state: str
    uri: str


class ShownVideo(NamedTuple):
    """A video with what is known of it.

    Attributes:
        row: Its row in the report.
        metadata: None when it cannot be read.
        preview: The picture; empty when there is none.
    """

    row: Mapping[str, Any]
    metadata: VideoMetadata | None
    preview: str


def choose_videos(ordered: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows to show with pictures, of all rows with the worst first."""
    if len(ordered) <= MAX_VIDEOS:
        return list(ordered)
    worst, others = ordered[: MAX_VIDEOS // 2], ordered[MAX_VIDEOS // 2 :]
    spread = np.linspace(0, len(others) - 1, MAX_VIDEOS - len(worst)).round().astype(int)
    return [*worst, *(others[place] for place in spread)]


def show_videos(
    layout: CorpusLayout, rows: Sequence[Mapping[str, Any]], quality: int = QUALITIES[0]
) -> list[ShownVideo]:
    """Metadata and preview of each."""
    shown = []
    for row in rows:
        metadata = None
        with suppress(OSError, ValueError):
            metadata = read_metadata(layout.metadata(row["video_id"]))
        shown.append(ShownVideo(row, metadata, _read_preview(layout.preview(row["video_id"]), quality)))
    return shown


def box_sides(layout: CorpusLayout, video_ids: Sequence[str]) -> dict[str, list[float]]:
    """Stream to the sides of its boxes, px of the source, over these videos."""
    sides: dict[str, list[float]] = {stream: [] for stream in STREAMS}
    for tracks in filter(None, (_tracks(layout, video_id) for video_id in video_ids)):
        for stream, track in tracks.streams.items():
            box = track.box[track.state > 0]
            side = box[:, 2] - box[:, 0]
            sides[stream] += side[np.isfinite(side) & (side > 0)].tolist()
    return sides


def show_crops(
    layout: CorpusLayout, video_ids: Sequence[str], quality: int = QUALITIES[0]
) -> dict[str, list[ShownCrop]]:
    """Stream to crops spread over the videos and over time."""
    tracks = {video_id: _tracks(layout, video_id) for video_id in video_ids}
    reader = CropReader()
    try:
        return {stream: list(_crops_of(layout, stream, video_ids, tracks, reader, quality)) for stream in STREAMS}
    finally:
        reader.close()


def _crops_of(
    layout: CorpusLayout,
    stream: str,
    video_ids: Sequence[str],
    tracks: Mapping[str, Tracks | None],
    reader: CropReader,
    quality: int,
) -> Iterator[ShownCrop]:
    each = max(2, NUM_CROPS // max(1, len(video_ids)))
    num_shown = 0
    for video_id, crops in _listed(layout, stream, video_ids):
        known = tracks.get(video_id)
        for place in inner_places(len(crops), min(each, len(crops))):
            if num_shown == NUM_CROPS:
                return
            crop = crops[place]
            state = ""
            if known is not None and crop.frame < len(known.times_s):
                state = STATE_NAMES.get(int(known.streams[stream].state[crop.frame]), "")
            yield ShownCrop(video_id, crop.frame, state, _small(crop, reader, quality))
            num_shown += 1


def _listed(layout: CorpusLayout, stream: str, video_ids: Sequence[str]) -> Iterator[tuple[str, list[Crop]]]:
    """Video id and its crops, of videos that have some."""
    archived = False
    for video_id in video_ids:
        with suppress(OSError, ValueError):
            crops = list_crops(layout.crops(stream, video_id))
            archived = True
            if crops:
                yield video_id, crops
    if archived:
        return
    loose: dict[str, list[Crop]] = {}
    with suppress(OSError), os.scandir(layout.processed / stream) as entries:
        for entry in islice(entries, MAX_LOOSE):
            if (key := parse_crop_name(entry.name)) is not None and key[0] in video_ids:
                loose.setdefault(key[0], []).append(Crop(*key, Path(entry.path), None, 0, None))
    for video_id in sorted(loose):
        yield video_id, sorted(loose[video_id], key=lambda crop: crop.frame)


def _small(crop: Crop, reader: CropReader, quality: int) -> str:
    with suppress(OSError, ValueError):
        image = _decoded(reader.read(crop))
        if image is not None:
            return webp(cv2.resize(image, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), quality)
    return ""


def _read_preview(path: Path, quality: int) -> str:
    with suppress(OSError):
        image = _decoded(path.read_bytes())
        if image is not None:
            scale = min(1.0, PREVIEW_PX / image.shape[1])
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            return webp(cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image, quality)
    return ""


def _decoded(data: bytes) -> Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # a size that no picture has
        return None


def _tracks(layout: CorpusLayout, video_id: str) -> Tracks | None:
    try:
        return read_tracks(layout.tracks(video_id))
    except Exception:  # the checks have said what is wrong with it; nothing may keep the page from being written
        return None


# The report as one self-contained page: no scripts, no network, every text escaped, pictures inside.

MAX_PLACES = 10
"""Places named of one rule; report.json has all."""
_BAD = ("quarantined", "absent")
_COVERED = ("pose", *STREAMS)
_STATES = ("detected", "tracked", "filled", "missing")
_SEVERITIES = ("error", "warning", "info")

# What a newcomer looks for, and what bad looks like.
_FINDINGS_HINT = (
    "Errors stop the workflow before a GPU is taken; warnings are for you to judge. Each says how to mend it."
)
_QUARANTINED_HINT = "These could not be read and were left out; the rest of the corpus is whole without them."
_GLANCE_HINT = (
    "Is it the person who signs, in every frame? Green is the signer's own left, pink the right. Boxes and "
    "crops are blue where detected, orange where the body pose placed them, violet where filled in. Bad: a box "
    "on somebody else, colours that change sides, hands cut off, long rows of missing hands while they sign."
)
_CROPS_HINT = (
    "What pretraining sees, spread over videos and time. Good: one whole hand or face a crop, upright, of even "
    "size. Bad: background, elbows, the other hand, blur throughout. Point at a crop for its video and frame."
)
_COVERAGE_HINT = (
    "In how many frames each stream has a crop, and where its box came from. Much orange among hands: fast or "
    "small hands, the crops are less exact. A face is usually found in nearly all frames; hands rest out of "
    "sight."
)
_SIZES_HINT = (
    "A second hump of frame rates means mixed sources: set extract fps. Boxes much smaller than crop_px are "
    "enlarged and cost time for nothing: a crop_px near the median is enough."
)
_VIDEOS_HINT = "Errors first, then the least coverage. The bars show the states of each stream."


def render_page(report: Mapping[str, Any], layout: CorpusLayout) -> str:
    """HTML of a report.

    Args:
        report: Content of ``contract/report.json``.
        layout: Where pictures are read from; what is absent or damaged is left out.
    """
    return fitting(lambda quality: _render(report, layout, quality))


def _render(report: Mapping[str, Any], layout: CorpusLayout, quality: int) -> str:
    summary = report["summary"]
    passed = report["verdict"] == "pass"
    verdict = "The corpus keeps the contract" if passed else "The corpus breaks the contract"
    ordered = sorted(report["videos"], key=_badness)
    shown = choose_videos(ordered)
    video_ids = [video["video_id"] for video in shown if video["status"] != "quarantined"]
    parts = [
        f'<h1 class="{"pass" if passed else "fail"}">{verdict}</h1>',
        f'<div class="soft">{_counted(summary["num_errors"], "error")}, '
        f"{_counted(summary['num_warnings'], 'warning')} · signstreams {escape(report['signstreams_version'])}</div>",
        _cards(summary),
        section("Findings", _findings(report), hint=_FINDINGS_HINT, otherwise="Nothing was found."),
        section("Quarantined videos", _quarantined(report["quarantined"]), hint=_QUARANTINED_HINT),
        section("Videos at a glance", _previews(show_videos(layout, shown, quality), len(ordered)), hint=_GLANCE_HINT),
        section("Crops", _crops(show_crops(layout, video_ids, quality)), hint=_CROPS_HINT),
        section("Coverage", _streams(report["streams"]), hint=_COVERAGE_HINT),
        section("Lengths, rates, sizes", _charts(report, box_sides(layout, video_ids)), hint=_SIZES_HINT),
        section("Videos, the worst first", _videos(ordered), hint=_VIDEOS_HINT, otherwise="There are no videos."),
        section("Splits", _splits(summary["num_clips_by_split"]), otherwise="No split: the corpus has no meta.csv."),
    ]
    return document(f"Data contract: {report['verdict']}", parts)


def _badness(video: Mapping[str, Any]) -> tuple[Any, ...]:
    worst = min((video["coverage"].get(name, 0.0) for name in _COVERED), default=0.0)
    return -video["num_errors"], worst, video["video_id"]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cards(summary: Mapping[str, Any]) -> str:
    values = [
        (f"{summary['num_videos']:,}", "videos"),
        (f"{summary['num_extracted']:,}", "extracted"),
        (f"{summary['num_quarantined']:,}", "quarantined"),
        (f"{summary['num_frames']:,}", "frames"),
        (duration(summary["duration_s"]), "of video"),
        (f"{summary['num_clips']:,}", "clips"),
    ]
    if summary.get("num_loose"):
        values.insert(2, (f"{summary['num_loose']:,}", "of loose crops"))
    return cards(values)


def _findings(report: Mapping[str, Any]) -> str:
    """Rules that are broken, the gravest first; each opens to its places."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in report["findings"]:
        groups.setdefault((finding["severity"], finding["rule"]), []).append(finding)
    ordered = sorted(groups.items(), key=lambda item: (_SEVERITIES.index(item[0][0]), -len(item[1]), item[0][1]))
    return "\n".join(_rule(severity, rule, findings) for (severity, rule), findings in ordered)


def _rule(severity: str, rule: str, findings: Sequence[Mapping[str, Any]]) -> str:
    places = "".join(
        f"<li><code>{escape(_place(finding))}</code> {escape(finding['found'])}</li>"
        for finding in findings[:MAX_PLACES]
    )
    if len(findings) > MAX_PLACES:
        places += f'<li class="soft">and {len(findings) - MAX_PLACES:,} more: report.json has all</li>'
    fixes = list(dict.fromkeys(finding["fix"] for finding in findings))
    fix = f"<p>To do: {escape(fixes[0])}" + (f" (and {len(fixes) - 1:,} alike)" if len(fixes) > 1 else "") + "</p>"
    is_open = " open" if severity == "error" else ""
    return (
        f'<details{is_open}><summary><b class="{severity}">{severity}</b> <code>{escape(rule)}</code> '
        f'<span class="soft">{_counted(len(findings), "time")}</span> · expected {escape(findings[0]["expected"])}'
        f"</summary>{fix}<ul>{places}</ul></details>"
    )


def _place(finding: Mapping[str, Any]) -> str:
    return finding["file"] if finding["row"] is None else f"{finding['file']} row {finding['row']}"


def _quarantined(videos: Sequence[Mapping[str, Any]]) -> str:
    rows = (row(code(video["video_id"]), text(video["reason"] or "")) for video in videos[:MAX_ROWS])
    return table(("Video", "Reason"), rows, len(videos))


def _previews(shown: Sequence[ShownVideo], num_videos: int) -> str:
    figures = [_preview(video) for video in shown if video.preview]
    if not figures:
        return ""
    note = f'<p class="soft">{len(figures):,} of {num_videos:,} videos, the worst first; the others lie in '
    note += "<code>processed/preview</code>.</p>"
    return f'<div class="previews">{"".join(figures)}</div>' + (note if num_videos > len(figures) else "")


def _preview(video: ShownVideo) -> str:
    row, metadata = video.row, video.metadata
    words = [f"{row['num_frames']:,} frames"]
    words += [f"{name} {row['coverage'][name]:.0%}" for name in _COVERED if name in row["coverage"]]
    if metadata is not None:
        words.append(_signer(metadata.signer))
        if metadata.face_privacy != "none":
            words.append(f"faces hidden ({metadata.face_privacy})")
        if metadata.spans_s is not None:
            words.append(f"{len(metadata.spans_s):,} annotated spans only")
        if metadata.note:
            words.append(metadata.note)
    is_bad = row["num_errors"] or row["status"] == "quarantined"
    return (
        f"<figure{' class=bad' if is_bad else ''}><figcaption><code>{escape(row['video_id'])}</code> "
        f'<span class="soft">{escape(" · ".join(words))}</span></figcaption>'
        f'<a href="../processed/preview/{escape(quote(row["video_id"]))}.jpg">'
        f'<img loading="lazy" alt="{escape(row["video_id"])}" src="{video.preview}"></a></figure>'
    )


def _signer(signer: SignerInfo) -> str:
    if signer.chosen_by == "alone":
        return "one person"
    motions = ", ".join(f"{value:.1f}" for value in signer.hand_motion)
    return {
        "hand_motion": f"of {signer.num_people} people the one whose hands move most ({motions} head units a second)",
        "size": f"of {signer.num_people} people the larger one: hands do not tell ({motions} head units a second)",
        "box": "the person in the box of meta.csv",
        "detector": "nobody looked for other people",
    }[signer.chosen_by]


def _crops(crops: Mapping[str, Sequence[ShownCrop]]) -> str:
    return "\n".join(
        f'<h3>{stream}</h3><div class="crops">{"".join(map(_crop, shown))}</div>'
        for stream, shown in crops.items()
        if shown
    )


def _crop(crop: ShownCrop) -> str:
    title = escape(f"{crop.video_id} frame {crop.frame}" + (f", {crop.state}" if crop.state else ""))
    if not crop.uri:
        return f'<span class="{crop.state}" title="{title}">damaged</span>'
    return f'<img loading="lazy" class="{crop.state}" title="{title}" alt="{title}" src="{crop.uri}">'


def _streams(streams: Mapping[str, Mapping[str, Any]]) -> str:
    rows = (
        row(
            text(name),
            f"<td>{stream['coverage']:.1%}{_bar(stream['states'], sum(stream['states'].values()))}</td>",
            number(f"{stream['num_crops']:,}"),
            *(number(f"{stream['states'].get(state, 0):,}") for state in _STATES),
        )
        for name, stream in streams.items()
    )
    keys = "".join(f'<i class="key {state}"></i>{state}' for state in _STATES)
    header = ("Stream", "Coverage", "Crops", *(state.capitalize() for state in _STATES))
    return table(header, rows, len(streams)) + f'<p class="soft">{keys}</p>'


def _charts(report: Mapping[str, Any], sides: Mapping[str, Sequence[float]]) -> str:
    usable = [video for video in report["videos"] if video["num_frames"]]
    charts = [
        draw("Length of videos", "s", histogram([v["duration_s"] for v in usable if v["duration_s"] is not None])),
        draw("Length of clips", "s", report["clip_lengths_s"]),
        draw("Frame rate of the source", "fps", histogram([v["source_fps"] for v in usable if v["source_fps"]])),
        draw("Frame rate extracted", "fps", histogram([v["fps"] for v in usable if v["fps"]])),
        *(draw(f"Side of {stream} boxes", "px", histogram(values)) for stream, values in sides.items()),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _videos(ordered: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        row(
            code(video["video_id"]),
            f'<td class="{"error" if video["status"] in _BAD else ""}">{escape(video["status"])}</td>',
            *(_coverage(video, name) for name in _COVERED),
            number(f"{video['num_frames']:,}"),
            number("" if video["fps"] is None else f"{video['fps']:.4g}"),
            number(video["num_clips"]),
            number(f"{video['num_errors']} / {video['num_warnings']}"),
            text(", ".join(video.get("missing", ()))),
        )
        for video in ordered[:MAX_ROWS]
    )
    header = ("Video", "Status", *_COVERED, "Frames", "fps", "Clips", "Errors / warnings", "Lacks")
    return table(header, rows, len(ordered))


def _coverage(video: Mapping[str, Any], name: str) -> str:
    if name not in video["coverage"]:
        return "<td></td>"
    ratio, num_frames = video["coverage"][name], max(1, video["num_frames"])
    states = video["states"].get(name, {"detected": ratio * num_frames})
    return f"<td>{ratio:.1%}{_bar(states, num_frames)}</td>"


def _bar(states: Mapping[str, float], total: float) -> str:
    parts = "".join(
        f'<i class="{state}" style="width:{100 * states.get(state, 0) / max(1, total):.1f}%"></i>'
        for state in _STATES[:3]
        if states.get(state)
    )
    return f'<div class="bar">{parts}</div>'


def _splits(counts: Mapping[str, int]) -> str:
    rows = (row(text(split), number(f"{count:,}")) for split, count in counts.items())
    return table(("Split", "Clips"), rows, len(counts))
