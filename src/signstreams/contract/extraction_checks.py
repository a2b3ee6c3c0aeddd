"""Whether videos were extracted as it is planned: Snakemake knows that only of files which it made itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from signstreams.config.load import flatten, leaves
from signstreams.contract.re_extraction_advice import extract_command
from signstreams.contract.rules import PLANNED
from signstreams.contract.video import READ_ERRORS
from signstreams.corpus.findings import Finding, few_ids
from signstreams.extract.settings import ExtractConfig
from signstreams.files import read_json, write_json
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata, read_metadata
from signstreams.formats.video_sources import VIDEO_SUFFIXES
from signstreams.language import counted

WITHOUT_EFFECT = {"max_buffer_mib"}  # on the results, although they are recorded
Difference = tuple[str, str, str]  # key, value that is recorded, value that is planned


# -- The extraction that is planned


def read_planned(layout: CorpusLayout) -> dict[str, Any] | None:
    """``contract/extraction.json``, key to value; None where it is absent, or damaged: the workflow writes it again.

    The settings are no parameters of the workflow's rule: as those of the training, they would make the contract stale
    where they are new, and, as Snakemake runs whatever depends on a job that runs, all pretraining.
    """
    try:
        settings = read_json(layout.planned_extraction)["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None


def settings_of(extract: ExtractConfig) -> dict[str, Any]:
    """Key to value of the settings that metadata record."""
    return dict(flatten(extract.settings(), dict(leaves(ExtractConfig))))


def write_planned(layout: CorpusLayout, extract: ExtractConfig) -> None:
    """Write it, unless it is there already."""
    settings = settings_of(extract)
    if read_planned(layout) != settings:
        write_json(layout.planned_extraction, {"settings": settings})


# -- Videos that were extracted otherwise


def check_planned(
    layout: CorpusLayout, planned: Mapping[str, Any], video_ids: Iterable[str], folders: Sequence[Path]
) -> list[Finding]:
    """A finding for all videos with the same differences; ``folders`` hold the videos, for the command to run."""
    groups: dict[tuple[Difference, ...], list[str]] = defaultdict(list)
    for video_id in video_ids:
        try:
            metadata = read_metadata(layout.metadata(video_id))
        except READ_ERRORS:  # not extracted yet, or reported as a fault of its own
            continue
        if metadata.status == "ok" and (found := differences(metadata, planned)):
            groups[found].append(video_id)
    return [_finding(layout, planned, found, ids, folders) for found, ids in groups.items()]


def differences(metadata: VideoMetadata, planned: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Planned settings that shape results and have another value in the metadata.

    A record of an earlier version lacks what came later, whose default does as before.
    """
    fields = dict(leaves(ExtractConfig))
    recorded = dict(flatten(metadata.settings, fields))
    recorded |= {"crop_px": metadata.crop_px, "face_privacy": metadata.face_privacy}
    left_out = set(WITHOUT_EFFECT)
    if "detector" not in recorded:
        left_out.add("detector")  # its default has changed
    if Path(metadata.source_name).suffix.lower() in VIDEO_SUFFIXES:
        left_out.add("frames_fps")  # of folders of images alone
    if _is_kept_from_holistic(metadata, planned):
        left_out |= {key for key in planned if key.partition(".")[0] in ("detector", "tracker")}
    found = []
    for key, wanted in planned.items():
        if key in fields and key not in left_out:
            value = recorded.get(key, fields[key].get_default(call_default_factory=True))
            if value != wanted:
                found.append((key, _shown(value), _shown(wanted)))
    return tuple(found)


def _is_kept_from_holistic(metadata: VideoMetadata, planned: Mapping[str, Any]) -> bool:
    """As `signstreams.extract.results.is_of_holistic`: the default detector has changed, which outdates nothing."""
    is_default = planned.get("detector") == "tracker" and planned.get("tracker.stride") == 1
    return is_default and metadata.detector.name == "mediapipe_holistic"


def _shown(value: object) -> str:
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _finding(
    layout: CorpusLayout,
    planned: Mapping[str, Any],
    found: Sequence[Difference],
    video_ids: Sequence[str],
    folders: Sequence[Path],
) -> Finding:
    place = layout.metadata("one").parent.relative_to(layout.root).as_posix()
    values = ", ".join(f"{key} {value}" for key, value, _ in found)
    wanted = ", ".join(f"{key} {value}" for key, _, value in found)
    text = counted(
        "%(num)s video was extracted with %(values)s: %(ids)s",
        "%(num)s videos were extracted with %(values)s: %(ids)s",
        len(video_ids),
        values=values,
        ids=few_ids(video_ids),
    )
    fix = (
        f"{extract_command(folders, layout.root, planned)}; or, in a workflow, run snakemake with --forcerun extract;"
        " to keep what was found, plan it in extract.set, or, by hand, remove contract/extraction.json"
    )
    return PLANNED.breach(place, text, fix, expects=f"{wanted}, as planned")
