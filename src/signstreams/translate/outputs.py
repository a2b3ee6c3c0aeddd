"""What a translation writes: subtitles, an ELAN file, JSON, a table, a page with the video."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from signstreams.errors import UserError
from signstreams.files import write_json, write_text
from signstreams.formats.elan import Tier, write_elan
from signstreams.formats.subtitles import Cue, format_subtitles
from signstreams.formats.video_sources import VideoSource
from signstreams.pages.render import relative_address, render

if TYPE_CHECKING:
    from signstreams.translate.run import Sentence, Translation

TRANSLATION_TIER, GLOSS_TIER, SAID_TIER = "translation", "gloss", "said"
COLUMNS = ("video", "start", "end", "text", "gloss", "said")
"""Of the table; --segments and `signstreams import` read it back."""


def write_outputs(translation: Translation, video: Path, paths: Sequence[Path]) -> None:
    """Write each file by its ending, whole or not at all; a `UserError` names one that cannot be written."""
    for path in paths:
        try:
            _WRITERS[path.suffix.lower()](translation, video, path)
        except OSError as error:
            raise UserError(f"--output {path}: {error.strerror}; name another place") from None


def shown_cues(sentences: Sequence[Sentence]) -> list[Cue]:
    """Sentences as subtitles: those that have a text."""
    return [Cue(one.start_s, one.end_s, one.text) for one in sentences if one.text.strip()]


def elan_tiers(sentences: Sequence[Sentence]) -> list[Tier]:
    """Translation, glosses within it, and what a file of segments said, where there is any."""
    tiers = [Tier(TRANSLATION_TIER, [Cue(one.start_s, one.end_s, one.text) for one in sentences])]
    if any(one.glosses is not None for one in sentences):
        glosses = [cue for one in sentences for cue in one.glosses or ()]
        tiers.append(Tier(GLOSS_TIER, glosses, parent=TRANSLATION_TIER))
    if any(one.said for one in sentences):
        tiers.append(Tier(SAID_TIER, [Cue(one.start_s, one.end_s, one.said) for one in sentences if one.said]))
    return tiers


def _write_subtitles(translation: Translation, video: Path, path: Path) -> None:
    write_text(path, format_subtitles(shown_cues(translation.sentences), path.suffix))


def _write_elan(translation: Translation, video: Path, path: Path) -> None:
    write_elan(path, elan_tiers(translation.sentences), video)


def _write_json(translation: Translation, video: Path, path: Path) -> None:
    write_json(path, translation.as_dict())


def _write_table(translation: Translation, video: Path, path: Path) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in translation.sentences:
        glosses = " ".join(cue.text for cue in one.glosses or ())
        writer.writerow(
            [VideoSource.at(video).video_id, f"{one.start_s:.3f}", f"{one.end_s:.3f}", one.text, glosses, one.said]
        )
    write_text(path, buffer.getvalue())


def _write_page(translation: Translation, video: Path, path: Path) -> None:
    address = None if video.is_dir() else relative_address(video, path)
    page = render(
        "translation.html",
        title=video.name,
        address=address,
        place=unquote(address or "", errors="replace"),  # as people read it
        duration_s=max([translation.duration_s, *(one.end_s for one in translation.sentences)]),
        sentences=translation.sentences,
        notes=translation.notes,
        cues=[[round(cue.start_s, 3), round(cue.end_s, 3), cue.text] for cue in shown_cues(translation.sentences)],
    )
    write_text(path, page)


_WRITERS: dict[str, Callable[[Any, Path, Path], None]] = {
    ".srt": _write_subtitles,
    ".vtt": _write_subtitles,
    ".eaf": _write_elan,
    ".json": _write_json,
    ".csv": _write_table,
    ".html": _write_page,
}
