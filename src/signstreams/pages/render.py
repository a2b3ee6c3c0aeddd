"""Render a page from its template: every text escaped; style, scripts and pictures inside; no network.

Only what the contract's page shows of single videos lies beside it. A template gets plain data. Images are (H, W, 3)
uint8 BGR arrays; the filter ``webp`` embeds them at the quality that `render` is trying. `parts.html` holds what the
pages share. Scripts are our own and few: `clips.js` searches, sorts and filters a list and plays its clips,
`translation.html` moves its video; what there is to read is there without them. Texts are in the reader's
language (`signstreams.language`): `_` and `ngettext` in templates, `tr` and `plural` in scripts, which the page hands
the translations of their texts.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from signstreams.array_types import Pixels
from signstreams.files import replacing
from signstreams.language import SOURCE, gettext, grouped, language, ngettext, patterns, translated
from signstreams.progress import duration

MAX_ROWS = 500  # rows of one table; the JSON beside the page has all
MAX_BYTES = 1_500_000
"""Size of a page: Snakemake's report embeds it as a base64 address, and Chromium opens none beyond 2 MiB."""
QUALITIES = ((72, 1.0), (50, 1.0), (30, 1.0), (30, 0.67), (20, 0.5))
"""WebP qualities and sizes of pictures to try, the best first."""
_LINKS = re.compile('(<div class="pages">).*?(</div>)', re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class ShownClip:
    """A translated clip."""

    clip_id: str  # id of the clip
    frames: Pixels | None  # some of its frames in one picture; None where `picture` has them, or none are known
    reference: str  # what was said
    hypothesis: str | None  # what the model says; None of one that learned glosses alone
    gloss_reference: str | None = None  # the same of glosses, separated by blanks; None where there are none
    gloss_hypothesis: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)  # ``chrf``, ``bleu_4``, ``wer``, as far as they are known
    split: str = ""  # train, val or test
    video_id: str = ""  # its video
    signer: str = ""  # who signs, where that is known
    span_s: tuple[float, float] | None = None  # its times in the video
    cues: Sequence[tuple[float, float, str]] = ()  # recognised glosses by the video's times: start, end, gloss
    video: str | None = None  # address of its video file from the page; None where it has none
    picture: str | None = None  # address of the frames from the page, where they are in a file of their own


def render(template: str, **content: Any) -> str:
    """The page of a template of this package, with the best pictures that fit `MAX_BYTES`, else the poorest."""
    page, found = "", _environment().get_template(template)
    for quality, scale in QUALITIES:
        page = found.render(**content, quality=quality, scale=scale, contents=[])
        if len(page.encode()) <= MAX_BYTES:
            break
    return page


def webp_bytes(image: Pixels, quality: int = QUALITIES[0][0], scale: float = 1.0) -> bytes:
    """An image (H, W, 3) as a WebP file."""
    import cv2

    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    is_ok, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert is_ok
    return bytes(data.tobytes())


def clip_anchor(clip_id: str) -> str:
    """The ``id`` of a clip's element in a page, which is also the fragment of a link to it."""
    return "clip-" + quote(clip_id, safe="")


def relative_address(file: Path, page: Path) -> str:
    """Address of a file from the folder of a page: valid as long as both are moved together."""
    return quote(os.path.relpath(file.resolve(), page.resolve().parent), errors="surrogateescape")


def write_links(page: Path, links: Sequence[tuple[str, str]]) -> None:
    """Fill in the links (name, address) of a page whose others were written later; its time of change stays.

    Raises:
        OSError: The page is not there, or cannot be written.
    """
    shown = "".join(Markup('<a href="{}">{}</a>').format(address, name) for name, address in links)
    status, text = page.stat(), page.read_bytes().decode()
    new = _LINKS.sub(lambda found: f"{found[1]}{shown}{found[2]}", text, count=1)
    if new != text:
        with replacing(page) as part:
            part.write_bytes(new.encode())
            os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))  # else Snakemake takes it for a new result


def rounded(value: float | None, digits: int = 2) -> str:
    """A figure for people; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share of 1 in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.0f} %"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do", "jinja2.ext.i18n"],
        finalize=_without_controls,
    )
    environment.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]  # of i18n
    environment.globals |= {
        "language": language,
        "max_rows": MAX_ROWS,
        "patterns": patterns,
        "script_texts": lambda name: {text: gettext(text) for text in script_texts(name) if language() != SOURCE},
    }
    environment.filters |= {
        "clip_anchor": clip_anchor,
        "clock": _clock,
        "anchor": lambda title: re.sub(r"\W+", "-", title.lower()),
        "duration": duration,
        "json": json_in_script,
        "marked_words": _marked_words,
        "percent": percent,
        "pretty_json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "rounded": rounded,
        "short": lambda value: grouped(round(value)) if abs(value) >= 100 else f"{value:.3g}",
        "translated": translated,
        "thousands": grouped,
        "webp": _webp,
    }
    return environment


def json_in_script(value: object) -> Markup:
    """JSON within a script: no text can end the element that holds it."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026"))


@cache
def script_texts(name: str) -> list[str]:
    """The texts that a script of this package shows, in English: each form of each."""
    script = Path(__file__).with_name(name).read_text(encoding="utf-8")
    calls = re.findall(r'\b(?:tr\(|plural\()"([^"]*)"(?:, "([^"]*)")?', script)
    return list(dict.fromkeys(text for call in calls for text in call if text))


def _without_controls(value: object) -> object:
    """Control characters and stray bytes of file names, which no HTML may hold, as escapes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return value


@pass_context
def _webp(context: Context, image: Pixels) -> Markup:
    """Address that holds a picture (H, W, 3)."""
    data = webp_bytes(image, context["quality"], context["scale"])
    return Markup(f"data:image/webp;base64,{base64.b64encode(data).decode()}")


def _clock(seconds: float) -> str:
    """A moment of a video: ``1:02.40``."""
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}:{rest:05.2f}"


def _marked_words(hypothesis: str, reference: str) -> list[tuple[str, bool]]:
    """Words of a hypothesis, and whether the reference has them too, whatever their case and punctuation."""
    known = {_bare(word) for word in reference.split()}
    return [(word, _bare(word) in known) for word in hypothesis.split()]


def _bare(word: str) -> str:
    return word.strip(".,;:!?¡¿").casefold()
