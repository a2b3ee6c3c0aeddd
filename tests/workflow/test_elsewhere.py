"""The workflow run in another folder than its checkout, and on videos with odd names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ODD_NAMES = ("100% it's a < B > c", "-rf $(touch pwned) #1; " + "é" * 19)


def snakemake(project: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "-s", str(project / "Snakefile"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_recipes_of_the_checkout_count_where_the_folder_has_none(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("corpus: {root: data/tiny, demo_size: tiny}\n", encoding="utf-8")
    done = snakemake(project, tmp_path, "pretrain_all", "--dry-run", "-p", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"--config {project / 'config/pretrain/demo_face.toml'} " in done.stdout


def test_videos_with_odd_names_are_extracted(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "videos").mkdir()
    for name in ODD_NAMES:  # none is a video: each is quarantined, by its own name
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"no video")
    (tmp_path / "mine.yaml").write_text("corpus: {root: data/own, videos: videos}\n", encoding="utf-8")
    done = snakemake(project, tmp_path, "extract_all", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ODD_NAMES:
        metadata = json.loads((tmp_path / f"data/own/processed/metadata/{name}.json").read_text(encoding="utf-8"))
        assert (metadata["video_id"], metadata["status"]) == (name, "quarantined")
    assert not list(tmp_path.rglob("pwned"))
