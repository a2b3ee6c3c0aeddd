"""Plain text files of stage text: one sentence per line, UTF-8. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from signstreams.corpus.leakage import text_key
from signstreams.errors import UserError
from signstreams.ids import composed

log = logging.getLogger(__name__)

KEY = "train.text_files"


class Sentence(NamedTuple):
    """A line of a file."""

    place: str  # file and line
    text: str  # composed (NFC), without blanks around it


def unreadable_files(files: Iterable[Path]) -> list[str]:
    """One line for each file that is not there, or may not be read; asked when a training is planned."""
    problems = []
    for file in files:
        try:
            file.open("rb").close()
        except OSError as error:
            problems.append(f"{KEY}: {file}: {error.strerror}, expected a text file, one sentence per line; name one")
    return problems


def read_sentences(files: Iterable[Path]) -> list[Sentence]:
    """The sentences of all files, in their order; empty lines are none.

    Raises:
        UserError: Files that cannot be read, are not UTF-8, or hold no sentence.
    """
    found: list[Sentence] = []
    if problems := unreadable_files(files := list(files)):
        raise UserError(problems)
    for file in files:
        data = file.read_bytes()
        try:
            lines = composed(data.decode("utf-8-sig")).split("\n")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            problems.append(
                f"{KEY}: {file}: byte 0x{data[error.start]:02x} in line {line:,}, expected UTF-8; convert the file"
            )
            continue
        own = [Sentence(f"{file}:{n}", kept) for n, line in enumerate(lines, start=1) if (kept := line.strip())]
        found += own
        if not own:
            problems.append(f"{KEY}: {file}: is empty, expected one sentence per line; leave it out")
    if problems:
        raise UserError(problems)
    return found


def without_held_out(sentences: Sequence[Sentence], held_out: Mapping[str, Iterable[str]]) -> list[Sentence]:
    """The sentences that are no texts of ``held_out``: splits whose scores would else be partly of learned texts."""
    keys = {split: {text_key(text) for text in texts} for split, texts in held_out.items()}
    kept, found = [], dict.fromkeys(keys, 0)
    for sentence in sentences:
        key = text_key(sentence.text)
        holding = [split for split, known in keys.items() if key in known]
        for split in holding:
            found[split] += 1
        if not holding:
            kept.append(sentence)
    if len(kept) < len(sentences):
        each = ", ".join(f"{count:,} of {split}" for split, count in found.items() if count)
        text = "%s: %s of %s sentences are texts of the corpus that are not to be learned (%s): they are left out"
        log.warning(text, KEY, f"{len(sentences) - len(kept):,}", f"{len(sentences):,}", each)
    return kept
