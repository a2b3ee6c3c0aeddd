"""Glosses and texts of a corpus, which is all that the stage g2t reads: no video need be extracted.

Glosses are cleaned as ``scoring.gloss_cleanup`` says: they are the model's input.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from signstreams.array_types import Ints
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import few_ids, raise_errors
from signstreams.corpus.gloss import Gloss, GlossVocabulary, read_gloss
from signstreams.corpus.meta_csv import scan_meta
from signstreams.corpus.splits import read_index
from signstreams.errors import UserError
from signstreams.files import digest
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.integrate.batches import Sample
from signstreams.integrate.clips import ClipEntry, ClipSet, drawn_subset, raise_problems
from signstreams.integrate.corpus_rules import (
    clips_with_text,
    no_clip,
    no_glosses_to_read,
    unknown_glosses,
)
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.protocols import clean_glosses
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.text_model import GLOSS_STREAM, UNKNOWN_GLOSS
from signstreams.integrate.videos import ProcessedVideo, open_points

log = logging.getLogger(__name__)


class GlossDataset(ClipDataset):
    """Sentences of one split, as ids of glosses and tokens of text; a sample has no frames."""

    def __init__(self, entries: Sequence[ClipEntry]) -> None:
        self.entries = list(entries)
        self.lengths = [len(entry.gloss_ids or ()) for entry in self.entries]

    def __getitem__(self, row: int) -> Sample:  # type: ignore[override]
        entry = self.entries[row]
        return sample_of_ids(entry, GLOSS_STREAM, np.array(entry.gloss_ids, dtype=np.int64))


def sample_of_ids(entry: ClipEntry, stream: str, ids: Ints) -> Sample:
    """A sentence whose steps are these ids (N,), and which has no frames."""
    return Sample(
        entry.clip_id,
        np.zeros((len(ids), 0, 3), np.float32),
        np.zeros((len(ids), 0), np.float32),
        {stream: np.ones(len(ids), np.bool_)},
        {},
        {stream: ids},
        list(entry.tokens),
    )


def read_texts(config: IntegrateConfig) -> tuple[dict[str, Clip], dict[str, list[str]]]:
    """The clips of a corpus by id, and those of each split that have a text; of its videos nothing is read.

    Raises:
        UserError: There is no corpus, or its tables have errors.
    """
    layout = CorpusLayout(config.root)
    if not config.root.is_dir():
        raise UserError(f"{config.root}: no such folder, expected a corpus; name its root with --root")
    table = scan_meta(layout.meta)
    raise_errors(table.issues)
    clips = {clip.clip_id: clip for clip in table.clips}
    return clips, clips_with_text(read_index(layout, table.clips), clips)


def text_entry(clip_id: str, split: str, text: str, video_id: str = "", gloss: Gloss | None = None) -> ClipEntry:
    """A sentence of which no frame is read, and no video but the id is known."""
    video = ProcessedVideo(video_id, (0, 0), {})
    return ClipEntry(clip_id, split, text, None if gloss is None else gloss.labels, video, range(0))


def load_sentences(config: IntegrateConfig, splits: Sequence[str] = SPLITS) -> ClipSet:
    """Clips of the corpus that have a text and glosses; without train there is no vocabulary, and no ids.

    Their videos are known by id alone, and no frame of them.

    Raises:
        UserError: All problems, one per line.
    """
    layout = CorpusLayout(config.root)
    clips, index = read_texts(config)
    problems = [no_clip(split).line(f"index/{split}.csv") for split in splits if not index[split]]
    glosses = _cleaned(layout, clips, config)
    chosen = {split: [clip_id for clip_id in index[split] if clip_id in glosses] for split in splits}
    if refusal := no_glosses_to_read({split: bool(ids) for split, ids in chosen.items()}):
        raise UserError([*problems, refusal.line(str(layout.gloss))])
    raise_problems(problems)
    if without := [clip_id for split in splits for clip_id in index[split] if clip_id not in glosses]:
        log.warning("%d clips are left out: they have no glosses (%s)", len(without), few_ids(without))
    vocabulary = GlossVocabulary.build(glosses, chosen["train"]) if "train" in splits else None
    if vocabulary is not None:
        for split in ("val", "test"):
            if unknown := unknown_glosses(chosen.get(split, []), split, glosses, vocabulary):
                if config.data.unknown_gloss == "refuse":
                    problems.append(unknown.line("annotations/gloss.csv"))
                else:
                    log.warning("%s: the model does not see them", unknown.found)
    raise_problems(problems)
    if "train" in splits:
        chosen["train"] = drawn_subset(config, chosen["train"])
    entries = {
        split: [
            replace(
                text_entry(clip_id, split, clips[clip_id].text, clips[clip_id].video_id, glosses[clip_id]),
                gloss_ids=read_ids(vocabulary, glosses[clip_id].labels),
            )
            for clip_id in ids
        ]
        for split, ids in chosen.items()
    }
    parts = [[split, e.clip_id, e.text, e.gloss] for split in splits for e in entries[split]]
    return ClipSet(entries, [], open_points(config.features, uses_nodes=False), vocabulary, digest(parts))


def read_ids(vocabulary: GlossVocabulary | None, labels: Sequence[str] | None) -> tuple[int, ...]:
    """Ids of the glosses that a model reads; one that it does not know is read as nothing."""
    known: Mapping[str, int] = {} if vocabulary is None else vocabulary.ids
    return tuple(known.get(label, UNKNOWN_GLOSS) for label in labels or ())


def _cleaned(layout: CorpusLayout, clip_ids: Mapping[str, object], config: IntegrateConfig) -> dict[str, Gloss]:
    """Clip id to its glosses, of clips that have any."""
    if not layout.gloss.is_file():
        return {}
    cleaned = {
        clip_id: replace(gloss, labels=tuple(clean_glosses(gloss.labels, config.scoring.gloss_cleanup)))
        for clip_id, gloss in read_gloss(layout.gloss, clip_ids).items()
    }
    return {clip_id: gloss for clip_id, gloss in cleaned.items() if gloss.labels}
