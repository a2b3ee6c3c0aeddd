"""What makes Snakemake extract a video again: an image of its folder, its spans, its box; and what does not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("ai_edge_litert")

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
corpus: {root: data/inputs, videos: inputs}
extract: {set: {spans_only: true, span_padding_s: 0.05}}
"""
META = "id;video;text;start;end;box\n1;frames ñ;hola;0.1;0.2;\n2;nested;adiós;0.0;0.1;5 5 90 99\n"


def write_image(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((120, 160, 3), level, np.uint8))[1].tobytes())


def test_only_what_matters_to_a_video_extracts_it_again(snakemake: Snakemake, checkout: Path) -> None:
    (checkout / "inputs.yaml").write_text(CONFIG, encoding="utf-8")
    meta = checkout / "data" / "inputs" / "meta.csv"
    meta.parent.mkdir(parents=True)
    meta.write_text(META, encoding="utf-8")
    frames = checkout / "inputs" / "frames ñ"
    for folder in (frames, checkout / "inputs" / "nested" / "1", checkout / "inputs" / "unnamed"):
        for index in range(8):
            write_image(folder / f"images{index + 1:04d}.png", 90 + index)
    done = snakemake("extract_all", "--configfile", "inputs.yaml")
    assert done.returncode == 0, done.stderr
    written = {path.stem for path in (meta.parent / "processed" / "metadata").iterdir()}
    assert written == {"frames ñ", "nested"}  # no row names the third

    def stale() -> set[str]:
        planned = snakemake("--dry-run", "extract_all", "--configfile", "inputs.yaml")
        assert planned.returncode == 0, planned.stderr
        return set(re.findall(r"wildcards: video=(.+)", planned.stdout + planned.stderr))

    meta.write_text(META.replace("hola", "another text"), encoding="utf-8")
    (frames / ".DS_Store").touch()
    assert stale() == set()
    meta.write_text(META.replace("5 5 90 99", "5 5 91 99"), encoding="utf-8")
    assert stale() == {"nested"}
    meta.write_text(META, encoding="utf-8")
    write_image(frames / "images0003.png", 200)
    assert stale() == {"frames ñ"}


def test_what_was_extracted_by_hand_with_other_settings_fails_the_contract(
    snakemake: Snakemake, checkout: Path
) -> None:
    """Snakemake has no record of these files, and would keep them."""
    (checkout / "by hand.yaml").write_text(
        "corpus: {root: data/by hand, videos: by hand}\nextract: {set: {crop_px: 32, face_privacy: blur}}\n",
        encoding="utf-8",
    )
    for index in range(8):
        write_image(checkout / "by hand" / "a" / f"{index}.png", 90 + index)
    command = [sys.executable, "scripts/extract_rois_v2.py", "--videos", "by hand", "--root", "data/by hand"]
    subprocess.run([*command, "--crop-px", "32"], cwd=checkout, check=True, capture_output=True)
    done = snakemake("contract", "--configfile", "by hand.yaml")
    assert done.returncode == 1 and "rule extract:" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines()[-9:] if line.startswith("error: ") and "[settings." in line]
    assert "1 video was extracted with face_privacy none: 'a', expected face_privacy blur, as planned; run: " in line
    done = snakemake("contract", "--configfile", "by hand.yaml", "--forcerun", "extract")
    assert "[settings.planned]" not in done.stderr, done.stderr
