"""The summary on the terminal."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from signstreams.publish.figures import summarize

from .conftest import as_of_before, change_judge, put_another_first


def test_it_says_the_figures_that_matter_and_where_to_look(finished: Any) -> None:
    lines = summarize(finished.root, finished.work_dir)
    text = "\n".join(lines)
    assert "20 videos, 47 clips, 3,425 frames" in text
    assert (
        "loss 4.00 (ln K 5.54)" in text
        and "k-NN: backbone 92.0 %, first weights 88.0 %, HOG 61.0 %, grey pixels 50.0 %" in text
    )
    assert "BLEU-4 5.9, chrF 23.7, ROUGE-L 20.0, gloss WER 56.5 on 7 clips of test" in text
    assert str(finished.work_dir / "dino_face" / "backbone.pt") in text
    assert "overview" not in text
    assert "BLEU-4 5.9 against 3.3 with blank video" in text and "text is better than blind: chrF 23.7" in text
    (finished.work_dir / "overview.html").touch()
    assert "overview.html" in summarize(finished.root, finished.work_dir)[-1]


def test_a_sequence_pretraining_has_a_line_where_there_is_one(with_sequence: Any) -> None:
    (line,) = [line for line in summarize(with_sequence.root, with_sequence.work_dir) if line.startswith("sequence")]
    expected = "hidden steps predicted 44 % (nearest seen step 30 %, most frequent cluster 12 %) on val; "
    assert line == f"sequence    {expected}{with_sequence.work_dir / 'sequence' / 'best.pt'}"


def test_it_is_in_the_readers_language(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    english = summarize(finished.root, finished.work_dir)
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    lines = summarize(finished.root, finished.work_dir)
    assert lines[0].startswith("contrato    20 videos, 47 clips, 3\u202f425 cuadros; conviene mirar ")
    assert "primeros pesos 88.0 %" in "\n".join(lines)
    assert any(line.startswith("traducción  BLEU-4 5.9, chrF 23.7, ROUGE-L 20.0, WER de glosas 56.5") for line in lines)
    assert len(lines) == len(english) and not set(lines) & set(english)


def test_a_stage_that_has_not_run_is_said_to_be_missing(finished: Any) -> None:
    shutil.rmtree(finished.work_dir)
    shutil.rmtree(finished.root)
    assert [("not there yet" in line) for line in summarize(finished.root, finished.work_dir)] == [True] * 5


def test_the_stages_that_ran_are_told_with_their_scores_on_val(finished: Any) -> None:
    records = {
        "text": {"step": 20, "val/is_best": 1, "val/loss_restoration": 1.25},
        "s2g": {"step": 30, "val/is_best": 1, "val/wer_left": 60.0, "val/wer_fuse": 41.0},
        "g2t": {"step": 1200, "val/is_best": 1, "val/bleu_4": 12.34},
    }
    for stage, record in records.items():
        folder = finished.work_dir / stage
        folder.mkdir()
        (folder / "best.pt").touch()
        worse = {"step": 2000, "val/is_best": 0, "val/bleu_4": 1.0}
        (folder / "metrics.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(worse)}\n")
    lines = summarize(finished.root, finished.work_dir)
    assert f"text        restoration loss 1.25 on val, step 20; {finished.work_dir / 'text' / 'best.pt'}" in lines
    assert f"s2g         gloss WER 41.0 on val, step 30; {finished.work_dir / 's2g' / 'best.pt'}" in lines
    assert f"g2t         BLEU-4 12.3 on val, step 1,200; {finished.work_dir / 'g2t' / 'best.pt'}" in lines


def test_scores_of_another_model_are_said_to_be_such(finished: Any) -> None:
    folder = finished.work_dir / "multistream_v9"
    (folder / "best.pt").write_text("another model")
    line = next(line for line in summarize(finished.root, finished.work_dir) if line.startswith("translation"))
    assert line.startswith("translation not scored yet: ") and "is of another best.pt" in line
    (folder / "best.pt").unlink()  # nothing to compare with
    assert "BLEU-4 5.9" in "".join(summarize(finished.root, finished.work_dir))


@pytest.mark.parametrize("is_of_before", [False, True])
def test_a_report_of_another_backbone_is_said_to_be_such(finished: Any, is_of_before: bool) -> None:
    before = "\n".join(summarize(finished.root, finished.work_dir))
    assert before.count("k-NN: ") == 2 and "judge.json" not in before
    if is_of_before:
        change_judge(finished, "hand_l", as_of_before)
    else:
        (finished.work_dir / "dino_hand_l" / "backbone.pt").write_text("pretrained anew")
    text = "\n".join(summarize(finished.root, finished.work_dir))
    assert text.count("k-NN: ") == 1 and "the backbone of hand_l" not in text
    report = finished.work_dir / "dino_hand_l" / "judge.json"
    assert f"not judged yet: {report} is not known to be of this backbone.pt; run signstreams evaluate-backbone" in text
    assert "judge.json is not known to be of the backbone.pt beside it: hand_l. Run signstreams evaluate-bac" in text
    assert "Not judged on labelled crops: face. " in text


def test_of_two_backbones_judged_at_once_that_of_the_run_is_told(finished: Any) -> None:
    before = summarize(finished.root, finished.work_dir)
    change_judge(finished, "hand_l", put_another_first)
    assert summarize(finished.root, finished.work_dir) == before


def test_weights_alone_and_figures_that_are_not_finite_are_no_crash(finished: Any) -> None:
    (finished.work_dir / "dino_face" / "params.json").unlink()
    log = finished.work_dir / "dino_hand_r" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 2010, "train/loss_dino": null}\n')
    _, face, _, _, hand_r, *_ = summarize(finished.root, finished.work_dir)
    assert face.endswith(f"not there yet: {finished.work_dir / 'dino_face' / 'params.json'}")
    assert hand_r.startswith("hand_r      loss – (ln K 5.54), teacher entropy 3.10 per crop, 5.50 per batch")
