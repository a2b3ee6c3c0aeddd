"""Damaged and hostile tables: findings or one line, whatever their bytes are; no traceback, no hang, no gigabytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from signstreams.corpus.corpus import scan_corpus
from signstreams.corpus.findings import lines
from signstreams.corpus.gloss import scan_gloss
from signstreams.corpus.meta_csv import scan_meta, why_no_texts
from signstreams.corpus.table import MAX_COLUMNS
from signstreams.errors import UserError
from signstreams.extract.annotations import read_annotations
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout

SEED, CASES = 16, 900
VIDEOS = ("a", "b", "c")
PLAIN = """\
id;video;text;start;end;signer;split;box
a1;a;"Hola; ¿qué tal?";0.0;1.5;Ana;train;10 20 110 120
a2;a;Mañana voy a comprar pan.;1.5;3,25;Ana;val;
b1;b;"Dijo ""no"".";0;2;Luis;test;
b2;b;"dos
líneas";2;4.125;Luis;train;
"""
SEGMENTS = """\
clip_id,video,text,split,duration,fps,frame_count
a1,a.mp4,Hola,"[('Hola', 0.1, 0.9), ('chau', 1.0, 2.5)]",2.4,30,72
b1,b,Chau,"[('x', 3, 4)]",1.234.567,25,
c1,c,Fin,train,1,25,25
"""
GLOSS = "clip_id\tgloss\tctc_labels\na1\tHOLA QUÉ-TAL\t1 2\nb1\tNO\t3\n"
BASES = (PLAIN, SEGMENTS, GLOSS)
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le")


def damaged_tables(damage: ModuleType) -> Iterator[bytes]:
    rng = random.Random(SEED)
    for _ in range(CASES):
        text = rng.choice(BASES)
        if rng.random() < 0.3:  # of the text, not of its bytes: an editor, a spreadsheet
            place = rng.randrange(len(text))
            text = (
                text[:place]
                + rng.choice(('"', ";", ",", "\r", "\0", "\u202e", "\ud7ff", "9" * 400, "[(" * 99, "\n"))
                + (text[place + rng.choice((0, 1, 5)) :])
            )
        yield damage.mutated(text.encode(rng.choice(ENCODINGS), "replace"), rng)


def read_all(layout: CorpusLayout) -> int:
    """What every stage reads of the tables; the number of findings, each of one line."""
    texts = lines(scan_corpus(layout).issues)
    texts += lines(scan_meta(layout.meta, VIDEOS, allow_absent_videos=True).issues)
    texts += lines(scan_gloss(layout.meta, ("a1", "b1")).issues)
    for spans_only in (False, True):
        try:
            read_annotations(
                layout, VIDEOS, ExtractConfig(videos=[layout.videos], root=layout.root, spans_only=spans_only)
            )
        except UserError as error:
            texts += error.problems
    try:
        texts += [text for text in [why_no_texts(layout.meta)] if text]
    except UserError as error:
        texts += error.problems
    return len(texts)


def test_no_damage_ends_in_a_traceback_a_hang_or_2_gb(
    corpus_with: Callable[..., CorpusLayout], damage: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = corpus_with(*(f"{video}.mp4" for video in VIDEOS), meta=PLAIN)
    found = 0
    for number, data in enumerate(damaged_tables(damage)):
        layout.meta.write_bytes(data)
        try:
            with damage.bounded():
                found += bool(read_all(layout))
        except BaseException as error:
            error.add_note(f"case {number}: {data!r}")
            raise
    assert found > CASES / 2
    assert "Traceback" not in capsys.readouterr().err


HOSTILE = {
    "a million columns": ";".join(f"c{i}" for i in range(1_000_000)) + "\n" + ";".join("1" * 1_000_000) + "\n",
    "a column of a megabyte": "id;" + "x" * 1_000_000 + "\na;1\n",
    "a megabyte of quotes": "id;text\na;" + '"' * 1_000_000 + "\n",
    "quotes that open in each row": "id;text\n" + 'a;"x\n' * 50_000,
    "pairs of quotes": "id;text\n" + 'a;"""b;""c\n' * 50_000,
    "quotes after the delimiter": "id;text\na" + ';"x""y' * 100_000 + "\n",
    "empty rows": "id;text\n" + "\n" * 300_000,
    "brackets": "id;split\na;" + "[" * 100_000 + "\n",
    "signs": "id;split\na;[" + "-" * 100_000 + "1]\n",
    "a sum": "id;split\na;[" + "1+" * 100_000 + "1]\n",
    "a number of a megabyte": "id;start;end\na;" + "9" * 1_000_000 + ";" + "1." * 500_000 + "\n",
    "one id in each row": "id;text\n" + "a;x\n" * 30_000,
    "ids that are paths": "id;text\n" + "../../etc/passwd;x\n" * 10_000,
    "signers of one name": "id;signer\n" + "".join(f"a{i};{'A' * (i % 90)}\n" for i in range(10_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_large_or_nested_is_read_or_refused_within_seconds(
    name: str, corpus_with: Callable[..., CorpusLayout], damage: ModuleType
) -> None:
    layout = corpus_with(*(f"{video}.mp4" for video in VIDEOS), meta=HOSTILE[name])
    with damage.bounded(most_s=4):
        issues = scan_meta(layout.meta, VIDEOS).issues
        told = lines(issues)
    assert len(told) < 60 and all(len(line) < 3000 and "\n" not in line for line in told)
    if name == "a million columns":
        assert str(f"{1_000_000:,} columns") in told[0] and MAX_COLUMNS < 1_000_000
