"""One import: a layout is read and checked, tables, config and report are written; a second call changes nothing."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from signstreams.config.load import check
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, errors, few_ids, lines
from signstreams.corpus.settings import SplitConfig
from signstreams.corpus.splits import Split, index_text, split_clips, split_record
from signstreams.errors import UserError
from signstreams.files import read_json, sha256_file, write_text
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.importers.csl_daily import read_csl_daily
from signstreams.importers.draft import SPLIT, Checked, Draft, Reader, Taken, check_draft
from signstreams.importers.elan import read_elan
from signstreams.importers.how2sign import read_how2sign
from signstreams.importers.openasl import read_openasl
from signstreams.importers.phoenix import read_phoenix
from signstreams.importers.recipe import Recipe, config_text, make_recipe
from signstreams.importers.settings import ImportConfig, LayoutName
from signstreams.importers.subtitles import read_subtitles, read_youtube_asl
from signstreams.importers.tables import read_any_table, read_lsa_t
from signstreams.language import grouped, plural, tr
from signstreams.progress import duration
from signstreams.workflow.settings import WorkflowConfig

READERS: dict[LayoutName, Reader] = {
    "phoenix14t": read_phoenix,
    "how2sign": read_how2sign,
    "csl-daily": read_csl_daily,
    "openasl": read_openasl,
    "youtube-asl": read_youtube_asl,
    "lsa-t": read_lsa_t,
    "elan": read_elan,
    "subtitles": read_subtitles,
    "table": read_any_table,
}
MARKS: dict[LayoutName, tuple[str, ...]] = {
    "phoenix14t": ("*.corpus.csv",),
    "how2sign": ("how2sign_*.csv",),
    "csl-daily": ("csl2020ct_v2.*", "split_1.txt"),
    "openasl": ("openasl-v*.tsv",),
    "youtube-asl": ("*youtube_asl_video_ids.txt",),
    "elan": ("*.eaf",),
    "subtitles": ("*.srt", "*.vtt", "*.json3"),
    "lsa-t": ("meta.csv",),
    "table": ("*.csv", "*.tsv", "*.xlsx"),
}
"""Files that tell a layout, the surest first: for the advice where another one was named."""
META_COLUMNS = ("clip_id", "video", "text", "start", "end", "signer", "split", "box")
NO_SPLIT = Rule("import.no_split", "warning", "a split of each clip, where the corpus has splits")
DEPTH = 7  # of folders in which they are sought: How2Sign has its tables six folders down
MAX_LISTED = 10  # findings of a kind that the report has whole


@dataclass(frozen=True)
class Imported:
    """What an import found and wrote."""

    files: list[Path]  # that were written or rewritten; none where nothing changed
    lines: list[str]  # for people


def import_corpus(config: ImportConfig) -> Imported:
    """Import; nothing is written unless all of it can be.

    Raises:
        UserError: The source has another layout, a finding is an error, or a file that would be replaced was changed
            since.
    """
    if not config.source.exists():
        raise UserError(f"{config.source}: no such file or folder, expected the corpus; correct --source")
    try:
        if config.source.is_file() and config.layout not in ("table", "openasl"):
            raise UserError(f"{config.source}: is a file, expected the folder of the corpus; name that with --source")
        draft = READERS[config.layout](config)
    except UserError as error:
        nearest = nearest_layout(config.source)
        if nearest is None or nearest == config.layout:
            raise
        raise UserError([*error.problems, f"{config.source}: looks more like --from {nearest}"]) from None
    checked = check_draft(draft, config)
    issues = list(checked.issues)
    split = _divide(checked, config, issues)
    if config.strict:
        issues = [replace(issue, severity="error") if issue.severity == "warning" else issue for issue in issues]
    _refuse(issues, checked, config)
    recipe = make_recipe(draft, checked, split.clip_ids, config)
    check(WorkflowConfig, recipe.tree, f"{config.root / 'config.yaml'}")
    layout = CorpusLayout(config.root)
    texts = _tables(layout, checked, split)
    texts[config.root / "config.yaml"] = config_text(recipe, draft, config, config.language or draft.language)
    removed = _stale(layout, texts)
    report = _report(draft, checked, split, recipe, issues, config, texts)
    written = _write(layout.root, texts, report, removed)
    return Imported(written, _summary(draft, checked, split, recipe, issues, config, written))


def nearest_layout(source: Path) -> LayoutName | None:
    """The layout whose files are in a folder, or a few folders below."""
    if not source.is_dir():
        return None
    for name, patterns in MARKS.items():
        for pattern in patterns:
            for depth in range(DEPTH):
                if next(source.glob("*/" * depth + pattern), None) is not None:
                    return name
    return None


# -- Splits


def _divide(checked: Checked, config: ImportConfig, issues: list[Finding]) -> Split:
    """The corpus's own splits, or new ones."""
    present = [item.clip for item in checked.present]
    if not present:
        return Split({split: [] for split in SPLITS}, "video")
    if config.redraw_splits or not any(clip.split for clip in present):  # as the workflow would draw them
        return split_clips([replace(clip, split=None) for clip in present], SplitConfig())
    _check_declared(present, issues)
    return split_clips([item.clip for item in checked.taken], SplitConfig())


def _check_declared(clips: Sequence[Clip], issues: list[Finding]) -> None:
    splits: dict[str, set[str]] = {}
    for clip in clips:
        if clip.split is not None:
            splits.setdefault(clip.video_id, set()).add(clip.split)
    fix = "draw new ones with --redraw-splits"
    if shared := [video_id for video_id, names in splits.items() if len(names) > 1]:
        found = f"{len(shared):,} videos with clips in several splits: {few_ids(shared)}"
        issues.append(SPLIT.breach("splits", found, fix))
    if none := [clip.clip_id for clip in clips if clip.split is None]:
        found = f"{len(none):,} clips of none of the corpus's splits: {few_ids(none)}"
        issues.append(NO_SPLIT.breach("splits", found, f"name their split, or {fix}; no stage uses them"))
    present = {name for names in splits.values() for name in names}
    if missing := [name for name in SPLITS if name not in present]:
        issues.append(SPLIT.breach("splits", f"no clip in {' and '.join(missing)}", fix))


# -- Checks


def _refuse(issues: list[Finding], checked: Checked, config: ImportConfig) -> None:
    failed = errors(issues)
    if not failed and checked.absent and not checked.videos:
        raise UserError(
            f"{config.source}: none of the {len(checked.absent):,} videos is there, expected some; name their folders"
            " with --videos"
        )
    if not failed and not checked.present:
        raise UserError([*lines(issues), f"{config.source}: no clip is left, expected some; see the lines above"])
    if failed:
        counts = Counter(issue.rule for issue in failed)
        total = ", ".join(f"{count:,} {rule}" for rule, count in counts.most_common())
        raise UserError([*lines(failed), f"{config.source}: nothing was written; errors: {total}"])


# -- Files


def _tables(layout: CorpusLayout, checked: Checked, split: Split) -> dict[Path, str]:
    """Path to content of all tables."""
    columns = [name for name in META_COLUMNS if name in ("clip_id", "video", "text") or _has(checked.taken, name)]
    if split.group_by != "meta":
        columns = [name for name in columns if name != "split"]
    texts = {layout.meta: _csv(columns, ([_cell(item.clip, name) for name in columns] for item in checked.taken))}
    glosses = [(item.clip.clip_id, " ".join(item.gloss)) for item in checked.taken if item.gloss]
    if glosses:
        texts[layout.gloss] = _csv(("clip_id", "gloss"), glosses)
    for name, ids in split.clip_ids.items():
        texts[layout.index(name)] = index_text(ids)
    if split.group_by != "meta":  # the workflow may draw it again when videos are added
        record = split_record(split, [item.clip for item in checked.present], SplitConfig())
        texts[_split_record_path(layout)] = _json(record)
    return texts


def _split_record_path(layout: CorpusLayout) -> Path:
    return layout.index("train").parent / "split.json"


def _has(taken: Iterable[Taken], column: str) -> bool:
    return any(_cell(item.clip, column) for item in taken)


def _cell(clip: Clip, column: str) -> str:
    if column == "video":
        return clip.video_id
    if column in ("start", "end"):
        value = getattr(clip, f"{column}_s")
        return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
    if column == "box":
        return "" if clip.box is None else " ".join(f"{value:g}" for value in clip.box)
    return str(getattr(clip, column) or "")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def _json(content: Any) -> str:
    import json

    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _stale(layout: CorpusLayout, texts: dict[Path, str]) -> list[Path]:
    """Files of an earlier import of other clips that would now be wrong: glosses, the record of drawn splits."""
    return [path for path in (layout.gloss, _split_record_path(layout)) if path.exists() and path not in texts]


def _write(root: Path, texts: dict[Path, str], report: dict[str, Any], stale: Sequence[Path]) -> list[Path]:
    """Write the files whose content differs; the report last, since it says which files are ours.

    Raises:
        UserError: One of them was changed since the last import, or was never ours.
    """
    path = CorpusLayout(root).import_record
    try:
        ours = read_json(path)["files"] if path.is_file() else {}
        assert isinstance(ours, dict)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path}: is not the report of an import; move it away") from None
    different = [file for file, text in texts.items() if not file.is_file() or file.read_bytes() != text.encode()]
    foreign = [
        file
        for file in [*different, *stale]
        if file.exists() and ours.get(file.relative_to(root).as_posix()) != sha256_file(file)
    ]
    if foreign:
        raise UserError(
            f"{file}: was changed or written by others since it was imported, and is not replaced; move it away to have"
            " it written again, or choose another --root"
            for file in foreign
        )
    for file in different:
        write_text(file, texts[file])
    for file in stale:
        file.unlink()
    text = _json(report | {"files": {file.relative_to(root).as_posix(): sha256_file(file) for file in texts}})
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return [*different, *stale]
    write_text(path, text)
    return [*different, *stale, path]


# -- The report


def _report(
    draft: Draft,
    checked: Checked,
    split: Split,
    recipe: Recipe,
    issues: Sequence[Finding],
    config: ImportConfig,
    texts: dict[Path, str],
) -> dict[str, Any]:
    """Content of import.json: what was taken, what not and why. It has no time, so that a second import is the same."""
    counts = Counter(issue.rule for issue in issues)
    return {
        "corpus": draft.name,
        "settings": config.model_dump(mode="json", exclude_defaults=True),
        "language": config.language or draft.language,
        "taken": {
            "clips": len(checked.taken),
            "clips_of_absent_videos": sum(item.clip.video_id in checked.absent for item in checked.taken),
            "videos": len(checked.videos),
            "absent_videos": len(checked.absent),
            "hours": round(checked.seconds / 3600, 3),
            "clips_with_glosses": sum(bool(item.gloss) for item in checked.taken),
            "signers": len({item.clip.signer for item in checked.taken if item.clip.signer}),
            "splits": {name: len(ids) for name, ids in split.clip_ids.items()},
            "splits_by": "the corpus" if split.group_by == "meta" else f"seed 0, by {split.group_by}",
        },
        "read": len(draft.taken),
        "not_taken_or_doubted": {
            rule: {"count": count, "first": [issue.line() for issue in issues if issue.rule == rule][:MAX_LISTED]}
            for rule, count in counts.most_common()
        },
        "notes": [*draft.notes, *split.notes],
        "config": recipe.notes,
    }


def _summary(
    draft: Draft,
    checked: Checked,
    split: Split,
    recipe: Recipe,
    issues: Sequence[Finding],
    config: ImportConfig,
    written: Sequence[Path],
) -> list[str]:
    counts = ", ".join(f"{name} {len(ids):,}" for name, ids in split.clip_ids.items())
    clips = plural("%(num)s clip", "%(num)s clips", len(draft.taken))
    taken = tr("%(num)s of %(total)s", num=grouped(len(checked.taken)), total=clips)
    videos = plural("%(num)s video", "%(num)s videos", len(checked.videos))
    said = [f"{draft.name}: {taken}, {videos}, {duration(checked.seconds)}; {counts}"]
    said += [f"note: {note}" for note in (*draft.notes, *split.notes, *recipe.notes)]
    said += [f"{rule}: {count:,}" for rule, count in Counter(issue.rule for issue in issues).most_common()]
    said += lines([issue for issue in issues if issue.severity != "info"])
    state = plural("%(num)s file written", "%(num)s files written", len(written))
    state = state if written else tr("nothing has changed")
    said.append(f"{config.root}: {state}; report: {CorpusLayout(config.root).import_record}")
    said.append(f"next: snakemake --cores 8 all --configfile {config.root / 'config.yaml'}")
    said.append(f"then open {recipe.tree['work_dir']}/overview.html")
    return said
