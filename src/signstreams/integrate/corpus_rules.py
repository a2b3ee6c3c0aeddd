"""What a training needs of its corpus, stated once: the data contract asks before pretraining, the training again.

Imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Rule, few
from signstreams.corpus.gloss import Gloss, GlossVocabulary
from signstreams.ids import shown
from signstreams.integrate.settings import DataConfig, DecoderConfig, IntegrateConfig

if TYPE_CHECKING:
    from torch import Tensor

    from signstreams.integrate.tokenizer import Tokenizer

log = logging.getLogger(__name__)

FramesT = TypeVar("FramesT", int, "Tensor")

SPLIT = Rule("training.split", "error", "a clip with a text in every split")
FRAMES = Rule("training.frames", "error", "at most data.max_frames frames at data.frame_stride")
TOKENS = Rule("training.tokens", "error", "at most decoder.max_tokens tokens")
LETTERS = Rule("training.letters", "error", "a tokenizer that keeps the letters of the texts")
MODEL = Rule("training.model", "error", "the files of the named language model, and a tokenizer that can be used")
TEXT_FILES = Rule("training.text_files", "error", "files of one sentence per line, in UTF-8")
UNKNOWN_GLOSS = Rule("training.unknown_gloss", "error", "glosses that train has, with data.unknown_gloss refuse")
GLOSSES = Rule("training.glosses", "error", "glosses in train and val, without a translation loss")
CTC_STEPS = Rule("training.ctc_steps", "warning", "as many steps at data.frame_stride as CTC needs for the glosses")
TRAINING_RULES = (SPLIT, FRAMES, TOKENS, LETTERS, MODEL, TEXT_FILES, UNKNOWN_GLOSS, GLOSSES, CTC_STEPS)

KEYS = (
    *(f"data.{key}" for key in ("frame_stride", "max_frames", "long_clips", "unknown_gloss")),
    *("model.use_mska", "mska.translation_weight", "mska.ctc_weight"),
    *(f"decoder.{key}" for key in ("model", "weights", "tokenizer", "offline", "target_language")),
    *(f"decoder.{key}" for key in ("use_encoder", "prune_vocabulary", "vocab_size", "max_tokens")),
)
"""Settings of a training that decide whether it accepts a corpus."""


def settings_for_corpus(config: IntegrateConfig) -> dict[str, Any]:
    """Those of `KEYS` as they are, and of a stage what else it reads: a valid config by themselves."""
    found: dict[str, Any] = {}
    for key in KEYS:
        section, _, name = key.partition(".")
        found[key] = getattr(getattr(config, section), name)
    if config.stage != "slt":
        found |= {"stage": config.stage, "scoring.gloss_cleanup": config.scoring.gloss_cleanup}
        found["train.text_files"] = list(map(str, config.train.text_files))
    return found


class Refusal(NamedTuple):
    """Why something is refused."""

    found: str
    expected: str
    fix: str

    def line(self, place: str) -> str:
        """One line for a user."""
        return f"{place}: {self.found}, expected {self.expected}; {self.fix}"


# -- Clips


def clips_with_text(index: Mapping[str, Sequence[str]], clips: Mapping[str, Clip]) -> dict[str, list[str]]:
    """The clips of each split that have a text: the others are left out."""
    return {
        split: [clip_id for clip_id in ids if clip_id in clips and clips[clip_id].text.strip()]
        for split, ids in index.items()
    }


def no_clip(split: str) -> Refusal:
    """Of a split in which no clip is left."""
    return Refusal("no clip has a text", "one at least", f"split the corpus again ({split} stays empty)")


def all_quarantined(split: str) -> Refusal:
    """Of a split whose videos could all not be read."""
    return Refusal(
        f"every clip of {split} is in a quarantined video", "one that could be read", "see the contract's report"
    )


def frames_at_stride(start: int, stop: int, data: DataConfig, *, is_sampled: bool = False) -> range:
    """Frames of a clip at the training's stride.

    A clip that is too long gets a larger stride, or is cut to its middle, where that is allowed; one that
    ``is_sampled``, from which training draws frames later, keeps all.
    """
    frames, most = range(start, stop, data.frame_stride), data.max_frames
    if len(frames) <= most or data.long_clips == "refuse":
        return frames
    if data.long_clips == "stride":
        return range(start, stop, -(-(stop - start) // most))
    first = (len(frames) - most) // 2
    return frames if is_sampled else frames[first : first + most]


def too_long(frames: range, data: DataConfig) -> Refusal | None:
    """Of a clip with these frames, as `frames_at_stride` gives them."""
    if len(frames) <= data.max_frames or data.long_clips != "refuse":
        return None
    return Refusal(
        f"has {len(frames)} frames",
        f"at most {data.max_frames}",
        "raise data.max_frames or data.frame_stride, set data.long_clips to stride, or cut the clip",
    )


# -- Glosses

TIME_STRIDE = 4  # frames per step of MSKA's encoders and of the decoder's memory


def num_steps(num_frames: FramesT) -> FramesT:
    """Encoder steps of a clip, or of clips (B,), with T frames: ceil(T / 4), the result of two padded halvings."""
    return (num_frames + TIME_STRIDE - 1) // TIME_STRIDE


def train_vocabulary(
    glosses: Mapping[str, Gloss], train_ids: Iterable[str], config: IntegrateConfig
) -> GlossVocabulary | None:
    """Glosses of the train split; None where it has none, or nothing learns them."""
    if not glosses or not config.model.use_mska:
        return None
    vocabulary = GlossVocabulary.build(glosses, train_ids)
    return vocabulary if len(vocabulary) > 1 else None  # one is the blank


def unknown_glosses(
    ids: Iterable[str], split: str, glosses: Mapping[str, Gloss], vocabulary: GlossVocabulary
) -> Refusal | None:
    """Glosses in the clips of val or test that no clip of train has."""
    found: dict[str, list[str]] = {}
    for clip_id in ids:
        if clip_id in glosses:
            for name in vocabulary.unknown(glosses[clip_id].labels):
                found.setdefault(name, []).append(clip_id)
    if not found:
        return None
    examples = few([f"{shown(name)} (clip {shown(clips[0])})" for name, clips in found.items()])
    return Refusal(
        f"{len(found):,} glosses of {split} are in no clip of train: {examples}",
        "only known ones",
        "correct them, or set data.unknown_gloss to count",
    )


def glosses_alone(has_glosses: Mapping[str, bool], config: IntegrateConfig) -> Refusal | None:
    """Without the translation loss, train must have glosses to learn and val some to choose the best model by."""
    if config.mska.learns_text or not config.model.use_mska:
        return None
    for split, reason in (("train", "no loss is left"), ("val", "best.pt is chosen by their WER")):
        if not has_glosses[split] and config.stage == "s2g":
            fix = "stage s2g learns them; annotate them, or leave it out"
            return Refusal(f"has no glosses for the clips of {split}", "some", fix)
        if not has_glosses[split]:
            return Refusal(
                f"has no glosses for the clips of {split}",
                "some",
                f"mska.translation_weight is 0, and {reason}; annotate them, or give the translation a weight",
            )
    return None


def no_glosses_to_read(has_glosses: Mapping[str, bool]) -> Refusal | None:
    """The stage g2t reads glosses: clips with a text must have some, in each of its splits."""
    for split, there in has_glosses.items():
        if not there:
            return Refusal(
                f"has no glosses for the clips of {split}",
                "some",
                "stage g2t reads them; annotate them, or leave it out",
            )
    return None


# -- Texts


def gloss_words(name: str) -> str:
    """A gloss as a text that a language model may know: in lower case, its parts as words."""
    return " ".join(name.replace("-", " ").replace("_", " ").replace("+", " ").lower().split())


def tokenizer_texts(
    config: IntegrateConfig, train_texts: Iterable[str], vocabulary: GlossVocabulary | None
) -> list[str]:
    """What a training makes its tokenizer for: the texts of train, and glosses that begin as words."""
    texts = list(train_texts)
    if config.stage == "g2t" and config.decoder.is_pruned and vocabulary is not None:
        texts += map(gloss_words, vocabulary.names[1:])
    return texts


def tokenizer_for(config: DecoderConfig, train_texts: Sequence[str]) -> Tokenizer:
    """The tokenizer of a training: learned from the texts of train, or that of the named model, pruned to them.

    Raises:
        UserError: The named model's cannot be used.
    """
    from signstreams.integrate.tokenizer import Tokenizer

    if config.uses_own_tokenizer:
        return Tokenizer.train(train_texts, config.vocab_size)
    from signstreams.integrate.decoder import named_tokenizer  # imports torch, as the next does
    from signstreams.integrate.vocabulary import pruned

    found = named_tokenizer(config)
    if not config.is_pruned:
        return found
    kept = pruned(found, train_texts)
    log.info("%s: %s of %s tokens are kept", config.model, f"{len(kept):,}", f"{len(found):,}")
    return kept


def too_many_tokens(num_tokens: int, most: int) -> Refusal | None:
    """Of a clip's text with so many tokens."""
    if num_tokens <= most:
        return None
    return Refusal(f"its text has {num_tokens} tokens", f"at most {most}", "raise decoder.max_tokens")


MAX_LOSSY_SHARE = 0.1
"""Share of the texts that a tokenizer may damage: a rare sign in some is a loss, a letter of the language is another
task. T5's English pieces, which lack á, í and ñ, damage three quarters of Spanish sentences."""


def lost_letters(texts: Collection[str], tokenizer: Tokenizer) -> tuple[Refusal, bool] | None:
    """The letters that a tokenizer loses, which no training could bring back; and whether it is too many of them."""
    lost = [letters for text in texts if (letters := tokenizer.lost(text))]
    if not lost:
        return None
    letters = " ".join(sorted(set("".join(lost)))[:20])
    refusal = Refusal(
        f"its tokenizer loses {letters}, in {len(lost):,} of {len(texts):,} texts ({len(lost) / len(texts):.0%})",
        f"at most {MAX_LOSSY_SHARE:.0%}",
        "take a multilingual model (google/mt5-base, facebook/mbart-large-cc25), or decoder.weights random, which"
        " learns a tokenizer from the texts",
    )
    return refusal, len(lost) > MAX_LOSSY_SHARE * len(texts)
