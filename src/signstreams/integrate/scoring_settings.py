"""Settings of scores: by which rules translations and glosses are compared with their references. Imports no torch."""

from __future__ import annotations

from typing import Literal

from signstreams.config.section import Count, Section

GlossCleanup = Literal["none", "phoenix2014t"]
BleuTokenize = Literal["13a", "none", "char", "zh"]  # of sacrebleu's tokenizers, those that papers of the field use
KnownCorpus = Literal["phoenix2014t", "how2sign", "csl_daily"]


class ScoringConfig(Section):
    """How translations and glosses are scored, on val and later on test; recorded in scores.json."""

    gloss_cleanup: GlossCleanup = "none"
    """Rules that clean glosses of reference and model alike before WER: those of the published figures on
    PHOENIX-2014T (marks such as `__ON__` removed, `loc-NORD` becomes `NORD`, spelt letters joined, repetitions
    merged), or none."""
    gloss_beams: Count = 1
    """Gloss sequences that CTC beam search keeps; 1 is greedy: the best label of each step."""
    bleu_tokenize: BleuTokenize = "13a"
    """sacrebleu's tokenizer for BLEU. none: words are separated by blanks, for texts that are already tokenised, such
    as PHOENIX's; char, zh: Chinese. Papers use none for PHOENIX-2014T, char for CSL-Daily, 13a for How2Sign."""
    bleu_lowercase: bool = False
    """Lower-case texts for BLEU."""
    num_beams: Count = 1
    """Beams for texts on val during training; 1 is greedy. Later evaluations use decoding.num_beams."""


class GivenScoring(Section):
    """How translations and glosses are scored, where this should differ from the training's own scoring."""

    gloss_cleanup: GlossCleanup | None = None
    """As scoring.gloss_cleanup of the training. None: the training's value."""
    gloss_beams: Count | None = None
    """As scoring.gloss_beams of the training. None: the training's value."""
    bleu_tokenize: BleuTokenize | None = None
    """As scoring.bleu_tokenize of the training. None: the training's value."""
    bleu_lowercase: bool | None = None
    """As scoring.bleu_lowercase of the training. None: the training's value."""
    corpus: KnownCorpus | Literal["other"] | None = None
    """Published corpus whose figures are shown beside ours. None: the one named in the corpus folder's import.json
    (written by `signstreams import`), if any."""

    def over(self, trained: ScoringConfig) -> ScoringConfig:
        """The scoring of a training with what is given here."""
        given = {name: value for name, value in self if value is not None and name in ScoringConfig.model_fields}
        return trained.model_copy(update=given)
