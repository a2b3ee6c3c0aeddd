"""What the planned training would refuse of a corpus, found before a GPU is used; the rules are the training's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from signstreams.config.load import build, check, put, split_setting
from signstreams.contract.settings import ContractConfig
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, Severity, errors
from signstreams.corpus.gloss import Gloss, GlossVocabulary, ctc_steps_needed, scan_gloss
from signstreams.corpus.meta_csv import scan_meta
from signstreams.corpus.splits import scan_index
from signstreams.errors import UserError
from signstreams.files import read_json, write_json
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.ids import shown
from signstreams.integrate import corpus_rules as rules
from signstreams.integrate.corpus_rules import (
    TIME_STRIDE,
    Refusal,
    all_quarantined,
    clips_with_text,
    frames_at_stride,
    glosses_alone,
    lost_letters,
    no_clip,
    no_glosses_to_read,
    num_steps,
    settings_for_corpus,
    tokenizer_for,
    tokenizer_texts,
    too_long,
    too_many_tokens,
    train_vocabulary,
    unknown_glosses,
)
from signstreams.integrate.model_files import absent_files
from signstreams.integrate.protocols import clean_glosses
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.stage_settings import sees_video
from signstreams.integrate.text_files import read_sentences, without_held_out

META, GLOSS = "meta.csv", "annotations/gloss.csv"


# -- The training that is planned


@dataclass(frozen=True)
class TrainingRecord:
    """``contract/training.json``: the training that is planned on the corpus, and what the contract knows for it.

    The workflow writes the settings when it starts. They are no parameters of its rule: another ``data.max_frames``
    would then make the contract stale and, as Snakemake runs whatever depends on a job that runs, all pretraining. So
    settings that were changed since are checked when the workflow is planned, by `refused_since`.
    """

    settings: dict[str, Any]  # key to value, as `settings_for_corpus` gives them
    num_frames: dict[str, int] | None = None  # clip to its frames, where they are known; None before the contract ran
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage before it to its settings, likewise

    @classmethod
    def of(cls, training: IntegrateConfig, stages: Iterable[IntegrateConfig] = ()) -> TrainingRecord:
        """Of a training that is planned, and of the stages that it starts from."""
        return cls(settings_for_corpus(training), None, {each.stage: settings_for_corpus(each) for each in stages})

    @property
    def training(self) -> IntegrateConfig:
        """The settings as a config; a `UserError` where they are none."""
        return _config_of(self.settings)

    @property
    def stage_trainings(self) -> list[IntegrateConfig]:
        """Those of the stages, likewise."""
        return [_config_of(settings) for settings in self.stages.values()]

    def write(self, layout: CorpusLayout) -> None:
        """Write it, unless it is there already."""
        content = {"settings": self.settings, "num_frames": self.num_frames}
        content |= {"stages": self.stages} if self.stages else {}
        if read_record(layout) != self:
            write_json(layout.planned_training, content)


def _config_of(settings: Mapping[str, Any]) -> IntegrateConfig:
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        put(tree, key, value)
    return check(IntegrateConfig, tree, "contract/training.json")


def read_record(layout: CorpusLayout) -> TrainingRecord | None:
    """None where it is absent, or is no such record: the workflow writes it again."""
    try:
        content = read_json(layout.planned_training)
        record = TrainingRecord(dict(content["settings"]), content["num_frames"], dict(content.get("stages", {})))
        if record.num_frames is not None and not all(type(count) is int for count in record.num_frames.values()):
            return None
        return record if record.training and record.stage_trainings is not None else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        return None


def planned_training(config: ContractConfig) -> TrainingRecord | None:
    """The settings of the training that is planned, as given or as the workflow left them; None where none is.

    Raises:
        UserError: With every problem of those that are given.
    """
    given = config.training
    if given.config is None and not given.set:
        return read_record(CorpusLayout(config.root))
    files = [] if given.config is None else [given.config]
    return TrainingRecord.of(build(IntegrateConfig, files, split_setting(given.set), place="--training-set"))


def refused_since(layout: CorpusLayout, planned: TrainingRecord) -> list[Finding]:
    """What the training would refuse of a corpus that kept the contract with other settings; reads the tables alone.

    Empty where the contract has yet to run, or ran with these settings. Where a table was changed since, it runs again.
    """
    record = read_record(layout)
    if record is None or record.num_frames is None or replace(planned, num_frames=record.num_frames) == record:
        return []
    tables = [layout.meta, *map(layout.index, SPLITS), *([layout.gloss] if layout.gloss.exists() else [])]
    try:
        checked_ns = layout.manifest.stat().st_mtime_ns
        if any(table.stat().st_mtime_ns > checked_ns for table in tables):
            return []
    except FileNotFoundError:
        return []
    clips = scan_meta(layout.meta).clips
    index = scan_index(layout, clips).splits
    glosses = scan_gloss(layout.gloss).glosses if layout.gloss.is_file() else {}
    lost = {clip.video_id for clip in clips if clip.clip_id not in record.num_frames}
    breaches = errors(check_trainings(planned, clips, lost, record.num_frames, index, glosses))
    return sorted(breaches, key=lambda finding: (finding.rule, finding.file, finding.row or 0))


def refused_by_stages(layout: CorpusLayout, trainings: Iterable[IntegrateConfig]) -> list[str]:
    """What trainings of stages would refuse of the tables of a corpus: one line each.

    Where its splits are yet to be drawn, any clip may come to be in any of them.
    """
    clips = scan_meta(layout.meta).clips
    by_id = {clip.clip_id: clip for clip in clips}
    index: Mapping[str, Sequence[str]] = {split: list(by_id) for split in SPLITS}
    if all(layout.index(split).is_file() for split in SPLITS):
        index = scan_index(layout, clips).splits
    glosses = scan_gloss(layout.gloss).glosses if layout.gloss.is_file() else {}
    has_glosses = {
        split: any(clip_id in glosses and glosses[clip_id].labels for clip_id in ids)
        for split, ids in clips_with_text(index, by_id).items()
    }
    refusals = {
        training.stage: no_glosses_to_read(has_glosses)
        if training.stage == "g2t"
        else glosses_alone(has_glosses, training)
        for training in trainings
    }
    return [f"integrate.stages: {stage}: {found.line(str(layout.gloss))}" for stage, found in refusals.items() if found]


# -- What it would refuse


@dataclass(frozen=True)
class _Usable:
    """The clips that the training would read."""

    clips: dict[str, list[Clip]]  # split to its clips with a text whose video was extracted, in the order of the index
    num_frames: Mapping[str, int]  # clip to its frames, where they are known


def check_trainings(
    planned: TrainingRecord,
    clips: Sequence[Clip],
    lost_videos: Collection[str],
    num_frames: Mapping[str, int],
    index: Mapping[str, Sequence[str]],
    glosses: Mapping[str, Gloss],
) -> Iterator[Finding]:
    """As `check_training`, of the planned training, and of its stages what it would not refuse itself, each named."""
    stages = planned.stage_trainings
    of_texts = next((training for training in (planned.training, *stages) if training.stage == "text"), None)

    def found_of(training: IntegrateConfig) -> list[Finding]:
        starts_from = None if training.stage == "s2g" else of_texts
        return list(check_training(training, clips, lost_videos, num_frames, index, glosses, starts_from))

    whole = found_of(planned.training)
    yield from whole
    for training in stages:
        for found in found_of(training):
            if found not in whole:
                yield replace(found, found=f"stage {training.stage}: {found.found}")


def check_training(
    training: IntegrateConfig,
    clips: Sequence[Clip],
    lost_videos: Collection[str],
    num_frames: Mapping[str, int],
    index: Mapping[str, Sequence[str]],
    glosses: Mapping[str, Gloss],
    starts_from: IntegrateConfig | None = None,
) -> Iterator[Finding]:
    """All that the training would refuse, and which clips CTC would leave out.

    ``lost_videos`` could not be extracted; ``num_frames`` are those of each clip, where they are known. Of stage text,
    where the training ``starts_from`` it, it keeps the tokenizer.
    """
    if set(index) != set(SPLITS) or not clips:
        return  # an error of its own
    by_id = {clip.clip_id: clip for clip in clips}
    with_text = clips_with_text(index, by_id)
    if not sees_video(training.stage):
        yield from _check_without_video(training, by_id, with_text, glosses, starts_from)
        return
    there = {clip.clip_id for clip in clips if clip.video_id not in lost_videos}
    chosen = {split: [by_id[name] for name in ids if name in there] for split, ids in with_text.items()}
    usable = _Usable(chosen, num_frames)
    for split in SPLITS:
        if not usable.clips[split]:
            refusal = all_quarantined(split) if with_text[split] else no_clip(split)
            yield _finding(rules.SPLIT, refusal, f"index/{split}.csv")
    yield from _check_lengths(training, usable)
    vocabulary = train_vocabulary(glosses, with_text["train"], training)
    yield from _check_glosses(training, usable, with_text, glosses, vocabulary)
    yield from _check_texts(training, usable, _texts_of_stage(starts_from, by_id, with_text))


def _check_without_video(
    training: IntegrateConfig,
    clips: Mapping[str, Clip],
    index: Mapping[str, Sequence[str]],
    glosses: Mapping[str, Gloss],
    starts_from: IntegrateConfig | None,
) -> Iterator[Finding]:
    """Of stage g2t, or text: what they read is in the tables, whatever was extracted."""
    chosen = {split: [clips[name] for name in ids] for split, ids in index.items()}
    vocabulary = None
    if training.stage == "text":
        del chosen["test"]
    else:
        cleanup = training.scoring.gloss_cleanup
        cleaned = {name: replace(g, labels=tuple(clean_glosses(g.labels, cleanup))) for name, g in glosses.items()}
        read = {name for name, gloss in cleaned.items() if gloss.labels}
        chosen = {split: [clip for clip in of if clip.clip_id in read] for split, of in chosen.items()}
        if refusal := no_glosses_to_read({split: bool(of) for split, of in chosen.items()}):
            yield _finding(rules.GLOSSES, refusal, GLOSS)
        vocabulary = GlossVocabulary.build(cleaned, [clip.clip_id for clip in chosen["train"]])
        for split in ("val", "test") if training.data.unknown_gloss == "refuse" else ():
            if refusal := unknown_glosses([clip.clip_id for clip in chosen[split]], split, cleaned, vocabulary):
                yield _finding(rules.UNKNOWN_GLOSS, refusal, GLOSS)
    for split in chosen:
        if not index[split]:
            yield _finding(rules.SPLIT, no_clip(split), f"index/{split}.csv")
    kept = _texts_of_stage(starts_from, clips, index)
    yield from _check_texts(training, _Usable(chosen, {}), kept, vocabulary)


def _texts_of_stage(
    starts_from: IntegrateConfig | None, clips: Mapping[str, Clip], index: Mapping[str, Sequence[str]]
) -> list[str] | UserError | None:
    """The texts of the tokenizer that is kept from a stage text; None where the training learns its own."""
    if starts_from is None or not starts_from.decoder.uses_own_tokenizer:
        return None
    texts = {split: [clips[name].text for name in ids] for split, ids in index.items()}
    try:
        sentences = read_sentences(starts_from.train.text_files)
    except UserError as error:
        return error
    held_out = {split: own for split, own in texts.items() if split != "train"}
    return texts["train"] + [sentence.text for sentence in without_held_out(sentences, held_out)]


def _finding(
    rule: Rule, refusal: Refusal, file: str, *, clip: Clip | None = None, severity: Severity | None = None
) -> Finding:
    found, row = refusal.found, None
    if clip is not None:
        found, row = f"clip {shown(clip.clip_id)}: {found}", clip.row
    return rule.breach(file, found, refusal.fix, row=row, expects=refusal.expected, severity=severity)


def _check_lengths(training: IntegrateConfig, usable: _Usable) -> Iterator[Finding]:
    for chosen in usable.clips.values():
        for clip in chosen:
            frames = frames_at_stride(0, usable.num_frames.get(clip.clip_id, 0), training.data)
            if refusal := too_long(frames, training.data):
                yield _finding(rules.FRAMES, refusal, META, clip=clip)


def _check_glosses(
    training: IntegrateConfig,
    usable: _Usable,
    index: Mapping[str, Sequence[str]],
    glosses: Mapping[str, Gloss],
    vocabulary: GlossVocabulary | None,
) -> Iterator[Finding]:
    def are_in(split: str) -> bool:
        return vocabulary is not None and any(
            clip.clip_id in glosses and glosses[clip.clip_id].labels for clip in usable.clips[split]
        )

    if refusal := glosses_alone({split: are_in(split) for split in ("train", "val")}, training):
        yield _finding(rules.GLOSSES, refusal, GLOSS)
    if vocabulary is None:
        return
    if training.data.unknown_gloss == "refuse":
        for split in ("val", "test"):
            if refusal := unknown_glosses(index[split], split, glosses, vocabulary):
                yield _finding(rules.UNKNOWN_GLOSS, refusal, GLOSS)
    if not training.learns_glosses:
        return
    for chosen in usable.clips.values():
        for clip in chosen:
            gloss, count = glosses.get(clip.clip_id), usable.num_frames.get(clip.clip_id)
            if gloss is None or not count or vocabulary.unknown(gloss.labels):
                continue
            needed, there = ctc_steps_needed(gloss.labels), num_steps(len(frames_at_stride(0, count, training.data)))
            if there < needed:
                found = (
                    f"clip {shown(clip.clip_id)} has {there} steps of {TIME_STRIDE * training.data.frame_stride} frames"
                    f" for {len(gloss.labels)} glosses, which need {needed}: CTC leaves it out"
                )
                fix = "lower data.frame_stride, or go on without: the text is still learned"
                yield rules.CTC_STEPS.breach(GLOSS, found, fix, row=gloss.row)


def _check_texts(
    training: IntegrateConfig,
    usable: _Usable,
    kept: Sequence[str] | UserError | None,
    vocabulary: GlossVocabulary | None = None,
) -> Iterator[Finding]:
    """``kept`` are the texts of a tokenizer that is kept from stage text, or what is wrong with its files."""
    if isinstance(kept, UserError):
        yield from (_of_line(line, rules.TEXT_FILES) for line in kept.problems)
        return
    decoder = training.decoder
    if absent := absent_files(decoder):
        yield from map(_of_line, absent)
        return
    if not training.mska.learns_text:
        return
    if not usable.clips["train"]:
        return
    try:
        own = tokenizer_texts(training, [clip.text for clip in usable.clips["train"]], vocabulary)
        tokenizer = tokenizer_for(decoder, own if kept is None else kept)
    except UserError as error:
        yield from map(_of_line, error.problems)
        return
    every = [clip for chosen in usable.clips.values() for clip in chosen]
    for clip in every:
        if refusal := too_many_tokens(len(tokenizer.encode(clip.text)), decoder.max_tokens):
            yield _finding(rules.TOKENS, refusal, META, clip=clip)
    if found := lost_letters([clip.text for clip in every], tokenizer):
        refusal, is_refused = found
        place = str(decoder.tokenizer or decoder.model)
        yield _finding(rules.LETTERS, refusal, place, severity="error" if is_refused else "warning")


def _of_line(line: str, rule: Rule = rules.MODEL) -> Finding:
    """Of what loading a model, or reading a file, said: place, what was found, next step."""
    place, _, rest = line.partition(": ")
    found, _, fix = rest.partition("; ")
    return rule.breach(place, found.partition(", expected ")[0], fix or "correct it")
