"""Several videos a job: the same artifacts, tracked by a manifest; new videos disturb no finished batch."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("ai_edge_litert")

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = "corpus: {root: data/batches, videos: many}\nextract: {videos_per_job: 2, set: {crop_px: 32}}\n"


def write_video(folder: Path, level: int) -> None:
    folder.mkdir(parents=True)
    for index in range(3):
        write_image(folder / f"{index}.png", level + index)


def write_image(path: Path, level: int) -> None:
    path.write_bytes(cv2.imencode(".png", np.full((120, 160, 3), level, np.uint8))[1].tobytes())


def test_batches_are_jobs_and_new_videos_disturb_none(snakemake: Snakemake, checkout: Path) -> None:
    (checkout / "batches.yaml").write_text(CONFIG, encoding="utf-8")
    videos = checkout / "many"
    for level, name in enumerate(("b", "d ñ$(touch pwned)", "e'.2")):
        write_video(videos / name, 90 + 5 * level)
    root = checkout / "data" / "batches"
    folder = root / "processed" / "batches"

    def run(*words: str) -> str:
        done = snakemake(*words, "--configfile", "batches.yaml")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    planned = run("--dry-run", "extract_all")
    assert "extract            2" in planned
    assert not folder.exists(), "a dry run writes nothing"
    run("extract_all")
    ids = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*.txt")}
    assert ids == {"b00000": ["b", "d ñ$(touch pwned)"], "b00001": ["e'.2"]}
    written = {path.stem for path in (root / "processed" / "metadata").iterdir()}
    assert written == {"b", "d ñ$(touch pwned)", "e'.2"}
    manifest = json.loads((folder / "b00000.json").read_text(encoding="utf-8"))
    assert list(manifest["videos"]) == ids["b00000"]
    assert manifest["videos"]["b"]["num_frames"] == 3
    assert {path.stem for path in (root / "contract" / "videos").iterdir()} == written
    planned = run("--dry-run", "pretrain_all")
    assert "rule contract" in planned and "rule extract" not in planned, "the batches are finished"

    # a new video, between the others by name
    write_video(videos / "c", 140)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    run("extract_all")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "b00002.txt").read_text(encoding="utf-8") == "c\n"

    # a batch that was stopped after its first video
    (folder / "b00000.json").unlink()
    (root / "processed" / "metadata" / "d ñ$(touch pwned).json").unlink()
    kept = (root / "processed" / "face" / "b.zip").stat().st_mtime_ns
    run("extract_all")
    log = (checkout / "work_dirs" / "logs" / "extract" / "b00000.log").read_text(encoding="utf-8")
    assert "1 extracted, 1 unchanged" in log
    assert (root / "processed" / "face" / "b.zip").stat().st_mtime_ns == kept

    # a changed video makes its own batch stale
    write_image(videos / "e'.2" / "1.png", 30)
    planned = run("--dry-run", "extract_all")
    assert re.findall(r"wildcards: batch=(.+)", planned) == ["b00001"]
    assert not list(checkout.rglob("pwned"))


def test_a_listing_names_what_is_no_video(tmp_path: Path) -> None:
    from signstreams.errors import UserError
    from signstreams.extract.batch import only_listed

    listing = tmp_path / "ids.txt"
    listing.write_text("b\nzebra\nlion\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        only_listed({"a": Path("a"), "b": Path("b")}, listing)
    assert [("zebra" in line, "lion" in line) for line in caught.value.problems] == [(True, False), (False, True)]
    listing.write_text("b\n", encoding="utf-8")
    assert only_listed({"a": Path("a"), "b": Path("b")}, listing) == {"b": Path("b")}
    listing.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="lists no id"):
        only_listed({}, listing)
    with pytest.raises(UserError, match="No such file"):
        only_listed({}, tmp_path / "absent.txt")
