"""What the workflow says to a config or a folder of videos that is wrong, and what follows from one that is right."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from signstreams.config.load import build
from signstreams.contract.extraction_checks import read_planned
from signstreams.contract.training_checks import read_record
from signstreams.errors import UserError
from signstreams.formats.video_metadata import VideoMetadata, write_metadata
from signstreams.workflow.plan import (
    Plan,
    errors_of_failed_jobs,
    first_weights,
    granted_cores,
    granted_gpus,
    make_plan,
    refuse_other_extraction,
    setting_words,
    stage_settings,
    stage_starts,
    wanted_gpus,
    write_planned_extraction,
    write_planned_training,
)

MINE = "corpus: {root: data/mine, videos: videos}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workflow runs: with the recipes of the checkout, and no GPU."""
    (tmp_path / "config").symlink_to(project / "config")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def plan(text: str, **given: Any) -> Plan:
    return make_plan(yaml.safe_load(text) or {}, **given)


def refused(text: str, **given: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        plan(text, **given)
    return caught.value.problems


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# -- Config


def test_an_unknown_key_is_named_with_its_neighbour_and_the_given_config_stays() -> None:
    tree = {"corpus": {"vidoes": "x"}, "stream": ["face"]}
    with pytest.raises(UserError) as caught:
        make_plan(tree)
    assert caught.value.problems == [
        "unknown key 'corpus.vidoes' (workflow config); did you mean 'corpus.videos'?",
        "unknown key 'stream' (workflow config); did you mean 'streams'?",
    ]
    assert tree == {"corpus": {"vidoes": "x"}, "stream": ["face"]}


def test_a_wrong_type_is_one_line() -> None:
    (line,) = refused("pretrain:\n  threads: many\n")
    assert line.startswith("pretrain.threads = 'many' (workflow config): ")


def test_leave_to_fetch_a_network_is_refused_since_the_workflow_trains_its_own() -> None:
    (line,) = refused("integrate:\n  set:\n    model.download: true\n")
    assert "download has no effect: no backbone is a timm:: model" in line


def test_settings_of_every_stage_are_checked_before_the_first_job() -> None:
    text = "pretrain: {set: {epoch: 3, augmentation.flip_prob: .5}}\ncontract: {set: {decod: all}}\n"
    assert refused(text + "evaluate: {set: {decoding.num_beams: 0}}\n") == [
        "unknown key 'epoch' (pretrain.set epoch); did you mean 'epochs'?",
        "unknown key 'decod' (contract.set decod); did you mean 'decode'?",
        "decoding.num_beams = '0' (evaluate.set decoding.num_beams): input should be greater than or equal to 1",
    ]
    (left, right) = refused("pretrain: {set: {augmentation.flip_prob: .5}}\n")
    assert "a flipped hand_l is the other hand" in left and "a flipped hand_r is the other hand" in right
    (line,) = refused("pretrain: {config: 'config/no/{stream}.toml'}\nstreams: [face]\n")
    assert line.startswith("config/no/face.toml: No such file or directory")
    (line,) = refused("extract: {set: {box.hand_scale: 2}}\n")
    assert line == "unknown key 'box' (extract.set box.hand_scale); did you mean 'boxes'?"


def test_settings_are_checked_before_there_are_videos_and_all_at_once(folder: Path) -> None:
    text = MINE + "extract: {set: {fpz: 25}}\nintegrate: {set: {train.epoch: 1}, stages: [g2t]}\n"
    expected = [
        "unknown key 'fpz' (extract.set fpz); did you mean 'fps'?",
        "unknown key 'train.epoch' (integrate.set train.epoch); did you mean 'train.epochs'?",
        "unknown key 'train.epoch' (integrate.stages: g2t train.epoch); did you mean 'train.epochs'?",
        "unknown key 'epoch' (pretrain.set epoch); did you mean 'epochs'?",
    ]
    for _ in range(2):  # no folder of videos, then an empty one
        assert refused(text + "pretrain: {set: {epoch: 3}}\n") == expected
        (folder / "videos").mkdir(exist_ok=True)
    (line,) = refused(MINE)
    assert line.startswith("videos: holds no video")


def test_the_config_of_each_stage_is_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "videos" / "a.mp4")
    write(folder / "data" / "mine" / "meta.csv", "id;text\na;hola\n")
    write(folder / "data" / "mine" / "annotations" / "gloss.csv", "id;gloss\na;HOLA\n")
    built: list[str] = []

    def count(model: type[Any], *given: Any, place: str) -> Any:
        built.append(place)
        return build(model, *given, place=place)

    monkeypatch.setattr("signstreams.workflow.plan.build", count)
    found = plan(MINE + "integrate: {stages: [s2g, g2t]}\n")
    write_planned_training(found)
    assert list(found.stages) == ["s2g", "g2t"] and found.text_files("g2t") == []
    assert sorted(place for place in built if place.startswith("integrate")) == [
        "integrate.set",
        "integrate.stages: g2t",
        "integrate.stages: s2g",
    ]


def test_what_the_rules_set_is_refused_below_set() -> None:
    (line,) = refused("integrate:\n  set: {model.face_backbone: 'timm::a', output_dir: x}\n")
    assert "integrate.set: model.face_backbone has no effect: the workflow sets it" in line


def test_own_videos_do_not_mix_with_the_demo_corpus() -> None:
    (line,) = refused("corpus:\n  videos: somewhere\n")
    assert "name a root for your corpus" in line


def test_a_path_with_a_brace_is_named() -> None:
    (line,) = refused("work_dir: 'work{1}'\n")
    assert "work_dir = 'work{1}' holds a brace" in line
    (line,) = refused("corpus: {root: 'data/<demo>'}\n")
    assert "corpus.root = 'data/<demo>' holds <demo>, which Snakemake reads as a variable of paths" in line


def test_the_training_takes_the_backbones_of_the_streams_that_are_named() -> None:
    model = plan("streams: [hand_r]\n").integrate.model
    assert model.hand_right_backbone == "file::work_dirs/dino_hand_r/backbone.pt"
    assert model.hand_left_backbone is None and model.face_backbone is None


def test_a_training_starts_from_the_sequence_pretraining_only_where_that_is_on(folder: Path) -> None:
    assert plan("").integrate.train.sequence_checkpoint is None
    assert "sequence" not in plan("").config.shown()  # pages of before stay current
    on = plan("sequence: true\n")
    assert on.integrate.train.sequence_checkpoint == Path("work_dirs/sequence/best.pt")
    write(folder / "own.toml", "[prediction]\nspan_steps = 3\n")
    assert plan("sequence: own.toml\nwork_dir: w\n").integrate.train.sequence_checkpoint == Path("w/sequence/best.pt")


def test_what_a_sequence_pretraining_would_refuse_is_refused_at_the_start(folder: Path) -> None:
    (line,) = refused("sequence: true\nintegrate: {set: {train.init_checkpoint: a.pt}}\n")
    assert "integrate.set: train.init_checkpoint has no effect: sequence is on, and gives the first weights" in line
    write(folder / "first.yml", "train: {init_checkpoint: a.pt}\n")
    (line,) = refused("sequence: true\nintegrate: {config: first.yml}\n")
    assert "init_checkpoint and sequence_checkpoint both give the first weights; name one of them" in line
    (line,) = refused("sequence: absent.toml\n")
    assert line.startswith("absent.toml: No such file or directory")
    write(folder / "typo.toml", "[prediction]\nspan_step = 3\n")
    (line,) = refused("sequence: typo.toml\n")
    assert line.startswith("unknown key 'prediction.span_step' (typo.toml)")
    write(folder / "wide.toml", "[model]\nd_model = 512\nnum_layers = 5\n")
    write(folder / "deep.yml", "model: {num_layers: 5}\n")
    (line,) = refused("sequence: wide.toml\nintegrate: {config: deep.yml}\n")
    assert line == (
        "wide.toml: model.d_model is 512, expected what the training has (the default); leave it out, it is taken from"
        " there"
    )


def test_a_stage_has_what_it_reads_of_the_training_and_its_own_settings_on_top(folder: Path) -> None:
    write(folder / "mine.yml", "model: {d_model: 64}\nmska: {head_dim: 32}\ndata: {batch_size: 4, frame_stride: 4}\n")
    text = "{config: mine.yml, set: {optim.lr: 0.01}, stages: [s2g, g2t], stage_set: {g2t: {train.epochs: 7}}}"
    planned = plan(f"integrate: {text}\nwork_dir: w\n")
    starts = planned.integrate.train.init_checkpoint
    assert starts == [Path("w/s2g/best.pt"), Path("w/g2t/best.pt")]
    assert stage_settings(planned.config, "g2t") == {
        "model.d_model": 64,
        "data.batch_size": 4,
        "optim.lr": 0.01,
        "train.epochs": 7,
    }
    first = stage_settings(planned.config, "s2g")
    assert {"mska.head_dim", "data.frame_stride"} <= set(first) and "train.epochs" not in first
    assert not {"stages", "stage_set"} & set(plan("").config.shown()["integrate"])  # pages of before stay current


def test_the_stages_of_a_published_training_have_their_own_presets(folder: Path) -> None:
    path = write(folder / "paper.yml", "decoder: {preset: mska_slt, target_language: de_DE}\n")
    config = plan("integrate: {stages: [s2g, g2t]}\n").config
    config = config.model_copy(update={"integrate": config.integrate.model_copy(update={"config": path})})
    assert stage_settings(config, "s2g") == {"decoder.preset": "mska_s2g"}
    assert stage_settings(config, "g2t") == {"decoder.preset": "mska_g2t", "decoder.target_language": "de_DE"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{stages: [s2g, s2g]}", "stages names one twice: s2g, s2g; name each once"),
        ("{stages: [s2g], set: {train.init_checkpoint: a.pt}}", "train.init_checkpoint has no effect: stages give"),
        ("{stages: [g2t], stage_set: {g2t: {model.d_model: 64}}}", "g2t: model.d_model is 64, expected 128, as the"),
        ("{stages: [g2t], stage_set: {g2t: {optim.lr_mska: 1}}}", "optim.lr_mska has no effect: stage g2t learns"),
        ("{stages: [g2t, text]}", "stages: text is not the first, and the others would replace what it learned; move"),
        ("{stages: [text, g2t], stage_set: {g2t: {train.init_checkpoint: a.pt}}}", "it starts from stage text; leave"),
        ("{stages: [text], stage_set: {text: {model.d_model: 64}}}", "text: model.d_model is 64, expected 128, as the"),
        ("{set: {train.text_files: a.txt}}", "train.text_files has no effect: stage text alone reads them"),
        ("{stages: [g2t], stage_set: {g2t: {root: a}}}", "integrate.stage_set.g2t: root has no effect: the workflow"),
        ("{stages: [s2g], stage_set: {s2g: {resume: never}}}", "resume = 'never' would begin from scratch"),
    ],
)
def test_what_a_stage_would_refuse_is_refused_at_the_start(text: str, expected: str) -> None:
    (line,) = refused(f"integrate: {text}\n")
    assert expected in line


def test_stages_and_a_sequence_pretraining_both_give_the_first_weights() -> None:
    (line,) = refused("sequence: true\nintegrate: {stages: [g2t]}\n")
    assert "sequence and integrate.stages both give the first weights of the training; leave one of them out" in line


def test_stages_that_learn_texts_start_from_stage_text(folder: Path) -> None:
    write(folder / "mine.txt", "hola\n")
    text = "integrate: {stages: [text, s2g, g2t], stage_set: {text: {train.text_files: mine.txt}}}\n"
    planned = plan(text)
    config = planned.config
    start = "work_dirs/text/best.pt"
    assert stage_settings(config, "g2t")["train.init_checkpoint"] == json.dumps([start])
    assert not {"train.init_checkpoint"} & {*stage_settings(config, "text"), *stage_settings(config, "s2g")}
    assert (stage_starts(config, "g2t"), stage_starts(config, "s2g")) == ([Path(start)], [])
    assert (planned.text_files("text"), planned.text_files("g2t")) == ([Path("mine.txt")], [])
    assert plan("").text_files("text") == []
    assert json.loads(first_weights(config)["train.init_checkpoint"])[0] == start
    assert stage_starts(plan("integrate: {stages: [g2t]}\n").config, "g2t") == []
    (folder / "mine.txt").unlink()
    (line,) = refused(text)
    assert line.startswith("integrate.stages: text: train.text_files: mine.txt: No such file or directory, expected")


def test_stages_of_glosses_need_some(folder: Path) -> None:
    write(folder / "videos" / "a.mp4")
    write(folder / "data" / "mine" / "meta.csv", "id;text\na;hola\n")
    text = MINE + "integrate: {stages: [s2g, g2t]}\n"
    place = "data/mine/annotations/gloss.csv: has no glosses for the clips of train, expected some"
    assert refused(text) == [
        f"integrate.stages: s2g: {place}; stage s2g learns them; annotate them, or leave it out",
        f"integrate.stages: g2t: {place}; stage g2t reads them; annotate them, or leave it out",
    ]
    write(folder / "data" / "mine" / "annotations" / "gloss.csv", "id;gloss\na;HOLA\n")
    plan(text)


def test_a_pretraining_is_of_a_stream_or_of_both_hands() -> None:
    apart = plan("pretrain: {set: {epochs: 3}}\n")
    artifacts = {"face": "f/{video}", "hand_l": "l/{video}", "hand_r": "r/{video}"}
    assert apart.pretrained == ["face", "hand_l", "hand_r"]
    assert apart.pretraining_folders("hand_l") == Path("data/demo/processed/hand_l")
    assert apart.pretraining_settings("hand_l") == "--set epochs=3"
    assert apart.pretraining_crops("hand_l", artifacts) == [f"l/{video}" for video in apart.videos]
    shared = plan("pretrain: {hands: shared, set: {epochs: 3}}\n")
    assert shared.pretrained == ["face", "hands"]
    assert shared.pretraining_folders("face") == Path("data/demo/processed/face")
    assert shared.pretraining_folders("hands") == [Path(f"data/demo/processed/hand_{side}") for side in "lr"]
    assert shared.pretraining_settings("hands") == "--set epochs=3 --set stream=hands"
    assert shared.pretraining_crops("hands", artifacts) == [
        f"{side}/{video}" for side in "lr" for video in apart.videos
    ]
    assert shared.integrate == apart.integrate  # the later stages read the same paths
    (line,) = refused("pretrain: {hands: shared, set: {augmentation.flip_prob: .5}}\nstreams: [hand_l, hand_r]\n")
    assert "a flipped hand_l is the other hand" in line
    (line,) = refused("pretrain: {hands: shared, config: 'config/no/{stream}.toml'}\nstreams: [hand_l, hand_r]\n")
    assert line.startswith("config/no/hands.toml: No such file or directory")
    for recipe in ("config/pretrain/small.toml", "config/pretrain/{stream}.toml"):
        plan(f"pretrain: {{hands: shared, config: '{recipe}'}}\nstreams: [hand_l, hand_r]\n")


def test_a_storage_provider_is_refused() -> None:
    (line,) = refused("", storage_provider="s3")
    assert line.startswith("--default-storage-provider s3: is not supported")


def test_words_of_settings_survive_a_shell() -> None:
    settings = {"a": True, "b": None, "c": 1e-3, "d.e": 'it\'s "$(x)"\n{y}'}
    assert shlex.split(setting_words(settings)) == [
        "--set", "a=true", "--set", "b=none", "--set", "c=0.001", "--set", 'd.e=it\'s "$(x)"\n{y}',
    ]  # fmt: skip


def test_recipes_that_are_named_by_default_come_from_the_checkout_where_the_folder_has_none(
    folder: Path, project: Path
) -> None:
    assert plan("", checkout=project).config.integrate.config == Path("config/integrate/demo.yml"), "there is one here"
    (folder / "config").unlink()
    (line, *_) = refused("")
    assert line.startswith("config/integrate/demo.yml: No such file or directory")
    config = plan("", checkout=project).config
    assert config.integrate.config == project / "config/integrate/demo.yml"
    assert config.pretrain.config == str(project / "config/pretrain/demo_{stream}.toml")
    write(folder / "videos/a.mp4")
    assert plan(MINE, checkout=project).config.pretrain.config == str(project / "config/pretrain/{stream}.toml")
    (line,) = refused("integrate: {config: config/integrate/small.yml}", checkout=project)
    assert line.startswith("config/integrate/small.yml: No such file or directory"), "one that is named must be here"


# -- Videos


def test_a_missing_or_empty_folder_of_videos_is_named(folder: Path) -> None:
    (line,) = refused(MINE)
    assert line.startswith("corpus.videos: there is no folder 'videos'")
    (folder / "videos").mkdir()
    (line,) = refused(MINE)
    assert line.startswith("videos: holds no video (expected files ending in .mp4 ")


def test_videos_of_several_folders_are_those_of_the_first_that_has_them(folder: Path) -> None:
    for name in ("one/a.mp4", "two/a.mp4", "two/b/1/0.png"):
        write(folder / name)
    found = plan("corpus: {root: data/mine, videos: [one, two]}\n").videos
    assert {video_id: str(source.path) for video_id, source in found.items()} == {"a": "one/a.mp4", "b": "two/b"}
    (folder / "empty").mkdir()
    assert [
        line.partition(";")[0].partition(" (")[0]
        for line in refused(MINE.replace("videos: videos", "videos: [empty, one]"))
    ] == ["empty: holds no video"]
    missing = refused("corpus: {root: data/mine, videos: [one, three, four]}\n")
    assert [line.split("'")[1] for line in missing] == ["three", "four"]
    assert refused("corpus: {root: data/mine, videos: []}\n") != []
    (line,) = refused("corpus: {root: data/mine, videos: [one, 't{w}o']}\n")
    assert "corpus.videos = 't{w}o' holds a brace" in line


def test_unsafe_and_double_video_names_are_named(folder: Path) -> None:
    for name in ("a{b}.mp4", "c\nd.mp4"):
        write(folder / "videos" / name)
    control, brace = sorted(refused(MINE), key=lambda line: "brace" in line)
    assert "'a{b}' holds a brace" in brace and "'c\\nd' holds the control character U+000A" in control
    for name in ("a.mp4", "a.mov"):
        write(folder / "twins" / name)
    (line,) = refused("corpus: {root: data/mine, videos: twins}\n")
    assert "'a.mov' and 'a.mp4' both give the video id 'a'" in line


def test_ids_that_snakemake_reads_as_patterns_are_named_and_odd_ones_are_fine(folder: Path) -> None:
    named = {
        "<b>": "holds <b>, which Snakemake reads as a variable of paths",
        "é" * 100: "repeats 'é",
        "ab" * 20: "repeats 'ab' 20 times, which Snakemake takes for a rule that runs in circles",
        "x<resources>y": "holds <resources>, which",
        "}a": "holds a brace, which Snakemake reads as a wildcard",
    }
    for name in named:
        write(folder / "videos" / f"{name}.mp4")
    problems = refused(MINE)
    assert len(problems) == len(named)
    for name, text in named.items():
        (line,) = [line for line in problems if f"'{name}' " in line]
        assert text in line and line.endswith(f"; rename '{name}.mp4'")
    for path in (folder / "videos").iterdir():
        path.unlink()
    fine = [
        "-rf",
        "--version",
        "100%",
        "%(x)s",
        "it's",
        "<B>",
        "a < b > c",
        "<1>",
        "é" * 19,
        "ab" * 19,
        "$HOME",
        "~",
        "a&b;c",
        "#1",
    ]
    for name in fine:
        write(folder / "videos" / f"{name}.mp4")
    assert set(plan(MINE).videos) == set(fine)
    write(folder / "videos" / ("ab" * 20 + ".mp4"))
    assert len(plan(MINE + "extract: {videos_per_job: 9}\n").videos) == len(fine) + 1, "a batch has another wildcard"


def test_points_of_another_tool_are_named_where_they_are_absent(folder: Path) -> None:
    for path in ("videos/a.mp4", "videos/b.mp4", "points/a.npz"):
        write(folder / path)
    text = MINE + "extract: {set: {detector: precomputed, precomputed.folder: points}}\n"
    (line,) = refused(text)
    assert line.startswith("points/b: no points of this video, expected a file ending in .npz, .npy, .pose")
    write(folder / "points" / "b.pose")
    found = plan(text)
    assert [found.points(video_id) for video_id in "ab"] == [Path("points/a.npz"), Path("points/b.pose")]
    assert plan(MINE).points("a") == []


@pytest.mark.parametrize("name", ["meta.csv", "videos/mine.mp4"])
def test_the_demo_corpus_is_rendered_over_nobodys_videos_and_texts(folder: Path, name: str) -> None:
    write(folder / "data" / "forgot" / name, "id;video;text\na;mine;hola\n")
    (line,) = refused("corpus: {root: data/forgot}\n")
    assert line.startswith(
        f"data/forgot/{name}: is not part of the demo corpus, which would be rendered into data/forgot"
    )
    assert "(corpus.videos: data/forgot/videos)" in line
    assert plan("corpus: {root: data/forgot}\n", is_start=False).is_demo  # a job: checked by who started it


def test_a_file_of_a_clock_that_is_ahead_is_named(folder: Path) -> None:
    path = write(folder / "videos" / "a.mp4")
    os.utime(path, (time.time() + 3600,) * 2)
    (line,) = refused(MINE)
    assert line.startswith("videos/a.mp4: was changed in the future")
    assert plan(MINE, is_start=False).videos


@pytest.mark.parametrize(
    "name",
    ["data/mine/processed/metadata/a.json", "data/mine/contract/manifest.json", "work_dirs/dino_face/backbone.pt"],
)
def test_a_result_of_a_clock_that_has_gone_back_since_is_named(folder: Path, name: str) -> None:
    """Hours of training would be thrown away at their end, as older than what they were made of."""
    write(folder / "videos/a.mp4")
    plan(MINE)
    os.utime(write(folder / name), (time.time() + 3600,) * 2)
    (line,) = refused(MINE)
    assert line.startswith(f"{name}: was changed in the future, as by a clock that is ahead (1 files)")
    plan(MINE, is_start=False)


def test_only_a_corpus_with_texts_has_something_to_translate(folder: Path) -> None:
    write(folder / "videos" / "a.mp4")
    meta = folder / "data" / "mine" / "meta.csv"
    assert "meta.csv: no such file" in str(plan(MINE).why_no_translation())
    write(meta, "video_id;box\na;0 0 50 50\n")
    assert "no column 'text'" in str(plan(MINE).why_no_translation())
    write(meta, "id;video;text\n1;a;hola\n")
    assert plan(MINE).why_no_translation() is None and plan("").why_no_translation() is None


def test_the_errors_of_failed_jobs_are_found_by_the_logs_that_snakemake_names(folder: Path) -> None:
    failed = write(folder / "logs" / "train one.log", "INFO step 3\n" + 2 * "error: x: found y; do z\n")
    retried = write(folder / "logs" / "other.log", "error: of a job that succeeded later\n")
    named = f"Error in rule train:\n    log: {failed} (check log file(s) for error details)\n    log: {retried}\n"
    snakemake = write(folder / "run.log", named)
    assert errors_of_failed_jobs([snakemake, folder / "absent.log"]) == ["x: found y; do z"]


META = "id;video;text;start;end;box\n1;frames ñ;hola;0.1;0.2;\n2;nested;adiós;0.0;0.1;5 5 90 99\n"
SPANS = MINE + "extract: {set: {spans_only: true, span_padding_s: 0.05}}\n"


def test_what_a_job_depends_on_changes_with_spans_box_and_images_and_with_nothing_else(folder: Path) -> None:
    for name in ("frames ñ", "nested/1", "unnamed"):
        for number in (1, 2):
            write(folder / "videos" / name / f"{number}.png", "x")

    def stamps(meta: str = META) -> dict[str, str]:
        write(folder / "data" / "mine" / "meta.csv", meta)
        found = plan(SPANS)
        return {
            video_id: found.annotation_settings(video_id) + found.frames_stamp(video_id) for video_id in found.videos
        }

    before = stamps()
    assert before.keys() == {"frames ñ", "nested"}  # no row names the third

    def changed(after: dict[str, str]) -> set[str]:
        return {video_id for video_id in before if after[video_id] != before[video_id]}

    write(folder / "videos" / "frames ñ" / ".DS_Store")
    assert changed(stamps(META.replace("hola", "another text"))) == set()
    assert changed(stamps(META.replace("0.1;0.2", "0.1;0.25"))) == {"frames ñ"}
    assert changed(stamps(META.replace("5 5 90 99", "5 5 91 99"))) == {"nested"}
    write(folder / "videos" / "nested" / "1" / "1.png", "another image")
    assert changed(stamps()) == {"nested"}


def test_boxes_that_disagree_are_named(folder: Path) -> None:
    write(folder / "videos" / "a" / "1.png")
    write(folder / "data" / "mine" / "meta.csv", "id;video;box\n1;a;1 1 9 9\n2;a;1 1 8 8\n")
    (line,) = refused(MINE)
    assert "different boxes of the video 'a' in the rows 2, 3" in line


# -- Batches and resources


def test_artifacts_are_those_of_each_video_or_the_manifests_of_batches(folder: Path) -> None:
    for name in "abc":
        write(folder / "videos" / f"{name}.mp4")
    single = plan(MINE)
    pattern = single.corpus.pose("{video}")
    assert single.batches is None
    assert single.of_all_videos(pattern) == [f"data/mine/processed/pose/{name}.npz" for name in "abc"]
    batched = plan(MINE + "extract: {videos_per_job: 2}\n")
    assert batched.batches == {"b00000": ["a", "b"], "b00001": ["c"]}
    assert batched.of_all_videos(pattern) == [str(batched.corpus.batch(name)) for name in batched.batches]
    assert plan(MINE + "extract: {videos_per_job: 2}\n", is_start=False).batches == {}  # none was written
    (line,) = refused(MINE + "extract: {videos_per_job: 2}\n", is_module=True)
    assert line.startswith("extract.videos_per_job = 2: batches are planned when a workflow starts")


def test_gpus_are_those_that_are_there_unless_a_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (wanted_gpus("auto"), wanted_gpus(3), wanted_gpus(3, most=1)) == (0, 3, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert (wanted_gpus("auto"), wanted_gpus("auto", most=1), wanted_gpus(0)) == (2, 1, 0)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, (0, 2)),
        ({"gpu": 4}, (4, 2)),
        ({"nodes": 2, "gres": "gpu:4"}, (4, 2)),
        ({"nodes": 2, "gres": "gpu:h100:8", "cpus_per_task": 32}, (8, 32)),
        ({"gpu": 1, "gres": "license:1"}, (1, 2)),
    ],
)
def test_the_profile_decides_how_many_gpus_and_cores(resources: dict[str, Any], expected: tuple[int, int]) -> None:
    assert (granted_gpus(None, resources), granted_cores(None, 2, resources)) == expected


def test_a_number_of_gpus_that_the_profile_overrides_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    text = "pretrain: {gpus: 2}\nembed: {gpus: 1}\n"
    plan(text, set_resources={"pretrain": {"gpu": 1}, "embed": {"gpu": 1}, "train": {"gpu": 1}})
    assert capsys.readouterr().err == (
        "warning: pretrain.gpus = 2 has no effect: the profile (set-resources) gives pretrain another number;"
        " change gpu there\n"
    )
    plan(text)
    assert capsys.readouterr().err == ""


# -- What the training would refuse

NAMED = "decoder: {model: google/mt5-absent}\n"


@pytest.fixture
def mine(folder: Path) -> Path:
    """Footage of one's own, with a text, and a training with a language model that is not here."""
    write(folder / "videos" / "a.mp4")
    write(folder / "named.yml", NAMED)
    return write(folder / "data" / "mine" / "meta.csv", "id;text\na;hola\n")


def test_a_language_model_that_is_not_here_is_refused_when_a_training_is_planned(mine: Path) -> None:
    found = refused(MINE + "integrate: {config: named.yml}\n")
    assert len(found) == 3 and all(line.startswith("decoder.model: google/mt5-absent is not on this") for line in found)
    assert "hf download google/mt5-absent --local-dir models/mt5-absent" in found[0]
    plan(MINE + "integrate: {config: named.yml, set: {decoder.offline: false}}\n")
    plan(MINE + "integrate: {config: named.yml}\n", is_start=False)  # a job: what it is given to do was checked
    mine.write_text("id;box\na;0 0 5 5\n", encoding="utf-8")
    plan(MINE + "integrate: {config: named.yml}\n")  # nothing will be translated


def test_the_contract_is_told_which_training_is_planned_and_what_changes_later_is_checked_at_once(mine: Path) -> None:
    first = plan(MINE)
    write_planned_training(first)
    record = read_record(first.corpus)
    assert record is not None and record.training.data.max_frames == first.integrate.data.max_frames
    for split in ("train", "val", "test"):
        write(first.corpus.index(split), "a\n")
    replace(record, num_frames={"a": 900}).write(first.corpus)  # as the contract leaves it: 450 at stride 2
    write(first.corpus.manifest, "{}")
    plan(MINE)
    shorter = MINE + "integrate: {set: {data.max_frames: 449}}\n"
    line = "meta.csv row 2: clip 'a': has 450 frames, expected at most 449; raise data.max_frames or data.frame_stride"
    assert [text.partition(", set")[0] for text in refused(shorter)] == [line] * 3  # in each split, as one is here
    plan(shorter + "contract: {set: {training.breaches: warn}}\n")
    plan(shorter, is_start=False)
    accepted = plan(MINE + "integrate: {set: {data.max_frames: 450}}\n")
    write_planned_training(accepted)
    assert (found := read_record(first.corpus)) is not None
    assert (found.training.data.max_frames, found.num_frames) == (450, {"a": 900})
    mine.unlink()
    write_planned_training(plan(MINE))
    assert read_record(first.corpus) is None  # nothing to translate any more


def test_nothing_is_trained_on_videos_that_were_extracted_with_other_settings(
    mine: Path, made_metadata: Callable[..., VideoMetadata]
) -> None:
    """Snakemake, which has no record of how they were made, would neither extract nor check them again."""
    found = plan(MINE + "extract: {set: {crop_px: 112, fps: 12}}\n")
    write_planned_extraction(found)
    planned = read_planned(found.corpus)
    assert planned is not None and (planned["crop_px"], planned["fps"], "root" in planned) == (112, 12, False)
    backbone = str(found.runs.backbone("face"))
    refuse_other_extraction(found, {backbone})  # there is no video yet
    write_metadata(found.corpus.metadata("a"), made_metadata("a", 9, size_px=(64, 64), crop_px=224))
    for made in (
        {backbone, str(found.corpus.manifest)},  # the contract runs and says so
        {backbone, str(found.corpus.metadata("a"))},  # it is extracted again
        {str(found.corpus.index("val"))},  # nothing is trained
        set(),
    ):
        refuse_other_extraction(found, made)
    with pytest.raises(UserError) as caught:
        refuse_other_extraction(found, {backbone})
    (line,) = caught.value.problems
    assert line.startswith(
        "processed/metadata: 1 video was extracted with fps none, crop_px 224: 'a', expected fps 12, crop_px 112, as"
        " planned; run: signstreams extract --videos videos --root data/mine --fps 12.0 --crop-px 112; or, in"
    )
    refuse_other_extraction(plan(MINE), {backbone})
