"""Sentences of stage text, which reads no video and no glosses: those of train and of plain text files, with gaps.

The gaps are mBART's (Liu et al. 2020, arXiv 2001.08210, section 2.2): spans of tokens, 35 % in all, each replaced by
one mask, so that the model also finds out how many are missing, as a translation does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from signstreams.engine.seeding import numpy_rng
from signstreams.files import digest
from signstreams.formats.layout import SPLITS
from signstreams.integrate.batches import Sample
from signstreams.integrate.clips import ClipEntry, ClipSet, drawn_subset, raise_problems, tokenize_clips
from signstreams.integrate.corpus_rules import no_clip
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.gloss_text import read_texts, sample_of_ids, text_entry
from signstreams.integrate.settings import AugmentationConfig, IntegrateConfig
from signstreams.integrate.text_files import KEY, read_sentences, without_held_out
from signstreams.integrate.text_model import WORD_STREAM
from signstreams.integrate.tokenizer import SpecialTokens, Tokenizer
from signstreams.integrate.videos import open_points

log = logging.getLogger(__name__)

HIDDEN_SHARE = 0.35
MEAN_SPAN_TOKENS = 3.5  # of a Poisson distribution
_LEARNED = ("train", "val")  # val is only scored


def with_gaps(tokens: Sequence[int], mask: int, rng: np.random.Generator) -> list[int]:
    """``tokens`` with random spans replaced by one ``mask`` each, `HIDDEN_SHARE` of them in all, rounded up."""
    is_hidden = np.zeros(len(tokens), np.bool_)
    while (left := math.ceil(HIDDEN_SHARE * len(tokens)) - int(is_hidden.sum())) > 0:
        length = min(max(1, int(rng.poisson(MEAN_SPAN_TOKENS))), left)
        start = int(rng.integers(len(tokens) - length + 1))
        is_hidden[start : start + length] = True
    follows = np.concatenate(([False], is_hidden[:-1]))  # a hidden one, whose mask stands for this one too
    kept = zip(tokens, is_hidden, follows, strict=True)
    return [mask if hidden else token for token, hidden, after in kept if not (hidden and after)]


class SentenceDataset(ClipDataset):
    """Sentences of one split, as tokens; what the model reads has gaps, drawn again whenever training reads it."""

    def __init__(self, entries: Sequence[ClipEntry], special: SpecialTokens) -> None:
        self.entries, self.special = list(entries), special
        self.lengths = [len(entry.tokens) for entry in self.entries]

    def __getitem__(self, row: int) -> Sample:  # type: ignore[override]
        return self._sample(row, numpy_rng("gaps", row))  # the same in each evaluation

    def drawn(
        self, row: int, augmentation: AugmentationConfig, rng: np.random.Generator, *, most_frames: int | None = None
    ) -> Sample:
        return self._sample(row, rng)

    def _sample(self, row: int, rng: np.random.Generator) -> Sample:
        entry = self.entries[row]
        words = entry.tokens[int(self.special.first is not None) : -1]  # without the end token
        ids = with_gaps(words, self.special.pad, rng)
        return sample_of_ids(entry, WORD_STREAM, np.array(ids, dtype=np.int64))


def load_texts(config: IntegrateConfig) -> ClipSet:
    """Texts of train and val, and to those of train the sentences of ``train.text_files``.

    Sentences of the files that are texts of val or test are left out, and the log says how many.

    Raises:
        UserError: All problems, one per line.
    """
    clips, index = read_texts(config)
    raise_problems([no_clip(split).line(f"index/{split}.csv") for split in _LEARNED if not index[split]])
    held_out = {split: [clips[clip_id].text for clip_id in index[split]] for split in SPLITS if split != "train"}
    sentences = without_held_out(read_sentences(config.train.text_files), held_out)
    chosen = {"train": drawn_subset(config, index["train"]), "val": index["val"]}
    entries = {
        split: [text_entry(clip_id, split, clips[clip_id].text, clips[clip_id].video_id) for clip_id in ids]
        for split, ids in chosen.items()
    }
    entries["train"] += [text_entry(place, "train", text) for place, text in sentences]
    # a file counts by what it says, not by its name
    parts = [[split, e.clip_id if e.video.video_id else "", e.text] for split in _LEARNED for e in entries[split]]
    return ClipSet(entries, [], open_points(config.features, uses_nodes=False), None, digest(parts))


def tokenize_texts(clips: ClipSet, tokenizer: Tokenizer, max_tokens: int) -> dict[str, list[ClipEntry]]:
    """As `tokenize_clips`; sentences of files, which nobody wrote for this, may be longer and are then left out."""
    train = clips.entries["train"]
    kept = [e for e in train if e.video.video_id or len(tokenizer.encode(e.text)) <= max_tokens]
    if len(kept) < len(train):
        text = "%s: %s sentences have more than decoder.max_tokens (%d) tokens: they are left out"
        log.warning(text, KEY, f"{len(train) - len(kept):,}", max_tokens)
    return tokenize_clips({**clips.entries, "train": kept}, tokenizer, max_tokens)
