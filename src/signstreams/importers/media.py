"""Where the videos of a corpus are, and how long they are."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from signstreams.errors import UserError
from signstreams.formats.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, SourceFolder, VideoSource, list_sources
from signstreams.progress import Progress

SLOW = 200  # videos, from which on the wait for their lengths is shown


def folders_below(places: Sequence[Path]) -> list[SourceFolder]:
    """Every folder in and below ``places`` that holds videos, or folders of frames, in the order of their paths.

    Raises:
        UserError: A place is no folder, or none of them has a video.
    """
    if absent := [place for place in places if not place.is_dir()]:
        raise UserError(f"{place}: no such folder, expected the videos; correct --videos" for place in absent)
    found: dict[Path, SourceFolder] = {}
    for place in places:
        _collect(place, found, set())
    if not found:
        kinds = f"files ending in {' '.join(VIDEO_SUFFIXES)}, or folders of images ({' '.join(IMAGE_SUFFIXES)})"
        raise UserError(
            f"{place}: no video in it or below, expected {kinds}; name their folder with --videos" for place in places
        )
    return list(found.values())


def _collect(folder: Path, found: dict[Path, SourceFolder], seen: set[Path]) -> None:
    resolved = folder.resolve()
    if resolved in seen or folder in found:  # a link in a circle, or a place below another one
        return
    seen.add(resolved)
    try:
        listed = list_sources(folder)
    except PermissionError:
        return
    if listed.sources:
        found[folder] = listed
    for path, is_folder in listed.others:
        if is_folder:
            _collect(path, found, seen)


def lengths_s(videos: Mapping[str, VideoSource], frames_fps: float) -> tuple[dict[str, float], dict[str, str]]:
    """Length in s of each video, from its header or its number of frames, and why others cannot be opened."""
    found: dict[str, float] = {}
    unreadable: dict[str, str] = {}
    files = {video_id: video for video_id, video in videos.items() if not video.is_folder}
    for video_id in videos.keys() - files.keys():
        found[video_id] = len(videos[video_id].image_files()) / frames_fps
    if not files:
        return found, unreadable
    from signstreams.extract.frame_source import UnreadableVideoError
    from signstreams.extract.video import VideoReader

    with Progress(len(files), "videos", "lengths") if len(files) >= SLOW else contextlib.nullcontext() as progress:
        for video_id, video in files.items():
            try:
                with VideoReader(video.path) as reader:
                    if reader.duration_s is not None:
                        found[video_id] = reader.duration_s
            except (UnreadableVideoError, OSError) as error:
                unreadable[video_id] = str(error)
            if progress is not None:
                progress.advance()
    return found, unreadable


def picture_height_px(video: VideoSource) -> int | None:
    """Height of a video's pictures; None where it cannot be opened."""
    from signstreams.extract.frame_source import UnreadableVideoError
    from signstreams.extract.video import VideoReader

    try:
        with VideoReader(video.path) as reader:
            return reader.height_px
    except (UnreadableVideoError, OSError):
        return None
