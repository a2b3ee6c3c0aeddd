"""OpenASL: clock times, whole videos by YouTube id, or cut ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]


def test_sentences_are_spans_of_youtubes_videos(source: Source, do_import: Importer) -> None:
    corpus = do_import("openasl", source("openasl"))
    assert corpus.rows()[1] == {
        "clip_id": "oQ0_-d5bY2Kc-00:00:01.960-00:00:03.800",
        "video": "oQ0_-d5bY2Kc",
        "text": "Hold it like this.",
        "start": "1.96",
        "end": "3.8",
        "split": "train",
    }
    assert corpus.column("split") == ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def test_cut_clips_are_known_by_the_id_of_their_sentence(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.openasl(tiny_corpus, tmp_path / "oa")
    videos = {path.stem: path for path in folder.rglob("*.mp4")}
    rows = (folder / "data/openasl-v1.0.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for row in rows:
        clip, youtube = row.split("\t")[:2]
        layouts.write(folder / "cut" / f"{clip}.mp4", "").write_bytes(videos[youtube].read_bytes())
    for path in videos.values():
        path.unlink()
    corpus = do_import("openasl", folder)
    assert corpus.column("video") == corpus.column("clip_id")
    assert "start" not in corpus.rows()[0]


def test_a_table_with_other_columns_is_refused(do_import: Importer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/openasl-v1.0.tsv").write_text("vid\tyid\ttext\na\tb\tc\n")
    with pytest.raises(UserError, match="no columns end, raw-text, start among vid, yid, text"):
        do_import("openasl", tmp_path / "in")
