"""Whether there is anything to translate into. The workflow asks before it plans a training."""

from __future__ import annotations

from pathlib import Path

from signstreams.corpus.columns import KNOWN_COLUMNS, TEXT_COLUMNS
from signstreams.corpus.table import scan_table


def has_texts(meta: Path) -> bool:
    """Whether a row of meta.csv has a text; False without a table that can be read, of which the contract says why."""
    try:
        table = scan_table(meta, KNOWN_COLUMNS, meta.name)
    except OSError:
        return False
    columns = [column for column in TEXT_COLUMNS if column in table.columns]
    return any(fields[column].strip() for _, fields in table.rows for column in columns)
