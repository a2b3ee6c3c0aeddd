"""Advice to extract a video again as it was: the command, with the settings that the metadata record.

An omitted setting falls back to its default: crops would show faces that were blurred, or have another size.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from signstreams.config.load import flag_name, flatten, leaves
from signstreams.contract.check_records import EXTRACT_AGAIN, LOOSE_FIX, VideoCheck
from signstreams.contract.rules import EXTRACTED, PRESENT
from signstreams.contract.video import READ_ERRORS
from signstreams.corpus.findings import Finding
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata

POINTS_FOLDER = "POINTS_FOLDER"
"""Stands for the folder of precomputed points, which metadata do not record: it differs between machines."""


class RecordedSettings:
    """Extraction settings recorded in the metadata of all videos of a corpus, read when needed."""

    def __init__(self, layout: CorpusLayout, checks: Sequence[VideoCheck]) -> None:
        self._layout = layout
        self._examples = {check.settings_digest: check.video_id for check in checks if check.settings_digest}
        self.are_recorded = bool(self._examples)  # whether any video was extracted

    def of_video(self, video_id: str) -> dict[str, Any] | None:
        """The video's settings; without them, those that all other videos share; else None."""
        own = self._read(video_id)
        return self.shared if own is None else own

    @cached_property
    def shared(self) -> dict[str, Any] | None:
        """Settings of all videos whose metadata can be read; None when there are none, or they differ."""
        found = [settings for video_id in self._examples.values() if (settings := self._read(video_id)) is not None]
        return found[0] if found and all(settings == found[0] for settings in found) else None

    def _read(self, video_id: str) -> dict[str, Any] | None:
        try:
            metadata = read_metadata(self._layout.metadata(video_id))
        except READ_ERRORS:
            return None
        return metadata.settings if metadata.video_id == video_id else None


def advise_re_extraction(
    layout: CorpusLayout, sources: Mapping[str, Path], checks: Sequence[VideoCheck], settings: RecordedSettings
) -> None:
    """Replace `EXTRACT_AGAIN` by the command in the findings of all videos."""
    for check in checks:
        if not any(finding.fix == EXTRACT_AGAIN for finding in check.findings):
            continue
        command = ""
        if check.status != "loose":
            given = settings.of_video(check.video_id)
            command = extract_command(sources[check.video_id], layout.root, given, force=True)
        check.findings = [
            replace(finding, fix=_advice(finding, command)) if finding.fix == EXTRACT_AGAIN else finding
            for finding in check.findings
        ]


def _advice(finding: Finding, command: str) -> str:
    if not command:  # loose crops, as an earlier version recorded them
        return LOOSE_FIX
    is_absent = finding.rule in (PRESENT.id, EXTRACTED.id)
    return f"{command}; or, in a workflow, {'' if is_absent else 'remove the file and '}run snakemake again"


def extract_command(
    videos: Path | Sequence[Path], root: Path, settings: Mapping[str, Any] | None, *, force: bool = False
) -> str:
    """``run: signstreams extract ...`` for a video, a folder of videos, or several.

    ``settings`` are the recorded ones, None when they are unknown, which the text then says.
    """
    places = [videos] if isinstance(videos, Path) else videos
    words = ["signstreams", "extract", "--videos", *map(str, places), "--root", str(root)]
    words += ["--force"] * force + list(setting_flags(settings or {}))
    command = shlex.join(words)
    return f"run with the settings you used: {command}" if settings is None else f"run: {command}"


def setting_flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Flags of the settings that differ from the defaults; keys that this version does not know are skipped."""
    fields = dict(leaves(ExtractConfig))
    for key, value in flatten(dict(settings), fields):
        if key not in fields or value == fields[key].get_default(call_default_factory=True):
            continue
        name = flag_name(key)
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield from (f"--{name}", "none" if value is None else str(value))
    if settings.get("detector") == "precomputed":
        yield from ("--precomputed-folder", POINTS_FOLDER)
