"""`import signstreams as ss`: it costs nothing, its names and signatures stay, and each function does what it says."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import signstreams as ss

SIGNATURES = {
    "extract_video": "(video: 'str | Path', root: 'str | Path', **settings: 'Any') -> 'ExtractedVideo'",
    "open_corpus": "(root: 'str | Path', *, allow_absent_videos: 'bool' = False) -> 'ExtractedCorpus'",
    "read_crops": "(corpus: 'ExtractedCorpus | str | Path', stream: 'str', video_id: 'str', *,"
    " frames: 'Iterable[int] | None' = None) -> 'Crops'",
    "load_backbone": "(spec: 'str | Path', *, download: 'bool' = False) -> 'Backbone'",
    "embed": "(backbone: 'Backbone', images: 'Pixels | Sequence[Pixels]', *, stream: 'str | None',"
    " layers: 'Layers' = 'last', batch_size: 'int' = 64, device: 'str | torch.device' = 'auto') -> 'Floats'",
    "evaluate_backbone": "(data: 'str | Path', backbones: 'str | Path | Sequence[str | Path]', *,"
    " labels: 'str | None' = None, output: 'str | Path | None' = None, **settings: 'Any') -> 'list[dict[str, Any]]'",
    "load_translator": "(checkpoint: 'str | Path', *, boundary_model: 'str | Path | None' = None,"
    " device: 'str | torch.device' = 'auto', **settings: 'Any') -> 'Translator'",
    "translate_video": "(translator: 'Translator', video: 'str | Path', *, start_s: 'float | None' = None,"
    " end_s: 'float | None' = None, segments: 'str | Path | None' = None, tier: 'str | None' = None,"
    " pause_s: 'float | None' = None, box: 'Sequence[float] | None' = None, points: 'str | Path | None' = None,"
    " output: 'Sequence[str | Path]' = ()) -> 'Translation'",
}
"""What programs of others are written against: a change here breaks them, and stands in CHANGELOG.md."""
FIELDS = {
    "Crops": ["frames", "images"],
    "ExtractedCorpus": ["root", "videos", "quarantined", "clips", "glosses"],
    "ExtractedVideo": [
        *("root", "video_id", "crops", "frames_of", "keypoints", "metadata", "pose", "preview", "times_s", "tracks")
    ],
    "Sentence": ["start_s", "end_s", "text", "glosses", "num_frames", "said"],
    "Translation": ["video", "sentences", "duration_s", "notes", "as_dict", "glosses", "text"],
}
"""The same of results: fields in their order, then methods and properties."""


# -- Names


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_takes_no_time_and_loads_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import signstreams as ss\n"
        "took = time.process_time() - start; names = dir(ss); loaded = set(sys.modules) - before\n"
        "import json; print(json.dumps([took, names, sorted({name.partition('.')[0] for name in loaded})]))"
    )
    runs = [json.loads(fresh(code)) for _ in range(3)]
    assert min(took for took, _, _ in runs) < 0.1
    _, names, loaded = runs[0]
    assert set(loaded) - sys.stdlib_module_names == {"signstreams"}
    assert set(ss.__all__) <= set(names)


def test_a_name_is_imported_from_its_module_at_its_first_use() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules)"
    assert fresh(f"import sys, signstreams as ss; ss.UserError; ss.embed; print({heavy})") == "set()"
    with pytest.raises(AttributeError, match="'signstreams' has no attribute 'extract_vido'"):
        ss.extract_vido  # noqa: B018


def test_the_names_and_their_signatures_stay_what_they_are() -> None:
    assert sorted(ss.__all__) == sorted([*SIGNATURES, *FIELDS, "Backbone", "Clip", "Translator", "UserError"])
    assert {name: str(inspect.signature(getattr(ss, name))) for name in SIGNATURES} == SIGNATURES


def test_errors_name_arguments_and_not_the_flags_of_a_command(tmp_path: Path) -> None:
    from signstreams.api import _with_arguments
    from signstreams.integrate.settings import TrainedModelSection
    from signstreams.translate.settings import TranslateConfig

    with pytest.raises(ss.UserError, match=r"none: no such file, .* or name it with 'checkpoint'$") as caught:
        ss.load_translator(tmp_path / "none")
    assert str(caught.value) == "\n".join(caught.value.problems) and "--" not in str(caught.value)
    (tmp_path / "a.mp4").touch()
    translator: Any = SimpleNamespace(settings=TrainedModelSection(), boundary_model=None, translate=iter)
    with pytest.raises(ss.UserError, match="tier has no effect: 'segments' names no ELAN file"):
        ss.translate_video(translator, tmp_path / "a.mp4", tier="x")
    said = "lasts 3 s, but --start is 5; --videos, --num-beams, (--download); --optim-precision fp32; a--start"
    assert _with_arguments(said, TranslateConfig, {"videos": "video"}) == (
        "lasts 3 s, but 'start_s' is 5; 'video', 'decoding.num_beams', ('download'); --optim-precision fp32; a--start"
    )


def test_results_have_the_fields_that_they_had() -> None:
    for name, known in FIELDS.items():
        kind = getattr(ss, name)
        fields = list(kind._fields) if name == "Crops" else [field.name for field in dataclasses.fields(kind)]
        others = [] if name == "Crops" else [key for key in dir(kind) if not key.startswith("_") and key not in fields]
        assert fields + others == known


def test_type_checkers_see_what_python_finds(project: Path) -> None:
    tree = ast.parse((project / "src/signstreams/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {node.names[0].name: node.module for node in block.body if isinstance(node, ast.ImportFrom)}
    assert seen == {name: f"signstreams.{home}" for name, home in ss._HOMES.items()}


def test_no_name_is_that_of_a_module(project: Path) -> None:
    """Importing `signstreams.translate.run` sets `signstreams.translate`, whatever was there."""
    assert not {path.stem for path in (project / "src/signstreams").iterdir()} & set(ss.__all__)


def test_every_public_name_has_a_docstring() -> None:
    assert all(inspect.getdoc(getattr(ss, name)) for name in ss.__all__)
    assert importlib.import_module("signstreams.api").__doc__


USER = """\
import numpy as np
import signstreams as ss

video = ss.extract_video("a.mp4", "data/a", fps=25)
reveal_type(video.keypoints())
frames, images = ss.read_crops(ss.open_corpus("data/a"), "hand_r", "a")
reveal_type(images)
backbone = ss.load_backbone("backbone.pt")
reveal_type(ss.embed(backbone, images, stream="hand_r"))
for sentence in ss.translate_video(ss.load_translator("best.pt"), "a.mp4", end_s=3).sentences:
    reveal_type(sentence.start_s)
ss.embed(backbone, images)
ss.embed(backbone, images, stream="hand_r", layers="first")
ss.translate_video("best.pt", "a.mp4")
ss.translate("a.mp4")
"""
SEEN = [
    (5, 'note: Revealed type is "numpy.ndarray'),
    (7, 'note: Revealed type is "numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.unsignedinteger[numpy._typing'),
    (9, 'note: Revealed type is "numpy.ndarray'),
    (11, 'note: Revealed type is "float"'),
    (12, 'error: Missing named argument "stream"'),
    (13, 'error: Argument "layers" to "embed" has incompatible type'),
    (14, 'error: Argument 1 to "translate_video" has incompatible type "str"; expected "Translator"'),
    (15, 'error: Module has no attribute "translate"'),
]


def test_mypy_sees_the_signatures_in_a_users_script(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script, config = tmp_path / "user.py", tmp_path / "mypy.ini"
    script.write_text(USER, encoding="utf-8")
    others = "cv2.*,matplotlib.*,scipy.*,timm.*,torch.*,torchvision.*,transformers.*,tokenizers.*,sacrebleu.*"
    ours = "[mypy-signstreams.*]\nignore_errors = True\n"  # another test's business, and other settings
    config.write_text(f"[mypy]\n[mypy-{others}]\nfollow_imports = skip\n{ours}", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    environment = {**os.environ, "MYPYPATH": str(project / "src")}
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    lines = [line.removeprefix("user.py:") for line in done.stdout.splitlines() if line.startswith("user.py:")]
    told = [line for line in lines if "note: " not in line or "Revealed" in line]
    assert len(told) == len(SEEN), done.stdout + done.stderr
    for line, (number, text) in zip(told, SEEN, strict=True):
        assert line.startswith(f"{number}: {text}"), line


# -- What extraction wrote


@pytest.fixture
def own_run(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, to work in."""
    shutil.copytree(demo_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def test_an_extracted_video_gives_its_arrays_and_is_not_extracted_again(own_run: Path) -> None:
    source = own_run / "data/demo/videos/demo_000.mp4"
    video = ss.extract_video(source, "data/new", fps=5, crop_px=48, boxes={"face_scale": 1.5})
    count = len(video.times_s())
    assert video == ss.ExtractedVideo(Path("data/new"), "demo_000")
    assert (video.keypoints().shape, video.pose().shape) == ((count, 543, 3), (count, 33, 3))
    assert video.tracks()["hand_l"].box.shape == (count, 4)
    frames, images = video.crops("face", frames=range(3))
    assert (frames.tolist(), images.shape, images.dtype) == ([0, 1, 2], (3, 48, 48, 3), np.uint8)
    settings = video.metadata().settings
    assert (settings["fps"], settings["boxes"]["face_scale"]) == (5, 1.5)
    assert video.preview.is_file()
    stamp = video._layout.metadata("demo_000").stat().st_mtime_ns
    again = ss.extract_video(source, "data/new", fps=5, crop_px=48, boxes={"face_scale": 1.5})
    assert again == video and video._layout.metadata("demo_000").stat().st_mtime_ns == stamp


def test_a_video_that_cannot_be_read_or_a_wrong_setting_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ss.UserError, match=r"broken.mp4: .*; convert it with ffmpeg"):
        ss.extract_video(tmp_path / "broken.mp4", tmp_path)
    with pytest.raises(ss.UserError, match=r"unknown key 'fsp' \(extract_video\); did you mean 'fps'\?"):
        ss.extract_video(tmp_path / "broken.mp4", tmp_path, fsp=25)
    with pytest.raises(ss.UserError, match="'num_jobs' has no effect on a single video"):
        ss.extract_video(tmp_path / "broken.mp4", tmp_path, num_jobs=2)
    corpus = ss.open_corpus(tmp_path)
    assert list(corpus.quarantined) == ["broken"] and not corpus.videos


def test_a_corpus_has_its_videos_clips_splits_and_glosses(demo_run: Path) -> None:
    corpus = ss.open_corpus(demo_run / "data/demo")
    assert list(corpus.videos) == [f"demo_00{number}" for number in range(4)] and not corpus.quarantined
    splits = {}
    for split in ("train", "val", "test"):
        for clip_id in (demo_run / f"data/demo/index/{split}.csv").read_text(encoding="utf-8").split():
            splits[clip_id] = split
    assert {clip.clip_id: clip.split for clip in corpus.clips} == splits
    assert all(clip.text and clip.video_id in corpus.videos for clip in corpus.clips)
    assert corpus.glosses.keys() == splits.keys() and all(corpus.glosses.values())


def test_a_split_of_the_index_counts_more_than_that_of_the_table(own_run: Path) -> None:
    index = own_run / "data/demo/index"
    before = {clip.clip_id: clip.split for clip in ss.open_corpus("data/demo").clips}
    swap = {"train": "train", "val": "test", "test": "val"}
    texts = {name: (index / f"{name}.csv").read_text(encoding="utf-8") for name in swap}
    for name, other in swap.items():
        (index / f"{name}.csv").write_text(texts[other], encoding="utf-8")
    after = {clip.clip_id: clip.split for clip in ss.open_corpus("data/demo").clips}
    assert after == {clip_id: swap[str(split)] for clip_id, split in before.items()}


def test_crops_are_rgb_as_they_were_cut_and_absent_ones_are_left_out(demo_run: Path) -> None:
    import cv2

    from signstreams.formats.crops import CropReader, list_crops
    from signstreams.formats.layout import CorpusLayout

    layout = CorpusLayout(demo_run / "data/demo")
    by_state = ss.open_corpus(layout.root).videos["demo_002"].tracks()["hand_r"].state
    assert 0 < (by_state == 0).sum() < len(by_state)  # the hand is missing in some frames
    frames, images = ss.read_crops(layout.root, "hand_r", "demo_002")
    assert frames.tolist() == np.flatnonzero(by_state).tolist() and len(images) == len(frames)
    crop = next(crop for crop in list_crops(layout.crops("hand_r", "demo_002")) if crop.frame == frames[2])
    blue_first = cv2.imdecode(np.frombuffer(CropReader().read(crop), np.uint8), cv2.IMREAD_COLOR)
    assert (images[2] == blue_first[..., ::-1]).all()
    asked, some = ss.read_crops(layout.root, "hand_r", "demo_002", frames=range(len(by_state)))
    assert (asked == frames).all() and (some == images).all()


def test_what_is_not_there_is_named(demo_run: Path) -> None:
    root = demo_run / "data/demo"
    with pytest.raises(ss.UserError, match="stream 'hand': unknown, expected one of face, hand_l, hand_r"):
        ss.read_crops(root, "hand", "demo_000")
    with pytest.raises(ss.UserError, match=r"nobody.json: no such file, .*; extract the video first"):
        ss.read_crops(root, "hand_r", "nobody")
    with pytest.raises(ss.UserError, match="but frame 4000 is asked for"):
        ss.read_crops(root, "hand_r", "demo_000", frames=[0, 4000])
    for frames in (np.ones(9, bool), [0.5], "all"):  # a mask would be read as the frames 0 and 1
        with pytest.raises(ss.UserError, match=r"expected whole numbers of frames \(N,\); of a mask"):
            ss.read_crops(root, "hand_r", "demo_000", frames=frames)  # type: ignore[arg-type]
    assert ss.read_crops(root, "hand_r", "demo_000", frames=[]).images.shape[0] == 0
    with pytest.raises(ss.UserError, match="expected the root of a corpus"):
        ss.open_corpus(root / "none")


def test_a_folder_that_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ss.UserError, match=r"holds neither processed/metadata nor videos, expected the root"):
        ss.open_corpus(tmp_path)


def test_a_clip_has_the_frames_of_its_span_or_all_of_its_video(demo_run: Path) -> None:
    corpus = ss.open_corpus(demo_run / "data/demo")
    clip = corpus.clips[1]
    video = corpus.videos[clip.video_id]
    times_s, frames = video.times_s(), video.frames_of(clip)
    assert clip.start_s is not None and clip.end_s is not None
    assert frames.tolist() == [i for i, time_s in enumerate(times_s) if clip.start_s <= time_s < clip.end_s] != []
    whole = dataclasses.replace(clip, start_s=None, end_s=None)
    assert video.frames_of(whole).tolist() == list(range(len(times_s)))
    with pytest.raises(ss.UserError, match=f"is of video {clip.video_id}, not of demo_003"):
        corpus.videos["demo_003"].frames_of(clip)


# -- Backbones


def test_features_are_those_of_the_stage_that_embeds_a_corpus(demo_run: Path) -> None:
    backbone = ss.load_backbone(demo_run / "work_dirs/dino_hand_r")
    frames, images = ss.read_crops(demo_run / "data/demo", "hand_r", "demo_002")
    features = ss.embed(backbone, images, stream="hand_r", batch_size=4, device="cpu")
    assert (features.shape, features.dtype) == ((len(frames), backbone.embed_dim), np.float32)
    (file,) = (demo_run / "work_dirs/features/hand_r").glob("*/demo_002.npy")
    np.testing.assert_allclose(features, np.load(file)[frames], atol=2e-3)  # which has float16


def test_crops_of_any_size_are_taken_and_left_hands_are_mirrored_where_the_backbone_wants_it(demo_run: Path) -> None:
    backbone = ss.load_backbone(f"file::{demo_run / 'work_dirs/dino_hand_l/backbone.pt'}")
    _, images = ss.read_crops(demo_run / "data/demo", "hand_l", "demo_000", frames=range(3))
    whole = ss.embed(backbone, images, stream="hand_l")
    mixed = [images[0], images[1][:40, :40], images[2].repeat(3, axis=0).repeat(3, axis=1)]
    found = ss.embed(backbone, mixed, stream="hand_l")
    np.testing.assert_allclose(found[0], whole[0], atol=1e-5)
    assert not np.allclose(found[1], whole[1], atol=1e-2)
    np.testing.assert_allclose(found[2], whole[2], atol=0.1)  # the same crop, enlarged
    backbone.mirrored_streams = ("hand_l",)
    np.testing.assert_allclose(ss.embed(backbone, images[:, :, ::-1], stream="hand_l"), whole, atol=1e-5)
    np.testing.assert_allclose(ss.embed(backbone, images, stream="hand_r"), whole, atol=1e-5)
    assert ss.embed(backbone, [], stream="face").shape == (0, backbone.embed_dim)
    assert ss.embed(backbone, images, stream="face", layers="last_and_patches").shape == (3, 2 * backbone.embed_dim)


def test_a_backbone_of_both_hands_warns_of_images_of_no_stream(
    demo_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = ss.load_backbone(demo_run / "work_dirs/dino_hand_l")
    backbone.mirrored_streams = ("hand_l",)
    ss.embed(backbone, np.zeros((1, 32, 32, 3), np.uint8), stream=None)
    assert "nothing says which hand these images show" in caplog.text


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 32, 48, 3), "uint8"), ((2, 32, 32, 3), "float32"), ((32, 32, 3), "uint8")]
)
def test_other_images_are_refused(shape: tuple[int, ...], dtype: str, demo_run: Path) -> None:
    backbone = ss.load_backbone(demo_run / "work_dirs/dino_face")
    with pytest.raises(ss.UserError, match=r"embed: image 0 is .*, expected uint8 \(px, px, 3\)"):
        ss.embed(backbone, np.zeros(shape, dtype), stream="face")
    with pytest.raises(ss.UserError, match="embed: batch_size is -1, expected 1 at least"):
        ss.embed(backbone, np.zeros((1, 8, 8, 3), np.uint8), stream="face", batch_size=-1)


def test_a_folder_of_several_backbones_is_no_choice(own_run: Path) -> None:
    with pytest.raises(ss.UserError, match=r"holds 3 backbones .*dino_hand_l.*; name one of them"):
        ss.load_backbone("work_dirs")
    (own_run / "release/backbones").mkdir(parents=True)
    shutil.copytree("work_dirs/dino_face", "release/backbones/face")
    assert ss.load_backbone("release").embed_dim == ss.load_backbone("work_dirs/dino_face").embed_dim
    with pytest.raises(ss.UserError, match=r"data: found no backbone.pt in this folder"):
        ss.load_backbone("data")
    with pytest.raises(ss.UserError, match=r"dino_face: is a folder, expected a file of weights; name the backbone.pt"):
        ss.load_backbone("file::work_dirs/dino_face")


def test_backbones_are_judged_with_or_without_files(own_run: Path) -> None:
    how = {"labels": "handshapes", "streams": ["hand_l"], "probe": False, "device": "cpu"}
    rows = ss.evaluate_backbone("data/demo", "work_dirs/dino_hand_l", **how)
    assert {row["kind"] for row in rows} >= {"backbone", "first weights", "free"}
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows)
    assert not list(own_run.glob("judge.*"))
    assert ss.evaluate_backbone("data/demo", ["work_dirs/dino_hand_l"], output="judged", **how) == rows
    assert len((own_run / "judged/judge.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(rows)
    with pytest.raises(ss.UserError, match=r"unknown key 'label' \(evaluate_backbone\); did you mean 'labels'\?"):
        ss.evaluate_backbone("data/demo", [], label="texts")


# -- Translation


def test_a_model_is_loaded_once_and_translates_as_the_command_does(own_run: Path) -> None:
    from signstreams.translate.run import translate
    from signstreams.translate.settings import TranslateConfig

    videos = [f"data/demo/videos/demo_00{number}.mp4" for number in (0, 2)]
    tree = {"checkpoint": "work_dirs", "videos": videos, "segments": "found", "decoding": {"num_beams": 1}}
    expected = list(translate(TranslateConfig.model_validate({**tree, "device": "cpu"})))
    translator = ss.load_translator("work_dirs", device="cpu", decoding={"num_beams": 1})
    shutil.rmtree("work_dirs/multistream_v9")  # nothing is read from it again
    found = [ss.translate_video(translator, video, segments="found", output=[f"{video}.srt"]) for video in videos]
    assert found == expected and all(one.sentences for one in found)
    assert all(Path(f"{video}.srt").is_file() for video in videos)


def test_what_cannot_be_translated_is_named(demo_run: Path) -> None:
    translator = ss.load_translator(demo_run / "work_dirs/multistream_v9")
    videos = demo_run / "data/demo/videos"
    with pytest.raises(ss.UserError, match=r"none.mp4: no such file or folder"):
        ss.translate_video(translator, "none.mp4")
    with pytest.raises(ss.UserError, match=r"holds several videos, expected one"):
        ss.translate_video(translator, videos)
    with pytest.raises(ss.UserError, match=r"is not after start_s"):
        ss.translate_video(translator, videos / "demo_000.mp4", start_s=2, end_s=1)
    with pytest.raises(ss.UserError, match=r"unknown key 'beams' \(load_translator\)"):
        ss.load_translator(demo_run / "work_dirs", beams=3)
    with pytest.raises(ss.UserError, match=r"none: no such file, expected a trained model"):
        ss.load_translator("none")
