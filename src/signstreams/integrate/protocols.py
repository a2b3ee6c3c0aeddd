"""Protocols of published results: PHOENIX's gloss clean-up, and the figures of papers on corpora that are known.

A figure is comparable only with one that was scored alike: each row says how it was scored, as our scores.json does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.scoring_settings import GlossCleanup, KnownCorpus, ScoringConfig

# -- Gloss clean-up

_SPELT = r"[A-Z]"  # a letter that is spelt with the fingers is a gloss of its own
_UNMARKED = (
    (r"__LEFTHAND__|__EPENTHESIS__|__EMOTION__", ""),  # what is no sign
    (r"\b__[^_ ]*__\b", ""),
    (r"\bloc-([^ ]*)\b", r"\1"),  # localised, classifier, repeated: the sign is the same
    (r"\bcl-([^ ]*)\b", r"\1"),
    (r"\b([^ ]*)-PLUSPLUS\b", r"\1"),
    (r"\b([A-Z]+)RAUM\b", r"\1"),
    ("WIE AUSSEHEN", "WIE-AUSSEHEN"),
)
_LETTER_AND_LETTER = (rf"([ +]{_SPELT}) ({_SPELT}[ +])", r"\1+\2")
_SPELT_TOGETHER = (
    (rf"^({_SPELT}) ({_SPELT}[+ ])", r"\1+\2"),
    (rf"[ +]({_SPELT}) ({_SPELT}) ", r" \1+\2 "),
    *(_LETTER_AND_LETTER,) * 3,  # a match ends where the next would begin: each pass joins every other letter
    (r"([ +]SCH) ([A-Z][ +])", r"\1+\2"),
    (r"([ +]NN) ([A-Z][ +])", r"\1+\2"),
    (rf"([ +]{_SPELT}) (NN[ +])", r"\1+\2"),
    (rf"([ +]{_SPELT}) ({_SPELT})$", r"\1+\2"),
)
_BLANKS = (r" +", " ")
_SAID_TWICE = (r"(?<![\w-])(\b[A-Z]+(?![\w-])) \1(?![\w-])", r"\1")
_PHOENIX2014T = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (*_UNMARKED, *_SPELT_TOGETHER, _BLANKS, *(_SAID_TWICE,) * 4, _BLANKS)
]


def clean_phoenix2014t(glosses: Sequence[str]) -> list[str]:
    """Glosses by the rules behind the published WER on PHOENIX-2014T, of references and hypotheses alike.

    Those of ``clean_phoenix_2014_trans`` in sutwangyan/MSKA: phoenix_cleanup.py (as in FangyunWei/SLRT and neccam/slt),
    in its order: marks of what is no sign and of how a sign is made go, letters that are spelt become one gloss, and
    repetitions become one.
    """
    text = " ".join(glosses).strip()
    for pattern, replacement in _PHOENIX2014T:
        text = pattern.sub(replacement, text)
    return [gloss for gloss, _ in groupby(text.split(" ")) if gloss]


def clean_glosses(glosses: Sequence[str], cleanup: GlossCleanup) -> list[str]:
    """Glosses as they are compared."""
    return clean_phoenix2014t(glosses) if cleanup == "phoenix2014t" else list(glosses)


CLEANUPS: dict[GlossCleanup, str] = {
    "none": "none",
    "phoenix2014t": "PHOENIX-2014T's rules (clean_phoenix_2014_trans of sutwangyan/MSKA)",
}
"""Name of a clean-up in scores.json."""


def gloss_decoding(num_beams: int) -> str:
    """Name of a decoding of glosses in scores.json."""
    return "greedy CTC (beam 1)" if num_beams == 1 else f"CTC prefix beam search (beam {num_beams})"


# -- Published figures


@dataclass(frozen=True)
class Published:
    """Figures of a paper on the test split of a corpus; None where it has none."""

    system: str  # as the paper names it
    uses: str  # what it learns from besides texts and videos
    scored_by: str  # protocol
    source: str  # where the figures are from
    bleu_1: float | None = None
    bleu_4: float | None = None
    wer: float | None = None


_UNTOKENISED = "BLEU untokenised, on lower-cased tokenised texts"
_CHARACTERS = "BLEU over characters"
_MSKA = "sutwangyan/MSKA: README.md, e7d5610"
_TWO_STREAM = "FangyunWei/SLRT: TwoStreamNetwork/README.md"
_SPAMO = "tables 1 and 2 of SpaMo, arXiv 2408.10593v3"
_MUSKETEERS = "table 1 of arXiv 2406.06907"
_SIGNFLIP = "as quoted by SignFLIP, tables 1 and 2"
_13A = "BLEU by 13a, mixed case"
_UNSTATED = "not stated in that table"
_LOWEST_HEAD = "WER of the head that is lowest on test"
FIGURES: dict[KnownCorpus, tuple[Published, ...]] = {
    "phoenix2014t": (
        Published(
            "MSKA", "glosses; mBART", f"{_UNTOKENISED}; {_LOWEST_HEAD}, cleaned, beam 5", _MSKA, 54.79, 29.03, 19.8
        ),
        Published("TwoStream", "glosses; mBART", f"{_UNTOKENISED}; WER cleaned", _TWO_STREAM, 54.90, 28.95, 19.3),
        Published("SpaMo", "Flan-T5-XL", _UNSTATED, _SPAMO, bleu_4=24.32),
        Published("GFSLT-VLP", "mBART", _UNSTATED, _SPAMO, bleu_4=21.44),
    ),
    "how2sign": (
        Published("SHuBERT", "unlabelled signing; ByT5", _UNSTATED, _SIGNFLIP, bleu_4=16.2),
        Published("Uni-Sign", "mT5", _UNSTATED, _SIGNFLIP, bleu_4=14.9),
        Published("SignMusketeers", "YouTube-ASL; T5", _13A, _MUSKETEERS, bleu_4=14.3),
        Published("SSVP-SLT", "How2Sign alone", _UNSTATED, _SPAMO, bleu_4=7.0),
        Published("SignMusketeers", "How2Sign alone; T5", _13A, _MUSKETEERS, bleu_4=2.4),
    ),
    "csl_daily": (
        Published("Uni-Sign", "CSL-News; mT5", _UNSTATED, _SIGNFLIP, bleu_4=26.36),
        Published("TwoStream", "glosses; mBART", _CHARACTERS, _TWO_STREAM, 55.44, 25.79, 25.3),
        Published("MSKA", "glosses; mBART", f"{_CHARACTERS}; {_LOWEST_HEAD}, beam 5", _MSKA, 56.37, 25.52, 27.1),
        Published("GFSLT-VLP", "mBART", _UNSTATED, _SPAMO, bleu_4=11.00),
    ),
}
"""Figures on the test split of each corpus, the best BLEU-4 first."""
NAMES: dict[KnownCorpus, str] = {"phoenix2014t": "PHOENIX-2014T", "how2sign": "How2Sign", "csl_daily": "CSL-Daily"}


def published_figures(
    root: Path, given: KnownCorpus | str | None, scoring: ScoringConfig, split: str
) -> dict[str, Any] | None:
    """What stands beside our scores: the figures of a known corpus, and in what ours differ.

    ``given`` is ``scoring.corpus`` of the evaluation. None where the corpus is not known: it is never guessed.
    """
    record = _import_record(root)
    known: KnownCorpus | None = next((key for key, name in NAMES.items() if name == record.get("corpus")), None)
    known_by = f"{CorpusLayout(root).import_record.name} in the corpus folder"
    if given is not None:
        known = next((key for key in NAMES if key == given), None)
        known_by = "scoring.corpus"
    if known is None:
        return None
    return {
        "corpus": NAMES[known],
        "known_by": known_by,
        "rows": [asdict(figures) for figures in FIGURES[known]],
        "ours_differ": _differences(known, record, scoring, split),
    }


def _import_record(root: Path) -> Mapping[str, Any]:
    """Content of import.json; empty without the file, or where it is no longer what an import writes."""
    try:
        found = json.loads(CorpusLayout(root).import_record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(corpus: KnownCorpus, record: Mapping[str, Any], scoring: ScoringConfig, split: str) -> list[str]:
    """In what our scores are others than the published ones, as far as settings and import say."""
    found = []
    if split != "test":
        found.append(f"ours are of {split}, theirs of test")
    taken = record.get("taken")
    if isinstance(taken, dict):
        if absent := taken.get("clips_of_absent_videos"):
            found.append(f"{absent:,} clips were absent at the import")
        if taken.get("splits_by") not in (None, "the corpus"):
            found.append(f"the splits were drawn again ({taken['splits_by']})")
    if corpus == "phoenix2014t" and scoring.gloss_cleanup != "phoenix2014t":
        found.append("our glosses are not cleaned (scoring.gloss_cleanup phoenix2014t)")
    if corpus == "phoenix2014t" and scoring.bleu_tokenize != "none":
        found.append("our BLEU is tokenised (scoring.bleu_tokenize none)")
    if corpus == "csl_daily" and scoring.bleu_tokenize != "char":
        found.append("our BLEU is not over characters (scoring.bleu_tokenize char)")
    if corpus == "how2sign" and (scoring.bleu_tokenize, scoring.bleu_lowercase) != ("13a", False):
        found.append("our BLEU is not by 13a with mixed case")
    return found
