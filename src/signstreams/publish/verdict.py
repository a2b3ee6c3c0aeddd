"""The verdict on a run in plain sentences, each with a grade: pure functions of what the stages recorded.

The overview page and the summary on the terminal say the same ones, in the reader's language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from signstreams.language import plural, tr, translated
from signstreams.streams import HAND_STREAMS

Grade = Literal["good", "unclear", "bad"]
MIN_CLIPS = 5  # with fewer, an interval over clips says nothing
FIRST = "first weights"  # start of the name of the source that is the same network before its pretraining
HOG = "HOG"  # a description of pictures that needs no training; where it is ahead, the backbone has not earned its cost
UNSEEN = "signer_out"  # the judge's split by signers; the other one is by videos
VOTE = "knn"  # of its probes, the one that the verdict is on

HANDS_FOUND, HANDS_RARE = 0.8, 0.5  # share of frames with the hand that is found more often: good from, bad below
GLOSSES_KNOWN, GLOSSES_UNKNOWN = 60.0, 90.0  # WER of a model that learns glosses alone: good below, bad from
FEW_SIGNERS = 5


def expectations() -> list[tuple[float, Grade, str]]:
    """Hours of video below which a row holds, its grade, and what to expect of so much footage."""
    too_few = tr(
        "this shows that the chain works; for more, start from published weights (config/pretrain/from_dinov2.toml)"
    )
    adapt = tr("enough to adapt published weights (config/pretrain/from_dinov2.toml), not to start from nothing")
    return [
        (1, "bad", too_few),
        (10, "unclear", adapt),
        (100, "good", tr("enough to adapt published weights, and for texts on a narrow subject")),
        (float("inf"), "good", tr("enough to pretrain on, also without published weights")),
    ]


@dataclass(frozen=True)
class Sentence:
    """One answer."""

    about: str  # ``text``, ``glosses``, a stream or ``backbones``, ``hands``, ``data`` or ``demo``
    grade: Grade
    text: str


def verdict(
    corpus: Mapping[str, Any] | None,
    backbones: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Any] | None,
    *,
    is_outdated: bool = False,
    expected: DemoRange | None = None,
) -> list[Sentence]:
    """All answers that the figures of the stages (see `signstreams.publish.figures`) allow.

    ``is_outdated``: the scores are of another model than the one that is there. ``expected``: what the demo scores.
    """
    found: list[Sentence] = []
    if is_outdated:
        text = tr("The scores are of another best.pt: run signstreams evaluate.")
        found.append(Sentence("text", "unclear", text))
    elif scores is not None:
        found += _translation(scores)
    found += _backbones(backbones)
    if corpus is not None:
        found += [*_hands(corpus), _data(corpus)]
        if expected is not None and scores is not None and not is_outdated:
            found += _demo(corpus, scores, expected)
    return found


# -- Text and glosses


def _translation(scores: Mapping[str, Any]) -> Iterator[Sentence]:
    blank = scores.get("baselines", {}).get("blank_video", {})
    difference = blank.get("difference", {})
    clips = plural(
        "%(num)s clip of %(split)s", "%(num)s clips of %(split)s", scores["num_clips"], split=scores["split"]
    )
    is_few = scores["num_clips"] < MIN_CLIPS
    if "bleu_4" in scores:
        names = [(name, key) for name, key in (("chrF", "chrf"), ("BLEU-4", "bleu_4")) if key in difference]
        if not names or is_few:
            why = tr("no interval was recorded; run signstreams evaluate")
            if is_few:
                why = tr("%(clips)s are too few", clips=clips)
            text = tr("Cannot tell whether the text is better than blind: %(why)s.", why=why)
            yield Sentence("text", "unclear", text)
        else:
            # BLEU-4 counts runs of four words: over few short sentences its interval is wide. It can only say "worse".
            grades = [_grade([difference[key]]) for _, key in names]
            grade = "bad" if "bad" in grades else grades[0]
            said = {
                "good": tr("The text is better than blind"),
                "unclear": tr("Cannot tell whether the text is better than blind"),
                "bad": tr("The text is worse than blind"),
            }
            figures = ", ".join(_against_blank(name, scores[key], blank[key], difference[key]) for name, key in names)
            text = tr("%(said)s: %(figures)s, over %(clips)s.", said=said[grade], figures=figures, clips=clips)
            yield Sentence("text", grade, text)
    if "gloss" not in scores:
        return
    wer = scores["gloss"]["wer"]
    if "wer" in difference and not is_few:
        grade = _grade([difference["wer"]], lower_is_better=True)
        said = {
            "good": tr("Glosses are recognised better than blind"),
            "unclear": tr("Cannot tell whether glosses are recognised better than blind"),
            "bad": tr("Glosses are recognised worse than blind"),
        }
        figures = _against_blank("WER", wer, blank["gloss"]["wer"], difference["wer"])
        yield Sentence("glosses", grade, f"{said[grade]}: {figures}.")
    elif "bleu_4" not in scores:
        grade = "good" if wer < GLOSSES_KNOWN else "unclear" if wer < GLOSSES_UNKNOWN else "bad"
        text = tr("WER of the glosses: %(wer)s; 100 is as bad as saying nothing.", wer=f"{wer:.1f}")
        yield Sentence("glosses", grade, text)


def _against_blank(name: str, own: float, blank: float, difference: Mapping[str, float]) -> str:
    return tr(
        "%(score)s %(own)s against %(blank)s with blank video (%(interval)s)",
        score=name,
        own=f"{own:.1f}",
        blank=f"{blank:.1f}",
        interval=_interval(difference),
    )


def _grade(differences: list[Mapping[str, float]], *, lower_is_better: bool = False) -> Grade:
    """``bad`` where the interval of one says that it is worse, ``good`` where those of all say that they are better."""
    sign = -1 if lower_is_better else 1
    ends = [sorted((sign * found["low"], sign * found["high"])) for found in differences]
    if any(high < 0 for _, high in ends):
        return "bad"
    return "good" if all(low > 0 for low, _ in ends) else "unclear"


def _interval(found: Mapping[str, float], unit: float = 1) -> str:
    """``"+20.8, 95 % interval 9.5 to 31.2"``."""
    value, low, high = (unit * found[key] for key in ("value", "low", "high"))
    ends = {"low": f"{low:.1f}", "high": f"{high:.1f}"}
    return tr("%(difference)s, 95 %% interval %(low)s to %(high)s", difference=f"{value:+.1f}", **ends)


# -- Backbones


def _backbones(backbones: Mapping[str, Mapping[str, Any]]) -> Iterator[Sentence]:
    unjudged, of_others = [], []
    for stream, figures in backbones.items():
        found = backbone_verdict(stream, figures["judge"]) if "judge" in figures else None
        if found is not None:
            yield found
        elif figures.get("is_judge_of_another"):
            of_others.append(stream)
        else:
            unjudged.append(stream)
    if of_others:
        text = tr(
            "judge.json is not known to be of the backbone.pt beside it: %(streams)s. Run signstreams evaluate-backbone"
            " again.",
            streams=", ".join(of_others),
        )
        yield Sentence("backbones", "unclear", text)
    if unjudged:
        text = tr(
            "Not judged on labelled crops: %(streams)s. How to: docs/evaluate_backbone.md.", streams=", ".join(unjudged)
        )
        yield Sentence("backbones", "unclear", text)


def backbone_verdict(stream: str, judge: Mapping[str, Any]) -> Sentence | None:
    """Against first weights, pixels and HOG; None of a report of before, which has no differences."""
    row = next((row for row in judge["rows"] if row["kind"] == "backbone" and row.get("differences")), None)
    if row is None:
        return None
    split = UNSEEN if UNSEEN in judge["splits"] else next(iter(judge["splits"]))
    parts, differences, is_below_hog = [], [], False
    for name, scores in row["differences"].items():
        found = scores[split][VOTE]
        other = next(r for r in judge["rows"] if r["name"] == name and r["features"] in (row["features"], ""))
        grade = _grade([found])
        if name == HOG:
            is_below_hog = grade != "good"
        else:
            differences.append(found)
        its = tr("its first weights") if name.startswith(FIRST) else translated(name)
        said = {
            "good": tr("beats %(other)s", other=its),
            "unclear": tr("cannot be told from %(other)s", other=its),
            "bad": tr("is behind %(other)s", other=its),
        }[grade]
        ours, theirs = (f"{100 * r['scores'][split][VOTE]['value']:.1f}" for r in (row, other))
        figures = {"own": ours, "its": theirs, "interval": _interval(found, 100)}
        parts.append(tr("%(said)s, %(own)s against %(its)s %% (%(interval)s)", said=said, **figures))
    where = tr("On unseen signers")
    if split != UNSEEN:
        title = translated(judge["splits"][split]["title"])
        where = tr("On %(split)s (not on unseen signers: one alone is known, or none)", split=title)
    text = tr(
        "%(where)s %(backbone)s %(said)s; right answers of %(k)s-NN.",
        where=where,
        backbone=tr("the backbone of %(stream)s", stream=stream) if stream else tr("the backbone"),
        said=f" {tr('and')} ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))),
        k=judge["k"],
    )
    overall = _grade(differences)
    return Sentence(stream, "unclear" if overall == "good" and is_below_hog else overall, text)


# -- The corpus


def _hands(corpus: Mapping[str, Any]) -> Iterator[Sentence]:
    shares = {stream: corpus["streams"][stream]["coverage"] for stream in HAND_STREAMS if stream in corpus["streams"]}
    if not shares or not corpus["num_frames"]:
        return
    best = max(shares.values())
    grade: Grade = "good" if best >= HANDS_FOUND else "unclear" if best >= HANDS_RARE else "bad"
    said = {
        "good": tr("Hands are found"),
        "unclear": tr("Hands are missing in many frames"),
        "bad": tr("Hands are missing in most frames"),
    }[grade]
    counted = shares if grade == "good" else {stream: 1 - share for stream, share in shares.items()}
    figures = ", ".join(
        tr("%(stream)s in %(percent)s %% of the frames", stream=stream, percent=f"{100 * share:.0f}")
        for stream, share in counted.items()
    )
    look = "" if grade == "good" else tr("; look at the previews of the contract page")
    yield Sentence("hands", grade, f"{said}: {figures}{look}.")


def _data(corpus: Mapping[str, Any]) -> Sentence:
    """Whether there is enough of it, and what to expect; the worst of hours, clips and signers gives the grade."""
    hours = corpus["duration_s"] / 3600
    _, grade, expectation = next(row for row in expectations() if hours < row[0])
    minutes = round(60 * hours)
    amount = plural("%(num)s minute of video", "%(num)s minutes of video", minutes)
    if hours >= 2:
        amount = tr("%(num)s hours of video", num=f"{hours:,.0f}")
    parts = [f"{amount}: {expectation}"]
    grades: list[Grade] = [grade]
    if few := corpus.get("few_clips"):
        parts.append(translated(few))
        grades.append("bad")
    if (signers := corpus.get("num_signers")) is not None and signers < FEW_SIGNERS:
        people = plural("%(num)s signer", "%(num)s signers", signers)
        parts.append(tr("%(people)s: scores say little about other people", people=people))
        grades.append("unclear")
    worst = max(grades, key=("good", "unclear", "bad").index)
    return Sentence("data", worst, ". ".join(parts) + ".")


# -- The demo corpus, of which it is known what to expect


@dataclass(frozen=True)
class DemoRange:
    """What runs of the demo as it is shipped scored; `benchmarks/demo.py` records it."""

    counts: dict[str, int]  # of the contract's summary, by which the corpus is known
    bleu_4: tuple[float, float]  # least and greatest of the runs
    wer: tuple[float, float]
    runs: dict[str, str]  # their ``seeds``, numbers of ``threads`` and ``machine``


def _demo(corpus: Mapping[str, Any], scores: Mapping[str, Any], expected: DemoRange) -> Iterator[Sentence]:
    is_demo = all(video_id.startswith("demo_") for video_id in corpus["signers"])
    if not is_demo or any(corpus[key] != count for key, count in expected.counts.items()):
        return
    if "bleu_4" not in scores or "gloss" not in scores:
        return
    measured = (("BLEU-4", scores["bleu_4"], expected.bleu_4), (tr("gloss WER"), scores["gloss"]["wer"], expected.wer))
    is_within = all(low <= round(value, 1) <= high for _, value, (low, high) in measured)  # rounded as the range is
    figures = ", ".join(
        f"{name} {value:.1f} ({tr('%(low)s to %(high)s', low=f'{low:g}', high=f'{high:g}')})"
        for name, value, (low, high) in measured
    )
    runs = tr("seeds %(seeds)s with %(threads)s threads (%(machine)s)", **expected.runs)
    about = {"runs": runs, "figures": figures}
    text = tr("The demo: outside the range of %(runs)s, with the settings as shipped: %(figures)s.", **about)
    if is_within:
        text = tr("The demo: within the range of %(runs)s, with the settings as shipped: %(figures)s.", **about)
    yield Sentence("demo", "good" if is_within else "unclear", text)
