"""Where the points of a video are. Light: the workflow asks for every video while it is planned."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from signstreams.config.extract import ExtractConfig

SUFFIXES = (".npz", ".npy", ".pose")


def points_path(folder: Path, video_id: str) -> Path | None:
    """The video's file of points; None when there is none."""
    found = _candidates(folder, video_id)
    return found[0] if found else None


def missing_points(config: ExtractConfig, video_ids: Iterable[str]) -> list[str]:
    """One line for each video whose points cannot be found, or are there twice; none for other detectors."""
    folder = config.precomputed.folder
    if config.detector != "precomputed" or folder is None:
        return []
    if not folder.is_dir():
        return [f"{folder}: no such folder; expected the points of the videos (precomputed.folder)"]
    problems = []
    for video_id in video_ids:
        found = _candidates(folder, video_id)
        if not found:
            endings = ", ".join(SUFFIXES)
            problems.append(
                f"{folder / video_id}: no points of this video, expected a file ending in {endings}; "
                "add it, or leave the video out"
            )
        elif len(found) > 1:
            problems.append(f"{found[0]}: the points of this video are also in {found[1].name}; remove one of them")
        elif found[0].suffix == ".pose" and importlib.util.find_spec("pose_format") is None:
            problems.append(f"{found[0]}: reading .pose files needs pose-format; pip install 'signstreams[extract]'")
    return problems


def _candidates(folder: Path, video_id: str) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := folder / f"{video_id}{suffix}").is_file()]
