"""Splits: drawn with a seed, apart by signer and video, sensible for few videos, stable under new ones; index files."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from signstreams.commands import main
from signstreams.corpus.clips import Clip
from signstreams.corpus.settings import SplitConfig
from signstreams.corpus.splits import Split, assign_groups, read_index, scan_index, split_clips, write_splits
from signstreams.errors import UserError
from signstreams.formats.layout import CorpusLayout


def clips_of(num_videos: int, num_signers: int | None = None, per_video: int = 1) -> list[Clip]:
    return [
        Clip(f"c{video}_{number}", f"v{video}", signer=f"s{video % num_signers}" if num_signers else None)
        for video in range(num_videos)
        for number in range(per_video)
    ]


def counts(split: Split) -> tuple[int, int, int]:
    return tuple(len(split.clip_ids[name]) for name in ("train", "val", "test"))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(5))
def test_no_video_and_no_signer_is_in_two_splits(seed: int) -> None:
    clips = clips_of(40, num_signers=8, per_video=3)
    split = split_clips(clips, SplitConfig(seed=seed))
    split_of = {clip_id: name for name, ids in split.clip_ids.items() for clip_id in ids}
    assert sorted(split_of) == sorted(clip.clip_id for clip in clips)
    for key in ("video_id", "signer"):
        places: dict[str, set[str]] = {}
        for clip in clips:
            places.setdefault(getattr(clip, key), set()).add(split_of[clip.clip_id])
        assert all(len(names) == 1 for names in places.values())
    assert split.group_by == "signer"


def test_signers_that_share_a_video_stay_together() -> None:
    clips = [Clip("a", "v1", signer="s1"), Clip("b", "v1", signer="s2"), Clip("c", "v2", signer="s2"), Clip("d", "v2")]
    clips += [Clip(f"x{number}", f"w{number}", signer=f"t{number}") for number in range(9)]
    split = split_clips(clips, SplitConfig())
    together = [name for name, ids in split.clip_ids.items() if {"a", "b", "c", "d"} & set(ids)]
    assert len(together) == 1


@pytest.mark.parametrize(("num_videos", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_a_few_videos_fill_train_first_and_say_what_stays_empty(num_videos: int, expected: tuple[int, ...]) -> None:
    split = split_clips(clips_of(num_videos), SplitConfig())
    assert counts(split) == expected
    assert sum("stays empty" in note for note in split.notes) == expected.count(0)


def test_unknown_signers_are_said_to_be_in_several_splits_perhaps() -> None:
    clips = clips_of(9)
    notes = split_clips(clips, SplitConfig()).notes
    assert notes == [
        "no clip with a signer in meta.csv: unknown signers cannot be kept apart, and may be in several splits"
    ]
    some = [replace(clip, signer="Ana") if number < 3 else clip for number, clip in enumerate(clips)]
    assert split_clips(some, SplitConfig()).notes[0].startswith("3 clips of 9 with a signer in meta.csv: ")
    known = [replace(clip, signer=f"S{number}") for number, clip in enumerate(clips)]
    assert not split_clips(known, SplitConfig()).notes
    assert not split_clips(clips, SplitConfig(group_by="video")).notes


@pytest.mark.parametrize("sizes", [[1, 1, 8], [8, 1, 1], [100, 1], [3, 3, 3], [1, 1, 1, 1, 50]])
@pytest.mark.parametrize("seed", range(6))
def test_train_is_never_empty_and_no_wanted_split_is_when_it_can_be_filled(sizes: list[int], seed: int) -> None:
    named = {f"g{number}": size for number, size in enumerate(sizes)}
    assigned = assign_groups(named, SplitConfig(seed=seed, val_fraction=0.2, test_fraction=0.2))
    assert "train" in assigned.values()
    assert len(set(assigned.values())) == min(3, len(sizes))


def test_fractions_are_met_where_groups_are_small() -> None:
    assert counts(split_clips(clips_of(200), SplitConfig(val_fraction=0.1, test_fraction=0.2))) == (140, 20, 40)
    assert counts(split_clips(clips_of(20), SplitConfig(val_fraction=0, test_fraction=0))) == (20, 0, 0)


def test_the_seed_decides_and_the_order_of_the_rows_does_not() -> None:
    clips = clips_of(30)
    first = split_clips(clips, SplitConfig(seed=1))
    again = split_clips(clips[::-1], SplitConfig(seed=1))
    assert first.groups == again.groups
    assert first.groups != split_clips(clips, SplitConfig(seed=2)).groups


def test_new_videos_move_few_others() -> None:
    before = split_clips(clips_of(200), SplitConfig()).groups
    after = split_clips(clips_of(220), SplitConfig()).groups
    moved = [name for name, split in before.items() if after[name] != split]
    assert len(moved) <= 8
    held_out_before = {name for name, split in before.items() if split == "test"}
    assert len({name for name in held_out_before if after[name] == "test"}) >= 16


def test_too_few_signers_are_divided_by_video_and_that_is_said() -> None:
    split = split_clips(clips_of(10, num_signers=1), SplitConfig())
    assert split.group_by == "video"
    assert all(counts(split))
    assert "1 signer cannot fill 3 splits" in split.notes[0]
    kept = split_clips(clips_of(10, num_signers=1), SplitConfig(group_by="signer"))
    assert counts(kept) == (10, 0, 0)
    assert [note.split()[0] for note in kept.notes] == ["val", "test"]


def test_grouping_by_video_ignores_signers() -> None:
    assert split_clips(clips_of(10, num_signers=5), SplitConfig(group_by="video")).group_by == "video"


def test_grouping_by_signer_without_signers_is_refused() -> None:
    with pytest.raises(UserError, match="no signer"):
        split_clips(clips_of(10), SplitConfig(group_by="signer"))


def test_the_split_of_the_table_goes_first() -> None:
    clips = [Clip("a", "v", split="train"), Clip("b", "w", split="val"), Clip("c", "x")]
    split = split_clips(clips, SplitConfig())
    assert split.clip_ids == {"train": ["a"], "val": ["b"], "test": []}
    assert len(split.notes) == 2


def test_fractions_that_leave_nothing_for_train_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave nothing for train"):
        SplitConfig(val_fraction=0.5, test_fraction=0.5)


# -- Index files

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


def test_ids_of_an_index_are_composed(layout: CorpusLayout) -> None:
    write_index(layout, train=unicodedata.normalize("NFD", "señal\n"), val="mañana\n", test="c3\n")
    clips = [Clip(clip_id, clip_id) for clip_id in ("señal", "mañana", "c3")]
    assert read_index(layout, clips) == {"train": ["señal"], "val": ["mañana"], "test": ["c3"]}


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
    layout.index("val").write_bytes(b"\xff\xfec")
    with pytest.raises(UserError) as caught:
        read_index(layout, CLIPS)
    assert [line.split(":")[0] for line in caught.value.problems] == ["index/test.csv", "index/val.csv"]
    assert "signstreams split --root" in caught.value.problems[0]


def test_the_command_divides_a_corpus(
    corpus_with: Callable[..., CorpusLayout], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = corpus_with("a.mp4", "b.mp4")
    main(["split", "--root", str(layout.root), "--seed", "1"])
    told = capsys.readouterr()
    assert "train 1, val 1, test 0 clips" in told.out
    assert "note: test stays empty: 2 videos cannot fill 3 splits" in told.err
    (layout.root / "index" / "split.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["split", "--root", str(layout.root)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
