"""Texts in the reader's language: how it is chosen, and that the Spanish catalogue has every text, and no other."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic_core._pydantic_core import list_all_errors

from signstreams.commands import main
from signstreams.contract.rules import RULES
from signstreams.language import CATALOGUES, Entry, counted, language, patterns, plural, read_catalogue, tr, translated
from signstreams.pages.render import _environment

from .catalogue import said_texts, shown_texts

SPANISH = read_catalogue((CATALOGUES / "es.po").read_text(encoding="utf-8"))
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def in_spanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("en", {}),
        ("es", {"LANG": "es_AR.UTF-8"}),
        ("es", {"LANG": "es"}),
        ("es", {"LANG": "es_ES@euro"}),
        ("en", {"LANG": "es_AR.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}),
        ("es", {"LANG": "en_US.UTF-8", "LC_MESSAGES": "es_AR.UTF-8"}),
        ("en", {"LANG": "es_AR.UTF-8", "LC_ALL": "C.UTF-8"}),
        ("es", {"LANG": "es_AR.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}),
        ("en", {"LANG": "es_AR.UTF-8", "LANGUAGE": "en:es"}),
        ("es", {"LANG": "en_US.UTF-8", "LANGUAGE": "pt_BR:es_AR:en"}),
        ("en", {"LANG": "en_US.UTF-8", "LANGUAGE": "pt_BR"}),
        ("en", {"LANG": "C", "LANGUAGE": "es"}),
        ("en", {"LANGUAGE": "es"}),
        ("en", {"LANG": "de_DE.UTF-8"}),
    ],
)
def test_the_language_is_chosen_as_gettext_does(
    expected: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_the_tests_are_in_english() -> None:
    assert language() == "en" and tr("good") == "good" and patterns("fact") == []


# -- The catalogue


def test_every_text_has_a_translation_and_every_translation_a_text() -> None:
    shown = shown_texts()
    known = {entry.forms for entry in SPANISH if not entry.context}
    missing = sorted(shown - known)
    assert len(shown) > 300
    assert not missing, "add to locale/es.po:\n" + "\n".join(f'msgid "{one}"\nmsgstr ""' for one, *_ in missing)
    assert not known - shown, "nobody shows these any more: remove them from locale/es.po"
    assert len(known) == len([entry for entry in SPANISH if not entry.context]), "an entry is there twice"


def skeleton(text: str) -> str:
    return re.sub(r"%\(\w+\)s", "%s", text)


def test_every_message_is_one_that_the_code_or_a_library_has() -> None:
    said = said_texts()
    templates = {re.sub(r"{\w+}", "%s", error["message_template_python"]) for error in list_all_errors()}
    of_pydantic = {text[0].lower() + text[1:] for text in templates} | {"'%s' or '%s'"}
    sources = {
        "message": said | {f"%s{text}" for text in said},  # what others begin
        "fact": said,
        "pydantic": of_pydantic,
        "system": {os.strerror(number) for number in range(1, 140)},
    }
    messages = [entry for entry in SPANISH if entry.context]
    assert len(messages) > 300 and {entry.context for entry in messages} == set(sources)
    forms = [(entry.context, form) for entry in messages for form in entry.forms]
    unknown = [form for context, form in forms if skeleton(form) not in sources[context]]
    assert not unknown, "the code says these no more: correct them in locale/es.po"


def test_every_rule_of_the_contract_has_a_translation(in_spanish: None) -> None:
    same = [rule.id for rule in RULES.values() if translated(rule.expects) == rule.expects and rule.id != "meta.span"]
    assert not same


def test_a_translation_has_the_placeholders_of_its_text() -> None:
    pairs = [(entry, *pair) for entry in SPANISH for pair in zip(entry.forms, entry.translations, strict=True)]
    for entry, text, translation in pairs:
        names = re.findall(r"%\((\w+)\)s", text)
        assert set(names) == set(re.findall(r"%\((\w+)\)s", translation)), text
        values = dict.fromkeys(names, "x")
        assert text % values and translation % values  # another percent sign is doubled
        assert re.findall(r"<[^>]*>", text) == re.findall(r"<[^>]*>", translation), text
        assert [part.isspace() for part in (text[0], text[-1])] == [
            part.isspace() for part in (translation[0], translation[-1])
        ], text
        assert not entry.context or len(names) == len(values), f"{text}: each name stands for one value"


@pytest.mark.parametrize(
    ("content", "said"),
    [('msgid "one"\nmsgstr uno\n', "line 2"), ('msgid "one"\nmsgstr ""\n', "one: has no translation")],
)
def test_a_broken_catalogue_says_where(content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_catalogue(content)


def test_a_catalogue_is_read_as_gettext_writes_it() -> None:
    content = (
        'msgid ""\nmsgstr ""\n"Language: es\\n"\n\n'
        '# a note\n#: file.py:3\nmsgctxt "message"\nmsgid ""\n"one "\n"\\"two\\""\nmsgstr "uno"\n\n'
        'msgid "%(num)s day"\nmsgid_plural "%(num)s days"\nmsgstr[0] "%(num)s día"\nmsgstr[1] "%(num)s días"\n'
    )
    assert read_catalogue(content) == [
        Entry(('one "two"',), ("uno",), "message"),
        Entry(("%(num)s day", "%(num)s days"), ("%(num)s día", "%(num)s días"), ""),
    ]


# -- Pages and messages


def test_a_text_is_filled_in_and_counted(in_spanish: None) -> None:
    assert tr("%(low)s to %(high)s", low=1, high=2) == "1 a 2"
    assert [plural("%(num)s frame", "%(num)s frames", num) for num in (1, 3425)] == ["1 cuadro", "3\u202f425 cuadros"]
    assert tr("no such text, 100 %%") == "no such text, 100 %"
    forms = (
        "%(num)s clip of %(videos)s that is not there: %(ids)s",
        "%(num)s clips of %(videos)s that are not there: %(ids)s",
    )
    said = [
        counted(*forms, num, videos=counted("%(num)s video", "%(num)s videos", num), ids="'a'") for num in (1, 1234)
    ]
    assert said == ["1 clip of 1 video that is not there: 'a'", "1,234 clips of 1,234 videos that are not there: 'a'"]
    assert [translated(text) for text in said] == [
        "1 clip de 1 video que no está: 'a'",
        "1\u202f234 clips de 1\u202f234 videos que no están: 'a'",
    ]


def test_no_template_has_a_text_that_is_not_translated() -> None:
    """Between its tags, and in the attributes that are read out or shown."""
    environment = _environment()
    names = {"signstreams", "scores", "json", "fps", "id"}
    for path in sorted(CATALOGUES.with_name("pages").glob("*.html")):
        tokens = environment.lex(path.read_text(encoding="utf-8"))
        page = "".join(text if kind == "data" else "\0" for _, kind, text in tokens)
        page = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
        attributes = re.findall(r'\b(?:title|alt|placeholder|aria-label)="([^"]*)"', page)
        words = re.findall(r"[^\W\d_]{2,}", " ".join([re.sub(r"<[^>]*>", " ", page), *attributes]))
        assert set(words) <= names, path.name


def test_no_script_has_a_text_that_is_not_translated() -> None:
    for path in sorted(CATALOGUES.with_name("pages").glob("*.js")):
        script = re.sub(r"\b(?:tr|plural)\(\"[^\"]*\"(?:, \"[^\"]*\")?", "", path.read_text(encoding="utf-8"))
        script = re.sub(r"^ *//.*|// .*", "", script, flags=re.MULTILINE)
        texts = re.findall(r'(?:textContent|title|alt|aria-label)"?(?: =|,) "(\w[^"]*)"', script)
        texts += [text for text in re.findall(r'"([^"\n]*)"', script) if re.fullmatch(r"[A-Z][\w,' ]* [\w,' ]+", text)]
        assert texts == [], path.name


def test_a_message_is_translated_with_the_messages_in_it(in_spanish: None) -> None:
    found = (
        "meta.csv row 3: the id 'a' again, first in row 2, expected each clip once; keep one of them [gloss.unique_id]"
    )
    assert translated(found) == (
        "meta.csv fila 3: el id 'a' otra vez; primero en la fila 2; se esperaba: cada clip una sola vez;"
        " dejar una sola [gloss.unique_id]"
    )
    assert translated("something else 100 %") == "something else 100 %"
    assert translated("clips: No such file or directory, expected a table of clips").startswith("clips: No existe")


def test_every_message_is_recognised(in_spanish: None) -> None:
    for entry in SPANISH:
        for text, translation in zip(entry.forms, entry.translations, strict=True) if entry.context else ():
            names = re.findall(r"%\((\w+)\)s", text)
            values = {name: "1,234" if name in ("all", "num", "row") else f"<{name}>" for name in names}
            shown = {name: value.replace(",", "\u202f") for name, value in values.items()}
            assert translated(text % values) == translation % shown, text


def test_a_message_is_not_taken_for_another(in_spanish: None) -> None:
    assert translated("the columns 'a', 'b' and 7 more") == "las columnas 'a', 'b' y 7 más"
    found = "1 of 2 rows without exact times (max_untimed_fraction 0.05): rows 2"
    assert translated(f"meta.csv: {found}, expected a text for every clip; correct the times [clip.times]") == (
        "meta.csv: 1 de 2 filas sin tiempos exactos (max_untimed_fraction 0.05): filas 2;"
        " se esperaba: un texto para cada clip; corregir los tiempos [clip.times]"
    )


def test_a_message_that_quotes_another_is_translated_whole(in_spanish: None) -> None:
    quoted = "m.csv: no such file; its column 'text' holds what the translation model learns to write"
    said = "m.csv: no existe ese archivo; su columna 'text' contiene lo que el modelo de traducción aprende a escribir"
    assert translated(quoted) == said
    assert translated(f"translation is left out: {quoted}") == f"la traducción queda afuera: {said}"


MISTAKES = [
    (["validate", "--rot", "x"], "argumento desconocido: '--rot'; ¿quisiste decir '--root'?"),
    (["validat"], "comando desconocido: 'validat'; ¿quisiste decir 'validate'?"),
    (["extract", "--set", "fsp=3"], "clave desconocida: 'fsp' (--set fsp); ¿quisiste decir 'fps'?"),
    (["extract", "--fps", "many"], "fps = 'many' (--fps): tiene que ser un número"),
    (["extract", "--crop-px", "1"], "crop_px = '1' (--crop-px): tiene que ser mayor o igual que"),
    (["extract", "--set", "fps"], "--set fps: se esperaba CLAVE=VALOR o CLAVE VALOR"),
    (["extract", "--config", "no.yaml"], "no.yaml: No existe ese archivo o carpeta; se esperaba un archivo TOML"),
    (
        ["extract", "--videos", "nowhere", "--root", "."],
        "nowhere: no existe ese archivo ni carpeta; se esperaba un video",
    ),
    (["extract", "--videos", "empty", "--root", "."], "empty: no hay videos en esta carpeta; se esperaban archivos"),
    (["translate", "x.mp4", "--checkpoint", "no.pt"], "no.pt: no existe ese archivo; se esperaba un modelo entrenado"),
    (["split", "--root", "empty"], "empty/videos: no existe esa carpeta; se esperaba: una carpeta con videos"),
]


@pytest.mark.parametrize(
    ("words", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_common_mistakes_are_answered_in_spanish(
    words: list[str],
    said: str,
    in_spanish: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.mp4").touch()
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err
