"""ELAN files are read with their lines, times and links; what is damaged is a finding and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.corpus.eaf import read_eaf

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT FORMAT="3.0" VERSION="3.0">\n'
SLOTS = """<TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="100"/>
<TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1500"/>
<TIME_SLOT TIME_SLOT_ID="ts3"/>
<TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2500"/>
</TIME_ORDER>
"""


def annotation(name: str, first: int, last: int, value: str) -> str:
    slots = f'TIME_SLOT_REF1="ts{first}" TIME_SLOT_REF2="ts{last}"'
    return (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}" {slots}>'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>\n"
    )


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
    body = tier("frase", annotation("a2", 2, 4, "dos &amp; tres") + annotation("a1", 1, 2, "uno"), participant=" Ana ")
    eaf = read_eaf(write(tmp_path, body), "a.eaf")
    (found,) = eaf.tiers
    assert (found.participant, eaf.issues) == ("Ana", [])
    assert [(a.start_s, a.end_s, a.value, a.line) for a in found.annotations] == [
        (0.1, 1.5, "uno", 12),
        (1.5, 2.5, "dos & tres", 11),
    ]


def test_a_dependent_annotation_has_the_times_of_the_one_it_belongs_to_over_several_tiers(tmp_path: Path) -> None:
    body = tier("c", dependent("a3", "a2", "tres")) + tier("b", dependent("a2", "a1", "dos"))
    eaf = read_eaf(write(tmp_path, body + tier("a", annotation("a1", 1, 2, "uno"))), "a.eaf")
    assert [(t.annotations[0].start_s, t.annotations[0].end_s) for t in eaf.tiers] == [(0.1, 1.5)] * 3


@pytest.mark.parametrize(
    "body",
    [
        tier("a", annotation("a1", 1, 3, "sin fin")),
        tier("a", annotation("a1", 1, 9, "sin lugar")),
        tier("a", dependent("a1", "a2", "x") + dependent("a2", "a1", "y")),
    ],
)
def test_annotations_without_times_are_reported_with_their_lines(tmp_path: Path, body: str) -> None:
    eaf = read_eaf(write(tmp_path, body), "a.eaf")
    (issue,) = eaf.issues
    assert issue.rule == "elan.times" and "in the lines 11" in issue.found
    assert eaf.tiers[0].annotations == []


def test_a_tier_that_occurs_twice_is_reported_and_both_are_read(tmp_path: Path) -> None:
    body = tier("a", annotation("a1", 1, 2, "uno")) + tier("a", annotation("a2", 2, 4, "dos"))
    eaf = read_eaf(write(tmp_path, body), "a.eaf")
    assert [issue.rule for issue in eaf.issues] == ["elan.tier_once"]
    assert [t.annotations[0].value for t in eaf.tiers] == ["uno", "dos"]


def test_media_are_named_without_their_folders(tmp_path: Path) -> None:
    links = (
        '<MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/a%20b/c.d.mp4" TIME_ORIGIN="2500"/>',
        '<MEDIA_DESCRIPTOR MEDIA_URL="C:\\corpus\\x.mpg"/>',
    )
    eaf = read_eaf(write(tmp_path, "", f"<HEADER>{''.join(links)}</HEADER>\n"), "a.eaf")
    assert [(m.stem, m.name, m.origin_s) for m in eaf.media] == [("c.d", "c.d.mp4", 2.5), ("x", "x.mpg", 0.0)]


def test_frames_as_the_unit_are_read_and_others_refused(tmp_path: Path) -> None:
    body = tier("a", annotation("a1", 1, 2, "uno"))
    eaf = read_eaf(write(tmp_path, body, '<HEADER TIME_UNITS="PAL-frames"/>\n'), "a.eaf")
    assert eaf.tiers[0].annotations[0].start_s == 4.0
    (issue,) = read_eaf(write(tmp_path, body, '<HEADER TIME_UNITS="NUM_FRAMES"/>\n'), "a.eaf").issues
    assert "times in 'NUM_FRAMES'" in issue.found


BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(12))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "damaged XML"),
        (b"no xml", "damaged XML"),
        (b"<html/>", "an XML file of 'html'"),
        (HEAD.encode() + b"<TIER", "damaged XML"),
        (b"\xff\xfe\x00", "damaged XML"),
        (f"<!DOCTYPE a [{BOMB}]><a>&e11;</a>".encode(), "damaged XML: Maximum entity amplification"),
    ],
)
def test_what_is_no_elan_file_is_one_finding(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.eaf").write_bytes(content)
    eaf = read_eaf(tmp_path / "a.eaf", "a.eaf")
    (issue,) = eaf.issues
    assert issue.rule == "elan.file" and issue.found.startswith(found)
    assert (eaf.tiers, eaf.media) == ([], [])


def test_entities_bring_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    body = tier("a", annotation("a1", 1, 2, "&x;"))
    text = write(tmp_path, body).read_text(encoding="utf-8")
    start = f'<!DOCTYPE ANNOTATION_DOCUMENT [<!ENTITY x SYSTEM "{tmp_path / "secret"}">]>'
    (tmp_path / "a.eaf").write_text(text.replace("?>\n", f"?>\n{start}\n", 1), encoding="utf-8")
    eaf = read_eaf(tmp_path / "a.eaf", "a.eaf")
    assert all("secret" not in a.value for t in eaf.tiers for a in t.annotations)
