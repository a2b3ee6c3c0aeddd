"""Commands on the pages are accepted by their programs; test_newcomer.py runs those of README and tutorial."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .pages import OTHERS, PAGES, PROJECT, RUN, TRANSLATED, Command, command_blocks, fences, inline_commands

# Least number of commands in blocks of these pages; a change of form that hides them would leave them untested.
AT_LEAST = {
    "README.md": 14,
    "docs/tutorial.md": 17,
    "docs/cluster.md": 2,
    "docs/corpora.md": 20,
    "docs/data_contract.md": 1,
    "docs/demo_corpus.md": 4,
    "docs/extraction.md": 8,
    "docs/integration.md": 3,
    "docs/pretraining.md": 4,
}


@functools.cache
def commands() -> tuple[Command, ...]:
    """Commands of all pages but the translated ones, which have the same."""
    spanish = {name for _, name in TRANSLATED}
    pages = [page for page in PAGES if str(page.relative_to(PROJECT)) not in spanish]
    return tuple(command for page in pages for command in (*command_blocks(page)[0], *inline_commands(page)))


def complete(test: Callable[[Command], bool]) -> list[Command]:
    """Commands that can be typed as they are, each once, without those that test_newcomer.py runs."""
    run = {command.bare for page in RUN for command in command_blocks(PROJECT / page)[0]}
    wanted = {command.bare: command for command in reversed(commands()) if not command.is_synopsis and test(command)}
    return [command for bare, command in reversed(wanted.items()) if bare not in run]


def test_every_block_is_known_and_every_command_in_one_has_its_check() -> None:
    for page in PAGES:
        found, unknown = command_blocks(page)
        assert not unknown, f"neither a command we know nor listed in pages.py: {'; '.join(map(str, unknown))}"
        for command in found:
            first = command.words[0]
            ours = command.script is not None or first in ("snakemake", "make")
            assert ours or first in OTHERS or command.text.startswith("python -c "), str(command)


@pytest.mark.parametrize(("page", "number"), AT_LEAST.items())
def test_no_page_lost_its_commands(page: str, number: int) -> None:
    assert len(command_blocks(PROJECT / page)[0]) >= number


@pytest.mark.parametrize("command", complete(lambda command: command.script is not None), ids=str)
def test_a_call_of_a_script_is_understood(command: Command) -> None:
    assert command.script is not None
    script, *words = command.script
    assert (PROJECT / script).is_file()
    if script.startswith("benchmarks/") or script == "scripts/launch.py":  # plain argument parsers
        return
    done = subprocess.run(
        [sys.executable, script, *words, "--print-config"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_requirements_commands_are_among_them() -> None:
    text = " ".join(command.text for command in commands())
    for script in ("extract_rois_v2", "pretrain_dino_face", "pretrain_dino_hands", "train_slt_multistream_v9"):
        assert f"scripts/{script}.py" in text


@pytest.mark.parametrize("command", complete(lambda command: command.words[0] == "make"), ids=str)
def test_make_knows_the_target(command: Command) -> None:
    done = subprocess.run(["make", "--dry-run", *command.words[1:]], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.fixture(scope="module")
def plain_checkout(copy_checkout: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow with a reader's own videos and config, nothing run yet."""
    folder = copy_checkout(tmp_path_factory.mktemp("docs") / "checkout")
    (folder / "data/mine/videos").mkdir(parents=True)
    (folder / "data/mine/videos/a.mp4").write_bytes(b"never opened by a dry run")
    shutil.copy(folder / "config/own_videos.yaml", folder / "mine.yaml")
    return folder


@pytest.fixture(scope="module")
def importer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow that docs/reuse.md prints, with its config."""
    folder = tmp_path_factory.mktemp("docs") / "importer"
    folder.mkdir()
    blocks = fences((PROJECT / "docs/reuse.md").read_text(encoding="utf-8"))
    names = {"snakemake": "Snakefile", "yaml": "config.yaml"}
    for language, _, body in blocks:
        if language in names:
            text = "\n".join(body).replace("/path/to/signstreams", str(PROJECT))
            (folder / names[language]).write_text(text, encoding="utf-8")
    return folder


SNAKEMAKE = complete(lambda command: command.words[0] == "snakemake")


def test_snakemake_is_called_on_several_pages() -> None:
    assert {"docs/cluster.md", "docs/reuse.md"} <= {command.page for command in SNAKEMAKE}


@pytest.mark.parametrize("command", SNAKEMAKE, ids=str)
def test_snakemake_plans_what_a_page_asks_for(command: Command, plain_checkout: Path, importer: Path) -> None:
    words = command.words[1:]
    if (
        command.page == "docs/corpora.md"
    ):  # their configs are written by imports: planned by tests/importers/test_run.py
        assert re.fullmatch(r"--cores 8 all --configfile data/[\w-]+/config\.yaml", " ".join(words))
        return
    if "-s" in words:  # a Snakefile of the reader's own, with a plugin that is not among our packages
        assert (words, command.page) == (["-s", "fetch.smk", "--cores", "4"], "docs/cluster.md")
        return
    if "--report" in words:  # asks for what was made: run by tests/workflow/test_chain.py
        words = [word for word in words if word != "--report" and not word.endswith((".html", ".zip"))]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words, *([] if "--unlock" in words else ["--dry-run", "--quiet"])],
        cwd=importer if command.page == "docs/reuse.md" else plain_checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_config_that_is_run_is_the_one_that_the_import_above_it_writes() -> None:
    found = command_blocks(PROJECT / "docs/corpora.md")[0]
    runs = [place for place, command in enumerate(found) if command.words[0] == "snakemake"]
    assert len(runs) == 9
    for place in runs:
        words = found[place - 1].script
        assert words is not None and words[0] == "scripts/import_corpus.py"
        assert found[place].words[-1] == f"{words[words.index('--root') + 1]}/config.yaml"


@pytest.mark.parametrize(("english", "spanish"), TRANSLATED)
def test_both_languages_give_the_same_commands(english: str, spanish: str) -> None:
    """And the same outputs, pictures and headings, in the same order."""
    pages = [PROJECT / english, PROJECT / spanish]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    ours = [[(language, body) for language, _, body in fences(text)] for text in texts]
    for one, other in zip(*ours, strict=True):
        assert without_comments(one) == without_comments(other)
    pictures = [re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text) for text in texts]
    assert pictures[0] == pictures[1] and pictures[0]
    assert len(re.findall(r"(?m)^#+ ", texts[0])) == len(re.findall(r"(?m)^#+ ", texts[1]))


def without_comments(block: tuple[str, list[str]]) -> tuple[str, list[str]]:
    """The block without what may be translated: comments after commands, descriptions in README's list of files."""
    language, body = block
    if language == "bash":
        return language, [re.sub(r"\s+#.*", "", line) for line in body]
    if language == "text" and any(line.startswith("work_dirs/overview.html") for line in body):
        return language, [match[1] if (match := re.match(r"([\w./*{},]+)(?:\s{2,}|$)", line)) else "" for line in body]
    return block


@pytest.mark.parametrize("page", TRANSLATED[0])
def test_the_own_videos_config_in_the_readme_is_the_file_that_is_shipped(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    (block,) = ["\n".join(body) + "\n" for language, _, body in fences(text) if language == "yaml"]
    assert block == (PROJECT / "config" / "own_videos.yaml").read_text(encoding="utf-8")


def test_python_on_the_pages_is_python() -> None:
    """It compiles; test_newcomer.py runs that of README and tutorial."""
    for page in PAGES:
        for language, start, body in fences(page.read_text(encoding="utf-8")):
            if language == "python":
                compile("\n" * (start - 1) + "\n".join(body), str(page), "exec")


@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
