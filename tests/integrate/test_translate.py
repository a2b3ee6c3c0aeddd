"""Translation of new videos: which ones, extracted and encoded like the training corpus, and nothing of them is left.

tests/workflow/test_chain.py translates a real video.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.extract.annotations import NOT_ANNOTATED, VideoAnnotations
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.translate.parts import remove_extraction
from signstreams.translate.plan import list_videos
from signstreams.translate.run import translate
from signstreams.translate.settings import TranslateConfig

Build = Callable[..., IntegrateConfig]
GREEDY = {"num_beams": 1}


class Extraction:
    """Stands in for extraction: copies the files that the corpus has of the same video, and records the calls."""

    def __init__(self, layout: CorpusLayout) -> None:
        self.layout = layout
        self.configs: list[ExtractConfig] = []
        self.annotations: list[VideoAnnotations] = []

    def __call__(
        self,
        config: ExtractConfig,
        *,
        detector: None = None,
        annotations: dict[str, VideoAnnotations],
        on_frame: Callable[[int | None], None],
    ) -> None:
        self.configs.append(config)
        self.annotations += annotations.values()
        (video_id,) = annotations
        for file in self.layout.processed.rglob(f"{video_id}.*"):
            target = config.root / file.relative_to(self.layout.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


@pytest.fixture
def extraction(processed_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Extraction:
    stand_in = Extraction(CorpusLayout(processed_corpus))
    monkeypatch.setattr("signstreams.translate.parts.extract_videos", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def trained(tiny_config: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained model of keypoints alone."""
    keys = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...}
    config = tiny_config(output_dir=tmp_path_factory.mktemp("trained") / "run", model=keys, train={"epochs": 1})
    run(config)
    return config.output_dir


def altered(run_dir: Path, tmp_path: Path, **changes: object) -> Path:
    """The model with other entries about its training; ``...`` removes an entry."""
    folder = tmp_path / "altered"
    shutil.copytree(run_dir, folder)
    content = {**checkpoint.load(folder / "best.pt"), **changes}
    torch.save({key: value for key, value in content.items() if value is not ...}, folder / "best.pt")
    return folder


def frames_folder(folder: Path, name: str) -> Path:
    """A video that is a folder of images."""
    (folder / name).mkdir(parents=True)
    for number in range(3):
        data = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
        (folder / name / f"{number:03}.png").write_bytes(data)
    return folder / name


def given(run_dir: Path, *videos: Path, **changes: object) -> TranslateConfig:
    tree = {"checkpoint": run_dir / "best.pt", "videos": list(videos), "decoding": GREEDY}
    return TranslateConfig.model_validate(tree | changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_video_gets_the_text_that_evaluation_gives(
    precision: str, tiny_config: Build, extraction: Extraction, tmp_path: Path
) -> None:
    settings: dict = {"train": {"epochs": 12, "eval_every_epochs": 12}, "optim": {"lr": 3e-3, "precision": precision}}
    settings["scoring"] = {"gloss_beams": 4 if precision == "fp32" else 1}
    config = tiny_config(output_dir=tmp_path / "run", **settings)
    run(config)
    splits = ["val", "test"]
    score(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt", splits=splits, decoding=GREEDY, batch_size=1))
    with (config.output_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    videos = [frames_folder(tmp_path / "new", row["video_id"]) for row in rows]
    found = list(translate(given(config.output_dir, *videos)))
    assert [translation.text for translation in found] == [row["hypothesis"] for row in rows]
    assert [" ".join(t.glosses or []) for t in found] == [row["gloss_hypothesis"] for row in rows]
    assert all(" clips cannot teach translation" in note for t in found for note in t.notes[-1:]) and found[0].notes


@pytest.mark.parametrize(
    ("fps", "known", "expected"),
    [
        (25.0, [25.0, 25.0], None),
        (24.0, [25.0, 25.0], None),
        (50.0, [25.0, 25.0], 25.0),
        (12.0, [25.0, 60.0], 25.0),
        (50.0, [25.0, 60.0], None),
        (100.0, [25.0, 60.0], 60.0),
    ],
)
def test_a_video_keeps_its_frame_rate_where_the_corpus_has_such_rates(
    fps: float, known: list[float], expected: float | None, trained: Path, extraction: Extraction, tmp_path: Path
) -> None:
    model = altered(trained, tmp_path, extraction={"fps": None, "frames_fps": fps}, fps_range=known)
    list(translate(given(model, frames_folder(tmp_path, "val ñ0"))))
    assert [config.fps for config in extraction.configs] == [expected]


def test_a_training_records_the_frame_rates_of_its_videos(trained: Path) -> None:
    about = checkpoint.load(trained / "best.pt")
    assert about["fps_range"] == [25.0, 25.0] and about["extraction"].get("fps") is None


@pytest.mark.parametrize("known", [..., [60.0, 60.0]])
def test_a_rate_that_the_corpus_was_brought_to_holds(
    known: object, trained: Path, extraction: Extraction, tmp_path: Path
) -> None:
    """Also that of a model of before, which held the rate of its first video."""
    model = altered(trained, tmp_path, extraction={"fps": 12.5}, fps_range=known)
    list(translate(given(model, frames_folder(tmp_path, "val ñ0"))))
    assert [config.fps for config in extraction.configs] == [12.5]


@pytest.mark.parametrize("settings", [{"fps": -3.0}, {"no_such_setting": 1}, {"fps": "fast"}])
def test_settings_of_an_extraction_that_no_version_knows_are_one_line(
    settings: dict[str, object], trained: Path, extraction: Extraction, tmp_path: Path
) -> None:
    model = altered(trained, tmp_path, extraction=settings)
    with pytest.raises(
        UserError, match=rf"best\.pt: the settings of its extraction do not fit .*\({next(iter(settings))}"
    ):
        list(translate(given(model, frames_folder(tmp_path, "val ñ0"))))


def test_the_signers_box_reaches_extraction(trained: Path, extraction: Extraction, tmp_path: Path) -> None:
    video = frames_folder(tmp_path, "val ñ0")
    list(translate(given(trained, video)))
    list(translate(given(trained, video, box=[10, 20, 30.5, 40])))
    assert extraction.annotations == [NOT_ANNOTATED, VideoAnnotations(box=(10, 20, 30.5, 40))]


@pytest.mark.parametrize("box", [[10, 0, 10, 5], [0, 9, 5, 3]])
def test_a_box_without_a_size_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match=r"box \(.*\) has no size, expected x0 y0 x1 y1"):
        TranslateConfig(videos=[Path("a.mp4")], box=box)


def test_points_for_a_model_that_finds_its_own_are_refused(
    trained: Path, extraction: Extraction, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"points has no effect: .*best\.pt was trained on points detected by"):
        list(translate(given(trained, frames_folder(tmp_path, "val ñ0"), points=tmp_path)))
    assert not extraction.configs


def test_a_folder_stands_for_its_videos_and_names_may_come_twice(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "hola.mp4", tmp_path / "a" / "café.mp4", tmp_path / "b" / "hola.mp4"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"video")
    assert list_videos([paths[2], tmp_path / "a"]) == [paths[2], paths[1], paths[0]]


def test_a_place_without_videos_is_named_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"absent\.mp4"):
        list_videos([tmp_path / "absent.mp4"])
    with pytest.raises(UserError, match="no video in this folder"):
        list_videos([tmp_path])


def test_all_files_of_a_video_are_removed_with_any_name(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    name = "Señas [dQw4w9WgXcQ]"  # as yt-dlp calls its downloads
    own = [layout.crops("face", name), layout.pose(name), layout.metadata(name)]
    other = layout.metadata("Señas d")
    for path in [*own, other]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_extraction(layout, name)
    assert [path for path in own if path.exists()] == []
    assert other.exists()
