"""ELAN files (.eaf): tiers of annotations with times, read and written in EAF 3.0.

Format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf. Times are of the annotations' own clock;
``origin_s`` of a medium says where its clock is when that of the annotations is 0.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from signstreams.files import write_bytes
from signstreams.formats.subtitles import NO_LENGTH, UNREADABLE_TIMES, Cue, Fault
from signstreams.ids import composed, shown

ELAN_SUFFIX = ".eaf"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_MIME = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"}
_UNITS_MS = {"milliseconds": 1.0, "PAL-frames": 40.0, "NTSC-frames": 1001 / 30}
"""Values of TIME_UNITS that are read; ELAN itself writes milliseconds."""
_UTTERANCE, _INCLUDED = "utterance", "gloss"  # linguistic types of what is written
BROKEN_REFERENCE, TIER_TWICE, ID_TWICE = "broken reference", "tier twice", "id twice"


@dataclass(frozen=True)
class Tier:
    """Annotations of one kind."""

    name: str
    annotations: list[Cue]  # in order of time
    type: str = ""  # linguistic type
    participant: str = ""  # who signs
    parent: str | None = None  # tier that its annotations belong to


@dataclass(frozen=True)
class Medium:
    """A file that an ELAN file annotates."""

    url: str  # as written: a file: URL, or a path
    relative_url: str = ""  # relative to the ELAN file; empty without
    origin_s: float = 0.0  # time in it at which the annotations' clock is 0


@dataclass(frozen=True)
class ElanFile:
    """Content of an ELAN file."""

    tiers: dict[str, Tier]  # name to tier, in the order of the file
    media: list[Medium]
    faults: list[Fault] = field(default_factory=list)  # annotations without times or length, broken references

    def video(self, folder: Path) -> Path | None:
        """The first medium that is there, for a file in ``folder``: by relative path, by its own, by its name there."""
        for medium in self.media:
            for place in medium_places(medium, folder):
                if place.is_file():
                    return place
        return None


def medium_places(medium: Medium, folder: Path) -> list[Path]:
    """Where the file of a medium may be, best first."""
    places = []
    for url in filter(None, (medium.relative_url, medium.url)):
        path = Path(unquote(urlparse(url).path if url.startswith("file:") else url).replace("\\", "/"))
        places += [folder / path, folder / path.name]
    return list(dict.fromkeys(places))


# -- Reading


def read_elan(path: Path) -> ElanFile:
    """Read an ELAN file; what is wrong with single annotations becomes a fault, as is a tier that occurs twice.

    By lxml, and not by pympi-ling, for what the files of others need: the line of each annotation for messages, tiers
    and ids that occur twice seen rather than merged unseen, and neither entities nor network.

    Slots without a time lie evenly between those with one, and so do the parts of a subdivided annotation, as ELAN
    shows them. Annotations of tiers that refer to others have the times of these.

    Raises:
        ValueError: It is not an ELAN file; the message says why.
        OSError: It cannot be read.
    """
    root = _parse(path.read_bytes())
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"is not an ELAN file: its root is {shown(root.tag)}, expected ANNOTATION_DOCUMENT")
    units = root.findall("HEADER")[0].get("TIME_UNITS", "milliseconds") if root.findall("HEADER") else "milliseconds"
    if units not in _UNITS_MS:
        raise ValueError(f"its times are in {shown(units[:40])}, expected {' or '.join(_UNITS_MS)}")
    faults: list[Fault] = []
    slots = _slots(root, _UNITS_MS[units], faults)
    media = [
        Medium(
            node.get("MEDIA_URL", ""),
            node.get("RELATIVE_MEDIA_URL", ""),
            (_integer(node.get("TIME_ORIGIN")) or 0) / 1000,
        )
        for node in root.iterfind("HEADER/MEDIA_DESCRIPTOR")
    ]
    _part_twins(root, faults)
    spans = _spans(root, slots, faults)
    tiers: dict[str, Tier] = {}
    for node in root.iterfind("TIER"):
        name = node.get("TIER_ID", "")
        cues = []
        for annotation in node.iterfind("ANNOTATION/*"):
            own = annotation.get("ANNOTATION_ID", "")
            if own not in spans:
                continue  # a fault already
            start_ms, end_ms = spans[own]
            place = f"tier {shown(name)}, annotation {shown(own)}"
            if end_ms <= start_ms:
                found = f"{start_ms / 1000:g} to {end_ms / 1000:g} s"
                faults.append(Fault(NO_LENGTH, place, found, annotation.sourceline))
                continue
            text = composed(" ".join((annotation.findtext("ANNOTATION_VALUE") or "").split()))
            cues.append(Cue(start_ms / 1000, end_ms / 1000, text, annotation.sourceline))
        if name in tiers:
            text = "occurs twice; its annotations are read as of one tier"
            faults.append(Fault(TIER_TWICE, f"tier {shown(name)}", text, node.sourceline))
            cues += tiers[name].annotations
        tiers[name] = Tier(
            name,
            sorted(cues, key=lambda cue: (cue.start_s, cue.end_s)),
            node.get("LINGUISTIC_TYPE_REF", ""),
            composed(node.get("PARTICIPANT", "").strip()),
            node.get("PARENT_REF"),
        )
    return ElanFile(tiers, media, faults)


def _parse(data: bytes) -> Any:
    """The root of an XML document; one that declares entities is refused: these may grow without end."""
    from lxml import etree

    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ValueError(f"is not XML ({str(error)[:200]})") from None
    if root.getroottree().docinfo.doctype:
        raise ValueError("declares a DOCTYPE, which no ELAN file has; it is not read")
    return root


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _part_twins(root: Any, faults: list[Fault]) -> None:
    """Give an annotation whose id is another one's, as in files that were merged by hand, an id of its own.

    Else it would have the other's times. What refers to the id belongs to the first of them.
    """
    seen: set[str] = set()
    for node in root.iterfind("TIER/ANNOTATION/*"):
        own = node.get("ANNOTATION_ID", "")
        if own in seen:
            place = f"tier {shown(node.getparent().getparent().get('TIER_ID', ''))}, annotation {shown(own)}"
            text = "has the id of another one; what refers to it belongs to the first"
            faults.append(Fault(ID_TWICE, place, text, node.sourceline))
            own = f"{own} in line {node.sourceline}, {len(seen)}"
            node.set("ANNOTATION_ID", own)
        seen.add(own)


def _slots(root: Any, unit_ms: float, faults: list[Fault]) -> dict[str, float]:
    """Slot to its time in ms; one without a time lies between its neighbours in the file, evenly among its like."""
    ids, times = [], []
    for node in root.iterfind("TIME_ORDER/TIME_SLOT"):
        name, value = node.get("TIME_SLOT_ID", ""), node.get("TIME_VALUE")
        time_ms = _integer(value)
        if value is not None and (time_ms is None or time_ms < 0):
            faults.append(Fault(UNREADABLE_TIMES, f"time slot {shown(name)}", shown(value), node.sourceline))
            time_ms = None
        ids.append(name)
        times.append(time_ms)
    known = [place for place, time_ms in enumerate(times) if time_ms is not None]
    slots: dict[str, float] = {ids[place]: unit_ms * (times[place] or 0) for place in known}
    moments: dict[str, set[int | None]] = {}
    for name, time_ms in zip(ids, times, strict=True):
        moments.setdefault(name, set()).add(time_ms)
    for before, after in pairwise(known):
        first, last = slots[ids[before]], slots[ids[after]]
        for place in range(before + 1, after):
            slots[ids[place]] = first + (last - first) * (place - before) / (after - before)
    for name in [name for name, found in moments.items() if len(found) > 1]:
        faults.append(Fault(ID_TWICE, f"time slot {shown(name)}", "occurs with several times, of which none is used"))
        slots.pop(name, None)
    return slots


def _spans(root: Any, slots: dict[str, float], faults: list[Fault]) -> dict[str, tuple[float, float]]:
    """Annotation to its start and end in ms, over all tiers."""
    spans: dict[str, tuple[float, float]] = {}
    refers: dict[str, tuple[str, str, Any]] = {}  # annotation to tier, the one it refers to, and itself
    for tier in root.iterfind("TIER"):
        for node in tier.iterfind("ANNOTATION/*"):
            own, place = node.get("ANNOTATION_ID", ""), f"tier {shown(tier.get('TIER_ID', ''))}"
            if node.tag == "REF_ANNOTATION":
                refers[own] = (tier.get("TIER_ID", ""), node.get("ANNOTATION_REF", ""), node)
                continue
            ends = [slots.get(node.get(f"TIME_SLOT_REF{number}", "")) for number in (1, 2)]
            if ends[0] is None or ends[1] is None:
                place = f"{place}, annotation {shown(own)}"
                faults.append(Fault(UNREADABLE_TIMES, place, "no times", node.sourceline))
                continue
            spans[own] = (ends[0], ends[1])
    groups: dict[tuple[str, str], list[str]] = {}  # tier and annotation to those that refer to it
    for own, (tier_name, target, _) in refers.items():
        groups.setdefault((tier_name, target), []).append(own)
    waiting = dict(groups)
    while ready := [key for key in waiting if key[1] in spans]:
        for key in ready:
            members = _chained(waiting.pop(key), refers)
            start_ms, end_ms = spans[key[1]]
            step = (end_ms - start_ms) / len(members)
            for number, own in enumerate(members):
                spans[own] = (start_ms + number * step, start_ms + (number + 1) * step)
    for (tier_name, target), members in waiting.items():
        place = f"tier {shown(tier_name)}"
        text = f"refers to {shown(target)}, which has no times"
        faults += [
            Fault(BROKEN_REFERENCE, f"{place}, annotation {shown(own)}", text, refers[own][2].sourceline)
            for own in members
        ]
    return spans


def _chained(members: list[str], refers: dict[str, tuple[str, str, Any]]) -> list[str]:
    """Parts of one annotation in their order: each names the one before it."""
    after = {refers[own][2].get("PREVIOUS_ANNOTATION"): own for own in members}
    chain: list[str] = []
    own = after.get(None)
    while own is not None and own not in chain:
        chain.append(own)
        own = after.get(own)
    return chain if len(chain) == len(members) else members


# -- Writing


def write_elan(path: Path, tiers: Sequence[Tier], video: Path | None = None) -> None:
    """Write tiers as an ELAN file, whole or not at all; annotations have times of their own, to the millisecond.

    A tier with a ``parent`` must lie within the annotations of that tier, as ELAN demands of an included one.
    ``video`` is linked by its full path and by that from the folder of ``path``.

    Raises:
        ValueError: An annotation has no length in ms, overlaps the next one of its tier, or is outside its parent's.
    """
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "signstreams",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": _XSI,
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = ET.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if video is not None:
        ET.SubElement(header, "MEDIA_DESCRIPTOR", _media_attributes(path, video))
    times_ms = {_ms(time_s) for tier in tiers for cue in tier.annotations for time_s in (cue.start_s, cue.end_s)}
    slot = {time_ms: f"ts{number}" for number, time_ms in enumerate(sorted(times_ms), start=1)}
    last_id = ET.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
    order = ET.SubElement(root, "TIME_ORDER")
    for time_ms, name in slot.items():
        ET.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": name, "TIME_VALUE": str(time_ms)})
    by_name = {tier.name: tier for tier in tiers}
    number = 0
    for tier in tiers:
        _check_tier(tier, by_name)
        attributes = {"LINGUISTIC_TYPE_REF": _INCLUDED if tier.parent else _UTTERANCE, "TIER_ID": tier.name}
        attributes |= {"PARENT_REF": tier.parent} if tier.parent else {}
        attributes |= {"PARTICIPANT": tier.participant} if tier.participant else {}
        node = ET.SubElement(root, "TIER", attributes)
        for cue in tier.annotations:
            number += 1
            annotation = ET.SubElement(ET.SubElement(node, "ANNOTATION"), "ALIGNABLE_ANNOTATION")
            annotation.set("ANNOTATION_ID", f"a{number}")
            annotation.set("TIME_SLOT_REF1", slot[_ms(cue.start_s)])
            annotation.set("TIME_SLOT_REF2", slot[_ms(cue.end_s)])
            ET.SubElement(annotation, "ANNOTATION_VALUE").text = _writable(cue.text)
    last_id.text = str(number)
    kinds = {"GRAPHIC_REFERENCES": "false", "TIME_ALIGNABLE": "true"}
    ET.SubElement(root, "LINGUISTIC_TYPE", {**kinds, "LINGUISTIC_TYPE_ID": _UTTERANCE})
    if any(tier.parent for tier in tiers):
        included = {"CONSTRAINTS": "Included_In", "LINGUISTIC_TYPE_ID": _INCLUDED}
        ET.SubElement(root, "LINGUISTIC_TYPE", {**kinds, **included})
    for stereotype, text in _CONSTRAINTS.items():
        ET.SubElement(root, "CONSTRAINT", {"DESCRIPTION": text, "STEREOTYPE": stereotype})
    ET.indent(root, "    ")
    write_bytes(path, ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n")


_CONSTRAINTS = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, no time gaps allowed within this"
    " interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. Annotations refering to the same parent are"
    " ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, gaps are allowed",
}
"""Constraints that ELAN writes into every file, in its words."""


def _media_attributes(path: Path, video: Path) -> dict[str, str]:
    relative = os.path.relpath(video.resolve(), path.resolve().parent)
    return {
        "MEDIA_URL": video.resolve().as_uri(),
        "MIME_TYPE": _MIME.get(video.suffix.lower(), "unknown"),
        "RELATIVE_MEDIA_URL": quote(relative if relative.startswith("..") else f"./{relative}"),
    }


def _check_tier(tier: Tier, by_name: dict[str, Tier]) -> None:
    spans = [(_ms(cue.start_s), _ms(cue.end_s)) for cue in tier.annotations]
    for number, (start_ms, end_ms) in enumerate(spans, start=1):
        if end_ms <= start_ms:
            raise ValueError(f"tier {shown(tier.name)}: annotation {number} has no length ({start_ms} to {end_ms} ms)")
    for number, (one, other) in enumerate(pairwise(spans), start=1):
        if other[0] < one[1]:
            raise ValueError(f"tier {shown(tier.name)}: annotations {number} and {number + 1} overlap")
    if tier.parent is not None:
        above = [(_ms(cue.start_s), _ms(cue.end_s)) for cue in by_name[tier.parent].annotations]
        for number, (start_ms, end_ms) in enumerate(spans, start=1):
            if not any(first <= start_ms and end_ms <= last for first, last in above):
                raise ValueError(f"tier {shown(tier.name)}: annotation {number} is within none of {shown(tier.parent)}")


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _writable(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(char for char in text if char in "\t\n" or (char >= " " and char not in "\ufffe\uffff"))
