"""Model cards as the Hugging Face hub reads them: YAML front matter, and what others may do with the weights.

Fields and identifiers: https://huggingface.co/docs/hub/model-cards and .../docs/hub/repositories-licenses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import yaml

from signstreams.engine.settings import CardConfig

LIBRARY = "signstreams"
NONE_GIVEN = "none-given"  # name of a licence that is none
_IDENTIFIERS = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl
lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql
unlicense wtfpl zlib
"""
HUB_LICENSES = frozenset(_IDENTIFIERS.split())
"""Identifiers that the hub knows and that are nobody's own model licence; any other name goes with ``other``."""

_TITLE = "## Licence and consent"
_SECTION = re.compile(rf"^{_TITLE}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n+", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"https?://\S+")


def one_line(value: Any) -> str:
    """Text on one line, without markup and without the end of a table cell."""
    return escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


# -- The card as a whole


def write_card(data: Mapping[str, Any], body: str, about: CardConfig) -> str:
    """Front matter and body, with the section about licences and consent in its place, or at the end.

    Args:
        data: Front matter: `backbone_data`, or what a card of before had.
        body: Markdown.
        about: What the owner of the weights says.
    """
    tree: dict[str, Any] = dict(_license(about.weights_license))
    tree |= {key: value for key, value in data.items() if key not in ("license", "license_name", "license_link")}
    tree |= {key: value for key, value in (("language", about.languages), ("datasets", about.datasets)) if value}
    lines = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    section = _terms(about)
    body, found = _SECTION.subn(lambda _: section + "\n", body, count=1)
    if not found:
        body = f"{body.rstrip()}\n\n{section}"
    return f"---\n{lines}---\n\n{body.rstrip()}\n"


def read_card(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card; no front matter where it has none that can be read."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, text
    return (data, text[found.end() :]) if isinstance(data, dict) else ({}, text)


# -- Its parts


def backbone_data(stream: str, tags: Iterable[str] = ()) -> dict[str, Any]:
    """Front matter of the card of a stream's backbone, as far as it needs no owner."""
    own = ["sign-language", "self-supervised", "vision-transformer", stream]
    return {
        "library_name": LIBRARY,
        "pipeline_tag": "image-feature-extraction",
        "tags": list(dict.fromkeys([LIBRARY, *own, *tags])),
    }


@dataclass(frozen=True)
class Result:
    """Figures of one model on one split, as an entry of ``model-index``."""

    task: str  # identifier of the hub
    task_name: str
    dataset_name: str
    split: str
    metrics: Sequence[tuple[str, str, float]]  # identifier of the hub, name, value


def model_index(name: str, results: Sequence[Result], dataset: str) -> dict[str, Any]:
    """``metrics`` and ``model-index`` of the front matter; empty without a figure.

    Args:
        name: The model's.
        results: What was measured.
        dataset: Identifier of the data set.
    """
    shown = [
        {
            "task": {"type": one.task, "name": one.task_name},
            "dataset": {"type": dataset, "name": one.dataset_name, "split": one.split},
            "metrics": [{"type": kind, "name": title, "value": value} for kind, title, value in one.metrics],
        }
        for one in results
        if one.metrics
    ]
    if not shown:
        return {}
    kinds = dict.fromkeys(kind for one in results for kind, _, _ in one.metrics)
    return {"metrics": list(kinds), "model-index": [{"name": name, "results": shown}]}


def _license(given: str | None) -> dict[str, str]:
    """``license`` of the hub, or ``other`` with a name and, where there is one, an address."""
    if given is None:
        return {"license": "other", "license_name": NONE_GIVEN}
    link = _LINK.search(given)
    words = re.findall(r"[a-z0-9.+]+", _LINK.sub(" ", given).lower())
    name = "-".join(words).strip(".-")
    if name in HUB_LICENSES:
        return {"license": name}
    fields = {"license": "other", "license_name": name or "custom"}
    return fields | ({"license_link": link[0].rstrip(".,;)>")} if link else {})


def _terms(about: CardConfig) -> str:
    weights = "**none was given.** Without one, nobody but their owner may use, change or pass on these files"
    footage = "none was given for the videos that the weights were trained on"
    consent = "nothing was noted; ask them, or whoever recorded them, before you use or publish the weights"
    given = [None if text is None else one_line(text).rstrip(".") for text in _texts(about)]
    lines = [
        f"- Licence of the weights: {given[0] or weights}.",
        f"- Licence of the footage: {given[1] or footage}.",
        f"- What the people in the footage agreed to: {given[2] or consent}.",
        "- Weights may reveal something of the people they were trained on.",
        "- The licence of signstreams itself, Apache 2.0, is that of the program; it says nothing about the weights.",
    ]
    return "\n".join([_TITLE, "", *lines]) + "\n"


def _texts(about: CardConfig) -> tuple[str | None, str | None, str | None]:
    return about.weights_license, about.footage_license, about.consent_note
