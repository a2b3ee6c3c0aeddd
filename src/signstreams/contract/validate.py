"""The whole contract: check every video, join, write report, page and manifest."""

from __future__ import annotations

import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.config.contract import ContractConfig
from signstreams.contract.join import GLOSS, check_clip_table, check_glosses, check_processed, check_videos
from signstreams.contract.page import render_page
from signstreams.contract.records import FileRecord, VideoCheck
from signstreams.contract.report import build_manifest, build_report, report_order
from signstreams.contract.video import check_video
from signstreams.corpus.clips import Clip
from signstreams.corpus.corpus import Corpus, scan_corpus
from signstreams.corpus.findings import Finding, errors, lines
from signstreams.corpus.gloss import scan_gloss
from signstreams.corpus.index import Index, scan_index
from signstreams.errors import UserError, print_problems
from signstreams.files import sha256_file, write_json, write_text
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.progress import Progress


@dataclass(frozen=True)
class Validation:
    """Outcome of the contract.

    Attributes:
        findings: Everything found.
        report: Content of report.json.
        manifest: Content of manifest.json.
    """

    findings: list[Finding]
    report: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def has_errors(self) -> bool:
        """Whether the contract is broken."""
        return bool(errors(self.findings))


def validate(config: ContractConfig) -> Validation:
    """Check the corpus; writes nothing.

    Raises:
        UserError: When the root is no folder. All other faults are findings.
    """
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected the root of a corpus; correct --root")
    corpus = scan_corpus(config.root, config.videos_dir)
    checks = list(_check_videos(corpus, config))
    findings = [*corpus.issues, *(finding for check in checks for finding in check.findings)]
    findings += check_processed(corpus.layout, corpus.videos)
    if checks:
        findings += check_videos(checks, config)
    findings += check_clip_table(corpus, checks, config)
    index = _index(corpus)
    findings += index.issues
    findings += _glosses(corpus, checks, index, config)
    files = [record for check in checks for record in check.files] + _tables(corpus.layout)
    findings.sort(key=report_order)
    report = build_report(corpus, checks, index.splits, findings)
    return Validation(findings, report, build_manifest(files))


def write_validation(layout: CorpusLayout, validation: Validation) -> list[Path]:
    """Write report, page and manifest; after an error also copies that are no outputs of a Snakemake rule.

    Returns:
        The copies: failed_report.json and failed_report.html; none when the contract holds.

    Raises:
        UserError: When the folder cannot be written to.
    """
    try:
        return _write(layout, validation)
    except OSError as error:
        place = error.filename or layout.report.parent
        raise UserError(
            f"{place}: {error.strerror}, expected to write the report there; mend that and run again"
        ) from None


def _write(layout: CorpusLayout, validation: Validation) -> list[Path]:
    page = render_page(validation.report)
    write_json(layout.report, validation.report)
    write_text(layout.report_page, page)
    write_json(layout.manifest, validation.manifest)
    copies = [path.with_name(f"failed_{path.name}") for path in (layout.report, layout.report_page)]
    if not validation.has_errors:
        for path in copies:
            path.unlink(missing_ok=True)
        return []
    write_json(copies[0], validation.report)
    write_text(copies[1], page)
    return copies


def print_outcome(validation: Validation, layout: CorpusLayout, copies: list[Path]) -> None:
    """Errors and warnings on stderr, one line each; on stdout one line of summary, and where to look."""
    print_problems(lines(errors(validation.findings)))
    for line in lines([finding for finding in validation.findings if finding.severity == "warning"]):
        print(f"warning: {line}", file=sys.stderr)
    summary = validation.report["summary"]
    print(
        f"contract: {validation.report['verdict']}: {summary['num_errors']:,} errors, {summary['num_warnings']:,} "
        f"warnings in {summary['num_videos']:,} videos ({summary['num_quarantined']:,} quarantined), "
        f"{summary['num_frames']:,} frames, {summary['num_clips']:,} clips"
    )
    for path in copies or [layout.report_page, layout.report]:
        print(f"report: {path}")


def _check_videos(corpus: Corpus, config: ContractConfig) -> Iterator[VideoCheck]:
    clips: dict[str, list[Clip]] = defaultdict(list)
    for clip in corpus.clips:
        clips[clip.video_id].append(clip)
    tasks = [(corpus.layout, video_id, path, clips[video_id], config) for video_id, path in corpus.videos.items()]
    num_jobs = min(config.num_jobs, len(tasks))
    with Progress(len(tasks), "videos", "contract") as progress:
        if num_jobs <= 1:
            for task in tasks:
                yield check_video(*task)
                progress.advance()
            return
        # Fresh processes: OpenCV's threads do not survive a fork.
        with ProcessPoolExecutor(num_jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                for check in pool.map(check_video, *zip(*tasks, strict=True)):
                    yield check
                    progress.advance()
            except BrokenProcessPool:
                raise UserError(
                    f"a worker process was killed, perhaps for want of memory ({num_jobs} at once); use fewer --jobs"
                ) from None


def _index(corpus: Corpus) -> Index:
    """Splits; a corpus of videos alone needs none. Beside an unreadable meta.csv every id would look unknown."""
    if corpus.has_meta and not corpus.clips:
        return Index()
    if not corpus.has_meta and not any(corpus.layout.index(split).exists() for split in SPLITS):
        return Index()
    return scan_index(corpus.layout, corpus.clips)


def _glosses(corpus: Corpus, checks: list[VideoCheck], index: Index, config: ContractConfig) -> list[Finding]:
    if not corpus.layout.gloss.is_file() or not corpus.clips:
        return []
    clip_ids = [clip.clip_id for clip in corpus.clips]
    table = scan_gloss(corpus.layout.gloss, clip_ids, name=GLOSS)
    clip_frames = {clip_id: count for check in checks for clip_id, count in check.clip_frames.items()}
    return table.issues + check_glosses(table.glosses, index.splits, clip_frames, clip_ids, config)


def _tables(layout: CorpusLayout) -> list[FileRecord]:
    paths = {"meta": [layout.meta], "gloss": [layout.gloss], "index": [layout.index(split) for split in SPLITS]}
    return [
        FileRecord(path.relative_to(layout.root).as_posix(), kind, None, path.stat().st_size, sha256_file(path))
        for kind, tables in paths.items()
        for path in tables
        if path.is_file()
    ]
