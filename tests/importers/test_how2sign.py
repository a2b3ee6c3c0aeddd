"""How2Sign: whole videos with spans, or clips that were cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]


def test_whole_videos_give_spans(source: Source, do_import: Importer) -> None:
    corpus = do_import("how2sign", source("how2sign"))
    assert corpus.rows()[1] == {
        "clip_id": "-0E2sU6zP4Q_1-5-rgb_front",
        "video": "-0E2sU6zP4Q-5-rgb_front",
        "text": "Hold it like this.",
        "start": "1.96",
        "end": "3.8",
        "signer": "signer 5",
        "split": "train",
    }
    assert corpus.config["extract"]["set"] == {"fps": 25.0, "spans_only": True}
    assert corpus.report["language"] == "en_XX"


def test_cut_clips_are_videos_of_their_own(source: Source, do_import: Importer) -> None:
    corpus = do_import("how2sign", source("how2sign", cut=True))
    assert corpus.column("video") == corpus.column("clip_id")
    assert "start" not in corpus.rows()[0]
    assert corpus.report["taken"]["hours"] == pytest.approx(
        sum([1.72, 1.84, 2.4, 2.36, 1.64, 1.64, 2.44, 2.4]) / 3600, abs=1e-3
    )
    assert "spans_only" not in corpus.config["extract"]["set"]


def test_whole_and_cut_videos_together_are_a_question(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.how2sign(tiny_corpus, tmp_path / "h")
    layouts.how2sign(tiny_corpus, folder, cut=True)
    with pytest.raises(UserError, match=r"4 whole videos and 8 cut clips .*expected one of both.*--videos"):
        do_import("how2sign", folder)
    corpus = do_import("how2sign", folder, videos=[folder / "video_level"])
    assert corpus.report["taken"]["videos"] == 4


def test_a_quote_in_a_sentence_loses_no_row(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.how2sign(tiny_corpus, tmp_path / "h")
    path = next(folder.rglob("how2sign_realigned_train.csv"))
    path.write_text(path.read_text().replace("Hold it like this.", '"Hold it," she says.'))
    assert '"Hold it," she says.' in do_import("how2sign", folder).column("text")


def test_tables_of_some_splits_alone_are_refused(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.how2sign(tiny_corpus, tmp_path / "h")
    for split in ("val", "test"):
        next(folder.rglob(f"how2sign_realigned_{split}.csv")).unlink()
    with pytest.raises(UserError) as error:
        do_import("how2sign", folder)
    assert [problem.partition(": no ")[2].partition(" in it")[0] for problem in error.value.problems] == [
        "how2sign_realigned_val.csv",
        "how2sign_realigned_test.csv",
    ]
