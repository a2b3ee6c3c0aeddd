"""Features, and the whole judge: table, JSON, CSV, picture."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer, resize_table
from signstreams.backbones.weights import export_backbone, load_dinov2_backbone, read_file
from signstreams.commands import main
from signstreams.engine.seeding import torch_generator
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import CorpusLayout
from signstreams.judge.features import (
    Source,
    first_weights,
    grey_pixels,
    item_features,
    mean_of_frames,
    motion_of_frames,
    sources,
)
from signstreams.judge.labelled_sets import LabelledSet, read_set
from signstreams.judge.report import table
from signstreams.judge.run import evaluate_backbones
from signstreams.judge.settings import EvaluateBackboneConfig
from signstreams.pretrain.crop_points import point_shapes
from signstreams.pretrain.data import load_whole

CPU = torch.device("cpu")


def set_of(data: Path, labels: str) -> LabelledSet:
    return read_set(EvaluateBackboneConfig(data=data, output=data, labels=labels))


def test_the_report_holds_every_source_split_and_probe(photos: Path, backbone: Path, tmp_path: Path) -> None:
    config = EvaluateBackboneConfig(
        data=photos, output=tmp_path / "out", backbone=[str(backbone)], labels="<signer>_<class>_<n>", k=3
    )
    report = evaluate_backbones(config)
    assert json.loads((tmp_path / "out" / "judge.json").read_text()) == report
    assert [(row["name"], row["features"]) for row in report["rows"]] == [
        ("dino_hand_r/backbone.pt", "class token"),
        ("dino_hand_r/backbone.pt", "class token, patches"),
        ("first weights", "class token"),
        ("first weights", "class token, patches"),
        ("HOG", ""),
        ("grey pixels", ""),
    ]
    assert {name: about["num_asked"] for name, about in report["splits"].items()} == {"split": 8, "signer_out": 24}
    assert report["splits"]["split"]["most_frequent"] == 0.25
    by_hog = report["rows"][4]["scores"]["signer_out"]
    assert by_hog["nearest"]["value"] == by_hog["probe"]["value"] == 1.0  # four angles, far apart
    for row, first in zip(report["rows"][:2], report["rows"][2:4], strict=True):
        assert list(row["differences"]) == ["first weights", "grey pixels", "HOG"]
        for name, other in (("first weights", first), ("grey pixels", report["rows"][5]), ("HOG", report["rows"][4])):
            for split, probes in row["scores"].items():
                found = row["differences"][name][split]["knn"]
                assert found["value"] == pytest.approx(probes["knn"]["value"] - other["scores"][split]["knn"]["value"])
                assert found["low"] <= found["value"] <= found["high"]
    assert not any("differences" in row for row in report["rows"][2:])
    assert [row.get("sha256") for row in report["rows"]] == [sha256_file(backbone)] * 2 + [None] * 4
    assert (tmp_path / "out" / "judge.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "judge.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 2 * 3
    found = next(r for r in rows if (r["name"], r["split"], r["probe"]) == ("grey pixels", "split", "knn"))
    assert float(found["accuracy"]) == pytest.approx(report["rows"][5]["scores"]["split"]["knn"]["value"], abs=1e-6)
    shown = table(report)
    assert "100.0 [100, 100]" in shown
    assert "unseen signers: 24 asked in 3 folds" in shown


def test_the_command_prints_the_verdict_on_a_backbone_that_is_alone(
    photos: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate-backbone", "--data", str(photos), "--labels", "<signer>_<class>_<n>", "--k", "3"]
    main([*words, "--output", str(tmp_path / "one"), "--backbone", str(backbone)])
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith("On unseen signers the backbone ") and verdict.endswith("; right answers of 3-NN.")
    assert all(name in verdict for name in (" its first weights, ", " grey pixels, ", " HOG, "))
    main([*words, "--output", str(tmp_path / "none")])
    assert "right answers" not in capsys.readouterr().out


def test_equal_calls_give_equal_files(photos: Path, backbone: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate_backbones(EvaluateBackboneConfig(data=photos, output=tmp_path / name, backbone=[str(backbone)]))
    for name in ("judge.json", "judge.csv", "judge.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_first_weights_are_those_of_the_run(backbone: Path) -> None:
    trained = load_dinov2_backbone(f"file::{backbone}")
    assert isinstance(trained.model, VisionTransformer)
    first, about = first_weights(f"file::{backbone}", trained, seed=99)
    expected = VisionTransformer(trained.model.arch)
    expected.init_weights(torch_generator(5, "backbone"))  # the seed in params.json beside it
    for one, other in zip(first.model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert about.endswith("random weights, seed 5")
    backbone.with_name("params.json").write_text(
        json.dumps({"config": {"seed": 5, "init": {"weights": f"file::{backbone}"}}})
    )
    began, about = first_weights(f"file::{backbone}", trained, seed=99)
    assert torch.equal(began.model.state_dict()["cls_token"], trained.model.cls_token)
    assert "the weights it began with" in about
    backbone.with_name("params.json").unlink()
    assert first_weights(f"file::{backbone}", trained, seed=99)[1].endswith("seed 99, which may not be its own")


def test_first_weights_from_others_see_images_as_the_run_did(backbone: Path, tmp_path: Path) -> None:
    """The weights that a run began with were of larger images, otherwise normalised, and had no registers."""
    file = read_file(backbone)
    larger = VisionTransformer(resolve("vit_tiny", image_px=32, patch_px=8, depth=1))
    larger.init_weights(torch_generator(8, "others"))
    start = tmp_path / "start.pt"
    export_backbone(start, larger.arch, larger.state_dict(), {"image_px": 32, "mean": [0.1] * 3, "std": [0.5] * 3})
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=1, num_registers=2)
    trained = VisionTransformer(arch)
    export_backbone(backbone, arch, trained.state_dict(), file.metadata)
    config = {"seed": 5, "init": {"weights": f"file::{start}"}}
    backbone.with_name("params.json").write_text(json.dumps({"config": config}))
    first, about = first_weights(f"file::{backbone}", load_dinov2_backbone(f"file::{backbone}"), seed=99)
    assert (first.image_px, first.mean, first.std) == (16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    expected = VisionTransformer(arch)
    expected.init_weights(torch_generator(5, "backbone"))  # the registers, which the start does not have
    given = read_file(start).state
    expected.load_state_dict(given | {"pos_embed": resize_table(given["pos_embed"], 2, 2)}, strict=False)
    for (name, one), other in zip(first.model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert about == f"the weights it began with, file::{start}, registers of seed 5"


def test_each_backbone_is_beside_first_weights_that_see_images_as_it_does(photos: Path, backbone: Path) -> None:
    file = read_file(backbone)
    other = backbone.parents[1] / "dino_hand_l" / "backbone.pt"
    export_backbone(other, file.arch, VisionTransformer(file.arch).state_dict(), file.metadata | {"mean": [0.1] * 3})
    other.with_name("params.json").write_text(backbone.with_name("params.json").read_text())
    found = set_of(photos, "folders")
    judged = sources([str(backbone), str(other)], found, seed=0, download=False, device=CPU)
    by_name = {source.name: source for source in judged}
    firsts = [source.first for source in judged if source.kind == "backbone"]
    assert firsts == [f"first weights of {stream}/backbone.pt" for stream in ("dino_hand_r", "dino_hand_l")]
    part, every = found.parts[0], slice(0, len(found.names))
    one, two = (by_name[str(name)].encode(part, every)["class token"] for name in firsts)
    assert not torch.equal(one, two)
    first, _ = first_weights(f"file::{other}", load_dinov2_backbone(f"file::{other}"), seed=0)
    with torch.no_grad():
        torch.testing.assert_close(two, first(first.inputs(load_whole(part.crops, 16), None)))


def test_features_of_a_backbone_are_its_own_tokens(photos: Path, backbone: Path) -> None:
    found = set_of(photos, "folders")
    (source, *_) = sources([str(backbone)], found, seed=0, download=False, device=CPU)
    features = item_features(source, found)
    net = load_dinov2_backbone(f"file::{backbone}")
    assert isinstance(net.model, VisionTransformer)
    inputs = net.inputs(load_whole(found.parts[0].crops, 16), None)
    with torch.no_grad():
        classes, patches = net.model.forward_features(inputs)
    torch.testing.assert_close(features["class token"], classes)
    expected = torch.cat((classes, patches.sum(dim=1) / 4), dim=1)
    torch.testing.assert_close(features["class token, patches"], expected)


def test_pixels_and_points_ignore_what_they_should() -> None:
    image = np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(grey_pixels(image + np.uint8(50)), grey_pixels(image), atol=1e-3)
    points = np.random.default_rng(1).random((2, 21, 2))
    np.testing.assert_allclose(point_shapes(3 * points + 100), point_shapes(points), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(point_shapes(points), axis=1), 1, rtol=1e-6)
    assert np.isnan(point_shapes(np.full((1, 21, 2), np.nan))).all()


def test_frames_of_a_clip_are_pooled() -> None:
    frames = torch.tensor([[2.0, 0.0], [0.0, 3.0], [torch.nan, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(mean_of_frames(frames), torch.tensor([1 / 3, 2 / 3]))
    pooled = motion_of_frames(frames).reshape(5, 2)
    mean, deviation = torch.tensor([1 / 3, 2 / 3]), torch.tensor([2, 2]).sqrt() / 3
    expected = [F.normalize(x, dim=0) for x in (mean, deviation)] + [frames.new_tensor(x) for x in ([1, 0], [0, 1])]
    torch.testing.assert_close(pooled, torch.stack([*expected, expected[-1]]))
    torch.testing.assert_close(motion_of_frames(frames[:1]).reshape(5, 2)[2:], frames.new_tensor([[1.0, 0]] * 3))
    assert mean_of_frames(frames[2:3]).tolist() == [0, 0]
    assert motion_of_frames(frames[2:3]).tolist() == [0] * 10


def test_the_order_of_frames_tells_clips_apart_by_the_longer_feature(
    add_video: Callable[..., CorpusLayout], tmp_path: Path
) -> None:
    """`up` and `down` show the same bars in opposite order; the mean over frames cannot know."""
    for person in range(3):
        layout = add_video(f"up_{person}", 0, 1.2, shade=20 * person)
        add_video(f"down_{person}", 1.2, 0, shade=20 * person)
    words = {"data": layout.root, "output": tmp_path / "out", "labels": "<class>_<signer>", "streams": ["hand_r"]}
    report = evaluate_backbones(EvaluateBackboneConfig.model_validate(words))
    scores = {(row["name"], row["features"]): row["scores"]["signer_out"] for row in report["rows"]}
    assert {name for name, _ in scores} == {"hand points", "HOG", "grey pixels"}
    assert scores["HOG", "mean, deviation, thirds"]["nearest"]["value"] == 1.0
    assert scores["hand points", "mean, deviation, thirds"]["nearest"]["value"] == 1.0
    found = set_of(layout.root, "<class>_<signer>")
    by_name = {source.name: source for source in sources([], found, seed=0, download=False, device=CPU)}
    mean = item_features(by_name["hand points"], found)["mean"]
    place = {name: i for i, name in enumerate(found.names)}
    torch.testing.assert_close(mean[place["up_0"]], mean[place["down_0"]])
    torch.testing.assert_close(mean.square().sum(dim=1), torch.full((6,), 2.0))  # two hands of length 1


def test_all_backbones_that_do_not_load_are_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    words = {"data": photos, "output": tmp_path / "out", "backbone": ["absent.pt", str(tmp_path / "text.pt")]}
    with pytest.raises(UserError) as caught:
        evaluate_backbones(EvaluateBackboneConfig.model_validate(words))
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()


def test_the_script_prints_the_table(photos: Path, backbone: Path, tmp_path: Path, project: Path) -> None:
    command = [sys.executable, str(project / "scripts" / "evaluate_backbone.py"), "--data", str(photos), "--no-probe"]
    command += ["--backbone", str(backbone), f"file::{backbone}:vit_tiny", "--output", str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "grey pixels" in answer.stdout
    assert "probe" not in answer.stdout
    assert answer.stdout.count("first weights of") == 2  # two features of one network


def test_a_backbone_of_both_hands_is_judged_on_left_hands_mirrored(
    add_video: Callable[..., CorpusLayout], photos: Path, backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first weights, too; what costs nothing is not; of photos nobody says which hand they show."""
    for video in ("a0", "a1", "b0"):
        layout = add_video(video, 0.3, 1.2)
    file = read_file(backbone)
    shared = backbone.with_name("shared.pt")
    metadata = file.metadata | {"stream": "hands", "mirrored_streams": ["hand_l"]}
    export_backbone(shared, file.arch, VisionTransformer(file.arch).state_dict() | file.state, metadata)
    found = read_set(EvaluateBackboneConfig(data=layout.root, output=layout.root, labels="<class><n>"))
    assert [part.stream for part in found.parts] == ["hand_l", "hand_r"]
    judged = sources([str(backbone), str(shared)], found, seed=0, download=False, device=CPU)
    by_kind: dict[str, list[Source]] = {}
    for source in judged:
        by_kind.setdefault(source.kind, []).append(source)
    net = load_dinov2_backbone(f"file::{backbone}")
    left, right = found.parts
    every = slice(0, len(left.crops))
    for kind in ("backbone", "first weights"):
        plain, both = by_kind[kind]
        assert torch.equal(plain.encode(right, every)["class token"], both.encode(right, every)["class token"])
        assert not torch.equal(plain.encode(left, every)["class token"], both.encode(left, every)["class token"])
    images = load_whole(left.crops, 16)
    with torch.no_grad():
        expected = net(net.inputs(images.flip(2), None))
    torch.testing.assert_close(by_kind["backbone"][1].encode(left, every)["class token"], expected)
    assert by_kind["first weights"][1].about.endswith(", left hands mirrored")
    assert "nothing says" not in caplog.text
    sources([str(shared)], set_of(photos, "folders"), seed=0, download=False, device=CPU)
    assert f"file::{shared}: sees left hands mirrored, and nothing says which hand these images show" in caplog.text
