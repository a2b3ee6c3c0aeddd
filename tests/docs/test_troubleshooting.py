"""docs/troubleshooting.md quotes messages of the code and rules of the contract."""

from __future__ import annotations

import ast
import re

import pytest

from signstreams.contract.rules import RULES

from .pages import PROJECT

TROUBLESHOOTING = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MIN_LETTERS = 12
"""Least length of the longest piece of a quote; shorter ones would be found anywhere."""


def quotes() -> list[str]:
    """Code spans that quote our messages."""
    return re.findall(r"`((?:error|warning): [^`]+|(?:WARNING|INFO) [^`]+|waiting for [^`]+)`", TROUBLESHOOTING)


def said() -> str:
    """All texts in library, scripts, rules and Makefile, with a line break for each value that is filled in."""
    texts = []
    for path in [*(PROJECT / "src").rglob("*.py"), *(PROJECT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "\n" for part in node.values)  # type: ignore[misc]
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%(\(\w+\))?(\.\d)?[sdfg]", "\n", node.value))
    texts.append((PROJECT / "Makefile").read_text(encoding="utf-8"))
    for path in (PROJECT / "workflow" / "rules").glob("*.smk"):
        joined = re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # strings over several lines
        texts.append(re.sub(r"\{[^{}]*\}", "\n", joined))
    return "\n\n".join(texts)


SAID = said()


def pieces(quote: str) -> list[str]:
    """The parts of a quote between its <...>, without ``error:`` and the like."""
    text = re.sub(r"^(error: |warning: |WARNING |INFO )", "", quote)
    return [piece for piece in re.split(r"<[^>]*>", text) if re.search(r"[a-z]{2}", piece)]


def is_said(piece: str, most_parts: int = 3) -> bool:
    """Whether the code has this text, in one string or in a few consecutive ones."""
    if piece in SAID:
        return True
    longest = next(end for end in range(len(piece), -1, -1) if piece[:end] in SAID)
    return longest > 0 and most_parts > 1 and is_said(piece[longest:], most_parts - 1)


@pytest.mark.parametrize("quote", quotes())
def test_a_quoted_message_is_one_that_the_code_has(quote: str) -> None:
    found = pieces(quote)
    assert max(len(piece) for piece in found) >= MIN_LETTERS, "quote more of it"
    missing = [piece for piece in found if not is_said(piece)]
    assert not missing


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert len(quotes()) > 35
    assert not is_said(pieces("error: <folder>: the moon is in the way; wait for the sun")[0])


def test_the_rules_that_it_explains_are_rules() -> None:
    section = TROUBLESHOOTING.partition("\n## The contract\n")[2].partition("\n## ")[0]
    named = [name for line in section.splitlines() for name in re.findall(r"`([a-z]+\.[a-z_]+)`", line.split(" | ")[0])]
    assert len(named) > 10
    assert set(named) <= set(RULES)
