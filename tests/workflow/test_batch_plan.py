"""Plans of batches: who keeps their videos, what is planned anew."""

from __future__ import annotations

from pathlib import Path

from signstreams.formats.layout import CorpusLayout
from signstreams.workflow.plan import plan_batches, read_batches, write_batches


def finish(layout: CorpusLayout, *batches: str) -> None:
    for batch in batches:
        layout.batch(batch).write_text("{}", encoding="utf-8")


def test_every_video_is_in_one_batch_of_the_size_asked_for(tmp_path: Path) -> None:
    ids = [f"v{number:03d}" for number in range(25)]
    plan = plan_batches(CorpusLayout(tmp_path), ids[::-1], 10)
    assert [len(batch) for batch in plan.values()] == [10, 10, 5]
    assert [video_id for batch in plan.values() for video_id in batch] == ids
    assert not list(tmp_path.iterdir())


def test_finished_batches_stay_and_the_rest_is_planned_anew(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    write_batches(layout, plan_batches(layout, list("acegikm"), 2))
    finish(layout, "b00000", "b00002")
    plan = plan_batches(layout, list("abcegikmn"), 3)
    assert plan == {"b00000": ["a", "c"], "b00001": ["b", "e", "g"], "b00002": ["i", "k"], "b00003": ["m", "n"]}
    write_batches(layout, plan)
    assert read_batches(layout, list("abcegikmn")) == plan


def test_a_job_goes_by_what_was_written_whatever_was_finished_meanwhile(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    plan = plan_batches(layout, list("abcdef"), 2)
    write_batches(layout, plan)
    finish(layout, "b00001")
    assert read_batches(layout, list("abcdefz")) == plan


def test_videos_that_are_gone_drop_out_and_listings_of_no_batch_go(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    write_batches(layout, plan_batches(layout, list("abcdef"), 2))
    finish(layout, "b00000", "b00001")
    plan = plan_batches(layout, list("bef"), 2)
    assert plan == {"b00000": ["b"], "b00001": ["e", "f"]}
    write_batches(layout, plan)
    assert sorted(path.name for path in layout.batch("b").parent.glob("*.txt")) == ["b00000.txt", "b00001.txt"]


def test_a_listing_that_is_right_is_not_written_again(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    plan = plan_batches(layout, list("abcd"), 2)
    write_batches(layout, plan)
    before = [path.stat().st_mtime_ns for path in sorted(layout.batch("b").parent.iterdir())]
    write_batches(layout, plan)
    assert [path.stat().st_mtime_ns for path in sorted(layout.batch("b").parent.iterdir())] == before
