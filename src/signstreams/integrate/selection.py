"""Which evaluation on val becomes best.pt.

The highest BLEU-4 of a run is in part luck: on some dozen clips a point is worth nothing, and the luckiest evaluation
may come long before glosses and sentences are learned. So a translation is chosen by the rule of one standard error
(Breiman et al. 1984, Classification and Regression Trees, 3.4): of the evaluations that are not more than one standard
error below the highest BLEU-4, the one with the fewest gloss errors; without glosses, with the highest chrF. The
standard error is that of the difference on the same clips (paired bootstrap), so that on a large split little but the
highest remains. Only best.pt and the newest weights are at hand: an evaluation that was passed over does not come back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.text_scores import is_clearly_better


@dataclass(frozen=True)
class Candidate:
    """What the choice needs of one evaluation on val."""

    loss: float  # of translation; where none is learned, of what is
    wer: float = math.inf  # gloss WER of the head that is read; infinite without glosses
    bleu: float = -1.0  # BLEU-4 and chrF; -1 where no text is learned
    chrf: float = -1.0
    texts: list[str] | None = None  # translations; None where no text is learned
    retrieval: float = -1.0  # mean recall@1, of stage vlp; -1 in others

    @property
    def rank(self) -> tuple[float, ...]:
        """Higher is better, among evaluations of a BLEU-4 that counts as equal."""
        return (-self.wer, self.chrf, -self.loss)


@dataclass
class Choice:
    """The evaluation that is best.pt, and what the next ones are compared with; plain values for checkpoints."""

    best_loss: float = math.inf
    best_wer: float = math.inf
    best_bleu: float = -1.0
    best_chrf: float = -1.0
    best_texts: list[str] | None = None  # None also in a run that was begun before texts were kept
    best_retrieval: float = -1.0
    top_bleu: float = -1.0  # highest BLEU-4 of all evaluations, which need not be that of best.pt
    top_texts: list[str] | None = None

    @property
    def has_best(self) -> bool:
        """Whether there is a best.pt."""
        return math.isfinite(self.best_loss)

    @property
    def best(self) -> Candidate:
        """The evaluation that is best.pt."""
        return Candidate(
            self.best_loss, self.best_wer, self.best_bleu, self.best_chrf, self.best_texts, self.best_retrieval
        )

    def take(self, new: Candidate, references: Sequence[str], scoring: ScoringConfig) -> bool:
        """Compare a new evaluation with those before; whether it is best.pt from now on."""
        is_better = math.isfinite(new.loss) and self._is_better(new, references, scoring)
        if is_better:
            self.best_loss, self.best_wer, self.best_bleu, self.best_chrf = new.loss, new.wer, new.bleu, new.chrf
            self.best_texts, self.best_retrieval = new.texts, new.retrieval
        return is_better

    def _is_better(self, new: Candidate, references: Sequence[str], scoring: ScoringConfig) -> bool:
        if new.texts is None:
            return (new.retrieval, -new.wer, -new.loss) > (self.best_retrieval, -self.best_wer, -self.best_loss)
        if not self.has_best:
            self.top_texts, self.top_bleu = new.texts, new.bleu
            return True
        if self.top_texts is None or self.best_texts is None:  # begun before texts were kept: it ends as it began
            return (new.bleu, -new.loss) > (self.best_bleu, -self.best_loss)
        if new.bleu > self.top_bleu:
            self.top_texts, self.top_bleu = new.texts, new.bleu
            return not (self._is_close(self.best_texts, references, scoring) and self.best.rank >= new.rank)
        return new.rank > self.best.rank and self._is_close(new.texts, references, scoring)

    def _is_close(self, texts: list[str], references: Sequence[str], scoring: ScoringConfig) -> bool:
        """Whether BLEU-4 of ``texts`` is not more than one standard error below the highest."""
        assert self.top_texts is not None
        return not is_clearly_better("bleu_4", self.top_texts, texts, references, scoring)


def selection(config: IntegrateConfig) -> str:
    """How best.pt and the gloss head were chosen, for scores.json."""
    best = (
        "of the evaluations on val within one standard error of the highest BLEU-4, the one with the lowest gloss WER"
        " (without glosses: the highest chrF)"
    )
    if not config.mska.learns_text:
        best = "lowest gloss WER on val, among equals the lowest CTC loss"
    head = "the fuse head, unless another's WER on val is lower by more than one standard error"
    return f"best.pt: {best}; gloss head: {head}"
