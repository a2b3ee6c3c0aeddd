"""Gloss annotations, and the vocabulary that CTC learns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from signstreams.corpus.findings import Finding, Rule, few, few_ids, raise_errors
from signstreams.corpus.table import ID_COLUMNS, scan_table
from signstreams.files import write_json
from signstreams.ids import by_composition, shown
from signstreams.language import counted

BLANK = "<blank>"  # CTC's blank: always id 0

GLOSS_COLUMNS = ("gloss", "ctc_labels")

GLOSS_HEADER = Rule("gloss.columns", "error", "an id column (clip_id, id or video_id) and 'gloss' or 'ctc_labels'")
GLOSS_UNIQUE = Rule("gloss.unique_id", "error", "each clip once")
GLOSS_KNOWN = Rule("gloss.clip_known", "error", "ids of clips of meta.csv")
GLOSS_LABELS = Rule("gloss.labels", "error", "as many ctc_labels as glosses, each number always for the same gloss")
GLOSS_RULES = (GLOSS_HEADER, GLOSS_UNIQUE, GLOSS_KNOWN, GLOSS_LABELS)


@dataclass(frozen=True)
class Gloss:
    """Annotation of one clip."""

    clip_id: str  # clip it belongs to
    gloss: str  # as written
    labels: tuple[str, ...]
    """Labels that CTC learns, in order: the names in ``ctc_labels``, or the words of ``gloss`` where those are
    absent or numbers."""
    row: int  # row in gloss.csv; the header is row 1


@dataclass
class GlossTable:
    """Clip id to its gloss, in the order of the file, and findings."""

    glosses: dict[str, Gloss] = field(default_factory=dict)
    issues: list[Finding] = field(default_factory=list)


def read_gloss(path: str | Path, clip_ids: Iterable[str] | None = None) -> dict[str, Gloss]:
    """Clip id to its gloss; a `UserError` has all problems. ``clip_ids`` are those that exist; None to accept any."""
    table = scan_gloss(path, clip_ids)
    raise_errors(table.issues)
    return table.glosses


def scan_gloss(path: str | Path, clip_ids: Iterable[str] | None = None, *, name: str | None = None) -> GlossTable:
    """As `read_gloss`; faults of the content are in ``issues`` and raise nothing; only an absent file does."""
    path = Path(path)
    name = name or path.name
    table = scan_table(path, (*ID_COLUMNS, *GLOSS_COLUMNS), name, holds="glosses")
    result = GlossTable(issues=list(table.issues))
    id_column = next((column for column in ID_COLUMNS if column in table.columns), None)
    if id_column is None or not set(GLOSS_COLUMNS) & set(table.columns):
        if table.columns or not table.issues:
            found = f"the columns {few_ids(column[:40] for column in table.columns)}"
            result.issues.append(GLOSS_HEADER.breach(name, found, "rename the columns"))
        return result
    numbered: dict[str, str] = {}
    known = None if clip_ids is None else set(clip_ids)
    as_known = by_composition(known or ())
    for row, fields in table.rows:
        clip_id = fields[id_column].strip()
        clip_id = as_known.get(clip_id, clip_id)
        words = tuple(fields.get("gloss", "").split())
        labels = tuple(fields.get("ctc_labels", "").split())
        if labels and words and all(label.isdecimal() for label in labels):
            result.issues += _number_issues(labels, words, numbered, name, row)
            labels = words
        if clip_id in result.glosses:
            found = f"the id {shown(clip_id)} again, first in row {result.glosses[clip_id].row}"
            result.issues.append(GLOSS_UNIQUE.breach(name, found, "keep one of them", row=row))
            continue
        result.glosses[clip_id] = Gloss(clip_id, fields.get("gloss", ""), labels or words, row)
    if known is not None:
        foreign = [gloss for gloss in result.glosses.values() if gloss.clip_id not in known]
        if foreign:
            examples = few([f"{shown(gloss.clip_id)} (row {gloss.row})" for gloss in foreign])
            found = counted(
                "%(num)s id names no clip: %(ids)s", "%(num)s ids name no clip: %(ids)s", len(foreign), ids=examples
            )
            result.issues.append(GLOSS_KNOWN.breach(name, found, "remove these rows, or correct the ids"))
    return result


def _number_issues(
    labels: tuple[str, ...], words: tuple[str, ...], numbered: dict[str, str], name: str, row: int
) -> list[Finding]:
    if len(labels) != len(words):
        found = f"{len(labels)} ctc_labels for {len(words)} glosses"
        return [GLOSS_LABELS.breach(name, found, "correct one of them", row=row)]
    issues = []
    for label, word in zip(labels, words, strict=True):
        if numbered.setdefault(label, word) != word:
            found = f"the number {label} for {shown(word)}, elsewhere for {shown(numbered[label])}"
            issues.append(GLOSS_LABELS.breach(name, found, "give each gloss one number", row=row))
    return issues


@dataclass(frozen=True)
class GlossVocabulary:
    """Glosses and their CTC ids: the blank is 0, the glosses follow in sorted order."""

    names: tuple[str, ...]  # gloss of every id; the first is `BLANK`

    def __post_init__(self) -> None:
        if self.names[:1] != (BLANK,) or len(set(self.names)) != len(self.names):
            raise ValueError(f"a gloss vocabulary starts with '{BLANK}' and holds each gloss once")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Gloss to its id."""
        return {name: number for number, name in enumerate(self.names)}

    @classmethod
    def build(cls, glosses: Mapping[str, Gloss], train_ids: Iterable[str]) -> GlossVocabulary:
        """Vocabulary of the train split; the same clips in any order give the same."""
        names = {label for clip_id in train_ids if clip_id in glosses for label in glosses[clip_id].labels}
        return cls((BLANK, *sorted(names - {BLANK})))

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, {"glosses": list(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, labels: Iterable[str]) -> list[int]:
        """Ids of the known ``labels``, in order; `unknown` gives the others."""
        return [self.ids[label] for label in labels if label in self.ids]

    def unknown(self, labels: Iterable[str]) -> list[str]:
        """The ``labels`` without an id, in order."""
        return [label for label in labels if label not in self.ids]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Glosses of ``ids``, without the blank."""
        return [self.names[number] for number in ids if number != 0]


def ctc_steps_needed(labels: Sequence[object]) -> int:
    """Shortest input that CTC can align with ``labels``: one step each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))
