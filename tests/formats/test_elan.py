"""ELAN files: what an independent reader (pympi) finds in ours, and what we find in those of ELAN and of pympi."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.formats.elan import BROKEN_REFERENCE, ID_TWICE, TIER_TWICE, Tier, read_elan, write_elan
from signstreams.formats.subtitles import NO_LENGTH, UNREADABLE_TIMES, Cue

SENTENCES = [Cue(0.5, 2.0, "Mañana llueve & <hace> frío"), Cue(2.0, 3.25, "“Sí”")]
GLOSSES = [Cue(0.5, 1.0, "MAÑANA"), Cue(1.2, 2.0, "LLUVIA"), Cue(2.1, 3.25, "SÍ")]


def test_an_independent_reader_opens_what_is_written(tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi")
    video = tmp_path / "videos" / "año nuevo.mp4"
    video.parent.mkdir()
    video.touch()
    path = tmp_path / "out.eaf"
    write_elan(path, [Tier("translation", SENTENCES), Tier("gloss", GLOSSES, parent="translation")], video)
    found = pympi.Elan.Eaf(str(path))
    assert found.get_annotation_data_for_tier("translation") == [
        (500, 2000, "Mañana llueve & <hace> frío"),
        (2000, 3250, "“Sí”"),
    ]
    assert [row[2] for row in found.get_annotation_data_for_tier("gloss")] == ["MAÑANA", "LLUVIA", "SÍ"]
    assert found.get_parameters_for_tier("gloss")["PARENT_REF"] == "translation"
    (linked,) = found.get_linked_files()
    assert linked["MIME_TYPE"] == "video/mp4"
    own = read_elan(path)
    assert own.tiers["translation"].annotations == SENTENCES
    assert own.tiers["gloss"].annotations == GLOSSES
    assert own.faults == []
    assert own.video(tmp_path) == video
    (tmp_path / "moved").mkdir()
    video.rename(tmp_path / "moved" / video.name)
    assert own.video(tmp_path / "moved") == tmp_path / "moved" / video.name


def test_what_an_independent_writer_wrote_is_read(tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi")
    document = pympi.Elan.Eaf()
    document.add_linguistic_type("words", "Symbolic_Subdivision", timealignable=False)
    document.add_linguistic_type("note", "Symbolic_Association", timealignable=False)
    document.add_tier("A_sentence", part="Ana")
    document.add_tier("A_gloss", ling="words", parent="A_sentence", part="Ana")
    document.add_tier("A_note", ling="note", parent="A_gloss")
    document.add_annotation("A_sentence", 1000, 4000, "una frase")
    document.add_ref_annotation("A_gloss", "A_sentence", 1000, "UNO")
    first = next(iter(document.tiers["A_gloss"][1]))
    document.add_ref_annotation("A_gloss", "A_sentence", 1000, "DOS", prev=first)
    path = tmp_path / "in.eaf"
    document.to_file(str(path))
    found = read_elan(path)
    assert found.tiers["A_sentence"].annotations == [Cue(1.0, 4.0, "una frase")]
    assert found.tiers["A_sentence"].participant == "Ana"
    assert found.tiers["A_gloss"].parent == "A_sentence"
    assert found.tiers["A_gloss"].annotations == [Cue(1.0, 2.5, "UNO"), Cue(2.5, 4.0, "DOS")]
    assert found.tiers["A_note"].annotations == []


def document(tiers: str, slots: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT AUTHOR="" DATE="" FORMAT="3.0" VERSION="3.0">'
        '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/a.mp4"'
        ' MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./a.mp4" TIME_ORIGIN="1500"/></HEADER>'
        f"<TIME_ORDER>{slots}</TIME_ORDER>{tiers}</ANNOTATION_DOCUMENT>"
    )


def alignable(name: str, first: str, last: str, text: str) -> str:
    return (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}" TIME_SLOT_REF1="{first}" TIME_SLOT_REF2="{last}">'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
    )


def test_slots_without_a_time_lie_evenly_and_what_is_wrong_is_a_fault(tmp_path: Path) -> None:
    slots = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="t{n}"{f" TIME_VALUE={chr(34)}{value}{chr(34)}" if value else ""}/>'
        for n, value in enumerate(["1000", "", "", "4000", "4000", "x", "9000", ""])
    )
    tiers = (
        '<TIER TIER_ID="s" LINGUISTIC_TYPE_REF="u">'
        + alignable("a1", "t0", "t1", "uno")
        + alignable("a2", "t1", "t2", "dos\n  partes")
        + alignable("a3", "t3", "t4", "nada")
        + alignable("a4", "t6", "t7", "sin fin")
        + "</TIER>"
        '<TIER TIER_ID="r" LINGUISTIC_TYPE_REF="u" PARENT_REF="s"><ANNOTATION>'
        '<REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a4"><ANNOTATION_VALUE>x</ANNOTATION_VALUE></REF_ANNOTATION>'
        "</ANNOTATION></TIER>"
    )
    path = tmp_path / "x.eaf"
    path.write_text(document(tiers, slots), encoding="utf-8")
    found = read_elan(path)
    assert found.tiers["s"].annotations == [Cue(1.0, 2.0, "uno"), Cue(2.0, 3.0, "dos partes")]
    assert found.media[0].origin_s == 1.5
    kinds = [(fault.kind, fault.place) for fault in found.faults]
    assert kinds == [
        (UNREADABLE_TIMES, "time slot 't5'"),
        (UNREADABLE_TIMES, "tier 's', annotation 'a4'"),
        (BROKEN_REFERENCE, "tier 'r', annotation 'a5'"),
        (NO_LENGTH, "tier 's', annotation 'a3'"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hello", "is not XML"),
        ("<html/>", "is not an ELAN file: its root is 'html'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><ANNOTATION_DOCUMENT/>', "declares a DOCTYPE"),
    ],
)
def test_another_file_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.eaf"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        read_elan(path)


@pytest.mark.parametrize(
    ("tiers", "reason"),
    [
        ([Tier("a", [Cue(0, 1), Cue(0.5, 2)])], "annotations 1 and 2 overlap"),
        ([Tier("a", [Cue(1, 1.0001)])], "annotation 1 has no length"),
        ([Tier("a", [Cue(0, 1)]), Tier("b", [Cue(0.5, 1.5)], parent="a")], "annotation 1 is within none of 'a'"),
    ],
)
def test_what_elan_could_not_hold_is_not_written(tiers: list[Tier], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        write_elan(tmp_path / "x.eaf", tiers)
    assert list(tmp_path.iterdir()) == []


# Files of others: lines, units, links, damage

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT FORMAT="3.0" VERSION="3.0">\n'
SLOTS = """<TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="100"/>
<TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1500"/>
<TIME_SLOT TIME_SLOT_ID="ts3"/>
<TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2500"/>
</TIME_ORDER>
"""


def dependent(name: str, parent: str, value: str) -> str:
    return (
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{name}" ANNOTATION_REF="{parent}"><ANNOTATION_VALUE>{value}'
        "</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>\n"
    )


def tier(name: str, body: str, **attributes: str) -> str:
    more = "".join(f' {key.upper()}="{value}"' for key, value in attributes.items())
    return f'<TIER TIER_ID="{name}"{more}>\n{body}</TIER>\n'


def write(tmp_path: Path, body: str, header: str = "<HEADER/>\n") -> Path:
    path = tmp_path / "a.eaf"
    path.write_text(f"{HEAD}{header}{SLOTS}{body}</ANNOTATION_DOCUMENT>\n", encoding="utf-8")
    return path


def test_annotations_have_times_values_and_lines(tmp_path: Path) -> None:
    body = alignable("a2", "ts2", "ts4", "dos &amp; tres") + "\n" + alignable("a1", "ts1", "ts2", "uno")
    found = read_elan(write(tmp_path, tier("frase", body, participant=" Ana ")))
    assert (found.tiers["frase"].participant, found.faults) == ("Ana", [])
    assert found.tiers["frase"].annotations == [Cue(0.1, 1.5, "uno"), Cue(1.5, 2.5, "dos & tres")]
    assert [cue.line for cue in found.tiers["frase"].annotations] == [12, 11]


def test_dependent_annotations_have_the_times_of_those_they_belong_to_over_several_tiers(tmp_path: Path) -> None:
    body = tier("c", dependent("a3", "a2", "tres")) + tier("b", dependent("a2", "a1", "dos"))
    found = read_elan(write(tmp_path, body + tier("a", alignable("a1", "ts1", "ts2", "uno"))))
    assert [(t.annotations[0].start_s, t.annotations[0].end_s) for t in found.tiers.values()] == [(0.1, 1.5)] * 3


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (alignable("a1", "ts1", "ts9", "sin lugar"), UNREADABLE_TIMES),
        (dependent("a1", "a2", "x") + dependent("a2", "a1", "y"), BROKEN_REFERENCE),
    ],
)
def test_annotations_without_times_are_faults_with_their_lines(tmp_path: Path, body: str, kind: str) -> None:
    found = read_elan(write(tmp_path, tier("a", body)))
    assert found.tiers["a"].annotations == []
    assert {fault.kind for fault in found.faults} == {kind} and found.faults[0].line == 11


def test_a_tier_that_occurs_twice_is_a_fault_and_both_are_read(tmp_path: Path) -> None:
    body = tier("a", alignable("a1", "ts2", "ts4", "dos")) + tier("a", alignable("a2", "ts1", "ts2", "uno"))
    found = read_elan(write(tmp_path, body))
    assert [(fault.kind, fault.line) for fault in found.faults] == [(TIER_TWICE, 12)]
    assert [cue.text for cue in found.tiers["a"].annotations] == ["uno", "dos"]


def test_frames_as_the_unit_are_read_and_others_refused(tmp_path: Path) -> None:
    body = tier("a", alignable("a1", "ts1", "ts2", "uno"))
    found = read_elan(write(tmp_path, body, '<HEADER TIME_UNITS="PAL-frames"/>\n'))
    assert found.tiers["a"].annotations == [Cue(4.0, 60.0, "uno")]
    with pytest.raises(ValueError, match="its times are in 'NUM_FRAMES', expected milliseconds or PAL-frames"):
        read_elan(write(tmp_path, body, '<HEADER TIME_UNITS="NUM_FRAMES"/>\n'))


BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(12))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not XML"),
        (HEAD.encode() + b"<TIER", "is not XML"),
        (b"\xff\xfe\x00", "is not XML"),
        (f"<!DOCTYPE a [{BOMB}]><a>&e11;</a>".encode(), "is not XML .Maximum entity amplification|declares a DOCTYPE"),
    ],
)
def test_damaged_and_hostile_files_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.eaf").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_elan(tmp_path / "a.eaf")


def test_entities_bring_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    text = write(tmp_path, tier("a", alignable("a1", "ts1", "ts2", "&x;"))).read_text(encoding="utf-8")
    start = f'<!DOCTYPE ANNOTATION_DOCUMENT [<!ENTITY x SYSTEM "{tmp_path / "secret"}">]>'
    (tmp_path / "a.eaf").write_text(text.replace("?>\n", f"?>\n{start}\n", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="declares a DOCTYPE"):
        read_elan(tmp_path / "a.eaf")


def test_annotations_with_one_id_keep_their_own_times(tmp_path: Path) -> None:
    slots = "".join(f'<TIME_SLOT TIME_SLOT_ID="t{n}" TIME_VALUE="{1000 * n}"/>' for n in range(5))
    slots += '<TIME_SLOT TIME_SLOT_ID="t4" TIME_VALUE="9000"/>'
    tiers = (
        f'<TIER TIER_ID="s" LINGUISTIC_TYPE_REF="u">{alignable("a1", "t0", "t1", "uno")}</TIER>'
        f'<TIER TIER_ID="g" LINGUISTIC_TYPE_REF="u">{alignable("a1", "t2", "t3", "DOS")}'
        f"{alignable('a2', 't3', 't4', 'TRES')}</TIER>"
    )
    path = tmp_path / "x.eaf"
    path.write_text(document(tiers, slots), encoding="utf-8")
    found = read_elan(path)
    assert found.tiers["s"].annotations == [Cue(0, 1, "uno")]
    assert found.tiers["g"].annotations == [Cue(2, 3, "DOS")]
    assert [(fault.kind, fault.place) for fault in found.faults] == [
        (ID_TWICE, "time slot 't4'"),
        (ID_TWICE, "tier 'g', annotation 'a1'"),
        (UNREADABLE_TIMES, "tier 'g', annotation 'a2'"),
    ]
