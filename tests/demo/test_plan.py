"""The plan of a demo corpus: same seed same plan, sound splits, and nothing heavy imported to know it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from signstreams.demo.plan import SIZES, DemoPlan, plan
from signstreams.errors import UserError
from signstreams.ids import check_id

CASES = [("tiny", 0), ("tiny", 1), ("tiny", 5), ("demo", 0), ("demo", 1), ("demo", 2), ("bench", 0)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def drawn(request: pytest.FixtureRequest) -> DemoPlan:
    return plan(*request.param)


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    again = plan.__wrapped__("tiny", 0)
    assert again == plan("tiny", 0)
    texts = [[clip.sentence.text for clip in plan("tiny", seed).clips()] for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_splits_divide_the_clips_and_keep_videos_whole(drawn: DemoPlan) -> None:
    listed = [clip_id for ids in drawn.splits.values() for clip_id in ids]
    assert sorted(listed) == sorted(clip.clip_id for clip in drawn.clips())
    split_of = {clip_id: split for split, ids in drawn.splits.items() for clip_id in ids}
    for video in drawn.videos:
        assert len({split_of[clip.clip_id] for clip in video.clips}) == 1


def test_held_out_sentences_are_unseen_but_their_glosses_are_not(drawn: DemoPlan) -> None:
    for splits in filter(None, (drawn.splits, drawn.unseen_signer_splits)):
        sentences = {clip.clip_id: clip.sentence for clip in drawn.clips()}
        train = [sentences[clip_id] for clip_id in splits["train"]]
        held_out = [sentences[clip_id] for split in ("val", "test") for clip_id in splits[split]]
        assert held_out
        assert not {s.glosses for s in train} & {s.glosses for s in held_out}
        assert not {s.text for s in train} & {s.text for s in held_out}
        assert {g for s in held_out for g in s.glosses} <= {g for s in train for g in s.glosses}


def test_every_gloss_is_in_train_often_enough() -> None:
    for size in ("demo", "bench"):
        for seed in range(3):
            drawn = plan(size, seed)
            train = set(drawn.splits["train"])
            counts = Counter(g for clip in drawn.clips() if clip.clip_id in train for g in clip.sentence.glosses)
            assert min(counts[gloss] for gloss in SIZES[size].glosses) >= SIZES[size].min_train_count > 3


def test_bench_keeps_two_signers_for_val_and_test() -> None:
    drawn = plan("bench", 0)
    assert drawn.unseen_signer_splits is not None
    signer_of = {clip.clip_id: video.signer for video in drawn.videos for clip in video.clips}
    signers = {split: {signer_of[i] for i in ids} for split, ids in drawn.unseen_signer_splits.items()}
    assert [len(signers[split]) for split in ("train", "val", "test")] == [4, 1, 1]
    assert len(set.union(*signers.values())) == 6
    assert plan("demo", 0).unseen_signer_splits is None


def test_sizes_hold_what_they_promise() -> None:
    frames = {size: sum(v.num_frames for v in plan(size, 0).videos) for size in SIZES}
    assert 350 <= frames["tiny"] <= 460
    assert 3600 <= frames["demo"] <= 4200
    assert len(plan("bench", 0).clips()) == 300
    assert [len({v.signer for v in plan(size, 0).videos}) for size in SIZES] == [4, 5, 6]


def test_clips_and_signs_follow_one_another_within_their_video(drawn: DemoPlan) -> None:
    for video in drawn.videos:
        assert check_id(video.video_id) == video.video_id
        bounds = [0]
        for clip in video.clips:
            assert tuple(sign.gloss for sign in clip.signs) == clip.sentence.glosses
            bounds += [clip.start, *(edge for sign in clip.signs for edge in (sign.start, sign.end)), clip.end]
        bounds.append(video.num_frames)
        assert bounds == sorted(set(bounds))


def test_videos_are_sorted_by_their_ids() -> None:
    ids = [video.video_id for video in plan("tiny", 3).videos]
    assert ids == sorted(set(ids))


def test_an_unknown_size_or_video_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"size 'huge'.*expected one of tiny, demo, bench"):
        plan("huge", 0)
    with pytest.raises(UserError, match=r"video 'nope'.*expected demo_000 to demo_003"):
        plan("tiny", 0).video("nope")


def test_the_plan_is_known_without_heavy_imports() -> None:
    code = (
        "import sys; from signstreams.demo.plan import plan; plan('demo', 0)\n"
        "print([name for name in ('numpy', 'cv2', 'av', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
