"""Corpora in published layouts, made once; an import of one in a folder of its own; a dry run of its config."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from signstreams.importers.run import Imported, import_corpus
from signstreams.importers.settings import ImportConfig


@pytest.fixture(scope="session")
def layouts() -> ModuleType:
    """tests/importers/layouts.py."""
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module("layouts")


@pytest.fixture(scope="session")
def source(
    build_once: Callable[[str, Callable[[Path], None]], Path], tiny_corpus: Path, layouts: ModuleType
) -> Callable[..., Path]:
    """``source("phoenix", below_1=True)``: a corpus in that layout, made once. Read only."""

    def make(name: str, **how: Any) -> Path:
        folder = "_".join(["layout", name, *(f"{key}_{value}" for key, value in how.items())])
        return build_once(folder, lambda root: getattr(layouts, name)(tiny_corpus, root, **how))

    return make


@dataclass(frozen=True)
class Corpus:
    """What an import wrote."""

    root: Path

    def rows(self, name: str = "meta.csv") -> list[dict[str, str]]:
        with (self.root / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter=";"))

    def column(self, column: str, name: str = "meta.csv") -> list[str]:
        return [row[column] for row in self.rows(name)]

    def index(self, split: str) -> list[str]:
        return (self.root / "index" / f"{split}.csv").read_text(encoding="utf-8").split("\n")[:-1]

    @property
    def config(self) -> dict[str, Any]:
        import yaml

        found = yaml.safe_load((self.root / "config.yaml").read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    @property
    def report(self) -> dict[str, Any]:
        found = json.loads((self.root / "import.json").read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def counts(self) -> dict[str, int]:
        """Rule to the number of its findings."""
        return {rule: found["count"] for rule, found in self.report["not_taken_or_doubted"].items()}

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Time and content of every file."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


Importer = Callable[..., Corpus]


@pytest.fixture
def do_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Importer:
    """``do_import("phoenix14t", source)``: what a user gets in a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def run(layout: str, source: Path, **settings: Any) -> Corpus:
        config = ImportConfig(layout=layout, source=source, root=Path("data/mine"), **settings)
        imported: Imported = import_corpus(config)
        assert imported.lines
        return Corpus(tmp_path / "data/mine")

    return run


@pytest.fixture
def dry_run(project: Path, tmp_path: Path) -> Callable[[str], str]:
    """What ``snakemake -n TARGET`` says with the imported config, in the folder of the import."""

    def run(target: str) -> str:
        command = [sys.executable, "-m", "snakemake", "-n", target, "-s", str(project / "Snakefile")]
        command += ["--configfile", "data/mine/config.yaml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return run
