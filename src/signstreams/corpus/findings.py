"""A rule that data must keep, and a finding: one breach of it, with place, found, expected and fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from signstreams.errors import UserError
from signstreams.ids import shown

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

MAX_LINES = 10  # findings of one rule in one file that are printed; a last line counts the rest and names their rows
MAX_ROWS = 100  # rows named in that line


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

    def line(self) -> str:
        """One line: place, found, expected, next step, rule."""
        if self.row is None:
            return f"{self.file}: {self.found}, expected {self.expected}; {self.fix} [{self.rule}]"
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
    """One line per finding; more than `MAX_LINES` of one rule in one file share a last line."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.file, finding.rule), []).append(finding)
    printed: list[str] = []
    for group in groups.values():
        printed += [finding.line() for finding in group[:MAX_LINES]]
        if rest := group[MAX_LINES:]:
            rows = [str(finding.row) for finding in rest if finding.row is not None]
            where = f" (rows {few(rows, MAX_ROWS)})" if rows else ""
            printed.append(f"{rest[0].file}: {len(rest):,} more of the same{where} [{rest[0].rule}]")
    return printed


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
