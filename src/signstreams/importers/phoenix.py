"""RWTH-PHOENIX-Weather 2014T and 2014 (multisigner): tables with ``|``, frames in a folder for each sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from signstreams.corpus.clips import Clip
from signstreams.corpus.table import Table
from signstreams.errors import UserError
from signstreams.formats.video_sources import SourceFolder, list_sources
from signstreams.importers.draft import Draft
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import as_published, read_table, taken_from, what_is_there

PARTS = {"train": "train", "dev": "val", "test": "test"}
"""Name of a part in file names to our split."""
FRAMES = Path("features") / "fullFrame-210x260px"
COLUMNS_2014T = {
    "clip_id": "name",
    "start": "start",
    "end": "end",
    "signer": "speaker",
    "gloss": "orth",
    "text": "translation",
}
COLUMNS_2014 = {"clip_id": "id", "signer": "signer", "gloss": "annotation"}


def read_phoenix(config: ImportConfig) -> Draft:
    """PHOENIX-2014T, or PHOENIX-2014, which has glosses and no translations."""
    root, tables, is_2014t = _tables(config)
    draft = Draft("PHOENIX-2014T" if is_2014t else "PHOENIX-2014", "de_DE")
    for part, path in tables.items():
        name = path.relative_to(config.source).as_posix()
        table = read_table(path, name)
        columns = COLUMNS_2014T if is_2014t else COLUMNS_2014
        meanings = as_published(table, columns, path)
        _without_whole(meanings)
        taken, issues = taken_from(meanings, name, partial(replace, split=PARTS[part]))
        if not is_2014t:  # see the note below
            taken = [replace(item, clip=_gloss_text(item.clip, item.gloss)) for item in taken]
        draft.taken += taken
        draft.issues += issues
    draft.folders = folders_below(config.videos) if config.videos else _frame_folders(root)
    draft.settings = {"extract": {"crop_px": 112}}  # hands of 30 to 50 px in pictures of 210 x 260
    draft.notes.append("25 pictures per second; start and end -1 are the whole recording; dev is val")
    if not is_2014t:
        draft.settings["integrate"] = {"mska.translation_weight": 0}
        draft.notes.append(
            "PHOENIX-2014 has no translations: the column text repeats the glosses, and integrate.set turns the"
            " translation off (mska.translation_weight: 0), so that sign recognition alone is trained and scored"
        )
    return draft


def _tables(config: ImportConfig) -> tuple[Path, dict[str, Path], bool]:
    """The folder below which ``annotations`` and ``features`` are, the tables of the parts, and whether it is 2014T."""
    candidates = [config.source, *sorted(path for path in config.source.glob("*") if path.is_dir())]
    candidates += sorted(path for path in config.source.glob("*/*") if path.is_dir())  # release-v3/PHOENIX-2014-T
    for is_2014t, pattern in ((True, "PHOENIX-2014-T.{}.corpus.csv"), (False, "{}.corpus.csv")):
        for root in candidates:
            manual = root / "annotations" / "manual"
            found = {part: path for part in PARTS if (path := manual / pattern.format(part)).is_file()}
            if len(found) == len(PARTS):
                return root, found, is_2014t
            if found:
                missing = ", ".join(pattern.format(part) for part in PARTS if part not in found)
                raise UserError(f"{manual}: no {missing}, expected the tables of all three parts; unpack them too")
    raise UserError(
        f"{config.source}: no annotations/manual/PHOENIX-2014-T.train.corpus.csv (or train.corpus.csv of PHOENIX-2014)"
        f" in it or two folders below, {what_is_there(config)}; name the folder that holds annotations and features"
    )


def _without_whole(table: Table) -> None:
    """``-1`` for start and end says that the clip is the whole recording."""
    for _, texts in table.rows:
        if {texts.get(column, "").strip() for column in ("start", "end")} == {"-1"}:
            texts["start"] = texts["end"] = ""


def _gloss_text(clip: Clip, gloss: tuple[str, ...]) -> Clip:
    return replace(clip, text=" ".join(gloss))


def _frame_folders(root: Path) -> list[SourceFolder]:
    folders = [path for part in PARTS if (path := root / FRAMES / part).is_dir()]
    if not folders:
        raise UserError(
            f"{root / FRAMES}: no train, dev or test in it, expected the folders of frames; name their folders with"
            " --videos"
        )
    return [list_sources(folder) for folder in folders]
