"""Pages in a real browser: the overview is whole and readable everywhere, and a broken page is noticed.

The contract's page and the translations are opened, and clicked through, where they are tested.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.pages.render import MAX_BYTES, render
from signstreams.publish.overview import render_overview


def test_the_overview_is_whole_and_readable(finished: Any, looks_well: Callable[[Path], None], tmp_path: Path) -> None:
    page = tmp_path / "overview.html"
    shown = render_overview(finished.root, finished.work_dir, finished.logs, {"a long setting": "x" * 400})
    for root in (str(finished.root), "/home/a_path_with_no_place_where_a_line_would_end/corpora/of_many_years"):
        page.write_text(shown.replace(str(finished.root), root), encoding="utf-8")
        looks_well(page)


def test_the_overview_in_spanish_is_whole_and_readable(
    with_sequence: Any,
    looks_well: Callable[[Path], None],
    left_in_english: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    page = tmp_path / "overview.html"
    shown = render_overview(with_sequence.root, with_sequence.work_dir, with_sequence.logs, {})
    page.write_text(shown, encoding="utf-8")
    assert '<html lang="es">' in shown and "Qué produjo la corrida" in shown
    assert left_in_english(shown) == []
    assert "El texto es mejor que a ciegas: chrF 23.7 contra 10.6" in shown
    looks_well(page)


@pytest.mark.parametrize("locale", ["C.UTF-8", "es_AR.UTF-8"])
def test_the_tables_of_a_large_run_fit_a_desktop(
    locale: str, with_sequence: Any, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    for path in with_sequence.work_dir.glob("dino_*/params.json"):
        params = json.loads(path.read_text(encoding="utf-8"))
        params |= {"architecture": "dinov3_vits16plus (384 wide)", "data": {"train_crops": 12_345_678}}
        path.write_text(json.dumps(params), encoding="utf-8")
    page = tmp_path / "overview.html"
    page.write_text(render_overview(with_sequence.root, with_sequence.work_dir, with_sequence.logs, {}))
    tables = "[...document.querySelectorAll('.scroll')].filter(e => e.querySelector('table'))"
    with browser.open(page, "desktop") as tab:
        assert "12" in tab.run("document.querySelector('table.many').innerText")
        assert tab.run(f"{tables}.map(e => e.scrollWidth - e.clientWidth).join()").strip("0,") == ""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("<script>console.error('oh')</script>", "console error: oh"),
        ("<script>missing()</script>", "ReferenceError: missing is not defined"),
        ('<img src="gone.png" alt="gone">', "gone.png"),
        ('<link rel="stylesheet" href="gone.css">', "gone.css"),
        ('<div style="width: 1400px">wide</div>', "wide"),
        ('<p style="color: #aaa">pale</p>', "contrast"),
        ('<p style="font-size: 8px">small</p>', "8 px high"),
    ],
)
def test_a_broken_page_is_seen(part: str, said: str, looks_well: Callable[[Path], None], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    well = render("translation.html", title="x", address=None, duration_s=1.0, sentences=[], notes=[], cues=[])
    page.write_text(well, encoding="utf-8")
    looks_well(page)
    page.write_text(well.replace("</main>", f"{part}</main>"), encoding="utf-8")
    with pytest.raises(AssertionError, match=said):
        looks_well(page)


def test_a_page_of_the_greatest_size_opens_where_the_report_of_snakemake_puts_it(browser: Any, tmp_path: Path) -> None:
    """In a frame whose address holds it: Chromium opens none beyond 2 MiB, and says nothing."""
    frame = (
        "<script>onmessage = () => { shown = true; };"
        " onload = () => setTimeout(() => { if (!self.shown) console.error('blank'); }, 100);</script>"
        "<iframe src='%s'></iframe>"
    )
    for size, expected in ((MAX_BYTES, []), (MAX_BYTES + 100_000, ["console error: blank"])):
        inner = "<script>parent.postMessage('', '*')</script>".ljust(size)
        address = "data:text/html;charset=utf8;filename=overview.html;base64," + b64encode(inner.encode()).decode()
        (tmp_path / "page.html").write_text(frame % address, encoding="utf-8")
        assert browser.look(tmp_path / "page.html", "desktop", settle_s=0.5).complaints == expected


def test_a_page_is_used_by_mouse_and_keyboard(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<input id=said><button onclick=\"this.textContent = document.getElementById('said').value\">say</button>"
        "<div style='position: relative'><a href=#>below</a><div style='position: absolute; inset: 0'>above</div></div>"
        "<noscript>no scripts</noscript>"
    )
    with browser.open(page, "phone") as tab:
        tab.click("#said")
        tab.type("ñandú")
        tab.click("button")
        tab.until("document.querySelector('button').textContent === 'ñandú'")
        tab.press("Tab", shift=True)
        tab.type("año")  # in place of all that is there, as a field that is reached by Tab is selected
        tab.press("Tab")
        tab.press("Enter")
        tab.until("document.querySelector('button').textContent === 'año'")
        for selector, said in (("b", "b: no such element"), ("a", "a: covered by <div")):
            with pytest.raises(RuntimeError, match=said):
                tab.click(selector)
        with pytest.raises(RuntimeError, match=r"false: not so within 0\.1 s"):
            tab.until("false", timeout_s=0.1)
        assert tab.look().complaints == [] and "no scripts" not in tab.run("document.body.innerText")
        tab.without_scripts()
        assert "no scripts" in tab.run("document.body.innerText")
