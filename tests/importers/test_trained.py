"""From a published layout to a checked corpus, and to a trained model, with nothing but the import and one command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Corpus, Importer

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


def snakemake(project: Path, folder: Path, target: str, fps: str = "") -> None:
    (folder / "tiny.yaml").write_text(TINY.format(fps=fps), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", target, "-s", str(project / "Snakefile")]
    command += ["--configfile", "data/mine/config.yaml", "tiny.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def report_of(corpus: Corpus) -> dict[str, Any]:
    """The contract's report, which passed, with nothing to say of clips and texts; every video was extracted."""
    report: dict[str, Any] = json.loads((corpus.root / "contract/report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "pass"
    assert [finding for finding in report["findings"] if finding["rule"].startswith(("clip.", "meta."))] == []
    tracks = {path.stem for path in (corpus.root / "processed/tracks").glob("*.npz")}
    assert set(corpus.column("video")) <= tracks
    return report


def test_a_tiny_model_is_trained_on_an_imported_corpus(
    source: Source, do_import: Importer, project: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    corpus = do_import("phoenix14t", source("phoenix"))
    model = Path("work_dirs/mine/multistream_v9/best.pt")
    snakemake(project, tmp_path, str(model))
    assert report_of(corpus)["summary"]["num_frames"] == 208
    saved = json.loads((tmp_path / model).with_name("config.json").read_text(encoding="utf-8"))
    assert saved["decoder"]["max_tokens"] == 40
    history = [json.loads(line) for line in (tmp_path / model).with_name("metrics.jsonl").read_text().splitlines()]
    assert any("val/bleu_4" in record for record in history), history[-1]


@pytest.mark.parametrize(("layout", "fixture"), [("how2sign", "how2sign"), ("elan", "dgs")])
def test_the_contract_accepts_an_imported_corpus_and_the_training_that_is_planned(
    layout: str, fixture: str, source: Source, do_import: Importer, project: Path, tmp_path: Path
) -> None:
    """What comes after reads nothing of a layout any more; what the training would refuse, the contract refuses."""
    pytest.importorskip("ai_edge_litert")
    corpus = do_import(layout, source(fixture))
    snakemake(project, tmp_path, "contract", "fps: 8,")
    report_of(corpus)
    planned = json.loads((corpus.root / "contract/training.json").read_text(encoding="utf-8"))
    assert planned["settings"]["decoder.max_tokens"] == 40 and set(planned["num_frames"]) == set(
        corpus.column("clip_id")
    )
