"""Pieces of HTML that pages are made of; every text goes through `escape`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from signstreams.array_types import Pixels

MAX_ROWS = 500
"""Rows of one table; report.json has all."""
MAX_BYTES = 1_500_000
"""Of a page: Snakemake's report holds it as an address, in base64, and Chromium opens none beyond 2 MiB."""
QUALITIES = (72, 50, 30, 15)
"""Of the pictures of a page, the best first."""
_HEADING = re.compile(r'<h2 id="(?P<name>[^"]+)">(?P<title>.*?)</h2>')
NARROW = 3
"""Columns up to which a table is no wider than what it holds."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #e4e7ec; --card: #fff; --ground: #f6f7f9;
  --error: #b42318; --warning: #b25e09; --info: #175cd3; --pass: #067647; --bars: #84a9d8;
  --detected: #2e90fa; --tracked: #f79009; --filled: #9b8afb; --missing: #d0d5dd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3240; --card: #171c26;
  --ground: #0f131a; --error: #f97066; --warning: #fdb022; --info: #84adff; --pass: #47cd89; --missing: #3b4454;
  --bars: #4a6a94; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 19px; margin: 44px 0 4px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
.hint { color: var(--soft); margin: 0 0 12px; max-width: 80ch; }
.soft { color: var(--soft); } .error, .fail { color: var(--error); } .warning { color: var(--warning); }
.info { color: var(--info); } .pass { color: var(--pass); }
nav { margin-top: 18px; display: flex; flex-wrap: wrap; gap: 4px 16px; } nav a { color: var(--info); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 20px; }
.card, figure, article, details, .scroll { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
pre { font: 12px/1.5 ui-monospace, monospace; margin: 8px 0; }
.card { padding: 12px 18px; } .card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 8px 12px; border-top: 1px solid var(--line); }
th { border-top: 0; font-weight: 600; color: var(--soft); white-space: nowrap; }
td { overflow-wrap: anywhere; min-width: 64px; } td:first-child { min-width: 150px; }
table.narrow { width: auto; } th.number { text-align: right; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
details { padding: 10px 16px; margin: 8px 0; } summary { cursor: pointer; } details p { margin: 6px 0; }
details ul { margin: 6px 0; padding-left: 20px; } details li { overflow-wrap: anywhere; }
.bar { display: flex; height: 8px; min-width: 90px; border-radius: 4px; overflow: hidden; background: var(--missing); }
.bar i { display: block; height: 100%; }
.detected { background: var(--detected); } .tracked { background: var(--tracked); }
.filled { background: var(--filled); } .missing { background: var(--missing); }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin: 0 5px 0 14px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 12px; }
figure { margin: 0; padding: 12px 16px; } figcaption { font-weight: 600; margin-bottom: 6px; overflow-wrap: anywhere; }
figcaption .soft { font-weight: 400; }
svg { width: 100%; height: auto; display: block; } svg rect { fill: var(--bars); }
svg line { stroke: var(--ink); stroke-dasharray: 3 3; } svg text { fill: var(--soft); font-size: 12px; }
.same { color: var(--soft); margin: 8px 0; }
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(66px, 1fr)); gap: 5px; }
.crops img, .crops span { width: 100%; aspect-ratio: 1; border: 3px solid var(--missing); border-radius: 6px;
  display: block; }
.crops span { font-size: 11px; color: var(--soft); padding: 6px; overflow: hidden; }
.crops .detected { border-color: var(--detected); } .crops .tracked { border-color: var(--tracked); }
.crops .filled { border-color: var(--filled); } .crops .missing { border-color: var(--missing); }
.previews { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 14px; }
.previews .wide { grid-column: 1 / -1; }
.previews img { max-width: 100%; height: auto; border-radius: 6px; display: block; }
.previews figure.bad { border-color: var(--error); }
article { display: grid; grid-template-columns: minmax(0, 432px) minmax(0, 1fr); gap: 6px 20px; padding: 12px;
  margin: 10px 0; align-items: start; }
article img { max-width: 100%; height: auto; display: block; border-radius: 6px; }
.right { color: var(--pass); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; margin: 0; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 20px 14px 48px; } td:first-child { min-width: 110px; }
  article { grid-template-columns: minmax(0, 1fr); }
  .drawn { overflow-x: auto; } .drawn img { width: 720px; max-width: none; }
  .card { padding: 8px 12px; flex: 1 1 40%; } }
"""


def fitting(render: Callable[[int], str]) -> str:
    """The page with the best pictures that fits `MAX_BYTES`; ``render`` takes their quality, 0 to 100."""
    page = ""
    for quality in QUALITIES:
        page = render(quality)
        if len(page.encode()) <= MAX_BYTES:
            break
    return page


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page; links to its sections stand before the first one."""
    parts = [part for part in parts if part]
    first = next((place for place, part in enumerate(parts) if part.startswith("<h2")), len(parts))
    parts.insert(first, _contents(parts[first:]))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _contents(sections: Iterable[str]) -> str:
    found = [match for part in sections if (match := _HEADING.match(part))]
    links = "".join(f'<a href="#{match["name"]}">{match["title"]}</a>' for match in found)
    return f"<nav>{links}</nav>" if len(found) > 1 else ""


def section(title: str, body: str, *, hint: str = "", otherwise: str = "") -> str:
    """A heading with what it is about; ``otherwise`` where there is no body, nothing where there is neither."""
    if not body and not otherwise:
        return ""
    content = f'<p class="hint">{escape(hint)}</p>{body}' if body else f'<p class="soft">{escape(otherwise)}</p>'
    name = re.sub(r"\W+", "-", title.lower())
    return f'<h2 id="{name}">{escape(title)}</h2>\n{content}'


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Figures with their names, side by side."""
    shown = (
        f'<div class="card"><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>'
        for value, name in values
    )
    return f'<div class="cards">{"".join(shown)}</div>'


def webp(image: Pixels, quality: int) -> str:
    """Address that holds a picture (H, W, 3)."""
    import cv2

    is_ok, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert is_ok
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"


def embedded(image: Pixels, quality: int, alt: str) -> str:
    """A picture (H, W, 3) inside the page."""
    height, width = image.shape[:2]
    return f'<img width="{width}" height="{height}" alt="{escape(alt)}" src="{webp(image, quality)}">'


def article(picture: str, title: str, said: Mapping[str, str]) -> str:
    """A picture beside terms and what they say; both picture and what is said are HTML."""
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{words}</dd>" for term, words in said.items())
    return f'<article>{picture}<div><div class="soft">{escape(title)}</div><dl>{terms}</dl></div></article>'


def marked(hypothesis: str, reference: str) -> str:
    """Words of a hypothesis; those that the reference has too are marked."""
    known = {_bare(word) for word in reference.split()}
    words = [
        f'<span class="right">{escape(word)}</span>' if _bare(word) in known else escape(word)
        for word in hypothesis.split()
    ]
    return " ".join(words) or "<i>nothing</i>"


def _bare(word: str) -> str:
    return word.strip(".,;:!?¡¿").casefold()


def table(header: Sequence[str], rows: Iterable[str], num_rows: int) -> str:
    """A table that scrolls sideways, its head set as the first row is; ``num_rows`` counts also those not shown."""
    if not num_rows:
        return ""
    rows = list(rows)
    classes = [f" {found}" if found else "" for found in re.findall(r'<td(?: (class="number"))?', rows[0])]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(header, classes, strict=True))
    kind = ' class="narrow"' if len(header) <= NARROW else ""
    text = f'<div class="scroll"><table{kind}>\n<tr>{head}</tr>\n' + "\n".join(rows) + "\n</table></div>"
    if num_rows > MAX_ROWS:
        text += f'<p class="soft">The first {MAX_ROWS:,} of {num_rows:,}; report.json has all.</p>'
    return text


def row(*cells: str) -> str:
    return "<tr>" + "".join(cells) + "</tr>"


def text(value: object) -> str:
    return f"<td>{escape(str(value))}</td>"


def code(value: object) -> str:
    return f"<td><code>{escape(str(value))}</code></td>"


def number(value: object) -> str:
    return f'<td class="number">{escape(str(value))}</td>'
