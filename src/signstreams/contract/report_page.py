"""The contract report as a page: findings, pictures of the worst and some other videos, coverage, lengths, rates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from signstreams.array_types import Pixels
from signstreams.contract.check_records import STATE_NAMES
from signstreams.contract.report import histogram
from signstreams.contract.views import known_of
from signstreams.corpus.findings import SEVERITIES
from signstreams.formats.arrays import Tracks, read_tracks
from signstreams.formats.crops import Crop, CropReader, evenly_spread, list_crops, parse_crop_name
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.language import plural, tr, translated
from signstreams.pages.render import render
from signstreams.streams import SIDE_BY_SIDE, STREAMS

MAX_PLACES = 10  # places listed per rule; report.json has all
MAX_VIDEOS = 24
"""Videos shown with pictures: all of a small corpus; of a large one half the worst, half spread over the others."""
NUM_CROPS, CROP_PX = 48, 88
PREVIEW_PX = 800
MAX_LOOSE = 20_000  # files of a folder of loose crops that are searched for some to show
_COVERED = ("pose", *STREAMS)
_STATES = ("detected", "tracked", "filled", "missing")


@dataclass(frozen=True)
class ShownCrop:
    """A small crop, and where it was cut."""

    video_id: str
    frame: int
    state: str  # name of its state; empty when the tracks do not say
    image: Pixels | None  # (CROP_PX, CROP_PX, 3); None when it cannot be read


def render_page(report: Mapping[str, Any], layout: CorpusLayout) -> str:
    """HTML of the content of ``contract/report.json``; pictures that are absent or damaged are left out."""
    ordered = worst_first(report["videos"])
    chosen = choose_videos(ordered)
    video_ids = [video["video_id"] for video in chosen if video["status"] != "quarantined"]
    return render(
        "contract.html",
        verdict=report["verdict"],
        version=report["signstreams_version"],
        summary=report["summary"],
        breaches=_breaches(report["findings"]),
        max_places=MAX_PLACES,
        quarantined=report["quarantined"],
        videos=ordered,
        previews=[shown for video in chosen if (shown := _show_video(layout, video)) is not None],
        crops=show_crops(layout, video_ids),
        streams=report["streams"],
        states=list(_STATES),
        charts=_charts(report, _box_sides_px(layout, video_ids)),
        covered=list(_COVERED),
        cut_streams=list(SIDE_BY_SIDE),
    )


def worst_first(videos: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of the report: those with errors first, then by their least coverage."""
    return sorted(videos, key=_badness)


def _badness(video: Mapping[str, Any]) -> tuple[Any, ...]:
    worst = min(video["coverage"].get(name, 0.0) for name in _COVERED)
    return -video["num_errors"], worst, video["video_id"]


def _breaches(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rules that are broken, with their findings and different fixes; the gravest first, then the most frequent."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        groups.setdefault((finding["severity"], finding["rule"]), []).append(finding)
    ordered = sorted(groups.items(), key=lambda group: (SEVERITIES.index(group[0][0]), -len(group[1]), group[0][1]))
    return [
        {"severity": severity, "rule": rule, "findings": found, "fixes": list(dict.fromkeys(f["fix"] for f in found))}
        for (severity, rule), found in ordered
    ]


def _charts(report: Mapping[str, Any], sides_px: Mapping[str, Sequence[float]]) -> list[tuple[str, str, Any]]:
    """Title, unit and `histogram` of each chart that counts something."""
    usable = [video for video in report["videos"] if video["num_frames"]]
    charts = (
        (tr("Length of videos"), "s", histogram([v["duration_s"] for v in usable if v["duration_s"] is not None])),
        (tr("Length of clips"), "s", report["clip_lengths_s"]),
        (tr("Frame rate of the source"), "fps", histogram([v["source_fps"] for v in usable if v["source_fps"]])),
        (tr("Frame rate extracted"), "fps", histogram([v["fps"] for v in usable if v["fps"]])),
        *(
            (tr("Side of %(stream)s boxes", stream=stream), "px", histogram(values))
            for stream, values in sides_px.items()
        ),
    )
    return [chart for chart in charts if chart[2]["count"]]


def _box_sides_px(layout: CorpusLayout, video_ids: Sequence[str]) -> dict[str, list[float]]:
    """Stream to the sides of its boxes, px of the source, over these videos."""
    sides: dict[str, list[float]] = {stream: [] for stream in STREAMS}
    for tracks in filter(None, (_tracks(layout, video_id) for video_id in video_ids)):
        for stream, track in tracks.streams.items():
            box = track.box[track.state > 0]
            side = box[:, 2] - box[:, 0]
            sides[stream] += side[np.isfinite(side) & (side > 0)].tolist()
    return sides


# -- Videos and crops; their files may be damaged or absent


def choose_videos(ordered: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows to show with pictures, of all rows with the worst first."""
    if len(ordered) <= MAX_VIDEOS:
        return list(ordered)
    worst, others = ordered[: MAX_VIDEOS // 2], ordered[MAX_VIDEOS // 2 :]
    places = evenly_spread(MAX_VIDEOS - len(worst), len(others), with_ends=True)
    return [*worst, *(others[place] for place in places)]


def _show_video(layout: CorpusLayout, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A video of the report with its preview, and what is known of it in words; None when it has no preview."""
    preview = _read_preview(layout.preview(row["video_id"]))
    if preview is None:
        return None
    words = [plural("%(num)s frame", "%(num)s frames", row["num_frames"])]
    words += [f"{name} {row['coverage'][name]:.0%}" for name in _COVERED if name in row["coverage"]]
    with suppress(OSError, ValueError):
        words += map(translated, known_of(read_metadata(layout.metadata(row["video_id"]))))
    is_bad = row["num_errors"] or row["status"] == "quarantined"
    return {"video_id": row["video_id"], "is_bad": is_bad, "description": " · ".join(words), "preview": preview}


def show_crops(layout: CorpusLayout, video_ids: Sequence[str]) -> dict[str, list[ShownCrop]]:
    """Stream to crops spread over the videos and over time."""
    tracks = {video_id: _tracks(layout, video_id) for video_id in video_ids}
    with closing(CropReader()) as reader:
        return {
            stream: list(islice(_crops_of(layout, stream, video_ids, tracks, reader), NUM_CROPS)) for stream in STREAMS
        }


def _crops_of(
    layout: CorpusLayout,
    stream: str,
    video_ids: Sequence[str],
    tracks: Mapping[str, Tracks | None],
    reader: CropReader,
) -> Iterator[ShownCrop]:
    per_video = max(2, NUM_CROPS // max(1, len(video_ids)))
    for video_id, crops in _listed(layout, stream, video_ids):
        known = tracks.get(video_id)
        for place in evenly_spread(min(per_video, len(crops)), len(crops)):
            crop = crops[place]
            state = ""
            if known is not None and crop.frame < len(known.times_s):
                state = STATE_NAMES.get(int(known.streams[stream].state[crop.frame]), "")
            yield ShownCrop(video_id, crop.frame, state, _small(crop, reader))


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


def _small(crop: Crop, reader: CropReader) -> Pixels | None:
    with suppress(OSError, ValueError):
        image = _decoded(reader.read(crop))
        if image is not None:
            return cv2.resize(image, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
    return None


def _read_preview(path: Path) -> Pixels | None:
    image = None
    with suppress(OSError):
        image = _decoded(path.read_bytes())
    if image is None or image.shape[1] <= PREVIEW_PX:
        return image
    height = max(1, round(image.shape[0] * PREVIEW_PX / image.shape[1]))
    return cv2.resize(image, (PREVIEW_PX, height), interpolation=cv2.INTER_AREA)


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
