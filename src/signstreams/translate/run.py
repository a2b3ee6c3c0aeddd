"""Translate videos of any length: part after part is extracted, its sentences found and translated, and removed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from signstreams.array_types import Floats
from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.errors import UserError, print_problems
from signstreams.extract.detectors import DetectorKind
from signstreams.formats.subtitles import Cue
from signstreams.integrate.batches import batches_by_length, collate
from signstreams.integrate.clips import ClipEntry, clip_frames
from signstreams.integrate.ctc_decoding import ctc_decode
from signstreams.integrate.gloss_times import gloss_cues
from signstreams.integrate.settings import TrainedModelSection
from signstreams.integrate.trained_model import TrainedModel, load_trained_model
from signstreams.progress import Progress
from signstreams.segment.activity import DEFAULT_PAUSE_S, MIN_SENTENCE_S, RestPlaces, hand_activity, sentences_of
from signstreams.segment.boundary import BoundaryFinder, load_boundary_model
from signstreams.segment.scores import Span
from signstreams.translate.outputs import write_outputs
from signstreams.translate.parts import (
    CONTEXT_S,
    PART_S,
    WHOLE_BELOW_S,
    EmptyPartError,
    Part,
    PartExtractor,
    with_context,
)
from signstreams.translate.plan import VideoPlan, longest_clip_s, plan_videos
from signstreams.translate.settings import TranslateConfig
from signstreams.translate.windows import Window, cut_to, joined_glosses, joined_text, windows_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sentence:
    """One sentence of a video and what the model made of it."""

    start_s: float
    end_s: float
    text: str  # translation; empty where the video has no frame
    glosses: list[Cue] | None  # of the head that was best on val, with their times; None for a model without glosses
    num_frames: int  # frames that the model read; those of overlapping windows count twice
    said: str = ""  # text of the file that gave the sentence


@dataclass(frozen=True)
class Translation:
    """Output of the model for one video."""

    video: str  # file of the video
    sentences: list[Sentence]  # in order of time
    duration_s: float  # duration of the video
    notes: list[str] = field(default_factory=list)  # what a reader should know

    @cached_property
    def text(self) -> str:
        """The texts of all sentences."""
        return " ".join(sentence.text for sentence in self.sentences if sentence.text)

    @property
    def glosses(self) -> list[str] | None:
        """The glosses of all sentences; None for a model without glosses."""
        if any(sentence.glosses is None for sentence in self.sentences):
            return None
        return [cue.text for sentence in self.sentences for cue in sentence.glosses or ()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "video": self.video,
            "text": self.text,
            "glosses": self.glosses,
            "num_frames": sum(sentence.num_frames for sentence in self.sentences),
            "duration_s": self.duration_s,
            "sentences": [
                {
                    "start_s": round(sentence.start_s, 3),
                    "end_s": round(sentence.end_s, 3),
                    "text": sentence.text,
                    "glosses": None if sentence.glosses is None else [_gloss(cue) for cue in sentence.glosses],
                    "num_frames": sentence.num_frames,
                    **({"said": sentence.said} if sentence.said else {}),
                }
                for sentence in self.sentences
            ],
        }


def _gloss(cue: Cue) -> dict[str, Any]:
    return {"gloss": cue.text, "start_s": round(cue.start_s, 3), "end_s": round(cue.end_s, 3)}


def translate(given: TranslateConfig, *, detector: DetectorKind | None = None) -> Iterator[Translation]:
    """Translate each video and write its outputs, with a model that is loaded for these videos alone.

    Without ``detector`` it is the one that the corpus was extracted with. A `UserError` says what is wrong; what is
    impossible is said before anything is extracted.
    """
    world = distributed.start(device=given.device)
    yield from Translator(given, world.device, given.boundary_model).translate(given, detector=detector)


class Translator:
    """A trained model, loaded once for any number of videos."""

    def __init__(self, model: TrainedModelSection, device: torch.device, boundary_model: Path | None = None) -> None:
        """Load a model and, where one is named, what finds sentences beside it; a `UserError` says what is wrong."""
        self.settings = model
        self.device = device
        self.boundary_model = boundary_model
        self.trained = load_trained_model(model)
        self.finder: BoundaryFinder | None = None
        if boundary_model is not None:
            self.finder = load_boundary_model(boundary_model, self.trained).to(device)

    def translate(self, given: TranslateConfig, *, detector: DetectorKind | None = None) -> Iterator[Translation]:
        """As `translate`, for a config that names this very model; extracted files go to a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="signstreams_translate_") as scratch:
            plans = plan_videos(given, self.trained, Path(scratch))
            self.trained.model.to(self.device)
            for plan in plans:
                print_problems(plan.notes, kind="note")
                run = _VideoTranslator(given, self.trained, plan, Path(scratch), detector, self.device, self.finder)
                translation = run.run()
                write_outputs(translation, plan.path, plan.outputs)
                yield translation


@dataclass(frozen=True)
class _Reading:
    """What the model makes of one window; without arguments, of one without frames."""

    text: str = ""
    glosses: list[Cue] | None = None  # None for a model without glosses
    num_frames: int = 0


_Group = tuple[list[Span] | None, list[tuple[Cue, list[Window]]]]
"""Spans of a part (None: the whole video), and the sentences that it holds, each with its windows."""


class _VideoTranslator:
    """The translation of one video."""

    def __init__(
        self,
        given: TranslateConfig,
        trained: TrainedModel,
        plan: VideoPlan,
        scratch: Path,
        detector: DetectorKind | None,
        device: torch.device,
        finder: BoundaryFinder | None,
    ) -> None:
        self.given, self.trained, self.plan, self.device, self.finder = given, trained, plan, device, finder
        self.span_s = plan.span_s(given)
        self.pause_s = DEFAULT_PAUSE_S if given.pause_s is None else given.pause_s
        self.rest = RestPlaces()
        self.sentences: list[Sentence] = []
        self.num_people_frames = 0
        self.duration_s = plan.length_s or 0.0
        self.notes = list(plan.notes)
        data = trained.config.data.model_copy(update={"long_clips": "stride"})  # windows may be a frame too long
        self.config = trained.config.model_copy(update={"data": data})
        self.progress = Progress(None, "frames", f"translate {plan.path.name}")
        self.extractor = PartExtractor(
            trained,
            plan.extraction,
            plan.video_id,
            features=scratch / "features",
            box=given.box,
            detector=detector,
            device=device,
            on_frame=self._on_frame,
        )
        self._is_choice_told = False  # that parts choose their signer among several people
        self._num_due = 0  # frames of the part that have not been counted before

    def run(self) -> Translation:
        """Translate the video."""
        with self.progress:
            if self.plan.segments is None:
                self._find_and_translate()
            else:
                self._translate_given(self.plan.segments)
            self.progress.total = self.progress.done
            self.progress.advance(0, sentences=len(self.sentences))
        if not self.num_people_frames:
            raise UserError(
                f"{self.plan.path}: no person was detected in it, expected a signer; upper body and hands must be"
                " visible"
            )
        if not self.sentences:
            self._warn(f"{self.plan.path}: no sentence was found in it; give their times with --segments")
        return Translation(str(self.plan.path), self.sentences, round(self.duration_s, 3), self.notes)

    # -- Given sentences: parts are made of as many as fit

    def _translate_given(self, segments: Sequence[Cue]) -> None:
        length_s = self.plan.length_s
        is_whole = length_s is not None and length_s <= WHOLE_BELOW_S
        if is_whole or (length_s is None and len(segments) == 1 and self.span_s == (0.0, float("inf"))):
            whole = [(cue, windows_of((cue.start_s, cue.end_s), self._longest_s())) for cue in segments]
            groups: list[_Group] = [(None, whole)]
        else:
            groups = self._grouped(segments)
        self._expect([spans for spans, _ in groups])
        open_windows: list[Window] = []
        found: list[_Reading] = []
        for spans, members in groups:
            self._num_due = 10**9
            try:
                with self.extractor.part(spans) as part:
                    self._note_part(part)
                    flat = [window for _, windows in members for window in windows]
                    results = self._read(part, flat)
            except EmptyPartError as error:
                self._refuse_or_note(error, spans)
                results = [self._nothing()] * sum(len(windows) for _, windows in members)
            for cue, windows in members:
                open_windows += windows
                found += [results.pop(0) for _ in windows]
                if windows and windows[-1].end_s >= cue.end_s - 1e-9:  # the sentence's last part
                    self.sentences.append(self._sentence(cue, open_windows, found))
                    open_windows, found = [], []

    def _grouped(self, segments: Sequence[Cue]) -> list[_Group]:
        """Spans of each part, and its windows by sentence; a sentence with many windows may be in several parts."""
        groups: list[_Group] = []
        length_s = PART_S  # of the last group
        for cue in segments:
            for window in windows_of((cue.start_s, cue.end_s), self._longest_s()):
                span = with_context((window.start_s, window.end_s), self.plan.length_s)
                if length_s + span[1] - span[0] > PART_S:
                    groups.append(([], []))
                    length_s = 0.0
                spans, members = groups[-1]
                assert spans is not None
                spans.append(span)
                if members and members[-1][0] is cue:
                    members[-1][1].append(window)
                else:
                    members.append((cue, [window]))
                length_s += span[1] - span[0]
        return groups

    # -- Sentences to be found: each part begins where the last one left off

    def _find_and_translate(self) -> None:
        start_s, end_s = self.span_s
        self._expect([[(start_s, end_s)]])
        place_s = counted_s = start_s
        while place_s < end_s - 1e-6:
            stop_s = min(place_s + PART_S, end_s)
            span = with_context((place_s, stop_s), self.plan.length_s)
            self._num_due = round((stop_s - counted_s) * self.plan.fps) if self.plan.fps else 10**9
            try:
                with self.extractor.part([span]) as part:
                    self._note_part(part)
                    is_last = stop_s >= end_s - 1e-6
                    spans, next_s = self._find(part, place_s, stop_s, is_last)
                    cues = [Cue(a, b) for a, b in spans]
                    windows = [windows_of(one, self._longest_s()) for one in spans]
                    results = self._read(part, [window for group in windows for window in group])
            except EmptyPartError as error:
                self._refuse_or_note(error, [span])
                return
            for cue, group in zip(cues, windows, strict=True):
                self.sentences.append(self._sentence(cue, group, [results.pop(0) for _ in group]))
            place_s, counted_s = next_s, stop_s

    def _find(self, part: Part, start_s: float, stop_s: float, is_last: bool) -> tuple[list[Span], float]:
        """Sentences of a part that end in it, and where the next part has to start.

        A sentence at the end of the part goes on in the next one, which starts with it, unless it fills this part.
        """
        if self.finder is not None:
            pause_s = self.given.pause_s or 0.0  # a boundary model was scored without
            spans = self.finder.sentences(part.reader, part.video, part.times_s, self.device, pause_s)
        else:
            spans = sentences_of(hand_activity(part.pose, part.times_s, self.rest), part.times_s, self.pause_s)
        spans = [(max(a, start_s), min(b, stop_s)) for a, b in spans if a < stop_s and b > start_s]
        spans = [(a, b) for a, b in spans if b - a >= MIN_SENTENCE_S - 1e-6]  # others were cut off by an edge
        if is_last or not spans or spans[-1][1] < stop_s - self.pause_s - CONTEXT_S / 2:
            return spans, stop_s
        if spans[-1][0] < start_s + PART_S / 4:
            return spans, stop_s
        before_s = spans[-2][1] if len(spans) > 1 else start_s
        return spans[:-1], max(before_s, spans[-1][0] - self.pause_s / 2)

    # -- Both

    def _longest_s(self) -> float:
        return longest_clip_s(self.trained, self.plan.fps)

    def _nothing(self) -> _Reading:
        return _Reading(glosses=None if self.trained.head is None else [])

    def _read(self, part: Part, windows: Sequence[Window]) -> list[_Reading]:
        """What the model makes of each window; an empty text where there is no frame."""
        trained = self.trained
        results = [self._nothing()] * len(windows)
        entries = {}
        for number, window in enumerate(windows):
            try:
                frames = clip_frames(self.config, part.times_s, window.start_s, window.end_s)
            except ValueError as error:
                where = f"{window.start_s:.2f} to {window.end_s:.2f} s"
                self._warn(f"{self.plan.path}: the sentence at {where} {str(error).partition(';')[0]}; it has no text")
                continue
            entries[number] = ClipEntry(self.plan.video_id, "test", "", None, part.video, frames)
        numbers = list(entries)
        lengths = [entries[number].num_frames for number in numbers]
        for rows in batches_by_length(lengths, trained.config.data.batch_size):
            chosen = [entries[numbers[row]] for row in rows]
            samples = [part.reader.load(entry) for entry in chosen]
            batch = collate(samples, trained=list(trained.backbones.trained), read_images=part.read_images)
            batch = batch.to(self.device)
            with torch.inference_mode(), autocast(trained.config.optim.precision, self.device):
                encoded = trained.model.encode(batch)
                texts = trained.model.translate(encoded, self.given.decoding)
            logits = None if trained.head is None else encoded.gloss_logits.get(trained.head)
            beams = trained.config.scoring.gloss_beams  # as it was scored
            ids = [] if logits is None else ctc_decode(logits, batch.num_steps, beams)
            for place, row in enumerate(rows):
                glosses = None
                if trained.vocabulary is not None and logits is not None:
                    own: Floats = logits[place, : batch.num_steps[place]].float().cpu().numpy()
                    glosses = gloss_cues(
                        own, chosen[place].frames, part.times_s, list(trained.vocabulary.names), ids[place]
                    )
                text = trained.tokenizer.decode(texts[place])
                results[numbers[row]] = _Reading(text, glosses, chosen[place].num_frames)
        return results

    def _sentence(self, cue: Cue, windows: Sequence[Window], readings: Sequence[_Reading]) -> Sentence:
        start_s, end_s = max(cue.start_s, 0.0), min(cue.end_s, self.duration_s or cue.end_s)
        if round(1000 * end_s) <= round(1000 * start_s):  # the video ends earlier than it declares: as it was given
            end_s = cue.end_s
        glosses: list[Cue] | None = None
        if all(reading.glosses is not None for reading in readings):
            joined = joined_glosses(windows, [reading.glosses or [] for reading in readings])
            glosses = cut_to(joined, start_s, end_s)
        texts = [reading.text for reading in readings]
        text = joined_text(texts) if len(texts) > 1 else texts[0]
        return Sentence(start_s, end_s, text, glosses, sum(reading.num_frames for reading in readings), cue.text)

    def _note_part(self, part: Part) -> None:
        self.num_people_frames += part.metadata.num_pose_frames
        if part.metadata.spans_s is None:
            self.duration_s = part.metadata.duration_s
            return
        signer = part.metadata.signer
        is_own = self.plan.extraction.detector != "precomputed"  # whose choice is one for the whole file of points
        if is_own and signer.chosen_by in ("hand_motion", "size") and not self._is_choice_told:
            self._is_choice_told = True
            self._warn(
                f"{self.plan.path}: {signer.num_people} people are in it, and each part of it has its own signer, the"
                " one whose hands move most; name one of them for the whole video with --box"
            )

    def _refuse_or_note(self, error: EmptyPartError, spans: Sequence[Span] | None) -> None:
        """A part without frames: the whole video cannot be read, or it ends before it says."""
        if not self.num_people_frames and not self.sentences:
            other = "name another video" if self.given.box is None else "name another video or --box"
            raise UserError(f"{self.plan.path}: {error}; convert it with ffmpeg, or {other}") from None
        where = f"from {spans[0][0]:.2f} s on" if spans else "it"
        self._warn(f"{self.plan.path}: {where} nothing can be read ({error}); the sentences before are kept")

    def _warn(self, text: str) -> None:
        print_problems([text], kind="warning")
        self.notes.append(text)

    def _expect(self, groups: Sequence[Sequence[Span] | None]) -> None:
        """Tell the progress how many frames there will be."""
        if not self.plan.fps:
            return
        whole = [(0.0, self.plan.length_s or 0.0)]
        seconds = sum(b - a for spans in groups for a, b in (whole if spans is None else spans))
        if seconds and seconds < float("inf"):
            self.progress.total = max(1, round(seconds * self.plan.fps))

    def _on_frame(self) -> None:
        if self._num_due > 0:
            self._num_due -= 1
            self.progress.advance(1, sentences=len(self.sentences))
        else:
            self.progress.advance(0)
