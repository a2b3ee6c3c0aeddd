"""Rendered corpora: reproducible bytes, annotations that agree with videos and ground truth, and the script."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.commands import main
from signstreams.corpus.corpus import load_corpus
from signstreams.corpus.gloss import read_gloss
from signstreams.corpus.splits import read_index
from signstreams.demo.corpus import render_corpus, write_contact_sheet
from signstreams.demo.language import CTC_LABELS, HANDSHAPES, SIGNS, Sentence
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, PlannedClip, PlannedSign, PlannedVideo, plan
from signstreams.demo.signers import signer_named
from signstreams.demo.video import render_video
from signstreams.formats.landmarks import HAND_NAMES
from signstreams.formats.layout import CorpusLayout


def short_video() -> PlannedVideo:
    signs = (PlannedSign("CASA", 5, 10),)
    return PlannedVideo("short", "ana", (PlannedClip("short_0", Sentence(("CASA",), "Casa."), 1, 13, signs),), 14)


def truth_of(root: Path, video_id: str) -> dict[str, np.ndarray]:
    with np.load(root / "ground_truth" / f"{video_id}.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path: Path) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    for name, seed in seeds.items():
        render_video(CorpusLayout(tmp_path / name), short_video(), seed)
    for file in ("videos/short.mp4", "ground_truth/short.npz"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in seeds)
        assert first == again
        assert first != other


def test_videos_have_the_frames_and_the_size_that_the_plan_says(tiny_corpus: Path) -> None:
    for video in plan("tiny", 0).videos:
        with av.open(str(tiny_corpus / "videos" / f"{video.video_id}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate) == ("h264", FPS)
            frames = [(frame.width, frame.height, frame.time) for frame in container.decode(stream)]
        assert len(frames) == video.num_frames
        assert {frame[:2] for frame in frames} == {(WIDTH_PX, HEIGHT_PX)}
        np.testing.assert_allclose([frame[2] for frame in frames], np.arange(len(frames)) / FPS, atol=1e-6)
        truth = truth_of(tiny_corpus, video.video_id)
        assert len(truth["body"]) == len(truth["hand_l"]) == len(truth["hand_r_handshape"]) == video.num_frames


def test_the_corpus_reader_takes_it_without_a_complaint(tiny_corpus: Path) -> None:
    corpus = load_corpus(tiny_corpus)
    assert [issue for issue in corpus.issues if issue.severity != "info"] == []
    planned = {clip.clip_id: (video, clip) for video in plan("tiny", 0).videos for clip in video.clips}
    assert [clip.clip_id for clip in corpus.clips] == list(planned)
    for clip in corpus.clips:
        video, wanted = planned[clip.clip_id]
        assert (clip.video_id, clip.signer, clip.text) == (video.video_id, video.signer, wanted.sentence.text)
        covered = [f for f in range(video.num_frames) if clip.start_s <= f / FPS < clip.end_s]
        assert covered == list(range(wanted.start, wanted.end))
        assert clip.frame_count == len(covered)
        assert clip.duration_s == pytest.approx(len(covered) / FPS)
    assert read_index(corpus.layout, corpus.clips) == {s: list(ids) for s, ids in plan("tiny", 0).splits.items()}
    glosses = read_gloss(tiny_corpus / "annotations" / "gloss.csv", planned)
    assert {key: gloss.labels for key, gloss in glosses.items()} == {
        key: clip.sentence.glosses for key, (_, clip) in planned.items()
    }


def test_ctc_labels_are_those_of_the_lexicon(tiny_corpus: Path) -> None:
    with (tiny_corpus / "annotations" / "gloss.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter=";"):
            assert [CTC_LABELS[gloss] for gloss in row["gloss"].split()] == [int(n) for n in row["ctc_labels"].split()]


def test_ground_truth_agrees_with_the_plan(tiny_corpus: Path) -> None:
    for video in plan("tiny", 0).videos:
        truth = truth_of(tiny_corpus, video.video_id)
        assert truth["clip_ids"].tolist() == [clip.clip_id for clip in video.clips]
        assert truth["clip_start"].tolist() == [clip.start for clip in video.clips]
        assert tuple(truth["hand_names"]) == HAND_NAMES
        assert tuple(truth["handshape_names"]) == HANDSHAPES
        signing = "hand_l" if signer_named(video.signer, 0).left_handed else "hand_r"
        spans = zip(truth["gloss"], truth["gloss_start"], truth["gloss_end"], truth["gloss_clip"], strict=True)
        for gloss, start, end, clip in spans:
            assert truth["clip_start"][clip] < start < end < truth["clip_end"][clip]
            shapes = truth[f"{signing}_handshape"][start:end]
            assert set(shapes) == {HANDSHAPES.index(SIGNS[str(gloss)].handshape)}
            mouths = {str(truth["mouth_names"][mouth]) for mouth in truth["face_mouth"][start:end] if mouth >= 0}
            assert mouths == {SIGNS[str(gloss)].mouth}


def test_landmarks_are_where_the_picture_shows_skin(tiny_corpus: Path) -> None:
    video = plan("tiny", 0).videos[0]
    truth = truth_of(tiny_corpus, video.video_id)
    skin = np.array(signer_named(video.signer, 0).skin, float)
    with av.open(str(tiny_corpus / "videos" / f"{video.video_id}.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 10 == 0 and truth["hand_r_visible"][number]:
                image = frame.to_ndarray(format="rgb24").astype(float)
                columns, rows = truth["hand_r"][number].astype(int).T
                found = image[rows, columns]
                # Shaded skin keeps its hue: red leads blue by about as much, relative to its brightness.
                hue = (found[:, 0] - found[:, 2]) / found.sum(axis=1)
                assert np.median(hue) == pytest.approx((skin[0] - skin[2]) / skin.sum(), abs=0.06)


def test_visibility_follows_from_the_points(tiny_corpus: Path) -> None:
    low = truth_of(tiny_corpus, plan("tiny", 0).videos[2].video_id)  # carla's hands rest below the picture
    assert low["signer"] == "carla"
    assert low["hand_r_outside"].mean() > 0.5
    assert low["hand_l_visible"].any()
    for name in ("hand_l", "hand_r"):
        inside = ((low[name] >= 0) & (low[name] < (WIDTH_PX, HEIGHT_PX))).all(axis=-1).mean(axis=-1)
        np.testing.assert_array_equal(low[f"{name}_outside"], inside < 0.85)
        np.testing.assert_array_equal(low[f"{name}_visible"], ~(low[f"{name}_outside"] | low[f"{name}_occluded"]))


def test_one_process_writes_the_same_annotations_as_two(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same videos: the script renders one of them below."""
    rendered = []
    monkeypatch.setattr(
        "signstreams.demo.corpus.render_video", lambda layout, video, seed, progress: rendered.append(video)
    )
    render_corpus(tmp_path / "mí corpus 'x'", size="tiny", seed=0, jobs=1)
    assert tuple(rendered) == plan("tiny", 0).videos
    for file in ("meta.csv", "annotations/gloss.csv", "index/val.csv"):
        assert (tmp_path / "mí corpus 'x'" / file).read_bytes() == (tiny_corpus / file).read_bytes()


def test_annotations_need_no_video_and_bench_has_both_indices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["demo", "--root", str(tmp_path / "ñ"), "--size", "bench", "--annotations-only"])
    assert "300 clips of 120 videos" in capsys.readouterr().out
    files = sorted(str(path.relative_to(tmp_path / "ñ")) for path in (tmp_path / "ñ").rglob("*") if path.is_file())
    splits = ("test", "train", "val")
    indices = [f"{folder}/{split}.csv" for folder in ("index", "index_unseen_signer") for split in splits]
    assert files == ["annotations/gloss.csv", *indices, "meta.csv"]


def test_the_script_renders_one_video_alone(project: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(project / "scripts" / "render_demo_corpus.py"), "--root", str(tmp_path)]
    done = subprocess.run([*command, "--size", "tiny", "--video", "demo_002"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["ground_truth/demo_002.npz", "videos/demo_002.mp4"]
    for file in files:
        assert (tmp_path / file).read_bytes() == (tiny_corpus / file).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "huge"), "size"),
        (("--size", "tiny", "--video", "demo_999"), "video 'demo_999'"),
        (("--seed", "-1"), "seed"),
        (("--video", "demo_000", "--annotations-only"), "exclude each other"),
        (("--video", "demo_000", "--jobs", "2"), "has no effect"),
    ],
)
def test_what_cannot_be_is_refused_with_exit_code_2(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--root", str(tmp_path), *words])
    stderr = capsys.readouterr().err
    assert message in stderr and "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_is_a_small_picture(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", 0)
    data = (tmp_path / "sheet.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert 50_000 < len(data) < 400_000
