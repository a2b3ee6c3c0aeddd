"""``translations.html``: each clip with what was said and what the model says, its frames, and its video to play.

Clips go from the worst to the best. Up to `PART_CLIPS` are one file that needs no other. Of more, the page has the
first part and reads the others from the folder ``translations_parts``, where the pictures are too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from signstreams.array_types import Floats
from signstreams.files import write_text
from signstreams.formats.crops import CropReader, clip_strip, evenly_spread
from signstreams.formats.layout import EVALUATION_PARTS, SPLITS, CorpusLayout
from signstreams.formats.video_sources import list_sources, search
from signstreams.integrate.clips import ClipEntry
from signstreams.integrate.evaluate import Prediction
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.text_scores import DEFAULT_SCORING, clip_scores, gloss_errors
from signstreams.pages.render import ShownClip, relative_address, render, webp_bytes

PART_CLIPS = 300
"""Clips of one file: with these a page is still below `MAX_BYTES`, at the poorest quality of its pictures."""
MAX_CLIPS = 6000
"""Clips of all parts together: a browser sorts so many within a second. Of more, some are shown, evenly over all."""
PICTURES = "pictures"


@dataclass(frozen=True)
class Sources:
    """Where the page finds what it shows of a clip."""

    layout: CorpusLayout  # the corpus, whose crops are its pictures
    videos: Mapping[str, Path]  # video id to its file, see `video_files`
    times_s: Mapping[str, Floats]  # video id to the times (T,) of its frames


def parts_folder(page: Path) -> Path:
    """Folder of the parts and pictures of a page of many clips."""
    return page.with_name(EVALUATION_PARTS)


def write_page(
    path: Path,
    predictions: Sequence[Prediction],
    content: Mapping[str, Any],
    sources: Sources,
    head: str | None,
    scoring: ScoringConfig = DEFAULT_SCORING,
) -> None:
    """Write the page, and its folder where there are many clips; an older folder goes.

    ``content`` is that of scores.json; glosses are those of ``head``. Clips are rated by chrF, or by gloss WER where no
    text was learned.
    """
    has_text = "bleu_4" in content
    rated = _rated(predictions, head, scoring, has_text=has_text)
    chosen = rated
    if len(rated) > MAX_CLIPS:
        chosen = [rated[place] for place in evenly_spread(MAX_CLIPS, len(rated), with_ends=True)]
    cut = [chosen[start : start + PART_CLIPS] for start in range(0, len(chosen), PART_CLIPS)] or [[]]
    folder = parts_folder(path)
    about = {
        "scores": content,
        "splits": list(_splits(content).items()),
        "signers": sorted({prediction.entry.signer or "" for prediction, _ in chosen}),
        "rated": sorted({name for _, scores in chosen for name in scores}),
        "num_clips": len(rated),
        "num_shown": len(chosen),
        "part_clips": PART_CLIPS,
        "main_page": quote(path.name),
    }
    with closing(CropReader()) as reader:
        if len(cut) == 1:
            clips = list(_shown(cut[0], path, sources, reader, head, has_text=has_text))
            write_text(path, render("translations.html", **about, clips=clips, part=1, parts=[""]))
            shutil.rmtree(folder, ignore_errors=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [quote(path.name), *(f"part_{number}.html" for number in range(2, len(cut) + 1))]
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=path.parent) as aside:
            new = Path(aside) / folder.name
            (new / PICTURES).mkdir(parents=True)
            first = ""
            for part, members in enumerate(cut, start=1):
                page = path if part == 1 else folder / names[part - 1]
                clips = []
                for place, clip in enumerate(_shown(members, page, sources, reader, head, has_text=has_text)):
                    if clip.frames is None:
                        clips.append(clip)
                        continue
                    picture = Path(PICTURES, f"{(part - 1) * PART_CLIPS + place + 1:05d}.webp")
                    (new / picture).write_bytes(webp_bytes(clip.frames))
                    address = str(picture) if part > 1 else f"{quote(folder.name)}/{picture}"
                    clips.append(replace(clip, frames=None, picture=address))
                addresses = [f"{quote(folder.name)}/{name}" if part == 1 else name for name in names]
                if part > 1:
                    addresses[0] = f"../{names[0]}"
                text = render("translations.html", **about, clips=clips, part=part, parts=addresses)
                if part == 1:
                    first = text
                else:
                    (new / names[part - 1]).write_text(text, encoding="utf-8", errors="backslashreplace")
            if folder.exists():
                folder.replace(Path(aside) / "old")
            new.replace(folder)
        write_text(path, first)


def _splits(content: Mapping[str, Any]) -> dict[str, Any]:
    """Split to its scores, in the order in which they were scored; the last is at the top of scores.json."""
    return {name: content[name] for name in SPLITS if name in content} | {content["split"]: content}


def _rated(
    predictions: Sequence[Prediction], head: str | None, scoring: ScoringConfig, *, has_text: bool
) -> list[tuple[Prediction, dict[str, float]]]:
    """Each clip with its scores, the worst first; without a text, clips without glosses are left out."""
    rated = []
    for prediction in predictions:
        entry = prediction.entry
        scores = clip_scores(prediction.text, entry.text, scoring) if has_text else {}
        if entry.gloss is not None and head in prediction.glosses:
            scores["wer"] = gloss_errors(prediction.glosses[head], entry.gloss, scoring).rate
        if scores:
            rated.append((prediction, scores))
    return sorted(rated, key=lambda pair: pair[1]["chrf"] if has_text else -pair[1]["wer"])


def _shown(
    rated: Sequence[tuple[Prediction, dict[str, float]]],
    page: Path,
    sources: Sources,
    reader: CropReader,
    head: str | None,
    *,
    has_text: bool,
) -> Iterator[ShownClip]:
    for prediction, scores in rated:
        entry = prediction.entry
        video_id = entry.video.video_id
        has_video = len(entry.frames) > 0  # the stage g2t reads none
        file = sources.videos.get(video_id) if has_video else None
        yield ShownClip(
            clip_id=entry.clip_id,
            frames=clip_strip(sources.layout, video_id, entry.frames, reader) if has_video else None,
            reference=entry.text,
            hypothesis=prediction.text if has_text else None,
            gloss_reference=None if entry.gloss is None else " ".join(entry.gloss),
            gloss_hypothesis=" ".join(prediction.glosses[head]) if head in prediction.glosses else None,
            scores=scores,
            split=entry.split,
            video_id=video_id,
            signer=entry.signer or "",
            span_s=_span_s(entry, sources.times_s[video_id]) if video_id in sources.times_s else None,
            cues=[(cue.start_s, cue.end_s, cue.text) for cue in prediction.gloss_cues or ()],
            video=None if file is None else relative_address(file, page),
        )


def _span_s(entry: ClipEntry, times_s: Floats) -> tuple[float, float]:
    """Times of a clip in its video: to the frame after its last one."""
    end = min(entry.frames[-1] + entry.frames.step, len(times_s) - 1)
    return float(times_s[entry.frames[0]]), float(times_s[end])


def video_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Video id to its file, of those that a browser may play, in folders that are searched in order.

    A folder that is not there holds none.
    """
    listed = []
    for folder in folders:
        with suppress(OSError):
            listed.append(list_sources(folder))
    found, _ = search(listed)
    return {video_id: sources[0].path for video_id, sources in found.items() if not sources[0].is_folder}
