"""OpenASL: one tab-separated table of sentences in YouTube's videos."""

from __future__ import annotations

from dataclasses import replace

from signstreams.corpus.clips import SPLIT_NAMES
from signstreams.errors import UserError
from signstreams.formats.video_sources import search
from signstreams.importers.draft import Draft
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import as_published, read_table, taken_from, what_is_there

COLUMNS = {"clip_id": "vid", "video": "yid", "start": "start", "end": "end", "text": "raw-text", "split": "split"}


def read_openasl(config: ImportConfig) -> Draft:
    """OpenASL: whole videos by their YouTube id, or clips that were cut, by the id of the sentence."""
    found = [config.source] if config.source.is_file() else sorted(config.source.rglob("openasl-v*.tsv"))
    if len(found) != 1:
        raise UserError(
            f"{config.source}: {len(found)} files openasl-v*.tsv in it and below, expected one, {what_is_there(config)}"
            "; fetch data/openasl-v1.0.tsv of the corpus, or name the file itself"
        )
    name = found[0].name
    table = read_table(found[0], name)
    columns = {ours: theirs for ours, theirs in COLUMNS.items() if ours != "split" or theirs in table.columns}
    meanings = as_published(table, columns, found[0])
    for _, texts in meanings.rows:
        if "split" in texts:
            texts["split"] = SPLIT_NAMES.get(texts["split"].strip().lower(), texts["split"])
    draft = Draft("OpenASL", "en_XX")
    draft.taken, draft.issues = taken_from(meanings, name)
    draft.folders = folders_below(config.videos or [found[0].parent if config.source.is_file() else config.source])
    present = search(draft.folders)[0].keys()
    if not any(item.clip.video_id in present for item in draft.taken):
        cut = [replace(item.clip, video_id=item.clip.clip_id) for item in draft.taken]
        if any(clip.clip_id in present for clip in cut):
            draft.notes.append("cut clips: each sentence is a video of its own")
            lengths = [(item.clip.end_s or 0.0) - (item.clip.start_s or 0.0) for item in draft.taken]
            draft.taken = [
                replace(item, clip=replace(clip, start_s=None, end_s=None), length_s=length_s)
                for item, clip, length_s in zip(draft.taken, cut, lengths, strict=True)
            ]
    draft.notes.append("texts from raw-text")
    return draft
