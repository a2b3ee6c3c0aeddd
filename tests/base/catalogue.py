"""What the code shows people, found in its sources, to be compared with the catalogues of `signstreams.language`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from signstreams.language import one_line
from signstreams.pages.render import _environment

SOURCE = Path(__file__).parents[2] / "src" / "signstreams"
_CALLS = re.compile(r"\b(?:tr|plural)\(")
_OF_SCRIPT = re.compile(r'\b(tr|plural)\("([^"]*)"(?:, "([^"]*)")?')


def shown_texts() -> set[tuple[str, ...]]:
    """Every text of `tr` and `plural` in library and scripts of pages, of `_` and `ngettext` in templates.

    One form, or two where it counts something.
    """
    found: set[tuple[str, ...]] = set()
    for path in SOURCE.rglob("*.py"):
        found |= set(_of_module(path))
    for path in SOURCE.rglob("*.html"):
        for _, function, message in _environment().extract_translations(path.read_text(encoding="utf-8")):
            forms = [message] if isinstance(message, str) else [text for text in message if text is not None]
            assert len(forms) == {"_": 1, "ngettext": 2}[function], (path, message)
            found.add(tuple(map(one_line, forms)))
    for path in SOURCE.rglob("*.js"):
        if path.name == "texts.js":  # which defines them
            continue
        script = path.read_text(encoding="utf-8")
        calls = _OF_SCRIPT.findall(script)
        assert len(calls) == len(_CALLS.findall(script)), f"{path}: a text is no plain string"
        found |= {(one, many) if kind == "plural" else (one,) for kind, one, many in calls}
    return found


def _of_module(path: Path) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("tr", "plural"):
            forms = node.args[: 1 if node.func.id == "tr" else 2]
            texts = [form.value for form in forms if isinstance(form, ast.Constant)]
            assert len(texts) == len(forms), f"{path}:{node.lineno}: a text is no plain string"
            yield tuple(map(str, texts))


def said_texts() -> set[str]:
    """Every string of the library, with ``%s`` for each value that is filled in; of `counted` both forms."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.add("".join(parts).replace("%", "%%").replace("\0", "%s"))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "counted":
                found |= {re.sub(r"%\(\w+\)s", "%s", ast.literal_eval(form)) for form in node.args[:2]}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.replace("%", "%%"))
    return found


def left_in_english(page: str) -> list[str]:
    """Texts of several words that a page in another language shows in English; its scripts know them."""
    shown = one_line(unescape(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)))
    texts = [form for forms in shown_texts() for form in forms if " " in form and "%" not in form]
    return [text for text in texts if text in shown]
