"""The whole contract: check every video, then the corpus; write report, page and manifest."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from signstreams.array_types import Floats
from signstreams.contract.check_records import FileRecord, VideoCheck
from signstreams.contract.corpus_checks import (
    GLOSS,
    check_clip_table,
    check_clips,
    check_coverage,
    check_glosses,
    check_processed,
    check_videos,
)
from signstreams.contract.extraction_checks import check_planned, read_planned
from signstreams.contract.inventory import Inventory, VideoFiles, take_inventory
from signstreams.contract.loose_crops import check_loose_corpus
from signstreams.contract.re_extraction_advice import RecordedSettings, advise_re_extraction, extract_command
from signstreams.contract.report import build_manifest, build_report, report_order
from signstreams.contract.report_page import render_page, worst_first
from signstreams.contract.rules import EXTRACTED, TRACKS_READABLE, TRACKS_TIMES
from signstreams.contract.run_checks import check_all
from signstreams.contract.settings import ContractConfig
from signstreams.contract.training_checks import TrainingRecord, check_trainings, planned_training
from signstreams.contract.video import READ_ERRORS
from signstreams.contract.view_index import remove_other_views, view_index
from signstreams.corpus.clips import ID, Clip
from signstreams.corpus.corpus import Corpus, scan_corpus, video_folders
from signstreams.corpus.findings import Finding, errors, lines
from signstreams.corpus.gloss import GLOSS_KNOWN, Gloss, scan_gloss
from signstreams.corpus.leakage import check_leakage
from signstreams.corpus.splits import KNOWN, Index, scan_index
from signstreams.corpus.table import QUOTES, RAGGED
from signstreams.errors import UserError, print_problems, raise_if_of_machine
from signstreams.files import read_json, remove_leftovers, sha256_file, write_json, write_text
from signstreams.formats.arrays import read_times
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import list_sources
from signstreams.language import grouped, plural, tr

MAX_FILES = 20  # files for which findings of one rule are printed


@dataclass(frozen=True)
class Validation:
    """Outcome of the contract."""

    findings: list[Finding]  # everything found
    report: dict[str, Any]  # content of report.json
    manifest: dict[str, Any]  # content of manifest.json
    num_from_records: int = 0  # videos whose check was taken from their record
    training: TrainingRecord | None = None  # the training that is planned; None where none is
    sources: Mapping[str, Path] = field(default_factory=dict)  # video id to its file or folder, of those that are there

    @property
    def has_errors(self) -> bool:
        """Whether any finding fails the contract."""
        return bool(errors(self.findings))


def validate(config: ContractConfig) -> Validation:
    """Check the corpus; writes only records of checks.

    Raises:
        UserError: The root is no folder, or the settings of the planned training are wrong. All other faults are
            findings.
    """
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected the root of a corpus; correct --root")
    training = planned_training(config)
    layout = CorpusLayout(config.root)
    remove_leftovers(layout.processed, layout.report.parent)
    inventory = take_inventory(layout)
    folders = video_folders(layout, config.videos_dir)
    loose_ids = _loose_ids(_video_ids(folders), inventory, config)
    corpus = scan_corpus(
        layout,
        folders,
        allow_absent_videos=config.allow_absent_videos,
        other_ids=loose_ids,
        extracted_ids=inventory.extracted_ids,
    )
    _prefer_extracted(corpus)
    results = list(check_all(layout, _files_of_videos(corpus, inventory, loose_ids), config))
    checks = [check for check, _ in results]
    settings = RecordedSettings(layout, checks)
    advise_re_extraction(layout, corpus.videos, checks, settings)
    _add_clip_findings(corpus, checks, config)
    _excuse_unannotated(corpus, checks)
    findings = [*corpus.issues, *(finding for check in checks for finding in check.findings)]
    known = corpus.videos.keys() | loose_ids
    findings += check_processed(inventory, known, loose_ids, are_all_known=corpus.is_sure_of_videos)
    findings += check_loose_corpus(layout, checks, lambda: _extract_all(layout, folders, settings), folders, known)
    if checks:
        findings += check_videos(checks, config)
    if (extraction := read_planned(layout)) is not None:
        extracted = (check.video_id for check in checks if check.status == "ok")
        findings += check_planned(layout, extraction, extracted, folders)
    findings += check_clip_table(corpus, checks, config)
    index = _scan_index(corpus)
    findings += index.issues
    findings += check_leakage(index.splits, corpus.clips, source_digests(layout, checks), "processed/metadata")
    glosses, gloss_findings = _scan_glosses(corpus, checks, index, config)
    findings += gloss_findings
    record = None
    if training is not None and corpus.has_meta:
        num_frames = {clip_id: count for check in checks for clip_id, count in check.clip_frames.items()}
        lost = {check.video_id for check in checks if check.status not in ("ok", "loose")}
        breaches = check_trainings(training, corpus.clips, lost, num_frames, index.splits, glosses)
        is_warning = config.training.breaches == "warn"
        findings += (replace(found, severity="warning") if is_warning else found for found in breaches)
        record = replace(training, num_frames=num_frames)
    files = [record for check in checks for record in check.files] + _table_records(corpus.layout)
    findings.sort(key=report_order)
    report = build_report(corpus, checks, index.splits, findings)
    num_from_records = sum(is_recorded for _, is_recorded in results)
    return Validation(findings, report, build_manifest(files), num_from_records, record, corpus.videos)


def write_validation(layout: CorpusLayout, validation: Validation) -> list[Path]:
    """Write report, page and manifest; after an error also copies of report and page, which Snakemake does not remove.

    What the page loads, ``views.js`` and ``views/``, is undeclared for the same reason: the copy loads it too.

    Returns the copies, failed_report.json and failed_report.html; none when the contract holds.

    Raises:
        UserError: The folder cannot be written to.
    """
    page, ordered = render_page(validation.report, layout), worst_first(validation.report["videos"])
    copies = [path.with_name(f"failed_{path.name}") for path in (layout.report, layout.report_page)]
    try:
        write_json(layout.report, validation.report)
        write_text(layout.views, view_index(ordered, validation.report, layout, validation.sources))
        write_text(layout.report_page, page)
        write_json(layout.manifest, validation.manifest)
        remove_other_views(layout, (video["video_id"] for video in ordered))
        if validation.training is not None:
            validation.training.write(layout)
        if validation.has_errors:
            write_json(copies[0], validation.report)
            write_text(copies[1], page)
            return copies
        for path in copies:
            path.unlink(missing_ok=True)
        return []
    except OSError as error:
        place = error.filename or layout.report.parent
        raise UserError(
            f"{place}: {error.strerror}, expected to write the report there; fix that and run again"
        ) from None


def print_outcome(validation: Validation, layout: CorpusLayout, copies: list[Path]) -> None:
    """Print errors and warnings on stderr, one line each; on stdout a summary and the paths of the report."""
    print_problems(_printed_lines(errors(validation.findings)))
    warnings = [finding for finding in validation.findings if finding.severity == "warning"]
    print_problems(_printed_lines(warnings), kind="warning")
    summary = validation.report["summary"]
    print(
        tr(
            "contract: %(verdict)s: %(errors)s, %(warnings)s in %(videos)s (%(quarantined)s quarantined), %(frames)s,"
            " %(clips)s",
            verdict=tr("pass") if validation.report["verdict"] == "pass" else tr("fail"),
            errors=plural("%(num)s error", "%(num)s errors", summary["num_errors"]),
            warnings=plural("%(num)s warning", "%(num)s warnings", summary["num_warnings"]),
            videos=plural("%(num)s video", "%(num)s videos", summary["num_videos"]),
            quarantined=grouped(summary["num_quarantined"]),
            frames=plural("%(num)s frame", "%(num)s frames", summary["num_frames"]),
            clips=plural("%(num)s clip", "%(num)s clips", summary["num_clips"]),
        )
    )
    print(
        plural(
            "checked %(num)s video, took %(recorded)s from their records",
            "checked %(num)s videos, took %(recorded)s from their records",
            summary["num_videos"] - validation.num_from_records,
            recorded=grouped(validation.num_from_records),
        )
    )
    for path in copies or [layout.report_page, layout.report]:
        print(tr("report: %(file)s", file=path))


def _printed_lines(findings: Sequence[Finding]) -> list[str]:
    """One line per finding; for a rule that many files break, the first `MAX_FILES` files and a count of the rest."""
    kept, rest = [], defaultdict(list)
    files: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        seen = files[finding.rule]
        if len(seen) < MAX_FILES or finding.file in seen:
            seen.add(finding.file)
            kept.append(finding)
        else:
            rest[finding.rule].append(finding.file)
    return lines(kept) + [
        plural(
            "%(num)s more finding of this rule in %(files)s, see contract/report.json [%(rule)s]",
            "%(num)s more findings of this rule in %(files)s, see contract/report.json [%(rule)s]",
            len(places),
            files=plural("%(num)s file", "%(num)s files", len(set(places))),
            rule=rule,
        )
        for rule, places in rest.items()
    ]


def _video_ids(folders: Sequence[Path]) -> Collection[str]:
    ids: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            ids |= list_sources(folder).sources.keys()
    return ids


def source_digests(layout: CorpusLayout, checks: Iterable[VideoCheck]) -> dict[str, str]:
    """Video to the checksum of its file when it was extracted, from its metadata: nothing is hashed for it."""
    found = {}
    for check in checks:
        with contextlib.suppress(*READ_ERRORS, KeyError, TypeError):  # faults that are reported already
            if check.status in ("ok", "quarantined"):
                found[check.video_id] = str(read_json(layout.metadata(check.video_id))["source_sha256"])
    return found


def _prefer_extracted(corpus: Corpus) -> None:
    """Where several files have one id, take the one that was extracted."""
    for video_id, paths in corpus.twins.items():
        try:
            name = read_metadata(corpus.layout.metadata(video_id)).source_name
        except READ_ERRORS:
            continue
        corpus.videos[video_id] = next((path for path in paths if path.name == name), paths[0])


def _extract_all(layout: CorpusLayout, folders: Sequence[Path], settings: RecordedSettings) -> str:
    """Command that extracts all videos with the settings of those that were extracted."""
    return extract_command(folders, layout.root, settings.shared if settings.are_recorded else {})


def _add_clip_findings(corpus: Corpus, checks: Iterable[VideoCheck], config: ContractConfig) -> None:
    """Add findings on clips and coverage, which depend on more than the video's files and are not recorded."""
    clips: dict[str, list[Clip]] = defaultdict(list)
    for clip in corpus.clips:
        clips[clip.video_id].append(clip)
    for check in checks:
        if check.status != "ok":
            continue
        check.findings += check_coverage(check, config)
        if own := clips[check.video_id]:
            times_s = _times_of(corpus.layout, check)
            findings, check.clip_frames = check_clips(own, check, times_s, config)
            check.findings += findings


def _times_of(layout: CorpusLayout, check: VideoCheck) -> Floats | None:
    """(T,) times of a video's frames; None when they are wrong or unreadable: then clips cannot be compared to them."""
    if not any(record.kind == "tracks" for record in check.files):
        return None
    if any(finding.rule in (TRACKS_READABLE.id, TRACKS_TIMES.id) for finding in check.findings):
        return None
    try:
        return read_times(layout.tracks(check.video_id))
    except READ_ERRORS as error:
        raise_if_of_machine(error, layout.tracks(check.video_id))
        return None


def _excuse_unannotated(corpus: Corpus, checks: list[VideoCheck]) -> None:
    """Where only spans were extracted, a video that meta.csv does not name rightly has no files."""
    if not corpus.has_meta or all(check.spans_s is None for check in checks):
        return
    with_clip, named = {clip.video_id for clip in corpus.clips}, corpus.meta.named_videos
    for check in checks:
        if check.video_id in with_clip or [finding.rule for finding in check.findings] != [EXTRACTED.id]:
            continue
        finding = check.findings[0]
        if check.video_id in named:
            finding = replace(finding, fix="correct its rows in meta.csv, then extract it again")
        else:
            finding = replace(finding, severity="info", fix="nothing to do: it has no span")
        check.findings = [finding]


def _files_of_videos(corpus: Corpus, inventory: Inventory, loose_ids: set[str]) -> list[VideoFiles]:
    """Files of every video, by id."""
    videos = [
        VideoFiles(video_id, path, inventory.artifacts(video_id))
        for video_id, path in corpus.videos.items()
        if video_id not in loose_ids
    ]
    videos += [
        VideoFiles(video_id, corpus.videos.get(video_id), inventory.loose_artifacts(video_id), is_loose=True)
        for video_id in loose_ids
    ]
    return sorted(videos, key=lambda video: video.video_id)


def _loose_ids(corpus_ids: Collection[str], inventory: Inventory, config: ContractConfig) -> set[str]:
    """Videos of loose crops; where other videos exist, crops without their video are leftovers, unless allowed."""
    loose = inventory.loose_ids
    if not corpus_ids or config.allow_absent_videos:
        return loose
    return {video_id for video_id in loose if video_id in corpus_ids}


def _scan_index(corpus: Corpus) -> Index:
    """Splits; empty without meta.csv and index, and where meta.csv is unreadable: every id would look unknown."""
    if corpus.has_meta and not corpus.clips:
        return Index()
    if not corpus.has_meta and not any(corpus.layout.index(split).exists() for split in SPLITS):
        return Index()
    index = scan_index(corpus.layout, corpus.clips, _left_out(corpus))
    index.issues = _without_consequences(corpus, index.issues)
    return index


def _left_out(corpus: Corpus) -> list[str]:
    """Ids that rows of meta.csv name and no clip has, for reasons that are reported with those rows."""
    wrong = [row.clip_id for row in corpus.meta.rows if row.clip is None and not row.is_untimed]
    return [*corpus.absent_ids, *wrong]


def _without_consequences(corpus: Corpus, findings: list[Finding]) -> list[Finding]:
    """Without ids that name no clip where rows or ids of meta.csv could not be read: these may be among them."""
    lost_rows = {RAGGED.id, QUOTES.id, ID.id}
    if not any(issue.rule in lost_rows for issue in corpus.meta.issues):
        return findings
    return [finding for finding in findings if finding.rule not in (KNOWN.id, GLOSS_KNOWN.id)]


def _scan_glosses(
    corpus: Corpus, checks: list[VideoCheck], index: Index, config: ContractConfig
) -> tuple[dict[str, Gloss], list[Finding]]:
    if not corpus.layout.gloss.is_file() or not corpus.clips:
        return {}, []
    clip_ids = [clip.clip_id for clip in corpus.clips]
    table = scan_gloss(corpus.layout.gloss, [*clip_ids, *_left_out(corpus)], name=GLOSS)
    clip_frames = {clip_id: count for check in checks for clip_id, count in check.clip_frames.items()}
    issues = _without_consequences(corpus, table.issues)
    return table.glosses, issues + check_glosses(table.glosses, index.splits, clip_frames, clip_ids, config)


def _table_records(layout: CorpusLayout) -> list[FileRecord]:
    paths = {"meta": [layout.meta], "gloss": [layout.gloss], "index": [layout.index(split) for split in SPLITS]}
    return [
        FileRecord(path.relative_to(layout.root).as_posix(), kind, None, path.stat().st_size, sha256_file(path))
        for kind, tables in paths.items()
        for path in tables
        if path.is_file()
    ]
