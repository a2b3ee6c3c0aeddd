"""Links between pages lead to files and headings that exist, and the code names pages that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import PAGES, PROJECT

ALL_PAGES = sorted({*PAGES, *PROJECT.glob("*.md")})
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")


def without_code(text: str) -> str:
    """The text without fenced blocks and code spans, in which brackets are no links."""
    text = re.sub(r"(?ms)^ *```.*?^ *```\s*$", "", text)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings: equal ones are numbered from the second on."""
    found: set[str] = set()
    counts: dict[str, int] = {}
    for heading in re.findall(r"(?m)^#{1,6} +(.*?)[ #]*$", re.sub(r"(?ms)^ *```.*?^ *```\s*$", "", text)):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = counts.get(slug, 0)
        counts[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken_links(page: Path) -> list[str]:
    """Links of a page to a file or heading that does not exist."""
    broken = []
    for match in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):  # https:, mailto:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        leads = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        if not leads:
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Use `a.b` (twice)\n\n## Again\n\n## Again\n\n"
        "[1](#use-ab-twice) [2](#again-1) [3](page.md#again) `[4](no.md)` [5](https://example.org/no#no)\n"
        '[6](no.md) [7](#again-2) ![8](no.png) <img src="no.jpg">\n',
        encoding="utf-8",
    )
    assert broken_links(page) == ["no.md", "#again-2", "no.png", "no.jpg"]


def test_pages_that_code_and_config_name_exist() -> None:
    folders = ("src", "scripts", "workflow", "config", "benchmarks")
    files = [path for folder in folders for path in (PROJECT / folder).rglob("*") if path.suffix != ".pyc"]
    named = {
        (name, path.relative_to(PROJECT))
        for path in files
        if path.suffix in (".py", ".smk", ".toml", ".yaml", ".yml", ".json")
        for name in re.findall(r"\bdocs/[a-z_./]*\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert not [f"{path}: {name}" for name, path in named if not (PROJECT / name).is_file()]


CREATES = ("CHANGELOG.md", "docs/extending.md", "docs/configuration.md")  # name files of the past, or to be written
FILE = re.compile(r"(?<![\w/.])(?:src|scripts|benchmarks|tests|workflow|config)/[\w/.-]*\.(?:py|smk|toml|ya?ml|json)\b")


def test_files_of_ours_that_pages_name_exist() -> None:
    pages = [page for page in ALL_PAGES if str(page.relative_to(PROJECT)) not in CREATES]
    named = {(name, page.name) for page in pages for name in FILE.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    assert not [f"{page}: {name}" for name, page in named if not (PROJECT / name).is_file()]
