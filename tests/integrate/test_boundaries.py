"""The boundary model: trained on clip times of continuous videos, scored on held-out ones, used beside its model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.trained_model import load_trained_model
from signstreams.integrate.videos import ProcessedVideo
from signstreams.segment.boundary import decode_sentences, load_boundary_model
from signstreams.segment.settings import BoundaryConfig
from signstreams.segment.training import TimedVideo, train_boundaries

Make = Callable[..., Path]
FPS, FRAMES_EACH, REST = 25.0, 12, "PERRO"


def continuous(make_corpus: Make, root: Path) -> Path:
    """A corpus of videos with several clips each: one sign is the rest between sentences, and belongs to none."""
    make_corpus(root, sizes={"train": 8, "val": 2, "test": 2}, signs=(14, 15), frames_each=FRAMES_EACH)
    layout = CorpusLayout(root)
    with layout.gloss.open(encoding="utf-8", newline="") as file:
        signs = {row["video_id"]: row["gloss"].split() for row in csv.DictReader(file, delimiter=";")}
    rows, splits = (
        ["id;video;text;start;end"],
        {split: layout.index(split).read_text().splitlines() for split in SPLITS},
    )
    for split, video_ids in splits.items():
        clip_ids = []
        for video_id in video_ids:
            start = None
            for place, sign in enumerate([*signs[video_id], REST]):
                if sign != REST and start is None:
                    start = place
                elif sign == REST and start is not None:
                    clip_ids.append(f"{video_id} {start}")
                    times = f"{start * FRAMES_EACH / FPS};{place * FRAMES_EACH / FPS}"
                    rows.append(f"{clip_ids[-1]};{video_id};hola;{times}")
                    start = None
        layout.index(split).write_text("\n".join(clip_ids) + "\n", encoding="utf-8")
    layout.meta.write_text("\n".join(rows) + "\n", encoding="utf-8")
    layout.gloss.unlink()
    return root


@pytest.fixture(scope="module")
def corpus(make_corpus: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return continuous(make_corpus, tmp_path_factory.mktemp("continuous") / "corpus")


def given(trained: IntegrateConfig, corpus: Path, folder: Path, **changes: object) -> BoundaryConfig:
    tree = {"checkpoint": trained.output_dir / "best.pt", "root": corpus, "features_dir": folder / "features"}
    return BoundaryConfig.model_validate(tree | {"output_dir": folder / "out", "steps": 60} | changes)


def test_boundaries_are_learned_from_clip_times_and_found_in_held_out_videos(
    trained: IntegrateConfig, corpus: Path, tmp_path: Path
) -> None:
    report = train_boundaries(given(trained, corpus, tmp_path))
    assert report["num_videos"]["train"] > 4 and min(report["num_videos"].values()) > 0
    assert report["scores"]["test"]["boundary_f1_0.2s"] >= 0.9, report
    assert set(report["by_rests_of_the_hands"]) == {"val", "test"}
    assert json.loads((tmp_path / "out" / "boundaries.json").read_text()) == report
    again = train_boundaries(given(trained, corpus, tmp_path, output_dir=tmp_path / "again"))
    assert again["scores"] == report["scores"]
    assert (tmp_path / "again" / "boundary.pt").read_bytes() == (tmp_path / "out" / "boundary.pt").read_bytes()

    model = load_trained_model(given(trained, corpus, tmp_path))
    assert load_boundary_model(tmp_path / "out" / "boundary.pt", model).frame_stride == 2
    content = checkpoint.load(tmp_path / "out" / "boundary.pt")
    content["backbone_sha256"] |= {"face": "0" * 64}
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"was trained beside another model than .*best\.pt \(backbone_sha256\)"):
        load_boundary_model(tmp_path / "other.pt", model)
    with pytest.raises(UserError, match="is not a boundary model"):
        load_boundary_model(trained.output_dir / "best.pt", model)


def test_a_corpus_without_continuous_annotation_teaches_nothing(
    trained: IntegrateConfig, processed_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no video has 2 clips with times, expected continuous annotation"):
        train_boundaries(given(trained, processed_corpus, tmp_path))


def test_without_held_out_videos_nothing_is_trained(
    trained: IntegrateConfig, make_corpus: Make, tmp_path: Path
) -> None:
    layout = CorpusLayout(continuous(make_corpus, tmp_path / "corpus"))
    rows = layout.meta.read_text(encoding="utf-8").splitlines()
    held_out = {row.split(";")[1]: row for row in rows if row.startswith(("val", "test"))}  # one clip of each video
    kept = [row for row in rows if not row.startswith(("val", "test"))] + list(held_out.values())
    layout.meta.write_text("\n".join(kept) + "\n", encoding="utf-8")
    for split in ("val", "test"):
        own = [row.split(";")[0] for row in held_out.values() if row.startswith(split)]
        layout.index(split).write_text("\n".join(own) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="val and test have no video with continuous annotation"):
        train_boundaries(given(trained, layout.root, tmp_path))
    assert not (tmp_path / "out" / "boundary.pt").exists()


def test_the_middle_of_a_long_gap_is_unknown() -> None:
    times_s = np.arange(0, 60, 0.5)
    one = TimedVideo(ProcessedVideo("a", (1, 1), {}), times_s, [(5.0, 8.0), (10.0, 12.0), (40.0, 42.0)])
    known = times_s[one.known(times_s)]
    assert (known.min(), known.max()) == (4.0, 42.5)
    assert {8.5, 9.5, 12.5, 39.5} <= set(known) and not {13.5, 25.0, 38.5} & set(known)
    labels = one.labels(np.array([4.9, 5.0, 5.1, 5.3, 8.0, 10.1]))
    assert labels.tolist() == [[0, 0], [1, 1], [1, 1], [1, 0], [0, 0], [1, 1]]


def test_a_begin_parts_two_sentences_without_a_rest() -> None:
    times_s = np.arange(100) * 0.08
    probabilities = np.zeros((100, 2))
    probabilities[10:60, 0] = 0.9
    probabilities[[10, 11, 35, 36], 1] = 0.9
    probabilities[80:83, 0] = 0.9  # shorter than any sentence
    found = decode_sentences(probabilities, times_s)
    assert found == [pytest.approx((0.8, 2.8)), pytest.approx((2.8, 4.8))]
    probabilities[58:61, 0] = 0
    probabilities[61:75, 0] = 0.9
    assert len(decode_sentences(probabilities, times_s)) == 3
    assert len(decode_sentences(probabilities, times_s, pause_s=0.3)) == 2
