"""docs/map.md: every file says first what it is for, in one sentence that is short enough for a line of the map.

That the page is in step is checked with the other generated files (tests/base/test_generated.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import pytest

MAX_LETTERS = 150
UNMAPPED = ("docs/", "tests/", "workflow/report/")  # pages and their pictures, tests, texts of Snakemake's report
SOURCES = (".py", ".smk", ".yaml", ".yml", ".toml", ".html", ".css", ".js")


def test_every_file_says_in_a_sentence_what_it_is_for(project: Path, export_generated: ModuleType) -> None:
    files = export_generated.mapped_files(project)
    about = {path.relative_to(project).as_posix(): text for path, text in files.items()}
    assert len(about) > 200
    assert [name for name, text in about.items() if not text] == [], "begin with a docstring or comment"
    long = {name: text for name, text in about.items() if len(text) > MAX_LETTERS}
    assert not long, f"more than {MAX_LETTERS} letters before the first full stop"


def test_the_map_has_every_source_file(project: Path, export_generated: ModuleType) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=project, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    sources = {
        name
        for name in listed.stdout.splitlines()
        if name.endswith(SOURCES)
        and "/" in name
        and not name.startswith((*UNMAPPED, "."))
        and (project / name).is_file()
    }
    mapped = {path.relative_to(project).as_posix() for path in export_generated.mapped_files(project)}
    assert mapped - {"Snakefile", "workflow/Snakefile"} == sources
    (page,) = export_generated.file_map(project).values()
    packages = {name for name in mapped if name.endswith("/__init__.py")}
    assert page.count("\n- `") == len(mapped - packages)
    assert all(f"\n## `{Path(name).parent}/`\n" in page for name in packages)


@pytest.mark.parametrize(
    ("name", "text", "about"),
    [
        ("a.py", '"""One thing\nin two lines. And more.\n\nDetails.\n"""\n', "One thing in two lines."),
        ("a.smk", '"""Crops (Zhou et al. 2022).\n\n    more\n"""\n', "Crops (Zhou et al. 2022)."),
        ("a.toml", "# Face crops. What is open\n# stays so.\nseed = 1  # no\n", "Face crops."),
        ("a.html", '{% extends "base.html" %}\n{# One page. #}\n', "One page."),
        ("a.js", '"use strict";\n// A list\n// that is sorted.\nlet a;  // no\n', "A list that is sorted."),
        ("a.css", "/* Style of\n   all pages. */\n", "Style of all pages."),
        ("b.py", "x = 1  # one\n", ""),
        ("b.toml", "seed = 1\n# later\n", ""),
    ],
)
def test_the_first_sentence_of_a_file(
    name: str, text: str, about: str, tmp_path: Path, export_generated: ModuleType
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert export_generated.first_sentence(path) == about
