"""How a video's files are written again as they were: the command, with the settings that their metadata keep.

Left out, a setting falls back to its default: the crops would show faces that were blurred, or have another size.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from signstreams.config.load import flag_name, flatten, leaves
from signstreams.contract.loose_crops import LOOSE_FIX
from signstreams.contract.records import EXTRACT_AGAIN, VideoCheck
from signstreams.contract.rules import EXTRACTED, PRESENT
from signstreams.contract.video import READ_ERRORS
from signstreams.corpus.findings import Finding
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import read_metadata

POINTS_FOLDER = "POINTS_FOLDER"
"""Stands for the folder of precomputed points, which no metadata keep: it is another one on another machine."""


class KeptSettings:
    """Settings of extraction as the metadata of a corpus keep them, read when somebody asks.

    Args:
        layout: Where the metadata lie.
        checks: Of all videos.
    """

    def __init__(self, layout: CorpusLayout, checks: Sequence[VideoCheck]) -> None:
        self._layout = layout
        self._examples = {check.settings_digest: check.video_id for check in checks if check.settings_digest}
        self._shared: list[dict[str, Any] | None] = []

    @property
    def are_kept(self) -> bool:
        """Whether any video was extracted."""
        return bool(self._examples)

    def of(self, video_id: str) -> dict[str, Any] | None:
        """The video's own; without them those of the others, where these agree; else None."""
        own = self._read(video_id)
        return self.shared() if own is None else own

    def shared(self) -> dict[str, Any] | None:
        """Those of all videos whose metadata can be read; None when there are none, or they differ."""
        if not self._shared:
            found = (self._read(video_id) for video_id in self._examples.values())
            self._shared.append(_only(settings for settings in found if settings is not None))
        return self._shared[0]

    def _read(self, video_id: str) -> dict[str, Any] | None:
        try:
            metadata = read_metadata(self._layout.metadata(video_id))
        except READ_ERRORS:
            return None
        return metadata.settings if metadata.video_id == video_id else None


def name_fixes(
    layout: CorpusLayout, sources: Mapping[str, Path], checks: Sequence[VideoCheck], settings: KeptSettings
) -> None:
    """Put the command in place of `EXTRACT_AGAIN` in the findings of all videos."""
    for check in checks:
        if not any(finding.fix == EXTRACT_AGAIN for finding in check.findings):
            continue
        command = ""
        if check.status != "loose":
            command = extract_command(sources[check.video_id], layout.root, settings.of(check.video_id), force=True)
        check.findings = [
            replace(finding, fix=_fix(finding, command)) if finding.fix == EXTRACT_AGAIN else finding
            for finding in check.findings
        ]


def _fix(finding: Finding, command: str) -> str:
    if not command:  # of loose crops, as an earlier version recorded it
        return LOOSE_FIX
    is_absent = finding.rule in (PRESENT.id, EXTRACTED.id)
    return f"{command}; or, in a workflow, {'' if is_absent else 'remove the file and '}run snakemake again"


def extract_command(videos: Path, root: Path, settings: Mapping[str, Any] | None, *, force: bool = False) -> str:
    """``run: python scripts/extract_rois_v2.py ...`` for a video or a folder of them.

    Args:
        videos: The video, or the folder.
        root: Root of the corpus.
        settings: As the metadata keep them; None when nobody knows them, which the text then says.
        force: Whether results that are there are written again.
    """
    words = ["python", "scripts/extract_rois_v2.py", "--videos", str(videos), "--root", str(root)]
    words += ["--force"] * force + list(setting_flags(settings or {}))
    return f"run{' with the settings you used' if settings is None else ''}: {shlex.join(words)}"


def setting_flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Flags of the settings that are not the defaults; keys that this version does not know are passed over."""
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


def _only(found: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """What all are; None when there are none, or they differ."""
    first = next(found, None)
    return first if all(other == first for other in found) else None
