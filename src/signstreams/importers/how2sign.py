"""How2Sign: tab-separated tables of sentences; videos whole (``raw_videos``) or cut (``*_rgb_front_clips``)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import few_ids
from signstreams.errors import UserError
from signstreams.formats.layout import SPLITS
from signstreams.formats.video_sources import search
from signstreams.importers.draft import Draft, Taken
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import as_published, read_table, taken_from, what_is_there

TABLES = ("how2sign_realigned_{}.csv", "how2sign_{}.csv")
"""Names of the tables: the times that were aligned again by hand, else the first ones."""


def read_how2sign(config: ImportConfig) -> Draft:
    """How2Sign: each sentence is a span of a whole video, or a clip that was cut from it."""
    draft = Draft("How2Sign", "en_XX")
    for split, path in _tables(config).items():
        name = path.relative_to(config.source).as_posix()
        table = read_table(path, name)
        suffix = "_realigned" if "start_realigned" in table.columns else ""
        columns = {
            "clip_id": "sentence_name",
            "video": "video_name",
            "start": f"start{suffix}",
            "end": f"end{suffix}",
            "text": "sentence",
        }
        meanings = as_published(table, columns, path)
        taken, issues = taken_from(meanings, name, partial(_placed, split=split))
        draft.taken += taken
        draft.issues += issues
    draft.folders = folders_below(config.videos or [config.source])
    _choose_form(draft, config)
    return draft


def _tables(config: ImportConfig) -> dict[str, Path]:
    for pattern in TABLES:
        found = {split: sorted(config.source.rglob(pattern.format(split))) for split in SPLITS}
        if not any(found.values()):
            continue
        problems = [
            f"{config.source}: no {pattern.format(split)} in it or below, expected the tables of train, val and test;"
            " fetch it too"
            for split, paths in found.items()
            if not paths
        ]
        problems += [
            f"{paths[0]}: is also at {paths[1]}, expected one; remove one of them, or name a folder that has one"
            for paths in found.values()
            if len(paths) > 1
        ]
        if problems:
            raise UserError(problems)
        return {split: paths[0] for split, paths in found.items()}
    raise UserError(
        f"{config.source}: no how2sign_realigned_train.csv in it or below, {what_is_there(config)}; name the folder"
        " that How2Sign was unpacked to"
    )


def _placed(clip: Clip, *, split: str) -> Clip:
    signer = clip.video_id.rpartition("-rgb")[0].rpartition("-")[2]  # <youtube id>-<signer>-rgb_front
    return replace(clip, split=split, signer=f"signer {signer}" if signer.isdecimal() else None)


def _choose_form(draft: Draft, config: ImportConfig) -> None:
    """Whole videos or cut ones, whichever is there.

    Raises:
        UserError: Both are.
    """
    present = search(draft.folders)[0].keys()
    whole = [item for item in draft.taken if item.clip.video_id in present]
    cut = [item for item in draft.taken if item.clip.clip_id in present]
    if whole and cut:
        raise UserError(
            f"{config.source}: {len({item.clip.video_id for item in whole}):,} whole videos and {len(cut):,} cut clips"
            f" (such as {few_ids([cut[0].clip.clip_id])}), expected one of both; name its folder with --videos"
        )
    if not cut:
        draft.notes.append("whole videos: each sentence is a span of one")
        return
    draft.taken = [_cut(item) for item in draft.taken]
    draft.notes.append("cut clips: each sentence is a video of its own")


def _cut(item: Taken) -> Taken:
    clip = item.clip
    length_s = None if clip.start_s is None or clip.end_s is None else clip.end_s - clip.start_s
    clip = replace(clip, video_id=clip.clip_id, start_s=None, end_s=None, duration_s=None)
    return replace(item, clip=clip, length_s=length_s)
