"""The verdict in words: each answer by the interval that was recorded, and what cannot be told said so."""

from __future__ import annotations

from typing import Any

import pytest

from signstreams.demo.plan import plan
from signstreams.publish.figures import demo_range
from signstreams.publish.verdict import DemoRange, Sentence, verdict


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def scores(bleu: dict[str, float], chrf: dict[str, float], wer: dict[str, float] | None = None) -> dict[str, Any]:
    """Scores of 14 clips with these differences from blank video."""
    blank: dict[str, Any] = {"bleu_4": 3.0, "chrf": 10.0, "difference": {"bleu_4": bleu, "chrf": chrf}}
    content = {"split": "test", "num_clips": 14, "bleu_4": 3 + bleu["value"], "chrf": 10 + chrf["value"]}
    if wer is not None:
        blank["gloss"] = {"wer": 90.0}
        blank["difference"]["wer"] = wer
        content["gloss"] = {"wer": 90 + wer["value"]}
    return content | {"baselines": {"blank_video": blank}}


def corpus(**changed: Any) -> dict[str, Any]:
    streams = {"face": {"coverage": 1.0}, "hand_l": {"coverage": 0.4}, "hand_r": {"coverage": 0.95}}
    counts = {"num_videos": 300, "num_clips": 9000, "num_frames": 90_000, "duration_s": 200 * 3600.0}
    return {**counts, "num_signers": 9, "few_clips": None, "streams": streams, "signers": {"a": "ana"}, **changed}


def judge(split: str, *differences: dict[str, float]) -> dict[str, Any]:
    """Of a backbone at 50 %, its first weights and pixels."""

    def row(name: str, kind: str, value: float) -> dict[str, Any]:
        return {"name": name, "kind": kind, "features": "", "scores": {split: {"knn": {"value": value}}}}

    own = row("backbone.pt", "backbone", 0.5)
    names = ("first weights", "grey pixels", "HOG")[: len(differences)]
    own["differences"] = {n: {split: {"knn": d}} for n, d in zip(names, differences, strict=True)}
    others = [row(n, "free", 0.5 - d["value"]) for n, d in zip(names, differences, strict=True)]
    return {"judge": {"k": 20, "splits": {split: {"title": "other videos"}}, "rows": [own, *others]}}


def said(found: list[Sentence], about: str) -> tuple[str, str]:
    (sentence,) = [sentence for sentence in found if sentence.about == about]
    return sentence.grade, sentence.text


ABOVE, AROUND, BELOW = interval(20, 5, 30), interval(1, -4, 6), interval(-9, -15, -2)


@pytest.mark.parametrize(
    ("bleu", "chrf", "grade", "start"),
    [
        (ABOVE, ABOVE, "good", "The text is better than blind: chrF 30.0 against 10.0 with blank video (+20.0, 95 %"),
        (AROUND, ABOVE, "good", "The text is better than blind: chrF 30.0"),
        (ABOVE, AROUND, "unclear", "Cannot tell whether the text is better than blind: chrF 11.0"),
        (AROUND, AROUND, "unclear", "Cannot tell"),
        (BELOW, AROUND, "bad", "The text is worse than blind"),
        (BELOW, ABOVE, "bad", "The text is worse than blind"),
        (AROUND, BELOW, "bad", "The text is worse than blind"),
    ],
)
def test_the_text_is_better_than_blind_by_chrf_unless_bleu_is_worse(
    bleu: dict[str, float], chrf: dict[str, float], grade: str, start: str
) -> None:
    found = said(verdict(None, {}, scores(bleu, chrf)), "text")
    assert found[0] == grade and found[1].startswith(start) and found[1].endswith("over 14 clips of test.")


def test_fewer_errors_of_glosses_are_better() -> None:
    found = said(verdict(None, {}, scores(ABOVE, ABOVE, interval(-40, -55, -20))), "glosses")
    assert found == ("good", "Glosses are recognised better than blind: WER 50.0 against 90.0 with blank video (-40.0, 95 % interval -55.0 to -20.0).")  # fmt: skip # noqa: E501
    assert said(verdict(None, {}, scores(ABOVE, ABOVE, interval(5, 1, 9))), "glosses")[0] == "bad"
    alone = {"split": "test", "num_clips": 14, "gloss": {"wer": 41.0}}
    assert said(verdict(None, {}, alone), "glosses")[0] == "good"
    assert said(verdict(None, {}, alone | {"gloss": {"wer": 100.0}}), "glosses")[0] == "bad"


def test_what_cannot_be_told_is_said_to_be_so() -> None:
    content = scores(ABOVE, ABOVE)
    grade, text = said(verdict(None, {}, content | {"num_clips": 3}), "text")
    assert grade == "unclear" and "3 clips of test are too few" in text
    del content["baselines"]["blank_video"]["difference"]
    assert "no interval was recorded" in said(verdict(None, {}, content), "text")[1]
    assert "no interval was recorded" in said(verdict(None, {}, content | {"baselines": {}}), "text")[1]
    assert "another best.pt" in said(verdict(None, {}, content, is_outdated=True), "text")[1]
    assert verdict(None, {}, None) == []


def test_a_backbone_has_to_beat_first_weights_and_pixels_on_unseen_signers() -> None:
    by_signer = {"hand_r": judge("signer_out", interval(0.2, 0.1, 0.3), interval(0.1, -0.1, 0.2))}
    grade, text = said(verdict(None, by_signer, None), "hand_r")
    assert grade == "unclear" and text == (
        "On unseen signers the backbone of hand_r beats its first weights, 50.0 against 30.0 % (+20.0, 95 % interval"
        " 10.0 to 30.0) and cannot be told from grey pixels, 50.0 against 40.0 % (+10.0, 95 % interval -10.0 to 20.0);"
        " right answers of 20-NN."
    )
    ahead, behind = interval(0.2, 0.1, 0.3), interval(-0.2, -0.3, -0.1)
    assert said(verdict(None, {"hand_r": judge("signer_out", ahead, ahead)}, None), "hand_r")[0] == "good"
    grade, text = said(verdict(None, {"hand_r": judge("signer_out", ahead, behind)}, None), "hand_r")
    assert grade == "bad" and "is behind grey pixels" in text
    for hog, expected, words in (
        (ahead, "good", "and beats HOG, 50.0"),
        (interval(0.1, -0.1, 0.2), "unclear", "and cannot be told from HOG, 50.0"),
        (behind, "unclear", "and is behind HOG, 50.0"),
    ):
        grade, text = said(verdict(None, {"hand_r": judge("signer_out", ahead, ahead, hog)}, None), "hand_r")
        assert grade == expected and words in text and "), beats grey pixels" in text
    assert said(verdict(None, {"hand_r": judge("signer_out", ahead, behind, ahead)}, None), "hand_r")[0] == "bad"
    grade, text = said(verdict(None, {"hand_r": judge("split", ahead, ahead)}, None), "hand_r")
    assert text.startswith("On other videos (not on unseen signers")


def test_backbones_without_labels_or_with_a_report_of_before_are_not_judged() -> None:
    found = verdict(None, {"face": {}, "hand_l": judge("split"), "hand_r": {}}, None)
    (sentence,) = found
    assert sentence.grade == "unclear" and "face, hand_l, hand_r" in sentence.text


@pytest.mark.parametrize(("share", "grade"), [(0.95, "good"), (0.6, "unclear"), (0.3, "bad")])
def test_the_hand_that_is_found_more_often_counts(share: float, grade: str) -> None:
    streams = {"face": {"coverage": 1.0}, "hand_l": {"coverage": 0.1}, "hand_r": {"coverage": share}}
    found = said(verdict(corpus(streams=streams), {}, None), "hands")
    told = (10, 100 * share) if grade == "good" else (90, 100 - 100 * share)  # found, or missing
    assert found[0] == grade
    assert f": hand_l in {told[0]} % of the frames, hand_r in {told[1]:.0f} % of the frames" in found[1]


@pytest.mark.parametrize(
    ("changed", "grade", "part"),
    [
        ({}, "good", "200 hours of video: enough to pretrain on, also without published weights."),
        ({"duration_s": 600.0}, "bad", "10 minutes of video: this shows that the chain works"),
        ({"duration_s": 7200.0}, "unclear", "2 hours of video: enough to adapt published weights"),
        ({"few_clips": "33 clips cannot teach translation"}, "bad", ". 33 clips cannot teach translation."),
        ({"num_signers": 1}, "unclear", ". 1 signer: scores say little about other people."),
        ({"num_signers": None}, "good", "200 hours"),
    ],
)
def test_the_data_is_as_good_as_the_scarcest_part_of_it(changed: dict[str, Any], grade: str, part: str) -> None:
    found = said(verdict(corpus(**changed), {}, None), "data")
    assert found[0] == grade and part in found[1]


def demo_counts() -> dict[str, int]:
    drawn = plan("demo", 0)
    num_frames = sum(video.num_frames for video in drawn.videos)
    return {"num_videos": len(drawn.videos), "num_clips": len(drawn.clips()), "num_frames": num_frames}


def test_a_run_of_the_demo_is_held_against_the_runs_of_before() -> None:
    runs = {"seeds": "0, 1", "threads": "2", "machine": "x86_64"}
    expected = DemoRange(demo_counts(), (30.0, 45.0), (10.0, 30.0), runs)
    demo = corpus(**expected.counts, signers={video.video_id: video.signer for video in plan("demo", 0).videos})
    content: dict[str, Any] = scores(ABOVE, ABOVE, interval(-40, -55, -20))
    usual = content | {"bleu_4": 45.04, "gloss": {"wer": 10.0}}
    grade, text = said(verdict(demo, {}, usual, expected=expected), "demo")
    assert grade == "good" and "the range of seeds 0, 1 with 2 threads" in text and "BLEU-4 45.0 (30 to 45)" in text
    grade, text = said(verdict(demo, {}, usual | {"gloss": {"wer": 31.0}}, expected=expected), "demo")
    assert grade == "unclear" and "outside the range" in text
    for other in (demo | {"num_frames": 1}, demo | {"signers": {"mine": None}}):
        assert not [s for s in verdict(other, {}, usual, expected=expected) if s.about == "demo"]


def test_the_recorded_range_is_of_the_demo_corpus_that_is_rendered_now() -> None:
    expected = demo_range()
    assert expected is None or expected.counts == demo_counts()
