"""Run the checks of videos, in this process or in several; a video with a current record is not checked again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from signstreams.contract.check_records import VideoCheck, file_stamps, record_check, recorded_check
from signstreams.contract.inventory import SOURCE, VideoFiles, artifacts_of
from signstreams.contract.loose_crops import check_loose_video
from signstreams.contract.settings import ContractConfig
from signstreams.contract.video import check_video
from signstreams.contract.views import read_summary, write_view
from signstreams.errors import is_of_machine
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import VideoMetadata
from signstreams.processes import WorkerPool
from signstreams.progress import Progress


def check_after_extraction(layout: CorpusLayout, video_id: str, source: Path, metadata: VideoMetadata) -> None:
    """Check a video right after its extraction and leave the record for the contract.

    Extraction read every file a moment ago, so that its checksums are used as they are.
    """
    video = VideoFiles(video_id, source, artifacts_of(layout, video_id))
    decode: str = ContractConfig.model_fields["decode"].default
    check = recorded_check(layout, video, decode, may_read=False)
    if check is None:
        check_and_record(layout, video, decode, {**metadata.checksums, SOURCE: metadata.source_sha256})
    elif _lacks_view(layout, check):
        write_view(layout, video_id)


def check_and_record(
    layout: CorpusLayout, video: VideoFiles, decode: str, known_checksums: Mapping[str, str] | None = None
) -> VideoCheck:
    """Check a video and write its record; ``known_checksums`` are those of files that need not be read for them."""
    files, known = video.with_source(), known_checksums or {}
    stamps = file_stamps(files)
    checksums, unreadable = {}, {}
    for kind, file in files.items():
        try:
            checksums[kind] = known[kind] if kind in known else file.sha256()
        except OSError as error:
            if is_of_machine(error):
                raise OSError(error.errno, error.strerror, str(error.filename or file.path)) from error
            unreadable[kind] = error.strerror or str(error)
    if video.is_loose:
        check = check_loose_video(layout, video, decode, checksums)
    else:
        check = check_video(layout, video, decode, checksums, unreadable)
    is_unchanged = stamps is not None and stamps == file_stamps(files)  # nobody wrote to the files meanwhile
    record_check(layout, check, stamps if is_unchanged else None, checksums, decode)
    if not video.is_loose:
        write_view(layout, video.video_id)
    return check


def _lacks_view(layout: CorpusLayout, check: VideoCheck) -> bool:
    """Whether a video that is not checked again has yet to be given a view, as those of earlier versions."""
    return check.status == "ok" and check.num_frames > 0 and read_summary(layout.view(check.video_id)) is None


def check_all(
    layout: CorpusLayout, videos: Sequence[VideoFiles], config: ContractConfig
) -> Iterator[tuple[VideoCheck, bool]]:
    """Check of each video, in order, and whether it comes from its record."""
    recorded = [
        None if config.recheck else recorded_check(layout, video, config.decode, may_read=False) for video in videos
    ]
    recorded = [None if check is not None and _lacks_view(layout, check) else check for check in recorded]
    remaining = [video for video, check in zip(videos, recorded, strict=True) if check is None]
    with Progress(len(videos), "videos", "contract") as progress:
        progress.skip(len(videos) - len(remaining))
        checks = _check_each(layout, remaining, config)
        for check in recorded:
            if check is not None:
                yield check, True
            else:
                yield next(checks)
                progress.advance()


def _check_each(
    layout: CorpusLayout, videos: Sequence[VideoFiles], config: ContractConfig
) -> Iterator[tuple[VideoCheck, bool]]:
    check = partial(_check_unless_same_bytes, layout, config)
    num_jobs = min(config.num_jobs, len(videos))
    if num_jobs <= 1:
        yield from map(check, videos)
        return
    with WorkerPool(num_jobs) as pool:
        yield from pool.map(check, videos, chunksize=min(16, max(1, len(videos) // (4 * num_jobs))))


def _check_unless_same_bytes(
    layout: CorpusLayout, config: ContractConfig, video: VideoFiles
) -> tuple[VideoCheck, bool]:
    """Where only modification times differ from the record, checksums decide; where only the view lacks, it is made."""
    if not config.recheck and (check := recorded_check(layout, video, config.decode, may_read=True)):
        if _lacks_view(layout, check):
            write_view(layout, video.video_id)
        return check, True
    return check_and_record(layout, video, config.decode), False
