"""A corpus: its videos and its clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, few_ids, raise_errors
from signstreams.corpus.meta_csv import MetaTable, scan_meta
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import (
    VIDEO_SUFFIXES,
    SourceFolder,
    doubled_id,
    list_sources,
    search,
    special_file,
)
from signstreams.ids import by_composition, check_id, composed, shown
from signstreams.language import counted

VIDEOS = Rule("videos.folder", "error", f"a folder with videos ({', '.join(VIDEO_SUFFIXES)}) or folders of images")
VIDEO_NAME = Rule("videos.name", "error", "a file name that can be an id")
VIDEO_TWINS = Rule("videos.unique", "error", "one file for each video id")
VIDEO_FILE = Rule("videos.file", "error", "a video file, or a folder of images")
PASSED_OVER = Rule("videos.passed_over", "warning", "every video in the folder itself, with an ending that is read")
SHADOWED = Rule("videos.shadowed", "warning", "each video in one of the folders")
VIDEO_RULES = (VIDEOS, VIDEO_NAME, VIDEO_TWINS, VIDEO_FILE, PASSED_OVER, SHADOWED)

VideosDir = str | Path | Sequence[Path] | None
"""Folder of the videos, or several, searched in order; None for ``ROOT/videos``."""


@dataclass
class Corpus:
    """Videos and clips below one root."""

    layout: CorpusLayout  # paths of its files
    videos: dict[str, Path] = field(default_factory=dict)
    """Video id to its file or folder of images, by id; the first where several have one id."""
    twins: dict[str, list[Path]] = field(default_factory=dict)  # id to its files, where there are several
    clips: list[Clip] = field(default_factory=list)
    """Clips of meta.csv, or one clip without text for each video when there is no meta.csv."""
    has_meta: bool = False  # whether there is a meta.csv
    meta: MetaTable = field(default_factory=MetaTable)  # content of meta.csv; empty without one
    issues: list[Finding] = field(default_factory=list)  # findings; from `load_corpus` none of them is an error

    @property
    def absent_ids(self) -> list[str]:
        """Ids of the clips left out because their video is not there, where that is allowed."""
        return [clip.clip_id for clip in self.meta.absent]

    @property
    def is_sure_of_videos(self) -> bool:
        """Whether ``videos`` is complete: no fault of the folder may hide one."""
        faults = {rule.id for rule in VIDEO_RULES if rule.severity == "error"}
        return not any(issue.rule in faults for issue in self.issues)


def load_corpus(
    root: str | Path | CorpusLayout, videos_dir: VideosDir = None, *, allow_absent_videos: bool = False
) -> Corpus:
    """Find the videos and read meta.csv, if there is one.

    Clips whose video is not there are left out where that is allowed, and errors otherwise.

    Raises:
        UserError: All problems, one per line.
    """
    corpus = scan_corpus(root, videos_dir, allow_absent_videos=allow_absent_videos)
    raise_errors(corpus.issues)
    return corpus


def scan_corpus(
    root: str | Path | CorpusLayout,
    videos_dir: VideosDir = None,
    *,
    allow_absent_videos: bool = False,
    other_ids: Collection[str] = (),
    extracted_ids: Collection[str] = (),
) -> Corpus:
    """As `load_corpus`; problems are in ``issues`` and nothing is raised.

    ``other_ids`` are videos known from other files, such as loose crops; with them there may be no video file at all.
    ``extracted_ids`` are those under which videos were extracted: a file whose name is composed otherwise, as after a
    copy from a Mac, is that video.
    """
    layout = root if isinstance(root, CorpusLayout) else CorpusLayout(Path(root))
    corpus = Corpus(layout)
    found, as_extracted = _sources(video_folders(layout, videos_dir), corpus.issues), by_composition(extracted_ids)
    sources = {as_extracted.get(composed(video_id), video_id): paths for video_id, paths in found.items()}
    corpus.videos = {video_id: paths[0] for video_id, paths in sources.items()}
    corpus.twins = {video_id: paths for video_id, paths in sources.items() if len(paths) > 1}
    if other_ids and not corpus.videos:
        corpus.issues = [issue for issue in corpus.issues if issue.rule != VIDEOS.id]
    ids = {**dict.fromkeys(other_ids), **corpus.videos}
    corpus.has_meta = layout.meta.is_file()
    if corpus.has_meta:
        corpus.meta = scan_meta(layout.meta, ids or None, allow_absent_videos=allow_absent_videos)
        corpus.clips = corpus.meta.clips
        corpus.issues += corpus.meta.issues
    else:
        corpus.clips = [Clip(clip_id=video_id, video_id=video_id) for video_id in sorted(ids)]
    return corpus


def video_folders(layout: CorpusLayout, videos_dir: VideosDir) -> list[Path]:
    """The folders to search for videos, in order."""
    if videos_dir is None:
        return [layout.videos]
    return [Path(videos_dir)] if isinstance(videos_dir, str | Path) else list(videos_dir)


def _sources(folders: Sequence[Path], issues: list[Finding]) -> dict[str, list[Path]]:
    """Video id to its files or folders of images in the first folder that has it: one, unless that has twins."""
    fix = "put the videos there, or name their folder with --videos-dir"
    listed: list[SourceFolder] = []
    for folder in folders:
        try:
            found = list_sources(folder)
        except FileNotFoundError:
            issues.append(VIDEOS.breach(str(folder), "no such folder", fix))
            continue
        except NotADirectoryError:
            issues.append(VIDEOS.breach(str(folder), "a file", fix))
            continue
        if not found.sources:
            issues.append(VIDEOS.breach(str(folder), "no video", fix))
        listed.append(found)
        issues += _passed_over(found, folders)
    usable: dict[str, list[Path]] = {}
    all_sources, shadowed = search(listed)
    for video_id, sources in all_sources.items():
        names = [source.path.name for source in sources]
        place = str(sources[0].path.parent)
        try:
            check_id(video_id)
        except ValueError as error:
            issues.append(VIDEO_NAME.breach(place, f"the name {shown(names[0])} {error}", "rename the file"))
        if text := doubled_id(video_id, names):
            issues.append(VIDEO_TWINS.breach(place, text, "rename or remove one of them"))
        for source in sources:
            if source.is_video:
                usable.setdefault(video_id, []).append(source.path)
                continue
            kind = "a folder" if source.is_folder else "a link to nothing"
            text = special_file(source.path) or f"{shown(source.path.name)} is {kind}"
            issues.append(VIDEO_FILE.breach(place, text, "rename, replace or remove it"))
    if shadowed:
        found_text = counted(
            "%(num)s video is also in a folder before it: %(ids)s",
            "%(num)s videos are also in a folder before it: %(ids)s",
            len(shadowed),
            ids=few_ids(shadowed),
        )
        place = str(next(iter(shadowed.values()))[0].parent)
        issues.append(SHADOWED.breach(place, found_text, "nothing to do if these are copies: the first one counts"))
    return usable


def _passed_over(folder: SourceFolder, folders: Collection[Path]) -> list[Finding]:
    names: dict[bool, list[str]] = {False: [], True: []}
    searched = {path.absolute() for path in folders}
    for path in folder.passed_over():
        if path.absolute() not in searched:
            names[path.is_dir()].append(path.name)
    found = (
        (names[False], "files of other endings", "convert them (ffmpeg -i FILE NAME.mp4), or move them away"),
        (names[True], "sub-folders with videos", "move their videos up into this folder, or move them away"),
    )
    return [
        PASSED_OVER.breach(str(folder.path), f"{len(names):,} {what} are passed over: {few_ids(names)}", fix)
        for names, what, fix in found
        if names
    ]
