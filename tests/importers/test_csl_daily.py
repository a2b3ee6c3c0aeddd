"""CSL-Daily: the labels as JSON; the pickle is named and never read."""

from __future__ import annotations

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]


def test_sentences_are_characters_between_blanks(source: Source, do_import: Importer) -> None:
    corpus = do_import("csl-daily", source("csl_daily"))
    assert corpus.rows()[0] == {
        "clip_id": "S000000_P0000_T00",
        "video": "S000000_P0000_T00",
        "text": "今 天 下 雨",
        "signer": "P0000",
        "split": "train",
    }
    assert corpus.column("gloss", "annotations/gloss.csv")[0] == "今天 雨"
    assert corpus.column("split") == ["train", "train", "val", "test"]
    assert corpus.config["extract"]["set"]["frames_fps"] == 30.0


def test_a_pickle_is_never_loaded_and_the_command_that_converts_it_works(
    source: Source, do_import: Importer, tiny_corpus: Path, layouts: ModuleType, tmp_path: Path
) -> None:
    folder = layouts.csl_daily(tiny_corpus, tmp_path / "csl", is_json=False)
    with pytest.raises(UserError, match=r"csl2020ct_v2\.pkl: is a pickle, which can run any program") as error:
        do_import("csl-daily", folder)
    assert not list(tmp_path.rglob("pwned"))  # which is what this one would have done
    (problem,) = error.value.problems
    words = shlex.split(problem.partition("if you trust your copy: ")[2])
    assert words[0] == "python" and words[-2].endswith(".pkl") and words[-1].endswith(".json")
    truth = json.loads(next(source("csl_daily").rglob("csl2020ct_v2.json")).read_text(encoding="utf-8"))
    with open(words[-2], "wb") as file:
        pickle.dump({"info": truth, "gloss_map": {"今天"}}, file)
    subprocess.run([sys.executable, *words[1:]], check=True)
    assert do_import("csl-daily", folder).column("text")[0] == "今 天 下 雨"


def test_entries_without_labels_are_counted(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.csl_daily(tiny_corpus, tmp_path / "csl")
    path = next(folder.rglob("csl2020ct_v2.json"))
    entries = json.loads(path.read_text(encoding="utf-8"))
    odd = [{"name": "x"}, 3, {"name": 4, "label_gloss": [], "label_char": []}, {**entries[0], "label_char": "今天"}]
    path.write_text(json.dumps({"info": [*entries, *odd]}), encoding="utf-8")
    corpus = do_import("csl-daily", folder)
    assert (corpus.counts()["csl_daily.entry"], len(corpus.rows())) == (4, 4)


@pytest.mark.parametrize("content", ["{}", "3", "no json", "[" * 100_000])
def test_labels_that_are_no_list_are_one_line(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path, content: str
) -> None:
    folder = layouts.csl_daily(tiny_corpus, tmp_path / "csl")
    next(folder.rglob("csl2020ct_v2.json")).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"csl2020ct_v2\.json: .*convert it again") as error:
        do_import("csl-daily", folder)
    assert len(error.value.problems) == 1


def test_a_sentence_of_no_split_is_counted(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.csl_daily(tiny_corpus, tmp_path / "csl")
    path = folder / "sentence_label/split_1.txt"
    path.write_text(path.read_text().replace("S000000_P0000_T00|train\n", ""))
    corpus = do_import("csl-daily", folder)
    (line,) = corpus.report["not_taken_or_doubted"]["import.no_split"]["first"]
    assert line.startswith("splits: 1 clips of none of the corpus's splits: 'S000000_P0000_T00'")
    with pytest.raises(UserError, match=r"import\.no_split"):
        do_import("csl-daily", folder, strict=True)
