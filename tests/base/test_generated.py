"""Generated files are in step; docs/configuration.md has every key of every command in a table of Markdown."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import Field

from signstreams.cli import flag_names, parse, takes
from signstreams.commands import COMMANDS
from signstreams.config.load import leaves
from signstreams.config.section import Flag, Section

PROJECT = Path(__file__).parents[2]


def load_script() -> ModuleType:
    """scripts/export_generated.py, which is no part of the library."""
    spec = importlib.util.spec_from_file_location("export_generated", PROJECT / "scripts" / "export_generated.py")
    assert spec is not None and spec.loader is not None
    script = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script


export = load_script()
CHAPTERS, Chapter = export.CHAPTERS, export.Chapter
configuration, configuration_page, environment = export.configuration, export.configuration_page, export.environment
contract_rules, file_map, key_table, schemas = export.contract_rules, export.file_map, export.key_table, export.schemas
TITLES = [chapter.title for chapter in CHAPTERS]
NEEDED = {  # the least that a script must be told
    "layout": ["table"],
    "source": ["data"],
    "videos": ["a.mp4"],
    "runs": ["a"],
    "train_dir": ["face"],
    "stream": ["face"],
    "backbone": ["file::a.pt"],
    "data": ["photos"],
    "crops": ["hand_r"],
    "ground_truth": ["truth"],
    "output": ["a.png"],
    "output_dir": ["out"],
    "root": ["data"],
    "features_dir": ["features"],
}


def split_row(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def chapter_text(chapter: Chapter) -> str:
    return configuration_page().partition(f"\n## {chapter.title}\n")[2].partition("\n## ")[0]


def test_every_command_with_a_config_has_its_chapter() -> None:
    commands = {name for name, command in COMMANDS.items() if command.config}
    assert len(commands) > 10
    assert {chapter.command for chapter in CHAPTERS} == {*commands, ""}


def test_the_environments_of_users_and_of_developers_have_nothing_in_common() -> None:
    of_users, of_developers = (re.findall(r"- ([a-z0-9-]+)==", text) for text in environment().values())
    assert {"snakemake", "torch", "av"} <= set(of_users) and {"pytest", "ruff", "mypy"} <= set(of_developers)
    assert not set(of_users) & set(of_developers)


@pytest.mark.parametrize("render", [configuration, contract_rules, environment, file_map, schemas])
def test_generated_files_are_in_step(render: Callable[[], dict[Path, str]]) -> None:
    for path, text in render().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run scripts/export_generated.py"


def test_a_stale_file_is_named_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    for name in ("environment", "schemas", "configuration", "contract_rules", "file_map"):
        monkeypatch.setattr(export, name, lambda: {path: "new"})

    def run(*words: str) -> int | str | None:
        with pytest.raises(SystemExit) as left:
            export.main(list(words))
        return left.value.code

    path.write_text("old", encoding="utf-8")
    assert run("--check") == 2
    assert capsys.readouterr().err == f"error: {path} is not in step; run scripts/export_generated.py\n"
    assert (run(), path.read_text(), run("--check")) == (0, "new", 0)
    assert (run("--help"), run("--chek")) == (0, 2)
    assert capsys.readouterr().out.count("Run it after a change") == 2


@pytest.mark.parametrize("chapter", CHAPTERS, ids=TITLES)
def test_every_key_has_its_row_with_all_its_flags(chapter: Chapter) -> None:
    rows = {cells[0]: cells for line in chapter_text(chapter).splitlines() if (cells := split_row(line))}
    for key, field in leaves(chapter.model):
        cells = rows[f"`{key}`"]
        if chapter.command:
            assert cells[1].replace("`", "").split() == flag_names(key, field)
        assert len(cells) == 4 + bool(chapter.command), cells
        assert cells[-1], f"{key} says nothing"
        assert (cells[-2] == "**required**") == field.is_required()


def test_the_index_leads_to_every_heading() -> None:
    page = configuration_page()
    headings = re.findall(r"^##+ (.*)$", page.partition("## Index")[2], re.MULTILINE)
    targets = re.findall(r"\]\(#([^)]*)\)", page)
    assert targets == [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(targets)) == len(targets)


def test_what_a_field_takes_is_said_with_its_limits() -> None:
    class Toy(Section):
        count: Annotated[int, Field(ge=1), Flag("--short")] | None = None
        share: float = Field(0.5, ge=0, lt=1)
        both: list[float] = Field([0.0, 1.0], min_length=2, max_length=2)
        choice: bool | Literal["auto"] = "auto"
        paths: list[Path] = []

    fields = Toy.model_fields
    assert takes(fields["count"]) == "whole number, at least 1, or none"
    assert flag_names("count", fields["count"]) == ["--count", "--short"]
    assert takes(fields["share"]) == "number, at least 0, below 1"
    assert takes(fields["both"]) == "list of numbers, 2 of them"
    assert takes(fields["choice"]) == "true or false or `auto`"
    assert takes(fields["paths"]) == "list of paths"


def test_a_text_cannot_break_its_table() -> None:
    class Odd(Section):
        """Odd."""

        key: str = "a|b"
        """Files <video>.npz | x*y*z, in ``code`` <`a*b`>."""

    (row,) = [line for line in key_table("", Odd, has_flags=True) if "`key`" in line]
    assert split_row(row) == [
        "`key`",
        "`--key`",
        "text",
        r"`a\|b`",
        r"Files &lt;video>.npz \| x\*y\*z, in `code` &lt;`a*b`>.",
    ]


@pytest.mark.parametrize("chapter", [chapter for chapter in CHAPTERS if chapter.command], ids=TITLES[1:])
def test_a_printed_config_reads_back_as_a_file(
    chapter: Chapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    required = [name for name, field in chapter.model.model_fields.items() if field.is_required()]
    words = [word for name in required for word in (f"--{name.replace('_', '-')}", *NEEDED[name])]
    if "stream" in required:  # embedding a stream of crops also asks for its backbone
        words += ["--backbone", *NEEDED["backbone"]]
    with pytest.raises(SystemExit) as left:
        parse(chapter.model, [*words, "--print-config"])
    assert left.value.code == 0
    path = tmp_path / "printed.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert parse(chapter.model, ["--config", str(path)]) == parse(chapter.model, words)
