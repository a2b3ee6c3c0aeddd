"""Every layout becomes a corpus that the workflow plans as it is; a second call changes nothing; faults are said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from signstreams.commands import main
from signstreams.corpus.corpus import load_corpus
from signstreams.corpus.gloss import read_gloss
from signstreams.corpus.splits import read_index
from signstreams.errors import UserError
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.importers.run import READERS, import_corpus, nearest_layout
from signstreams.importers.settings import ImportConfig

from .conftest import Corpus, Importer

Source = Callable[..., Path]

# Layout, its fixture and how it is made; videos and clips that the import finds.
LAYOUTS: tuple[tuple[str, str, dict[str, Any], int, int], ...] = (
    ("phoenix14t", "phoenix", {}, 8, 8),
    ("phoenix14t", "phoenix", {"is_2014t": False, "below_1": True}, 8, 8),
    ("how2sign", "how2sign", {}, 4, 8),
    ("how2sign", "how2sign", {"cut": True}, 8, 8),
    ("csl-daily", "csl_daily", {}, 4, 4),
    ("openasl", "openasl", {}, 4, 8),
    ("youtube-asl", "youtube_asl", {}, 4, 8),
    ("lsa-t", "lsa_t", {}, 4, 8),
    ("elan", "dgs", {}, 4, 8),
    ("subtitles", "subtitles", {}, 4, 8),
)


@pytest.mark.parametrize(("layout", "fixture", "how", "num_videos", "num_clips"), LAYOUTS)
def test_a_layout_is_planned_without_a_step_by_hand(
    layout: str,
    fixture: str,
    how: dict[str, Any],
    num_videos: int,
    num_clips: int,
    source: Source,
    do_import: Importer,
    dry_run: Callable[[str], str],
) -> None:
    folder = source(fixture, **how)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    corpus = do_import(layout, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    videos = corpus.config["corpus"]["videos"]
    found = load_corpus(corpus.root, [Path(path) for path in (videos if isinstance(videos, list) else [videos])])
    assert (len({clip.video_id for clip in found.clips}), len(found.clips)) == (num_videos, num_clips)
    assert {clip.video_id for clip in found.clips} <= found.videos.keys()
    index = read_index(CorpusLayout(corpus.root), found.clips)
    assert all(index[split] for split in SPLITS) and sum(map(len, index.values())) == num_clips
    if (corpus.root / "annotations/gloss.csv").exists():
        assert read_gloss(corpus.root / "annotations/gloss.csv", [clip.clip_id for clip in found.clips])
    assert not [path for path in corpus.root.rglob("*") if path.suffix in (".mp4", ".png", ".jpg")]
    said = dry_run("all")
    assert re.search(rf"^extract +{num_videos}$", said, re.MULTILINE), said
    for rule in ("contract", "train", "evaluate"):
        assert re.search(rf"^{rule} +1$", said, re.MULTILINE), said


def test_every_layout_has_a_reader_and_a_test() -> None:
    assert {layout for layout, *_ in LAYOUTS} | {"table"} == READERS.keys()


def test_a_second_import_changes_nothing(source: Source, do_import: Importer) -> None:
    before = do_import("elan", source("dgs")).state()
    assert len(before) == 8
    assert do_import("elan", source("dgs")).state() == before
    config = ImportConfig(layout="elan", source=source("dgs"), root=Path("data/mine"))
    again = import_corpus(config)
    assert again.files == []
    assert again.lines[-3] == "data/mine: nothing has changed; report: data/mine/import.json"


def test_a_file_that_was_changed_since_is_never_replaced(source: Source, do_import: Importer) -> None:
    corpus = do_import("phoenix14t", source("phoenix"))
    meta = corpus.root / "meta.csv"
    meta.write_text(meta.read_text().replace("regnet", "schneit"))
    before = corpus.state()
    with pytest.raises(UserError, match=r"meta\.csv: was changed or written by others since it was imported") as error:
        do_import("phoenix14t", source("phoenix"))
    assert len(error.value.problems) == 1
    assert corpus.state() == before
    meta.rename(meta.with_suffix(".mine"))
    assert "regnet" in do_import("phoenix14t", source("phoenix")).column("text")[0]


def test_files_of_another_corpus_are_not_replaced(source: Source, do_import: Importer, tmp_path: Path) -> None:
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/meta.csv").write_text("id;text\na;hola\n")
    with pytest.raises(UserError, match=r"meta\.csv: was changed or written by others"):
        do_import("phoenix14t", source("phoenix"))
    assert [path.name for path in (tmp_path / "data/mine").iterdir()] == ["meta.csv"]


def test_an_import_of_changed_annotations_rewrites_what_follows_from_them(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.subtitles(tiny_corpus, tmp_path / "talks")
    corpus = do_import("subtitles", folder)
    before = corpus.state()
    layouts.captions(folder / "talk 0.srt", [(0.12, 1.84, "A new sentence.")])
    after = do_import("subtitles", folder).state()
    changed = {Path(name).name for name in after if before.get(name) != after[name]}
    assert {"meta.csv", "split.json", "import.json"} <= changed and "config.yaml" not in changed
    assert "A new sentence." in corpus.column("text")


@pytest.mark.parametrize(
    ("fixture", "asked", "nearest"),
    [
        ("phoenix", "how2sign", "phoenix14t"),
        ("how2sign", "phoenix14t", "how2sign"),
        ("dgs", "openasl", "elan"),
        ("subtitles", "csl-daily", "subtitles"),
        ("openasl", "elan", "openasl"),
        ("csl_daily", "subtitles", "csl-daily"),
        ("youtube_asl", "lsa-t", "youtube-asl"),
        ("lsa_t", "youtube-asl", "lsa-t"),
    ],
)
def test_another_layout_is_named(
    fixture: str, asked: str, nearest: str, source: Source, do_import: Importer, tmp_path: Path
) -> None:
    folder = source(fixture)
    assert nearest_layout(folder) == nearest
    with pytest.raises(UserError) as error:
        do_import(asked, folder)
    said, advice = error.value.problems
    assert str(folder) in said and ("found " in said or "expected" in said)
    assert advice == f"{folder}: looks more like --from {nearest}"
    assert not (tmp_path / "data").exists()


def without_video(layouts: ModuleType, tiny_corpus: Path, folder: Path) -> Path:
    """How2Sign of which one video of train was not fetched."""
    layouts.how2sign(tiny_corpus, folder)
    next(folder.rglob("-1E2sU6zP4Q-5-rgb_front.mp4")).unlink()
    return folder


def test_absent_videos_are_counted_and_left_out_only_when_allowed(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, dry_run: Callable[[str], str], tmp_path: Path
) -> None:
    folder = without_video(layouts, tiny_corpus, tmp_path / "h2s")
    with pytest.raises(UserError) as error:
        do_import("how2sign", folder)
    first, last = error.value.problems
    assert "no video '-1E2sU6zP4Q-5-rgb_front' (of 2 clips)" in first and "--allow-absent-videos" in first
    assert last == f"{folder}: nothing was written; errors: 1 import.absent"
    assert not (tmp_path / "data").exists()
    corpus = do_import("how2sign", folder, allow_absent_videos=True)
    taken = corpus.report["taken"]
    assert (taken["clips"], taken["clips_of_absent_videos"], taken["absent_videos"]) == (8, 2, 1)
    assert corpus.config["corpus"]["allow_absent_videos"] is True
    assert re.search(r"^extract +3$", dry_run("all"), re.MULTILINE)
    layout = CorpusLayout(corpus.root)
    found = load_corpus(layout, list(map(Path, corpus.config["corpus"]["videos"])), allow_absent_videos=True)
    assert len(found.clips) == 6
    assert sum(map(len, read_index(layout, found.clips, found.absent_ids).values())) == 6


FLAWED = """\
id;video;start;end;text
a;demo_000;0.12;1.84;Uno.
a;demo_001;0.12;2.52;Dos.
b;demo_000;1.96;3.80;...
c;demo_001;0.12;2.52;
d;demo_001;2.64;9.99;Tres.
e;demo_002;1.88;1.76;Cuatro.
f;demo_002;0.12;1.76;Cinco.
g;demo_002;1.20;3.52;Seis.
h/h;demo_003;0.12;2.56;Siete.
i;demo_003;0.12;0.20;Ocho.
j;demo_003;nie;2.56;Nueve.
k;demo_003;0.12;2.56;Diez.
"""
FOUND = {
    "import.twice": ("row 3", "first in flawed.csv row 2"),
    "import.letters": ("row 4", "the text '...'"),
    "import.empty": ("row 5", "no text"),
    "import.beyond": ("row 6", "ends at 9.99 s, its video at 5.12 s"),
    "meta.span": ("row 7", "start 1.88 s and end 1.76 s"),
    "import.overlap": ("row 9", "begins 0.56 s before 'f' ends"),
    "meta.id": ("row 10", "'h/h' holds a path separator"),
    "import.short": ("row 11", "0.08 s long"),
    "meta.times": ("row 12", "start 'nie'"),
}


def flawed(tiny_corpus: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "flawed.csv").write_text(FLAWED, encoding="utf-8")
    (folder / "videos").symlink_to(tiny_corpus / "videos")
    return folder


def test_what_is_wrong_is_counted_by_kind_with_its_place(
    tiny_corpus: Path, do_import: Importer, tmp_path: Path
) -> None:
    corpus = do_import("table", flawed(tiny_corpus, tmp_path / "in"))
    report = corpus.report["not_taken_or_doubted"]
    for rule, (place, text) in FOUND.items():
        assert report[rule]["count"] == 1, rule
        (line,) = report[rule]["first"]
        assert line.startswith(f"flawed.csv {place}: ") and text in line, line
    assert set(report) - FOUND.keys() == {"meta.numbers"}
    assert corpus.column("clip_id") == ["a", "f", "g", "k"]


def test_strict_makes_them_errors_and_writes_nothing(tiny_corpus: Path, do_import: Importer, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        do_import("table", flawed(tiny_corpus, tmp_path / "in"), strict=True)
    for rule in FOUND:
        assert sum(line.endswith(f"[{rule}]") for line in error.value.problems) == 1, rule
    assert error.value.problems[-1].startswith(f"{tmp_path / 'in'}: nothing was written; errors: ")
    assert not (tmp_path / "data").exists()


def test_the_first_ten_of_a_kind_are_named_and_the_others_counted(
    tiny_corpus: Path, do_import: Importer, tmp_path: Path
) -> None:
    folder = flawed(tiny_corpus, tmp_path / "in")
    rows = [f"x{number:02d};demo_000;0.12;1.84;" for number in range(25)]
    (folder / "flawed.csv").write_text(FLAWED + "\n".join(rows) + "\n", encoding="utf-8")
    found = do_import("table", folder).report["not_taken_or_doubted"]["import.empty"]
    assert (found["count"], len(found["first"])) == (26, 10)


def test_splits_that_share_videos_are_refused_and_can_be_drawn_again(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.openasl(tiny_corpus, tmp_path / "oa")
    path = folder / "data/openasl-v1.0.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].replace("\ttest", "\ttrain")]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"1 videos with clips in several splits: 'oQ3_-d5bY2Kc'.*--redraw-splits"):
        do_import("openasl", folder)
    corpus = do_import("openasl", folder, redraw_splits=True)
    assert (corpus.root / "index/split.json").is_file()
    videos = {row["clip_id"]: row["video"] for row in corpus.rows()}
    assert "split" not in corpus.rows()[0]
    places = [{videos[clip_id] for clip_id in corpus.index(split)} for split in SPLITS]
    assert all(places) and sum(map(len, places)) == 4


def test_the_command_answers_in_lines_with_code_2(
    source: Source, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["import", "--from", "phoenix14t", "--root", "data/mine", "--source"]
    main([*words, str(source("phoenix"))])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "PHOENIX-2014T: 8 of 8 clips, 8 videos, 8 s; train 4, val 2, test 2"
    assert said[-2] == "next: snakemake --cores 8 all --configfile data/mine/config.yaml"
    assert said[-1] == "then open work_dirs/mine/overview.html"
    for wrong in ("nowhere", str(tmp_path)):
        with pytest.raises(SystemExit) as left:
            main([*words, wrong])
        assert left.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines and all(line.startswith("error: ") for line in lines) and wrong in lines[0]


def test_a_corpus_remains_a_value(source: Source, do_import: Importer) -> None:
    """The report has neither times nor paths of temporary files: the same source gives the same bytes elsewhere."""
    corpus = do_import("lsa-t", source("lsa_t"))
    first = {path.name: path.read_bytes() for path in corpus.root.rglob("*") if path.is_file()}
    for path in list(corpus.root.rglob("*")):
        if path.is_file():
            path.unlink()
    again = do_import("lsa-t", source("lsa_t"))
    assert {path.name: path.read_bytes() for path in again.root.rglob("*") if path.is_file()} == first
    assert isinstance(again, Corpus)


def test_splits_are_drawn_among_the_videos_that_are_there(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.lsa_t(tiny_corpus, tmp_path / "lsa")
    (folder / "videos/demo_002.mp4").unlink()
    corpus = do_import("lsa-t", folder, allow_absent_videos=True)
    videos = {row["clip_id"]: row["video"] for row in corpus.rows()}
    assert set(videos.values()) == {f"demo_00{number}" for number in range(4)}  # it may still be fetched
    drawn = [{videos[clip_id] for clip_id in corpus.index(split)} for split in SPLITS]
    assert sorted(map(len, drawn)) == [1, 1, 1] and "demo_002" not in set.union(*drawn)
    for path in (folder / "videos").iterdir():
        path.unlink()
    (folder / "videos/other.mp4").touch()
    with pytest.raises(UserError, match=r"none of the 4 videos is there, expected some; name their folders"):
        do_import("lsa-t", folder, allow_absent_videos=True)


@pytest.mark.parametrize(
    ("root", "found"),
    [
        ("data/demo", "name a root for your corpus"),
        ("data/{mine}", "holds a brace, which Snakemake reads as a wildcard"),
    ],
)
def test_a_root_that_the_workflow_would_refuse_is_refused_before_anything_is_written(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=found):
        import_corpus(ImportConfig(layout="phoenix14t", source=source("phoenix"), root=Path(root)))
    assert list(tmp_path.iterdir()) == []


def test_videos_of_one_name_are_refused_unless_their_order_was_given(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    """As cam1.mp4 in the folder of each session: the clips of the second would be cut from the first."""
    folder = tmp_path / "in"
    for number in range(3):
        layouts.copy_video(tiny_corpus, f"demo_00{number}", folder / f"s{number}/cam{number // 2}.mp4")
        layouts.eaf(folder / f"s{number}/s{number}.eaf", {"frase": [(0.1, 1.0, "Uno.")]}, [f"cam{number // 2}.mp4"])
    layouts.copy_video(tiny_corpus, "demo_003", folder / "s2/cam1.mov")
    with pytest.raises(UserError) as error:
        do_import("elan", folder, text_tiers=["frase"])
    assert [problem.partition(", expected")[0] for problem in error.value.problems[:-1]] == [
        f"{folder}/s0/cam0.mp4: 'cam0' is also {folder}/s1/cam0.mp4",
        f"{folder}/s2/cam1.mov: 'cam1' is also {folder}/s2/cam1.mp4",
    ]
    (folder / "s2/cam1.mov").unlink()
    corpus = do_import("elan", folder, text_tiers=["frase"], videos=[folder / "s1", folder / "s0", folder / "s2"])
    assert corpus.config["corpus"]["videos"] == [str(folder / "s1"), str(folder / "s2")]
