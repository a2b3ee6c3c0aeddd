"""A backbone of both hands in every later stage: crops of left hands are mirrored, and nobody can get it wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone, read_file
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.formats.arrays import Tracks, read_tracks, write_tracks
from signstreams.formats.crops import CropReader, CropWriter, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.batches import collate
from signstreams.integrate.clips import extracted_ids
from signstreams.integrate.embed import embed
from signstreams.integrate.features import ImageReader
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.run import run
from signstreams.integrate.settings import EmbedConfig, EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import load_backbones
from signstreams.integrate.trained_model import load_trained_model
from signstreams.pretrain.views import decode
from signstreams.streams import HANDS

from .models import decoder_of

Build = Callable[..., IntegrateConfig]
Make = Callable[..., Path]


def as_shared(plain: Path, path: Path) -> Path:
    """The same weights as a backbone of both hands."""
    file = read_file(plain)
    metadata = {"image_px": file.about.image_px, "stream": HANDS, "mirrored_streams": ["hand_l"]}
    export_backbone(path, file.arch, VisionTransformer(file.arch).state_dict() | file.state, metadata)
    return path


@pytest.fixture
def plain(tmp_path: Path, make_backbone: Make) -> Path:
    """A backbone of one hand as it is."""
    return make_backbone(tmp_path / "plain.pt")


@pytest.fixture
def shared(plain: Path, tmp_path: Path) -> Path:
    """The same weights as a backbone of both hands."""
    return as_shared(plain, tmp_path / "shared.pt")


def with_right_hands_of_mirrored_left_ones(corpus: Path, copy: Path) -> Path:
    """A copy of the corpus whose right hand is the left one with its pixels mirrored, losslessly."""
    shutil.copytree(corpus, copy)
    layout, reader = CorpusLayout(copy), CropReader()
    for video_id in extracted_ids(layout):
        crops = list_crops(layout.crops("hand_l", video_id))
        mirrored = [(crop.frame, decode(reader.read(crop))[:, ::-1, ::-1]) for crop in crops]  # to BGR, and mirrored
        with CropWriter(layout.crops("hand_r", video_id), video_id) as writer:
            for frame, pixels in mirrored:
                writer.add(frame, cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes())
        tracks = read_tracks(layout.tracks(video_id))
        write_tracks(
            layout.tracks(video_id), Tracks(tracks.streams | {"hand_r": tracks.streams["hand_l"]}, tracks.times_s)
        )
    return copy


@pytest.mark.parametrize("layers", ["last", "weighted", "last_and_patches"])
def test_features_of_a_left_hand_are_those_of_the_right_hand_with_its_mirrored_pixels(
    layers: str, own_corpus: Path, tmp_path: Path, make_backbone: Make
) -> None:
    """Bit for bit; a right hand and a backbone of one hand have the features that they always had."""
    plain = make_backbone(tmp_path / "plain.pt", depth=2)
    shared = as_shared(plain, tmp_path / "shared.pt")
    twin = with_right_hands_of_mirrored_left_ones(own_corpus, tmp_path / "twin")
    found = {}
    for name, corpus, backbone, stream in (
        ("shared left", own_corpus, shared, "hand_l"),
        ("twin right", twin, shared, "hand_r"),
        ("twin right by a plain one", twin, plain, "hand_r"),
        ("shared right", own_corpus, shared, "hand_r"),
        ("plain right", own_corpus, plain, "hand_r"),
        ("plain left", own_corpus, plain, "hand_l"),
    ):
        tree = {"root": corpus, "features_dir": tmp_path / name, "stream": stream, "backbone": f"file::{backbone}"}
        content = embed(EmbedConfig.model_validate(tree | {"backbone_layers": layers}))
        assert content.get("is_mirrored", False) == (name == "shared left")
        assert json.loads((tmp_path / name / f"{stream}.json").read_text()) == content
        files = {video: tmp_path / name / content["folder"] / f"{video}.npy" for video in content["videos"]}
        found[name] = {video: np.load(file) for video, file in files.items()}
    assert len(found["plain left"]) == 8
    for video, rows in found["shared left"].items():
        assert np.isfinite(rows).any()
        np.testing.assert_array_equal(rows, found["twin right"][video])
        np.testing.assert_array_equal(rows, found["twin right by a plain one"][video])
        np.testing.assert_array_equal(found["shared right"][video], found["plain right"][video])
        assert not np.array_equal(rows, found["plain left"][video], equal_nan=True)


def test_a_backbone_that_trains_in_the_model_sees_them_mirrored_too(
    tiny_config: Build, plain: Path, shared: Path, open_splits: Callable[..., object]
) -> None:
    def model(hand_left: Path) -> tuple[MultistreamModel, IntegrateConfig]:
        both = {"hand_left_backbone": f"file::{hand_left}", "hand_right_backbone": f"file::{hand_left}"}
        config = tiny_config(model={**both, "freeze_hand_left_backbone": False, "freeze_hand_right_backbone": False})
        backbones = load_backbones(config)
        dims = backbones.dims | {"pose": 21}
        net = MultistreamModel(
            config, feature_dims=dims, backbones=backbones.trained, num_glosses=5, decoder=decoder_of(config)
        )
        return net.eval(), config

    (ours, config), (theirs, _) = model(shared), model(plain)
    sample = open_splits(config)["val"][0]  # type: ignore[index]
    reader = ImageReader(dict.fromkeys(("hand_l", "hand_r"), 16))
    batch = collate([sample], trained=["hand_l", "hand_r"], read_images=reader)
    flipped = replace(batch, images={stream: images.flip(2) for stream, images in batch.images.items()})
    with torch.no_grad():
        found = {stream: ours._visual(stream, batch)[0] for stream in ("hand_l", "hand_r")}
        assert torch.equal(found["hand_l"], theirs._visual("hand_l", flipped)[0])
        assert not torch.equal(found["hand_l"], theirs._visual("hand_l", batch)[0])
        assert torch.equal(found["hand_r"], theirs._visual("hand_r", batch)[0])


def test_a_model_takes_no_backbone_that_sees_its_crops_otherwise(
    tiny_config: Build, plain: Path, shared: Path, tmp_path: Path
) -> None:
    """Weights of a backbone that trained along are in the model; that they saw mirrored crops stands in the file."""
    both = {"hand_left_backbone": f"file::{shared}", "hand_right_backbone": f"file::{shared}"}
    model = {**both, "freeze_hand_left_backbone": False}
    config = tiny_config(output_dir=tmp_path / "run", model=model, train={"epochs": 1})
    run(config)
    best = config.output_dir / "best.pt"
    assert checkpoint.load(best)["mirrored_streams"] == ["hand_l"]

    def load(path: Path, **given: str) -> object:
        return load_trained_model(EvaluateSltConfig.model_validate({"checkpoint": path, **given}))

    assert load(best).backbones.mirrored == ["hand_l"]  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        load(best, hand_left_backbone=f"file::{plain}")
    (problem,) = caught.value.problems
    assert problem.startswith(f"hand_left_backbone: sees hand_l crops as they are, but {best} was trained otherwise")
    content = checkpoint.load(best)
    for wrong in ([], ["face", "hand_l"], "hand_l", 3):
        other = best.with_name("other.pt")
        torch.save(content | {"mirrored_streams": wrong}, other)
        with pytest.raises(UserError, match=r"was trained otherwise|mirrored_streams are damaged"):
            load(other)
    other_run = {"model": {**model, "hand_left_backbone": f"file::{plain}"}, "train": {"init_checkpoint": best}}
    with pytest.raises(UserError, match=r"hand_l saw crops mirrored, expected as hand_left_backbone sees them"):
        run(tiny_config(output_dir=tmp_path / "other", **other_run))


def test_what_a_file_says_of_its_mirror_is_checked(shared: Path, tmp_path: Path) -> None:
    content = checkpoint.load(shared)
    for wrong in ("hand_l", ["hand_x"], [1], {"hand_l": True}):
        content["metadata"]["mirrored_streams"] = wrong
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(UserError, match=r"wrong\.pt: its metadata\.mirrored_streams.* is "):
            read_file(tmp_path / "wrong.pt")
