"""Protocols of published results: each rule of the gloss clean-up, and papers' figures only of a known corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.integrate.clips import load_clips
from signstreams.integrate.protocols import FIGURES, NAMES, clean_glosses, clean_phoenix2014t, published_figures
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.scoring_settings import GivenScoring, ScoringConfig
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.text_scores import translation_scores

Build = Callable[..., IntegrateConfig]

# Each pair was checked against clean_phoenix_2014_trans of sutwangyan/MSKA (phoenix_cleanup.py at e7d5610), as were
# 400,000 random sequences of such glosses when the rules were written.
CASES = [
    ("REGEN NORD", "REGEN NORD"),
    ("", ""),
    ("__LEFTHAND__ REGEN __EMOTION__ __EPENTHESIS__ NORD", "REGEN NORD"),
    ("__ON__ MORGEN __OFF__", "MORGEN"),
    ("loc-NORD REGEN", "NORD REGEN"),
    ("cl-KOMMEN WOLKE", "KOMMEN WOLKE"),
    ("WOLKE-PLUSPLUS", "WOLKE"),
    ("NORDRAUM RAUM", "NORD RAUM"),
    ("WETTER WIE AUSSEHEN", "WETTER WIE-AUSSEHEN"),
    ("A B REGEN", "A+B REGEN"),
    ("REGEN A B C D", "REGEN A+B+C+D"),
    ("IM A B C D E NORD", "IM A+B+C+D+E NORD"),
    ("IM SCH A NORD", "IM SCH+A NORD"),
    ("IM NN A NORD", "IM NN+A NORD"),
    ("IM A NN NORD", "IM A+NN NORD"),
    ("IM A B", "IM A+B"),
    ("A B", "A B"),  # only what has a neighbour to its right, or another to its left, is joined
    ("REGEN REGEN REGEN NORD", "REGEN NORD"),
    ("IN-KOMMEND IN-KOMMEND", "IN-KOMMEND"),
    ("REGEN NORD REGEN", "REGEN NORD REGEN"),
    ("poss-MEIN lh-HAND", "poss-MEIN lh-HAND"),  # rules of PHOENIX-2014 alone
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_glosses_are_cleaned_by_each_rule(before: str, after: str) -> None:
    assert clean_phoenix2014t(before.split()) == after.split()
    assert clean_glosses(before.split(), "phoenix2014t") == after.split()
    assert clean_glosses(before.split(), "none") == before.split()


def test_bleu_is_counted_as_it_is_asked_for_and_says_so() -> None:
    ours, theirs = ["Der Regen kommt , heute Nacht ."], ["der regen kommt, heute nacht."]
    plain = translation_scores(ours, theirs)
    lower = translation_scores(ours, theirs, ScoringConfig(bleu_lowercase=True))
    untokenised = translation_scores(ours, theirs, ScoringConfig(bleu_tokenize="none", bleu_lowercase=True))
    found = [scores["bleu_1"] for scores in (plain, lower, untokenised)]
    assert found == pytest.approx([100 * 4 / 7, 100, 100 * 3 / 7])
    assert "case:mixed" in plain["bleu_signature"] and "tok:13a" in plain["bleu_signature"]
    assert "case:lc" in lower["bleu_signature"] and "tok:none" in untokenised["bleu_signature"]
    characters = translation_scores(["今天下雨了"], ["今天下雪了"], ScoringConfig(bleu_tokenize="char"))
    assert characters["bleu_1"] == pytest.approx(80) and "tok:char" in characters["bleu_signature"]
    same = ("chrf", "chrf_signature", "rouge_l")
    assert [plain[key] for key in same] == [untokenised[key] for key in same]


def test_what_is_given_stands_above_the_trainings_scoring() -> None:
    trained = ScoringConfig(gloss_cleanup="phoenix2014t", bleu_lowercase=True, num_beams=5)
    assert GivenScoring().over(trained) == trained
    now = GivenScoring(bleu_lowercase=False, gloss_beams=3, corpus="other").over(trained)
    assert now == ScoringConfig(gloss_cleanup="phoenix2014t", gloss_beams=3, num_beams=5)


def write_record(root: Path, **taken: object) -> None:
    record = {"corpus": "PHOENIX-2014T", "taken": {"splits_by": "the corpus", "clips_of_absent_videos": 0, **taken}}
    (root / "import.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_corpus_is_known_by_its_import_or_by_name_and_never_guessed(tmp_path: Path) -> None:
    theirs = ScoringConfig(gloss_cleanup="phoenix2014t", bleu_tokenize="none")
    assert published_figures(tmp_path, None, theirs, "test") is None
    (tmp_path / "import.json").write_text("[torn", encoding="utf-8")
    assert published_figures(tmp_path, None, theirs, "test") is None
    named = published_figures(tmp_path, "how2sign", ScoringConfig(), "test")
    assert named is not None and named["known_by"] == "scoring.corpus" and named["ours_differ"] == []
    write_record(tmp_path)
    found = published_figures(tmp_path, None, theirs, "test")
    assert found is not None and found["corpus"] == "PHOENIX-2014T" and found["ours_differ"] == []
    assert found["known_by"] == "import.json in the corpus folder"
    mska = next(row for row in found["rows"] if row["system"] == "MSKA")
    assert (mska["bleu_4"], mska["wer"]) == (29.03, 19.8) and "README" in mska["source"]
    assert published_figures(tmp_path, "other", theirs, "test") is None


def test_what_makes_our_figures_others_is_said(tmp_path: Path) -> None:
    write_record(tmp_path, splits_by="seed 0, by video", clips_of_absent_videos=1200)
    found = published_figures(tmp_path, None, ScoringConfig(), "val")
    assert found is not None
    said = "; ".join(found["ours_differ"])
    for part in ("ours are of val", "1,200 clips were absent", "seed 0, by video", "not cleaned", "is tokenised"):
        assert part in said
    csl = published_figures(tmp_path, "csl_daily", ScoringConfig(), "test")
    assert csl is not None and "bleu_tokenize char" in csl["ours_differ"][-1]


def test_every_figure_names_its_source_and_its_protocol() -> None:
    assert FIGURES.keys() == NAMES.keys()
    for rows in FIGURES.values():
        assert all(row.source and row.scored_by and row.uses and row.bleu_4 for row in rows)
        order = [row.bleu_4 for row in rows]
        assert order == sorted(order, reverse=True)


def test_scores_name_their_protocol_and_stand_beside_papers(trained: IntegrateConfig, tmp_path: Path) -> None:
    tree = {"checkpoint": trained.output_dir / "best.pt", "splits": ["test"], "blank_video": False}
    tree["decoding"] = {"num_beams": 1}
    plain = score(EvaluateSltConfig.model_validate({**tree, "output_dir": tmp_path / "plain"}))
    assert "published" not in plain
    assert (plain["gloss"]["decoding"], plain["gloss"]["cleanup"]) == ("greedy CTC (beam 1)", "none")
    scoring = {
        "gloss_cleanup": "phoenix2014t",
        "gloss_beams": 4,
        "bleu_tokenize": "none",
        "bleu_lowercase": True,
        "corpus": "phoenix2014t",
    }
    asked = EvaluateSltConfig.model_validate({**tree, "output_dir": tmp_path / "asked", "scoring": scoring})
    content = score(asked)
    assert content["scoring"] == {key: value for key, value in scoring.items() if key != "corpus"}
    assert content["gloss"]["decoding"] == "CTC prefix beam search (beam 4)"
    assert "clean_phoenix_2014_trans" in content["gloss"]["cleanup"]
    assert "case:lc" in content["bleu_signature"] and "tok:none" in content["bleu_signature"]
    assert json.loads((tmp_path / "asked" / "scores.json").read_text())["published"] == content["published"]
    page = (tmp_path / "asked" / "translations.html").read_text(encoding="utf-8")
    assert "Papers on PHOENIX-2014T" in page and "<td>TwoStream</td>" in page and "29.0" in page
    assert "Papers on" not in (tmp_path / "plain" / "translations.html").read_text(encoding="utf-8")
    assert content["losses"] == plain["losses"]


def test_a_training_chooses_by_the_protocol_that_it_is_given(
    tiny_config: Build, own_corpus: Path, tmp_path: Path
) -> None:
    """The one clip of val has a gloss that the clean-up takes away: its references have one word fewer."""
    gloss = own_corpus / "annotations" / "gloss.csv"
    lines = gloss.read_text(encoding="utf-8").splitlines()
    lines = [
        f"{line.rpartition(';')[0]};__ON__ {line.rpartition(';')[2]}" if line.startswith("val") else line
        for line in lines
    ]
    gloss.write_text("\n".join(lines) + "\n", encoding="utf-8")
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
    config = tiny_config(
        root=own_corpus,
        output_dir=tmp_path / "out",
        model=keys,
        data={"unknown_gloss": "count"},
        scoring={"gloss_cleanup": "phoenix2014t", "num_beams": 2, "gloss_beams": 2},
        train={"epochs": 1},
    )
    run(config)
    tree = {"checkpoint": config.output_dir / "best.pt", "splits": ["val"], "decoding": {"num_beams": 2}}
    content = score(EvaluateSltConfig.model_validate(tree))
    entry = load_clips(config).entries["val"][0]
    assert entry.gloss is not None and entry.gloss[0] == "__ON__"
    cleaned = clean_phoenix2014t(entry.gloss)
    assert content["gloss"]["num_glosses"] == len(cleaned) < len(entry.gloss)
    records = [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    on_val = next(record for record in records if "val/bleu_4" in record)
    assert content["bleu_4"] == pytest.approx(on_val["val/bleu_4"])  # the same beams
    assert content["gloss"]["wer"] == pytest.approx(on_val[f"val/wer_{content['gloss']['head']}"])
    plain = score(EvaluateSltConfig.model_validate({**tree, "scoring": {"gloss_cleanup": "none"}}))
    assert plain["gloss"]["num_glosses"] == len(entry.gloss)


def test_scoring_without_effect_is_refused(tiny_config: Build, own_corpus: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"model": {"use_mska": False}, "scoring": {"gloss_beams": 2}}, "scoring.gloss_beams has no effect"),
        ({"mska": {"ctc_weight": 0}, "scoring": {"gloss_cleanup": "phoenix2014t"}}, "scoring.gloss_cleanup has no"),
        ({"mska": {"translation_weight": 0}, "scoring": {"num_beams": 2}}, "scoring.num_beams has no effect"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_config(**changes)
    (own_corpus / "annotations" / "gloss.csv").unlink()
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
    run(tiny_config(root=own_corpus, output_dir=tmp_path / "out", model=keys, train={"epochs": 1}))
    given = EvaluateSltConfig.model_validate({"checkpoint": tmp_path / "out/best.pt", "scoring": {"gloss_beams": 2}})
    with pytest.raises(UserError, match=r"scoring.gloss_beams has no effect: .* has learned no glosses; leave it out"):
        score(given)
