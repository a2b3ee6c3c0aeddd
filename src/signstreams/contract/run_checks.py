"""One video, from its record where that can be believed, else checked. In this process or in several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signstreams.contract.inventory import SOURCE, Artifact, artifacts_of
from signstreams.contract.loose_crops import check_loose_video
from signstreams.contract.records import VideoCheck, recall, remember, take_stamps, take_sums
from signstreams.contract.settings import ContractConfig
from signstreams.contract.video import check_video
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata
from signstreams.processes import WorkerPool
from signstreams.progress import Progress


@dataclass(frozen=True)
class VideoFiles:
    """A video to check.

    Attributes:
        video_id: Its id.
        source: The video's own file; None when it is not there.
        artifacts: Kind to file, of those that are there.
        is_loose: Whether they are loose crops.
    """

    video_id: str
    source: Path | None
    artifacts: dict[str, Artifact]
    is_loose: bool = False

    def with_source(self) -> dict[str, Artifact]:
        """All files that a record vouches for."""
        return self.artifacts if self.source is None else {**self.artifacts, SOURCE: Artifact.of_source(self.source)}


@dataclass(frozen=True)
class CheckBeside:
    """Checks a video right after its extraction and leaves the record for the contract; may go to other processes."""

    decode: str = ContractConfig.model_fields["decode"].default

    def __call__(self, layout: CorpusLayout, video_id: str, source: Path, metadata: VideoMetadata) -> None:
        """Extraction has read every file a moment ago: its checksums are taken as they are."""
        files = VideoFiles(video_id, source, artifacts_of(layout, video_id))
        if recall(layout, video_id, files.with_source(), self.decode, may_read=False) is None:
            examine(layout, files, self.decode, {**metadata.checksums, SOURCE: metadata.source_sha256})


def examine(
    layout: CorpusLayout, video: VideoFiles, decode: str, known_sums: Mapping[str, str] | None = None
) -> VideoCheck:
    """Check a video and write its record.

    Args:
        layout: Where its files lie.
        video: What to check.
        decode: Which crops are decoded.
        known_sums: Checksums that need not be taken again.
    """
    files = video.with_source()
    stamps = take_stamps(files)
    known = known_sums or {}
    sums, unreadable = take_sums({kind: artifact for kind, artifact in files.items() if kind not in known})
    sums |= {kind: value for kind, value in known.items() if kind in files}
    if video.is_loose:
        check = check_loose_video(layout, video.video_id, video.source, video.artifacts, decode, sums)
    else:
        assert video.source is not None
        check = check_video(layout, video.video_id, video.source, video.artifacts, decode, sums, unreadable)
    is_still = stamps is not None and stamps == take_stamps(files)  # nobody wrote while it was checked
    remember(layout, check, stamps if is_still else None, sums, decode)
    return check


def examine_all(
    layout: CorpusLayout, videos: Sequence[VideoFiles], config: ContractConfig
) -> Iterator[tuple[VideoCheck, bool]]:
    """Each video's check in their order, and whether it is that of its record."""
    recalled = [None if config.recheck else _recall(layout, video, config.decode, may_read=False) for video in videos]
    tasks = [video for video, check in zip(videos, recalled, strict=True) if check is None]
    with Progress(len(videos), "videos", "contract") as progress:
        progress.skip(len(videos) - len(tasks))
        fresh = _examine_each(layout, tasks, config)
        for check in recalled:
            if check is not None:
                yield check, True
            else:
                yield next(fresh)
                progress.advance()


def _recall(layout: CorpusLayout, video: VideoFiles, decode: str, *, may_read: bool) -> VideoCheck | None:
    return recall(layout, video.video_id, video.with_source(), decode, may_read=may_read)


def _examine_each(
    layout: CorpusLayout, videos: Sequence[VideoFiles], config: ContractConfig
) -> Iterator[tuple[VideoCheck, bool]]:
    num_jobs = min(config.num_jobs, len(videos))
    if num_jobs <= 1:
        for video in videos:
            yield _examine_or_recall(layout, video, config)
        return
    with WorkerPool(num_jobs) as pool:
        chunk = min(16, max(1, len(videos) // (4 * num_jobs)))
        yield from pool.map(_Examiner(layout, config), videos, chunksize=chunk)


@dataclass(frozen=True)
class _Examiner:
    """`_examine_or_recall` of one corpus, for `ProcessPoolExecutor.map`."""

    layout: CorpusLayout
    config: ContractConfig

    def __call__(self, video: VideoFiles) -> tuple[VideoCheck, bool]:
        return _examine_or_recall(self.layout, video, self.config)


def _examine_or_recall(layout: CorpusLayout, video: VideoFiles, config: ContractConfig) -> tuple[VideoCheck, bool]:
    """Where only the times of change differ, checksums decide."""
    if not config.recheck and (check := _recall(layout, video, config.decode, may_read=True)) is not None:
        return check, True
    return examine(layout, video, config.decode), False
