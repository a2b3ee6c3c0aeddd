"""From a published layout to a trained model with nothing but the import and one command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Importer

Source = Callable[..., Path]

# As small as the stages go; what the import wrote stays: folders, spans, lengths of clips and texts.
TINY = """\
streams: [hand_r]
extract:
  set: {{{fps} crop_px: 64}}
  videos_per_job: 100
pretrain:
  set:
    epochs: 1
    dataset.batch_size: 16
    dataset.epoch_steps: 2
    model.depth: 1
    augmentation.num_local: 2
    monitor.log_every_steps: 2
    monitor.probe_every_steps: 2
integrate:
  set: {{train.epochs: 1, data.frame_stride: 1}}
"""


@pytest.mark.parametrize(
    ("layout", "fixture", "fps", "num_frames"),
    [("phoenix14t", "phoenix", "", 208), ("how2sign", "how2sign", "fps: 8,", 0), ("elan", "dgs", "fps: 8,", 0)],
)
def test_a_tiny_model_is_trained_on_an_imported_corpus(
    layout: str,
    fixture: str,
    fps: str,
    num_frames: int,
    source: Source,
    do_import: Importer,
    project: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("ai_edge_litert")
    corpus = do_import(layout, source(fixture))
    (tmp_path / "tiny.yaml").write_text(TINY.format(fps=fps), encoding="utf-8")
    model = Path("work_dirs/mine/multistream_v9/best.pt")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", str(model), "-s", str(project / "Snakefile")]
    command += ["--configfile", "data/mine/config.yaml", "tiny.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((corpus.root / "contract/report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "pass"
    assert [finding for finding in report["findings"] if finding["rule"].startswith(("clip.", "meta."))] == []
    saved = json.loads((tmp_path / model).with_name("config.json").read_text(encoding="utf-8"))
    assert saved["decoder"]["max_tokens"] == 40
    history = [json.loads(line) for line in (tmp_path / model).with_name("metrics.jsonl").read_text().splitlines()]
    assert any("val/bleu_4" in record for record in history), history[-1]
    tracks = sorted(path.stem for path in (corpus.root / "processed/tracks").glob("*.npz"))
    assert set(corpus.column("video")) <= set(tracks)
    if num_frames:
        assert report["summary"]["num_frames"] == num_frames
