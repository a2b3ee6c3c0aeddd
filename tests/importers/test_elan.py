"""ELAN files as corpora ship them: tiers by name or type, both hands, participants, linked media."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]
SENTENCES = [(0.12, 1.84, "Estoy bien."), (1.96, 3.8, "¿Dónde está\n  el agua?")]
RIGHT = [(0.2, 0.9, "YO"), (1.0, 1.7, "BIEN"), (2.0, 2.6, "AGUA"), (2.7, 3.6, "DÓNDE")]
LEFT = [(1.05, 1.7, "BIEN"), (2.05, 2.2, "TAZA"), (3.85, 3.95, "FUERA")]


@pytest.fixture
def folder(tiny_corpus: Path, layouts: ModuleType, tmp_path: Path) -> Path:
    """Three videos, which files may link to."""
    for number, name in enumerate(("charla_1", "charla_2", "charla_3")):
        layouts.copy_video(tiny_corpus, f"demo_00{number}", tmp_path / "elan" / f"{name}.mp4")
    return tmp_path / "elan"


def three_files(layouts: ModuleType, folder: Path, **how: object) -> None:
    for number in (1, 2, 3):
        tiers = {"Traducción": SENTENCES, "mano derecha": RIGHT, "mano izquierda": LEFT}
        layouts.eaf(folder / f"charla_{number}.eaf", tiers, [f"charla_{number}.mp4"], **how)


TIERS = {"text_tiers": ["Traducción"], "gloss_tiers": ["mano *"]}


def test_each_sentence_is_a_clip_with_the_glosses_of_both_hands_in_order_of_time(
    layouts: ModuleType, folder: Path, do_import: Importer
) -> None:
    three_files(layouts, folder)
    corpus = do_import("elan", folder, language="es", **TIERS)
    first, second = corpus.rows()[:2]
    assert first == {
        "clip_id": "charla_1_00000120",
        "video": "charla_1",
        "text": "Estoy bien.",
        "start": "0.12",
        "end": "1.84",
    }
    assert second["text"] == "¿Dónde está el agua?"
    glosses = corpus.column("gloss", "annotations/gloss.csv")
    assert glosses[:2] == ["YO BIEN", "AGUA TAZA DÓNDE"]  # BIEN is one sign with two hands; TAZA begins after AGUA
    assert corpus.counts()["elan.gloss_outside"] == 3  # FUERA, in each file
    assert corpus.report["language"] == "es"


def test_tiers_are_found_by_type_and_dependent_ones_have_the_times_of_their_parents(
    layouts: ModuleType, folder: Path, do_import: Importer
) -> None:
    for number in (1, 2, 3):
        layouts.eaf(
            folder / f"charla_{number}.eaf",
            {"tramo": [(start, end, "") for start, end, _ in SENTENCES]},
            [f"charla_{number}.mp4"],
            depends={"frase": ("tramo", ["Uno dos.", "Tres cuatro."])},
            kinds={"frase": "translation-lt", "tramo": "span-lt"},
        )
    corpus = do_import("elan", folder, text_tiers=["translation-lt"])
    assert corpus.column("text")[:2] == ["Uno dos.", "Tres cuatro."]
    assert corpus.column("end")[:2] == ["1.84", "3.8"]
    assert not (corpus.root / "annotations").exists()


def test_without_a_name_the_tiers_of_known_corpora_count(source: Source, do_import: Importer) -> None:
    corpus = do_import("elan", source("dgs"))
    assert corpus.rows()[0] == {
        "clip_id": "140_A_00000120",
        "video": "140_1a1",  # A's camera, not B's
        "text": "morgen regnet es im norden .",
        "start": "0.12",
        "end": "1.84",
        "signer": "140 A",  # A is somebody else in each file
    }
    assert corpus.rows()[2]["video"] == "141_1b1"
    assert corpus.column("gloss", "annotations/gloss.csv")[0] == "MORGEN REGEN NORD"
    assert corpus.report["language"] == "de_DE"


def test_corpus_ngt_keeps_two_signers_apart(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    for number in range(3):
        names = [f"CNGT000{number}_S00{signer}_b.mp4" for signer in (1, 2)]
        for name in names:
            layouts.copy_video(tiny_corpus, f"demo_00{number}", tmp_path / "ngt" / name)
        tiers, people = {}, {}
        for place, person in (("S1", "S001"), ("S2", "S002")):
            start_s, end_s, _ = SENTENCES[int(place[1]) - 1]
            own = {
                f"TranslationNarrow {place}": [(start_s, end_s, f"Zin van {person}.")],
                f"GlossR {place}": [(start_s + 0.1, start_s + 0.6, f"GEBAAR {person}")],
                f"GlossL {place}": [(start_s + 0.7, start_s + 1.2, "PO")],
            }
            tiers |= own
            people |= dict.fromkeys(own, person)
        layouts.eaf(tmp_path / "ngt" / f"CNGT000{number}.eaf", tiers, names, participants=people)
    corpus = do_import("elan", tmp_path / "ngt")
    assert [(row["video"], row["signer"]) for row in corpus.rows()[:2]] == [
        ("CNGT0000_S001_b", "S001"),
        ("CNGT0000_S002_b", "S002"),
    ]
    assert corpus.column("gloss", "annotations/gloss.csv")[:2] == ["GEBAAR_S001 PO", "GEBAAR_S002 PO"]
    assert "import.signers" not in corpus.counts()


def test_two_signers_in_one_video_are_reported(layouts: ModuleType, folder: Path, do_import: Importer) -> None:
    for number in (1, 2, 3):
        tiers = {"Frase_A": [SENTENCES[0]], "Frase_B": [SENTENCES[1]]}
        layouts.eaf(folder / f"charla_{number}.eaf", tiers, [f"charla_{number}.mp4"])
    assert do_import("elan", folder, text_tiers=["Frase_*"]).counts()["import.signers"] == 3


def test_media_with_an_offset_give_times_of_the_video(layouts: ModuleType, folder: Path, do_import: Importer) -> None:
    three_files(layouts, folder, origin_ms=-100)
    assert do_import("elan", folder, **TIERS).rows()[0]["start"] == "0.02"


def test_unknown_tiers_are_listed_with_their_types(layouts: ModuleType, folder: Path, do_import: Importer) -> None:
    three_files(layouts, folder, kinds={"Traducción": "free text"})
    with pytest.raises(
        UserError, match=r"no tier is known to hold the sentences, found Traducción \(type free text, 2"
    ):
        do_import("elan", folder)
    with pytest.raises(UserError) as error:
        do_import("elan", folder, text_tiers=["Traduccion"], gloss_tiers=["mano *", "boca"])
    assert [problem.partition(" in 3 files")[0].rpartition(": ")[2] for problem in error.value.problems] == [
        "no tier or type 'Traduccion'",
        "no tier or type 'boca'",
    ]


def test_files_without_the_tier_damaged_files_and_lost_media_are_counted(
    layouts: ModuleType, folder: Path, do_import: Importer, tmp_path: Path
) -> None:
    three_files(layouts, folder)
    layouts.eaf(folder / "otra.eaf", {"nota": SENTENCES}, ["charla_1.mp4"])
    (folder / "rota.eaf").write_text("<ANNOTATION_DOCUMENT><TIER", encoding="utf-8")
    layouts.eaf(folder / "sola.eaf", {"Traducción": SENTENCES}, ["perdida.mp4"])
    with pytest.raises(UserError, match="no video 'perdida' \\(of 2 clips\\)"):
        do_import("elan", folder, **TIERS)
    corpus = do_import("elan", folder, allow_absent_videos=True, **TIERS)
    report = corpus.report["not_taken_or_doubted"]
    assert report["elan.no_tier"]["first"][0].startswith("otra.eaf: no such tier among 'nota'")
    assert report["elan.file"]["first"][0].startswith("rota.eaf: is not XML")
    assert report["import.absent"]["count"] == 1
    assert corpus.report["taken"]["clips"] == 8


def test_glosses_belong_to_who_signs_the_sentences(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    """By participant, else by the end of the tiers' names; glosses of nobody who has sentences are counted."""
    for number in range(3):
        names = [f"f{number}_P1.mp4", f"f{number}_P2.mp4"]
        for name in names:
            layouts.copy_video(tiny_corpus, f"demo_00{number}", tmp_path / "in" / name)
        tiers = {"Frase A": SENTENCES[:1], "Frase B": SENTENCES[1:], "Glosa A": RIGHT[:2], "Glosa B": RIGHT[2:]}
        tiers["Glosa C"] = [(0.3, 0.8, "AJENO")]
        people = {"Frase A": "P1", "Frase B": "P2"}  # the tiers of glosses name none
        layouts.eaf(tmp_path / "in" / f"f{number}.eaf", tiers, names, participants=people)
    corpus = do_import("elan", tmp_path / "in", text_tiers=["Frase *"], gloss_tiers=["Glosa *"])
    assert corpus.column("gloss", "annotations/gloss.csv")[:2] == ["YO BIEN", "AGUA DÓNDE"]
    (first, *_) = corpus.report["not_taken_or_doubted"]["elan.gloss_tier"]["first"]
    assert first.startswith("f0.eaf: 1 glosses of 'Glosa C', which are of none of the signers")


@pytest.mark.parametrize(
    ("gloss", "who", "expected"),
    [("Glosa B", "Berta", "YO BIEN"), ("Glosa L", "", "YO FUERTE BIEN"), ("Glosa B", "", "YO BIEN")],
)
def test_glosses_of_somebody_else_are_not_those_of_the_only_signer_with_sentences(
    gloss: str, who: str, expected: str, layouts: ModuleType, folder: Path, do_import: Importer
) -> None:
    for number in (1, 2, 3):
        tiers = {"Frase A": SENTENCES, "Glosa A": RIGHT, gloss: [(0.3, 1.0, "FUERTE")]}
        people = {"Frase A": "Ana", "Glosa A": "Ana", gloss: who}
        layouts.eaf(folder / f"charla_{number}.eaf", tiers, [f"charla_{number}.mp4"], participants=people)
    corpus = do_import("elan", folder, text_tiers=["Frase A"], gloss_tiers=["Glosa *"])
    assert corpus.column("gloss", "annotations/gloss.csv")[0] == expected


def test_names_are_compared_composed_and_brackets_are_letters(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    """macOS decomposes accents in names of files and tiers."""
    for number in range(3):
        names = [f"niña {number}_{place}.mp4" for place in "AB"]
        for name in names:
            layouts.copy_video(tiny_corpus, "demo_000", tmp_path / "in" / unicodedata.normalize("NFD", name))
        tiers = {unicodedata.normalize("NFD", "Traducción"): SENTENCES, "Glosa [RH]": RIGHT}
        people = dict.fromkeys(tiers, "B")
        layouts.eaf(tmp_path / "in" / f"f{number}.eaf", tiers, names, participants=people)
    corpus = do_import("elan", tmp_path / "in", text_tiers=["Traducción"], gloss_tiers=["Glosa [RH]"])
    videos = [unicodedata.normalize("NFC", video) for video in corpus.column("video")[::2]]
    assert videos == ["niña 0_B", "niña 1_B", "niña 2_B"]
    assert corpus.column("gloss", "annotations/gloss.csv")[0] == "YO BIEN"
