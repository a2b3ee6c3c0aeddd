"""Which column of a meta.csv means what: aliases, and precedence where several could be the clip's id."""

from __future__ import annotations

from signstreams.corpus.findings import Finding, Rule, few
from signstreams.corpus.table import COLUMNS

ID_COLUMNS = ("clip_id", "id", "video_id")
"""Columns that may hold the clip's id; the first that is there does. What the others then mean: `resolve_columns`."""
TEXT_COLUMNS = ("text", "texto")
OTHER_COLUMNS = ("video", "start", "end", "duration", "fps", "frame_count", "signer", "split", "box")
KNOWN_COLUMNS = (*ID_COLUMNS, *TEXT_COLUMNS, *OTHER_COLUMNS)

ID_COLUMN = Rule("meta.id_column", "error", f"a column with the clip's id: {', '.join(ID_COLUMNS)}")
UNUSED = Rule("meta.unused_column", "info", f"only the columns {', '.join(KNOWN_COLUMNS)}")
COLUMN_RULES = (ID_COLUMN, UNUSED)


def resolve_columns(columns: list[str], name: str) -> tuple[dict[str, str], list[Finding]]:
    """Meaning (``clip_id``, ``video``, ``text``, ``start``, ...) to the column that holds it.

    The clip's id is in ``clip_id``, else ``id``, else ``video_id``. When ``video_id`` is not the clip's id and there is
    no ``video``, it names the video. Without either the clip's own id is the video's.

    Returns:
        The mapping, empty when no column holds an id; and what to tell.
    """
    clip_column = next((column for column in ID_COLUMNS if column in columns), None)
    if clip_column is None:
        found = f"the columns {few([repr(column) for column in columns], 20)}" if columns else "no header"
        return {}, [ID_COLUMN.breach(name, found, "rename the column that holds the ids")]
    used = {"clip_id": clip_column}
    issues = []
    texts = [column for column in TEXT_COLUMNS if column in columns]
    if len(texts) > 1:
        issues.append(COLUMNS.breach(name, f"both {few(texts)} hold the text", "remove one of them"))
    if texts:
        used["text"] = texts[0]
    used |= {column: column for column in OTHER_COLUMNS if column in columns}
    if "video" not in used and clip_column != "video_id" and "video_id" in columns:
        used["video"] = "video_id"
    unused = [column for column in columns if column not in used.values()]
    if unused:
        issues.append(UNUSED.breach(name, f"the columns {few(unused, 20)}, which are not read", "nothing need be done"))
    return used, issues
