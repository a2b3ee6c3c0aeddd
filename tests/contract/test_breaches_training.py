"""What the planned training would refuse fails the contract, by file, rule and fix; without a plan it is no fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.contract.rules import RULES
from signstreams.contract.training_checks import TrainingRecord, read_record, refused_since
from signstreams.contract.validate import write_validation
from signstreams.errors import UserError
from signstreams.integrate.corpus_rules import TRAINING_RULES
from signstreams.integrate.settings import IntegrateConfig

from .breaches import Breaches, BreakIt
from .corpora import BrokenCorpus, rules_of

breaks = Breaches()


def plan(corpus: BrokenCorpus, *words: str) -> None:
    """Plan a training with these settings, on top of ones that the good corpus meets."""
    corpus.settings = {"training": {"set": ["data.frame_stride=1", *words]}}


@breaks("training.split", "index/val.csv", "split the corpus again")
def split_without_texts(corpus: BrokenCorpus) -> None:
    plan(corpus)
    corpus.edit(corpus.layout.meta, "c3;two;casa", "c3;two; ")


@breaks("training.split", "index/test.csv", "report")
def split_of_videos_that_cannot_be_read(corpus: BrokenCorpus) -> None:
    plan(corpus)
    corpus.quarantine("Ñandú d'ayer")


@breaks("training.frames", "meta.csv", "set data.long_clips to stride")
def clips_beyond_max_frames(corpus: BrokenCorpus) -> None:
    plan(corpus, "data.max_frames=9")


@breaks("training.tokens", "meta.csv", "raise decoder.max_tokens")
def texts_beyond_max_tokens(corpus: BrokenCorpus) -> None:
    plan(corpus, "decoder.max_tokens=4")  # "casa", which is in val alone, is four letters and the end


@breaks("training.unknown_gloss", "annotations/gloss.csv", "set data.unknown_gloss to count")
def glosses_that_train_lacks(corpus: BrokenCorpus) -> None:
    plan(corpus, "data.unknown_gloss=refuse")
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2", "c3;HOLA CASA;1 3")


@breaks("training.glosses", "annotations/gloss.csv", "annotate them")
def glosses_alone_and_none_in_val(corpus: BrokenCorpus) -> None:
    plan(corpus, "mska.translation_weight=0")
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2\n", "")


@breaks("training.model", "decoder.model", "hf download google/mt5-absent --local-dir models/mt5-absent")
def language_model_that_is_not_here(corpus: BrokenCorpus) -> None:
    plan(corpus, "decoder.model=google/mt5-absent")


@breaks("training.letters", "models/plain", "take a multilingual model")
def tokenizer_that_loses_the_accents(corpus: BrokenCorpus) -> None:
    plan(corpus, "decoder.model=google/t5-v1_1-base", "decoder.weights=random", "decoder.tokenizer=models/plain")


@breaks("training.text_files", "train.text_files", "name one")
def text_files_that_are_not_there(corpus: BrokenCorpus) -> None:
    corpus.settings = {"training": {"set": ["stage=text", "train.text_files=absent.txt"]}}


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus,
    rule: str,
    file: str,
    fix: str,
    break_it: BreakIt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_plain_tokenizer(tmp_path / "models" / "plain")
    monkeypatch.chdir(tmp_path)
    corpus.must_report(rule, file, fix, break_it)


def test_without_a_plan_nothing_is_asked_for_a_training(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "c3;two;casa", "c3;two; ")
    assert not corpus.validate().has_errors
    assert read_record(corpus.layout) is None


def test_all_of_it_is_said_at_once_each_clip_with_its_row(corpus: BrokenCorpus) -> None:
    plan(corpus, "data.max_frames=9", "decoder.max_tokens=4", "data.unknown_gloss=refuse")
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2", "c3;HOLA CASA;1 3")
    found = [f for f in corpus.errors() if f.rule.startswith("training.")]
    assert {f.rule for f in found} == {"training.frames", "training.tokens", "training.unknown_gloss"}
    lines = [finding.line() for finding in found]
    assert (
        "meta.csv row 4: clip 'c3': has 10 frames, expected at most 9; raise data.max_frames or data.frame_stride, set"
        " data.long_clips to stride, or cut the clip [training.frames]"
    ) in lines
    assert [f.row for f in found if f.rule == "training.frames"] == [4, 5]  # c3 and c4 are whole videos
    assert all(rule.id in RULES for rule in TRAINING_RULES)


@pytest.mark.parametrize("words", [["data.long_clips=stride"], ["data.frame_stride=2"], ["data.max_frames=10"]])
def test_what_the_training_would_accept_passes(corpus: BrokenCorpus, words: list[str]) -> None:
    plan(corpus, "data.max_frames=9", *words)
    assert not [finding.line() for finding in corpus.errors()]


def test_clips_that_ctc_leaves_out_are_a_warning(corpus: BrokenCorpus) -> None:
    """c2: five frames are two steps of four at stride 1, and two equal glosses need three."""
    plan(corpus)
    (finding,) = [finding for finding in corpus.validate().findings if finding.rule == "training.ctc_steps"]
    assert (finding.severity, finding.row) == ("warning", 3)
    assert finding.found == "clip 'c2' has 2 steps of 4 frames for 2 glosses, which need 3: CTC leaves it out"
    plan(corpus, "mska.ctc_weight=0")
    assert "training.ctc_steps" not in rules_of(corpus.validate(), "warning")


def test_where_backbones_are_wanted_first_it_is_a_warning(corpus: BrokenCorpus) -> None:
    corpus.settings = {"training": {"set": ["data.max_frames=9", "data.frame_stride=1"], "breaches": "warn"}}
    validation = corpus.validate()
    assert not validation.has_errors and "training.frames" in rules_of(validation, "warning")


def test_the_settings_come_from_a_config_file_of_a_training_and_are_checked(
    corpus: BrokenCorpus, tmp_path: Path
) -> None:
    file = tmp_path / "train.yml"
    file.write_text("data: {max_frames: 9, frame_stride: 1}\ntrain: {epochs: 3}\n", encoding="utf-8")
    assert "training.frames" in {f.rule for f in corpus.errors(training={"config": file})}
    assert not corpus.errors(training={"config": file, "set": ["data.max_frames=12"]})
    with pytest.raises(UserError, match=r"unknown key 'data\.max_frame' \(--training-set data\.max_frame\)"):
        corpus.validate(training={"set": ["data.max_frame=12"]})


def test_settings_that_were_changed_since_are_refused_without_the_footage(corpus: BrokenCorpus) -> None:
    """The workflow plans a training, the contract runs, and the settings change: the next plan says what is wrong."""
    planned = TrainingRecord.of(IntegrateConfig.model_validate({"data": {"frame_stride": 1}}))
    planned.write(corpus.layout)
    validation = corpus.validate()
    assert "training.ctc_steps" in rules_of(validation, "warning")  # it knew of the plan
    write_validation(corpus.layout, validation)
    record = read_record(corpus.layout)
    assert record is not None and record.num_frames == {"c1": 5, "c2": 5, "c3": 10, "c4": 10, "c5": 8}
    shorter = IntegrateConfig.model_validate({"data": {"frame_stride": 1, "max_frames": 9}})
    changed = TrainingRecord.of(shorter)
    for path in (corpus.layout.processed, corpus.layout.videos):
        path.rename(path.with_name(f"moved {path.name}"))
    assert refused_since(corpus.layout, planned) == []
    assert [(f.rule, f.row) for f in refused_since(corpus.layout, changed)] == [("training.frames", n) for n in (4, 5)]
    with_stage = TrainingRecord.of(planned.training, [of_stage("g2t", decoder={"max_tokens": 4})])
    found = [f.found for f in refused_since(corpus.layout, with_stage)]
    assert found and all(text.startswith("stage g2t: clip ") for text in found)
    corpus.edit(corpus.layout.meta, "casa", "casas")  # then the contract runs again
    assert refused_since(corpus.layout, changed) == []


def of_stage(stage: str, **tree: dict[str, object]) -> IntegrateConfig:
    return IntegrateConfig.model_validate({"stage": stage, **tree})


def of_training(corpus: BrokenCorpus, *stages: IntegrateConfig) -> list[str]:
    """What the contract says where these stages are planned before a training that accepts the corpus."""
    corpus.settings = {}
    TrainingRecord.of(IntegrateConfig(), stages).write(corpus.layout)
    return [finding.line() for finding in corpus.validate().findings if finding.rule.startswith("training.")]


def test_the_settings_of_each_stage_are_checked_and_the_stage_is_named(corpus: BrokenCorpus) -> None:
    assert not [line for line in of_training(corpus) if "stage" in line]
    (line,) = of_training(corpus, of_stage("vlp", data={"max_frames": 4}))[:1]
    assert line.startswith("meta.csv row 4: stage vlp: clip 'c3': has 5 frames, expected at most 4; raise")
    before = of_training(corpus)
    for stage in ("g2t", "text"):
        lines = [line for line in of_training(corpus, of_stage(stage, decoder={"max_tokens": 4})) if line not in before]
        assert lines and all(f"stage {stage}: clip" in line and "tokens, expected at most 4" in line for line in lines)
    assert of_training(corpus, of_stage("s2g", decoder={"max_tokens": 4})) == before, "it learns no text"
    dense = of_training(corpus, of_stage("s2g", data={"frame_stride": 1}))
    assert sorted(before) != sorted(dense), "CTC's lengths are those at the stride of the stage"
    assert all(line in before or "stage s2g: " in line for line in dense)


def test_stages_of_glosses_need_some(corpus: BrokenCorpus) -> None:
    corpus.layout.gloss.unlink()
    lines = of_training(corpus, of_stage("s2g"), of_stage("g2t"))
    wanted = "annotations/gloss.csv: stage {}: has no glosses for the clips of train, expected some; stage {}"
    for stage, does in (("s2g", "learns"), ("g2t", "reads")):
        assert [line for line in lines if line.startswith(wanted.format(stage, f"{stage} {does} them"))], lines


def test_glosses_that_a_stage_does_not_know_are_refused_as_it_cleans_them(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2", "c3;loc-HOLA ADIÓS;1 2")
    refusing: dict[str, dict[str, object]] = {"data": {"unknown_gloss": "refuse"}}
    (line,) = [text for text in of_training(corpus, of_stage("g2t", **refusing)) if "unknown" in text]
    assert "stage g2t: 1 glosses of val are in no clip of train: 'loc-HOLA'" in line
    cleaned = of_stage("g2t", **refusing, scoring={"gloss_cleanup": "phoenix2014t"})
    assert not [text for text in of_training(corpus, cleaned) if "unknown" in text]


def test_texts_have_the_tokens_of_the_stage_whose_tokenizer_is_kept(corpus: BrokenCorpus, tmp_path: Path) -> None:
    """With a text file that says "casa" it is one token, and not four."""
    short = IntegrateConfig.model_validate({"decoder": {"max_tokens": 4}})
    file = tmp_path / "more.txt"
    file.write_text("mi casa\ntu casa\nla casa\n" * 3, encoding="utf-8")
    texts = of_stage("text", decoder={"max_tokens": 4}, train={"text_files": file})
    corpus.settings = {}
    found = []
    for stages in ([], [texts]):
        TrainingRecord.of(short, stages).write(corpus.layout)
        lines = [f.line() for f in corpus.validate().findings if f.rule == "training.tokens"]
        found.append([line for line in lines if "'c3'" in line])
    assert found[0] and not found[1]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {"data.max_frames": 0}, "num_frames": null}'])
def test_a_damaged_plan_is_none(corpus: BrokenCorpus, content: str) -> None:
    corpus.layout.planned_training.parent.mkdir()
    corpus.layout.planned_training.write_text(content, encoding="utf-8")
    assert read_record(corpus.layout) is None
    assert not corpus.validate().has_errors


def write_plain_tokenizer(folder: Path) -> None:
    """A tokenizer of Hugging Face that knows the letters a to z."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz;"]
    model = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    model.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
