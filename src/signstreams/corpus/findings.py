"""A rule that data must keep, and a finding: one breach of it, with place, found, expected and fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from signstreams.errors import UserError
from signstreams.ids import shown

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

MAX_LINES = 10  # lines of one rule in one file that are printed; a last line counts the rest and names their rows
MAX_ROWS = 100  # rows named in that line
MAX_ALIKE = 3  # rows with the same fault that have a line each; more share one, which names the first `MAX_LINES`
_VALUES = re.compile(r"'.*?'|\d[\d.,]*")  # names and numbers in what was found: rows with the same fault differ in them


@dataclass(frozen=True)
class Finding:
    """One breach of one rule."""

    file: str
    """Path below the corpus root, with forward slashes; for the videos folder, which may be elsewhere, its path."""
    rule: str  # stable id of the rule, such as ``crops.decodes``
    severity: Severity  # ``error`` fails the contract, ``warning`` and ``info`` do not
    found: str  # what is there
    expected: str  # what should be
    fix: str  # what to do about it
    row: int | None = None  # row of a table; the header is row 1, as in a spreadsheet

    def line(self, others: Sequence[Finding] = ()) -> str:
        """One line: place, found, expected, next step, rule; for it and ``others`` in rows with the same fault."""
        if self.row is None:
            return f"{self.file}: {self.found}, expected {self.expected}; {self.fix} [{self.rule}]"
        if others:
            rows = few([finding.row for finding in (self, *others)], MAX_LINES)
            return (
                f"{self.file}: {1 + len(others):,} rows ({rows}), such as {self.found}, expected {self.expected};"
                f" {self.fix} [{self.rule}]"
            )
        return f"{self.file} row {self.row}: {self.found}, expected {self.expected}; {self.fix} [{self.rule}]"


@dataclass(frozen=True)
class Rule:
    """What must hold, stated once; `breach` makes the finding."""

    id: str  # stable name, ``<subject>.<what>``
    severity: Severity  # default severity of its findings
    expects: str  # completes "expected ..."

    def breach(
        self,
        file: str,
        found: str,
        fix: str,
        *,
        row: int | None = None,
        expects: str | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule in ``file``."""
        return Finding(file, self.id, severity or self.severity, found, expects or self.expects, fix, row)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that fail the contract."""
    return [finding for finding in findings if finding.severity == "error"]


def lines(findings: Sequence[Finding]) -> list[str]:
    """A line per finding, or for rows with the same fault; of more than `MAX_LINES` of a rule in a file a last one."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.file, finding.rule), []).append(finding)
    printed: list[str] = []
    for group in groups.values():
        told = _by_fault(group)
        printed += [first.line(others) for first, *others in told[:MAX_LINES]]
        if rest := [finding for alike in told[MAX_LINES:] for finding in alike]:
            rows = [str(finding.row) for finding in rest if finding.row is not None]
            where = f" (rows {few(rows, MAX_ROWS)})" if rows else ""
            printed.append(f"{rest[0].file}: {len(rest):,} more of the same{where} [{rest[0].rule}]")
    return printed


def _by_fault(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one rule and file: together those of more than `MAX_ALIKE` rows with the same fault, else alone."""
    faults: dict[tuple[str, ...], list[Finding]] = {}
    keys = [(_VALUES.sub("", finding.found), finding.expected, finding.fix) for finding in findings]
    for key, finding in zip(keys, findings, strict=True):
        if finding.row is not None:
            faults.setdefault(key, []).append(finding)
    told = []
    for key, finding in zip(keys, findings, strict=True):
        alike = faults.get(key, [])
        if len(alike) <= MAX_ALIKE or finding.row is None:
            told.append([finding])
        elif alike[0] is finding:
            told.append(alike)
    return told


def raise_errors(findings: Iterable[Finding]) -> None:
    """Do nothing when no finding is an error.

    Raises:
        UserError: With all errors at once.
    """
    if failed := errors(findings):
        raise UserError(lines(failed))


def few(items: Sequence[object], limit: int = 5) -> str:
    """``"a, b, c and 7 more"``."""
    text = ", ".join(map(str, items[:limit]))
    return f"{text} and {len(items) - limit:,} more" if len(items) > limit else text


def few_ids(ids: Iterable[str]) -> str:
    """``"'a', 'b', 'c', 'd', 'e' and 7 more"``: ids or names from files, quoted and with control characters escaped."""
    return few([shown(text) for text in ids])
