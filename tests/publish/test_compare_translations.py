"""Two translation runs clip by clip: what is compared, what is said of it, the page as people use it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.errors import UserError
from signstreams.publish.compare import compare
from signstreams.publish.compare_translations import compare_translations, write_comparison
from signstreams.publish.runs import labelled, read_run
from signstreams.publish.settings import CompareConfig

Row = tuple[str, str, str, str, str, str, str]  # clip, split, reference, hypothesis, glosses, recognised, signer
COLUMNS = ("clip_id", "split", "reference", "hypothesis", "gloss_reference", "gloss_hypothesis", "signer")
EVIL = "<script>alert('Ñandú')</script>"
SAID = ("El niño come pan.", "Mañana llueve en casa.", f"El perro {EVIL} bebe agua.")
FIRST: list[Row] = [
    ("uno", "val", SAID[0], "El niño.", "NIÑO PAN", "NIÑO", "ana"),
    ("dos", "test", SAID[1], SAID[1], "MAÑANA LLUEVE", "MAÑANA LLUEVE", "bruno"),
    ("tres", "test", SAID[2], f"{EVIL}", "PERRO AGUA", "PERRO", "ana"),
]
SECOND: list[Row] = [
    ("uno", "val", SAID[0], SAID[0], "NIÑO PAN", "NIÑO PAN", "ana"),
    ("dos", "test", SAID[1], "Mañana.", "MAÑANA LLUEVE", "", "bruno"),
    ("tres", "test", SAID[2], "El perro bebe agua.", "PERRO AGUA", "PERRO AGUA", "ana"),
]


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a translation run with these predictions; None: it was not evaluated."""

    def make(name: str, rows: list[Row] | None, **scores: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 10, "val/loss_translation": 5.0, "val/bleu_4": 1.0}\n')
        if rows is not None:
            with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *rows])
            (folder / "scores.json").write_text(json.dumps(scores))
        return folder

    return make


def both(*folders: Path) -> Any:
    first, second = labelled([read_run(folder) for folder in folders])
    return compare_translations(first, second)


def test_clips_are_paired_and_the_difference_is_the_seconds(evaluated: Callable[..., Path]) -> None:
    found = both(evaluated("a", FIRST), evaluated("b", SECOND))
    assert [clip.clip_id for clip in found.clips] == ["uno", "dos", "tres"] and list(found.differences) == [
        "val",
        "test",
    ]
    uno, dos, _ = found.clips
    assert uno.scores["wer"] == (50, 0) and uno.differences["wer"] == -50 and uno.scores["chrf"][1] == 100
    assert dos.differences["chrf"] < 0 and dos.hypotheses == (SAID[1], "Mañana.") and dos.signer == "bruno"
    assert (found.differences["test"]["wer"].first, found.differences["test"]["wer"].second) == (25, 50)
    assert found.notes == ["few clips give rough intervals: val 1, test 2"]


def test_what_is_not_the_same_clip_is_left_out_and_said(evaluated: Callable[..., Path]) -> None:
    changed = [("uno", "val", "Otro texto.", *FIRST[0][3:]), *FIRST[1:], ("más", "val", "x", "x", "", "", "")]
    found = both(evaluated("a", FIRST), evaluated("b", changed, scoring={"gloss_cleanup": "phoenix2014t"}))
    assert [clip.clip_id for clip in found.clips] == ["dos", "tres"]
    assert found.notes[:3] == [
        "1 clip has other references in the two runs, and is left out",
        "1 clip is in one run alone, and is left out",
        "the runs were scored by other rules; both are scored by those of a here",
    ]


def test_runs_are_compared_by_what_both_have_learned(evaluated: Callable[..., Path]) -> None:
    """A run of glosses alone has no text; older predictions have neither glosses nor signer."""
    glosses = evaluated("glosses", [(*row[:3], "", *row[4:]) for row in SECOND])
    old = evaluated("old", [])
    (old / "predictions.csv").write_text("clip_id,split,reference,hypothesis\n" + f'uno,val,{SAID[0]},"El niño"\n')
    assert list(both(evaluated("a", FIRST), glosses).differences["test"]) == ["wer"]
    assert list(both(old, evaluated("b", SECOND)).differences["val"]) == ["chrf", "bleu_4"]


def test_a_split_without_glosses_has_no_wer(evaluated: Callable[..., Path], tmp_path: Path) -> None:
    runs = [
        evaluated(name, [rows[0], *((*row[:4], "", *row[5:]) for row in rows[1:])])
        for name, rows in (("a", FIRST), ("b", SECOND))
    ]
    found = both(*runs)
    assert {split: list(of) for split, of in found.differences.items()} == {
        "val": ["chrf", "bleu_4", "wer"],
        "test": ["chrf", "bleu_4"],
    }
    write_comparison(tmp_path / "page.html", *labelled([read_run(run) for run in runs]), found)


def test_runs_that_cannot_be_compared_clip_by_clip_are_told_so(evaluated: Callable[..., Path], tmp_path: Path) -> None:
    first = evaluated("a", FIRST)
    for name, rows, said in (
        ("bare", None, r"predictions\.csv: No such file.*; run `signstreams evaluate` first"),
        ("other", [("x", *FIRST[0][1:])], "no common clip with .*, expected two evaluations of one corpus"),
        ("texts", [(*FIRST[0][:2], "Otro.", *FIRST[0][3:])], "1 common clips, all with other references"),
    ):
        with pytest.raises(UserError, match=said):
            both(first, evaluated(name, rows))
    broken = evaluated("broken", FIRST)
    (broken / "predictions.csv").write_text("id;text\n1;2\n")
    with pytest.raises(UserError, match="has no column clip_id, split, reference, hypothesis"):
        both(first, broken)
    lines = compare(CompareConfig(runs=[first, tmp_path / "bare"], output=tmp_path / "out.png"))
    assert any(line.startswith("no out.html: ") for line in lines) and not (tmp_path / "out.html").exists()
    assert (tmp_path / "out.png").is_file()  # their curves are compared all the same


@pytest.fixture
def page(evaluated: Callable[..., Path], tmp_path: Path) -> Path:
    first, second = evaluated("a", FIRST), evaluated("b", SECOND)
    for folder in (first, second):
        (folder / "translations.html").write_text("<article id='clip-dos'>")
    lines = compare(CompareConfig(runs=[first, second], output=tmp_path / "out.png"))
    assert any(line.startswith("test: gloss WER 25.00 and 50.00, difference +25.00 (95 % ") for line in lines)
    assert lines[-2:] == [str(tmp_path / "out.html"), str(tmp_path / "out.png")]
    return tmp_path / "out.html"


def test_the_page_escapes_what_models_say_and_links_to_the_clips(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 1 and "&lt;script&gt;alert(" in text
    assert 'href="a/translations.html#clip-dos"' in text and 'href="b/translations.html#clip-dos"' in text


def test_two_runs_are_compared_in_a_browser(browser: Any, looks_well: Callable[[Path], None], page: Path) -> None:
    looks_well(page)
    shown = "[...document.querySelectorAll('article')].filter(e => e.checkVisibility()).map(e => e.dataset.id).join()"
    with browser.open(page, "phone") as tab:
        assert tab.run(shown) == "dos,tres,uno"  # where the first is ahead comes first
        for sort, expected in (("chrf -1", "uno,tres,dos"), ("wer 1", "uno,tres,dos"), ("id 1", "dos,tres,uno")):
            tab.run(f"tools.sort.value = '{sort}'; tools.sort.dispatchEvent(new Event('input', {{bubbles: true}}))")
            assert tab.run(shown) == expected
        tab.click("[name=from]")
        tab.type("-50")  # by chrF of the second over the first
        tab.until(f"{shown} === 'tres,uno'")
        tab.click("[name=search]")
        tab.type("nino")
        tab.until(f"{shown} === 'uno'")
        assert tab.look().complaints == []
