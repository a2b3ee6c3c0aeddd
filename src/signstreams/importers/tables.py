"""Corpora that are tables: any CSV, TSV or Excel sheet whose columns are known or named, and LSA-T's meta.csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from signstreams.corpus.clips import SPLIT_NAMES, Clip
from signstreams.corpus.findings import Finding, few, few_ids, raise_errors
from signstreams.corpus.gloss import GLOSS_COLUMNS
from signstreams.corpus.meta_csv import KNOWN_COLUMNS, UNUSED, VIDEO_KNOWN, clips_of, resolve_columns, units_of
from signstreams.corpus.table import ID_COLUMNS, Table, scan_table
from signstreams.errors import UserError
from signstreams.formats.video_sources import VIDEO_SUFFIXES
from signstreams.ids import shown
from signstreams.importers.draft import Draft, Taken
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".txt")
GLOSS_NAMES = ("gloss", "glosses", "glosa", "glosas", "glossen", "orth", *GLOSS_COLUMNS)
NEEDED = ("text",)
# Of one row, or repaired by leaving it out; whatever else is wrong with a table is an error of the table.
ROW_RULES = {"meta.id", "meta.video_id", "meta.span", "meta.split", "meta.box", "meta.unique_id", "meta.times"}
ROW_RULES |= {"table.ragged", "table.quotes", "table.control"}


def read_table(path: Path, name: str, *, sheet: str | None = None) -> Table:
    """The table with its own columns; a file that is none is a `UserError`."""
    table = scan_table(path, (*KNOWN_COLUMNS, *GLOSS_NAMES), name, holds="clips", sheet=sheet)
    if not table.columns:
        raise_errors(table.issues)
        raise UserError(f"{path}: is empty, expected a header and a row for each clip")
    if len(table.columns) > 1 and len(named := [column for column in table.columns if column]) < 2:
        first = f"only {shown(named[0])}" if named else "no names"
        raise UserError(
            f"{path}: the first row holds {first}, expected the names of the columns; remove the rows above them"
        )
    return table


def as_meanings(table: Table, columns: Mapping[str, str]) -> Table:
    """The table with the columns of a meta.csv alone: ``columns`` maps each of those to the one that holds it.

    Times keep the unit that their column states: ``start`` of "Begin Time - msec" becomes ``start_ms``.
    """
    units = units_of(columns)
    names = {f"{ours}_{units[ours]}" if ours in units else ours: theirs for ours, theirs in columns.items()}
    rows = [(row, {ours: texts[theirs] for ours, theirs in names.items()}) for row, texts in table.rows]
    return Table(list(names), rows, list(table.issues), table.delimiter)


def as_published(table: Table, columns: Mapping[str, str], path: Path) -> Table:
    """As `as_meanings`, of the table of a published corpus; a `UserError` where it lacks one of its columns."""
    if missing := sorted(set(columns.values()) - set(table.columns)):
        raise UserError(
            f"{path}: no columns {', '.join(missing)} among {', '.join(table.columns)}, expected the table as it is"
            " published; fetch it again"
        )
    return as_meanings(table, columns)


def taken_from(
    table: Table, name: str, change: Callable[[Clip], Clip] | None = None
) -> tuple[list[Taken], list[Finding]]:
    """The clips of a table with the columns of a meta.csv, and ``gloss``; ``change`` adapts each. Faults of rows warn.

    Raises:
        UserError: The table cannot be used at all.
    """
    meta = clips_of(table, name)
    issues = [
        replace(issue, severity="warning") if issue.rule in ROW_RULES and issue.severity == "error" else issue
        for issue in meta.issues
        if issue.rule not in (UNUSED.id, VIDEO_KNOWN.id, "meta.unique_id")  # repeated ids: each is reported below
    ]
    raise_errors(issues)
    glosses = {row: texts.get("gloss", "").split() for row, texts in table.rows}
    change = change or (lambda clip: clip)
    taken = [Taken(change(clip), name, clip.row, tuple(glosses.get(clip.row or 0, ()))) for clip in meta.clips]
    return taken, issues


# -- LSA-T


def read_lsa_t(config: ImportConfig) -> Draft:
    """LSA-T: its own ``meta.csv``, whose segments hold the exact times, and its videos."""
    path = config.source / "meta.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected LSA-T's meta.csv beside its videos; {what_is_there(config)}")
    draft = Draft("LSA-T", "es_XX")
    table = read_table(path, path.name)
    columns, issues = resolve_columns(table.columns, path.name)
    raise_errors(issues)
    draft.taken, draft.issues = taken_from(as_meanings(table, columns), path.name)
    draft.folders = folders_below(config.videos or [config.source])
    draft.notes.append("times from the segments in the column 'split', where it holds them")
    return draft


# -- Any table


def read_any_table(config: ImportConfig) -> Draft:
    """A table whose columns are known by name, or named with ``--column``."""
    path = _the_table(config)
    name = path.name
    table = read_table(path, name, sheet=config.sheet)
    columns = _columns(table, config, path)
    draft = Draft(path.stem, config.language)
    said = [f"{meaning} from {shown(column)}" for meaning, column in columns.items()]
    draft.notes.append(f"{name}: {few(said, 20)}")
    if unread := [column for column in table.columns if column and column not in columns.values()]:
        draft.notes.append(f"{name}: not read: {few_ids(unread)}")
    draft.folders = folders_below(config.videos or [config.source if config.source.is_dir() else path.parent])
    meanings = as_meanings(table, columns)
    _prepare(meanings, config)
    taken, draft.issues = taken_from(meanings, name)
    if "fps" in columns or config.fps is not None:
        taken = [replace(item, clip=replace(item.clip, fps=None)) for item in taken]
    draft.taken = taken
    if config.fps is not None:
        has_folders = any(video.is_folder for folder in draft.folders for (video, *_) in folder.sources.values())
        if not (has_folders or "start_frames" in meanings.columns):
            raise UserError(
                "--fps has no effect: neither times in frames nor folders of frames are there; leave it out"
            )
        draft.frames_fps = config.fps
    return draft


def _the_table(config: ImportConfig) -> Path:
    if config.source.is_file():
        return config.source
    found = sorted(path for path in config.source.iterdir() if path.suffix.lower() in TABLE_SUFFIXES[:3])
    if len(found) == 1:
        return found[0]
    names = few_ids(path.name for path in found)
    there = f"found the tables {names}" if found else f"found none ending in {', '.join(TABLE_SUFFIXES[:3])}"
    raise UserError(f"{config.source}: {there}, expected one; name the file itself with --source, and --videos")


def _columns(table: Table, config: ImportConfig, path: Path) -> dict[str, str]:
    """Meaning to column.

    Raises:
        UserError: A column that was named is not there, or one is needed that nobody knows.
    """
    named = {meaning: column.strip().lower() for meaning, column in config.column_of().items()}
    problems = [
        f"{path}: no column {shown(column)} for {meaning}, found {few_ids(table.columns)}; correct --column"
        for meaning, column in named.items()
        if column not in table.columns
    ]
    rest = [column for column in table.columns if column not in named.values()]
    known, issues = resolve_columns([*rest, "clip_id"] if not set(ID_COLUMNS) & set(rest) else rest, path.name)
    if known.get("clip_id") == "clip_id" and "clip_id" not in rest:
        del known["clip_id"]
    if known.get("clip_id") == "video_id" and _repeats(table, "video_id"):  # several clips of a video
        known.setdefault("video", known.pop("clip_id"))
    if "gloss" not in named and (gloss := next((column for column in GLOSS_NAMES if column in rest), None)):
        known["gloss"] = gloss
    columns = {meaning: column for meaning, column in known.items() if meaning not in named} | named
    problems += [
        issue.line()
        for issue in issues
        if issue.rule == "table.columns" and not any(issue.found.endswith(f"hold the {meaning}") for meaning in named)
    ]
    for meaning in (*NEEDED, *(["end"] if "start" in columns else ["start"] if "end" in columns else [])):
        is_gloss_alone = meaning == "text" and "gloss" in columns and not set(table.columns) - {*columns.values(), ""}
        if meaning not in columns and not is_gloss_alone:
            hint = ", or remove the columns that are not known, where there are glosses alone"
            hint = hint if meaning == "text" and "gloss" in columns else ""
            problems.append(
                f"{path}: no column is known to hold the {meaning}, found {few_ids(table.columns)}; say which one does,"
                f" with --column {meaning}=NAME{hint}"
            )
    if "video" not in columns and "clip_id" not in columns:
        problems.append(
            f"{path}: no column is known to name the video, found {few_ids(table.columns)}; say which one does, with"
            " --column video=NAME"
        )
    if problems:
        raise UserError(problems)
    return columns


def _repeats(table: Table, column: str) -> bool:
    cells = [texts[column] for _, texts in table.rows]
    return len(set(cells)) < len(cells)


def _prepare(table: Table, config: ImportConfig) -> None:
    """Ids where the table has none, file names without folders, and the unit of the times in their columns' names."""
    if config.unit is not None and "start" not in table.columns:
        raise UserError(f"--unit {config.unit} has no effect: no column of times leaves its unit open; leave it out")
    has_ids = "clip_id" in table.columns
    counts: dict[str, int] = {}
    for _, texts in table.rows:
        if "video" in texts:
            texts["video"] = PurePosixPath(texts["video"].strip().replace("\\", "/")).name
        if not has_ids:
            stem = without_ending(texts["video"])
            counts[stem] = counts.get(stem, 0) + 1
            texts["clip_id"] = f"{stem}_{counts[stem]:04d}"
        if config.fps is not None:
            texts["fps"] = f"{config.fps:g}"
        if "split" in texts and not texts["split"].startswith("["):
            texts["split"] = SPLIT_NAMES.get(texts["split"].strip().lower(), texts["split"])
        if config.unit not in (None, "s"):
            for meaning in ("start", "end"):
                if meaning in texts:
                    texts[f"{meaning}_{config.unit}"] = texts.pop(meaning)
    if not has_ids:
        table.columns.insert(0, "clip_id")
    if config.fps is not None and "fps" not in table.columns:
        table.columns.append("fps")
    if config.unit not in (None, "s"):
        table.columns[:] = [f"{name}_{config.unit}" if name in ("start", "end") else name for name in table.columns]


def without_ending(name: str) -> str:
    """A video's id from the name of its file."""
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix.lower() in VIDEO_SUFFIXES else name


def what_is_there(config: ImportConfig, limit: int = 8) -> str:
    """What a folder holds, for the message that an importer did not find its layout in it."""
    if not config.source.is_dir():
        return "it is not a folder"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in config.source.iterdir())
    return f"found {few([shown(name) for name in names], limit)}" if names else "it is empty"
