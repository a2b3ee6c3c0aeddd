"""The good corpus of corpora.py, and a copy of it to break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .corpora import BrokenCorpus, build


@pytest.fixture(scope="session")
def built_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good corpus. Read only."""
    root = tmp_path_factory.mktemp("contract") / "good"
    build(root)
    return root


@pytest.fixture
def corpus(built_corpus: Path, tmp_path: Path) -> BrokenCorpus:
    """A copy of the good corpus, to break; its path holds a blank, a quote and an accent."""
    root = tmp_path / "d'été 1"
    shutil.copytree(built_corpus, root)
    return BrokenCorpus(root)
