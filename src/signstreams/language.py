"""Texts for people in their language: English in the code, Spanish in ``locale/es.po``, chosen as GNU gettext does.

The language is that of LANGUAGE, LC_ALL, LC_MESSAGES or LANG; what has no translation is shown in English. The
catalogue is read as it is, so that neither a checkout nor a wheel needs a step that compiles it. Placeholders are
``%(name)s``, a percent sign is ``%%``.

What a program may read, or is published, stays English: data files, logs, exceptions, releases. A message of these is
translated where it is shown to a person (`translated`): its entry in the catalogue has a context (``msgctxt``), and is
the text of the code with a placeholder for each value, by which the message is recognised.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

SOURCE = "en"
CATALOGUES = Path(__file__).with_name("locale")

_PO_LINE = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s+)?("(?:[^"\\]|\\.)*")')
_NESTED = frozenset({"expected", "fix", "found", "ids", "more", "reason", "rows", "text", "videos", "what"})
"""Placeholders of messages that hold messages; what others hold, as a path or a name, stays as it is."""
_COUNTS = frozenset({"all", "num", "row"})
"""Placeholders of messages that stand for a number, by which one message is told from another."""
_DIGITS = r"[\d.,]+"
# A file ends at the first ": ", so that a message which begins with a file does not fit one that quotes it.
_MATCHES = dict.fromkeys(_COUNTS, _DIGITS) | {"file": "(?:(?!: ).)*?"}
_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")


_is_source: ContextVar[bool] = ContextVar("is_source", default=False)


@dataclass(frozen=True)
class Entry:
    """A text and its translation; two forms each, of one and of several, where it counts something."""

    forms: tuple[str, ...]
    translations: tuple[str, ...]
    context: str  # empty, or that of a message: ``message``, or ``fact`` of a video's view


@contextmanager
def in_english() -> Iterator[None]:
    """Within the block, or the function that this decorates, texts are English: of what is published."""
    before = _is_source.set(True)
    try:
        yield
    finally:
        _is_source.reset(before)


def language() -> str:
    """``en``, or another language that has a catalogue."""
    if _is_source.get():
        return SOURCE
    names = [os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    locale = next(filter(None, names), "C")
    if _code(locale) in ("C", "POSIX"):  # gettext asks for LANGUAGE only where a locale is set
        return SOURCE
    wished = os.environ.get("LANGUAGE") or locale
    return next((code for code in map(_code, wished.split(":")) if code in _languages()), SOURCE)


def tr(text: str, /, **values: object) -> str:
    """A text in the reader's language."""
    return gettext(text) % values


def plural(one: str, many: str, num: int, /, **values: object) -> str:
    """The form of a text that fits ``num``, which is its placeholder ``%(num)s``."""
    return ngettext(one, many, num) % {"num": grouped(num), **values}


def counted(one: str, many: str, num: int, /, **values: object) -> str:
    """As `plural`, in English, of a message that a program may read: `translated` knows both forms."""
    return (one if num == 1 else many) % {"num": f"{num:,}", **values}


def grouped(num: float) -> str:
    """``1,284``; outside English ``1 284`` with a narrow no-break space, as there a comma begins the decimals."""
    return _regrouped(f"{num:,}")


def _regrouped(num: str) -> str:
    return num if language() == SOURCE else num.replace(",", "\u202f")


def gettext(text: str) -> str:
    """A text with its placeholders; line breaks and indentation do not count."""
    return _texts(language()).get(one_line(text), text)


def ngettext(one: str, many: str, num: int) -> str:
    """A text with its placeholders, in the form that fits ``num``: English and Spanish have the same two."""
    return gettext(one if num == 1 else many)


def translated(text: str) -> str:
    """A message of the code in the reader's language, and so messages within it; any other text as it is."""
    return _translated(language(), text)


@lru_cache(maxsize=4096)  # hundreds of patterns are tried, and findings repeat
def _translated(code: str, text: str) -> str:
    exact, others = _messages(code)
    if text in exact:
        return exact[text]
    for pattern, translation in others:
        if found := pattern.fullmatch(text):
            values = found.groupdict()
            return translation % {name: _value(name, value) for name, value in values.items()}
    return text


def _value(name: str, value: str) -> str:
    """What a placeholder of a message stands for, in the reader's language."""
    if name in _COUNTS:
        return _regrouped(value)
    return translated(value) if name in _NESTED else value


def patterns(context: str) -> list[tuple[str, str]]:
    """Pattern and translation of the messages of a context, for scripts that show what a file says in English."""
    entries = [entry for entry in _entries(language()) if entry.context == context]
    return [(_pattern(entry.forms[0]).replace("?P<", "?<"), entry.translations[0]) for entry in entries]


def one_line(text: str) -> str:
    """A text without the line breaks and indentation of a source."""
    return " ".join(text.split())


def read_catalogue(text: str) -> list[Entry]:
    """Entries of a ``.po`` file, without its header.

    Raises:
        ValueError: A line is none of such a file, or an entry has no translation.
    """
    found: list[dict[str, str]] = [{}]
    key = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        part = _PO_LINE.fullmatch(line.strip())
        if part is None:
            raise ValueError(f"line {number}: {line}")
        if part[1] in ("msgctxt", "msgid") and any(name.startswith("msgstr") for name in found[-1]):
            found.append({})
        key = part[1] or key
        found[-1][key] = found[-1].get(key, "") + json.loads(part[2])
    return [_entry(parts) for parts in found if parts.get("msgid")]


def _entry(parts: dict[str, str]) -> Entry:
    forms = tuple(parts[name] for name in ("msgid", "msgid_plural") if name in parts)
    names = ("msgstr",) if len(forms) == 1 else ("msgstr[0]", "msgstr[1]")
    translations = tuple(parts.get(name, "") for name in names)
    if not all(translations):
        raise ValueError(f"{forms[0]}: has no translation")
    return Entry(forms, translations, parts.get("msgctxt", ""))


def _code(locale: str) -> str:
    """``es_AR.UTF-8`` is ``es``: a catalogue is for all countries."""
    return re.split(r"[_.@]", locale, maxsplit=1)[0]


@cache
def _languages() -> set[str]:
    return {SOURCE, *(path.stem for path in CATALOGUES.glob("*.po"))}


@cache
def _entries(code: str) -> list[Entry]:
    if code == SOURCE:
        return []
    return read_catalogue((CATALOGUES / f"{code}.po").read_text(encoding="utf-8"))


@cache
def _texts(code: str) -> dict[str, str]:
    """Each form of a text to its translation."""
    entries = [entry for entry in _entries(code) if not entry.context]
    return {form: new for entry in entries for form, new in zip(entry.forms, entry.translations, strict=True)}


@cache
def _messages(code: str) -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """Messages without placeholders, and patterns of the others, of which several may fit: the first one counts."""
    entries = [entry for entry in _entries(code) if entry.context]
    pairs = [pair for entry in entries for pair in zip(entry.forms, entry.translations, strict=True)]
    exact = {text % {}: new % {} for text, new in pairs if not _names(text)}
    others = sorted((pair for pair in pairs if _names(pair[0])), key=lambda pair: _vagueness(pair[0]))
    return exact, [(re.compile(_pattern(text), re.DOTALL), new) for text, new in others]


def _vagueness(text: str) -> tuple[int, int]:
    """Sorts messages by how many of their ends may be anything, then by how little they say."""
    starts, ends = re.match(r"%\((\w+)\)s", text), re.search(r"%\((\w+)\)s$", text)
    num_open = sum(end is not None and end[1] not in _COUNTS for end in (starts, ends))
    return num_open, -len(_PLACEHOLDER.sub("", text))


def _names(text: str) -> list[str]:
    return [name for name in _PLACEHOLDER.findall(text) if name]


def _pattern(text: str) -> str:
    """A regular expression with a group for each placeholder."""
    places = list(_PLACEHOLDER.finditer(text))
    starts, ends = [0, *(place.end() for place in places)], [*(place.start() for place in places), len(text)]
    literals = [re.escape(text[start:end]) for start, end in zip(starts, ends, strict=True)]
    groups = [f"(?P<{place[1]}>{_MATCHES.get(place[1], '.*?')})" if place[1] else "%" for place in places]
    return "".join(part for pair in zip(literals, [*groups, ""], strict=True) for part in pair)
