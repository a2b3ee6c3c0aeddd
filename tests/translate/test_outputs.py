"""What is written of a translation: in every format the same, whatever the texts hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.formats.elan import read_elan
from signstreams.formats.subtitles import Cue, parse_subtitles
from signstreams.formats.video_sources import VideoSource
from signstreams.segment.given import read_segments
from signstreams.translate.outputs import write_outputs
from signstreams.translate.plan import check_outputs
from signstreams.translate.run import Sentence, Translation, _Reading, _VideoTranslator
from signstreams.translate.settings import TranslateConfig
from signstreams.translate.windows import Window

EVIL = '</script><script>alert("a & b")</script> --> <b>'
GLOSSES = [Cue(1.0, 1.5, "CASA"), Cue(1.5, 2.04, "<IR>")]


def translation(video: Path, *, said: str = "") -> Translation:
    sentences = [
        Sentence(1.0, 2.04, f"Hola {EVIL}", GLOSSES, 26, said),
        Sentence(2.04, 3.0, "", [], 12),
        Sentence(5.0, 6.0, "Adiós.", [], 12),
    ]
    return Translation(str(video), sentences, 7.0, ["a note"])


def test_subtitles_leave_out_what_has_no_text(tmp_path: Path) -> None:
    paths = [tmp_path / "a.srt", tmp_path / "b" / "a.vtt"]
    write_outputs(translation(tmp_path / "v.mp4"), tmp_path / "v.mp4", paths)
    for path in paths:
        cues, faults = parse_subtitles(path.read_text(encoding="utf-8"), path.suffix)
        assert [(cue.start_s, cue.end_s) for cue in cues] == [(1.0, 2.04), (5.0, 6.0)]
        assert faults == [] and cues[1].text == "Adiós." and cues[0].text.startswith("Hola </script>")


def test_an_elan_file_has_all_sentences_their_glosses_and_what_was_said(tmp_path: Path) -> None:
    video, path = tmp_path / "v.mp4", tmp_path / "out" / "a.eaf"
    video.touch()
    write_outputs(translation(video, said="said so"), video, [path])
    found = read_elan(path)
    assert list(found.tiers) == ["translation", "gloss", "said"] and found.faults == []
    assert len(found.tiers["translation"].annotations) == 3
    assert found.tiers["gloss"].annotations == GLOSSES
    assert found.tiers["said"].annotations == [Cue(1.0, 2.04, "said so")]
    assert found.video(path.parent) == path.parent / "../v.mp4"


def test_json_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_outputs(translation(tmp_path / "v.mp4"), tmp_path / "v.mp4", [path])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["glosses"] == ["CASA", "<IR>"] and content["num_frames"] == 50 and content["duration_s"] == 7.0
    assert content["sentences"][0]["glosses"][1] == {"gloss": "<IR>", "start_s": 1.5, "end_s": 2.04}
    assert content["text"] == f"Hola {EVIL} Adiós."


def test_no_text_of_a_model_becomes_part_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    write_outputs(translation(tmp_path / 'ü "1".mp4'), tmp_path / 'ü "1".mp4', [path])
    page = path.read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 1
    assert 'src="%C3%BC%20%221%22.mp4"' in page and "not at ü &#34;1&#34;.mp4 (from" in page and "a note" in page
    frames = tmp_path / "frames"
    frames.mkdir()
    write_outputs(translation(frames), frames, [path])
    assert "a folder of frames" in path.read_text(encoding="utf-8") and "<video" not in path.read_text(encoding="utf-8")


def test_each_row_over_time_says_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, path = tmp_path / "v.mp4", tmp_path / "a.html"

    def lanes(shown: Translation) -> list[str]:
        write_outputs(shown, video, [path])
        return re.findall('<div class="lane">([^<]*)</div>', path.read_text(encoding="utf-8"))

    whole = translation(video)
    assert lanes(whole) == ["translation", "glosses"]
    without = [replace(one, glosses=None) for one in whole.sentences]
    assert lanes(replace(whole, sentences=without)) == ["translation"]
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    assert lanes(whole) == ["traducción", "glosas"]


def test_the_page_is_readable_and_shows_its_video(
    tiny_corpus: Path, looks_well: Callable[..., None], tmp_path: Path
) -> None:
    video = tiny_corpus / "videos" / "demo_000.mp4"
    write_outputs(translation(video), video, [tmp_path / "a.html"])
    looks_well(tmp_path / "a.html", [video])


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*file/a\.srt: (Not a directory|File exists); name another place"):
        write_outputs(translation(tmp_path / "v.mp4"), tmp_path / "v.mp4", [tmp_path / "file" / "a.srt"])


def test_a_table_names_a_folder_of_frames_as_it_is_called(tmp_path: Path) -> None:
    folder, path = tmp_path / "take 1.5", tmp_path / "a.csv"
    (folder / "1").mkdir(parents=True)
    (folder / "1/0001.png").touch()
    write_outputs(translation(folder), folder, [path])
    assert [cue.start_s for cue in read_segments(path, VideoSource.at(folder).video_id).segments] == [1.0, 2.04, 5.0]


def test_what_would_be_overwritten_is_said(tmp_path: Path) -> None:
    video, given = tmp_path / "v.mp4", tmp_path / "talk.srt"
    video.touch()
    given.touch()
    config = TranslateConfig(
        checkpoint=tmp_path / "best.pt", videos=[video], segments=str(given), output=[tmp_path / "x/../talk.srt"]
    )
    with pytest.raises(UserError, match=r"talk\.srt: is the file of --segments, expected a file to write"):
        check_outputs(config, [video])


def test_a_sentence_behind_the_real_end_of_a_video_can_be_written(tmp_path: Path) -> None:
    """Of a file that was cut off: it declares 10 s and holds 5."""
    translator = object.__new__(_VideoTranslator)
    translator.duration_s = 5.0
    readings = [_Reading("", [], 0)]
    one, other = Cue(4.0, 6.0, "last"), Cue(7.0, 9.0, "lost")
    sentences = [
        translator._sentence(cue, [Window(cue.start_s, cue.end_s, (0.0, 9.0))], readings) for cue in (one, other)
    ]
    assert [(found.start_s, found.end_s) for found in sentences] == [(4.0, 5.0), (7.0, 9.0)]
    write_outputs(Translation("v.mp4", sentences, 5.0), tmp_path / "v.mp4", [tmp_path / "a.eaf", tmp_path / "a.csv"])
    assert len(read_elan(tmp_path / "a.eaf").tiers["translation"].annotations) == 2
