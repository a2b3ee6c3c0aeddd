"""Any table: its columns are known by name or named; delimiters, encodings, sheets and units are those of the world."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from signstreams.corpus.meta_csv import scan_meta
from signstreams.errors import UserError

from .conftest import Importer

ROWS = (
    ("C:\\videos\\demo_000.mp4", "0.12", "1.84", "Estoy bien.", "YO BIEN", "Ana"),
    ("C:\\videos\\demo_000.mp4", "1.96", "3.80", "¿Dónde está; el agua?", "AGUA DÓNDE", "Ana"),
    ("C:\\videos\\demo_001.mp4", "0.12", "2.52", "Mañana, quizás.", "MAÑANA", "Bea"),
    ("C:\\videos\\demo_002.mp4", "0.12", "1.76", "El pan está bien.", "PAN BIEN", "Carla"),
)
HEADER = ("Archivo", "Inicio", "Fin", "Oración", "Glosas", "Señante")


@pytest.fixture
def folder(tiny_corpus: Path, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/videos").symlink_to(tiny_corpus / "videos")
    return tmp_path / "in"


def text_of(delimiter: str, rows: Any = ROWS, header: tuple[str, ...] = HEADER) -> str:
    def cell(text: str) -> str:
        return f'"{text}"' if delimiter in text else text

    return "".join(delimiter.join(map(cell, row)) + "\r\n" for row in (header, *rows))


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_every_delimiter_and_encoding_is_read(folder: Path, do_import: Importer, delimiter: str, encoding: str) -> None:
    (folder / "corpus.csv").write_bytes(text_of(delimiter).encode(encoding))
    check(do_import("table", folder, columns=["video=Archivo"]))


def check(corpus: Any) -> None:
    assert corpus.rows()[1] == {
        "clip_id": "demo_000_0002",
        "video": "demo_000",
        "text": "¿Dónde está; el agua?",
        "start": "1.96",
        "end": "3.8",
        "signer": "Ana",
    }
    assert corpus.column("gloss", "annotations/gloss.csv") == [row[4] for row in ROWS]
    assert corpus.report["notes"][0] == (
        "corpus: text from 'oración', start from 'inicio', end from 'fin', signer from 'señante', gloss from 'glosas',"
        " video from 'archivo'".replace("corpus", next(iter(corpus.report["notes"])).partition(":")[0])
    )


def test_a_line_that_names_the_delimiter_and_decimal_commas_are_read(folder: Path, do_import: Importer) -> None:
    rows = [(row[0], row[1].replace(".", ","), row[2].replace(".", ","), *row[3:]) for row in ROWS]
    (folder / "corpus.csv").write_text("sep=\t\r\n" + text_of("\t", rows), encoding="utf-8")
    check(do_import("table", folder, columns=["video=Archivo"]))


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        (lambda seconds: f"00:00:{seconds:06.3f}", {}),
        (lambda seconds: f"00:{seconds:06.3f}".replace(".", ","), {}),
        (lambda seconds: f"{seconds * 1000:.0f}", {"unit": "ms"}),
        (lambda seconds: f"{seconds * 25:.0f}", {"unit": "frames", "fps": 25}),
    ],
)
def test_clock_times_milliseconds_and_frames_are_read(
    folder: Path, do_import: Importer, form: Callable[[float], str], settings: dict[str, Any]
) -> None:
    rows = [(row[0], form(float(row[1])), form(float(row[2])), *row[3:]) for row in ROWS]
    (folder / "corpus.tsv").write_text(text_of("\t", rows), encoding="utf-8")
    check(do_import("table", folder, columns=["video=Archivo"], **settings))


def test_a_unit_in_the_columns_name_needs_no_setting(folder: Path, do_import: Importer) -> None:
    header = ("video", "Begin Time - msec", "End Time - msec", "text")
    rows = [(row[0], f"{float(row[1]) * 1000:.0f}", f"{float(row[2]) * 1000:.0f}", row[3]) for row in ROWS]
    (folder / "elan.txt.csv").write_text(text_of("\t", rows, header), encoding="utf-8")
    corpus = do_import("table", folder)
    assert (corpus.column("start")[1], corpus.column("end")[1]) == ("1.96", "3.8")
    with pytest.raises(UserError, match="--unit ms has no effect"):
        do_import("table", folder, unit="ms")


def test_frames_without_a_rate_are_not_guessed(folder: Path, do_import: Importer) -> None:
    (folder / "corpus.csv").write_text("video;start_frame;end_frame;text\ndemo_000;3;46;Hola.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"start '3', end '46' in frames, without frames per second.*column 'fps'"):
        do_import("table", folder)
    text = "video;start_frame;end_frame;text;fps\ndemo_000;3;46;Hola.;25\ndemo_001;3;46;Tú.;25\ndemo_002;3;46;Yo.;25\n"
    (folder / "corpus.csv").write_text(text, encoding="utf-8")
    assert (do_import("table", folder).column("start")[0], do_import("table", folder).column("end")[0]) == (
        "0.12",
        "1.84",
    )


def workbook(path: Path, rows: Any, more: str = "") -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Hoja 1"
    for row in rows:
        sheet.append(row)
    if more:
        book.create_sheet(more).append(["otra", "tabla"])
    book.save(path)


def test_an_excel_sheet_is_read_with_numbers_as_numbers(folder: Path, do_import: Importer) -> None:
    rows = [(row[0], float(row[1]), float(row[2]), *row[3:]) for row in ROWS]
    workbook(folder / "corpus.xlsx", [HEADER, *rows, (None,) * 6])
    check(do_import("table", folder, columns=["video=Archivo"]))
    workbook(folder / "corpus.xlsx", [HEADER, *rows], more="Notas")
    with pytest.raises(UserError, match="several sheets, 'Hoja 1', 'Notas'"):
        do_import("table", folder, columns=["video=Archivo"])
    check(do_import("table", folder, columns=["video=Archivo"], sheet="Hoja 1"))


def test_what_is_not_known_is_asked_for_all_at_once(folder: Path, do_import: Importer) -> None:
    (folder / "corpus.csv").write_text("Clip;Von;Bis;Inhalt\ndemo_000;0;1;Hallo.\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        do_import("table", folder, columns=["start=Von", "signer=Wer"])
    problems = [problem.partition("corpus.csv: ")[2] for problem in error.value.problems]
    assert [problem.partition(", found")[0] for problem in problems] == [
        "no column 'wer' for signer",
        "no column is known to hold the text",
        "no column is known to hold the end",
        "no column is known to name the video",
    ]
    assert "with --column text=NAME" in problems[1]


def test_common_names_of_the_video_column_need_no_setting(folder: Path, do_import: Importer) -> None:
    for name in ("Archivo", "Datei", "Fichier"):
        (folder / "corpus.csv").write_text(text_of(";", header=(name, *HEADER[1:])), encoding="utf-8")
        assert do_import("table", folder).column("video") == ["demo_000", "demo_000", "demo_001", "demo_002"]


def test_a_title_above_the_names_of_the_columns_is_named(folder: Path, do_import: Importer) -> None:
    workbook(folder / "corpus.xlsx", [("Entrevistas 2024",), HEADER, *ROWS])
    with pytest.raises(UserError, match="the first row holds only 'entrevistas 2024', expected the names of the"):
        do_import("table", folder)


def test_a_slip_in_the_name_of_a_video_is_suggested(folder: Path, do_import: Importer) -> None:
    rows = [*ROWS, ("dermo_003.mp4", "0", "1", "Hola.", "HOLA", "Ana"), ("demo_009.mp4", "0", "1", "Sí.", "SÍ", "Ana")]
    (folder / "corpus.csv").write_text(text_of(";", rows), encoding="utf-8")
    with pytest.raises(UserError) as error:
        do_import("table", folder)
    slip, absent, _ = error.value.problems
    assert "no video 'dermo_003' (of 1 clips), but 'demo_003', which may be meant" in slip
    assert "may be meant" not in absent  # another number is another video


def test_a_table_of_glosses_alone_leaves_translation_out(
    folder: Path, do_import: Importer, dry_run: Callable[[str], str]
) -> None:
    rows = "".join(f"demo_00{number};HOLA TÚ\n" for number in range(4))
    (folder / "corpus.csv").write_text(f"video;gloss\n{rows}", encoding="utf-8")
    corpus = do_import("table", folder)
    assert corpus.column("gloss", "annotations/gloss.csv") == ["HOLA TÚ"] * 4
    assert "translation is left out" in dry_run("all")


def test_several_tables_in_a_folder_are_a_question(folder: Path, do_import: Importer) -> None:
    for name in ("a.csv", "b.xlsx"):
        (folder / name).write_text(text_of(";"), encoding="utf-8")
    with pytest.raises(UserError, match=r"found the tables 'a\.csv', 'b\.xlsx', expected one"):
        do_import("table", folder)
    check(do_import("table", folder / "a.csv", columns=["video=Archivo"]))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"columns": ["texto"]}, "'texto' names none of clip_id, video"),
        ({"columns": ["text=a", "text=b"]}, "text is named twice"),
        ({"layout": "elan", "columns": ["text=a"]}, "columns has no effect: --from elan reads no free table"),
        ({"layout": "elan", "captions": "en"}, "captions has no effect: --from elan reads no captions"),
        ({"text_tiers": ["a"]}, "text_tiers has no effect: --from table reads no ELAN files"),
        ({"layout": "how2sign", "fps": 25}, "fps has no effect"),
        ({"layout": "phoenix14t", "unit": "ms"}, "unit has no effect"),
    ],
)
def test_settings_without_effect_are_refused(
    settings: dict[str, Any], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstreams.commands import main

    words = ["import", "--source", "x", "--root", "y", "--from", settings.pop("layout", "table")]
    for key, value in settings.items():
        words += [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert found in capsys.readouterr().err


def test_a_rate_that_nothing_needs_is_refused(folder: Path, do_import: Importer) -> None:
    (folder / "corpus.csv").write_text(text_of(";"), encoding="utf-8")
    with pytest.raises(UserError, match="--fps has no effect: neither times in frames nor folders of frames"):
        do_import("table", folder, columns=["video=Archivo"], fps=25)


def test_two_columns_that_may_hold_the_text_are_a_question_until_one_is_named(
    folder: Path, do_import: Importer
) -> None:
    rows = "".join(f"demo_00{number};uno;dos;0;1\n" for number in range(4))
    (folder / "corpus.csv").write_text(f"video;texto;translation;Von;end\n{rows}", encoding="utf-8")
    with pytest.raises(UserError, match="both texto, translation hold the text"):
        do_import("table", folder, columns=["start=Von"])
    assert do_import("table", folder, columns=["start=Von", "text=translation"]).column("text") == ["dos"] * 4


def test_texts_come_out_as_they_went_in(folder: Path, do_import: Importer) -> None:
    texts = [
        '"Hola," dijo; y se fue.',
        "una\nlínea",
        " a | b ",
        "'x'",
        'dice "no"',
        "ñandú\u0301",
        "你好",
        "=1+1",
        "a;b",
    ]
    sheet = [
        ("id", "video", "text"),
        *((f"c{number}", f"demo_00{number % 4}", text) for number, text in enumerate(texts)),
    ]
    spans = [(*row, number * 0.3, number * 0.3 + 0.3) for number, row in enumerate(sheet[1:])]
    workbook(folder / "corpus.xlsx", [(*sheet[0], "start", "end"), *spans])
    book = openpyxl.load_workbook(folder / "corpus.xlsx")
    for row in book.active.iter_rows(min_row=2, min_col=3, max_col=3):
        row[0].data_type = "s"  # no formula
    book.save(folder / "corpus.xlsx")
    corpus = do_import("table", folder)
    found = scan_meta(corpus.root / "meta.csv")
    assert found.issues == []
    assert [clip.text for clip in found.clips] == [unicodedata.normalize("NFC", text) for text in texts]


def test_a_text_under_an_unknown_name_is_asked_for_though_there_are_glosses(folder: Path, do_import: Importer) -> None:
    rows = "".join(f"demo_00{n};Hello you.;HELLO YOU\n" for n in range(3)) + "demo_003;;HELLO\n"
    (folder / "corpus.csv").write_text(f"video;english;gloss\n{rows}", encoding="utf-8")
    with pytest.raises(UserError, match=r"no column is known to hold the text, found 'video', 'english', 'gloss'"):
        do_import("table", folder)
    corpus = do_import("table", folder, columns=["text=english"])
    assert corpus.column("text") == ["Hello you."] * 3
    assert corpus.counts()["import.empty"] == 1  # though it has a gloss: it would teach to say nothing
