"""A corpus: its videos and its clips."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, raise_errors
from signstreams.corpus.meta import scan_meta
from signstreams.formats.frame_folders import VIDEO_SUFFIXES, is_source
from signstreams.formats.layout import CorpusLayout, find_videos
from signstreams.ids import check_id, shown

VIDEOS = Rule("videos.folder", "error", f"a folder with videos ({', '.join(VIDEO_SUFFIXES)}) or folders of images")
VIDEO_NAME = Rule("videos.name", "error", "a file name that can be an id")
VIDEO_TWINS = Rule("videos.unique", "error", "one file for each video id")
VIDEO_FILE = Rule("videos.file", "error", "a video file, or a folder of images")
VIDEO_RULES = (VIDEOS, VIDEO_NAME, VIDEO_TWINS, VIDEO_FILE)


@dataclass
class Corpus:
    """Videos and clips below one root.

    Attributes:
        layout: Where everything lies.
        videos: Video id to its file, by id.
        clips: Rows of meta.csv, or one clip without text for each video when there is no meta.csv.
        has_meta: Whether there is a meta.csv.
        issues: What was found that is no error, and in `scan_corpus` also what is.
        num_rows: Rows of meta.csv.
        untimed_rows: Rows of meta.csv that gave no clip because their times cannot be known.
        absent_clips: Rows of meta.csv left out because their video is not there, where that is allowed.
    """

    layout: CorpusLayout
    videos: dict[str, Path] = field(default_factory=dict)
    clips: list[Clip] = field(default_factory=list)
    has_meta: bool = False
    issues: list[Finding] = field(default_factory=list)
    num_rows: int = 0
    untimed_rows: list[int] = field(default_factory=list)
    absent_clips: list[Clip] = field(default_factory=list)

    @property
    def absent_ids(self) -> list[str]:
        """Ids of ``absent_clips``."""
        return [clip.clip_id for clip in self.absent_clips]


def load_corpus(
    root: str | Path | CorpusLayout, videos_dir: str | Path | None = None, *, allow_absent_videos: bool = False
) -> Corpus:
    """Find the videos, read meta.csv when it is there, and join them.

    Args:
        root: Root of the corpus, or its layout.
        videos_dir: Folder of the videos; ``ROOT/videos`` without it.
        allow_absent_videos: Leave out clips whose video is not there; otherwise they are errors.

    Raises:
        UserError: With everything that is wrong, one line a problem.
    """
    corpus = scan_corpus(root, videos_dir, allow_absent_videos=allow_absent_videos)
    raise_errors(corpus.issues)
    return corpus


def scan_corpus(
    root: str | Path | CorpusLayout,
    videos_dir: str | Path | None = None,
    *,
    allow_absent_videos: bool = False,
    other_ids: Collection[str] = (),
) -> Corpus:
    """As `load_corpus`; what is wrong is in ``issues`` and nothing is raised.

    ``other_ids`` are videos that are known by something else than their file; with them there may be no file at all.
    """
    layout = root if isinstance(root, CorpusLayout) else CorpusLayout(Path(root))
    folder = layout.videos if videos_dir is None else Path(videos_dir)
    corpus = Corpus(layout)
    corpus.videos = _videos(folder, corpus.issues)
    if other_ids and not corpus.videos:
        corpus.issues = [issue for issue in corpus.issues if issue.rule != VIDEOS.id]
    ids = {**dict.fromkeys(other_ids), **corpus.videos}
    corpus.has_meta = layout.meta.is_file()
    if corpus.has_meta:
        table = scan_meta(layout.meta, ids or None, name=layout.meta.name, allow_absent_videos=allow_absent_videos)
        corpus.clips, corpus.num_rows, corpus.untimed_rows = table.clips, table.num_rows, table.untimed_rows
        corpus.absent_clips = table.absent
        corpus.issues += table.issues
    else:
        corpus.clips = [Clip(clip_id=video_id, video_id=video_id) for video_id in sorted(ids)]
    return corpus


def _videos(folder: Path, issues: list[Finding]) -> dict[str, Path]:
    place, fix = str(folder), "put the videos there, or name their folder with --videos-dir"
    try:
        videos = find_videos(folder)
    except FileNotFoundError:
        issues.append(VIDEOS.breach(place, "no such folder", fix))
        return {}
    except NotADirectoryError:
        issues.append(VIDEOS.breach(place, "a file", fix))
        return {}
    except ValueError as error:
        issues.append(VIDEO_TWINS.breach(place, str(error), "rename or remove one of them"))
        return {}
    if not videos:
        issues.append(VIDEOS.breach(place, "no video", fix))
    sources = {video_id: path for video_id, path in videos.items() if is_source(path)}
    for video_id, path in videos.items():
        try:
            check_id(video_id)
        except ValueError as error:
            issues.append(VIDEO_NAME.breach(place, f"the name {shown(path.name)} {error}", "rename the file"))
        if video_id not in sources:
            kind = "a folder" if path.is_dir() else "a link to nothing"
            issues.append(VIDEO_FILE.breach(place, f"{shown(path.name)} is {kind}", "rename, replace or remove it"))
    return sources
