"""Pictures of a finished run for the docs, screenshots of its pages among them: python docs/img/make_screenshots.py

Run it in the checkout after `make demo` and `snakemake --cores 1 report`; it needs Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from browser import SIZES, Browser, find_browser

from signstreams.commands import main as signstreams
from signstreams.formats.layout import CorpusLayout, RunLayout

MAX_BYTES = 300_000
SCALES = {"desktop": 1.25, "phone": 2.0}
SEEN_HEIGHT_PX = 720  # of what a backbone sees: the first four crops of the longer pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="corpus")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    runs = RunLayout(given.work_dir)
    pages = {
        "contract": CorpusLayout(given.root).report_page,
        "overview": runs.overview,
        "translations": runs.evaluation_file("page"),
        "report": runs.report,
    }
    if absent := [str(page) for page in pages.values() if not page.is_file()]:
        sys.exit(f"error: {', '.join(absent)}: not there; run `make demo` and `snakemake --cores 1 report` first")
    path = find_browser()
    if path is None:
        sys.exit("error: found no Chromium or Chrome on PATH; install one")
    with Browser(path) as browser:
        for name, page in pages.items():
            for size in SIZES:
                settle_s = 3.0 if name == "report" else 0.0  # Snakemake's page builds itself
                seen = browser.look(page, size, scale=SCALES[size], settle_s=settle_s)
                target = given.output / f"{name}_{size}.jpg"
                target.write_bytes(_small(seen.picture))
                print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
    seen = [runs.pretraining_file("hand_r", name) for name in ("attention", "patches", "neighbours")]
    (given.output / "backbone_sees.jpg").write_bytes(_small(_side_by_side(seen)))
    hands = [str(runs.pretraining(stream)) for stream in ("hand_r", "hand_l")]
    signstreams(["compare", *hands, "--output", str(given.output / "compare_runs.png")])


def _side_by_side(pictures: list[Path]) -> bytes:
    """PNG of pictures of one height: a longer one is cut off below, another scaled."""
    shown = []
    for path in pictures:
        image = cv2.imread(str(path))
        assert image is not None, path
        height_px, width_px = image.shape[:2]
        if height_px < 2 * SEEN_HEIGHT_PX:
            image = cv2.resize(image, (width_px * SEEN_HEIGHT_PX // height_px, SEEN_HEIGHT_PX))
        shown.append(image[:SEEN_HEIGHT_PX])
    data: bytes = cv2.imencode(".png", np.hstack(shown))[1].tobytes()
    return data


def _small(png: bytes) -> bytes:
    """JPEG of at most `MAX_BYTES`, as good as that allows."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    for quality in range(88, 20, -6):
        data: bytes = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= MAX_BYTES:
            break
    return data


if __name__ == "__main__":
    main()
