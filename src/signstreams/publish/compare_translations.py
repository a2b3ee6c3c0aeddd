"""Two translation runs on the same clips: the difference of their scores, and a page with both texts of each clip.

Differences are of the second run over the first one, with an interval and a p-value from a paired bootstrap.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from signstreams.errors import UserError
from signstreams.files import read_json, write_text
from signstreams.formats.layout import EVALUATION_FILES, SPLITS
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.text_scores import (
    NUM_RESAMPLES,
    Difference,
    Metric,
    clip_scores,
    gloss_errors,
    paired_bootstrap,
)
from signstreams.language import plural, tr
from signstreams.pages.render import clip_anchor, relative_address, render
from signstreams.publish.runs import Run

SIGNIFICANT_P = 0.05
FEW_CLIPS = 100
"""Below this many clips the page says that the interval is rough: a bootstrap knows only the clips that it draws."""


@dataclass(frozen=True)
class PairedClip:
    """A clip that both runs were evaluated on; pairs are of the first run and of the second."""

    clip_id: str  # id of the clip
    split: str  # train, val or test
    signer: str  # who signs, where that is known
    reference: str  # what was said
    gloss_reference: str  # glosses, separated by blanks; empty where there are none
    hypotheses: tuple[str, str]
    gloss_hypotheses: tuple[str, str]
    scores: dict[Metric, tuple[float, float]]

    @property
    def differences(self) -> dict[Metric, float]:
        """Of the second run over the first."""
        return {metric: second - first for metric, (first, second) in self.scores.items()}


@dataclass(frozen=True)
class Comparison:
    """Two runs on their common clips."""

    clips: list[PairedClip]
    differences: dict[str, dict[Metric, Difference]]  # split to metric to what the second run has over the first
    notes: list[str]  # what a reader must know: other clips, other settings


def compare_translations(first: Run, second: Run) -> Comparison:
    """Score both runs on the clips that both have, by the scoring of the first.

    Raises:
        UserError: A run has no predictions, or the two have no clip with the same reference.
    """
    rows = [_read_predictions(run.path / EVALUATION_FILES["predictions"]) for run in (first, second)]
    kept = [_read_scores(run.path / EVALUATION_FILES["scores"]) for run in (first, second)]
    shared = [key for key in rows[0] if key in rows[1]]
    same = [key for key in shared if rows[0][key]["reference"] == rows[1][key]["reference"]]
    if not same:
        found = f"{len(shared):,} common clips, all with other references" if shared else "no common clip"
        raise UserError(f"{second.path}: {found} with {first.path}, expected two evaluations of one corpus")
    notes = []
    if others := len(shared) - len(same):
        notes.append(
            plural(
                "%(num)s clip has other references in the two runs, and is left out",
                "%(num)s clips have other references in the two runs, and are left out",
                others,
            )
        )
    if alone := len(rows[0]) + len(rows[1]) - 2 * len(shared):
        notes.append(
            plural(
                "%(num)s clip is in one run alone, and is left out",
                "%(num)s clips are in one run alone, and are left out",
                alone,
            )
        )
    scoring = [_scoring(content) for content in kept]
    if scoring[0] != scoring[1]:
        notes.append(
            tr("the runs were scored by other rules; both are scored by those of %(run)s here", run=first.label)
        )
    pairs = [(rows[0][key], rows[1][key]) for key in same]
    metrics = _metrics(pairs)
    clips = [_paired(ours, theirs, metrics, scoring[0]) for ours, theirs in pairs]
    differences: dict[str, dict[Metric, Difference]] = {}
    for split in SPLITS:
        if members := [clip for clip in clips if clip.split == split]:
            has_glosses = any(clip.gloss_reference for clip in members)
            known = [metric for metric in metrics if metric != "wer" or has_glosses]
            differences[split] = {metric: _difference(metric, members, scoring[0]) for metric in known}
    sizes = {split: sum(clip.split == split for clip in clips) for split in differences}
    if few := [f"{split} {size}" for split, size in sizes.items() if size < FEW_CLIPS]:
        notes.append(tr("few clips give rough intervals: %(splits)s", splits=", ".join(few)))
    return Comparison(clips, differences, notes)


def write_comparison(path: Path, first: Run, second: Run, found: Comparison) -> None:
    """Write the page; a `UserError` where it cannot be written."""
    pages = [run.path / EVALUATION_FILES["page"] for run in (first, second)]
    names = _names()
    metrics = {metric: names[metric] for clip in found.clips for metric in clip.scores}
    by = next(iter(metrics), None)
    clips = sorted(found.clips, key=lambda clip: clip.differences.get(by, 0.0)) if by is not None else found.clips
    page = render(
        "compare.html",
        runs=[(run.label, str(run.path)) for run in (first, second)],
        clips=clips,
        differences=found.differences,
        verdict=verdict,
        notes=found.notes,
        metrics=metrics,
        signers=sorted({clip.signer for clip in clips}),
        num_resamples=NUM_RESAMPLES,
        links={
            clip.clip_id: [f"{relative_address(page, path)}#{clip_anchor(clip.clip_id)}" for page in pages]
            for clip in clips
            if all(page.is_file() for page in pages)
        },
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another --output") from None


def verdict(found: Difference) -> str:
    """Whether a difference is more than the choice of clips gives."""
    return tr("larger than chance explains") if found.p < SIGNIFICANT_P else tr("chance alone may explain it")


def difference_lines(split: str, differences: Mapping[Metric, Difference]) -> list[str]:
    """A line per metric: both scores, the difference with its interval, and the verdict."""
    names = _names()
    return [
        tr(
            "%(split)s: %(score)s %(first)s and %(second)s, difference %(value)s (95 %% %(low)s to %(high)s, p %(p)s)",
            split=split,
            score=names[metric],
            first=f"{found.first:.2f}",
            second=f"{found.second:.2f}",
            value=f"{found.value:+.2f}",
            low=f"{found.low:+.2f}",
            high=f"{found.high:+.2f}",
            p=f"{found.p:.3f}",
        )
        + f": {verdict(found)}"
        for metric, found in differences.items()
    ]


def _names() -> dict[Metric, str]:
    return {"bleu_4": "BLEU-4", "chrf": "chrF", "wer": tr("gloss WER")}


def _read_predictions(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Split and clip id to the row."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no table of UTF-8"
        raise UserError(f"{path}: {reason}, expected an evaluation; run `signstreams evaluate` first") from None
    if absent := [
        name for name in ("clip_id", "split", "reference", "hypothesis") if rows and rows[0].get(name) is None
    ]:
        raise UserError(f"{path}: has no column {', '.join(absent)}, expected what `signstreams evaluate` writes")
    return {(row["split"], row["clip_id"]): row for row in rows}


def _read_scores(path: Path) -> dict[str, Any]:
    """Content of scores.json; empty where it is absent or damaged: all that is used of it is how the run was scored."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _scoring(content: Mapping[str, Any]) -> ScoringConfig:
    known = content.get("scoring")
    try:
        return ScoringConfig.model_validate(known if isinstance(known, dict) else {})
    except ValidationError:  # of another version
        return ScoringConfig()


def _metrics(pairs: Sequence[tuple[Mapping[str, str], Mapping[str, str]]]) -> list[Metric]:
    """What both runs can be scored by: one that learned no text has no hypothesis, one without glosses no glosses."""
    found: list[Metric] = []
    if all(any(pair[place]["hypothesis"] for pair in pairs) for place in (0, 1)):
        found += ["chrf", "bleu_4"]
    if all(any(pair[place].get("gloss_hypothesis") for pair in pairs) for place in (0, 1)):
        found.append("wer")
    return found


def _paired(
    ours: Mapping[str, str], theirs: Mapping[str, str], metrics: Sequence[Metric], scoring: ScoringConfig
) -> PairedClip:
    gloss_reference = ours.get("gloss_reference") or ""
    glosses = (ours.get("gloss_hypothesis") or "", theirs.get("gloss_hypothesis") or "")
    scores: dict[Metric, tuple[float, float]] = {}
    if "chrf" in metrics:
        first, second = (clip_scores(row["hypothesis"], ours["reference"], scoring) for row in (ours, theirs))
        scores["chrf"], scores["bleu_4"] = (first["chrf"], second["chrf"]), (first["bleu_4"], second["bleu_4"])
    if "wer" in metrics and gloss_reference:
        one, other = (gloss_errors(said.split(), gloss_reference.split(), scoring).rate for said in glosses)
        scores["wer"] = (one, other)
    return PairedClip(
        clip_id=ours["clip_id"],
        split=ours["split"],
        signer=ours.get("signer") or "",
        reference=ours["reference"],
        gloss_reference=gloss_reference,
        hypotheses=(ours["hypothesis"], theirs["hypothesis"]),
        gloss_hypotheses=glosses,
        scores=scores,
    )


def _difference(metric: Metric, clips: Sequence[PairedClip], scoring: ScoringConfig) -> Difference:
    if metric != "wer":
        first, second = ([clip.hypotheses[place] for clip in clips] for place in (0, 1))
        return paired_bootstrap(metric, first, second, [clip.reference for clip in clips], scoring)
    known = [clip for clip in clips if clip.gloss_reference]
    one, other = ([clip.gloss_hypotheses[place].split() for clip in known] for place in (0, 1))
    return paired_bootstrap(metric, one, other, [clip.gloss_reference.split() for clip in known], scoring)
