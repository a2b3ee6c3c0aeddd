"""Two rendered minutes of sentences, from the file to subtitles: found where they are, written, and read back.

Points are the renderer's own with the noise of a detector, so that no detector runs; docs/subtitles.md has the figures
with the tracker.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.commands import main
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, plan_continuous
from signstreams.demo.signers import SIGNERS
from signstreams.demo.video import render_video
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.formats.elan import read_elan
from signstreams.formats.landmarks import HAND_L, HAND_R, NUM_KEYPOINTS, POSE_NAMES
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.subtitles import parse_subtitles
from signstreams.integrate.run import run
from signstreams.integrate.settings import IntegrateConfig
from signstreams.progress import Progress
from signstreams.segment.given import read_segments
from signstreams.segment.scores import SegmentScores, Span
from signstreams.translate.run import Translation, translate
from signstreams.translate.settings import TranslateConfig

from .language_models import SAVE

Build = Callable[..., IntegrateConfig]
NAME = "dos minutos"
LENGTH_S = 120.0


def write_points(truth: Path, target: Path) -> None:
    """The true points with normal noise of 1.5 px, as another tool would hand them over."""
    rng = np.random.default_rng(0)
    with np.load(truth, allow_pickle=False) as file:
        body, names, hands = file["body"], file["body_names"].tolist(), [file["hand_l"], file["hand_r"]]
    points = np.full((len(body), NUM_KEYPOINTS, 3), (-1.0, -1.0, 0.0), np.float32)
    for row, name in enumerate(names):
        if name in POSE_NAMES:
            points[:, POSE_NAMES.index(name), :2] = body[:, row]
            points[:, POSE_NAMES.index(name), 2] = 1.0
    for place, hand in zip((HAND_L, HAND_R), hands, strict=True):
        points[:, place, :2], points[:, place, 2] = hand, 1.0
    seen = points[..., 2] > 0
    noisy = points[..., :2] + rng.normal(0, 1.5, points[..., :2].shape)
    points[..., :2] = np.where(seen[..., None], noisy / (WIDTH_PX, HEIGHT_PX), -1.0)
    target.parent.mkdir(parents=True)
    np.savez(target, keypoints=points)


@pytest.fixture(scope="module")
def long_video(build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Folder with the video, its points, and the true times of its sentences (truth.json)."""
    return build_once("two_minutes", lambda folder: rendered(folder, LENGTH_S))


def rendered(folder: Path, length_s: float) -> None:
    video = plan_continuous(NAME, SIGNERS[0].name, length_s, (0.3, 1.5), seed=1)
    layout = CorpusLayout(folder)
    with Progress(video.num_frames, "frames", "render") as progress:
        render_video(layout, video, 1, progress)
    write_points(layout.ground_truth(NAME), folder / "points" / f"{NAME}.npz")
    spans = [(clip.start / FPS, clip.end / FPS) for clip in video.clips]
    (folder / "truth.json").write_text(json.dumps(spans))


@pytest.fixture(scope="module")
def model(tiny_config: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of keypoints alone, which reads at most 4 s at once, of a corpus of points of another tool."""
    folder = tmp_path_factory.mktemp("long")
    keys = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...}
    config = tiny_config(output_dir=folder / "run", model=keys, data={"max_frames": 51}, train={"epochs": 1})
    run(config)
    return as_of_points(folder / "run" / "best.pt")


def as_of_points(model: Path) -> Path:
    """A model as of a corpus whose points are another tool's."""
    content = checkpoint.load(model)
    content["extraction"] = {"detector": "precomputed", "crop_px": 32, "frames_fps": 25.0, "fps": None}
    torch.save(content, model)
    return model


def translated(model: Path, folder: Path, **changes: object) -> Translation:
    tree = {"checkpoint": model, "videos": [folder / "videos" / f"{NAME}.mp4"], "points": folder / "points"}
    (found,) = translate(TranslateConfig.model_validate(tree | {"decoding": {"num_beams": 1}} | changes))
    return found


def true_spans(folder: Path) -> list[Span]:
    return [(start_s, end_s) for start_s, end_s in json.loads((folder / "truth.json").read_text())]


def test_two_minutes_become_subtitles_that_match_the_truth_and_read_back(
    model: Path,
    long_video: Path,
    looks_well: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr("signstreams.translate.run.PART_S", 50.0)  # so that sentences lie across the ends of parts
    (tmp_path / "scratch").mkdir()
    names = ["out.srt", "out.vtt", "out.eaf", "out.json", "out.csv", "out.html"]
    found = translated(model, long_video, output=[tmp_path / "out" / name for name in names])
    spans = [(one.start_s, one.end_s) for one in found.sentences]
    true = true_spans(long_video)
    scores = SegmentScores().adding(spans, true).as_dict()
    assert len(true) > 25
    assert scores["boundary_f1_0.2s"] >= 0.95, scores
    assert scores["sentence_f1_iou_0.5"] >= 0.95, scores
    assert list((tmp_path / "scratch").iterdir()) == []  # nothing is left behind
    said = capsys.readouterr().err
    assert "translate dos minutos.mp4" in said and "extract:" not in said  # one bar for all

    for suffix in (".srt", ".vtt"):
        cues, faults = parse_subtitles((tmp_path / "out" / f"out{suffix}").read_text(encoding="utf-8"), suffix)
        assert faults == []
        assert [cue.text for cue in cues] == [" ".join(one.text.split()) for one in found.sentences if one.text.strip()]
    own = read_elan(tmp_path / "out" / "out.eaf")
    assert own.faults == [] and own.tiers["gloss"].parent == "translation"
    assert (own.video(tmp_path / "out") or tmp_path).resolve() == (long_video / "videos" / f"{NAME}.mp4").resolve()
    glosses = [cue for one in found.sentences for cue in one.glosses or ()]
    assert [cue.text for cue in own.tiers["gloss"].annotations] == [cue.text for cue in glosses] != []
    for name in ("out.eaf", "out.csv"):
        given = read_segments(tmp_path / "out" / name, NAME, tier="translation" if name == "out.eaf" else None)
        read = [(cue.start_s, cue.end_s) for cue in given.segments]
        assert np.allclose(read, spans, atol=5.1e-4) and given.faults == []
    content = json.loads((tmp_path / "out" / "out.json").read_text(encoding="utf-8"))
    assert [one["text"] for one in content["sentences"]] == [one.text for one in found.sentences]
    with (tmp_path / "out" / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["gloss"] for row in csv.DictReader(file)] == [
            " ".join(cue.text for cue in one.glosses or ()) for one in found.sentences
        ]
    looks_well(tmp_path / "out" / "out.html", [long_video / "videos" / f"{NAME}.mp4"])


def test_an_independent_reader_opens_the_elan_file_and_its_times_are_translated_again(
    model: Path, long_video: Path, tmp_path: Path
) -> None:
    pympi = pytest.importorskip("pympi")
    first = translated(model, long_video, output=[tmp_path / "a.eaf"], start_s=20.0, end_s=40.0)
    rows = pympi.Elan.Eaf(str(tmp_path / "a.eaf")).get_annotation_data_for_tier("translation")
    spans = [(one.start_s, one.end_s) for one in first.sentences]
    assert len(rows) > 5 and np.allclose([(start / 1000, end / 1000) for start, end, _ in rows], spans, atol=5.1e-4)
    again = translated(model, long_video, segments=str(tmp_path / "a.eaf"), tier="translation")
    assert [one.said for one in again.sentences] == [" ".join(text.split()) for _, _, text in rows]
    assert [one.text for one in again.sentences] == [one.text for one in first.sentences]


def test_only_what_is_asked_for_is_extracted_and_a_long_sentence_is_read_in_windows(
    model: Path, long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted: list[float] = []
    from signstreams.extract.video import VideoReader

    frames = VideoReader.frames

    def counted(self: VideoReader, fps: float | None = None) -> object:
        for frame in frames(self, fps):
            extracted.append(frame.time_s)
            yield frame

    monkeypatch.setattr(VideoReader, "frames", counted)
    table = tmp_path / "segments.csv"
    table.write_text("start,end\n10,12\n60,69.5\n", encoding="utf-8")
    found = translated(model, long_video, segments=str(table))
    assert [(one.start_s, one.end_s) for one in found.sentences] == [(10.0, 12.0), (60.0, 69.5)]
    assert found.sentences[0].num_frames == 25
    assert found.sentences[1].num_frames > 9.5 * 12.5  # windows overlap
    assert all(9.0 <= time_s < 13.0 or 59.0 <= time_s < 70.5 for time_s in extracted)
    assert len(extracted) == round((4.0 + 11.5) * FPS)


@pytest.mark.parametrize("kind", SAVE)
def test_a_whole_language_model_writes_subtitles_by_the_command(
    kind: str,
    build_once: Callable[[str, Callable[[Path], None]], Path],
    tiny_config: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A sentence of ordinary length, and one that is read in windows; the folder of the model is not needed again."""
    named = SAVE[kind](tmp_path / kind)
    language = {"target_language": "es_XX"} if kind == "mbart" else {}
    # sizes that the named model has of its own, at their defaults
    sizes: dict[str, object] = {"num_layers": 3, "ff_dim": 512, "vocab_size": 2000}
    keys = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...}
    config = tiny_config(
        output_dir=tmp_path / "run",
        decoder={"model": str(named), **language, **sizes, "max_tokens": 24},
        model={**keys, "num_layers": 3, "ff_dim": 1024},
        data={"max_frames": 51},
        train={"epochs": 1},
    )
    assert config.decoder.is_whole
    run(config)
    path = as_of_points(config.output_dir / "best.pt")
    shutil.rmtree(named)
    table = tmp_path / "segments.csv"
    table.write_text("start,end\n0,2\n2.5,8\n", encoding="utf-8")
    folder = build_once("ten_seconds", lambda folder: rendered(folder, 10.0))
    video = str(folder / "videos" / f"{NAME}.mp4")
    words = ["--checkpoint", str(path), "--points", str(folder / "points"), "--segments", str(table)]
    outputs = [str(tmp_path / "out.srt"), str(tmp_path / "out.json")]
    capsys.readouterr()
    main(["translate", video, *words, "--num-beams", "2", "--output", *outputs])
    assert f"written: {outputs[0]}, {outputs[1]}" in capsys.readouterr().err.splitlines()
    content = json.loads(Path(outputs[1]).read_text(encoding="utf-8"))["sentences"]
    assert [(one["start_s"], one["end_s"]) for one in content] == [(0.0, 2.0), (2.5, 8.0)]
    cues, faults = parse_subtitles(Path(outputs[0]).read_text(encoding="utf-8"), ".srt")
    texts = [" ".join(one["text"].split()) for one in content]
    # Random weights may say nothing, and a sentence without words is no subtitle.
    assert faults == [] and [cue.text for cue in cues] == [text for text in texts if text]


def test_where_parts_choose_among_several_people_it_is_said_once(
    model: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.translate.run.WHOLE_BELOW_S", 0.0)  # as of a long video
    monkeypatch.setattr("signstreams.translate.run.PART_S", 0.5)
    shutil.copytree(model.parent, tmp_path / "run")
    content = checkpoint.load(model)
    content["extraction"] = {"crop_px": 32, "frames_fps": 25.0, "fps": None}
    torch.save(content, tmp_path / "run" / "best.pt")
    video = shared_data / "clips" / "lsat_two_people.gif"
    (tmp_path / "segments.csv").write_text("start,end\n0.1,0.5\n1.6,2.2\n", encoding="utf-8")
    tree = {"checkpoint": tmp_path / "run" / "best.pt", "videos": [video], "segments": str(tmp_path / "segments.csv")}
    (found,) = translate(TranslateConfig.model_validate(tree | {"decoding": {"num_beams": 1}}))
    (note,) = (note for note in found.notes if "people" in note)
    assert "2 people are in it, and each part of it has its own signer" in note and "--box" in note
    tree["box"] = [160.0, 0.0, 320.0, 180.0]
    (found,) = translate(TranslateConfig.model_validate(tree | {"decoding": {"num_beams": 1}}))
    assert not [note for note in found.notes if "people" in note]


def test_what_is_impossible_is_said_before_anything_is_extracted(
    model: Path, long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.translate.parts.extract_videos", lambda *_, **__: pytest.fail("extracted"))
    table = tmp_path / "segments.csv"
    table.write_text("start,end\n10,12\n600,603\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of 2 sentences start after .* end \(11.\... s\), the first at 600 s"):
        translated(model, long_video, segments=str(table))
    with pytest.raises(UserError, match=r"lasts 11.\... s, but --start is 130"):
        translated(model, long_video, start_s=130.0)
    with pytest.raises(UserError, match="no such file, expected a boundary model"):
        translated(model, long_video, boundary_model=tmp_path / "boundary.pt")
    with pytest.raises(UserError, match="is the video itself"):
        translated(model, long_video, output=[tmp_path / "a.srt"], videos=[_named_as_output(tmp_path)])
    video = long_video / "videos" / f"{NAME}.mp4"
    shutil.copy(video, tmp_path / "other.mp4")
    with pytest.raises(UserError, match=r"both .*dos minutos\.mp4 and .*other\.mp4 would be written .* put \{video\}"):
        translated(model, long_video, output=[tmp_path / "out.srt"], videos=[video, tmp_path / "other.mp4"])


def _named_as_output(folder: Path) -> Path:
    """A folder of frames with the name of a subtitle file."""
    import cv2

    (folder / "a.srt").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "a.srt" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    return folder / "a.srt"
