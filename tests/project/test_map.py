"""docs/architecture.md, "Map of the files": every file of library, scripts and rules is there once, with one line."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

MAX_LETTERS = 150


def mapped(page: Path) -> list[tuple[str, str]]:
    """(file, what it says of it). A heading names a folder; the text below it is the line of its ``__init__.py``."""
    section = page.read_text(encoding="utf-8").partition("\n## Map of the files\n")[2].partition("\n## ")[0]
    found = []
    for part in section.split("\n### ")[1:]:
        heading, _, body = part.partition("\n")
        folder = heading.strip("` ")
        about = next((line for line in body.splitlines() if line.strip()), "")
        if not about.startswith("- "):
            found.append((f"{folder}__init__.py", about))
        found += [(folder + name, text) for name, text in re.findall(r"^- `([^`]+)`: (.+)$", body, re.MULTILINE)]
    return found


def suggestion(path: Path) -> str:
    """The first sentence of a file, to be shortened."""
    text = path.read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.split('"""')[1]) or "?"
    return first.partition("\n")[0]


def test_the_map_names_every_file_once_with_one_line(project: Path) -> None:
    files = [*(project / "src").rglob("*.py"), *(project / "scripts").glob("*.py")]
    files += (project / "workflow" / "rules").glob("*.smk")
    there = {path.relative_to(project).as_posix(): path for path in files}
    entries = mapped(project / "docs" / "architecture.md")
    names = Counter(name for name, _ in entries)
    missing = [f"- `{name}`: {suggestion(path)}" for name, path in sorted(there.items()) if name not in names]
    assert not missing, "not in the map:\n" + "\n".join(missing)
    assert sorted(names.keys() - there.keys()) == [], "in the map, but no such file"
    assert [name for name, count in names.items() if count > 1] == [], "more than once in the map"
    assert [name for name, text in entries if not text.strip() or len(text) > MAX_LETTERS] == []
