"""Inventory of ``processed/``, listed once: which video has which files, as archives or as loose crops."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.files import sha256_file
from signstreams.formats.crops import parse_crop_name
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import VideoSource
from signstreams.streams import STREAMS

PROCESSED = "processed"
ENDINGS = {
    **dict.fromkeys(STREAMS, ".zip"),
    "pose": ".npz",
    "keypoints": ".npz",
    "tracks": ".npz",
    "metadata": ".json",
}
"""Kind of file, which is also the name of its folder, to its ending."""
SOURCE = "source"  # kind of the video itself
PLAIN = ".npy"  # what other tools may write instead of an npz


@dataclass(frozen=True)
class Artifact:
    """One file of a video, or all loose crops of one stream."""

    kind: str  # A key of `ENDINGS`, or `SOURCE` for the video
    folder: Path  # its folder
    names: tuple[str, ...]  # file names in that folder, sorted; several for loose crops only
    is_loose: bool = False  # whether it is loose crops

    @property
    def path(self) -> Path:
        """The file; for loose crops, their folder."""
        return self.folder if self.is_loose else self.folder / self.names[0]

    @property
    def place(self) -> str:
        """Path below the corpus root, as findings name it; loose crops of a video share one, with a ``*``."""
        name = f"{self.names[0][: self.names[0].rindex('_f')]}_f*.jpg" if self.is_loose else self.names[0]
        return f"{PROCESSED}/{self.kind}/{name}"

    def paths(self) -> Iterator[Path]:
        """Every file."""
        return (self.folder / name for name in self.names)

    def stamp(self) -> str | None:
        """Sizes and modification times as text: equal as long as nobody writes to the files; None for a link.

        Raises:
            OSError: When a file is gone.
        """
        if self.kind == SOURCE:  # may be linked from another disk; results may not
            return VideoSource.at(self.path).stamp()
        found = [os.lstat(path) for path in self.paths()]
        if any(stat.S_ISLNK(one.st_mode) for one in found):
            return None
        return self._joined([f"{one.st_size}:{one.st_mtime_ns}" for one in found])

    def sha256(self) -> str:
        """Checksum of the file; for loose crops, of their names and checksums.

        Raises:
            OSError: When a file cannot be read.
        """
        if self.kind == SOURCE:
            return VideoSource.at(self.path).sha256()
        return self._joined([sha256_file(path) for path in self.paths()])

    def _joined(self, values: list[str]) -> str:
        if not self.is_loose:
            return values[0]
        state = hashlib.sha256()
        for name, value in zip(self.names, values, strict=True):
            state.update(f"{name}\0{value}\n".encode())
        return state.hexdigest()


@dataclass(frozen=True)
class VideoFiles:
    """A video and its files."""

    video_id: str  # its id
    source: Path | None  # the video itself; None when it is not there
    artifacts: dict[str, Artifact]  # kind to file, of the files that exist
    is_loose: bool = False  # whether they are loose crops

    def with_source(self) -> dict[str, Artifact]:
        """All files that a record depends on."""
        if self.source is None:
            return self.artifacts
        return {**self.artifacts, SOURCE: Artifact(SOURCE, self.source.parent, (self.source.name,))}


@dataclass
class Inventory:
    """Names below ``processed/``."""

    layout: CorpusLayout
    files: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in ENDINGS})
    """Kind to the ids of videos that have that file."""
    plain: dict[str, set[str]] = field(default_factory=lambda: {"pose": set(), "keypoints": set()})
    """pose, keypoints to the ids of videos that have an npy file."""
    loose: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {stream: {} for stream in STREAMS})
    """Stream to video id to what follows the id in the names of its loose crops."""
    others: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in ENDINGS})
    """Kind to the names of all other files in its folder."""

    @property
    def extracted_ids(self) -> set[str]:
        """Videos with a file that only extraction writes."""
        return set().union(*(self.files[kind] for kind in (*STREAMS, "tracks", "metadata")))

    @property
    def loose_ids(self) -> set[str]:
        """Videos of loose crops. Where no video of the corpus was extracted, also those that have arrays alone."""
        extracted = self.extracted_ids
        with_crops = set().union(*self.loose.values()) - extracted
        if extracted or not with_crops:
            return with_crops
        arrays = (*(self.files[kind] for kind in self.plain), *self.plain.values())
        return with_crops.union(*arrays)

    def artifacts(self, video_id: str) -> dict[str, Artifact]:
        """Kind to file, of those that are there, of a video that was extracted."""
        return {
            kind: Artifact(kind, self.layout.processed / kind, (f"{video_id}{ending}",))
            for kind, ending in ENDINGS.items()
            if video_id in self.files[kind]
        }

    def loose_artifacts(self, video_id: str) -> dict[str, Artifact]:
        """Kind to files, of those that are there, of a video of loose crops."""
        found = {}
        for stream in STREAMS:
            if tails := self.loose[stream].get(video_id):
                names = tuple(sorted(f"{video_id}{tail}" for tail in tails))
                found[stream] = Artifact(stream, self.layout.processed / stream, names, is_loose=True)
        for kind, plain in self.plain.items():
            if video_id in self.files[kind] or video_id in plain:
                ending = ENDINGS[kind] if video_id in self.files[kind] else PLAIN
                found[kind] = Artifact(kind, self.layout.processed / kind, (f"{video_id}{ending}",))
        return found


def artifacts_of(layout: CorpusLayout, video_id: str) -> dict[str, Artifact]:
    """As `Inventory.artifacts`, for one video, without listing the folders."""
    found = (Artifact(kind, layout.processed / kind, (f"{video_id}{ending}",)) for kind, ending in ENDINGS.items())
    return {artifact.kind: artifact for artifact in found if artifact.path.is_file()}


def take_inventory(layout: CorpusLayout) -> Inventory:
    """List the folders below ``processed/``; hidden files are passed over."""
    inventory = Inventory(layout)
    for kind, ending in ENDINGS.items():
        folder = layout.processed / kind
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if name.endswith(ending) and entry.is_file():
                    inventory.files[kind].add(name.removesuffix(ending))
                elif kind in inventory.loose and (key := parse_crop_name(name)) is not None:
                    tail = sys.intern(name[len(key[0]) :])  # the same in every video
                    inventory.loose[kind].setdefault(key[0], []).append(tail)
                elif kind in inventory.plain and name.endswith(PLAIN) and entry.is_file():
                    inventory.plain[kind].add(name.removesuffix(PLAIN))
                else:  # also a folder, or a link to nothing
                    inventory.others[kind].append(name)
    return inventory
