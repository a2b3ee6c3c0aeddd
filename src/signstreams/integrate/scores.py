"""Scores of translations and of gloss recognition, against untouched references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROUGE_BETA = 1.2
ROUGE_NAME = "signstreams ROUGE-L: longest common subsequence, F with beta 1.2 (as pycocoevalcap), 13a tokens, mixed case, mean over clips"  # fmt: skip # noqa: E501


def translation_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """BLEU-1..4 and chrF of sacrebleu with their signatures, ROUGE-L, and the ratio of lengths in 13a tokens.

    Nothing is lower-cased or tokenised beforehand.
    """
    scores: dict[str, Any] = {}
    for order in range(1, 5):
        metric = BLEU(max_ngram_order=order)
        result = metric.corpus_score(list(hypotheses), [list(references)])
        scores[f"bleu_{order}"] = result.score
    # sacrebleu's signature does not name the order; 4 is its default and the lower ones change nothing else
    scores["bleu_signature"] = str(metric.get_signature())
    scores["length_ratio"] = result.sys_len / max(1, result.ref_len)
    chrf = CHRF()
    scores["chrf"] = chrf.corpus_score(list(hypotheses), [list(references)]).score
    scores["chrf_signature"] = str(chrf.get_signature())
    pairs = zip(hypotheses, references, strict=True)
    scores["rouge_l"] = 100 * sum(rouge_l(h, r) for h, r in pairs) / max(1, len(references))
    scores["rouge_l_implementation"] = ROUGE_NAME
    return scores


def rouge_l(hypothesis: str, reference: str) -> float:
    """ROUGE-L (Lin 2004) of one clip, 0..1."""
    tokenize = Tokenizer13a()
    ours, theirs = tokenize(hypothesis).split(), tokenize(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    row = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for column, other in enumerate(theirs, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    common = row[-1]
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


@dataclass(frozen=True)
class WordErrors:
    """Edits that turn references into hypotheses.

    Attributes:
        substitutions, deletions, insertions: Their counts in one cheapest alignment.
        num_words: Words of the references.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    num_words: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.num_words + other.num_words,
        )

    @property
    def rate(self) -> float:
        """Word error rate in percent; above 100 when there are many insertions."""
        return 100 * (self.substitutions + self.deletions + self.insertions) / max(1, self.num_words)


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> WordErrors:
    """Levenshtein alignment; among equally cheap ones the one with the fewest insertions and deletions."""
    # per column: (edits, insertions + deletions, substitutions, deletions, insertions)
    row = [(n, n, 0, n, 0) for n in range(len(reference) + 1)]
    for word in hypothesis:
        diagonal, row[0] = row[0], _step(row[0], 1, 0, 0, 1)
        for column, other in enumerate(reference, start=1):
            above = row[column]
            same = diagonal if word == other else _step(diagonal, 0, 1, 0, 0)
            row[column] = min(same, _step(above, 1, 0, 0, 1), _step(row[column - 1], 1, 0, 1, 0))
            diagonal = above
    _, _, substitutions, deletions, insertions = row[-1]
    return WordErrors(substitutions, deletions, insertions, len(reference))


def _step(
    cell: tuple[int, int, int, int, int], shifts: int, substitutions: int, deletions: int, insertions: int
) -> tuple[int, int, int, int, int]:
    return (
        cell[0] + 1,
        cell[1] + shifts,
        cell[2] + substitutions,
        cell[3] + deletions,
        cell[4] + insertions,
    )
