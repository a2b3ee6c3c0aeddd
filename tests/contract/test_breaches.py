"""A good corpus passes; the broken ones of test_breaches_*.py are many, and break every rule that is an error."""

from __future__ import annotations

import re
from pathlib import Path

from signstreams.contract.rules import RULES

from .corpora import BrokenCorpus


def test_the_good_corpus_passes_without_a_word(corpus: BrokenCorpus) -> None:
    validation = corpus.validate()
    assert [finding.line() for finding in validation.findings] == []
    assert validation.report["verdict"] == "pass"


def test_the_broken_corpora_cover_every_rule_that_is_an_error() -> None:
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_breaches_*.py")]
    tried = [rule for text in texts for rule in re.findall(r'^@breaks\("([a-z._]+)"', text, re.MULTILINE)]
    assert len(tried) >= 120
    # Those of single rows and columns are tried one by one in tests/corpus.
    elsewhere = {"meta.video_id", "meta.box", "clip.any"}
    assert {name for name, rule in RULES.items() if rule.severity == "error"} - set(tried) == elsewhere
