"""Records of checks, ``contract/videos/<video>.json``: a video whose files are as they were is not checked again.

A record is believed when it is whole, was made by the same rules and settings, and every file has the size and the time
of change it names, or at least the checksum. Otherwise the video is checked anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from signstreams.contract.inventory import Artifact
from signstreams.contract.records import VideoCheck
from signstreams.contract.rules import CONTRACT_RULES
from signstreams.files import digest
from signstreams.formats.layout import CorpusLayout

REVISION = 1
"""Raised when the check of a video finds something else in the same files: records of earlier checks then lapse."""


@dataclass
class _Record:
    """Content of a record.

    Attributes:
        rules: `rules_digest` it was made by.
        stamps: Kind of file to `Artifact.stamp` as of the check.
        sums: Kind of file to checksum.
        check: What was found; the fix that names the video's place is still to be put in (`EXTRACT_AGAIN`): records
            hold no path of the machine, as the corpus may be copied to another one.
    """

    rules: str
    stamps: dict[str, str]
    sums: dict[str, str]
    check: VideoCheck


_ADAPTER = TypeAdapter(_Record)


@cache
def rules_digest(decode: str) -> str:
    """Digest of all that decides about a video besides its files."""
    rules = sorted((rule.id, rule.severity, rule.expects) for rule in CONTRACT_RULES)
    return digest({"revision": REVISION, "rules": rules, "decode": decode})


def take_stamps(artifacts: Mapping[str, Artifact]) -> dict[str, str] | None:
    """Kind to stamp; None when a file is a link or gone: then no record can vouch for it."""
    stamps = {}
    for kind, artifact in artifacts.items():
        try:
            stamp = artifact.stamp()
        except OSError:
            return None
        if stamp is None:
            return None
        stamps[kind] = stamp
    return stamps


def take_sums(artifacts: Mapping[str, Artifact]) -> tuple[dict[str, str], dict[str, str]]:
    """Kind to checksum of every file that can be read, and to the reason of every other."""
    sums, unreadable = {}, {}
    for kind, artifact in artifacts.items():
        try:
            sums[kind] = artifact.sha256()
        except OSError as error:
            unreadable[kind] = error.strerror or str(error)
    return sums, unreadable


def recall(
    layout: CorpusLayout, video_id: str, artifacts: Mapping[str, Artifact], decode: str, *, may_read: bool
) -> VideoCheck | None:
    """What an earlier check found; None when it must be done again.

    Args:
        layout: Where the record lies.
        video_id: Id of the video.
        artifacts: Kind to file, of those that are there; `SOURCE` is the video.
        decode: Which crops are decoded now.
        may_read: Read files whose time of change differs, to compare their checksums; otherwise they count as changed.
    """
    path = layout.check(video_id)
    record = _read(path)
    if record is None or record.rules != rules_digest(decode) or record.check.video_id != video_id:
        return None
    stamps = take_stamps(artifacts)
    if stamps is None or stamps.keys() != record.stamps.keys():
        return None
    changed = [kind for kind in stamps if stamps[kind] != record.stamps[kind]]
    if changed:
        if not may_read:
            return None
        try:
            if any(artifacts[kind].sha256() != record.sums[kind] for kind in changed):
                return None
        except OSError:
            return None
        _write(path, replace(record, stamps=stamps))
    return record.check


def remember(
    layout: CorpusLayout,
    check: VideoCheck,
    stamps: Mapping[str, str] | None,
    sums: Mapping[str, str],
    decode: str,
) -> None:
    """Write the record of a check; where a file could not be read or is a link, remove it.

    Args:
        layout: Where the record goes.
        check: What was found.
        stamps: Kind to stamp, taken before the check.
        sums: Kind to checksum.
        decode: Which crops were decoded.
    """
    path = layout.check(check.video_id)
    if stamps is None or stamps.keys() != sums.keys():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    _write(path, _Record(rules_digest(decode), dict(stamps), dict(sums), check))


def _write(path: Path, record: _Record) -> None:
    content = _ADAPTER.dump_python(record, mode="json")
    text = json.dumps({"seal": digest(content), "record": content}, ensure_ascii=False, allow_nan=False)
    with contextlib.suppress(OSError):  # only a saving of time; the report is written beside it and says what is amiss
        _put(path, text + "\n")


def _put(path: Path, text: str) -> None:
    """Write aside and rename, without listing the folder for what others left behind: it holds a file of every video.

    Two writers at once may garble the part; the seal tells.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _read(path: Path) -> _Record | None:
    """A record that is whole; the seal tells damage and changes by hand."""
    try:
        content = json.loads(path.read_bytes())
        if content["seal"] != digest(content["record"]):
            return None
        return _ADAPTER.validate_python(content["record"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None
