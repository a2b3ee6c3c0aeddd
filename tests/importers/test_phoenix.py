"""PHOENIX-2014T and PHOENIX-2014 in their true layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]


def test_2014t_gives_texts_glosses_signers_and_its_own_splits(source: Source, do_import: Importer) -> None:
    corpus = do_import("phoenix14t", source("phoenix"))
    first = corpus.rows()[0]
    assert first == {
        "clip_id": "01April_2010_Thursday_heute-6690",
        "video": "01April_2010_Thursday_heute-6690",
        "text": "morgen regnet es im norden .",
        "signer": "Signer01",
        "split": "train",
    }
    assert corpus.rows("annotations/gloss.csv")[0]["gloss"] == "MORGEN REGEN NORD"
    assert [len(corpus.index(split)) for split in ("train", "val", "test")] == [4, 2, 2]
    assert not (corpus.root / "index/split.json").exists()  # they are the corpus's own
    config = corpus.config
    parts = [Path(folder).name for folder in config["corpus"]["videos"]]
    assert parts == ["train", "dev", "test"]
    assert config["extract"]["set"] == {"frames_fps": 25.0, "crop_px": 112}


def test_2014_has_no_translations_which_is_said_and_set(source: Source, do_import: Importer) -> None:
    corpus = do_import("phoenix14t", source("phoenix", is_2014t=False, below_1=True))
    assert corpus.column("text")[0] == corpus.rows("annotations/gloss.csv")[0]["gloss"] == "MORGEN REGEN NORD"
    assert corpus.config["integrate"]["set"]["mska.translation_weight"] == 0
    assert any("no translations" in note for note in corpus.report["notes"])


def test_a_table_of_one_part_alone_is_refused(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.phoenix(tiny_corpus, tmp_path / "p")
    next(folder.rglob("PHOENIX-2014-T.dev.corpus.csv")).unlink()
    with pytest.raises(UserError, match=r"no PHOENIX-2014-T\.dev\.corpus\.csv, expected the tables of all three parts"):
        do_import("phoenix14t", folder)


def test_frames_elsewhere_are_found_by_name(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.phoenix(tiny_corpus, tmp_path / "p")
    shutil.move(next(folder.rglob("fullFrame-210x260px")), tmp_path / "scratch")
    with pytest.raises(UserError, match=r"fullFrame-210x260px: no train, dev or test in it.*--videos"):
        do_import("phoenix14t", folder)
    corpus = do_import("phoenix14t", folder, videos=[tmp_path / "scratch"])
    assert [Path(path).name for path in corpus.config["corpus"]["videos"]] == ["dev", "test", "train"]


def test_glosses_that_train_lacks_are_counted_and_the_workflow_goes_on(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.phoenix(tiny_corpus, tmp_path / "p")
    table = next(folder.rglob("PHOENIX-2014-T.test.corpus.csv"))
    text = table.read_text()
    table.write_text(text.replace("NACHT KALT", "NACHT MINUS KALT"))  # 1 of 11 glosses of dev and test
    config = do_import("phoenix14t", folder).config
    assert config["integrate"]["set"]["data.unknown_gloss"] == "count"
    assert "contract" not in config  # it warns up to a tenth
    table.write_text(text.replace("NACHT KALT", "NACHT MINUS VIEL KALT"))  # 2 of 12
    assert do_import("phoenix14t", folder).config["contract"]["set"] == {"max_unknown_gloss_fraction": 0.17}
