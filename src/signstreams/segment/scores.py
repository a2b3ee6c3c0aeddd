"""How well found sentences match true ones: boundaries within a tolerance, sentences by overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

Span = tuple[float, float]  # start and end in s

TOLERANCES_S = (0.2, 0.5)
"""Farthest that a boundary may be from the true one: about five frames; half a second, as a reader would notice."""
MIN_IOU = 0.5  # of sentences that count as found, as F1@0.5 of action segmentation (Lea et al., arXiv 1611.05267)


@dataclass(frozen=True)
class Matches:
    """Counts over one or several videos."""

    num_matched: int = 0
    num_found: int = 0
    num_true: int = 0

    def __add__(self, other: Matches) -> Matches:
        return Matches(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def precision(self) -> float:
        return self.num_matched / max(1, self.num_found)

    @property
    def recall(self) -> float:
        return self.num_matched / max(1, self.num_true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where nothing is true and nothing was found."""
        if not self.num_found and not self.num_true:
            return 1.0
        return 2 * self.num_matched / (self.num_found + self.num_true)


def match_boundaries(found: Sequence[Span], true: Sequence[Span], tolerance_s: float) -> Matches:
    """Starts matched with starts and ends with ends, one to one, in order of time.

    The pairing has as many pairs as possible: taken in order, each true boundary gets the earliest one that is free and
    near enough.
    """
    total = Matches()
    for side in (0, 1):
        ours, theirs = (sorted(span[side] for span in spans) for spans in (found, true))
        place = num_matched = 0
        for moment in theirs:
            while place < len(ours) and ours[place] < moment - tolerance_s - 1e-9:
                place += 1
            if place < len(ours) and ours[place] <= moment + tolerance_s + 1e-9:
                num_matched, place = num_matched + 1, place + 1
        total += Matches(num_matched, len(ours), len(theirs))
    return total


def match_sentences(found: Sequence[Span], true: Sequence[Span], min_iou: float = MIN_IOU) -> Matches:
    """Sentences whose overlap over union is at least ``min_iou``, one to one; spans of each list are apart.

    With 0.5 or more no sentence can match two.
    """
    num_matched = sum(any(_iou(ours, theirs) >= min_iou for ours in found) for theirs in true)
    return Matches(num_matched, len(found), len(true))


def _iou(one: Span, other: Span) -> float:
    common = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(0.0, common) / union if union > 0 else 0.0


@dataclass(frozen=True)
class SegmentScores:
    """Scores over all videos added so far."""

    boundaries: tuple[Matches, ...] = (Matches(),) * len(TOLERANCES_S)  # one per tolerance
    sentences: Matches = Matches()

    def adding(self, found: Sequence[Span], true: Sequence[Span]) -> SegmentScores:
        """With those of one more video."""
        boundaries = tuple(
            total + match_boundaries(found, true, tolerance_s)
            for total, tolerance_s in zip(self.boundaries, TOLERANCES_S, strict=True)
        )
        return SegmentScores(boundaries, self.sentences + match_sentences(found, true))

    def as_dict(self) -> dict[str, float | int]:
        """Plain values, for a report."""
        out: dict[str, float | int] = {"num_true": self.sentences.num_true, "num_found": self.sentences.num_found}
        for tolerance_s, matches in zip(TOLERANCES_S, self.boundaries, strict=True):
            name = f"{tolerance_s:g}s"
            out[f"boundary_f1_{name}"] = round(matches.f1, 4)
            out[f"boundary_precision_{name}"] = round(matches.precision, 4)
            out[f"boundary_recall_{name}"] = round(matches.recall, 4)
        out[f"sentence_f1_iou_{MIN_IOU:g}"] = round(self.sentences.f1, 4)
        return out
