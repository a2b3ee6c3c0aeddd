"""Index files: written with their origin, never over another's; read with all problems at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.corpus import Clip, read_index, scan_index, write_splits
from signstreams.corpus.settings import SplitConfig
from signstreams.errors import UserError
from signstreams.formats.layout import CorpusLayout

CLIPS = [Clip(f"c{number}", f"v{number}", signer=f"s{number}") for number in range(10)]


@pytest.fixture
def layout(tmp_path: Path) -> CorpusLayout:
    return CorpusLayout(tmp_path)


def write_index(layout: CorpusLayout, **splits: str) -> None:
    layout.index("train").parent.mkdir(exist_ok=True)
    for split, text in splits.items():
        layout.index(split).write_bytes(text.encode())


def test_a_written_split_reads_back_and_says_where_it_came_from(layout: CorpusLayout) -> None:
    split = write_splits(layout, CLIPS, SplitConfig(seed=3))
    assert read_index(layout, CLIPS) == split.clip_ids
    record = json.loads((layout.root / "index" / "split.json").read_text())
    assert (record["seed"], record["group_by"]) == (3, "signer")
    assert record["num_clips"] == {"train": 8, "val": 1, "test": 1}
    assert set(record["groups"].values()) == {"train", "val", "test"}


def test_our_own_index_is_replaced_and_another_is_not(layout: CorpusLayout) -> None:
    write_splits(layout, CLIPS, SplitConfig(seed=3))
    write_splits(layout, CLIPS, SplitConfig(seed=4))
    (layout.root / "index" / "split.json").unlink()
    before = layout.index("train").read_bytes()
    with pytest.raises(UserError, match=r"without index/split\.json"):
        write_splits(layout, CLIPS, SplitConfig(seed=5))
    assert layout.index("train").read_bytes() == before


def test_nothing_to_divide_is_a_user_error(layout: CorpusLayout) -> None:
    with pytest.raises(UserError, match="no clip"):
        write_splits(layout, [], SplitConfig())


def test_marks_line_ends_and_blank_lines_make_no_difference(layout: CorpusLayout) -> None:
    write_index(layout, train="\ufeffc0\r\nc1\r\n\r\n", val=" c2 \n", test="c3")
    assert read_index(layout, CLIPS) == {"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]}


def test_all_problems_of_the_index_come_at_once(layout: CorpusLayout) -> None:
    clips = [*CLIPS, Clip("d0", "v0", signer="s0"), Clip("d1", "w1", signer="s1")]
    write_index(layout, train="c0\nc1\nc1\nhuh\n", val="c0\nd0\nd1\n", test="")
    findings = scan_index(layout, clips).issues
    assert {finding.rule: finding.severity for finding in findings} == {
        "split.known": "error",
        "split.once": "error",
        "split.disjoint": "error",
        "split.video_disjoint": "error",
        "split.signer_disjoint": "warning",
        "split.empty": "warning",
        "split.unassigned": "warning",
    }
    with pytest.raises(UserError) as caught:
        read_index(layout, clips)
    assert len(caught.value.problems) == 4


def test_an_absent_and_an_unreadable_index_are_named(layout: CorpusLayout) -> None:
    write_index(layout, train="c0")
    layout.index("val").write_bytes(b"\xff\xfec\0")
    with pytest.raises(UserError) as caught:
        read_index(layout, CLIPS)
    assert [line.split(":")[0] for line in caught.value.problems] == ["index/val.csv", "index/test.csv"]
    assert "scripts/split_corpus.py --root" in caught.value.problems[1]


def run_script(project: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, project / "scripts" / "split_corpus.py", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_script_divides_a_corpus(project: Path, corpus_with: Callable[..., CorpusLayout]) -> None:
    layout = corpus_with("a.mp4", "b.mp4")
    done = run_script(project, "--root", layout.root, "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert "train 1, val 1, test 0 clips" in done.stdout
    assert "note: test stays empty: 2 videos cannot fill 3 splits" in done.stderr
    (layout.root / "index" / "split.json").unlink()
    refused = run_script(project, "--root", layout.root)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
