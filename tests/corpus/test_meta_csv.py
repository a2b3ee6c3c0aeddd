"""meta.csv by alias, delimiter and encoding; exact times only; all problems at once."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from signstreams.corpus.clips import Clip, parse_segments
from signstreams.corpus.findings import lines, raise_errors
from signstreams.corpus.meta_csv import MetaTable, scan_meta, why_no_texts
from signstreams.errors import UserError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "meta.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_meta(path: Path, videos: set[str] | None = None) -> MetaTable:
    table = scan_meta(path, videos)
    raise_errors(table.issues)
    return table


def read(folder: Path, text: str | bytes, videos: set[str] | None = None) -> MetaTable:
    return read_meta(write(folder, text), videos)


def problems(folder: Path, text: str | bytes, videos: set[str] | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(folder, text, videos)
    return caught.value.problems


def rules(table: MetaTable) -> list[str]:
    return [issue.rule for issue in table.issues]


def test_all_exact_clips_of_lsa_t_are_recovered_and_the_others_reported(shared_data: Path) -> None:
    table = read_meta(shared_data / "lsat_meta.csv")
    assert len(table.clips) == 8412
    assert len(table.untimed_rows) == 47
    assert table.num_rows == 8459 == len(table.clips) + len(table.untimed_rows)
    reported = [issue.row for issue in table.issues if issue.rule == "meta.times"]
    assert reported == table.untimed_rows
    assert table.untimed_rows[:3] == [217, 226, 342]
    assert len({clip.clip_id for clip in table.clips}) == 8412
    assert all(clip.start_s is not None and clip.end_s is not None for clip in table.clips)
    assert all(0.1 < clip.end_s - clip.start_s < 120 for clip in table.clips)  # type: ignore[operator]
    assert max(clip.end_s for clip in table.clips) < 4100  # type: ignore[type-var]


def test_a_mangled_time_of_lsa_t_is_read_from_its_segments(shared_data: Path) -> None:
    by_row = {clip.row: clip for clip in read_meta(shared_data / "lsat_meta.csv").clips}
    assert by_row[16].start_s == pytest.approx(165.33)
    assert by_row[16].text == " ¡hola! ¿como están?"
    assert (by_row[8460].start_s, by_row[8460].end_s) == (532.66, 536.75)  # no segments, plain numbers


@pytest.mark.parametrize("delimiter", [";", ","])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_delimiter_byte_order_mark_and_line_ends_make_no_difference(
    tmp_path: Path, delimiter: str, mark: str, line_end: str
) -> None:
    rows = [["video_id", "texto", "start", "end"], ["añ o", '"uno; dos, tres"', "0.5", "2"]]
    text = mark + line_end.join(delimiter.join(row) for row in rows) + line_end
    assert read(tmp_path, text).clips == [Clip("añ o", "añ o", "uno; dos, tres", 0.5, 2.0, row=2)]


@pytest.mark.parametrize(
    ("header", "clip_id", "video_id"),
    [
        ("clip_id;id;video_id;video", "a", "d"),
        ("clip_id;id;video_id;x", "a", "c"),
        ("x;id;video_id;video", "b", "d"),
        ("x;id;video_id;y", "b", "c"),
        ("x;y;video_id;video", "c", "d"),
        ("x;y;video_id;z", "c", "c"),
        ("ID;x;y;VIDEO", "a", "d"),
    ],
)
def test_the_id_column_is_chosen_by_precedence(tmp_path: Path, header: str, clip_id: str, video_id: str) -> None:
    (clip,) = read(tmp_path, f"{header}\na;b;c;d\n").clips
    assert (clip.clip_id, clip.video_id) == (clip_id, video_id)


def test_all_columns_are_read(tmp_path: Path) -> None:
    header = "id,video,text,start,end,duration,fps,frame_count,signer,split,box"
    (clip,) = read(tmp_path, f"{header}\na,v.MP4, hi ,1,2,1,25,25,ana,dev,[1 2 30 40]\n").clips
    expected = Clip("a", "v", " hi ", 1.0, 2.0, "ana", "val", (1.0, 2.0, 30.0, 40.0), 1.0, 25.0, 25, 2)
    assert clip == expected
    assert not clip.is_whole_video


def test_a_text_may_hold_quotes_and_line_breaks(tmp_path: Path) -> None:
    table = read(tmp_path, 'id;text\na;"dijo ""hola""\ny se fue"\n\nb;"x"\n')
    assert [(clip.text, clip.row) for clip in table.clips] == [('dijo "hola"\ny se fue', 2), ("x", 4)]


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, "id;playlist\na;b\n")
    assert [issue.severity for issue in table.issues] == ["info"]
    assert "playlist" in table.issues[0].found


def test_without_spans_a_clip_is_the_whole_video(tmp_path: Path) -> None:
    clips = read(tmp_path, "id;video;text\na;v;x\nb;w;y\n").clips
    assert [(clip.video_id, clip.is_whole_video) for clip in clips] == [("v", True), ("w", True)]


def test_an_empty_span_is_the_whole_video_only_where_no_other_clip_shares_it(tmp_path: Path) -> None:
    table = read(tmp_path, "id;video;start;end\na;v;0;1\nb;v;;\nc;w;;\nd;;;\n")
    assert [clip.clip_id for clip in table.clips] == ["a", "c"]
    assert table.clips[1].is_whole_video
    assert table.untimed_rows == [3, 5]


def test_mangled_times_without_segments_give_no_clip(tmp_path: Path) -> None:
    text = "id;start;end\na;16.532.999.999.999.900;170\nb;1;\nc;5;1.001.233\nd;1.234;2\ne;1.23;2\nf;0.5;7.321\n"
    table = read(tmp_path, text)
    assert [(clip.clip_id, clip.start_s, clip.end_s) for clip in table.clips] == [("e", 1.23, 2.0)]
    assert table.untimed_rows == [2, 3, 4, 5, 7]  # 1.234 and 7.321 stand in columns with mangled numbers
    assert rules(table).count("meta.numbers") == 2


def test_decimal_commas_of_a_spanish_spreadsheet_are_read(tmp_path: Path) -> None:
    table = read(tmp_path, "id;start;end;duration;fps\na;0,08;1,234;1,154;25\nb;2;3,5;;29,97\n")
    times = [(clip.start_s, clip.end_s, clip.duration_s, clip.fps) for clip in table.clips]
    assert times == [(0.08, 1.234, 1.154, 25.0), (2.0, 3.5, None, 29.97)]
    assert table.issues == []


@pytest.mark.parametrize(
    ("rows", "said", "fix"),
    [
        (
            "a;00:00:05;00:00:06",
            "'start' with colons but without milliseconds, such as '00:00:05' in row 2",
            "write seconds with a point",
        ),
        ("a;0,08;1.5", "'start' with a decimal comma, such as '0,08' in row 2", "write a point instead"),
        ("a;1,234;5", "'start' with a decimal comma, such as '1,234' in row 2", "write a point instead"),
        ("a;soon;5", "'start' without a number, such as 'soon' in row 2", "write plain numbers"),
        ("a;1.001.233;5", "'start' without the decimal mark", "export the table again without thousands separators"),
    ],
)
def test_a_number_that_cannot_be_read_is_named_by_its_form(tmp_path: Path, rows: str, said: str, fix: str) -> None:
    table = read(tmp_path, f"id;start;end\n{rows}\n")
    assert (table.clips, table.untimed_rows) == ([], [2])
    (first, *_) = [issue for issue in table.issues if issue.rule == "meta.numbers"]
    assert said in first.found
    assert first.fix.startswith(fix)
    (times,) = [issue for issue in table.issues if issue.rule == "meta.times"]
    is_other_form = "colon" in said or "hh:mm" in said or "comma" in said
    assert times.fix.startswith("write seconds with a point" if is_other_form else "fill them in")


@pytest.mark.parametrize("comma", [".", ","])
def test_times_of_annotation_tools_are_read(tmp_path: Path, comma: str) -> None:
    rows = "a;v;00:01:05.500;00:01:07.250;00:00:01.750;25\nb;v;1:10.000;71.5;;25\nc;v;00:01:20;00:01:21;;25\n"
    table = read(tmp_path, "id;video;start;end;duration;fps\n" + rows.replace(".", comma))
    times = [(clip.start_s, clip.end_s, clip.duration_s) for clip in table.clips]
    expected = [(65.5, 67.25, 1.75), (70.0, 71.5, None)]
    assert times == (expected if comma == "." else expected[:1])  # 71,5 beside colons: not beyond doubt
    assert rules(table).count("meta.numbers") == (2 if comma == "." else 3)


def test_a_rate_is_no_time(tmp_path: Path) -> None:
    table = read(tmp_path, "id;start;end;fps\na;0;1;00:00:25.000\n")
    assert (table.clips[0].fps, rules(table)) == (None, ["meta.numbers"])


def test_forms_of_one_column_are_told_apart(tmp_path: Path) -> None:
    table = read(tmp_path, "id;start;end\na;1.001.233;1\nb;1.234;2\nc;00:00:05;6\nd;0,5;6\n")
    found = [issue.found for issue in table.issues if issue.rule == "meta.numbers"]
    assert [text.partition(",")[0] for text in found] == [
        "2 values of the column 'start' without the decimal mark",
        "1 value of the column 'start' with colons but without milliseconds",
        "1 value of the column 'start' with a decimal comma",
    ]


def test_a_row_without_a_clip_keeps_its_video_and_its_box(tmp_path: Path) -> None:
    rows = "a;v;00:00:01;2;;1 2 3 4\nb;w;5;4;;1 2 3 4\nc;x;0;1;trial;1 2 3 4\n../d;y.mp4;0;1;;1 2 3 4\n"
    table = scan_meta(write(tmp_path, f"id;video;start;end;split;box\n{rows}"))
    assert table.clips == []
    assert [(row.video_id, row.box) for row in table.rows] == [(video, (1.0, 2.0, 3.0, 4.0)) for video in "vwxy"]
    assert table.named_videos == set("vwxy")


def test_segments_give_exact_times_whatever_the_columns_say(tmp_path: Path) -> None:
    segments = "\"[('uno', 1.0, 2.5), ('dos', 2.6, 4.25)]\""
    table = read(tmp_path, f"id;start;end;split\na;1.000.000.000;4.25;{segments}\nb;;;{segments}\nc;1;9;{segments}\n")
    assert [(clip.start_s, clip.end_s, clip.split) for clip in table.clips] == [(1.0, 4.25, None)] * 3
    (disputed,) = [issue for issue in table.issues if issue.rule == "meta.times_agree"]
    assert disputed.row == 4


@pytest.mark.parametrize(
    "cell",
    [
        *("[]", "[1, 2]", "[('a', 1.0)]", "[('a', 2.0, 1.0)]", "[('a', '1', '2')]", "[('a', 1.0, 2.0)"),
        *("[('a', 1e999, 2)]", f"[('a', 1, {10**400})]", "[('a', True, 2)]", "[(1, 2.0, 3.0)]"),
        *("[__import__('os').getcwd()]", "[" * 5000, "{'a': 1}"),
    ],
)
def test_damaged_segments_give_no_times(tmp_path: Path, cell: str) -> None:
    assert parse_segments(cell) is None
    if cell.startswith("["):
        table = scan_meta(write(tmp_path, f'id;split\na;"{cell}"\n'))
        assert (table.clips, table.untimed_rows) == ([], [2])


def test_a_duration_that_is_not_the_span_is_not_used(tmp_path: Path) -> None:
    table = read(tmp_path, "id;start;end;duration\na;0;2;2.01\nb;0;2;3\nc;0;2;20.000.000.000\n")
    assert [clip.duration_s for clip in table.clips] == [2.01, None, None]
    assert rules(table) == ["meta.numbers", "meta.duration"]


def test_ids_that_could_leave_their_folder_are_refused_by_name(tmp_path: Path) -> None:
    lines = problems(tmp_path, 'id;video\n../x;v\n/etc/passwd;v\na\x00b;v\n"a\nb";v\n.hidden;v\n;v\nok;../w\n')
    assert len(lines) == 7
    assert "row 2: the clip id '../x'" in lines[0]
    assert "U+0000" in lines[2]
    assert "U+000A" in lines[3]
    assert "\n" not in "".join(lines)
    assert "row 8: the video id '../w'" in lines[6]


def test_a_clip_with_times_needs_a_video(tmp_path: Path) -> None:
    assert "meta.video_id" in problems(tmp_path, "id;video;start;end\na;;0;1\n")[0]


def test_duplicate_ids_are_named_with_their_rows(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "id\na\nb\na\n")
    assert "'a' is in the rows 2, 4" in line


def test_an_unknown_id_column_says_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "name;texto\na;b\n")
    assert "'name', 'texto'" in line
    assert "clip_id, id, video_id" in line
    assert "no header" in problems(tmp_path, "\n")[0]


@pytest.mark.parametrize("row", ["a;2;1", "a;1;1", "a;-1;1"])
def test_an_end_not_after_its_start_is_an_error(tmp_path: Path, row: str) -> None:
    assert "[meta.span]" in problems(tmp_path, f"id;start;end\n{row}\n")[0]


def test_encodings_are_recognised(tmp_path: Path) -> None:
    text = "id;texto\na;¿mañana?\nb;“sí”\n"
    for encoding, name in (
        ("cp1252", "Windows-1252"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
    ):
        table = scan_meta(write(tmp_path, text.encode(encoding)))
        assert [clip.text for clip in table.clips] == ["¿mañana?", "“sí”"], encoding
        ((rule, found, severity),) = [(issue.rule, issue.found, issue.severity) for issue in table.issues]
        assert (rule, severity) == ("table.converted", "warning") and name in found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (
            "id;texto\na;mañana\n".encode() + "b;sí\n".encode("cp1252"),
            "0xed in line 3 is not UTF-8, though other letters",
        ),
        ("id;texto\na;mañana\n".encode("mac_roman"), "0x96 in line 2 is not UTF-8"),
        ("id;texto\na;завтра\n".encode("koi8_r"), "in line 2 is not UTF-8"),
        ("id;texto\na;señal\n".encode("utf-16")[:-1], "damaged UTF-16"),
        (b"PK\x03\x04\x14\x00[Content_Types].xml", "workbook, no CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
    ],
)
def test_what_is_not_text_beyond_doubt_is_named_and_refused(tmp_path: Path, data: bytes, found: str) -> None:
    (line,) = problems(tmp_path, data)
    assert found in line and "[table.encoding]" in line
    assert ("in Excel, save it as CSV UTF-8" in line) == ("workbook" in found)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("a;hola\x93;S", "U+0093"),
        ("a;un\x07o;S", "U+0007"),
        ("a;hola;Se\x96ora", "U+0096"),
        ("a;\x1b[31mrojo;S", "U+001B"),
    ],
)
def test_control_characters_anywhere_are_an_error(tmp_path: Path, row: str, found: str) -> None:
    (line,) = problems(tmp_path, f"id;text;signer\nz;chau;S\n{row}\n")
    assert line.startswith(f"meta.csv row 3: the control character {found}") and "[table.control]" in line


def test_control_characters_of_a_wrong_conversion_are_an_error(tmp_path: Path) -> None:
    wrong = "id;texto\na;“sí”\n".encode("cp1252").decode("latin-1").encode()
    (line,) = problems(tmp_path, wrong)
    assert line.startswith("meta.csv row 2: the control character U+0093") and "[table.control]" in line


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}\n", "SEP={}\r\n", '"sep={}"\n'])
def test_the_delimiter_is_found_or_told(tmp_path: Path, delimiter: str, first: str) -> None:
    text = (
        first.format(delimiter)
        + delimiter.join(("id", "text", "start", "end"))
        + "\n"
        + delimiter.join(["a", "b", "0", "1"])
    )
    (clip,) = read(tmp_path, text).clips
    assert (clip.clip_id, clip.text, clip.end_s, clip.row) == ("a", "b", 1.0, 2)


def test_quotes_that_swallow_rows_are_errors_with_the_row_where_they_open(tmp_path: Path) -> None:
    header = "id;style;text;start;end\n"
    (line,) = problems(tmp_path, header + 'a;sentence;"I think that;0;1\nb;sentence;is right," he said.;1;2\n')
    assert line.startswith("meta.csv row 2: the double quote before 'I think that' is not closed")
    (line,) = problems(tmp_path, header + 'a;sentence;"Hola;0;1\nb;sentence;chau";1;2\nc;d;e;2;3\n')
    assert line.startswith("meta.csv row 2: the double quote before 'Hola'")
    rows = "".join(f"c{number};{number};{number + 1};texto {number}\n" for number in range(40))
    (line,) = problems(tmp_path, f'id;start;end;text\na;0;1;"sin fin\n{rows}z;3;4;"fin"\n')
    assert line.startswith("meta.csv row 2: the double quote before 'sin fin'")
    table = scan_meta(tmp_path / "meta.csv")
    assert len(table.rows) == 42 and table.clips[-1].text == "fin"


def test_quotes_within_a_text_stay_and_texts_of_several_lines_are_one(tmp_path: Path) -> None:
    rows = (
        ('"hola" dijo', '"hola" dijo'),
        ('dijo "hola"', 'dijo "hola"'),
        ('"dijo ""hola"""', 'dijo "hola"'),
        ('"uno; dos"', "uno; dos"),
        ('"uno\ndos"', "uno\ndos"),
        ('"uno; dos\r\ntres; cuatro"', "uno; dos\r\ntres; cuatro"),
        ('"a;b\nc"', "a;b\nc"),
        ('""', ""),
    )
    text = "id;text;start;end\n" + "".join(f"{number};{cell};0;1\n" for number, (cell, _) in enumerate(rows))
    table = scan_meta(write(tmp_path, text))
    assert not table.issues
    assert [(clip.text, clip.row) for clip in table.clips] == [(text, row) for row, (_, text) in enumerate(rows, 2)]


def test_several_rows_of_one_video_without_spans_are_an_error(tmp_path: Path) -> None:
    for header, fix in (
        ("id;video;text", "add columns start and end"),
        ("id;video;text;strat;ennd", "rename 'strat' to start if that is meant, rename 'ennd' to end if that is meant"),
    ):
        cells = ";1" * (header.count(";") - 2)
        (line,) = problems(tmp_path, f"{header}\na;v;x{cells}\nb;v;y{cells}\nc;w;z{cells}\n")
        assert "2 rows name 1 video without saying which part is theirs: 'v'" in line and fix in line
    (line,) = problems(tmp_path, "id;video;start;end\na;v;;\nb;v;;\n")
    assert "[meta.spans]" in line


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id;video;START_REALIGNED;END_REALIGNED;SENTENCE;Sprecher", "a;v;1;2;hallo;Ana"),
        ("id;vídeo;start_time;end_time;Texte;speaker", "a;v;1;2;hallo;Ana"),
        ("ID;Video;Anfang;Ende;Satz;Sprecherin", "a;v;1;2;hallo;Ana"),
        ("id;vidéo;début;fin;phrase;interprète", "a;v;1;2;hallo;Ana"),
        ("id;video;inicio;fim;texto;intérprete", "a;v;1;2;hallo;Ana"),
    ],
)
def test_columns_are_known_in_five_languages(tmp_path: Path, header: str, row: str) -> None:
    (clip,) = read(tmp_path, f"{header}\n{row}\n").clips
    assert (clip.video_id, clip.start_s, clip.end_s, clip.text, clip.signer) == ("v", 1.0, 2.0, "hallo", "Ana")


def test_our_own_name_of_a_column_goes_before_its_others(tmp_path: Path) -> None:
    (clip,) = read(tmp_path, "id;start_realigned;start;end;end_realigned\na;1;5;6;2\n").clips
    assert (clip.start_s, clip.end_s) == (5.0, 6.0)
    assert "both start_time, begin hold the start" in problems(tmp_path, "id;begin;start_time;end\na;0;1;2\n")[0]


def test_a_misspelt_column_is_asked_about(tmp_path: Path) -> None:
    (issue,) = read(tmp_path, "id;vidoe;txt\na;v;x\n").issues
    assert issue.fix == "rename 'vidoe' to video if that is meant, rename 'txt' to text if that is meant"
    (line,) = problems(tmp_path, "id;vidoe\na;v\nb;w\n", {"v", "w"})
    assert "no column names the video" in line and "rename 'vidoe' to video" in line
    (line,) = problems(tmp_path, "idd;text\na;v\n")
    assert "rename 'idd' to id if that is meant" in line


def test_signers_that_differ_in_case_or_blanks_alone_are_a_warning(tmp_path: Path) -> None:
    (issue,) = read(tmp_path, "id;signer\na;Ana\nb;ANA\nc;María Luz\nd;maría  luz\ne;Eva\n").issues
    assert (issue.rule, issue.severity) == ("meta.signers", "warning")
    assert "'Ana', 'ANA', 'María Luz', 'maría  luz'" in issue.found


def test_texts_signers_and_ids_are_composed(tmp_path: Path) -> None:
    text = "id;text;signer\nseñal;mañana;Íñigo\n"
    (clip,) = read(tmp_path, unicodedata.normalize("NFD", text)).clips
    assert (clip.clip_id, clip.text, clip.signer) == ("señal", "mañana", "Íñigo")


def test_a_table_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, ";".join(f"c{number}" for number in range(1_000_000)) + "\n")
    assert "a header of 1,000,000 columns" in line


def test_ragged_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    table = scan_meta(write(tmp_path, "id;text\na;uno; dos\nb\nc;x\n"))
    assert [(issue.rule, issue.row) for issue in table.issues] == [("table.ragged", 2), ("table.ragged", 3)]
    assert [clip.clip_id for clip in table.clips] == ["c"]


def test_an_endless_quote_is_one_problem(tmp_path: Path) -> None:
    lines = problems(tmp_path, 'id;text\na;"' + "x" * 200_000 + "\n")
    assert len(lines) == 1
    assert "double quote" in lines[0]


def test_a_first_line_without_end_is_refused(tmp_path: Path) -> None:
    line = problems(tmp_path, "x" * 200_000 + "\na;b\n")[-1]
    assert line.startswith("meta.csv: the columns 'xxxx") and len(line) < 500


def test_columns_of_one_meaning_are_refused(tmp_path: Path) -> None:
    assert "the column text occurs more than once" in problems(tmp_path, "id;text;Text\na;b;c\n")[0]
    assert "both text, texto" in problems(tmp_path, "id;text;texto\na;b;c\n")[0]


@pytest.mark.parametrize("box", ["1 2 3", "3 1 2 4", "a b c d", "1 2 3 4 5", "0 0 nan 4"])
def test_a_box_that_is_none_is_refused(tmp_path: Path, box: str) -> None:
    assert "[meta.box]" in problems(tmp_path, f"id;box\na;{box}\n")[0]


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    assert "'trein'" in problems(tmp_path, "id;split\na;trein\n")[0]


def test_clips_of_absent_videos_are_counted_with_the_first_few(tmp_path: Path) -> None:
    text = "id;video;start;end\n" + "".join(f"c{number};v{number // 2};0;1\n" for number in range(20))
    (line,) = problems(tmp_path, text, {"v0"})
    assert "18 clips of 9 videos that are not there: 'v1' (row 4)" in line
    assert "and 4 more" in line


def test_a_name_composed_otherwise_is_the_same_video(tmp_path: Path) -> None:
    on_disk = unicodedata.normalize("NFD", "señal")
    (clip,) = read(tmp_path, "id;video\na;señal\n", {on_disk}).clips
    assert clip.video_id == on_disk != "señal"


def test_all_problems_come_at_once_and_many_of_a_kind_share_a_line(tmp_path: Path) -> None:
    rows = "".join(f"c{number};2;1\n" for number in range(15))
    lines = problems(tmp_path, f"id;start;end\n../x;0;1\n{rows}")
    assert len(lines) == 2
    rows = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 5 more"
    assert lines[1].startswith(f"meta.csv: 15 rows ({rows}), such as start 2 s and end 1 s, expected 0 <= start < end;")


def test_one_wrong_format_of_times_has_one_line_of_rows(tmp_path: Path) -> None:
    rows = "".join(f"c{number};v;0:{number:02};0:{number + 1:02}\n" for number in range(30))
    table = read(tmp_path, f"id;video;start;end\n{rows}")
    formats = [line for line in lines(table.issues) if line.endswith("[meta.numbers]")]
    (said,) = [line for line in lines(table.issues) if line.endswith("[meta.times]")]
    assert len(formats) == 2 and len(table.issues) == 32  # each of start and end; the report has every row
    assert said.startswith(
        "meta.csv: 30 rows (2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 20 more), such as clip 'c0': start '0:00', end '0:01',"
    )
    assert "; write seconds with a point; the clip is left out" in said


def test_times_with_a_decimal_comma_after_the_seconds_are_read(tmp_path: Path) -> None:
    (clip,) = read(tmp_path, "id;start;end\na;0:03,5;1:05,25\n").clips
    assert (clip.start_s, clip.end_s) == (3.5, 65.25)


def test_an_absent_table_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_meta(tmp_path / "meta.csv")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("meta.csv", "id;video;text\na;v;hola\n", None),
        ("meta.csv", "id,video,texto\na,v, \nb,v,chau\n", None),
        ("meta.csv", "id;video;text\na;v; \n", "'text' is empty in every row"),
        ("meta.csv", "video_id;box\nv;0 0 9 9\n", "no column 'text' among video_id, box; add it"),
        ("meta.csv", "id;txet\nv;hola\n", "rename 'txet' to text if that is meant"),
        ("other.csv", "", "meta.csv: no such file; its column 'text' holds"),
        ("Meta.csv", "id;text\na;b\n", "no such file, found 'Meta.csv'; save it as meta.csv"),
        ("meta.xlsx", "PK", "no such file, found 'meta.xlsx'; save it as meta.csv"),
        ("META.ods", "PK", "no such file, found 'META.ods'; save it as meta.csv"),
        ("metadata.tsv", "id\ttext\n", "no such file, found 'metadata.tsv'; save it as meta.csv"),
    ],
)
def test_why_nothing_can_be_translated_is_said_with_a_next_step(
    tmp_path: Path, name: str, content: str, expected: str | None
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    why = why_no_texts(tmp_path / "meta.csv")
    assert why is None if expected is None else expected in str(why)


@pytest.mark.parametrize("content", ["", "text\nhola\n", 'id;text\na;"sin fin\n', "id;text;texto\na;b;c\n"])
def test_a_table_that_cannot_be_read_stops(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"meta\.csv"):
        why_no_texts(write(tmp_path, content))


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("start_ms;end_ms", "1500;2750"),
        ("Start (ms);End (ms)", "1500;2750"),
        ("Begin Time - msec;End Time - msec", "1500;2750"),
        ("Begin Time - ss.msec;End Time - ss.msec", "1.500;2.750"),
        ("Begin Time - hh:mm:ss.ms;End Time - hh:mm:ss.ms", "00:00:01.500;00:00:02.750"),
        ("inicio_s;fin_s", "1,5;2,75"),
        ("start_frame;end_frame;fps", "60;110;40"),
        ("Anfang [frames];Ende [frames];fps", "60;110;40"),
    ],
)
def test_times_have_the_unit_that_their_columns_name(tmp_path: Path, header: str, cells: str) -> None:
    (clip,) = read(tmp_path, f"id;text;{header}\na;hola;{cells}\n").clips
    assert (clip.start_s, clip.end_s) == (1.5, 2.75)


def test_frames_without_a_rate_give_no_clip_and_ask_for_it(tmp_path: Path) -> None:
    table = scan_meta(write(tmp_path, "id;start_frame;end_frame;fps\na;60;110;\nb;60;110;40\n"))
    assert [clip.clip_id for clip in table.clips] == ["b"]
    (issue,) = (issue for issue in table.issues if issue.rule == "meta.times")
    assert "start '60', end '110' in frames, without frames per second" in issue.found
    assert issue.fix == "add a column 'fps'; the clip is left out"


def test_a_plain_column_goes_before_one_with_a_unit(tmp_path: Path) -> None:
    (clip,) = read(tmp_path, "id;start;start_ms;end;end_ms\na;1;9000;2;9900\n").clips
    assert (clip.start_s, clip.end_s) == (1.0, 2.0)


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_decimal_commas_are_read_with_other_delimiters_too(tmp_path: Path, delimiter: str) -> None:
    rows = "id;start;end\na;0,5;1,25\nb;1,25;2\n".replace(";", delimiter)
    assert [(clip.start_s, clip.end_s) for clip in read(tmp_path, rows).clips] == [(0.5, 1.25), (1.25, 2.0)]
