"""docs/python.md and the notebook: their code runs, from top to bottom, on a run of the workflow; only sizes differ."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import signstreams as ss

from .pages import PROJECT, fences

PAGE = PROJECT / "docs" / "python.md"
NOTEBOOKS = sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb"))
SHORTER = [("fps=25", "fps=5"), ('labels="handshapes"', 'labels="handshapes", probe=False')]


@pytest.fixture
def checkout(demo_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to work in."""
    shutil.copytree(demo_run, tmp_path / "checkout")
    return tmp_path / "checkout"


def run(pieces: list[tuple[str, int, str]], folder: Path) -> str:
    """What pieces of code print, in one fresh process and namespace; each has its file and its first line."""
    text = "import json, sys\nspace = {'__name__': '__main__'}\nfor name, line, code in json.loads(sys.stdin.read()):\n"
    text += "    exec(compile('\\n' * (line - 1) + code, name, 'exec'), space)\n"
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", text],
        input=json.dumps(pieces),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_snippets_of_the_page_run_one_after_the_other(checkout: Path) -> None:
    blocks = [
        (start, "\n".join(body))
        for language, start, body in fences(PAGE.read_text(encoding="utf-8"))
        if language == "python"
    ]
    whole = "\n".join(text for _, text in blocks)
    for old, new in SHORTER:
        assert whole.count(old) == 1
        blocks = [(start, text.replace(old, new)) for start, text in blocks]
    printed = run([(str(PAGE), start, text) for start, text in blocks], checkout)
    assert "data/try/processed/preview/demo_000.jpg" in printed
    assert re.search(r"(?m)^first weights +\w.* split +nearest +\d\.\d\d \[", printed)
    assert re.search(r"(?m)^ +\d+\.\d\d to +\d+\.\d\d s  ", printed)
    assert printed.rstrip().endswith("name them")  # the error of the last snippet
    assert (checkout / "data/try/processed/preview/demo_000.jpg").is_file()
    assert (checkout / "demo_001.srt").is_file()


def test_the_page_shows_every_function() -> None:
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join("\n".join(body) for language, _, body in fences(text) if language == "python")
    functions = [name for name in ss.__all__ if name.islower()]
    assert len(functions) == 8
    for name in functions:
        assert f"| `ss.{name}(" in text and f"ss.{name}(" in code, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_a_valid_one_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat = pytest.importorskip("nbformat")  # comes with Snakemake
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear all outputs before you save"
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (path.parent / link).is_file(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_cells_of_a_notebook_run_in_their_order(path: Path, checkout: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    pieces = [(f"{path.name}, cell {cell['id']}", 1, "".join(cell["source"])) for cell in cells if "outputs" in cell]
    assert len(pieces) > 4
    printed = run(pieces, checkout)
    assert "reference: " in printed and "hypothesis:" in printed


def test_there_is_a_notebook_and_the_page_names_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert NOTEBOOKS and all(f"notebooks/{path.name}" in text for path in NOTEBOOKS)
