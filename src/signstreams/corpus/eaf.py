"""Read ELAN's annotation files (.eaf): tiers with their annotations in time, and the linked media.

By lxml, and not by pympi-ling, for what the files of others need: the line of each annotation for messages, tiers and
ids that occur twice seen rather than merged, and neither entities nor network. Format: EAF 2.7 to 3.0, "ELAN Annotation
Format" of the Max Planck Institute for Psycholinguistics.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from signstreams.corpus.findings import Finding, Rule, few, few_ids
from signstreams.ids import shown

WHOLE = Rule("elan.file", "warning", "an annotation file of ELAN")
TIER_TWINS = Rule("elan.tier_once", "warning", "each tier once")
SLOT = Rule("elan.times", "warning", "annotations with a start and an end in the file")
UNITS_S = {"milliseconds": 0.001, "PAL-frames": 0.04, "NTSC-frames": 1001 / 30000}
"""Values of TIME_UNITS; ELAN itself writes milliseconds."""

ELAN_RULES = (WHOLE, TIER_TWINS, SLOT)


@dataclass(frozen=True)
class Annotation:
    """One annotation; a dependent one has the times of the one that it belongs to."""

    annotation_id: str
    start_s: float  # of the annotation file; see `Media.origin_s`
    end_s: float
    value: str  # as written
    line: int  # of the file, from 1


@dataclass
class Tier:
    """One tier."""

    name: str
    kind: str  # its linguistic type
    participant: str  # who is annotated; empty when the file does not say
    annotations: list[Annotation] = field(default_factory=list)  # in order of time


@dataclass(frozen=True)
class Media:
    """A linked media file."""

    stem: str  # its name without folder and ending
    name: str  # its name
    origin_s: float  # time in the media at which the annotations' time is 0


@dataclass
class Eaf:
    """Content of a file, and findings."""

    tiers: list[Tier] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    issues: list[Finding] = field(default_factory=list)


def read_eaf(path: Path, name: str) -> Eaf:
    """Read an annotation file; faults of its content are findings with ``name`` as their file.

    Raises:
        OSError: It cannot be read.
    """
    from lxml import etree

    eaf = Eaf()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(path.read_bytes(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        eaf.issues.append(WHOLE.breach(name, f"damaged XML: {error}"[:200], "open and save it in ELAN"))
        return eaf
    if root.tag != "ANNOTATION_DOCUMENT":
        eaf.issues.append(WHOLE.breach(name, f"an XML file of {shown(str(root.tag)[:60])}", "leave it out"))
        return eaf
    header = root.find("HEADER")
    unit = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if unit not in UNITS_S:
        eaf.issues.append(WHOLE.breach(name, f"times in {shown(unit[:40])}", "save it in ELAN, in milliseconds"))
        return eaf
    eaf.media = [_media(element) for element in root.iterfind("HEADER/MEDIA_DESCRIPTOR")]
    slots = {
        slot.get("TIME_SLOT_ID"): _seconds(slot.get("TIME_VALUE"), UNITS_S[unit])
        for slot in root.iterfind("TIME_ORDER/TIME_SLOT")
    }
    _read_tiers(root, slots, name, eaf)
    return eaf


def _seconds(value: str | None, unit_s: float) -> float | None:
    return round(int(value) * unit_s, 3) if value and re.fullmatch(r"-?\d{1,12}", value) else None


def _media(element: Any) -> Media:
    url = unquote(element.get("MEDIA_URL") or element.get("RELATIVE_MEDIA_URL") or "")
    file = re.split(r"[/\\]", url)[-1]
    return Media(file.rpartition(".")[0] or file, file, _seconds(element.get("TIME_ORIGIN"), 0.001) or 0.0)


def _read_tiers(root: Any, slots: dict[str, float | None], name: str, eaf: Eaf) -> None:
    elements = list(root.iterfind("TIER"))
    counts = Counter(element.get("TIER_ID", "") for element in elements)
    if twins := [tier for tier, count in counts.items() if count > 1]:
        eaf.issues.append(TIER_TWINS.breach(name, f"the tiers {few_ids(twins)} more than once", "rename one in ELAN"))
    times: dict[str, tuple[float, float] | None] = {}  # of each annotation
    parents: dict[str, str] = {}
    for element in root.iterfind("TIER/ANNOTATION/*"):
        annotation_id = element.get("ANNOTATION_ID", "")
        if element.tag == "ALIGNABLE_ANNOTATION":
            start, end = (slots.get(element.get(f"TIME_SLOT_REF{place}", "")) for place in (1, 2))
            times[annotation_id] = None if start is None or end is None else (start, end)
        elif element.tag == "REF_ANNOTATION":
            parents[annotation_id] = element.get("ANNOTATION_REF", "")
    for element in elements:
        tier = Tier(
            element.get("TIER_ID", ""), element.get("LINGUISTIC_TYPE_REF", ""), element.get("PARTICIPANT", "").strip()
        )
        untimed = []
        for found in element.iterfind("ANNOTATION/*"):
            annotation_id = found.get("ANNOTATION_ID", "")
            span = _times_of(annotation_id, times, parents)
            if span is None:
                untimed.append(found.sourceline)
                continue
            value = found.findtext("ANNOTATION_VALUE") or ""
            tier.annotations.append(Annotation(annotation_id, *span, value, found.sourceline))
        if untimed:
            what = f"tier {shown(tier.name)}: {len(untimed):,} annotations without times, in the lines {few(untimed)}"
            eaf.issues.append(SLOT.breach(name, what, "align them in ELAN; they are left out"))
        tier.annotations.sort(key=lambda annotation: (annotation.start_s, annotation.end_s))
        eaf.tiers.append(tier)


def _times_of(
    annotation_id: str, times: dict[str, tuple[float, float] | None], parents: dict[str, str]
) -> tuple[float, float] | None:
    """Times of an annotation, or of the one that it depends on, over any number of tiers."""
    for _ in range(len(parents) + 1):  # a damaged file may refer in a circle
        if annotation_id not in parents:
            return times.get(annotation_id)
        annotation_id = parents[annotation_id]
    return None
